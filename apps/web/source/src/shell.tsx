// Sidebar, chats, banner, keys.
import { useQuery } from "@tanstack/react-query";
import { Brain, CircleHelp, Columns2, LineChart, LogOut, Menu, Moon, Plus, Search, Sun, WifiOff } from "lucide-react";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { get, send } from "./api";
import { Mark } from "./mark";
import { Dialog } from "./parts/dialog";
import { isTyping, listKey, useKeys } from "./parts/keys";
import { type Command, Palette, Shortcuts } from "./parts/palette";
import { go, to, useRoute } from "./parts/route";
import { switchTheme, useShownTheme } from "./parts/theme";
import { when } from "./words";
import type { Chat, Me } from "./types";

export const CHATS = { queryKey: ["chats"], queryFn: () => get<Chat[]>("/api/chats") };

const PLACES = [
  { page: "memory", name: "Memory", icon: Brain },
  { page: "runs", name: "Runs", icon: LineChart },
  { page: "compare", name: "Compare", icon: Columns2 },
] as const;

export function Shell({ me, gone, children }: { me: Me; gone: boolean; children: ReactNode }) {
  const [open, setOpen] = useState<"" | "palette" | "keys" | "menu">("");
  const chats = useQuery(CHATS);
  const route = useRoute();
  const going = useRef(0);

  useEffect(() => setOpen((now) => (now === "menu" ? "" : now)), [route.page, route.id]);

  useKeys((event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      setOpen((now) => (now === "palette" ? "" : "palette"));
      return;
    }
    if (listKey(event)) {
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    if (Date.now() - going.current < 1_200) {
      going.current = 0;
      const page = { m: "memory", r: "runs", c: "compare", h: "chat" }[event.key];
      if (page) go(page);
    } else if (event.key === "g") {
      going.current = Date.now();
    } else if (event.key === "?") {
      setOpen("keys");
    } else if (event.key === "n") {
      event.preventDefault();
      go("chat");
    } else if (event.key === "/") {
      const box = document.querySelector<HTMLElement>("[data-composer]");
      if (!box) return;
      event.preventDefault();
      box.focus();
    }
  });

  const side = <Side me={me} chats={chats.data ?? []} onOpen={setOpen} />;
  return (
    <div className="shell">
      <a className="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header className="topbar">
        <button type="button" className="icon" aria-label="Menu" title="Menu" onClick={() => setOpen("menu")}>
          <Menu />
        </button>
        <a className="brand" href={to("chat")}>
          <Mark /> verbal
        </a>
        <a className="icon" href={to("chat")} aria-label="New chat" title="New chat">
          <Plus />
        </a>
      </header>
      <div className="side-wide">{side}</div>
      <main id="main" tabIndex={-1}>
        {gone && (
          <div className="banner" role="alert">
            <WifiOff aria-hidden /> The server does not answer. Trying again every few seconds; what was finished is
            kept.
          </div>
        )}
        {children}
      </main>
      {open === "menu" && (
        <Dialog title="Menu" form="side" onClose={() => setOpen("")}>
          {side}
        </Dialog>
      )}
      {open === "palette" && <Palette commands={commands(me, chats.data ?? [])} onClose={() => setOpen("")} />}
      {open === "keys" && <Shortcuts onClose={() => setOpen("")} />}
    </div>
  );
}

function skip(event: React.MouseEvent): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Side({ me, chats, onOpen }: { me: Me; chats: Chat[]; onOpen: (what: "palette" | "keys") => void }) {
  const route = useRoute();
  const theme = useShownTheme();
  return (
    <nav className="side" aria-label="Pages and chats">
      <a className="brand" href={to("chat")}>
        <Mark /> verbal
      </a>
      <a className="new" href={to("chat")} aria-current={route.page === "chat" && !route.id ? "page" : undefined}>
        <Plus aria-hidden /> New chat
      </a>
      <button type="button" className="find" onClick={() => onOpen("palette")}>
        <Search aria-hidden /> Find <kbd>Ctrl K</kbd>
      </button>
      <ul className="places">
        {PLACES.map(({ page, name, icon: Icon }) => (
          <li key={page}>
            <a href={to(page)} aria-current={route.page === page ? "page" : undefined}>
              <Icon aria-hidden /> {name}
            </a>
          </li>
        ))}
      </ul>
      <h2 className="side-title">Chats</h2>
      {chats.length === 0 && <p className="side-none">What you ask stays here.</p>}
      <ul className="chats" data-list>
        {chats.map((chat) => (
          <li key={chat.id}>
            <a
              href={to("chat", chat.id)}
              data-row
              aria-current={route.page === "chat" && route.id === chat.id ? "page" : undefined}
            >
              <span className="chat-title">{chat.title || "New chat"}</span>
              <span className="chat-about">
                {chat.kind === "sql" ? (chat.db ?? "database") : "chat"} · {when(chat.updated)}
              </span>
            </a>
          </li>
        ))}
      </ul>
      <footer className="side-foot">
        <span className="who" title={me.model}>
          {me.user}
          {me.team && <span className="muted"> · {me.team}</span>}
        </span>
        <button type="button" className="icon" onClick={() => onOpen("keys")} aria-label="Keys">
          <CircleHelp />
        </button>
        <button
          type="button"
          className="icon"
          onClick={switchTheme}
          aria-label={theme === "dark" ? "Light theme" : "Dark theme"}
          title={theme === "dark" ? "Light theme" : "Dark theme"}
        >
          {theme === "dark" ? <Sun /> : <Moon />}
        </button>
        {me.login && (
          <button type="button" className="icon" onClick={() => void leave()} aria-label="Sign out">
            <LogOut />
          </button>
        )}
      </footer>
    </nav>
  );
}

async function leave(): Promise<void> {
  await send("POST", "/api/logout", {}).catch(() => undefined);
  window.location.reload();
}

function commands(me: Me, chats: Chat[]): Command[] {
  const databases = me.databases.map((db) => ({
    name: `Ask ${db.title || db.name}`,
    hint: "new",
    run: () => {
      sessionStorage.setItem("verbal.start", db.name);
      go("chat");
    },
  }));
  return [
    { name: "New chat", hint: "n", run: () => go("chat") },
    ...databases,
    ...PLACES.map(({ page, name }) => ({ name, hint: `g ${name[0]?.toLowerCase()}`, run: () => go(page) })),
    { name: "Switch between light and dark", hint: "theme", run: switchTheme },
    ...chats.map((chat) => ({ name: chat.title || "New chat", hint: "chat", run: () => go("chat", chat.id) })),
  ];
}
