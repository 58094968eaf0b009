// Keys of the whole page. Single letters work where nobody is typing.
import { useEffect, useRef } from "react";

/** Is a person typing in this element? */
export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.dataset.typing === "";
}

/** Calls `on` for each key press of the page. */
export function useKeys(on: (event: KeyboardEvent) => void): void {
  const latest = useRef(on);
  latest.current = on;
  useEffect(() => {
    const heard = (event: KeyboardEvent): void => latest.current(event);
    window.addEventListener("keydown", heard);
    return () => window.removeEventListener("keydown", heard);
  }, []);
}

/** Moves the focus to the next or previous row of the list that has it, or of the first list of the page. */
export function moveInList(step: 1 | -1): boolean {
  const active = document.activeElement;
  const list = active?.closest("[data-list]") ?? document.querySelector("main [data-list]");
  if (!list) return false;
  const rows = [...list.querySelectorAll<HTMLElement>("[data-row]")].filter((row) => row.offsetParent !== null);
  const at = rows.findIndex((row) => row === active || row.contains(active));
  const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step];
  if (!next) return false;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}

/** The list keys: j and k anywhere, arrows inside a list. True when the press was one of them. */
export function listKey(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return false;
  if (document.querySelector("dialog[open] [role=combobox]")) return false;
  const inside = event.target instanceof HTMLElement && event.target.matches("[data-row]");
  const down = event.key === "j" || (inside && event.key === "ArrowDown");
  const up = event.key === "k" || (inside && event.key === "ArrowUp");
  return (down || up) && moveInList(down ? 1 : -1);
}
