// The reasons of an answer: the lessons that the model saw.
import { to } from "../parts/route";
import type { LessonShown } from "../types";

/** Short name of a lesson. */
function short({ alias, id }: LessonShown): string {
  return alias || (id.length > 12 ? id.slice(0, 8) : id);
}

export function LessonsUsed({ lessons }: { lessons: LessonShown[] }) {
  const marked = lessons.some((lesson) => lesson.used !== undefined);
  const used = marked ? lessons.filter((lesson) => lesson.used !== false) : lessons;
  if (used.length === 0) return null;
  return (
    <details className="lessons">
      <summary>
        Used {used.length === 1 ? "reflection" : "reflections"}{" "}
        {used.map((lesson, i) => (
          <span key={lesson.id}>
            {i > 0 && (i === used.length - 1 ? " and " : ", ")}
            <span className="lesson-id">{short(lesson)}</span>
          </span>
        ))}
      </summary>
      <ul>
        {used.map((lesson) => (
          <li key={lesson.id}>
            <a href={to("memory", lesson.memory, lesson.id)}>{lesson.text}</a>
            {lesson.status === "quarantined" && <span className="muted"> on trial</span>}
          </li>
        ))}
      </ul>
    </details>
  );
}
