// The reasons of an answer: the lessons that the model saw.
import { to } from "../parts/route";
import type { LessonShown } from "../types";

/** Short name of a lesson. */
function short({ alias, id }: LessonShown): string {
  return alias || (id.length > 12 ? id.slice(0, 8) : id);
}

export function LessonsUsed({ lessons }: { lessons: LessonShown[] }) {
  const unused = lessons.filter((lesson) => lesson.used === false);
  const used = unused.length < lessons.length ? lessons.filter((lesson) => lesson.used !== false) : lessons;
  if (used.length === 0) return null;
  return (
    <details className="lessons">
      <summary>
        {used === lessons && unused.length > 0 ? "Saw" : "Used"} {used.length === 1 ? "reflection" : "reflections"}{" "}
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
            {lesson.used === false && <span className="muted"> the answer does not say that it followed it</span>}
            {lesson.status === "quarantined" && !lesson.memory.startsWith("chat-user-") && (
              <span className="muted"> on trial</span>
            )}
          </li>
        ))}
      </ul>
    </details>
  );
}
