// One lesson: its words, its boundary, its evidence, and what a person may do with it.
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { send } from "../api";
import { Status } from "../parts/bits";
import { Interval } from "../parts/interval";
import { to } from "../parts/route";
import { say, sayFailure } from "../parts/toasts";
import type { Item, MemoryListed } from "../types";
import { many, when } from "../words";
import { Change } from "./change";
import { History } from "./history";

export type Act = "approve" | "narrow" | "retire" | "edit" | "share";

interface Props {
  item: Item;
  memory: MemoryListed;
  open: boolean;
  version: number;
  onChanged: (before: number) => void;
}

const DONE: Record<Act, string> = {
  approve: "Approved: it is believed from now on.",
  narrow: "Narrowed.",
  retire: "Retired: it is not shown any more.",
  edit: "Changed.",
  share: "Shared: it starts there on trial.",
};

export function ItemCard({ item, memory, open, version, onChanged }: Props) {
  const client = useQueryClient();
  const card = useRef<HTMLLIElement>(null);
  const [changing, setChanging] = useState<Act | "">("");
  const [history, setHistory] = useState(false);

  useEffect(() => {
    if (!open) return;
    card.current?.scrollIntoView({ block: "center" });
    card.current?.focus();
  }, [open]);

  async function act(action: Act, body: Record<string, string> = {}): Promise<void> {
    try {
      const path = `/api/memories/${encodeURIComponent(memory.name)}/items/${encodeURIComponent(item.id)}`;
      await send("POST", path, { action, ...body });
      say(DONE[action]);
      onChanged(version);
      setChanging("");
      await client.invalidateQueries({ queryKey: ["memory"] });
    } catch (thrown) {
      sayFailure(thrown);
    }
  }

  const { evidence, source } = item;
  const untitled = !item.title || item.title === item.text;
  return (
    <li
      ref={card}
      className={open ? "item item-open" : "item"}
      data-row
      tabIndex={-1}
      aria-label={item.title || item.text}
    >
      <div className="item-words">
        {!untitled && <h2>{item.title}</h2>}
        <p className={untitled ? "item-text item-only" : "item-text"}>{item.text}</p>
        <dl className="item-about">
          {item.when && (
            <div>
              <dt>When</dt>
              <dd>{item.when}</dd>
            </div>
          )}
          <div>
            <dt>Not when</dt>
            <dd className={item.boundary ? "" : "muted"}>{item.boundary || "no boundary"}</dd>
          </div>
          <div>
            <dt>From</dt>
            <dd>
              {source?.author || "unknown"}
              {item.since?.at ? `, since ${when(item.since.at)}` : ""}
              {source?.reason ? `: ${source.reason}` : ""}
              {source?.chat && (
                <>
                  {" "}
                  <a href={to("chat", source.chat)}>chat</a>
                </>
              )}
            </dd>
          </div>
          {item.rival && (
            <div>
              <dt>Against</dt>
              <dd>
                <a href={to("memory", memory.name, item.rival)}>{item.rival}</a>, which says otherwise
              </dd>
            </div>
          )}
        </dl>
      </div>
      <div className="item-proof">
        <div className="row">
          <Status of={item.status} memory={memory.name} />
          <span className="item-id">{item.id}</span>
        </div>
        <Interval
          effect={evidence?.effect ?? null}
          low={evidence?.low ?? null}
          high={evidence?.high ?? null}
          says={evidence?.says ?? ""}
        />
        {evidence?.says && <p className="item-says">{evidence.says}</p>}
        <p className="counts">
          <span>shown {item.shown}</span>
          <span className="helped">helped {item.helped}</span>
          <span className={item.harmed ? "harmed" : ""}>harmed {item.harmed}</span>
        </p>
      </div>
      <div className="item-acts">
        {(item.writable ?? memory.writable) && (
          <>
            {item.status !== "active" && item.approvable !== false && (
              <button type="button" className="button small" onClick={() => void act("approve")}>
                Approve
              </button>
            )}
            <button type="button" className="button small" onClick={() => setChanging("narrow")}>
              Narrow
            </button>
            <button type="button" className="button small" onClick={() => setChanging("edit")}>
              Edit
            </button>
            {item.status !== "retired" && (
              <button type="button" className="button small" onClick={() => void act("retire")}>
                Retire
              </button>
            )}
            {memory.scope !== "global" && memory.scope !== "run" && (
              <button type="button" className="button small" onClick={() => setChanging("share")}>
                Share
              </button>
            )}
          </>
        )}
        <button type="button" className="button small" onClick={() => setHistory(true)}>
          History
        </button>
        {evidence && evidence.trials > 0 && <span className="muted">{many(evidence.trials, "trial")}</span>}
      </div>
      {changing && (
        <Change
          act={changing}
          item={item}
          memory={memory}
          onClose={() => setChanging("")}
          onDone={(body) => act(changing, body)}
        />
      )}
      {history && <History item={item} memory={memory.name} onClose={() => setHistory(false)} />}
    </li>
  );
}
