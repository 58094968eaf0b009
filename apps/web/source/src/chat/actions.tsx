// What a person can do about an answer: thumbs, words, an edit, another try with a reason.
import { useQueryClient } from "@tanstack/react-query";
import { Check, Copy, MessageSquareQuote, PenLine, RefreshCw, ThumbsDown, ThumbsUp } from "lucide-react";
import { useState } from "react";
import { send } from "../api";
import { sayFailure } from "../parts/toasts";
import type { ChatFull, Kept, Turn } from "../types";
import { fullTime, many, money, seconds } from "../words";
import { follow } from "./live";

export type Opened = "" | "words" | "edit" | "regenerate";

interface Props {
  turn: Turn;
  chat: ChatFull;
  last: boolean;
  opened: Opened;
  onOpen: (what: Opened) => void;
  onLearned: (kept: Kept) => void;
}

export function TurnActions({ turn, chat, last, opened, onOpen, onLearned }: Props) {
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  const path = `/api/turns/${turn.id}/feedback`;

  async function tell(body: Record<string, unknown>): Promise<void> {
    setBusy(true);
    try {
      const kept = await send<Kept>("POST", path, body);
      if (body.kind !== "up" && body.kind !== "down") onLearned(kept);
      onOpen("");
      await client.invalidateQueries({ queryKey: ["chat", chat.id] });
      await client.invalidateQueries({ queryKey: ["memory"] });
    } catch (thrown) {
      sayFailure(thrown);
    } finally {
      setBusy(false);
    }
  }

  function again(text: string): void {
    onOpen("");
    const body = { kind: "regenerate", text };
    void follow({ client, chat: chat.id, kind: turn.kind, path, body, text: "" });
  }

  const whole = turn.status !== "failed" && turn.status !== "stopped";
  const toggle = (what: Opened): void => onOpen(opened === what ? "" : what);
  return (
    <footer className="actions">
      <div className="actions-row">
        {whole && (
          <>
            <button
              type="button"
              className="icon"
              aria-label="Good answer"
              title="Good answer"
              aria-pressed={turn.verdict === "up"}
              disabled={busy}
              onClick={() => void tell({ kind: "up" })}
            >
              <ThumbsUp />
            </button>
            <button
              type="button"
              className="icon"
              aria-label="Bad answer"
              title="Bad answer"
              aria-pressed={turn.verdict === "down"}
              disabled={busy}
              onClick={() => void tell({ kind: "down" })}
            >
              <ThumbsDown />
            </button>
            <button
              type="button"
              className="icon worded"
              aria-expanded={opened === "words"}
              onClick={() => toggle("words")}
            >
              <MessageSquareQuote aria-hidden /> Correct
            </button>
          </>
        )}
        {whole && turn.reply && turn.kind === "chat" && (
          <button
            type="button"
            className="icon worded"
            aria-expanded={opened === "edit"}
            onClick={() => toggle("edit")}
          >
            <PenLine aria-hidden /> Edit
          </button>
        )}
        {last && (
          <button
            type="button"
            className="icon worded"
            aria-expanded={opened === "regenerate"}
            onClick={() => toggle("regenerate")}
          >
            <RefreshCw aria-hidden /> Again
          </button>
        )}
        <CopyButton text={turn.reply || turn.sql} />
        <Spent turn={turn} />
      </div>
      {opened === "words" && (
        <Telling
          label={turn.kind === "sql" ? "What is wrong with this answer?" : "What should be different, and when?"}
          hint={turn.kind === "sql" ? "Returns are not orders" : "No emojis when you write to my boss"}
          act="Correct it"
          busy={busy}
          onSend={(text) => void tell({ kind: "words", text })}
          onClose={() => onOpen("")}
        />
      )}
      {opened === "edit" && (
        <Telling
          label="Your version of the answer"
          start={turn.reply}
          act="Keep my version"
          busy={busy}
          tall
          onSend={(text) => void tell({ kind: "edit", text })}
          onClose={() => onOpen("")}
        />
      )}
      {opened === "regenerate" && (
        <Telling
          label="Why again? (may stay empty)"
          hint="Shorter, and with figures"
          act="Answer again"
          empty
          busy={busy}
          onSend={again}
          onClose={() => onOpen("")}
        />
      )}
    </footer>
  );
}

/** Calls, tokens, money and time of a turn. */
function Spent({ turn }: { turn: Turn }) {
  if (!turn.usage) return null;
  const { calls, tokens, cost, seconds: took, first } = turn.usage;
  const begun = first ? `, first words after ${seconds(first)}` : "";
  return (
    <span className="spent" title={`${many(calls, "call")}, ${many(tokens, "token")}${begun}; ${fullTime(turn.at)}`}>
      {seconds(took)} · {money(cost)}
    </span>
  );
}

function CopyButton({ text }: { text: string }) {
  const [done, setDone] = useState(false);
  if (!text) return null;
  return (
    <button
      type="button"
      className="icon"
      aria-label={done ? "Copied" : "Copy the answer"}
      title={done ? "Copied" : "Copy the answer"}
      onClick={() => {
        navigator.clipboard.writeText(text).then(
          () => {
            setDone(true);
            window.setTimeout(() => setDone(false), 1_500);
          },
          () => sayFailure(new Error("The browser did not let the page copy.")),
        );
      }}
    >
      {done ? <Check /> : <Copy />}
    </button>
  );
}

interface TellingProps {
  label: string;
  hint?: string;
  start?: string;
  act: string;
  busy: boolean;
  tall?: boolean;
  empty?: boolean;
  onSend: (text: string) => void;
  onClose: () => void;
}

function Telling({ label, hint, start = "", act, busy, tall, empty, onSend, onClose }: TellingProps) {
  const [text, setText] = useState(start);
  const ready = !busy && (empty || (text.trim() !== "" && text !== start));
  return (
    <form
      className="telling"
      onSubmit={(event) => {
        event.preventDefault();
        if (ready) onSend(text.trim());
      }}
    >
      <label>
        {label}
        <textarea
          rows={tall ? 8 : 2}
          value={text}
          placeholder={hint}
          autoFocus
          onChange={(event) => setText(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") onClose();
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (!tall && !event.shiftKey))) {
              event.preventDefault();
              if (ready) onSend(text.trim());
            }
          }}
        />
      </label>
      <div className="row end-row">
        <button type="button" className="button small" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className="button primary small" disabled={!ready}>
          {busy ? "Trying it" : act}
        </button>
      </div>
    </form>
  );
}
