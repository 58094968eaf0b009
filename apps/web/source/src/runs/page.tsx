// Runs of learning: the list, or one of them.
import { useQuery } from "@tanstack/react-query";
import { get } from "../api";
import { Empty, Loading, Notice, Status } from "../parts/bits";
import { to } from "../parts/route";
import type { RunListed } from "../types";
import { count, fullTime, modelName, money, when } from "../words";
import { RunView } from "./run";

export default function RunsPage({ id }: { id: string }) {
  return id ? <RunView key={id} id={id} /> : <List />;
}

function List() {
  const runs = useQuery({
    queryKey: ["runs"],
    queryFn: ({ signal }) => get<RunListed[]>("/api/runs", signal),
    refetchInterval: (query) => (query.state.data?.some((run) => run.status === "running") ? 3_000 : false),
  });
  return (
    <div className="page">
      <header className="page-head">
        <h1>Runs</h1>
        <p className="lead">Each run learns on questions and proves it on others, beside three controls.</p>
      </header>
      {runs.error && <Notice failure={runs.error} />}
      {runs.isPending && <Loading what="Reading the runs" />}
      {runs.data?.length === 0 && (
        <Empty title="No run yet">
          <p>Start one in a terminal. It shows here while it goes on.</p>
          <pre tabIndex={0}>verbal learn --recipe reflexion --app text2sql --data DIR</pre>
          <p>
            Or watch the whole story offline, in a minute: <code>verbal demo</code>
          </p>
        </Empty>
      )}
      {runs.data && runs.data.length > 0 && (
        <div className="wide" tabIndex={0} role="region" aria-label="Runs">
          <table className="table runs-table">
            <thead>
              <tr>
                <th scope="col">Run</th>
                <th scope="col">State</th>
                <th scope="col">Model</th>
                <th scope="col" className="right">
                  Tasks
                </th>
                <th scope="col" className="right">
                  Cost
                </th>
                <th scope="col" className="right">
                  Started
                </th>
              </tr>
            </thead>
            <tbody data-list>
              {runs.data.map((run) => (
                <tr key={run.id}>
                  <td>
                    <a href={to("runs", run.id)} data-row className="run-link">
                      {run.recipe || run.command || run.id}
                    </a>
                    <span className="muted run-id">{run.id}</span>
                  </td>
                  <td>
                    <Status of={run.status} />
                  </td>
                  <td className="muted">{modelName(run.model)}</td>
                  <td className="right">
                    {count(run.done)}
                    {run.tasks > run.done && <span className="muted"> / {count(run.tasks)}</span>}
                  </td>
                  <td className="right">{money(run.cost)}</td>
                  <td className="right muted" title={fullTime(run.started)}>
                    {when(run.started)}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}
