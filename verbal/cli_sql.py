"""Databases on the command line: `verbal ask`, `verbal chat`, and the group `verbal sql`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from verbal.cli_groups import emit
from verbal.options import (
    DEFAULT_STORE,
    Json,
    Limit,
    MaxCalls,
    MaxCost,
    MaxMinutes,
    MaxTokens,
    Model,
    Overrides,
    Questions,
    Store,
    command_options,
)

# Verbs about a database: what it learned, corrections.
sql_app = typer.Typer(help="Databases: learn from questions, corrections.", no_args_is_help=True, rich_markup_mode=None)

_Where = Annotated[
    str, typer.Argument(help="An SQLite or DuckDB file, a folder of CSV or Parquet, a URL; `demo`: the shop.")
]
_Answer = Annotated[str, typer.Argument(help="Id of an answer, as `ask` shows it.")]
_Memory = Annotated[
    str, typer.Option(help="Memory of lessons: NAME, NAME@VERSION or none; the database's own if not given.")
]
_Rows = Annotated[int | None, typer.Option("--rows", min=1, help="Rows to show at most.")]
_Words = Annotated[bool, typer.Option("--words", help="The model adds what the result means: one more call.")]
_Adopted = Annotated[bool, typer.Option("--adopted", help="Answer with the adopted version.")]

_EXITS = {"ambiguous": 3, "abstained": 3, "failed": 1, "refused": 1}
"""Status of an answer -> exit status of `ask`."""


def _options(model: str, db: str, set_: list[str] | None, max_cost: float | None) -> dict[str, Any]:
    options = command_options("ask", model, None, None, set_, {"max_cost": max_cost})
    shop = db == "demo" and not Path(db).exists()
    return {**options, "app": {} if shop or not db else {"db": db}}


def ask(
    database: _Where,
    question: Annotated[str, typer.Argument(help="A question in plain language.")],
    memory: _Memory = "",
    model: Model = "",
    adopted: _Adopted = False,
    reading: Annotated[
        int | None, typer.Option("--reading", min=1, help="Which reading is meant, where it asked back.")
    ] = None,
    rows: _Rows = None,
    chart: Annotated[Path | None, typer.Option("--chart", help="Write the chart there, as Vega-Lite JSON.")] = None,
    words: _Words = False,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    json_: Json = False,
) -> None:
    """Answer one question about a database: the query, its rows, a chart, what it means, the lessons used.

    Exit status: 0 answered, 3 asked back or no answer is known, 1 failed or refused, 2 a wrong option or database.
    """
    from verbal.ask_verbs import run_ask

    made = run_ask(
        _options(model, database, set_, max_cost), store, question, memory, adopted=adopted, reading=reading,
        rows=rows, chart=chart, words=words, quiet=json_,
    )  # fmt: skip
    emit(made, json_)
    if code := _EXITS.get(str(made.get("status")), 0):
        raise typer.Exit(code)


def chat(
    db: Annotated[str, typer.Option("--db", help="Talk about a database, as for `ask`; `demo` is the demo shop.")] = "",
    model: Model = "",
    user: Annotated[str, typer.Option("--user", help="Whose conversations and lessons these are.")] = "me",
    team: Annotated[str, typer.Option("--team", help="Whose lessons are tried too.")] = "",
    tool: Annotated[
        list[str] | None, typer.Option("--tool", help="A function it may call: ./mine.py:function. May be repeated.")
    ] = None,
    mcp: Annotated[
        list[str] | None, typer.Option("--mcp", help="An MCP server it may use: a command, or a URL. May be repeated.")
    ] = None,
    go_on: Annotated[str, typer.Option("--chat", help="A conversation to go on with: its id.")] = "",
    budget: Annotated[int | None, typer.Option("--budget", help="Tokens of a prompt at most.")] = None,
    memory: _Memory = "",
    adopted: _Adopted = False,
    rows: _Rows = None,
    words: _Words = False,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    json_: Json = False,
) -> None:
    """Talk with an agent that learns from what you say of its answers; with --db, about a database. /help says more."""
    from verbal.errors import ConfigError

    if db:
        if tool or mcp or team or go_on or budget or user != "me":
            what = "--user, --team, --tool, --mcp, --chat and --budget are of the agent without a database"
            raise ConfigError(what, todo="leave --db out, or leave these out")
        from verbal.chat_verb import run_chat

        options = _options(model, db, set_, max_cost)
        emit(run_chat(options, store, memory, adopted=adopted, rows=rows, words=words, quiet=json_), json_)
        return
    if memory or adopted or rows or words:
        raise ConfigError("--memory, --adopted, --rows and --words are about a database", todo="add --db FILE")
    from verbal.talk_verb import run_talk

    made = run_talk(
        command_options("chat", model, None, None, set_, {"max_cost": max_cost}), store, user=user, team=team,
        tools=tool or (), mcp=mcp or (), chat=go_on, budget=budget, quiet=json_,
    )  # fmt: skip
    emit(made, json_)


@sql_app.command()
def correct(
    answer: _Answer,
    words: Annotated[str, typer.Argument(help="What should have been known, in your words.")] = "",
    sql: Annotated[str, typer.Option("--sql", help="The query as it should be.")] = "",
    model: Model = "",
    db: Annotated[str, typer.Option("--db", help="Where the database is now, if it moved.")] = "",
    rows: _Rows = None,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Correct an answer: verified by trying, kept as a lesson on trial."""
    from verbal.ask_verbs import run_correct

    made = run_correct(store, answer, words, sql, model=model, db=db, rows=rows, quiet=json_)
    emit(made, json_)
    if not made["kept"]:
        raise typer.Exit(1)


@sql_app.command()
def thumbs(
    answer: _Answer,
    judged: Annotated[Literal["up", "down"], typer.Argument(help="Whether it was right.")],
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Say whether an answer was right: an outcome for the lessons it was given with."""
    from verbal.ask_verbs import run_thumbs

    emit(run_thumbs(store, answer, judged == "up", quiet=json_), json_)


@sql_app.command()
def undo(
    what: Annotated[str, typer.Argument(help="A correction or an answer; the last correction if not given.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Take back what a correction did."""
    from verbal.ask_verbs import run_undo

    emit(run_undo(store, what, quiet=json_), json_)


@sql_app.command()
def history(
    database: Annotated[str, typer.Argument(help="A database; all if not given.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="The latest so many.")] = 50,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """List what was asked and what was said of the answers."""
    from verbal.ask_verbs import show_history

    emit(show_history(store, database, limit=limit, quiet=json_), json_)


@sql_app.command()
def learn(
    database: _Where,
    questions: Questions = None,
    memory: Annotated[str, typer.Option(help="Memory that learns; the database's own if not given.")] = "",
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    model: Model = "",
    run: Annotated[str, typer.Option(help="Name of the run; MEMORY-learn if not given.")] = "",
    split: Annotated[str, typer.Option(help="Split to learn on.")] = "train",
    limit: Limit = None,
    seeds: Annotated[int, typer.Option(min=1, help="Times to learn; a claim needs three.")] = 3,
    evaluate_on: Annotated[str, typer.Option("--eval", help="Split the four arms are scored on; '' for none.")] = "dev",
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate everything, call nothing.")] = False,
    json_: Json = False,
) -> None:
    """Learn from a question set into the memory that this database is asked with, and show the four arms."""
    from verbal.ask_verbs import run_sql_learn

    limits = {"max_cost": max_cost, "max_tokens": max_tokens, "max_calls": max_calls, "max_minutes": max_minutes}
    options = command_options(recipe, model, None, None, set_, limits)
    options["app"] = {"db": database, **({"questions": str(questions)} if questions else {})}
    made = run_sql_learn(
        options, store, memory, run=run, split=split, limit=limit, seeds=seeds, evaluate_on=evaluate_on,
        resume=resume, dry_run=dry_run, quiet=json_,
    )  # fmt: skip
    emit(made, json_)
