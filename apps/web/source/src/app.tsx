// The frame: who is here, where the page is, what is said at its top.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useState } from "react";
import { asFailure, type Failure, get, listen } from "./api";
import { ChatPage } from "./chat/page";
import { Login } from "./login";
import { Loading, Notice } from "./parts/bits";
import { Boundary } from "./parts/boundary";
import { useRoute } from "./parts/route";
import { Toasts } from "./parts/toasts";
import { Shell } from "./shell";
import type { Me } from "./types";

const memory = () => import("./memory/page");
const runs = () => import("./runs/page");
const compare = () => import("./compare/page");
const MemoryPage = lazy(memory);
const RunsPage = lazy(runs);
const ComparePage = lazy(compare);

const TITLES: Record<string, string> = { memory: "Memory", runs: "Runs", compare: "Compare", chat: "Chat" };

export function App() {
  const [gone, setGone] = useState(false);
  const [ended, setEnded] = useState<Failure | null>(null);
  const client = useQueryClient();
  const me = useQuery({ queryKey: ["me"], queryFn: ({ signal }) => get<Me>("/api/me", signal) });

  const { page, id } = useRoute();

  useEffect(() => listen(setGone, setEnded), []);
  useEffect(() => {
    // The other pages are small: they come when the first one has been drawn.
    const timer = window.setTimeout(() => void Promise.allSettled([memory(), runs(), compare()]), 400);
    return () => window.clearTimeout(timer);
  }, []);
  useEffect(() => {
    if (!gone) return;
    const timer = window.setInterval(() => {
      get<Me>("/api/me").then(
        () => void client.invalidateQueries(),
        () => undefined,
      );
    }, 3_000);
    return () => window.clearInterval(timer);
  }, [gone, client]);

  function enter(entered: Me): void {
    setEnded(null);
    client.clear();
    client.setQueryData(["me"], entered);
    void client.invalidateQueries();
  }

  if (ended) return <Login failure={ended} onEnter={enter} again={me.data !== undefined} />;
  if (me.data) {
    return (
      <>
        <Shell me={me.data} gone={gone}>
          <Boundary place={`${page}/${id}`} gone={gone}>
            <Page me={me.data} />
          </Boundary>
        </Shell>
        <Toasts />
      </>
    );
  }
  if (me.error) {
    return (
      <main className="alone">
        <h1 className="unseen">verbal</h1>
        <Notice failure={asFailure(me.error)}>
          <button type="button" className="button" onClick={() => void me.refetch()}>
            Try again
          </button>
        </Notice>
      </main>
    );
  }
  return null;
}

function Page({ me }: { me: Me }) {
  const route = useRoute();
  const page = TITLES[route.page] ? route.page : "chat";
  useEffect(() => {
    if (page !== "chat") document.title = `${TITLES[page]} · verbal`;
  }, [page]);
  if (page === "chat") return <ChatPage key={route.id} id={route.id} me={me} />;
  return (
    <Suspense fallback={<Loading what="Opening" />}>
      {page === "memory" && <MemoryPage name={route.id} item={route.more} />}
      {page === "runs" && <RunsPage id={route.id} />}
      {page === "compare" && <ComparePage me={me} />}
    </Suspense>
  );
}
