// Learning curves of the arms, with intervals.
import { useEffect, useRef, useState } from "react";
import type { Arm, Point } from "../types";
import { percent } from "../words";

interface Curve {
  arm: string;
  points: Point[];
}

const H = 300;
const LEFT = 44;
const TOP = 14;
/** Narrower than this the names stand in the table below only, beside their colours. */
const NARROW = 560;
const BOTTOM = 34;

/** Lowest and highest share of the axis, and its marks at round places. */
function scale(low: number, high: number): [number, number, number[]] {
  const room = Math.max(high - low, 0.1);
  const step = [0.05, 0.1, 0.2, 0.25].find((one) => room / one <= 5) ?? 0.25;
  const from = Math.max(0, Math.floor(low / step + 1e-9));
  const to = Math.min(Math.round(1 / step), Math.ceil(high / step - 1e-9));
  const marks = Array.from({ length: Math.max(to - from, 1) + 1 }, (_, i) => (from + i) * step);
  return [from * step, Math.max(to, from + 1) * step, marks];
}

/** Places of labels at the right, moved apart until none covers another. */
function apart(places: number[]): number[] {
  const order = places.map((_, i) => i).sort((a, b) => (places[a] ?? 0) - (places[b] ?? 0));
  const moved = [...places];
  order.forEach((i, n) => {
    const above = n > 0 ? moved[order[n - 1] ?? 0] : undefined;
    if (above !== undefined) moved[i] = Math.max(moved[i] ?? 0, above + 16);
  });
  return moved;
}

/** Which colour an arm has: the first one is of the arm that learned. */
export function tones(names: string[]): (arm: string) => number {
  const main = names.find((name) => name === "memory" || name === "within") ?? names.at(-1);
  const others = names.filter((name) => name !== main);
  return (arm) => (arm === main ? 0 : (Math.max(others.indexOf(arm), 0) % 5) + 1);
}

export function Curves({ curves, arms, says }: { curves: Curve[]; arms: Arm[]; says: string }) {
  const place = useRef<HTMLElement>(null);
  const [width, setWidth] = useState(760);
  const drawn = curves.filter((curve) => curve.points.length > 0);
  const any = drawn.length > 0;
  useEffect(() => {
    const host = place.current;
    if (!host) return;
    const resized = new ResizeObserver(() => setWidth(Math.min(Math.max(host.clientWidth, 280), 900)));
    resized.observe(host);
    return () => resized.disconnect();
  }, [any]);
  if (drawn.length === 0) return <p className="none">The curves come with the first measured round.</p>;
  const [W, RIGHT] = [width, width < NARROW ? 12 : 150];
  const all = drawn.flatMap((curve) => curve.points);
  const xs = all.map((point) => point.x);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const tops = all.map((point) => point.high ?? point.y);
  const bottoms = all.map((point) => point.low ?? point.y);
  const [y0, y1, steps] = scale(Math.min(...bottoms), Math.max(...tops));
  const x = (value: number): number => LEFT + ((value - x0) / Math.max(x1 - x0, 1e-9)) * (W - LEFT - RIGHT);
  const y = (value: number): number => H - BOTTOM - ((value - y0) / Math.max(y1 - y0, 1e-9)) * (H - TOP - BOTTOM);
  const colour = tones((arms.length ? arms : drawn.map(({ arm }) => ({ name: arm }))).map(({ name }) => name));
  const label = (arm: string): string => arms.find((one) => one.name === arm)?.label || arm;
  const ends = apart(drawn.map((curve) => y(curve.points.at(-1)?.y ?? 0)));
  const ticks = [...new Set(xs)].sort((a, b) => a - b).filter((_, i, list) => i % Math.ceil(list.length / 8) === 0);
  const words = drawn.map((curve) => `${label(curve.arm)} ends at ${percent(curve.points.at(-1)?.y)}`).join("; ");
  return (
    <figure className="curves" ref={place}>
      <svg viewBox={`0 0 ${W} ${H}`} width={W} height={H} role="img" aria-label={`Learning curves. ${words}`}>
        {steps.map((step) => (
          <g key={step}>
            <line className="gridline" x1={LEFT} x2={W - RIGHT} y1={y(step)} y2={y(step)} />
            <text x={LEFT - 8} y={y(step) + 4} textAnchor="end">
              {percent(step)}
            </text>
          </g>
        ))}
        {ticks.map((tick) => (
          <text key={tick} x={x(tick)} y={H - 14} textAnchor="middle">
            {tick}
          </text>
        ))}
        {drawn.map((curve) => {
          const banded = curve.points.filter((point) => point.low !== null && point.high !== null);
          const up = banded.map((point) => `${x(point.x)},${y(point.high ?? 0)}`);
          const down = [...banded].reverse().map((point) => `${x(point.x)},${y(point.low ?? 0)}`);
          return (
            banded.length > 1 && (
              <polygon
                key={curve.arm}
                className={`band tone-${colour(curve.arm)}`}
                points={[...up, ...down].join(" ")}
              />
            )
          );
        })}
        {drawn.map((curve, i) => {
          const tone = `tone-${colour(curve.arm)}`;
          const last = curve.points.at(-1);
          return (
            <g key={curve.arm} className={tone}>
              <polyline
                className="curve"
                points={curve.points.map((point) => `${x(point.x)},${y(point.y)}`).join(" ")}
              />
              {curve.points.map((point) => (
                <circle key={point.x} cx={x(point.x)} cy={y(point.y)} r={3} />
              ))}
              {last && W >= NARROW && (
                <text className="curve-name" x={W - RIGHT + 12} y={(ends[i] ?? 0) + 4}>
                  {label(curve.arm)}
                </text>
              )}
            </g>
          );
        })}
      </svg>
      <figcaption className="muted">{says} Bands are 95 % intervals.</figcaption>
    </figure>
  );
}
