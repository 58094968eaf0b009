// The attempts of a run, and one of them with what was said of it.
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { get } from "../api";
import { Loading, Notice } from "../parts/bits";
import { Dialog } from "../parts/dialog";
import type { AttemptFull, AttemptListed } from "../types";
import { many, plain } from "../words";

export function Attempts({ attempts }: { attempts: AttemptListed[] }) {
  const [shown, setShown] = useState("");
  const [only, setOnly] = useState("");
  const arms = [...new Set(attempts.map((attempt) => attempt.arm))].filter(Boolean);
  const found = attempts.filter((attempt) => !only || attempt.arm === only);
  if (attempts.length === 0) return null;
  return (
    <section className="block">
      <div className="bar">
        <h2>Attempts</h2>
        {arms.length > 1 && (
          <label className="inline">
            Arm
            <select value={only} onChange={(event) => setOnly(event.target.value)}>
              <option value="">all</option>
              {arms.map((arm) => (
                <option key={arm}>{arm}</option>
              ))}
            </select>
          </label>
        )}
        <span className="muted bar-rest">{many(found.length, "attempt")}</span>
      </div>
      <ul className="attempts" data-list>
        {found.map((attempt) => (
          <li key={attempt.id}>
            <button type="button" data-row onClick={() => setShown(attempt.id)}>
              <span className={attempt.score === null ? "score" : attempt.score > 0.5 ? "score good" : "score bad"}>
                {attempt.score === null ? "–" : Number(attempt.score.toFixed(2))}
              </span>
              <span className="attempt-task">{attempt.task}</span>
              <span className="attempt-answer">{attempt.answer}</span>
              <span className="muted attempt-arm">
                {attempt.arm}
                {attempt.round !== null && ` · ${attempt.round}`}
              </span>
            </button>
          </li>
        ))}
      </ul>
      {shown && <OneAttempt id={shown} onClose={() => setShown("")} />}
    </section>
  );
}

function OneAttempt({ id, onClose }: { id: string; onClose: () => void }) {
  const told = useQuery({
    queryKey: ["attempt", id],
    queryFn: ({ signal }) => get<AttemptFull>(`/api/attempts/${encodeURIComponent(id)}`, signal),
  });
  const attempt = told.data?.attempt;
  return (
    <Dialog title={`Attempt ${id}`} onClose={onClose} form="drawer">
      {told.error && <Notice failure={told.error} />}
      {told.isPending && <Loading what="Reading the attempt" />}
      {told.data && attempt && (
        <div className="stack">
          {attempt.question ? <Part title="Question">{plain(attempt.question)}</Part> : null}
          {attempt.steps?.map((step, i) => (
            <Part key={i} title={step.author}>
              {step.text}
            </Part>
          ))}
          <Part title="Answer">{plain(attempt.answer)}</Part>
          {told.data.feedback.map((one, i) => (
            <Part key={i} title={`${one.critic}: ${one.value === null ? "no score" : plain(one.value)}`}>
              {one.text}
            </Part>
          ))}
          {told.data.critique && <Part title="Critique">{told.data.critique}</Part>}
          {told.data.reflection && <Part title="Reflection">{told.data.reflection}</Part>}
        </div>
      )}
    </Dialog>
  );
}

function Part({ title, children }: { title: string; children: string }) {
  if (!children) return null;
  return (
    <section className="part">
      <h3>{title}</h3>
      <p className="plain">{children}</p>
    </section>
  );
}
