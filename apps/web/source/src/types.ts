// What the server says: see docs/web.md.

export type Kind = "chat" | "sql";
export type Cell = string | number | boolean | null;

export interface Me {
  user: string;
  team: string | null;
  admin: boolean;
  login: boolean;
  version: string;
  model: string;
  databases: { name: string; title: string }[];
  features: Record<string, boolean>;
}

export interface Chat {
  id: string;
  kind: Kind;
  title: string;
  db: string | null;
  updated: string | number | null;
  turns: number;
}

export interface LessonShown {
  id: string;
  /** Short name: "u3" is of the user, "t1" of the team, "g2" of all. */
  alias?: string;
  text: string;
  when?: string;
  status: string;
  chance?: number | null;
  memory: string;
  used?: boolean;
}

export interface Understood {
  lesson: string;
  when: string;
  boundary: string;
  scope: string;
  memory: string;
  id: string;
  status: string;
  correction?: string | null;
  says?: string;
}

export interface ToolCall {
  name: string;
  arguments: unknown;
  result: unknown;
  error?: string | null;
}

export interface Reading {
  number: number;
  text: string;
  sql: string;
}

export interface Correction {
  id: string;
  kind: string;
  words: string;
  undone: boolean;
}

export interface Usage {
  calls: number;
  tokens: number;
  cost: number | null;
  seconds: number;
  first?: number | null;
}

export interface Turn {
  id: string;
  kind: Kind;
  text: string;
  status: string;
  reply: string;
  lessons: LessonShown[];
  understood: Understood | null;
  tools: ToolCall[];
  sql: string;
  columns: string[];
  types?: string[];
  /** Null for a turn of long ago: its query runs again when a person looks. */
  rows: Cell[][] | null;
  row_count: number | null;
  named?: string;
  truncated: boolean;
  chart: Record<string, unknown> | null;
  explanation: string;
  limits: string[];
  readings: Reading[];
  reason: string;
  agreement: number | null;
  asked: string;
  corrections: Correction[];
  verdict: "up" | "down" | null;
  /** Ids: the turn that this one replaces, and the one that took its place. */
  replaces?: string | null;
  replaced?: string | null;
  edited?: boolean;
  usage: Usage | null;
  at: string | number | null;
}

export interface ChatFull extends Omit<Chat, "turns" | "updated"> {
  memory: string;
  turns: Turn[];
  etag: number;
  busy?: boolean;
}

export interface Told {
  code: string;
  message: string;
  todo?: string;
}

export type StreamEvent =
  | { type: "asked"; text: string }
  | ({ type: "understood" } & Understood)
  | { type: "lessons"; lessons: LessonShown[] }
  | { type: "text"; delta: string }
  | ({ type: "tool" } & ToolCall)
  | { type: "sql"; sql: string }
  | { type: "rows"; columns: string[]; types?: string[]; rows: Cell[][]; row_count: number; truncated?: boolean }
  | { type: "chart"; spec: Record<string, unknown> }
  | { type: "explanation"; text: string }
  | { type: "limits"; limits: string[] }
  | { type: "readings"; readings: Reading[] }
  | ({ type: "error" } & Told)
  | { type: "done"; turn: Turn; etag: number };

export interface Kept {
  kept: boolean;
  says: string;
  correction: string | { id: string } | null;
  lesson: (Partial<Understood> & { id: string; text?: string }) | null;
  turn: Turn | null;
}

export interface MemoryListed {
  name: string;
  title: string;
  scope: string;
  counts: { active: number; quarantined: number; retired: number };
  version: number;
  writable: boolean;
}

export interface Evidence {
  trials: number;
  effect: number | null;
  low: number | null;
  high: number | null;
  says: string;
}

export interface Item {
  id: string;
  title: string;
  text: string;
  when: string;
  boundary: string;
  scope: string;
  polarity: string | number;
  status: string;
  since: { version: number; at: string | number | null } | null;
  shown: number;
  helped: number;
  harmed: number;
  value: number | null;
  evidence: Evidence | null;
  source: { author?: string; reason?: string; attempt?: string | null; chat?: string | null } | null;
  rival: string | null;
  writable?: boolean;
  approvable?: boolean;
}

export interface HistoryEntry {
  version: number;
  op: string;
  author: string;
  reason: string;
  at: string | number | null;
  before: unknown;
  after: unknown;
}

export interface RunListed {
  id: string;
  recipe: string;
  command: string;
  status: string;
  started: string | number | null;
  finished: string | number | null;
  tasks: number;
  done: number;
  cost: number | null;
  model: string;
}

export interface Arm {
  name: string;
  label: string;
  mean: number | null;
  low: number | null;
  high: number | null;
  per_seed?: number[];
  tasks: number;
}

export interface Point {
  x: number;
  y: number;
  low: number | null;
  high: number | null;
}

export interface AttemptListed {
  id: string;
  task: string;
  arm: string;
  round: number | null;
  answer: string;
  score: number | null;
  stop: string;
}

export interface RunFull extends RunListed {
  arms: Arm[];
  curves: { arm: string; points: Point[] }[];
  cost_by_role?: CostRow[];
  claim?: string | null;
  claim_holds?: boolean | null;
  memory?: string | null;
  gates: Gate[];
  lessons: { added: number; active: number; retired: number } | null;
  attempts: AttemptListed[];
}

export interface Gate {
  id?: string;
  at?: string | number | null;
  candidate: string;
  incumbent?: string;
  verdict: string;
  reason: string;
  tasks?: number;
  margin?: number;
  alpha?: number;
  gain?: { mean: number | null; low: number | null; high: number | null } | null;
}

export interface CostRow {
  role: string;
  calls: number;
  tokens: number;
  cost: number | null;
  seconds: number;
}

export interface AttemptFull {
  attempt: Record<string, unknown> & { steps?: { author: string; text: string }[] };
  feedback: { critic: string; value: number | null; text: string }[];
  critique: string | null;
  reflection: string | null;
}

export interface Policy {
  model: string;
  memory: string | null;
  version?: number | null;
  label: string;
}

export type CompareEvent =
  | { type: "pair"; n: number; question: string; a: Turn; b: Turn; same: boolean }
  | { type: "done"; same: number; differ: number; seconds: number; cost: number | null }
  | ({ type: "error" } & Told);
