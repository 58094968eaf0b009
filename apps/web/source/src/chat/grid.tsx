// The result grid: only what is seen is drawn, further rows come by pages, keys go from cell to cell.
import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, useCallback, useEffect, useMemo, useReducer, useRef, useState } from "react";
import { get } from "../api";
import type { Cell } from "../types";
import { count } from "../words";
import type { Rows } from "./result";

const ROW = 30;
const PAGE = 500;
const HIGHEST = 12;

/** Rows of a result by their place; what is missing is fetched a page at a time. */
function useRows(result: Rows): { at: (i: number) => Cell[] | undefined; want: (from: number, to: number) => void } {
  const pages = useRef(new Map<number, Cell[][] | "asked">());
  const [, drawn] = useReducer((n: number) => n + 1, 0);
  const { id, rows } = result;
  useEffect(() => () => pages.current.clear(), [id]);
  const at = useCallback(
    (i: number): Cell[] | undefined => {
      if (i < rows.length) return rows[i];
      const page = pages.current.get(Math.floor(i / PAGE));
      return Array.isArray(page) ? page[i % PAGE] : undefined;
    },
    [rows],
  );
  const want = useCallback(
    (from: number, to: number): void => {
      if (!id) return;
      for (let page = Math.floor(from / PAGE); page <= Math.floor(to / PAGE); page += 1) {
        if (pages.current.has(page) || Math.min((page + 1) * PAGE, result.row_count) <= rows.length) continue;
        pages.current.set(page, "asked");
        get<{ rows: Cell[][] }>(`/api/turns/${id}/rows?offset=${page * PAGE}&limit=${PAGE}`).then(
          (told) => {
            pages.current.set(page, told.rows);
            drawn();
          },
          () => pages.current.delete(page),
        );
      }
    },
    [id, rows, result.row_count],
  );
  return { at, want };
}

/** Widths in pixels, from the names and the first rows. */
function widthsOf(result: Rows): number[] {
  return result.columns.map((name, column) => {
    const cells = result.rows.slice(0, 60).map((row) => shown(row[column] ?? null).length);
    const longest = Math.max(name.length + 1, ...cells);
    return Math.round(Math.min(Math.max(longest * 7.6 + 26, 72), 340));
  });
}

function shown(cell: Cell): string {
  if (cell === null) return "NULL";
  if (typeof cell === "number") return Number.isInteger(cell) ? String(cell) : String(Number(cell.toPrecision(12)));
  return String(cell);
}

export default function Grid({ result }: { result: Rows }) {
  const box = useRef<HTMLDivElement>(null);
  const { at, want } = useRows(result);
  const [active, setActive] = useState({ row: 0, column: 0 });
  const widths = useMemo(() => widthsOf(result), [result]);
  const numeric = useMemo(
    () =>
      result.columns.map((_, column) => {
        const type = result.types?.[column];
        return type ? type === "number" : result.rows.slice(0, 60).every((row) => typeof row[column] !== "string");
      }),
    [result],
  );
  const virtual = useVirtualizer({
    count: result.row_count,
    getScrollElement: () => box.current,
    estimateSize: () => ROW,
    overscan: 12,
    scrollPaddingStart: ROW + 2,
  });
  const items = virtual.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const final = items.at(-1)?.index ?? 0;
  useEffect(() => want(first, final), [want, first, final]);

  function move(event: KeyboardEvent): void {
    const page = Math.max(1, Math.floor((box.current?.clientHeight ?? 300) / ROW) - 2);
    const lastRow = result.row_count - 1;
    const lastColumn = result.columns.length - 1;
    const all = event.ctrlKey || event.metaKey;
    let { row, column } = active;
    if (event.key === "ArrowDown") row += 1;
    else if (event.key === "ArrowUp") row -= 1;
    else if (event.key === "ArrowRight") column += 1;
    else if (event.key === "ArrowLeft") column -= 1;
    else if (event.key === "PageDown") row += page;
    else if (event.key === "PageUp") row -= page;
    else if (event.key === "Home") [row, column] = all ? [0, 0] : [row, 0];
    else if (event.key === "End") [row, column] = all ? [lastRow, lastColumn] : [row, lastColumn];
    else if (event.key === "c" && all) {
      void navigator.clipboard?.writeText(shown(at(row)?.[column] ?? null)).catch(() => undefined);
      return;
    } else return;
    event.preventDefault();
    event.stopPropagation();
    row = Math.min(Math.max(row, 0), Math.max(lastRow, 0));
    column = Math.min(Math.max(column, 0), lastColumn);
    setActive({ row, column });
    virtual.scrollToIndex(row, { align: "auto" });
    seeColumn(column);
  }

  function seeColumn(column: number): void {
    const left = widths.slice(0, column).reduce((sum, width) => sum + width, 0);
    const right = left + (widths[column] ?? 0);
    const scroller = box.current;
    if (!scroller) return;
    if (left < scroller.scrollLeft) scroller.scrollLeft = left;
    else if (right > scroller.scrollLeft + scroller.clientWidth) scroller.scrollLeft = right - scroller.clientWidth;
  }

  const total = widths.reduce((sum, width) => sum + width, 0);
  const height = Math.min(result.row_count, HIGHEST) * ROW + ROW + 2;
  const value = at(active.row)?.[active.column];
  const drawnNow = active.row >= first && active.row <= final && items.length > 0;
  const cellId = (row: number, column: number): string => `cell-${result.id}-${row}-${column}`;
  return (
    <div className="grid-frame" style={{ width: total + 18 }}>
      <div
        ref={box}
        className="grid"
        role="grid"
        tabIndex={0}
        aria-label={`Result, ${count(result.row_count)} rows`}
        aria-rowcount={result.row_count + 1}
        aria-colcount={result.columns.length}
        aria-activedescendant={drawnNow ? cellId(active.row, active.column) : undefined}
        style={{ height }}
        onKeyDown={move}
      >
        <div className="grid-head" role="row" aria-rowindex={1} style={{ minWidth: total }}>
          {result.columns.map((name, column) => (
            <div
              key={`${name} ${column}`}
              role="columnheader"
              aria-colindex={column + 1}
              className={numeric[column] ? "cell right" : "cell"}
              style={{ flexBasis: widths[column] }}
              title={result.types?.[column] ? `${name}: ${result.types[column]}` : name}
            >
              {name}
            </div>
          ))}
        </div>
        <div role="rowgroup" className="grid-body" style={{ height: virtual.getTotalSize(), minWidth: total }}>
          {items.map((item) => (
            <div
              key={item.key}
              role="row"
              className="grid-row"
              aria-rowindex={item.index + 2}
              style={{ transform: `translateY(${item.start}px)`, minWidth: total }}
            >
              {result.columns.map((name, column) => {
                const row = at(item.index);
                const cell = row?.[column] ?? null;
                const here = active.row === item.index && active.column === column;
                return (
                  <div
                    key={`${name} ${column}`}
                    id={cellId(item.index, column)}
                    role="gridcell"
                    aria-colindex={column + 1}
                    aria-selected={here}
                    className={`cell${numeric[column] ? " right" : ""}${cell === null ? " null" : ""}`}
                    style={{ flexBasis: widths[column] }}
                    onMouseDown={() => setActive({ row: item.index, column })}
                  >
                    {row ? shown(cell) : "…"}
                  </div>
                );
              })}
            </div>
          ))}
        </div>
      </div>
      {typeof value === "string" && value.length > 40 && <p className="grid-value">{value}</p>}
    </div>
  );
}
