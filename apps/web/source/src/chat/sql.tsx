// The query of an answer: read, edit, run, and give as the right one.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Check, Copy, Pencil, Play } from "lucide-react";
import { lazy, Suspense, useState } from "react";
import { get, send } from "../api";
import { say, sayFailure } from "../parts/toasts";
import type { ChatFull, Kept, Turn } from "../types";
import { follow } from "./live";

const Editor = lazy(() => import("./editor"));
const Coloured = lazy(() => import("./coloured"));

interface Table {
  name: string;
  columns: { name: string }[];
}

interface Props {
  turn: Turn;
  chat: ChatFull;
  busy: boolean;
  onLearned: (kept: Kept) => void;
}

export function SqlBlock({ turn, chat, busy, onLearned }: Props) {
  const client = useQueryClient();
  const [editing, setEditing] = useState(false);
  const [sql, setSql] = useState(turn.sql);
  const [telling, setTelling] = useState(false);
  const known = useQuery({
    queryKey: ["databases"],
    queryFn: () => get<{ name: string; tables: Table[] }[]>("/api/databases"),
    enabled: editing,
  });
  const tables = known.data?.find((db) => db.name === chat.db)?.tables ?? [];

  function run(): void {
    setEditing(false);
    void follow({ client, chat: chat.id, kind: "sql", path: `/api/chats/${chat.id}/run`, body: { sql }, text: sql });
  }

  async function teach(): Promise<void> {
    setTelling(true);
    try {
      const kept = await send<Kept>("POST", `/api/turns/${turn.id}/feedback`, { kind: "sql", sql });
      onLearned(kept);
      setEditing(false);
      await client.invalidateQueries({ queryKey: ["chat", chat.id] });
      await client.invalidateQueries({ queryKey: ["memory"] });
    } catch (thrown) {
      sayFailure(thrown);
    } finally {
      setTelling(false);
    }
  }

  if (!editing) {
    return (
      <figure className="sql">
        <pre tabIndex={0} aria-label="SQL">
          <Suspense fallback={turn.sql}>
            <Coloured sql={turn.sql} />
          </Suspense>
        </pre>
        {!busy && turn.id && (
          <div className="sql-tools">
            <button type="button" className="icon worded" onClick={() => setEditing(true)}>
              <Pencil aria-hidden /> Edit
            </button>
            <button
              type="button"
              className="icon"
              aria-label="Copy the query"
              title="Copy the query"
              onClick={() => copy(turn.sql)}
            >
              <Copy />
            </button>
          </div>
        )}
      </figure>
    );
  }
  return (
    <figure className="sql sql-editing">
      <Suspense fallback={<pre>{sql}</pre>}>
        <Editor start={turn.sql} tables={tables} onChange={setSql} onRun={run} onClose={() => setEditing(false)} />
      </Suspense>
      <div className="sql-foot">
        <span className="muted">It only reads. Ctrl Enter runs it.</span>
        <button type="button" className="button small" onClick={() => setEditing(false)}>
          Cancel
        </button>
        <button
          type="button"
          className="button small"
          disabled={telling || sql.trim() === turn.sql.trim()}
          onClick={() => void teach()}
        >
          <Check aria-hidden /> This is the right query
        </button>
        <button type="button" className="button primary small" disabled={!sql.trim()} onClick={run}>
          <Play aria-hidden /> Run
        </button>
      </div>
    </figure>
  );
}

function copy(sql: string): void {
  navigator.clipboard.writeText(sql).then(
    () => say("The query is copied."),
    () => sayFailure(new Error("The browser did not let the page copy.")),
  );
}
