// One turn: what was said, what was understood, the answer with its reasons, and what a person can do about it.
import { useQueryClient } from "@tanstack/react-query";
import { lazy, type ReactNode, Suspense, useState } from "react";
import { follow } from "./live";
import { type Learned, LearnedView, learnedOf } from "./learned";
import { LessonsUsed } from "./lessons";
import { type Opened, TurnActions } from "./actions";
import { Result } from "./result";
import { SqlBlock } from "./sql";
import { Tools } from "./tools";
import { UnderstoodCard } from "./understood";
import { send } from "../api";
import { sayFailure } from "../parts/toasts";
import type { ChatFull, Kept, Turn } from "../types";

const Words = lazy(() => import("./markdown"));

interface Props {
  turn: Turn;
  chat: ChatFull;
  last: boolean;
  busy: boolean;
  /** What came of a correction that this turn answers. */
  learned?: Learned | undefined;
  onLearned?: (turn: string, learned: Learned) => void;
}

export function TurnView({ turn, chat, last, busy, learned, onLearned }: Props) {
  const client = useQueryClient();
  const [opened, setOpened] = useState<Opened>("");
  const reload = (): void => void client.invalidateQueries({ queryKey: ["chat", chat.id] });
  const taught = turn.corrections.find((one) => one.id === turn.understood?.correction);

  const heard = (kept: Kept): void => onLearned?.(kept.turn?.id || turn.id, learnedOf(kept, chat.memory));
  const inTheCard = turn.status === "noted" && turn.understood;
  const spoken = turn.reply && !inTheCard && !(turn.kind === "sql" && (WITHOUT[turn.status] || onlyFigure(turn)));

  function choose(number: number): void {
    const path = `/api/turns/${turn.id}/feedback`;
    void follow({ client, chat: chat.id, kind: turn.kind, path, body: { kind: "choose", number }, text: "" });
  }

  if (turn.replaced) return <Earlier turn={turn} />;
  return (
    <article className="turn" data-row tabIndex={-1} aria-label={`Turn: ${turn.text.slice(0, 80)}`}>
      {turn.text && turn.text !== turn.sql && !turn.replaces && <p className="said">{turn.text}</p>}
      {turn.sql && turn.text === turn.sql && <p className="said">My own query</p>}
      {learned && <LearnedView of={learned} onChanged={reload} />}
      {turn.understood && <UnderstoodCard of={turn.understood} undone={taught?.undone ?? false} onChanged={reload} />}
      {turn.asked && turn.asked !== turn.text && turn.asked !== turn.sql && (
        <p className="asked">Read as: {turn.asked}</p>
      )}
      <Named words={turn.named} />
      <Tools tools={turn.tools} />
      {spoken && (
        <div className="reply">
          <Suspense fallback={<p className="plain">{turn.reply}</p>}>
            <Words text={turn.reply} />
          </Suspense>
        </div>
      )}
      {turn.edited && <p className="asked">Edited by you.</p>}
      {!busy && <Outcome turn={turn} />}
      {turn.readings.length > 1 && turn.status !== "answered" && (
        <Readings turn={turn} disabled={busy || !last} onChoose={choose} />
      )}
      {turn.sql && <SqlBlock key={turn.sql} turn={turn} chat={chat} busy={busy} onLearned={heard} />}
      {(turn.columns.length > 0 || (turn.rows === null && turn.sql)) && <Result turn={turn} />}
      {turn.explanation && <p className="explanation">{withCode(turn.explanation)}</p>}
      {turn.limits.length > 0 && (
        <ul className="limits" aria-label="Limits of this answer">
          {turn.limits.map((limit) => (
            <li key={limit}>{withCode(limit)}</li>
          ))}
        </ul>
      )}
      {busy && <Working turn={turn} />}
      <LessonsUsed lessons={turn.lessons} />
      <Corrections turn={turn} onChanged={reload} />
      {!busy && turn.id && (turn.kind === "sql" || !WORDLESS.has(turn.status)) && (
        <TurnActions turn={turn} chat={chat} last={last} opened={opened} onOpen={setOpened} onLearned={heard} />
      )}
    </article>
  );
}

/** An answer that another one took the place of. */
function Earlier({ turn }: { turn: Turn }) {
  return (
    <article className="turn" data-row tabIndex={-1} aria-label="An earlier answer">
      {turn.text && <p className="said">{turn.text}</p>}
      <details className="earlier">
        <summary>An earlier answer{turn.verdict === "down" ? ", which you did not like" : ""}</summary>
        {turn.reply && <p className="reply plain">{turn.reply}</p>}
        {turn.sql && <pre tabIndex={0}>{turn.sql}</pre>}
      </details>
    </article>
  );
}

/** Turns of the agent in which no model answered: there is nothing to judge. */
const WORDLESS = new Set(["noted", "refused"]);

const WITHOUT: Record<string, string> = {
  abstained: "Not answered",
  refused: "Refused",
  failed: "Failed",
  stopped: "Stopped",
};

/** Words of ours in which names of the database stand between backticks; they begin with a capital letter. */
function withCode(words: string): ReactNode[] {
  const text = words.charAt(0).toUpperCase() + words.slice(1);
  return text.split("`").map((part, i) => (i % 2 ? <code key={i}>{part}</code> : part));
}

/** What of the database the question names; what is not found stands among the limits. */
function Named({ words = "" }: { words?: string }) {
  const found = words.split(/;? ?not found in the database/)[0];
  return found ? <p className="asked">{withCode(found)}</p> : null;
}

/** Does the reply only repeat the one figure that is shown? */
function onlyFigure(turn: Turn): boolean {
  const cell = turn.row_count === 1 && turn.columns.length === 1 ? turn.rows?.[0]?.[0] : undefined;
  if (cell === undefined) return false;
  const letters = (text: string): string => text.replace(/[^\p{L}\p{N}]/gu, "");
  return letters(turn.reply) === letters(cell === null ? "NULL" : String(cell));
}

/** Why there is no answer, and what to do. */
function Outcome({ turn }: { turn: Turn }) {
  const word = WITHOUT[turn.status];
  if (!word || (turn.kind === "chat" && !turn.reason)) return null;
  const why = turn.kind === "sql" && turn.reply ? turn.reply : turn.reason;
  return (
    <p className={`outcome outcome-${turn.status}`}>
      <strong>{word}.</strong> {why.charAt(0).toUpperCase() + why.slice(1)}
      {turn.status === "failed" && `${/[.?!]$/.test(why) ? "" : "."} Ask again, or in other words.`}
    </p>
  );
}

/** While it works: what it does now. */
function Working({ turn }: { turn: Turn }) {
  const doing = turn.columns.length ? "Explaining" : turn.sql ? "Running the query" : turn.reply ? "" : "Thinking";
  return (
    <p className="working" aria-hidden>
      <span className="dots" />
      {doing}
    </p>
  );
}

function Readings(props: { turn: Turn; disabled: boolean; onChoose: (number: number) => void }) {
  return (
    <div role="group" className="readings" aria-label="Which one is meant?">
      <h2 className={props.turn.reply ? "unseen" : ""}>Which one is meant?</h2>
      <ol>
        {props.turn.readings.map((reading) => (
          <li key={reading.number}>
            <button type="button" disabled={props.disabled} onClick={() => props.onChoose(reading.number)}>
              <span className="reading-text">{reading.text || reading.sql}</span>
              {reading.text && <code>{reading.sql}</code>}
            </button>
          </li>
        ))}
      </ol>
    </div>
  );
}

const KINDS: Record<string, string> = {
  words: "You corrected",
  edit: "You edited the answer",
  sql: "You gave the query",
  regenerate: "You asked again",
  choose: "You chose a reading",
};

function Corrections({ turn, onChanged }: { turn: Turn; onChanged: () => void }) {
  const client = useQueryClient();
  // What the message itself taught stands in the card above.
  const told = turn.corrections.filter((one) => one.id !== turn.understood?.correction);
  if (told.length === 0) return null;

  async function undo(id: string): Promise<void> {
    try {
      await send("POST", `/api/corrections/${encodeURIComponent(id)}/undo`, {});
      await client.invalidateQueries({ queryKey: ["memory"] });
      onChanged();
    } catch (thrown) {
      sayFailure(thrown);
    }
  }

  return (
    <ul className="corrections" aria-label="Your corrections">
      {told.map((one) => (
        <li key={one.id} className={one.undone ? "undone" : ""}>
          <span>
            {KINDS[one.kind] ?? "You said"}
            {one.words && `: ${one.words}`}
          </span>
          {one.undone ? (
            <span className="muted">taken back</span>
          ) : (
            <button type="button" className="link" onClick={() => void undo(one.id)}>
              Undo
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
