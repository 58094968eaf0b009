// Light, dark, or as the system has it.
import { useSyncExternalStore } from "react";

export type Theme = "system" | "light" | "dark";
const KEY = "verbal.theme";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

function stored(): Theme {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : "system";
  } catch {
    return "system";
  }
}

let theme: Theme = stored();

/** Puts the theme on the document. */
export function applyTheme(): void {
  const shown = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
  document.documentElement.dataset.theme = shown;
}

dark.addEventListener("change", () => {
  applyTheme();
  listeners.forEach((told) => told());
});

export function setTheme(next: Theme): void {
  theme = next;
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // A browser that keeps nothing shows the theme until it is closed.
  }
  applyTheme();
  listeners.forEach((told) => told());
}

/** "light" or "dark", as shown now. */
export function useShownTheme(): "light" | "dark" {
  return useSyncExternalStore(subscribe, () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light"));
}

function subscribe(told: () => void): () => void {
  listeners.add(told);
  return () => listeners.delete(told);
}

export function switchTheme(): void {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}
