// Where a chat starts: with the agent, or with a database.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Database, MessageSquare, Upload } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { get, send, upload } from "../api";
import { Choice } from "../parts/bits";
import { go } from "../parts/route";
import { say, sayFailure } from "../parts/toasts";
import { count } from "../words";
import type { Chat, ChatFull, Kind, Me } from "../types";
import { Composer } from "./composer";
import { follow } from "./live";

interface Table {
  name: string;
  rows: number | null;
  columns: { name: string; type: string }[];
}

interface Known {
  name: string;
  title: string;
  /** A file that this person brought. */
  own?: boolean;
  tables: Table[];
}

const BEGINNINGS = [
  "Write to my boss that the launch moves by a week.",
  "Read this text and say in three sentences what matters:",
  "From now on, answer me without bullet lists unless I ask for a list.",
];
const FORMS = ".csv,.sqlite,.db,.duckdb,.parquet";
const MOST_BYTES = 50 * 1024 * 1024;

const KEPT = "verbal.kind";

/** What to talk to first: what was asked for, else as the last time. */
function firstKind(me: Me, wanted: string | null): Kind {
  if (wanted || me.features.chat === false) return "sql";
  try {
    return me.features.sql !== false && localStorage.getItem(KEPT) === "sql" ? "sql" : "chat";
  } catch {
    return "chat";
  }
}

function keepKind(kind: Kind): void {
  try {
    localStorage.setItem(KEPT, kind);
  } catch {
    // A browser that keeps nothing starts with the agent.
  }
}

export function Start({ me }: { me: Me }) {
  const client = useQueryClient();
  const wanted = sessionStorage.getItem("verbal.start");
  const both = me.features.chat !== false && me.features.sql !== false;
  const [kind, setKind] = useState<Kind>(() => firstKind(me, wanted));
  const [db, setDb] = useState(wanted ?? me.databases[0]?.name ?? "");
  const [draft, setDraft] = useState("");
  const [busy, setBusy] = useState(false);
  const known = useQuery({
    queryKey: ["databases"],
    queryFn: () => get<Known[]>("/api/databases"),
    enabled: kind === "sql",
  });

  useEffect(() => {
    sessionStorage.removeItem("verbal.start");
    document.title = "New chat · verbal";
  }, []);

  async function begin(text: string): Promise<void> {
    setBusy(true);
    try {
      const chat = await send<Chat>("POST", "/api/chats", kind === "sql" ? { kind, db } : { kind });
      const fresh: ChatFull = { ...chat, title: chat.title || text.slice(0, 80), memory: "", turns: [], etag: 0 };
      client.setQueryData(["chat", chat.id], fresh);
      void follow({ client, chat: chat.id, kind, path: `/api/chats/${chat.id}/turns`, body: { text, etag: 0 }, text });
      go("chat", chat.id);
    } catch (thrown) {
      sayFailure(thrown);
      setBusy(false);
    }
  }

  const tables = known.data?.find((one) => one.name === db)?.tables ?? [];
  return (
    <div className="start">
      <div className="start-middle">
        <h1>{kind === "sql" ? "What do you want to know?" : "What are we working on?"}</h1>
        {both && (
          <Choice<Kind>
            label="Talk to"
            value={kind}
            onChange={(next) => {
              setKind(next);
              keepKind(next);
            }}
            options={[
              {
                value: "chat",
                label: (
                  <>
                    <MessageSquare aria-hidden /> Agent
                  </>
                ),
              },
              {
                value: "sql",
                label: (
                  <>
                    <Database aria-hidden /> Database
                  </>
                ),
              },
            ]}
          />
        )}
        <Composer
          key={kind}
          kind={kind}
          draft={draft}
          onDraft={setDraft}
          busy={busy || (kind === "sql" && !db)}
          onSend={(text) => void begin(text)}
        />
        {me.features.chat === false && (
          <p className="start-about">
            The agent that learns from corrections needs a model that can chat: verbal ui --model provider/NAME
          </p>
        )}
        {kind === "sql" ? (
          <Databases
            me={me}
            db={db}
            onDb={setDb}
            own={known.data?.find((one) => one.name === db)?.own ?? false}
            tables={tables}
            onPick={setDraft}
          />
        ) : (
          <div className="start-about">
            <p>
              Correct the agent as you would a colleague: “no emojis when you write to my boss”. It says what it
              understood and where it will not apply it, tries it on the next fitting message, and keeps it only if it
              helps.
            </p>
            <ul className="examples" aria-label="To begin with">
              {BEGINNINGS.map((words) => (
                <li key={words}>
                  <button type="button" onClick={() => setDraft(words)}>
                    {words}
                  </button>
                </li>
              ))}
            </ul>
          </div>
        )}
      </div>
    </div>
  );
}

function Databases(props: {
  me: Me;
  db: string;
  onDb: (name: string) => void;
  own: boolean;
  tables: Table[];
  onPick: (draft: string) => void;
}) {
  const { me, db, tables } = props;
  const client = useQueryClient();
  const input = useRef<HTMLInputElement>(null);
  const [busy, setBusy] = useState("");

  async function take(file: File | undefined): Promise<void> {
    if (!file) return;
    if (file.size > MOST_BYTES) {
      say(
        `${file.name} has ${Math.ceil(file.size / 1048576)} MB; at most 50 MB can be uploaded.`,
        true,
        "Start the server with the file instead: verbal ui --db FILE",
      );
      return;
    }
    setBusy(file.name);
    try {
      const made = await upload<{ name: string }>("/api/databases", file);
      await client.invalidateQueries({ queryKey: ["me"] });
      await client.invalidateQueries({ queryKey: ["databases"] });
      props.onDb(made.name);
      say(`${file.name} can be asked now.`);
    } catch (thrown) {
      sayFailure(thrown);
    } finally {
      setBusy("");
      if (input.current) input.current.value = "";
    }
  }

  async function remove(): Promise<void> {
    try {
      await send("DELETE", `/api/databases/${encodeURIComponent(db)}`);
      props.onDb(me.databases.find((one) => one.name !== db)?.name ?? "");
      await client.invalidateQueries({ queryKey: ["me"] });
      await client.invalidateQueries({ queryKey: ["databases"] });
      say("The file is removed.");
    } catch (thrown) {
      sayFailure(thrown);
    }
  }

  return (
    <div
      className="start-about"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void take(event.dataTransfer.files[0]);
      }}
    >
      <div className="row start-db">
        {me.databases.length > 0 && (
          <label className="inline">
            Database
            <select value={db} onChange={(event) => props.onDb(event.target.value)}>
              {me.databases.map((known) => (
                <option key={known.name} value={known.name}>
                  {known.title || known.name}
                </option>
              ))}
            </select>
          </label>
        )}
        {props.own && (
          <button type="button" className="link" onClick={() => void remove()}>
            Remove this file
          </button>
        )}
        <button type="button" className="button" disabled={busy !== ""} onClick={() => input.current?.click()}>
          <Upload aria-hidden /> {busy ? `Reading ${busy}` : "Upload a file"}
        </button>
        <input
          ref={input}
          type="file"
          accept={FORMS}
          className="unseen"
          tabIndex={-1}
          aria-label="A database to upload"
          onChange={(event) => void take(event.target.files?.[0])}
        />
      </div>
      {me.databases.length === 0 && (
        <p>No database yet. Drop a CSV, Parquet, SQLite or DuckDB file here: it is only ever read.</p>
      )}
      {tables.length > 0 && (
        <details className="schema" open={tables.length <= 4}>
          <summary>{tables.length} tables</summary>
          <ul>
            {tables.map((table) => (
              <li key={table.name}>
                <button
                  type="button"
                  className="link"
                  onClick={() => props.onPick(`How many rows of ${table.name} are there?`)}
                >
                  {table.name}
                </button>
                <span className="muted">
                  {table.rows === null ? "" : ` ${count(table.rows)} rows · `}
                  {table.columns.map((column) => column.name).join(", ")}
                </span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  );
}
