"""The command line: verbs only, each calls one function. Heavy packages are imported by what a verb calls."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from verbal.errors import ConfigError, VerbalError

# The command and its two groups of verbs.
app = typer.Typer(
    name="verbal",
    help="Agents that learn: in words first, in weights later, with evidence for each step.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
memory_app = typer.Typer(help="Read a memory: what it believes and where that came from.", no_args_is_help=True)
embedded_app = typer.Typer(help="The embedded model: train it anew, or read its card.", no_args_is_help=True)
app.add_typer(memory_app, name="memory")
app.add_typer(embedded_app, name="embedded")

# Options that several verbs take.
Store = Annotated[Path, typer.Option("--store", help="Where everything is kept.")]
Model = Annotated[
    str,
    typer.Option(
        "--model", help="embedded, provider/model, http/MODEL@URL, checkpoint:NAME; the recipe's if not given."
    ),
]
Database = Annotated[Path | None, typer.Option("--db", help="A SQLite file; the demo shop if not given.")]
Questions = Annotated[Path | None, typer.Option("--questions", help="JSONL with question, sql and split.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe value: loop.rounds=3")]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", help="US dollars; the call that could exceed it is not made.")
]
# Where a store is made when none is named.
DEFAULT_STORE = Path("runs/verbal.db")


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

    _emit(run_demo(out, model=model, seeds=seeds, tasks=tasks, max_cost=max_cost, quiet=json_), json_)


@app.command()
def doctor(
    model: Annotated[list[str] | None, typer.Option("--model", help="A model to check; repeat for several.")] = None,
    json_: Json = False,
) -> None:
    """Say what works here and what does not, and what to do about it."""
    from verbal.verbs import run_doctor

    found = run_doctor(model or ["embedded"], quiet=json_)
    _emit(found, json_)
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
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tasks.")] = None,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    max_cost: MaxCost = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, call nothing.")] = False,
    json_: Json = False,
) -> None:
    """Work through tasks, reflect on failures, and keep what was learned in a memory."""
    from verbal.verbs import run_learn

    options = _options(recipe, model, db, questions, set_, max_cost)
    result = run_learn(
        options,
        store,
        run=run,
        memory=memory or run,
        split=split,
        limit=limit,
        resume=resume,
        dry_run=dry_run,
        quiet=json_,
    )
    _emit(result, json_)


@app.command(name="eval")
def evaluate(
    db: Database = None,
    questions: Questions = None,
    memory: Annotated[str, typer.Option(help="Memory to evaluate; without one only the no-memory arms run.")] = "",
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    model: Model = "",
    run: Annotated[str, typer.Option(help="Name of the run.")] = "eval",
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "dev",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tasks.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    json_: Json = False,
) -> None:
    """Score a memory beside its three controls, with intervals over tasks and seeds."""
    from verbal.verbs import run_eval

    options = _options(recipe, model, db, questions, set_, max_cost)
    _emit(run_eval(options, store, run=run, memory=memory, split=split, limit=limit, seeds=seeds, quiet=json_), json_)


@app.command()
def ask(
    database: Annotated[Path, typer.Argument(help="A SQLite file.")],
    question: Annotated[str, typer.Argument(help="A question in plain language.")],
    memory: Annotated[str, typer.Option(help="Memory to look lessons up in.")] = "",
    model: Model = "",
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    json_: Json = False,
) -> None:
    """Answer one question about a database: the query, its rows, and the lessons used."""
    from verbal.verbs import run_ask

    _emit(run_ask(_options("ask", model, database, None, set_, max_cost), store, question, memory, quiet=json_), json_)


@app.command()
def traces(
    run: Annotated[str, typer.Argument(help="A run; all runs are listed if not given.")] = "",
    attempt: Annotated[str, typer.Option(help="Show one attempt, step by step.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """List runs, the attempts of a run, or the steps of one attempt."""
    from verbal.verbs import show_traces

    _emit(show_traces(store, run, attempt, quiet=json_), json_)


@memory_app.command(name="list")
def memory_list(
    name: Annotated[str, typer.Argument(help="A memory; all are listed if not given.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """List memories, or what one memory believes."""
    from verbal.verbs import list_memory

    _emit(list_memory(store, name, quiet=json_), json_)


@memory_app.command(name="search")
def memory_search(
    name: str, text: str, k: int = 5, index: str = "chroma", store: Store = DEFAULT_STORE, json_: Json = False
) -> None:
    """Show what would be retrieved for a question."""
    from verbal.verbs import search_memory

    _emit(search_memory(store, name, text, k, index, quiet=json_), json_)


@memory_app.command(name="history")
def memory_history(name: str, store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """Print every operation on a memory, oldest first."""
    from verbal.verbs import memory_log

    _emit(memory_log(store, name, quiet=json_), json_)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    format_: Annotated[Literal["sft", "preference"], typer.Option("--format", help="TRL's row type.")] = "sft",
    run: Annotated[str, typer.Option(help="Only attempts of this run.")] = "",
    parquet: Annotated[bool, typer.Option("--parquet", help="Parquet instead of JSONL.")] = False,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Write attempts as a training set in TRL's conversational types, with a card."""
    from verbal.verbs import run_export

    _emit(run_export(store, out, format_, run, parquet, quiet=json_), json_)


@app.command()
def distill(
    method: Annotated[str, typer.Option(help="A training method.")] = "sft",
    model: Annotated[str, typer.Option("--model", help="embedded, or a Hugging Face model folder.")] = "embedded",
    run: Annotated[str, typer.Option(help="Run whose attempts are distilled.")] = "run",
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")] = "distilled",
    out: Annotated[Path | None, typer.Option(help="Folder of the weights; beside the store if not given.")] = None,
    seed: int = 0,
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    evaluate_on: Annotated[str, typer.Option("--eval", help="Split to score before and after; '' for none.")] = "dev",
    db: Database = None,
    questions: Questions = None,
    json_: Json = False,
) -> None:
    """Train weights on what a run collected (hints removed), score before and after, register the checkpoint."""
    from verbal.distill import run_distill

    target = out or store.parent / "weights" / name
    scored = _options("reflect", model, db, questions, None, None)["app"]
    made = run_distill(
        store, target, method=method, model=model, run=run, name=name, seed=seed, overrides=set_ or [],
        split=evaluate_on, app=scored, quiet=json_,
    )  # fmt: skip
    _emit(made, json_)


@app.command()
def check(target: Annotated[str, typer.Argument(help="An app, such as apps/text2sql.")], json_: Json = False) -> None:
    """Prove an app: every gold answer scores 1, an empty answer 0, and golds differ from their neighbours."""
    from verbal.verbs import check_app

    found = check_app(target, quiet=json_)
    _emit(found, json_)
    if found["failed"]:
        raise typer.Exit(1)


@app.command()
def report(results: Path, out: Path, json_: Json = False) -> None:
    """Write the HTML page of a results file (`verbal demo` and `verbal eval --json` write one)."""
    from verbal.report import write_report

    _emit({"page": str(write_report(json.loads(results.read_text(encoding="utf-8")), out))}, json_)


@embedded_app.command(name="train")
def embedded_train(
    out: Annotated[Path, typer.Argument(help="Folder of the new weights.")],
    minutes: Annotated[float, typer.Option(help="Wall-clock minutes of training.")] = 50.0,
    seed: int = 0,
    json_: Json = False,
) -> None:
    """Train the embedded model from nothing on synthetic databases (two cores, about an hour)."""
    from verbal.verbs import train_embedded

    _emit(train_embedded(out, minutes, seed, quiet=json_), json_)


@embedded_app.command(name="card")
def embedded_card() -> None:
    """Print the model card: what it is, what it was trained on, what it can and cannot do."""
    from importlib import resources

    print(resources.files("verbal.models.embedded").joinpath("weights", "README.md").read_text(encoding="utf-8"))


def main() -> None:
    """The `verbal` command. Exit codes: 0 done, 1 failed, 2 wrong use or input, 130 interrupted."""
    wants_json = "--json" in sys.argv
    try:
        app(standalone_mode=True)
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
        again = "" if "--resume" in sys.argv or "learn" not in sys.argv else " --resume"
        print(f"\nStopped; finished work is kept. Go on with: verbal {' '.join(sys.argv[1:])}{again}", file=sys.stderr)
        sys.exit(130)


def _options(
    recipe: str,
    model: str,
    db: Path | None,
    questions: Path | None,
    overrides: list[str] | None,
    max_cost: float | None,
) -> dict[str, Any]:
    if questions is not None and db is None:
        raise ConfigError("--questions was given without --db", todo="name the SQLite file they ask about")
    return {
        "recipe": recipe,
        "model": model,
        "app": {k: str(v) for k, v in (("db", db), ("questions", questions)) if v is not None},
        "overrides": [*(overrides or []), *([f"limits.max_cost={max_cost}"] if max_cost is not None else [])],
    }


def _emit(result: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2, default=str))


if __name__ == "__main__":
    main()
