// What differs between two runs.
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { get } from "../api";
import { Loading, Notice } from "../parts/bits";
import type { RunListed } from "../types";
import { plain, when } from "../words";

interface Told {
  equal: boolean;
  rows: { what: string; left: unknown; right: unknown }[];
}

export function Diff({ id, runs }: { id: string; runs: RunListed[] }) {
  const [other, setOther] = useState("");
  const told = useQuery({
    queryKey: ["diff", id, other],
    queryFn: ({ signal }) => get<Told>(`/api/diff?a=${encodeURIComponent(id)}&b=${encodeURIComponent(other)}`, signal),
    enabled: other !== "",
  });
  if (runs.length === 0) return null;
  const rows = told.data?.rows ?? [];
  return (
    <div className="diff">
      <label className="inline">
        Compare with
        <select value={other} onChange={(event) => setOther(event.target.value)}>
          <option value="">another run…</option>
          {runs.map((run) => (
            <option key={run.id} value={run.id}>
              {run.recipe || run.command} · {run.id} · {when(run.started)}
            </option>
          ))}
        </select>
      </label>
      {told.error && <Notice failure={told.error} />}
      {other && told.isPending && <Loading what="Comparing" />}
      {told.data && rows.length === 0 && <p className="good">Nothing differs.</p>}
      {rows.length > 0 && (
        <div className="wide" tabIndex={0} role="region" aria-label="What differs">
          <table className="table diff-table">
            <thead>
              <tr>
                <th scope="col">What</th>
                <th scope="col">{id}</th>
                <th scope="col">{other}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row, i) => (
                <tr key={`${row.what} ${i}`}>
                  <td>{row.what}</td>
                  <td>{plain(row.left)}</td>
                  <td>{plain(row.right)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}
