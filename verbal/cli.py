"""The command line: verbs only, each calls one function. Heavy packages are imported by what a verb calls."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from verbal.cli_distill import distill
from verbal.cli_eval import evaluate, two_by_two
from verbal.cli_groups import embedded_app, emit, memory_app
from verbal.cli_keys import keys_app
from verbal.cli_report import export, report, watch
from verbal.cli_serve import mcp, serve, shadow
from verbal.cli_sql import ask, chat, sql_app
from verbal.cli_ui import ui, users_app
from verbal.errors import VerbalError
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

# The command; groups of verbs stand in `cli_groups.py` and `cli_sql.py`, `eval` in `cli_eval.py`, servers in
# `cli_serve.py`.
app = typer.Typer(
    name="verbal",
    help="Agents that learn: in words first, in weights later, with evidence for each step.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(memory_app, name="memory")
app.add_typer(embedded_app, name="embedded")
app.add_typer(sql_app, name="sql")
app.add_typer(keys_app, name="keys")
app.add_typer(users_app, name="users")


@app.command()
def demo(
    model: Model = "embedded",
    out: Annotated[Path, typer.Option("--out", help="Folder of the page, the store and the weights.")] = Path(
        "runs/demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions; intervals are over seeds and tasks.")] = 3,
    tasks: Annotated[int, typer.Option(min=1, help="Dev tasks to evaluate on.")] = 40,
    max_cost: MaxCost = None,
    json_: Json = False,
) -> None:
    """Tell the whole story offline: base, controls, memory, distilled weights, each with an interval."""
    from verbal.demo import run_demo

    emit(run_demo(out, model=model, seeds=seeds, tasks=tasks, max_cost=max_cost, quiet=json_), json_)


@app.command()
def doctor(
    model: Annotated[list[str] | None, typer.Option("--model", help="A model to check; repeat for several.")] = None,
    json_: Json = False,
) -> None:
    """Say what works here and what does not, and what to do about it."""
    from verbal.verbs import run_doctor

    found = run_doctor(model or ["embedded"], quiet=json_)
    emit(found, json_)
    if any(f["level"] == "error" for f in found["findings"]):
        raise typer.Exit(1)


@app.command()
def learn(
    db: Database = None,
    questions: Questions = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    model: Model = "",
    run: Annotated[str, typer.Option(help="Name of the run.")] = "run",
    memory: Annotated[str, typer.Option(help="Name of the memory that learns; the run's own if not given.")] = "",
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
    prices: Prices = None,
    cache: CacheMode = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate everything, call nothing.")] = False,
    json_: Json = False,
) -> None:
    """Work through tasks, reflect on failures, keep what was learned, and score it beside its three controls."""
    from verbal.learning import run_learn

    limits = {"max_cost": max_cost, "max_tokens": max_tokens, "max_calls": max_calls, "max_minutes": max_minutes}
    result = run_learn(
        command_options(recipe, model, db, questions, set_, limits, prices, cache),
        store,
        run=run,
        memory=memory or run,
        split=split,
        limit=limit,
        seeds=seeds,
        evaluate_on=evaluate_on,
        resume=resume,
        dry_run=dry_run,
        quiet=json_,
    )
    emit(result, json_)


app.command(name="eval")(evaluate)
app.command(name="two-by-two")(two_by_two)


@app.command()
def promote(
    memory: Annotated[str, typer.Option(help="Candidate: NAME, NAME@VERSION or none; as it is if not given.")] = "",
    model: Annotated[str, typer.Option("--model", help="Candidate: as --model; as it is if not given.")] = "",
    prompts: Annotated[str, typer.Option(help="Candidate: a folder of prompts; as they are if not given.")] = "",
    incumbent: Annotated[str, typer.Option(help="Model that serves before anything was adopted.")] = "",
    db: Database = None,
    questions: Questions = None,
    split: Annotated[str, typer.Option(help="Held-out tasks the candidate was not made from.")] = "dev",
    limit: Limit = None,
    guard: Annotated[str, typer.Option(help="Questions that must not lose: a file, app, or none.")] = "app",
    seeds: Annotated[int, typer.Option(min=1, help="Samples of each task on each side.")] = 3,
    margin: Annotated[float, typer.Option(help="Points by which it must be better; below 0: it may lose them.")] = 0.0,
    guard_margin: Annotated[float, typer.Option(help="Points the guard set may lose.")] = 2.0,
    finite: Annotated[bool, typer.Option("--finite", help="The claim is about these tasks only.")] = False,
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
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
    """Put a memory, a model or prompts through the evidence gate; it serves from now on if it is accepted."""
    from verbal.evidence import run_promote
    from verbal.gate import Rule

    limits = {"max_cost": max_cost, "max_tokens": max_tokens, "max_calls": max_calls, "max_minutes": max_minutes}
    # Below zero it is asked whether anything is lost, and no gain is too small then.
    worth = margin / 100 if margin < 0 else Rule().worth
    made = run_promote(
        command_options(recipe, incumbent, db, questions, set_, limits, prices, cache),
        store,
        memory=memory,
        model=model,
        prompts=prompts,
        split=split,
        limit=limit,
        guard=guard,
        seeds=seeds,
        rule=Rule(margin=margin / 100, guard_margin=guard_margin / 100, worth=worth, finite=finite),
        quiet=json_,
    )
    emit(made, json_)
    if made["verdict"] != "accept":
        raise typer.Exit(1)


@app.command()
def rollback(
    to: Annotated[int | None, typer.Option("--to", help="A version; the one before if not given.")] = None,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Make an earlier version serve again, exactly."""
    from verbal.evidence import run_rollback

    emit(run_rollback(store, to, quiet=json_), json_)


@app.command()
def replay(
    run: str,
    pack: Annotated[Path | None, typer.Option("--pack", help="Write the recording into this file instead.")] = None,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Repeat a run bit for bit from its recording, without any model, and prove that it is equal."""
    from verbal.evidence import run_replay

    found = run_replay(store, run, pack, quiet=json_)
    emit(found, json_)
    if not found.get("equal", True):
        raise typer.Exit(1)


@app.command()
def diff(
    run: str,
    other: str,
    other_store: Annotated[str, typer.Option(help="The store of the second run, if it is another one.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Show where two runs part: the first step that differs, their memories, their scores."""
    from verbal.evidence import run_diff

    emit(run_diff(store, run, other, other_store, quiet=json_), json_)


app.command()(ask)
app.command()(chat)


@app.command()
def traces(
    run: Annotated[str, typer.Argument(help="A run; all runs are listed if not given.")] = "",
    attempt: Annotated[str, typer.Option(help="Show one attempt, step by step.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """List runs, the attempts of a run, or the steps of one attempt."""
    from verbal.verbs import show_traces

    emit(show_traces(store, run, attempt, quiet=json_), json_)


app.command()(export)
app.command()(distill)


@app.command()
def check(target: Annotated[str, typer.Argument(help="An app, such as apps/text2sql.")], json_: Json = False) -> None:
    """Prove an app: every gold answer scores 1, an empty answer 0, and golds differ from their neighbours."""
    from verbal.verbs import check_app

    found = check_app(target, quiet=json_)
    emit(found, json_)
    if found["failed"]:
        raise typer.Exit(1)


app.command()(report)
app.command()(watch)
app.command()(mcp)
app.command()(serve)
app.command()(shadow)
app.command()(ui)


@cache
def _command() -> Any:
    """The command, built once in a process: reading every verb's types takes a while."""
    return typer.main.get_command(app)


def main() -> None:
    """The `verbal` command. Exit codes: 0 done, 1 failed, 2 wrong use or input, 130 interrupted."""
    wants_json = "--json" in sys.argv
    try:
        _command()(standalone_mode=True)
    except VerbalError as error:
        if wants_json:
            print(json.dumps({"error": error.what, "where": error.where, "todo": error.todo}), file=sys.stderr)
        else:
            from rich.console import Console

            from verbal.screen import error_panel

            Console(stderr=True).print(error_panel(error))
        sys.exit(2 if isinstance(error, ValueError) else 1)
    except SystemExit as ended:
        if ended.code != 130:
            raise
        resumes = "--resume" not in sys.argv and {"learn", "distill"} & set(sys.argv)
        again = " --resume" if resumes else ""
        print(f"\nStopped; finished work is kept. Go on with: verbal {' '.join(sys.argv[1:])}{again}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
