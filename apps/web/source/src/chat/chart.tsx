// A chart from a Vega-Lite specification. Expressions are interpreted, never compiled: the page's policy has no eval.
import { useEffect, useRef, useState } from "react";
import { parse, View, Warn } from "vega";
import { expressionInterpreter } from "vega-interpreter";
import { compile, type TopLevelSpec } from "vega-lite";
import { useShownTheme } from "../parts/theme";

function coloursOf(element: HTMLElement): (name: string) => string {
  const style = getComputedStyle(element);
  return (name) => style.getPropertyValue(name).trim();
}

/** Labels below the chart lie flat where there is room for them. */
function angle(spec: Record<string, unknown>, width: number): number {
  const { data, encoding } = spec as {
    data?: { values?: Record<string, unknown>[] };
    encoding?: { x?: { field?: string; type?: string } };
  };
  const x = encoding?.x;
  if (!x?.field || x.type === "quantitative") return 0;
  const labels = new Set((data?.values ?? []).map((row) => String(row[x.field ?? ""])));
  const longest = Math.max(0, ...[...labels].map((label) => label.length));
  return labels.size * (longest * 6.4 + 10) < width - 80 ? 0 : -45;
}

/** The looks of the page for Vega-Lite. */
function looks(colour: (name: string) => string, labelAngle: number): TopLevelSpec["config"] {
  const font = "system-ui, sans-serif";
  const axis = {
    labelColor: colour("--muted"),
    titleColor: colour("--muted"),
    gridColor: colour("--line"),
    domainColor: colour("--line-strong"),
    tickColor: colour("--line-strong"),
    labelFont: font,
    titleFont: font,
    titleFontWeight: 500 as const,
    labelFontSize: 11,
    titleFontSize: 11,
    labelLimit: 120,
  };
  return {
    background: "transparent",
    font,
    view: { stroke: null },
    axis,
    axisX: { grid: false, labelOverlap: "greedy", labelAngle, labelAlign: labelAngle ? "right" : "center" },
    legend: { labelColor: colour("--muted"), titleColor: colour("--muted"), labelFont: font, titleFont: font },
    bar: { color: colour("--accent"), cornerRadiusEnd: 2 },
    line: { color: colour("--accent"), strokeWidth: 2 },
    point: { color: colour("--accent"), filled: true, opacity: 0.7 },
    arc: { innerRadius: 48 },
    range: { category: ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--c8"].map(colour) },
  };
}

export default function Chart({ spec }: { spec: Record<string, unknown> }) {
  const place = useRef<HTMLDivElement>(null);
  const theme = useShownTheme();
  const [failed, setFailed] = useState(false);

  useEffect(() => {
    const host = place.current;
    if (!host) return;
    let view: View | null = null;
    try {
      const { title: _title, ...drawn } = spec;
      const wide = { ...drawn, width: "container", height: 220, autosize: { type: "fit", contains: "padding" } };
      const config = looks(coloursOf(host), angle(spec, host.clientWidth));
      const made = compile(wide as unknown as TopLevelSpec, { config, logger: QUIET });
      view = new View(parse(made.spec, undefined, { ast: true }), {
        expr: expressionInterpreter,
        renderer: "svg",
        container: host,
        hover: true,
        logLevel: Warn,
      });
      void view.runAsync();
    } catch {
      setFailed(true);
    }
    const resized = new ResizeObserver(() => {
      window.dispatchEvent(new Event("resize"));
    });
    resized.observe(host);
    return () => {
      resized.disconnect();
      view?.finalize();
    };
  }, [spec, theme]);

  if (failed) return <p className="muted">This chart could not be drawn; the table has its figures.</p>;
  // The library puts a role of its own on the element that it draws into.
  return (
    <div role="img" aria-label={`Chart: ${String(spec.title ?? "")}`}>
      <div ref={place} className="chart-place" />
    </div>
  );
}

/** Specifications are of a closed set that the server checks: nothing here is for the console. */
const QUIET = {
  level: () => QUIET,
  error: () => QUIET,
  warn: () => QUIET,
  info: () => QUIET,
  debug: () => QUIET,
} as unknown as NonNullable<NonNullable<Parameters<typeof compile>[1]>["logger"]>;
