// One run: its progress while it goes on, its curves, what it cost, what the gate said, its attempts.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { RotateCcw } from "lucide-react";
import { useEffect, useState } from "react";
import { get, send, stream } from "../api";
import { Loading, Notice, Status } from "../parts/bits";
import { Interval } from "../parts/interval";
import { to } from "../parts/route";
import { sayFailure } from "../parts/toasts";
import type { CostRow, Gate, RunFull, RunListed } from "../types";
import { count, fullTime, many, modelName, money, percent, seconds } from "../words";
import { Attempts } from "./attempts";
import { Curves, tones } from "./curves";
import { Diff } from "./diff";

const SAYS: Record<string, string> = {
  learn: "Share of questions solved, by attempts made.",
  eval: "Share of held-out questions solved within so many attempts.",
};

interface Progress {
  done: number;
  total: number;
  solved: number | null;
  cost: number | null;
}

type Full = Omit<RunFull, "cost"> & { cost: CostRow[] | number | null };

export function RunView({ id }: { id: string }) {
  const client = useQueryClient();
  const run = useQuery({
    queryKey: ["run", id],
    queryFn: ({ signal }) => get<Full>(`/api/runs/${encodeURIComponent(id)}`, signal),
    refetchInterval: (query) => (query.state.data?.status === "running" ? 5_000 : false),
  });
  const [progress, setProgress] = useState<Progress | null>(null);
  const running = run.data?.status === "running";

  useEffect(() => {
    if (!running) return;
    const abort = new AbortController();
    stream<Progress & { type: string }>(
      `/api/runs/${encodeURIComponent(id)}/events`,
      undefined,
      (event) => event.type === "progress" && setProgress(event),
      abort.signal,
    ).then(
      () => void client.invalidateQueries({ queryKey: ["run", id] }),
      () => undefined,
    );
    return () => abort.abort();
  }, [running, id, client]);

  if (run.error) {
    return (
      <div className="page">
        <h1 className="unseen">Run</h1>
        <Notice failure={run.error}>
          <a href={to("runs")}>All runs</a>
        </Notice>
      </div>
    );
  }
  if (!run.data) return <Loading what="Opening the run" />;
  const { data } = run;
  const rows = Array.isArray(data.cost) ? data.cost : [];
  return (
    <div className="page run">
      <header className="page-head">
        <p className="crumb">
          <a href={to("runs")}>Runs</a>
        </p>
        <h1>
          {data.recipe || data.command || data.id} <Status of={data.status} />
        </h1>
        <p className="lead">
          {data.id} · {modelName(data.model)} · started {fullTime(data.started)}
        </p>
      </header>
      {running && <Going progress={progress} data={data} />}
      {(running || data.arms.length > 0 || data.curves.length > 0 || data.lessons?.added) && (
        <section className="block">
          <h2>What was learned</h2>
          <Curves curves={data.curves} arms={data.arms} says={SAYS[data.command] ?? SAYS.eval ?? ""} />
          {data.claim && (
            <p>
              {data.claim} {data.claim_holds === false && <span className="muted">(not shown)</span>}
            </p>
          )}
          <Arms data={data} />
          {data.lessons && data.lessons.added > 0 && (
            <p className="muted">
              {many(data.lessons.added, "lesson")} added, {count(data.lessons.active)} believed,{" "}
              {count(data.lessons.retired)} retired.{" "}
              {data.memory && <a href={to("memory", data.memory)}>Open the memory</a>}
            </p>
          )}
        </section>
      )}
      {rows.length > 0 && <Costs rows={rows} />}
      <Gates gates={data.gates} />
      <Attempts attempts={data.attempts} />
      <Proof id={id} finished={data.status !== "running"} />
    </div>
  );
}

function Going({ progress, data }: { progress: Progress | null; data: Full }) {
  const done = progress?.done ?? data.done;
  const total = Math.max(progress?.total ?? data.tasks, 1);
  return (
    <div className="going">
      <progress value={done} max={total} aria-label="Progress of the run" />
      <p>
        {count(done)} of {count(total)}
        {progress?.solved !== null && progress?.solved !== undefined && ` · ${count(progress.solved)} solved`}
        {progress?.cost !== null && progress?.cost !== undefined && ` · ${money(progress.cost)}`}
      </p>
    </div>
  );
}

function Arms({ data }: { data: Full }) {
  if (data.arms.length === 0) return null;
  const tone = tones(data.arms.map((arm) => arm.name));
  return (
    <div className="wide" tabIndex={0} role="region" aria-label="Arms">
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Arm</th>
            <th scope="col" className="right">
              Solved
            </th>
            <th scope="col" className="right">
              Interval
            </th>
            <th scope="col" className="right">
              Tasks
            </th>
          </tr>
        </thead>
        <tbody>
          {data.arms.map((arm) => (
            <tr key={arm.name}>
              <td>
                <span className={`key key-${tone(arm.name)}`} aria-hidden /> {arm.label || arm.name}
              </td>
              <td className="right">{percent(arm.mean, 1)}</td>
              <td className="right muted">
                {arm.low === null || arm.high === null ? "–" : `${percent(arm.low, 1)} to ${percent(arm.high, 1)}`}
              </td>
              <td className="right">{count(arm.tasks)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Costs({ rows }: { rows: CostRow[] }) {
  const sum = (of: (row: CostRow) => number): number => rows.reduce((total, row) => total + of(row), 0);
  const known = rows.every((row) => row.cost !== null);
  return (
    <section className="block">
      <h2>Cost by role</h2>
      <div className="wide" tabIndex={0} role="region" aria-label="Cost by role">
        <table className="table">
          <thead>
            <tr>
              <th scope="col">Role</th>
              <th scope="col" className="right">
                Calls
              </th>
              <th scope="col" className="right">
                Tokens
              </th>
              <th scope="col" className="right">
                Time
              </th>
              <th scope="col" className="right">
                Cost
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.role}>
                <td>{row.role}</td>
                <td className="right">{count(row.calls)}</td>
                <td className="right">{count(row.tokens)}</td>
                <td className="right">{seconds(row.seconds)}</td>
                <td className="right">{money(row.cost)}</td>
              </tr>
            ))}
          </tbody>
          <tfoot>
            <tr>
              <th scope="row">all</th>
              <td className="right">{count(sum((row) => row.calls))}</td>
              <td className="right">{count(sum((row) => row.tokens))}</td>
              <td className="right">{seconds(sum((row) => row.seconds))}</td>
              <td className="right">{known ? money(sum((row) => row.cost ?? 0)) : "–"}</td>
            </tr>
          </tfoot>
        </table>
      </div>
    </section>
  );
}

const VERDICTS: Record<string, string> = { accept: "accepted", reject: "rejected", "need more": "open" };

function Gates({ gates }: { gates: Gate[] }) {
  if (gates.length === 0) return null;
  return (
    <section className="block">
      <h2>What the gate decided</h2>
      <ul className="gates">
        {[...gates].reverse().map((gate, i) => (
          <li key={gate.id ?? i}>
            <div>
              <p>
                <Status of={VERDICTS[gate.verdict] ?? gate.verdict} /> <strong>{gate.candidate}</strong>
                {gate.incumbent && <span className="muted"> against {gate.incumbent}</span>}
              </p>
              <p>{gate.reason}</p>
              <p className="muted">
                {fullTime(gate.at)}
                {typeof gate.tasks === "number" && ` · ${many(gate.tasks, "task")}`}
                {typeof gate.margin === "number" && ` · margin ${gate.margin}`}
                {typeof gate.alpha === "number" && ` · error at most ${percent(gate.alpha)}`}
              </p>
            </div>
            {gate.gain && <Interval effect={gate.gain.mean} low={gate.gain.low} high={gate.gain.high} />}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Proof({ id, finished }: { id: string; finished: boolean }) {
  const [says, setSays] = useState<{ equal: boolean; says: string } | null>(null);
  const [busy, setBusy] = useState(false);
  const runs = useQuery({ queryKey: ["runs"], queryFn: () => get<RunListed[]>("/api/runs") });

  async function replay(): Promise<void> {
    setBusy(true);
    try {
      setSays(await send("POST", `/api/runs/${encodeURIComponent(id)}/replay`, {}));
    } catch (thrown) {
      sayFailure(thrown);
    } finally {
      setBusy(false);
    }
  }

  return (
    <section className="block">
      <h2>Prove it</h2>
      <p className="muted">
        A replay repeats the run from its record, without calling a model, and compares every answer.
      </p>
      <div className="row">
        <button type="button" className="button" disabled={busy || !finished} onClick={() => void replay()}>
          <RotateCcw aria-hidden /> {busy ? "Replaying" : "Replay"}
        </button>
        {says && (
          <p role="status" className={says.equal ? "good" : "bad"}>
            {says.says}
          </p>
        )}
      </div>
      <Diff id={id} runs={(runs.data ?? []).filter((other) => other.id !== id)} />
    </section>
  );
}
