// What happened to one lesson, newest first.
import { useQuery } from "@tanstack/react-query";
import { get } from "../api";
import { Loading, Notice } from "../parts/bits";
import { Dialog } from "../parts/dialog";
import type { HistoryEntry, Item } from "../types";
import { fullTime, plain } from "../words";

const OPS: Record<string, string> = {
  ADD: "added",
  UPDATE: "changed",
  MERGE: "merged",
  RETIRE: "retired",
  TAG: "marked",
  VALUE: "valued",
  NOOP: "left",
};

interface Props {
  item: Item;
  memory: string;
  onClose: () => void;
}

export function History({ item, memory, onClose }: Props) {
  const path = `/api/memories/${encodeURIComponent(memory)}/items/${encodeURIComponent(item.id)}`;
  const told = useQuery({
    queryKey: ["memory", memory, item.id],
    queryFn: ({ signal }) => get<{ history: HistoryEntry[] }>(path, signal),
  });
  const entries = [...(told.data?.history ?? [])].sort((a, b) => b.version - a.version);
  return (
    <Dialog title={`History of ${item.id}`} onClose={onClose} form="drawer">
      {told.error && <Notice failure={told.error} />}
      {told.isPending && <Loading what="Reading the log" />}
      <ol className="history">
        {entries.map((entry, i) => (
          <li key={`${entry.version} ${i}`}>
            <p className="history-what">
              <strong>{OPS[entry.op] ?? entry.op.toLowerCase()}</strong> by {entry.author || "code"}
              <span className="muted">
                {" "}
                · version {entry.version}
                {entry.at ? ` · ${fullTime(entry.at)}` : ""}
              </span>
            </p>
            {entry.reason && <p>{entry.reason}</p>}
            <Difference before={entry.before} after={entry.after} />
          </li>
        ))}
      </ol>
    </Dialog>
  );
}

/** The fields that one operation changed. */
function Difference({ before, after }: { before: unknown; after: unknown }) {
  if (!isRecord(after) && !isRecord(before)) {
    if (before === null && after === null) return null;
    return before === undefined && after === undefined ? null : (
      <p className="history-change">
        {before !== null && before !== undefined && <del>{plain(before)}</del>}{" "}
        {after !== null && <ins>{plain(after)}</ins>}
      </p>
    );
  }
  const [was, is] = [isRecord(before) ? before : {}, isRecord(after) ? after : {}];
  const names = [...new Set([...Object.keys(was), ...Object.keys(is)])];
  const changed = names.filter(
    (name) => JSON.stringify(was[name]) !== JSON.stringify(is[name]) && said(was[name], is[name]),
  );
  return (
    <>
      {changed.map((name) => (
        <p key={name} className="history-change">
          <span className="muted">{name}</span> {said(was[name]) && <del>{plain(was[name])}</del>}{" "}
          {said(is[name]) && <ins>{plain(is[name])}</ins>}
        </p>
      ))}
    </>
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Is there anything to show? */
function said(...values: unknown[]): boolean {
  return values.some((value) => value !== null && value !== undefined && value !== "");
}
