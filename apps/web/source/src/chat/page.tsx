// One conversation: its turns, the answer under way, the box to write in. Without an id: where a chat starts.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { ArrowDown, Download, Pencil, Trash2 } from "lucide-react";
import { useCallback, useEffect, useRef, useState } from "react";
import { Failure, get, send } from "../api";
import { Loading, Notice } from "../parts/bits";
import { Dialog } from "../parts/dialog";
import { go } from "../parts/route";
import { say, sayFailure } from "../parts/toasts";
import type { ChatFull, Me } from "../types";
import { modelName } from "../words";
import { Composer } from "./composer";
import { dismiss, follow, stop, useLive } from "./live";
import type { Learned } from "./learned";
import { Start } from "./start";
import { TurnView } from "./turn";

export function ChatPage({ id, me }: { id: string; me: Me }) {
  return id ? <Conversation id={id} me={me} /> : <Start me={me} />;
}

/** What was being written where, for whoever looks elsewhere meanwhile. */
const drafts = new Map<string, string>();

function Conversation({ id, me }: { id: string; me: Me }) {
  const client = useQueryClient();
  const following = useLive(id);
  const chat = useQuery({
    queryKey: ["chat", id],
    queryFn: ({ signal }) => get<ChatFull>(`/api/chats/${id}`, signal),
    // Another tab is being answered here: look again until it is.
    refetchInterval: (query) => (query.state.data?.busy && !following?.busy ? 1_500 : false),
  });
  const [draft, setDraft] = useState(() => drafts.get(id) ?? "");
  const { turns: seen, away, down } = useBottom(chat.data !== undefined);
  const asked = following?.busy ?? false;
  useEffect(() => {
    if (asked) down();
  }, [asked, down]);

  useEffect(() => {
    document.title = `${chat.data?.title || "Chat"} · verbal`;
  }, [chat.data?.title]);
  const [learned, setLearned] = useState<Record<string, Learned>>({});
  useEffect(() => void drafts.set(id, draft), [id, draft]);

  if (chat.error && !chat.data) return <Unreadable failure={chat.error} />;
  if (!chat.data) return <Loading what="Opening the chat" />;
  const { kind, turns, etag } = chat.data;
  // What was stopped is shown once: as the server kept it, when it did.
  const kept = following?.stopped && turns.at(-1)?.text === following.turn.text;
  const live = kept ? null : following;
  const stale = live?.failure?.code === "stale";

  function ask(text: string): void {
    setDraft("");
    void follow({ client, chat: id, kind, path: `/api/chats/${id}/turns`, body: { text, etag }, text });
  }

  return (
    <div className="conversation">
      <ChatHead chat={chat.data} me={me} />
      <div className="turns" data-list ref={seen}>
        {turns.map((turn, i) => (
          <TurnView
            key={turn.id}
            turn={turn}
            chat={chat.data}
            last={i === turns.length - 1 && !live}
            busy={false}
            learned={learned[turn.id]}
            onLearned={(of, told) => setLearned((all) => ({ ...all, [of]: told }))}
          />
        ))}
        {turns.length === 0 && !live && <p className="muted first-words">Nothing was said here yet.</p>}
        {live && <TurnView turn={live.turn} chat={chat.data} last busy={live.busy} />}
        {chat.data.busy && !live && <Loading what="Another tab is being answered in this chat" />}
        {following?.stopped && <p className="stopped">Stopped. What the model had not done yet was not paid for.</p>}
        {live?.failure && (
          <Notice failure={stale ? STALE : live.failure}>
            <div className="row">
              <button
                type="button"
                className="button"
                onClick={() => {
                  setDraft(live.turn.text);
                  dismiss(id);
                  void chat.refetch();
                  document.querySelector<HTMLElement>("[data-composer]")?.focus();
                }}
              >
                {stale ? "Show what was said" : "Edit and send again"}
              </button>
            </div>
          </Notice>
        )}
      </div>
      <div className="foot">
        {away && (
          <button
            type="button"
            className="icon down"
            aria-label="To the newest answer"
            title="To the newest answer"
            onClick={down}
          >
            <ArrowDown />
          </button>
        )}
        <Spoken busy={live?.busy ?? false} said={turns.at(-1)?.reply || turns.at(-1)?.explanation || ""} />
        <Composer
          kind={kind}
          draft={draft}
          onDraft={setDraft}
          busy={live?.busy ?? false}
          onSend={ask}
          onStop={() => stop(id)}
        />
      </div>
    </div>
  );
}

const STALE = new Failure(
  {
    code: "stale",
    message: "Another tab said something in this chat since this one was opened.",
    todo: "Look at it, then send yours again: it stays in the box.",
  },
  409,
);

/** What a screen reader hears: that an answer is under way, and the answer when it is whole. */
function Spoken({ busy, said }: { busy: boolean; said: string }) {
  const was = useRef(false);
  const [text, setText] = useState("");
  useEffect(() => {
    if (busy) setText("Answering");
    else if (was.current) setText(`Answered. ${said.slice(0, 400)}`);
    was.current = busy;
  }, [busy, said]);
  return (
    <p className="unseen" role="status" aria-live="polite">
      {text}
    </p>
  );
}

/** Stays at the newest words while the reader is there, whatever grows: words, a grid, a chart. */
function useBottom(ready: boolean) {
  const turns = useRef<HTMLDivElement>(null);
  const [away, setAway] = useState(false);
  const near = useRef(true);
  const down = useCallback((): void => {
    near.current = true;
    const main = document.getElementById("main");
    if (main) main.scrollTop = main.scrollHeight;
  }, []);
  useEffect(() => {
    const main = document.getElementById("main");
    const list = turns.current;
    if (!main || !list) return;
    const moved = (): void => {
      near.current = main.scrollHeight - main.scrollTop - main.clientHeight < 120;
      setAway(!near.current);
    };
    const grown = new ResizeObserver(() => {
      if (near.current) down();
    });
    grown.observe(list);
    main.addEventListener("scroll", moved, { passive: true });
    return () => {
      grown.disconnect();
      main.removeEventListener("scroll", moved);
    };
  }, [ready, down]);
  return { turns, away, down };
}

function Unreadable({ failure }: { failure: unknown }) {
  return (
    <div className="page">
      <h1 className="unseen">Chat</h1>
      <Notice failure={failure}>
        <button type="button" className="button" onClick={() => go("chat")}>
          Start a new chat
        </button>
      </Notice>
    </div>
  );
}

function ChatHead({ chat, me }: { chat: ChatFull; me: Me }) {
  const client = useQueryClient();
  const [asking, setAsking] = useState<"" | "delete" | "rename">("");
  const [title, setTitle] = useState(chat.title);
  const db = me.databases.find((known) => known.name === chat.db);

  async function change(what: "delete" | "rename"): Promise<void> {
    try {
      if (what === "delete") await send("DELETE", `/api/chats/${chat.id}`);
      else await send("PATCH", `/api/chats/${chat.id}`, { title });
      setAsking("");
      if (what === "delete") {
        say("The chat is off your list.");
        go("chat");
      }
      await client.invalidateQueries({ queryKey: ["chats"] });
      if (what === "rename") await client.invalidateQueries({ queryKey: ["chat", chat.id] });
    } catch (thrown) {
      sayFailure(thrown);
    }
  }

  return (
    <header className="head">
      <div className="head-words">
        <h1>{chat.title || "New chat"}</h1>
        <p className="muted">
          {chat.kind === "sql" ? `Asks ${db?.title || chat.db}, read-only` : `Chat with ${modelName(me.model)}`}
        </p>
      </div>
      <button
        type="button"
        className="icon"
        aria-label="Rename this chat"
        title="Rename this chat"
        onClick={() => setAsking("rename")}
      >
        <Pencil />
      </button>
      <a
        className="icon"
        aria-label="Export this chat as Markdown"
        title="Export this chat as Markdown"
        href={`/api/chats/${chat.id}/export`}
        download
      >
        <Download />
      </a>
      <button
        type="button"
        className="icon"
        aria-label="Delete this chat"
        title="Delete this chat"
        onClick={() => setAsking("delete")}
      >
        <Trash2 />
      </button>
      {asking === "delete" && (
        <Dialog title="Delete this chat?" onClose={() => setAsking("")}>
          <p>It goes off your list. Lessons that came from it stay in the memory, where you can retire them.</p>
          <div className="row end-row">
            <button type="button" className="button" onClick={() => setAsking("")}>
              Keep it
            </button>
            <button type="button" className="button danger" onClick={() => void change("delete")}>
              Delete
            </button>
          </div>
        </Dialog>
      )}
      {asking === "rename" && (
        <Dialog title="Rename this chat" onClose={() => setAsking("")}>
          <form
            className="stack"
            onSubmit={(event) => {
              event.preventDefault();
              void change("rename");
            }}
          >
            <label>
              Title
              <input value={title} maxLength={120} onChange={(event) => setTitle(event.target.value)} autoFocus />
            </label>
            <div className="row end-row">
              <button type="submit" className="button primary" disabled={!title.trim()}>
                Rename
              </button>
            </div>
          </form>
        </Dialog>
      )}
    </header>
  );
}
