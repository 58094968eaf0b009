// An effect with its interval, on a line with zero in its middle.
import { points } from "../words";

interface Props {
  effect: number | null;
  low: number | null;
  high: number | null;
  says?: string;
}

export function Interval({ effect, low, high, says }: Props) {
  if (effect === null) return <p className="interval-none">not measured yet</p>;
  const most = Math.max(Math.abs(low ?? effect), Math.abs(high ?? effect), 0.1);
  const reach = most <= 0.25 ? 0.25 : most <= 0.5 ? 0.5 : most <= 1 ? 1 : Math.ceil(most);
  const x = (value: number): number => 100 + (Math.max(-reach, Math.min(reach, value)) / reach) * 92;
  const tone = low !== null && low > 0 ? "good" : high !== null && high < 0 ? "bad" : "open";
  const words = `effect ${points(effect)}${low !== null && high !== null ? `, between ${points(low)} and ${points(high)}` : ""}`;
  return (
    <svg
      className={`interval interval-${tone}`}
      viewBox="0 0 200 34"
      role="img"
      aria-label={says ? `${words}: ${says}` : words}
    >
      <line className="interval-axis" x1="6" x2="194" y1="14" y2="14" />
      <line className="interval-zero" x1="100" x2="100" y1="5" y2="23" />
      {low !== null && high !== null && <line className="interval-range" x1={x(low)} x2={x(high)} y1="14" y2="14" />}
      <circle className="interval-point" cx={x(effect)} cy="14" r="4.5" />
      <text x="6" y="32">
        {points(-reach)}
      </text>
      <text x="100" y="32" textAnchor="middle">
        0
      </text>
      <text x="194" y="32" textAnchor="end">
        {points(reach)}
      </text>
    </svg>
  );
}
