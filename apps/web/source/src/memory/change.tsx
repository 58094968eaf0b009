// Narrow, edit or share a lesson.
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { get } from "../api";
import { Dialog } from "../parts/dialog";
import type { Item, MemoryListed } from "../types";
import type { Act } from "./item";

interface Props {
  act: Act;
  item: Item;
  memory: MemoryListed;
  onClose: () => void;
  onDone: (body: Record<string, string>) => Promise<void>;
}

const TITLES: Record<string, string> = {
  narrow: "Where must it not be applied?",
  edit: "Edit the lesson",
  share: "Share the lesson",
};

export function Change({ act, item, memory, onClose, onDone }: Props) {
  const [text, setText] = useState(item.text);
  const [when, setWhen] = useState(item.when);
  const [boundary, setBoundary] = useState(item.boundary);
  const [to, setTo] = useState("");
  const [busy, setBusy] = useState(false);
  const memories = useQuery({ queryKey: ["memory"], queryFn: () => get<MemoryListed[]>("/api/memories") });
  const wider = (memories.data ?? []).filter(
    (one) => one.name !== memory.name && (one.scope === "team" || one.scope === "global"),
  );

  function submit(event: FormEvent): void {
    event.preventDefault();
    setBusy(true);
    const body: Record<string, string> =
      act === "edit"
        ? { text, when, boundary }
        : act === "narrow"
          ? { boundary }
          : { to: to || (wider[0]?.name ?? "") };
    void onDone(body).finally(() => setBusy(false));
  }

  return (
    <Dialog title={TITLES[act] ?? act} onClose={onClose}>
      <form className="stack" onSubmit={submit}>
        {act === "edit" && (
          <>
            <label>
              Lesson
              <textarea rows={3} value={text} onChange={(event) => setText(event.target.value)} required autoFocus />
            </label>
            <label>
              When to use it
              <textarea rows={2} value={when} onChange={(event) => setWhen(event.target.value)} />
            </label>
          </>
        )}
        {(act === "edit" || act === "narrow") && (
          <label>
            Not when
            <textarea
              rows={2}
              value={boundary}
              placeholder="questions about last year"
              onChange={(event) => setBoundary(event.target.value)}
              autoFocus={act === "narrow"}
            />
          </label>
        )}
        {act === "share" && (
          <>
            <p>A copy goes to a memory that more people use. It starts there on trial, with evidence of its own.</p>
            {wider.length === 0 ? (
              <p className="muted">There is no team or global memory to share with.</p>
            ) : (
              <label>
                With
                <select value={to || wider[0]?.name} onChange={(event) => setTo(event.target.value)}>
                  {wider.map((one) => (
                    <option key={one.name} value={one.name}>
                      {one.title || one.name}
                    </option>
                  ))}
                </select>
              </label>
            )}
          </>
        )}
        <div className="row end-row">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button
            type="submit"
            className="button primary"
            disabled={
              busy || (act === "share" && wider.length === 0) || (act === "narrow" && boundary === item.boundary)
            }
          >
            {act === "share" ? "Share" : act === "narrow" ? "Narrow" : "Save"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
