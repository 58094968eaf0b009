// The result of a query: one figure, or a grid and a chart.
import { Download } from "lucide-react";
import { lazy, Suspense, useMemo, useState } from "react";
import { get } from "../api";
import { sayFailure } from "../parts/toasts";
import type { Cell, Turn } from "../types";
import { count, many } from "../words";

const Grid = lazy(() => import("./grid"));
const Chart = lazy(() => import("./chart"));

/** Rows as the views below need them. */
export type Rows = Pick<Turn, "id" | "columns" | "types"> & { rows: Cell[][]; row_count: number };

export function Result({ turn }: { turn: Turn }) {
  const [fetched, setFetched] = useState<Pick<Rows, "columns" | "types" | "rows" | "row_count"> | null>(null);
  const [busy, setBusy] = useState(false);
  const given = useMemo<Rows | null>(() => {
    const told = fetched ?? (turn.rows ? turn : null);
    if (!told?.rows) return null;
    const { columns, types, rows, row_count: count } = told;
    return { id: turn.id, columns, types, rows, row_count: count ?? rows.length };
  }, [fetched, turn]);

  async function fetchRows(): Promise<void> {
    setBusy(true);
    try {
      setFetched(await get(`/api/turns/${turn.id}/rows?offset=0&limit=200`));
    } catch (thrown) {
      sayFailure(thrown);
    } finally {
      setBusy(false);
    }
  }

  if (!given) {
    return turn.status === "answered" ? (
      <button type="button" className="button small" disabled={busy} onClick={() => void fetchRows()}>
        Show the rows
      </button>
    ) : null;
  }
  if (given.columns.length === 0) return null;
  const first = given.rows[0];
  const single = given.row_count === 1 && given.columns.length === 1 && first;
  if (single) return <Figure name={given.columns[0] ?? ""} value={first[0] ?? null} />;
  const chart = turn.chart;
  return (
    <div role="group" className={chart ? "result with-chart" : "result"} aria-label="Result">
      <div className="result-table">
        <Suspense fallback={<div className="grid-wait" />}>
          <Grid result={given} />
        </Suspense>
        <p className="result-foot">
          {many(given.row_count, "row")}
          {turn.truncated && ", there are more"}
          {turn.id && given.row_count > 0 && (
            <a className="quiet" href={`/api/turns/${turn.id}/rows.csv`} download>
              <Download aria-hidden /> CSV
            </a>
          )}
        </p>
      </div>
      {chart && (
        <figure className="chart">
          <Suspense fallback={<div className="chart-place" />}>
            <Chart spec={chart} />
          </Suspense>
        </figure>
      )}
    </div>
  );
}

function Figure({ name, value }: { name: string; value: Cell }) {
  const shown =
    value === null ? "NULL" : typeof value === "number" && Number.isInteger(value) ? count(value) : String(value);
  return (
    <p className="figure">
      <span className={shown.length > 24 ? "figure-value long" : "figure-value"}>{shown}</span>
      <span className="figure-name">{name}</span>
    </p>
  );
}
