// A window over the page: the browser's own dialog, which traps the focus, closes with Esc and makes the rest inert.
import { X } from "lucide-react";
import { type ReactNode, useEffect, useId, useRef } from "react";

interface Props {
  title: string;
  onClose: () => void;
  children: ReactNode;
  form?: "middle" | "drawer" | "side" | "bare";
}

export function Dialog({ title, onClose, children, form = "middle" }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const back = useRef<Element | null>(null);
  const heading = useId();
  useEffect(() => {
    const shown = dialog.current;
    back.current = document.activeElement;
    if (shown && !shown.open) shown.showModal();
    return () => {
      shown?.close();
      if (back.current instanceof HTMLElement) back.current.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      className={`dialog dialog-${form}`}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => event.target === dialog.current && onClose()}
    >
      <div className="dialog-body">
        <header className={form === "bare" ? "unseen" : "dialog-head"}>
          <h2 id={heading}>{title}</h2>
          {form !== "bare" && (
            <button type="button" className="icon" onClick={onClose} aria-label="Close" title="Close">
              <X />
            </button>
          )}
        </header>
        {children}
      </div>
    </dialog>
  );
}
