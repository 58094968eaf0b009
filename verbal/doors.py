"""Where a run can be sent: `verbal export --to mlflow:URI` and `--to otlp:URL`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from verbal.errors import ConfigError
from verbal.recipe import without_passwords
from verbal.screen import Screen
from verbal.verbs import open_store

KINDS = ("mlflow", "otlp")
"""What `--to` may begin with."""


def run_export_to(path: str, run: str, to: str, *, traces: int, quiet: bool) -> dict[str, Any]:
    """Sends a run to MLflow or to a collector of OpenTelemetry.

    Args:
        path: The store.
        run: Its id.
        to: `mlflow:URI` or `otlp:URL`.
        traces: Attempts of a run that become traces of MLflow, at most.
        quiet: Print nothing.

    Raises:
        ConfigError: there is no such door, or no run was named.
        MissingExtra: its package is not installed. StoreError: the other side cannot be reached or refuses.
    """
    kind, _, place = to.partition(":")
    if kind not in KINDS:
        raise ConfigError(
            f"unknown door {kind!r}", where="--to", todo="give mlflow:http://host:5000 or otlp:http://host:4318"
        )
    if not run:
        raise ConfigError("which run is to be sent?", where="--to", todo="add --run RUN; verbal traces lists them")
    with open_store(path) as store, Screen(f"verbal export to {kind}", quiet=quiet) as screen:
        screen.stage(f"sending {run}")
        if kind == "mlflow":
            from verbal.mlflow_export import export_run

            made = export_run(store, run, place, traces=traces)
            told = f"{made['metrics']:,} metrics and {made['traces']:,} traces in the experiment {made['experiment']!r}"
        else:
            from verbal.replay import known_run
            from verbal.telemetry import export_spans

            if urlsplit(place).scheme not in ("http", "https"):
                raise ConfigError(f"not an address: {place!r}", where="--to otlp:", todo="give otlp:http://host:4318")
            known_run(store, run)
            made = {"run": run, "spans": export_spans(store, run, place)}
            told = f"{made['spans']:,} spans"
        screen.stage("")
        screen.print(f"{run}: {told}, at {without_passwords(place) or 'the address of the environment'}")
        return made


__all__ = ["KINDS", "run_export_to"]
