// Requests to the server: JSON, event streams, uploads. Every failure is a Failure with what to do.
import type { Told } from "./types";

export class Failure extends Error {
  readonly code: string;
  readonly todo: string;
  readonly status: number;
  /** Is there a form to sign in with? */
  readonly form: boolean;

  constructor(told: Told & { form?: boolean }, status: number) {
    super(told.message);
    this.code = told.code;
    this.todo = told.todo ?? "";
    this.status = status;
    this.form = told.form ?? true;
  }
}

const GONE: Told = {
  code: "gone",
  message: "The server does not answer.",
  todo: "Start it again with `verbal ui`; nothing that was finished is lost.",
};

let onGone: (gone: boolean) => void = () => {};
let onLogin: (failure: Failure) => void = () => {};

/** Who is told when the server is gone or back, and when a session ended. */
export function listen(gone: (gone: boolean) => void, login: (failure: Failure) => void): void {
  onGone = gone;
  onLogin = login;
}

/** A failure as something to show, whatever was thrown. */
export function asFailure(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown;
  if (typeof thrown === "object" && thrown && "message" in thrown && "code" in thrown) {
    return new Failure(thrown as Told, 0);
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new Failure({ code: "page", message, todo: "Reload the page." }, 0);
}

/** Did the person stop it? */
export function isAbort(thrown: unknown): boolean {
  return thrown instanceof DOMException && thrown.name === "AbortError";
}

async function request(path: string, init: RequestInit): Promise<Response> {
  let reply: Response;
  try {
    reply = await fetch(path, { credentials: "same-origin", ...init });
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    onGone(true);
    throw new Failure(GONE, 0);
  }
  onGone(false);
  if (!reply.ok) throw await refusal(reply);
  return reply;
}

async function refusal(reply: Response): Promise<Failure> {
  let told: Told & { form?: boolean };
  try {
    told = ((await reply.json()) as { error: Told }).error;
  } catch {
    told = { code: `http-${reply.status}`, message: `The server said ${reply.status} ${reply.statusText}.`, todo: "" };
  }
  const failure = new Failure(told, reply.status);
  if (reply.status === 401 && told.code === "login") onLogin(failure);
  return failure;
}

function sending(method: string, body: unknown, accept: string, signal?: AbortSignal): RequestInit {
  const headers: Record<string, string> = { "X-Verbal": "1", Accept: accept };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: signal ?? null };
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const reply = await request(path, { headers: { Accept: "application/json" }, signal: signal ?? null });
  return (await reply.json()) as T;
}

export async function send<T>(method: "POST" | "DELETE" | "PATCH", path: string, body?: unknown): Promise<T> {
  const reply = await request(path, sending(method, body, "application/json"));
  return (await reply.json()) as T;
}

export async function upload<T>(path: string, file: File): Promise<T> {
  const form = new FormData();
  form.append("file", file);
  const reply = await request(path, { method: "POST", headers: { "X-Verbal": "1" }, body: form });
  return (await reply.json()) as T;
}

/**
 * Reads a stream of events to its end. An answer that is no stream comes as one value to `plain`.
 * Aborting the signal hangs up, and the server stops its work.
 */
export async function stream<E>(
  path: string,
  body: unknown,
  on: (event: E) => void,
  signal?: AbortSignal,
  plain?: (value: unknown) => void,
): Promise<void> {
  const method = body === undefined ? "GET" : "POST";
  const reply = await request(path, sending(method, body, "text/event-stream", signal));
  if (!reply.headers.get("Content-Type")?.startsWith("text/event-stream") || !reply.body) {
    plain?.(await reply.json());
    return;
  }
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const data = dataOf(block);
        if (data) on(JSON.parse(data) as E);
      }
    }
  } catch (thrown) {
    if (isAbort(thrown) || thrown instanceof SyntaxError) throw thrown;
    onGone(true);
    throw new Failure({ ...GONE, message: "The connection broke off in the middle of the answer." }, 0);
  }
}

function dataOf(block: string): string {
  const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).trimStart()).join("\n");
}
