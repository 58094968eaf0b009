"""Databases on the command line: `verbal ask`, and the group `verbal sql`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verbal.cli_groups import emit
from verbal.options import DEFAULT_STORE, Json, MaxCost, Model, Overrides, Store, command_options

# Verbs about a database: what it learned, corrections.
sql_app = typer.Typer(help="Databases: learn from questions, corrections.", no_args_is_help=True, rich_markup_mode=None)


def ask(
    database: Annotated[Path, typer.Argument(help="A SQLite file.")],
    question: Annotated[str, typer.Argument(help="A question in plain language.")],
    memory: Annotated[str, typer.Option(help="Memory to look lessons up in; NAME or NAME@VERSION.")] = "",
    model: Model = "",
    adopted: Annotated[bool, typer.Option("--adopted", help="Answer with the adopted version.")] = False,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    json_: Json = False,
) -> None:
    """Answer one question about a database: the query, its rows, and the lessons used."""
    from verbal.verbs import run_ask

    options = command_options("ask", model, database, None, set_, {"max_cost": max_cost})
    emit(run_ask(options, store, question, memory, adopted=adopted, quiet=json_), json_)
