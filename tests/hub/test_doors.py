"""`verbal export --to`: a run in MLflow (its own file store) and at an OTLP collector on loopback."""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from recorded_world import World
from told_world import told_world

from verbal.doors import run_export_to
from verbal.errors import ConfigError, MissingExtra, StoreError, UnknownName
from verbal.mlflow_export import metrics


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return told_world(tmp_path_factory.mktemp("told"))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a file store of MLflow."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file://{tmp_path}/mlruns"


def send(world: World, to: str, run: str = "run", traces: int = 6) -> dict[str, Any]:
    return run_export_to(str(world.path), run, to, traces=traces, quiet=True)


@pytest.mark.filterwarnings("ignore")
def test_a_run_in_mlflow(world: World, files: str) -> None:
    from mlflow import MlflowClient

    made = send(world, f"mlflow:{files}")
    assert set(made["runs"]) == {"run", "run:1", "run:eval"} and made["traces"] == 18
    client = MlflowClient(files)
    run = client.get_run(made["mlflow_run"])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.tags["verbal.run"] == "run" and "retry-only" in run.data.tags["mlflow.note.content"]
    assert run.data.params["loop.rounds"] == "2" and "memory.name" in run.data.params
    values = run.data.metrics
    assert (
        values["arms/memory/mean"] == 1.0 and values["attempts/memory/mean"] == 1.0 and values["lessons/active"] == 8.0
    )
    assert values["usage/solver/calls"] > 0 and values["differences/memory - retry-only/low"] == 1.0
    curve = client.get_metric_history(made["mlflow_run"], "attempts/retry/mean")
    assert sorted((m.step, m.value) for m in curve) == [(1, 0.0), (2, 0.0)]
    names = {a.path for a in client.list_artifacts(made["mlflow_run"])}
    assert names == {"report.html", "results.json", "figures"}
    assert "figures/arms.vl.json" in {a.path for a in client.list_artifacts(made["mlflow_run"], "figures")}
    child = client.get_run(made["runs"]["run:eval"])
    assert child.data.tags["mlflow.parentRunId"] == made["mlflow_run"]
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=made["mlflow_run"])
    assert len(traces) == 6
    trace = client.get_trace(traces[0].info.trace_id)
    root, *steps = trace.data.spans
    assert "What is the code of" in str(root.inputs) and root.outputs["answer"] and steps
    assert steps[0].inputs["messages"][0]["content"] and steps[0].parent_id == root.span_id

    again = send(world, f"mlflow:{files}", traces=0)  # it takes the place of the earlier one
    left = client.search_runs([run.info.experiment_id])
    assert len(left) == 3 and made["mlflow_run"] not in {r.info.run_id for r in left} and again["traces"] == 0
    assert client.search_traces(locations=[run.info.experiment_id]) == []


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of a collector on loopback, and what it was sent."""
    taken: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        worker = threading.Thread(target=server.serve_forever, args=(0.01,))
        worker.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", taken
        server.shutdown()
        worker.join()


def _plain(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def test_a_run_at_a_collector(world: World, collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    address, taken = collector
    made = send(world, f"otlp:{address}")
    spans = [
        span
        for path, body in taken
        for resource in ExportTraceServiceRequest.FromString(_plain(body)).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if path == "/v1/traces"
    ]
    assert made["spans"] == len(spans) >= len(world.store.attempts("run"))
    assert {a.key for s in spans for a in s.attributes} & {"gen_ai.request.model", "gen_ai.operation.name"}


def test_what_becomes_a_metric() -> None:
    results = {
        "arms": [{"name": "distilled+memory", "mean": 0.5, "low": None, "high": float("nan")}],
        "learning_curves": [{"arm": "first", "points": [{"x": 8, "y": 0.5, "low": 0.1, "high": 1e999}]}],
        "training": {"curve": [{"step": 3, "loss": 1.5, "note": "x", "done": True}]},
    }
    assert list(metrics(results, {"solver": {"calls": 2, "cost": None}})) == [
        ("arms/distilled_and_memory/mean", 0, 0.5), ("learning/first/mean", 8, 0.5), ("learning/first/low", 8, 0.1),
        ("training/loss", 3, 1.5), ("usage/solver/calls", 0, 2),
    ]  # fmt: skip


def test_what_cannot_be_sent_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for to, words in (
        ("wandb:x", "unknown door"),
        ("mlflow:", "no address"),
        ("mlflow:nosuch://ann:secret@host", "take"),
    ):
        with pytest.raises(ConfigError, match=words) as told:
            send(world, to)
        assert "secret" not in str(told.value)
    with pytest.raises(ConfigError, match="which run"):
        send(world, "mlflow:http://127.0.0.1:9", run="")
    with pytest.raises(UnknownName, match="nobody"):
        send(world, "mlflow:http://127.0.0.1:9", run="nobody")
    with pytest.raises(StoreError, match="cannot be reached"):
        send(world, "mlflow:http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="not an address"):
        send(world, "otlp:nowhere")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"verbal\[mlflow\]"):
        send(world, "mlflow:http://127.0.0.1:9")


def test_the_verb_takes_a_folder_or_a_door(world: World, command: Any, tmp_path: Path) -> None:
    code, _, err = command("export", "--store", world.path)
    assert code == 2 and "--to" in err
    code, _, err = command("export", tmp_path / "rows", "--to", "otlp:http://127.0.0.1:9", "--store", world.path)
    assert code == 2
    code, made, _ = command(
        "export", tmp_path / "rows", "--run", "run", "--format", "sft", "--store", world.path, "--json"
    )
    assert code == 0 and made["rows"] > 0
