"""`verbal eval` and `verbal two-by-two` on the command line: a memory or weights beside controls, or a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
    benchmark: Annotated[str, typer.Argument(help="spider, bird, or a folder or file in such a layout.")] = "",
    db: Database = None,
    questions: Questions = None,
    memory: Annotated[str, typer.Option(help="NAME or NAME@VERSION; without one only the no-memory arms run.")] = "",
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    model: Model = "",
    run: Annotated[str, typer.Option(help="Name of the run; eval, or made of the benchmark's, if not given.")] = "",
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "dev",
    test: Annotated[bool, typer.Option("--test", help="Score the adopted version on the sealed tasks, once.")] = False,
    limit: Limit = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    data: Annotated[Path | None, typer.Option(help="Folder of the benchmark; VERBAL_DATA if not given.")] = None,
    suite: Annotated[bool, typer.Option("--suite", help="Benchmark: right on every state of a database, too.")] = False,
    make_suite: Annotated[
        bool, typer.Option("--make-suite", help="The same; states are made if there are none.")
    ] = False,
    synonyms: Annotated[bool, typer.Option("--synonyms", help="Benchmark: the other wording of questions.")] = False,
    databases: Annotated[str, typer.Option(help="Benchmark: only these databases, a,b.")] = "",
    samples: Annotated[int, typer.Option(min=1, help="Benchmark: answers to draw for pass@k.")] = 1,
    predictions: Annotated[
        Path | None, typer.Option(help="Benchmark: a file of answers to score, no model is asked.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Benchmark: write the page of all wrong answers.")] = None,
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
    """Score a memory beside its three controls, or a benchmark (a model, or a file of predictions), with intervals."""
    limits = {"max_cost": max_cost, "max_tokens": max_tokens, "max_calls": max_calls, "max_minutes": max_minutes}
    run = run or ("" if benchmark else "eval")
    only = {
        "--data": data, "--suite": suite, "--make-suite": make_suite, "--synonyms": synonyms, "--databases": databases,
        "--samples": samples > 1, "--predictions": predictions, "--out": out,
    }  # fmt: skip
    _check(benchmark, only, {"--questions": questions, "--memory": memory})
    options = command_options(recipe, model, None if benchmark else db, questions, set_, limits, prices, cache)
    if benchmark:
        from verbal.benchmarking import run_benchmark

        wanted = {
            "benchmark": benchmark, "data": _text(data), "split": split, "db": db, "limit": limit,
            "suite": suite or make_suite, "make_suite": make_suite,
            "databases": tuple(d.strip() for d in databases.split(",") if d.strip()), "synonyms": synonyms,
            "samples": samples, "predictions": _text(predictions),
        }  # fmt: skip
        found = run_benchmark(options, store, wanted, run=run, out=out, test=test, quiet=json_)
        return emit(found, json_)
    from verbal.learning import run_eval

    made = run_eval(
        options, store, run=run, memory=memory, split=split, limit=limit, seeds=seeds, test=test, quiet=json_
    )
    emit(made, json_)


def two_by_two(
    model: Annotated[
        list[str] | None, typer.Option("--model", help="The distilled weights, checkpoint:NAME; repeat for each seed.")
    ] = None,
    memory: Annotated[list[str] | None, typer.Option(help="NAME or NAME@VERSION; repeat for each seed.")] = None,
    base: Annotated[str, typer.Option(help="The weights as they were: as --model; the recipe's if not given.")] = "",
    run: Annotated[str, typer.Option(help="Name of the run; the same one goes on.")] = "two-by-two",
    split: Annotated[str, typer.Option(help="Held-out tasks.")] = "dev",
    limit: Limit = None,
    seeds: Annotated[int, typer.Option(min=1, help="Passes over the tasks; a claim needs three.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Attempts a task at most; the cells are first ones.")] = 2,
    out: Annotated[Path | None, typer.Option(help="The SVG; beside the store if not given, numbers beside it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate everything, call nothing.")] = False,
    db: Database = None,
    questions: Questions = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    prices: Prices = None,
    cache: CacheMode = None,
    json_: Json = False,
) -> None:
    """Draw the figure: memory off and on, base and distilled weights, with intervals, effects and controls."""
    from verbal.two_by_two_verb import run_two_by_two

    limits = {"max_cost": max_cost, "max_calls": max_calls, "max_minutes": max_minutes}
    made = run_two_by_two(
        command_options(recipe, base, db, questions, set_, limits, prices, cache), store, models=model or [],
        memories=memory or [], run=run, split=split, limit=limit, seeds=seeds, rounds=rounds, out=out,
        dry_run=dry_run, quiet=json_,
    )  # fmt: skip
    emit(made, json_)


def _check(benchmark: str, only: Mapping[str, object], other: Mapping[str, object]) -> None:
    """Refuses options of the one form of the verb with the other."""
    from verbal.errors import ConfigError

    given = [name for name, value in (other if benchmark else only).items() if value]
    if given and benchmark:
        todo = "leave it out, or leave out the benchmark; its questions come from its own files"
        raise ConfigError(f"{given[0]} does not go with a benchmark", where=given[0], todo=todo)
    if given:
        todo = "name one: verbal eval spider --data DIR"
        raise ConfigError(f"{given[0]} needs a benchmark", where=given[0], todo=todo)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
