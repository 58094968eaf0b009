// What came of a correction: what the server says of it, and the lesson, if one was drawn.
import { useEffect, useRef } from "react";
import type { Kept, Understood } from "../types";
import { UnderstoodCard } from "./understood";

export interface Learned {
  says: string;
  card: Understood | null;
}

/** What the server kept of a correction, as it is shown. */
export function learnedOf({ says, lesson, correction }: Kept, memory: string): Learned {
  if (!lesson) return { says, card: null };
  const card: Understood = {
    id: lesson.id,
    lesson: lesson.text ?? lesson.lesson ?? "",
    when: lesson.when ?? "",
    boundary: lesson.boundary ?? "",
    scope: lesson.scope ?? "",
    memory: lesson.memory || memory,
    status: lesson.status ?? "quarantined",
    correction: typeof correction === "string" ? correction : (correction?.id ?? null),
  };
  return { says, card };
}

export function LearnedView({ of, onChanged }: { of: Learned; onChanged: () => void }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    // When the new answer has been drawn, the reader begins at what was understood.
    const timer = window.setTimeout(() => place.current?.scrollIntoView({ block: "center" }), 150);
    return () => window.clearTimeout(timer);
  }, [of]);
  return (
    <div className="learned" ref={place}>
      {of.says && <p className="learned-says">{of.says.charAt(0).toUpperCase() + of.says.slice(1)}</p>}
      {of.card && <UnderstoodCard of={of.card} onChanged={onChanged} />}
    </div>
  );
}
