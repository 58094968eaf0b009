"""A run of the store as a run of MLflow: recipe as parameters, arms and curves as metrics, attempts as traces.

Its page and figures are artifacts, the runs that belong to it its nested runs. A run that was exported before is
replaced: MLflow keeps the older one among its deleted runs. Attempts have no clock times in the store, so their spans
are laid out one after the other from the start of the run, each as long as its model calls took. mlflow is imported
when something is exported.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, MissingExtra, StoreError
from verbal.instructive import question_of
from verbal.recipe import without_passwords
from verbal.store import Store
from verbal.types import Attempt, Feedback, Task

EXPERIMENT = "verbal"
"""Name of the experiment in MLflow."""
TRACES = 200
"""Attempts of a run that become traces, at most: evenly spread over it."""
LONGEST = 20_000
"""Characters of a text in a trace."""

_ADDRESS = "MLFLOW_TRACKING_URI"
_STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "incomplete": "FAILED"}
_UNNAMED = re.compile(r"[^A-Za-z0-9_\-. /:]+")


def export_run(store: Store, run: str, uri: str, *, traces: int = TRACES) -> dict[str, Any]:
    """Writes a run and its parts to an MLflow server or store: `run`, `mlflow_run`, `runs`, `traces`, `metrics`.

    Args:
        store: Where the run is.
        run: Its id.
        uri: A tracking URI of MLflow; that of the environment (`MLFLOW_TRACKING_URI`) when empty.
        traces: Attempts that become traces at most, of the run and of each part.

    Raises:
        UnknownName: no such run. MissingExtra: mlflow is not installed. ConfigError: the URI cannot be used.
        StoreError: the server cannot be reached or refuses.
    """
    from verbal.replay import known_run

    known = known_run(store, run)
    mlflow = _require()
    environment = os.environ.get(_ADDRESS, "")
    if not (uri := uri or environment):
        raise ConfigError("no address of MLflow", where="--to mlflow:", todo="give --to mlflow:http://host:5000")
    shown = without_passwords(uri)
    before = mlflow.get_tracking_uri()
    try:
        with _quiet(mlflow):
            mlflow.set_tracking_uri(uri)
            return _Export(store, mlflow, traces).run(known)
    except mlflow.exceptions.MlflowException as error:
        # MLflow's own words hold the address with its password, so its error is not chained.
        raise _refused(str(error).replace(uri, shown), shown) from None
    except ModuleNotFoundError as error:
        what = f"MLflow needs {error.name} for the address {shown}"
        raise ConfigError(
            what, where="--to mlflow:", todo="pip install mlflow, or give a server: http://..."
        ) from error
    except OSError as error:
        raise StoreError(f"MLflow cannot be reached: {type(error).__name__}", where=shown, todo="is it up?") from error
    finally:
        with contextlib.suppress(mlflow.exceptions.MlflowException):
            mlflow.set_tracking_uri(before)
        # MLflow puts the address into the environment too.
        os.environ.pop(_ADDRESS, None)
        os.environ.update({_ADDRESS: environment} if environment else {})


def _refused(told: str, shown: str) -> StoreError | ConfigError:
    line = (told.strip().splitlines() or ["no reason given"])[0][:300]
    if "Max retries" in told or "Connection refused" in told or "failed to resolve" in told.lower():
        return StoreError("MLflow cannot be reached", where=shown, todo="start it (mlflow server), or give its address")
    if "invalid" in line.lower() or "unsupported" in line.lower() or "maintenance mode" in line:
        return ConfigError(
            f"MLflow does not take this address: {line}", where=shown, todo="give http://... or sqlite:///..."
        )
    return StoreError(f"MLflow refused: {line}", where=shown, todo="see the log of the server")


class _Export:
    """One export: the client, the experiment, and what was sent."""

    def __init__(self, store: Store, mlflow: Any, traces: int) -> None:
        self._store, self._mlflow, self._most = store, mlflow, traces
        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient()
        known = self._client.get_experiment_by_name(EXPERIMENT)
        self._experiment = str(known.experiment_id if known else self._client.create_experiment(EXPERIMENT))
        self._sent = {"traces": 0, "metrics": 0}
        self._told: list[tuple[str, Feedback]] = []

    def run(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Exports a run and its parts."""
        from verbal.run_results import run_results

        made = self._one(known, run_results(self._store, known), "")
        names = {known["id"]: made}
        for part in known["info"].get("parts", ()):
            if (child := self._store.run(part)) is not None:
                names[part] = self._one(child, None, made)
        if self._sent["traces"]:
            self._mlflow.flush_trace_async_logging()
        for trace, feedback in self._told:
            self._assess(trace, feedback)
        return {"run": known["id"], "experiment": EXPERIMENT, "mlflow_run": made, "runs": names, **self._sent}

    def _one(self, known: Mapping[str, Any], results: Mapping[str, Any] | None, parent: str) -> str:
        tags = {"verbal.run": known["id"], "verbal.store": self._store.identity}
        self._replace(tags)
        tags |= {"verbal.status": known["status"], "verbal.command": str(known["info"].get("command", "run"))}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        if results and results.get("claim"):
            tags |= {
                "mlflow.note.content": str(results["claim"])[:4000],
                "verbal.claim_holds": str(results.get("claim_holds")),
            }
        started = int(known["started"] * 1000)
        made = self._client.create_run(self._experiment, started, tags, run_name=known["id"])
        name = str(made.info.run_id)
        try:
            self._params(name, known["recipe"])
            self._metrics(name, known, results, started)
            if results is not None:
                self._artifacts(name, results)
            self._traces(name, known)
        except BaseException:
            self._client.set_terminated(name, "FAILED")
            raise
        if known["finished"]:
            self._client.set_terminated(name, _STATUS.get(known["status"], "FINISHED"), int(known["finished"] * 1000))
        return name

    def _replace(self, tags: Mapping[str, str]) -> None:
        """Deletes what an earlier export of this run has made."""
        wanted = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items() if "'" not in v)
        if "verbal.run" not in wanted:
            return
        for old in self._client.search_runs([self._experiment], wanted):
            while found := self._client.search_traces(
                locations=[self._experiment], run_id=old.info.run_id, include_spans=False, max_results=100
            ):
                self._client.delete_traces(self._experiment, trace_ids=[trace.info.trace_id for trace in found])
            self._client.delete_run(old.info.run_id)

    def _params(self, name: str, recipe: Mapping[str, Any]) -> None:
        flat = [
            self._entities.Param(key[:250], value[:6000])
            for key, value in _flat(without_passwords(dict(recipe)))
            if value != ""
        ]
        for at in range(0, len(flat), 100):
            self._client.log_batch(name, params=flat[at : at + 100])

    def _metrics(self, name: str, known: Mapping[str, Any], results: Mapping[str, Any] | None, started: int) -> None:
        from verbal.study import plain_usage

        usage = plain_usage(self._store.usage(known["id"])) if results is None else results.get("usage") or {}
        at = int((known["finished"] or known["started"]) * 1000)
        made = [
            self._entities.Metric(_UNNAMED.sub("_", key)[:250], float(value), at, step)
            for key, step, value in metrics(results or {}, usage)
        ]
        for start in range(0, len(made), 1000):
            self._client.log_batch(name, metrics=made[start : start + 1000])
        self._sent["metrics"] += len(made)

    def _artifacts(self, name: str, results: Mapping[str, Any]) -> None:
        from verbal.figure_files import write_figures
        from verbal.figures import figures
        from verbal.report import write_report

        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_report(results, folder / "report.html")
            (folder / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")
            try:
                write_figures(results, folder / "figures")
            except MissingExtra:  # the specifications are the figures; MLflow has them without pictures then
                (folder / "figures").mkdir(exist_ok=True)
                for figure, spec in figures(results).items():
                    text = json.dumps(spec, indent=1, ensure_ascii=False)
                    (folder / "figures" / f"{figure}.vl.json").write_text(text, encoding="utf-8")
            self._client.log_artifacts(name, str(folder))

    # attempts as traces -------------------------------------------------------------------------------------------

    def _traces(self, name: str, known: Mapping[str, Any]) -> None:
        attempts = self._store.attempts(known["id"]) if self._most > 0 else []
        if len(attempts) > self._most:
            attempts = [attempts[i * len(attempts) // self._most] for i in range(self._most)]
        feedback = self._store.feedback([a.id for a in attempts])
        tasks = self._store.tasks(list(dict.fromkeys(a.task for a in attempts)))
        clock = int(known["started"] * 1e9)
        for attempt in attempts:
            length = max(int(attempt.usage.seconds * 1e9), 1_000_000)
            trace = self._trace(name, attempt, tasks.get(attempt.task), clock, length)
            self._told += [(trace, f) for f in feedback[attempt.id] if f.value is not None or f.text]
            clock += length
        self._sent["traces"] += len(attempts)

    def _trace(self, run: str, attempt: Attempt, task: Task | None, clock: int, length: int) -> str:
        tags = {"verbal.attempt": attempt.id[:240], "verbal.task": attempt.task[:240], "verbal.arm": attempt.arm}
        used = attempt.usage
        facts = {
            "verbal.attempt": attempt.id, "verbal.arm": attempt.arm, "verbal.round": str(attempt.round),
            "verbal.stop": str(attempt.stop), "verbal.model": attempt.model, "verbal.times": "laid out",
            "gen_ai.usage.input_tokens": str(used.prompt_tokens),
            "gen_ai.usage.output_tokens": str(used.completion_tokens),
        }  # fmt: skip
        root = self._client.start_trace(
            "attempt", span_type="AGENT", inputs={"question": _cut(question_of(task, attempt.task))}, tags=tags,
            attributes=facts, experiment_id=self._experiment, start_time_ns=clock, run_id=run,
        )  # fmt: skip
        steps = max(len(attempt.steps), 1)
        for at, step in enumerate(attempt.steps):
            begin, end = clock + length * at // steps, clock + length * (at + 1) // steps
            by_model = step.author in ("policy", "guide")
            messages = [{"role": m.role, "content": _cut(m.content)} for m in step.prompt]
            span = self._client.start_span(
                f"{step.role}", trace_id=root.trace_id, parent_id=root.span_id,
                span_type="CHAT_MODEL" if by_model else "CHAIN", inputs={"messages": messages},
                start_time_ns=begin,
                attributes={"verbal.author": step.author, "verbal.shown": list(step.shown),
                            "verbal.cited": list(step.cited)},
            )  # fmt: skip
            out = {"text": _cut(step.text), "observation": _cut(step.observation or "")}
            self._client.end_span(root.trace_id, span.span_id, outputs=out, end_time_ns=end)
        self._client.end_trace(
            root.trace_id, outputs={"answer": _cut(attempt.answer), "error": _cut(attempt.error or "")},
            status="ERROR" if attempt.error else "OK", end_time_ns=clock + length,
        )  # fmt: skip
        return str(root.trace_id)

    def _assess(self, trace: str, said: Feedback) -> None:
        kind = "HUMAN" if said.source == "user" else "LLM_JUDGE" if said.source in ("judge", "self") else "CODE"
        self._mlflow.log_feedback(
            trace_id=trace, name=said.critic, value=said.value if said.value is not None else "words",
            rationale=_cut(said.text or said.reason), source=self._entities.AssessmentSource(kind, said.critic),
            metadata={"oracle": str(said.oracle)},
        )  # fmt: skip


def metrics(results: Mapping[str, Any], usage: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, int, Any]]:
    """(name, step, value) of everything of a run that is a number: arms, differences, curves, lessons, use by role."""
    for kind, key in (("arms", "name"), ("differences", "name")):
        for item in results.get(kind) or ():
            name = str(item.get(key)).replace("+", "_and_")
            yield from ((f"{kind}/{name}/{k}", 0, v) for k in ("mean", "low", "high") if _known(v := item.get(k)))
    for kind, key in (("attempts", "attempt_curves"), ("learning", "learning_curves")):
        for curve in results.get(key) or ():
            name = f"{kind}/{str(curve.get('arm')).replace('+', '_and_')}"
            for p in curve.get("points") or ():
                ends = (("/mean", "y"), ("/low", "low"), ("/high", "high"))
                yield from ((name + end, int(p["x"]), v) for end, k in ends if _known(v := p.get(k)))
    for p in results.get("lesson_counts") or ():
        yield from ((f"lessons/{k}", int(p["x"]), v) for k in ("active", "quarantined") if _known(v := p.get(k)))
    for p in (results.get("training") or {}).get("curve") or ():
        yield from ((f"training/{k}", int(p.get("step") or 0), v) for k, v in p.items() if k != "step" and _known(v))
    for role, used in usage.items():
        for k in ("calls", "prompt_tokens", "completion_tokens", "cost", "seconds"):
            if _known(v := used.get(k)):
                yield f"usage/{role}/{k}", 0, v


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield _UNNAMED.sub("_", name), plain


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@contextlib.contextmanager
def _quiet(mlflow: Any) -> Iterator[None]:
    """MLflow prints links and warnings; what is said to a person is this program's."""
    log = logging.getLogger("mlflow")
    level, log.level = log.level, logging.ERROR
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)


def _require() -> Any:
    # MLflow counts its users over the network unless it is told not to, and waits minutes for a server that is down.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        return importlib.import_module("mlflow")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mlflow":
            raise MissingExtra.of("mlflow-skinny", "mlflow") from error
        raise


__all__: Sequence[str] = ("EXPERIMENT", "LONGEST", "TRACES", "export_run", "metrics")
