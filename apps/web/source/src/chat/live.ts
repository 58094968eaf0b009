// Answers under way. They live outside the views: a person can look at a lesson meanwhile and come back.
import type { QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import { asFailure, Failure, isAbort, stream } from "../api";
import type { ChatFull, Kind, StreamEvent, Turn } from "../types";

export interface Live {
  turn: Turn;
  busy: boolean;
  failure: Failure | null;
  stopped: boolean;
  abort: AbortController;
  again: () => void;
}

const lives = new Map<string, Live>();
const listeners = new Set<() => void>();

function put(chat: string, live: Live | null): void {
  if (live) lives.set(chat, live);
  else lives.delete(chat);
  listeners.forEach((told) => told());
}

function subscribe(told: () => void): () => void {
  listeners.add(told);
  return () => listeners.delete(told);
}

/** The answer under way in a chat, if there is one. */
export function useLive(chat: string): Live | null {
  return useSyncExternalStore(subscribe, () => lives.get(chat) ?? null);
}

/** A turn of which only the question is known. */
export function emptyTurn(kind: Kind, text: string): Turn {
  return {
    id: "",
    kind,
    text,
    status: "",
    reply: "",
    lessons: [],
    understood: null,
    tools: [],
    sql: "",
    columns: [],
    rows: [],
    row_count: 0,
    truncated: false,
    chart: null,
    explanation: "",
    limits: [],
    readings: [],
    reason: "",
    agreement: null,
    asked: "",
    corrections: [],
    verdict: null,
    usage: null,
    at: null,
  };
}

/** The turn after one event. */
export function grown(turn: Turn, event: StreamEvent): Turn {
  switch (event.type) {
    case "asked":
      return { ...turn, asked: event.text };
    case "understood":
      return { ...turn, understood: event };
    case "lessons":
      return { ...turn, lessons: event.lessons };
    case "text":
      return { ...turn, reply: turn.reply + event.delta };
    case "tool":
      return { ...turn, tools: [...turn.tools, event] };
    case "sql":
      return { ...turn, sql: event.sql };
    case "rows":
      return { ...turn, columns: event.columns, types: event.types, rows: event.rows, row_count: event.row_count };
    case "chart":
      return { ...turn, chart: event.spec };
    case "explanation":
      return { ...turn, explanation: event.text };
    case "limits":
      return { ...turn, limits: event.limits };
    case "readings":
      return { ...turn, readings: event.readings };
    case "done":
      return event.turn;
    default:
      return turn;
  }
}

interface Start {
  client: QueryClient;
  chat: string;
  kind: Kind;
  path: string;
  body: unknown;
  text: string;
}

/** Asks, and follows the answer until it is done, stopped or failed. */
export async function follow(start: Start): Promise<void> {
  const { client, chat } = start;
  const abort = new AbortController();
  let live: Live = {
    turn: emptyTurn(start.kind, start.text),
    busy: true,
    failure: null,
    stopped: false,
    abort,
    again: () => void follow(start),
  };
  put(chat, live);
  let shown = 0;
  const on = (event: StreamEvent): void => {
    live = { ...live, turn: grown(live.turn, event) };
    if (event.type === "error") live = { ...live, failure: new Failure(event, 0) };
    if (event.type === "done") settle(client, chat, event.turn, event.etag);
    // One paint a frame is enough, however fast the words come.
    if (event.type === "text" && shown) return;
    shown ||= requestAnimationFrame(() => {
      shown = 0;
      if (lives.get(chat)?.abort === abort) put(chat, live);
    });
  };
  try {
    await stream<StreamEvent>(start.path, start.body, on, abort.signal, (value) => {
      const turn = value as Turn & { turn?: Turn };
      settle(client, chat, turn.turn ?? turn, null);
      live = { ...live, turn: turn.turn ?? turn };
    });
  } catch (thrown) {
    if (isAbort(thrown)) live = { ...live, stopped: true };
    else live = { ...live, failure: asFailure(thrown) };
  }
  cancelAnimationFrame(shown);
  live = { ...live, busy: false };
  put(chat, live.failure || live.stopped ? live : null);
  await client.invalidateQueries({ queryKey: ["chat", chat] });
  await client.invalidateQueries({ queryKey: ["chats"] });
  if (live.stopped) await afterStop(client, chat, live);
}

/** The server keeps what was said until it was stopped: when it tells so, ours can go. */
async function afterStop(client: QueryClient, chat: string, live: Live): Promise<void> {
  await new Promise((after) => window.setTimeout(after, 400));
  await client.invalidateQueries({ queryKey: ["chat", chat] });
  const kept = client.getQueryData<ChatFull>(["chat", chat]);
  if (lives.get(chat)?.abort === live.abort && kept?.turns.at(-1)?.text === live.turn.text) put(chat, null);
}

function settle(client: QueryClient, chat: string, turn: Turn, etag: number | null): void {
  client.setQueryData<ChatFull>(["chat", chat], (kept) => {
    if (!kept) return kept;
    const turns = kept.turns.some((t) => t.id === turn.id)
      ? kept.turns.map((t) => (t.id === turn.id ? turn : t))
      : [...kept.turns, turn];
    return { ...kept, turns, etag: etag ?? kept.etag + 1 };
  });
}

/** Hangs up: the server ends the work and the money stops. */
export function stop(chat: string): void {
  lives.get(chat)?.abort.abort();
}

/** Takes a failed or stopped answer off the page. */
export function dismiss(chat: string): void {
  if (!lives.get(chat)?.busy) put(chat, null);
}
