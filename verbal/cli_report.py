"""What a run came to, on the command line: `verbal report`, `watch` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from verbal.cli_groups import emit
from verbal.options import DEFAULT_STORE, Json, Store


def report(
    run: Annotated[str, typer.Argument(help="A run, or a results file of `verbal demo`.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page; beside the store if not given.")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Also write each plot into this folder: SVG, PNG, Vega-Lite JSON.")
    ] = None,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Write the HTML page of a run: curves, arms, what was learned, gate decisions, cost by role."""
    from verbal.run_results import run_report, run_report_file

    if run.endswith(".json"):
        emit(run_report_file(Path(run), out, figures, quiet=json_), json_)
    else:
        emit(run_report(store, run, out, figures, quiet=json_), json_)


def watch(
    run: Annotated[str, typer.Argument(help="A run, under way or over.")],
    once: Annotated[bool, typer.Option("--once", help="Show how it stands and end.")] = False,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Show a run live: progress, solved so far with its interval, cost, newest lessons and failures."""
    from verbal.watch import run_watch

    emit(run_watch(store, run, once=once, quiet=json_), json_)


def export(
    out: Annotated[Path | None, typer.Argument(help="Folder to write; not with --to.")] = None,
    format_: Annotated[
        Literal[
            "sft",
            "preference",
            "kto",
            "reward",
            "prompt",
            "spans",
            "privileged",
            "refine",
            "retrospective",
            "demonstrations",
            "scope",
            "utterances",
        ],
        typer.Option("--format", help="Row type: answers (the first six), words behind them, reflections, turns."),
    ] = "sft",
    run: Annotated[str, typer.Option(help="Only attempts of this run.")] = "",
    to: Annotated[
        str, typer.Option("--to", help="Send the run there instead: mlflow:URI, or otlp:URL (OpenTelemetry).")
    ] = "",
    traces: Annotated[int, typer.Option(min=0, help="--to mlflow: attempts that become traces, at most.")] = 200,
    parquet: Annotated[bool, typer.Option("--parquet", help="Parquet instead of JSONL.")] = False,
    successes: Annotated[
        float, typer.Option(min=0, help="retrospective: rows about right attempts, for each about a failed one.")
    ] = 0.0,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Write attempts as a training set in TRL's conversational types, or send a run to MLflow or OpenTelemetry."""
    if bool(to) == (out is not None):
        raise typer.BadParameter("give a folder to write, or --to mlflow:URI or otlp:URL")
    if out is None:
        from verbal.doors import run_export_to

        return emit(run_export_to(store, run, to, traces=traces, quiet=json_), json_)
    from verbal.verbs import run_export

    emit(run_export(store, out, format_, run, parquet, successes=successes, quiet=json_), json_)


__all__ = ["export", "report", "watch"]
