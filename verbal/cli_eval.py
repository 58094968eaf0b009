"""`verbal eval` on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from verbal.cli_groups import emit
from verbal.options import (
    DEFAULT_STORE,
    CacheMode,
    Database,
    Json,
    Limit,
    MaxCalls,
    MaxCost,
    MaxMinutes,
    MaxTokens,
    Model,
    Overrides,
    Prices,
    Questions,
    Store,
    command_options,
)


def evaluate(
    db: Database = None,
    questions: Questions = None,
    memory: Annotated[str, typer.Option(help="NAME or NAME@VERSION; without one only the no-memory arms run.")] = "",
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    model: Model = "",
    run: Annotated[str, typer.Option(help="Name of the run.")] = "eval",
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "dev",
    test: Annotated[bool, typer.Option("--test", help="Score the adopted version on the sealed tasks, once.")] = False,
    limit: Limit = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    prices: Prices = None,
    cache: CacheMode = None,
    json_: Json = False,
) -> None:
    """Score a memory beside its three controls, with intervals over tasks and seeds. A repeat goes on, and is free."""
    from verbal.learning import run_eval

    limits = {"max_cost": max_cost, "max_tokens": max_tokens, "max_calls": max_calls, "max_minutes": max_minutes}
    options = command_options(recipe, model, db, questions, set_, limits, prices, cache)
    made = run_eval(
        options, store, run=run, memory=memory, split=split, limit=limit, seeds=seeds, test=test, quiet=json_
    )
    emit(made, json_)
