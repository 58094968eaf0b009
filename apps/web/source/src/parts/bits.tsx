// Small things that every page uses.
import { CircleAlert } from "lucide-react";
import type { ReactNode } from "react";
import { asFailure } from "../api";

/** What went wrong and what to do. */
export function Notice({ failure, children }: { failure: unknown; children?: ReactNode }) {
  const told = asFailure(failure);
  return (
    <div className="notice" role="alert">
      <CircleAlert aria-hidden />
      <div>
        <p className="notice-what">{told.message}</p>
        {told.todo && <p className="notice-todo">{told.todo}</p>}
        {children}
      </div>
    </div>
  );
}

/** What a page is for, while there is nothing on it. */
export function Empty({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p className="loading" role="status">
      <span className="dots" aria-hidden />
      {what}
    </p>
  );
}

const STATUS: Record<string, string> = {
  active: "believed",
  quarantined: "on trial",
  retired: "retired",
};

/** The standing of a lesson, or any other word of state. What a person wished for themselves is followed at once. */
export function Status({ of, memory = "" }: { of: string; memory?: string }) {
  const followed = of === "quarantined" && memory.startsWith("chat-user-");
  const word = followed ? "followed" : (STATUS[of] ?? of);
  return <span className={`status status-${followed ? "active" : of.replace(/[^a-z_-]/gi, "")}`}>{word}</span>;
}

/** Choices of which one holds; arrow keys move as in a radio group. */
export function Choice<T extends string>(props: {
  label: string;
  options: { value: T; label: ReactNode }[];
  value: T;
  onChange: (value: T) => void;
}) {
  return (
    <fieldset className="choice">
      <legend className="unseen">{props.label}</legend>
      {props.options.map(({ value, label }) => (
        <label key={value} className={value === props.value ? "chosen" : ""}>
          <input
            type="radio"
            name={props.label}
            value={value}
            checked={value === props.value}
            onChange={() => props.onChange(value)}
          />
          <span>{label}</span>
        </label>
      ))}
    </fieldset>
  );
}
