// What was understood of a correction, where it will not be applied, and the ways to change that.
import { useQueryClient } from "@tanstack/react-query";
import { Lightbulb } from "lucide-react";
import { useState } from "react";
import { send } from "../api";
import { Status } from "../parts/bits";
import { to } from "../parts/route";
import { say, sayFailure } from "../parts/toasts";
import type { Understood } from "../types";

const SCOPES: Record<string, string> = {
  user: "only for you",
  team: "for your team",
  global: "for everyone here",
  sql: "for questions about this database",
};

interface Props {
  of: Understood;
  undone?: boolean;
  onChanged: () => void;
}

export function UnderstoodCard({ of, undone = false, onChanged }: Props) {
  const client = useQueryClient();
  const [narrowing, setNarrowing] = useState(false);
  const [boundary, setBoundary] = useState("");
  const [now, setNow] = useState<Partial<Understood> & { gone?: string }>({});
  const shown = { ...of, ...(undone && { gone: "Taken back." }), ...now };

  async function act(body: Record<string, string>, said: string): Promise<boolean> {
    try {
      const path = `/api/memories/${encodeURIComponent(of.memory)}/items/${encodeURIComponent(of.id)}`;
      await send("POST", path, body);
      say(said);
      await client.invalidateQueries({ queryKey: ["memory"] });
      onChanged();
      return true;
    } catch (thrown) {
      sayFailure(thrown);
      return false;
    }
  }

  async function narrow(): Promise<void> {
    const kept = boundary.trim();
    const whole = shown.boundary ? `${shown.boundary}; ${kept}` : kept;
    if (await act({ action: "narrow", boundary: whole }, "Narrowed.")) {
      setNow({ ...now, boundary: whole });
      setNarrowing(false);
      setBoundary("");
    }
  }

  async function undo(): Promise<void> {
    try {
      const told = await send<{ says: string }>("POST", `/api/corrections/${of.correction}/undo`, {});
      setNow({ ...now, gone: told.says || "Taken back." });
      await client.invalidateQueries({ queryKey: ["memory"] });
      onChanged();
    } catch (thrown) {
      sayFailure(thrown);
    }
  }

  return (
    <div role="group" className="understood" aria-label="What I understood">
      <Lightbulb aria-hidden className="understood-sign" />
      <div className="understood-words">
        <p className="understood-lesson">{shown.lesson}</p>
        <dl>
          {shown.when && (
            <div>
              <dt>I will use it</dt>
              <dd>“{shown.when}”</dd>
            </div>
          )}
          <div>
            <dt>I will not apply it</dt>
            <dd>{shown.boundary || (shown.when ? "to anything else" : "no limit was understood; Narrow sets one")}</dd>
          </div>
          <div>
            <dt>It holds</dt>
            <dd>
              {SCOPES[shown.scope] ?? shown.scope} ·{" "}
              <Status of={shown.gone ? "retired" : shown.status} memory={of.memory} />
            </dd>
          </div>
        </dl>
        {shown.gone ? (
          <p className="muted">{shown.gone}</p>
        ) : (
          <div className="row">
            <button
              type="button"
              className="button small"
              onClick={() => setNarrowing(!narrowing)}
              aria-expanded={narrowing}
            >
              Narrow
            </button>
            <button
              type="button"
              className="button small"
              onClick={() =>
                void act({ action: "retire" }, "Forgotten.").then(
                  (done) => done && setNow({ ...now, gone: "Forgotten." }),
                )
              }
            >
              Forget
            </button>
            {of.correction && (
              <button type="button" className="button small" onClick={() => void undo()}>
                Undo
              </button>
            )}
            <a className="quiet" href={to("memory", of.memory, of.id)}>
              See the evidence
            </a>
          </div>
        )}
        {narrowing && !shown.gone && (
          <form
            className="inline-form"
            onSubmit={(event) => {
              event.preventDefault();
              void narrow();
            }}
          >
            <label>
              Do not apply it when
              <input
                value={boundary}
                onChange={(event) => setBoundary(event.target.value)}
                placeholder="I write to friends"
                autoFocus
                onKeyDown={(event) => event.key === "Escape" && setNarrowing(false)}
              />
            </label>
            <button type="submit" className="button primary small" disabled={!boundary.trim()}>
              Narrow it
            </button>
          </form>
        )}
      </div>
    </div>
  );
}
