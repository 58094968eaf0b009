// Two policies on the same questions, side by side.
import { useQuery } from "@tanstack/react-query";
import { Equal, EqualNot, Play, Square } from "lucide-react";
import { type FormEvent, useRef, useState } from "react";
import { get, isAbort, stream } from "../api";
import { Choice, Empty, Notice } from "../parts/bits";
import type { CompareEvent, Me, Policy, Turn } from "../types";
import { count, modelName, money, seconds } from "../words";

type Pair = Extract<CompareEvent, { type: "pair" }>;
type Done = Extract<CompareEvent, { type: "done" }>;

const MOST = 50;

function labelOf(policy: Policy | undefined, otherwise = ""): string {
  return policy ? policy.label.replace(policy.model, modelName(policy.model)) : otherwise;
}

function chosen(policies: Policy[], key: string): { model?: string; memory?: string } {
  const policy = policies[Number(key)];
  if (!policy) return {};
  return { model: policy.model, ...(policy.memory ? { memory: policy.memory } : {}) };
}

export default function ComparePage({ me }: { me: Me }) {
  const policies = useQuery({ queryKey: ["policies"], queryFn: () => get<Policy[]>("/api/policies") });
  const offered = policies.data ?? [];
  const [db, setDb] = useState(me.databases[0]?.name ?? "");
  const [a, setA] = useState("0");
  const [b, setB] = useState("1");
  const [typed, setTyped] = useState("");
  const [pairs, setPairs] = useState<Pair[]>([]);
  const [done, setDone] = useState<Done | null>(null);
  const [failure, setFailure] = useState<unknown>(null);
  const [only, setOnly] = useState<"all" | "differ">("all");
  const abort = useRef<AbortController | null>(null);
  const [busy, setBusy] = useState(false);
  const questions = typed
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

  async function start(event: FormEvent): Promise<void> {
    event.preventDefault();
    if (questions.length === 0 || questions.length > MOST) return;
    setPairs([]);
    setDone(null);
    setFailure(null);
    setBusy(true);
    abort.current = new AbortController();
    const body = { db, questions, a: chosen(offered, a), b: chosen(offered, b) };
    try {
      await stream<CompareEvent>(
        "/api/compare",
        body,
        (told) => {
          if (told.type === "pair") setPairs((before) => [...before, told].sort((p, q) => p.n - q.n));
          else if (told.type === "done") setDone(told);
          else setFailure(told);
        },
        abort.current.signal,
      );
    } catch (thrown) {
      if (!isAbort(thrown)) setFailure(thrown);
    } finally {
      setBusy(false);
    }
  }

  const labels = [labelOf(offered[Number(a)], "A"), labelOf(offered[Number(b)], "B")] as const;
  const shown = pairs.filter((pair) => only === "all" || !pair.same);
  const differ = pairs.filter((pair) => !pair.same).length;
  return (
    <div className="page compare">
      <header className="page-head">
        <h1>Compare</h1>
        <p className="lead">Two models or memories answer the same questions. What differs is marked.</p>
      </header>
      {policies.error && <Notice failure={policies.error} />}
      <form className="compare-form" onSubmit={(event) => void start(event)}>
        <div className="compare-picks">
          <Pick
            label="Database"
            value={db}
            onChange={setDb}
            options={me.databases.map((d) => [d.name, d.title || d.name])}
          />
          <Pick label="A" value={a} onChange={setA} options={offered.map((p, i) => [String(i), labelOf(p)])} />
          <Pick label="B" value={b} onChange={setB} options={offered.map((p, i) => [String(i), labelOf(p)])} />
        </div>
        <label>
          Questions, one a line
          <textarea
            rows={4}
            value={typed}
            placeholder={"How many orders came from Berlin?\nWhich product sold best in May?"}
            onChange={(event) => setTyped(event.target.value)}
          />
        </label>
        <div className="row end-row">
          <span className={questions.length > MOST ? "bad" : "muted"}>
            {questions.length > MOST
              ? `${questions.length} questions; at most ${MOST} at once`
              : `${questions.length} of ${MOST}`}
          </span>
          {busy ? (
            <button type="button" className="button" onClick={() => abort.current?.abort()}>
              <Square aria-hidden /> Stop
            </button>
          ) : (
            <button
              type="submit"
              className="button primary"
              disabled={!questions.length || questions.length > MOST || !db}
            >
              <Play aria-hidden /> Compare
            </button>
          )}
        </div>
      </form>
      {failure !== null && <Notice failure={failure} />}
      {pairs.length > 0 && (
        <>
          <div className="bar">
            <p role="status">
              {pairs.length} of {busy ? questions.length : pairs.length} asked · {count(pairs.length - differ)} same ·{" "}
              <strong>{count(differ)} differ</strong>
              {done && ` · ${seconds(done.seconds)} · ${money(done.cost)}`}
            </p>
            <span className="bar-rest">
              <Choice
                label="Show"
                value={only}
                onChange={setOnly}
                options={[
                  { value: "all", label: "All" },
                  { value: "differ", label: "What differs" },
                ]}
              />
            </span>
          </div>
          <ol className="pairs" data-list>
            {shown.map((pair) => (
              <PairView key={pair.n} pair={pair} labels={labels} />
            ))}
          </ol>
        </>
      )}
      {pairs.length === 0 && !busy && failure === null && (
        <Empty title="Before you promote something">
          <p>Ask both the questions that matter to you. Same results are folded away; you read only what differs.</p>
        </Empty>
      )}
    </div>
  );
}

function Pick(props: { label: string; value: string; onChange: (value: string) => void; options: [string, string][] }) {
  return (
    <label>
      {props.label}
      <select value={props.value} onChange={(event) => props.onChange(event.target.value)}>
        {props.options.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

function PairView({ pair, labels }: { pair: Pair; labels: readonly [string, string] }) {
  const Sign = pair.same ? Equal : EqualNot;
  return (
    <li className={pair.same ? "pair same" : "pair differs"} data-row tabIndex={-1} aria-label={pair.question}>
      <details open={!pair.same}>
        <summary>
          <Sign aria-hidden />
          <span className="pair-question">{pair.question}</span>
          <span className="pair-mark">{pair.same ? "same" : "differ"}</span>
        </summary>
        <div className="pair-sides">
          <SideView label={labels[0]} turn={pair.a} />
          <SideView label={labels[1]} turn={pair.b} />
        </div>
      </details>
    </li>
  );
}

const FIRST = 6;

function SideView({ label, turn }: { label: string; turn: Turn }) {
  return (
    <div className="pair-side" role="group" aria-label={label}>
      <h2>{label}</h2>
      {turn.sql && <pre tabIndex={0}>{turn.sql}</pre>}
      {turn.reason && <p className="muted">{turn.reason}</p>}
      {turn.reply && !turn.sql && <p className="plain">{turn.reply}</p>}
      {turn.columns.length > 0 && (
        <div className="wide" tabIndex={0} role="group" aria-label={`Rows of ${label}`}>
          <table className="table small">
            <thead>
              <tr>
                {turn.columns.map((name, i) => (
                  <th
                    key={`${name} ${i}`}
                    scope="col"
                    className={typeof turn.rows?.[0]?.[i] === "number" ? "right" : ""}
                  >
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {(turn.rows ?? []).slice(0, FIRST).map((row, i) => (
                <tr key={i}>
                  {row.map((cell, j) => (
                    <td key={j} className={typeof cell === "number" ? "right" : ""}>
                      {cell === null ? <span className="muted">NULL</span> : String(cell)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {(turn.row_count ?? 0) > FIRST && <p className="muted">{count(turn.row_count ?? 0)} rows</p>}
    </div>
  );
}
