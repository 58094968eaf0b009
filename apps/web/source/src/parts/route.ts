// Places in the page: "#/chat/3fa9c". The server knows only "/".
import { useSyncExternalStore } from "react";

export interface Route {
  page: string;
  id: string;
  more: string;
}

function read(): string {
  return window.location.hash.replace(/^#\/?/, "");
}

function listen(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  return () => window.removeEventListener("hashchange", changed);
}

/** Where the page is. */
export function useRoute(): Route {
  const [page = "", id = "", more = ""] = useSyncExternalStore(listen, read).split("/").map(unquoted);
  return { page: page || "chat", id, more };
}

function unquoted(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a place. */
export function to(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export function go(...parts: string[]): void {
  window.location.hash = to(...parts);
}
