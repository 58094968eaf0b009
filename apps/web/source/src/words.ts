// Numbers and dates as people read them.
const WHOLE = new Intl.NumberFormat("en-GB");
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const YEAR = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

export const count = (n: number): string => WHOLE.format(n);

/** "1 row", "2 rows". */
export function many(n: number, one: string, more: string = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : more}`;
}

export function money(dollars: number | null | undefined): string {
  if (dollars === null || dollars === undefined) return "cost unknown";
  if (dollars === 0) return "$0";
  return dollars < 0.01 ? `$${dollars.toPrecision(2)}` : `$${dollars.toFixed(2)}`;
}

export function seconds(s: number | null | undefined): string {
  if (s === null || s === undefined) return "";
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  return s < 90 ? `${s.toFixed(1)} s` : `${Math.round(s / 60)} min`;
}

export function percent(share: number | null | undefined, digits = 0): string {
  return share === null || share === undefined ? "–" : `${(share * 100).toFixed(digits)} %`;
}

export function points(effect: number): string {
  return `${effect > 0 ? "+" : effect < 0 ? "−" : ""}${Math.abs(effect).toFixed(2)}`;
}

/** A moment, from seconds since 1970 or ISO text. */
export function moment(at: string | number | null | undefined): Date | null {
  if (at === null || at === undefined || at === "") return null;
  const date = typeof at === "number" ? new Date(at < 1e12 ? at * 1000 : at) : new Date(at);
  return Number.isNaN(date.getTime()) ? null : date;
}

export function when(at: string | number | null | undefined): string {
  const date = moment(at);
  if (!date) return "";
  const now = new Date();
  if (date.toDateString() === now.toDateString()) return TIME.format(date);
  return date.getFullYear() === now.getFullYear() ? DAY.format(date) : YEAR.format(date);
}

export function fullTime(at: string | number | null | undefined): string {
  const date = moment(at);
  return date ? `${YEAR.format(date)}, ${TIME.format(date)}` : "";
}

/** A model's name; of one in a file only the file. */
export function modelName(name: string): string {
  return name.startsWith("/") || name.includes(":/") ? (name.split("/").at(-1) ?? name) : name;
}

/** A value of unknown shape on one line. */
export function plain(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(Number(value.toPrecision(6)));
  return JSON.stringify(value);
}
