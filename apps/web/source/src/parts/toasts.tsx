// Short messages that pass: what was done, what failed.
import { X } from "lucide-react";
import { useSyncExternalStore } from "react";
import { asFailure } from "../api";

interface Toast {
  id: number;
  text: string;
  todo: string;
  bad: boolean;
}

let toasts: Toast[] = [];
let last = 0;
const listeners = new Set<() => void>();

function change(next: Toast[]): void {
  toasts = next;
  listeners.forEach((told) => told());
}

function drop(id: number): void {
  change(toasts.filter((toast) => toast.id !== id));
}

export function say(text: string, bad = false, todo = ""): void {
  const id = ++last;
  change([...toasts.slice(-2), { id, text, todo, bad }]);
  window.setTimeout(() => drop(id), bad ? 12_000 : 5_000);
}

export function sayFailure(thrown: unknown): void {
  const failure = asFailure(thrown);
  say(failure.message, true, failure.todo);
}

export function Toasts() {
  const shown = useSyncExternalStore(
    (told) => {
      listeners.add(told);
      return () => listeners.delete(told);
    },
    () => toasts,
  );
  return (
    <div className="toasts" role="status" aria-live="polite">
      {shown.map((toast) => (
        <div key={toast.id} className={toast.bad ? "toast toast-bad" : "toast"}>
          <div>
            <p>{toast.text}</p>
            {toast.todo && <p className="muted">{toast.todo}</p>}
          </div>
          <button type="button" className="icon" aria-label="Dismiss" title="Dismiss" onClick={() => drop(toast.id)}>
            <X />
          </button>
        </div>
      ))}
    </div>
  );
}
