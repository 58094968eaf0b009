"""`verbal distill` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verbal.cli_groups import emit
from verbal.options import (
    DEFAULT_STORE,
    Json,
    Limit,
    MaxCost,
    MaxMinutes,
    Overrides,
    Questions,
    Store,
    command_options,
)


def distill(
    recipe: Annotated[str, typer.Option(help="A recipe that names a trainer, or a .toml file; sft.")] = "",
    method: Annotated[str, typer.Option(help="A training method, in place of a recipe that only names it.")] = "",
    model: Annotated[
        str, typer.Option("--model", help="What is trained: embedded, checkpoint:NAME, a Hugging Face folder or name.")
    ] = "",
    runs: Annotated[
        list[str] | None, typer.Option("--from", "--run", help="A run to learn from; repeat it; all if not given.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--from-export", help="Rows of a folder of `verbal export` instead; may be huge.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")] = "distilled",
    out: Annotated[Path | None, typer.Option(help="Folder of the weights; beside the store if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="The recipe's if not given.")] = None,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build the rows, estimate everything, train nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that did not finish.")] = False,
    evaluate_on: Annotated[str, typer.Option("--eval", help="Split to score before and after; '' for none.")] = "dev",
    limit: Limit = None,
    gate: Annotated[bool, typer.Option("--gate", help="Ask the evidence gate; it serves if it is accepted.")] = False,
    guard: Annotated[str, typer.Option(help="--gate: questions that must not lose: a file, app, or none.")] = "app",
    samples: Annotated[int, typer.Option(min=1, help="--gate: samples of each task on each side.")] = 3,
    accelerate: Annotated[
        str, typer.Option(help="Train in several processes: cpu, ddp, fsdp, zero2, zero3 or a file; sft.")
    ] = "",
    gpu_price: Annotated[float, typer.Option(min=0, help="US dollars for an hour of the trainer's machine.")] = 0.0,
    max_cost: MaxCost = None,
    max_minutes: MaxMinutes = None,
    db: Annotated[str | None, typer.Option("--db", help="What it is scored on; that of the runs if not given.")] = None,
    questions: Questions = None,
    json_: Json = False,
) -> None:
    """Train weights on what runs collected (hints removed), score them before and after, ask the gate, write a card."""
    from verbal.distill import Asked, run_distill

    limits = {"max_cost": max_cost, "max_minutes": max_minutes}
    made = run_distill(
        command_options(recipe, model, db, questions, set_, limits),
        store,
        runs=runs or (),
        method=method,
        seed=seed,
        asked=Asked(
            name=name, export=export, out=out, split=evaluate_on, limit=limit, gate=gate, guard=guard, samples=samples,
            resume=resume, dry_run=dry_run, accelerate=accelerate, gpu_price=gpu_price,
        ),
        quiet=json_,
    )  # fmt: skip
    emit(made, json_)
    if gate and not dry_run and made["gate"]["verdict"] != "accept":
        raise typer.Exit(1)
