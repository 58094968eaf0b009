// What a memory believes, since when, and on what evidence.
import * as Tabs from "@radix-ui/react-tabs";
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useState } from "react";
import { get, send } from "../api";
import { Choice, Empty, Loading, Notice } from "../parts/bits";
import { go } from "../parts/route";
import { say, sayFailure } from "../parts/toasts";
import type { Item, MemoryListed } from "../types";
import { many } from "../words";
import { ItemCard } from "./item";

interface Full {
  name: string;
  version: number;
  items: Item[];
  offset?: number;
  /** How many come after these. */
  more?: number;
}

const LIST = { queryKey: ["memory"], queryFn: () => get<MemoryListed[]>("/api/memories") };

export default function MemoryPage({ name, item }: { name: string; item: string }) {
  const memories = useQuery(LIST);
  const taught = memories.data?.find(({ counts }) => counts.active + counts.quarantined > 0);
  const shown = name || taught?.name || memories.data?.[0]?.name || "";
  return (
    <div className="page memory">
      <header className="page-head">
        <h1>Memory</h1>
        <p className="lead">What was learned from corrections, and whether it helped.</p>
      </header>
      {memories.error && <Notice failure={memories.error} />}
      {memories.isPending && <Loading what="Opening the memories" />}
      {memories.data?.length === 0 && <Nothing />}
      {memories.data && memories.data.length > 0 && (
        <Tabs.Root value={shown} onValueChange={(next) => go("memory", next)}>
          <Tabs.List className="tabs" aria-label="Memories">
            {memories.data.map((memory) => (
              <Tabs.Trigger key={memory.name} value={memory.name} className="tab">
                {titleOf(memory)}
                <span className="tab-count">{memory.counts.active + memory.counts.quarantined}</span>
              </Tabs.Trigger>
            ))}
          </Tabs.List>
          {memories.data.map((memory) => (
            <Tabs.Content key={memory.name} value={memory.name} tabIndex={-1}>
              {memory.name === shown && <OneMemory listed={memory} item={item} />}
            </Tabs.Content>
          ))}
          {!memories.data.some((memory) => memory.name === shown) && (
            <Empty title="No such memory">
              <p>It may belong to somebody else, or have another name. Pick one above.</p>
            </Empty>
          )}
        </Tabs.Root>
      )}
    </div>
  );
}

/** Memories of people begin with a capital letter, others have the names that their runs gave them. */
function titleOf({ title, name, scope }: MemoryListed): string {
  if (!title || !["user", "team", "global"].includes(scope)) return title || name;
  return title.charAt(0).toUpperCase() + title.slice(1);
}

function Nothing() {
  return (
    <Empty title="Nothing was learned yet">
      <p>
        Correct an answer in a chat, in plain words. The lesson comes here on trial: it is shown to the model by lot,
        and believed when answers that saw it were better than answers that did not.
      </p>
    </Empty>
  );
}

type Standing = "active" | "quarantined" | "retired";

function OneMemory({ listed, item }: { listed: MemoryListed; item: string }) {
  const client = useQueryClient();
  const path = `/api/memories/${encodeURIComponent(listed.name)}`;
  const memory = useInfiniteQuery({
    queryKey: ["memory", listed.name],
    queryFn: ({ signal, pageParam }) => get<Full>(`${path}?offset=${pageParam}`, signal),
    initialPageParam: 0,
    getNextPageParam: (told) => (told.more ? (told.offset ?? 0) + told.items.length : undefined),
  });
  const { hasNextPage, fetchNextPage } = memory;
  const items = useMemo(() => memory.data?.pages.flatMap((page) => page.items) ?? [], [memory.data]);
  const last = memory.data?.pages.at(-1);
  const wanted = items.find((one) => one.id === item);
  const fullest: Standing = listed.counts.active
    ? "active"
    : listed.counts.quarantined
      ? "quarantined"
      : listed.counts.retired
        ? "retired"
        : "active";
  const [standing, setStanding] = useState<Standing>(fullest);
  const [typed, setTyped] = useState("");
  const [undoable, setUndoable] = useState<number | null>(null);

  useEffect(() => {
    if (wanted) setStanding(wanted.status as Standing);
    else if (item && hasNextPage) void fetchNextPage();
  }, [wanted, item, hasNextPage, fetchNextPage]);

  const waits = listed.scope === "user" ? "Followed" : "On trial";
  const words = typed.toLowerCase();
  const of = (status: Standing): Item[] => items.filter((one) => one.status === status);
  const found = of(standing).filter((one) =>
    `${one.title} ${one.text} ${one.when} ${one.id}`.toLowerCase().includes(words),
  );

  async function undo(): Promise<void> {
    try {
      const told = await send<{ says: string }>("POST", `${path}/undo`, { version: undoable });
      say(told.says || "Taken back.");
      setUndoable(null);
      await client.invalidateQueries({ queryKey: ["memory"] });
    } catch (thrown) {
      sayFailure(thrown);
    }
  }

  if (memory.error) return <Notice failure={memory.error} />;
  if (!last) return <Loading what="Reading the memory" />;
  if (items.length === 0) return <Nothing />;
  return (
    <>
      <div className="bar">
        <Choice<Standing>
          label="Standing"
          value={standing}
          onChange={setStanding}
          options={[
            { value: "active", label: `Believed ${listed.counts.active}` },
            { value: "quarantined", label: `${waits} ${listed.counts.quarantined}` },
            { value: "retired", label: `Retired ${listed.counts.retired}` },
          ]}
        />
        <input
          type="search"
          className="filter"
          placeholder="Find in these lessons"
          aria-label="Find in these lessons"
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
        />
        <span className="bar-rest">
          {undoable !== null && (
            <button type="button" className="button small" onClick={() => void undo()}>
              Undo the last change
            </button>
          )}
          <Export path={path} />
        </span>
      </div>
      {found.length === 0 && <NoneOf standing={standing} searched={typed !== ""} />}
      <ul className="items" data-list>
        {found.map((one) => (
          <ItemCard
            key={one.id}
            item={one}
            memory={listed}
            open={one.id === item}
            onChanged={(before) => setUndoable(before)}
            version={last.version}
          />
        ))}
      </ul>
      {hasNextPage && (
        <button
          type="button"
          className="button"
          disabled={memory.isFetchingNextPage}
          onClick={() => void fetchNextPage()}
        >
          Show more: {many(last.more ?? 0, "older lesson")}
        </button>
      )}
      <p className="muted foot-note">
        Version {last.version}; {many(items.length + (last.more ?? 0), "lesson")} in all. Every change is kept and can
        be taken back.
      </p>
    </>
  );
}

const NONE: Record<Standing, string> = {
  active: "Nothing is believed yet. A lesson gets here when answers that saw it were better, or when you approve it.",
  quarantined: "Nothing is on trial. Correct an answer in a chat and the lesson starts here.",
  retired: "Nothing was retired. Lessons that did harm, or that you forget, are kept here and can come back.",
};

function NoneOf({ standing, searched }: { standing: Standing; searched: boolean }) {
  return <p className="none">{searched ? "No lesson has these words." : NONE[standing]}</p>;
}

function Export({ path }: { path: string }) {
  return (
    <span className="exports">
      <span className="muted">Export</span>
      {["markdown", "jsonl", "skill"].map((format) => (
        <a key={format} className="quiet" href={`${path}/export?format=${format}`} download>
          {format === "skill" ? "SKILL.md" : format === "jsonl" ? "JSON lines" : "Markdown"}
        </a>
      ))}
    </span>
  );
}
