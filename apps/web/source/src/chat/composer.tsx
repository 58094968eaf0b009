// The box to write in. Enter sends, Shift+Enter makes a line, Esc stops an answer under way.
import { ArrowUp, Square } from "lucide-react";
import { useEffect, useRef } from "react";
import type { Kind } from "../types";

interface Props {
  kind: Kind;
  draft: string;
  onDraft: (text: string) => void;
  busy: boolean;
  onSend: (text: string) => void;
  onStop?: () => void;
  focus?: boolean;
}

const ASKS: Record<Kind, string> = {
  chat: "Write a message, or correct what was said",
  sql: "Ask the database in plain words",
};

export function Composer({ kind, draft, onDraft, busy, onSend, onStop, focus = true }: Props) {
  const box = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    if (focus && window.matchMedia("(pointer: fine)").matches) box.current?.focus();
  }, [focus]);
  useEffect(() => {
    const area = box.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 220)}px`;
  }, [draft]);

  function submit(): void {
    const text = draft.trim();
    if (text && !busy) onSend(text);
  }

  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <textarea
        ref={box}
        data-composer
        rows={1}
        value={draft}
        aria-label={ASKS[kind]}
        placeholder={ASKS[kind]}
        onChange={(event) => onDraft(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
            event.preventDefault();
            submit();
          } else if (event.key === "Escape") {
            if (busy) onStop?.();
            else box.current?.blur();
          }
        }}
      />
      {busy && onStop ? (
        <button type="button" className="send" aria-label="Stop" title="Stop" onClick={onStop}>
          <Square />
        </button>
      ) : (
        <button type="submit" className="send" aria-label="Send" title="Send" disabled={!draft.trim() || busy}>
          <ArrowUp />
        </button>
      )}
    </form>
  );
}
