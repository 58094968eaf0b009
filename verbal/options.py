"""Options that several verbs of the command line take, and what they mean together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from verbal.errors import ConfigError

# Options that several verbs take.
Store = Annotated[str, typer.Option("--store", help="Where everything is kept: a file, or postgresql://...")]
Model = Annotated[
    str,
    typer.Option(
        "--model", help="embedded, provider/model, http/MODEL@URL, checkpoint:NAME; the recipe's if not given."
    ),
]
Database = Annotated[
    str | None,
    typer.Option("--db", help="A file (SQLite, DuckDB, CSV, Parquet), a folder or a URL; the demo shop if not given."),
]
Questions = Annotated[Path | None, typer.Option("--questions", help="JSONL with question, sql and split.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe value: loop.rounds=3")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many tasks.")]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", help="US dollars; the call that could exceed it is not made.")
]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="The same for tokens, prompts included.")]
MaxCalls = Annotated[int | None, typer.Option("--max-calls", help="The same for requests, retries included.")]
MaxMinutes = Annotated[float | None, typer.Option("--max-minutes", help="No call is begun after so many minutes.")]
Prices = Annotated[Path | None, typer.Option("--prices", help="TOML of prices that the table does not know.")]
CacheMode = Annotated[str | None, typer.Option("--cache", help="Replay cache: record (default), replay or off.")]
# Where a store is made when none is named.
DEFAULT_STORE = "runs/verbal.db"


def command_options(
    recipe: str,
    model: str,
    db: str | Path | None,
    questions: Path | None,
    overrides: list[str] | None = None,
    limits: Mapping[str, float | None] | None = None,
    prices: Path | None = None,
    cache: str | None = None,
) -> dict[str, Any]:
    """What `verbal.verbs.make_recipe` reads: recipe, model, app, overrides; limits are overrides too.

    Raises:
        ConfigError: questions without a database.
    """
    if questions is not None and db is None:
        raise ConfigError("--questions was given without --db", todo="name the database they ask about")
    sets = [f"limits.{k}={v}" for k, v in (limits or {}).items() if v is not None]
    sets += [f"limits.prices={str(prices)!r}"] if prices is not None else []
    sets += [f"model.cache={cache!r}"] if cache is not None else []
    return {
        "recipe": recipe,
        "model": model,
        "app": {k: str(v) for k, v in (("db", db), ("questions", questions)) if v is not None},
        "overrides": [*(overrides or []), *sets],
    }
