"""Two groups of verbs: one memory, and the embedded model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from verbal.options import (
    DEFAULT_STORE,
    CacheMode,
    Database,
    Json,
    Limit,
    MaxCalls,
    MaxCost,
    Model,
    Overrides,
    Prices,
    Questions,
    Store,
    command_options,
)

# The groups.
memory_app = typer.Typer(help="A memory: what it believes, where that came from, in and out.", no_args_is_help=True)
embedded_app = typer.Typer(help="The embedded model: train it anew, or read its card.", no_args_is_help=True)


# Arguments and options that several verbs of a memory take.
_Name = Annotated[str, typer.Argument(help="A memory.")]
_Item = Annotated[str, typer.Argument(help="Id of an item, such as r12.")]
_Index = Annotated[str, typer.Option(help="chroma, or exact (no files beside the store).")]
_Embedder = Annotated[str, typer.Option(help="As in a recipe; the memory's own if not given.")]


@memory_app.command(name="list")
def memory_list(
    name: Annotated[str, typer.Argument(help="A memory; all are listed if not given.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """List memories, or what one memory believes."""
    from verbal.memory_verbs import list_memory

    emit(list_memory(store, name, quiet=json_), json_)


@memory_app.command(name="search")
def memory_search(
    name: _Name,
    text: Annotated[str, typer.Argument(help="A question.")],
    k: Annotated[int, typer.Option(min=1, help="At most so many.")] = 5,
    index: _Index = "chroma",
    embedder: _Embedder = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Show what would be retrieved for a question."""
    from verbal.memory_verbs import search_memory

    emit(search_memory(store, name, text, k, index, embedder, quiet=json_), json_)


@memory_app.command(name="show")
def memory_show(name: _Name, item: _Item, store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """Show one item: its words, where it comes from, what it did to outcomes, the operations that made it."""
    from verbal.memory_verbs import show_item

    emit(show_item(store, name, item, quiet=json_), json_)


@memory_app.command(name="history")
def memory_history(name: _Name, store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """Print every operation on a memory, oldest first."""
    from verbal.memory_verbs import memory_log

    emit(memory_log(store, name, quiet=json_), json_)


@memory_app.command(name="diff")
def memory_diff(
    name: Annotated[str, typer.Argument(help="A memory, or NAME@V1.")],
    left: Annotated[str, typer.Argument(help="A version, or NAME@V2.")],
    right: Annotated[str, typer.Argument(help="A later version; the newest if not given.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Show what changed between two versions: items added, words changed, standings, items gone."""
    from verbal.memory_verbs import diff_memory

    emit(diff_memory(store, name, left, right, quiet=json_), json_)


@memory_app.command(name="audit")
def memory_audit(
    name: _Name,
    fix: Annotated[bool, typer.Option("--fix", help="Propose to retire copies, secrets, orders to the model.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: do it.")] = False,
    days: Annotated[float, typer.Option(min=0, help="Without being shown, until an item is stale.")] = 90.0,
    emails: Annotated[bool, typer.Option("--emails", help="E-mail addresses count as secrets.")] = False,
    examples: Annotated[int, typer.Option(min=0, help="Examples of each kind.")] = 3,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Find what should not be in a memory; fails while there are secrets, orders to the model or sealed tasks."""
    from verbal.memory_files import audit_memory

    found = audit_memory(
        store, name, fix=fix, yes=yes, days=days, emails=emails, examples=examples, quiet=json_
    )  # fmt: skip
    emit(found, json_)
    if found["grave"]:
        raise typer.Exit(1)


@memory_app.command(name="forget")
def memory_forget(
    name: _Name,
    item: _Item,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Retire an item: it is never found again; its words stay in the log."""
    from verbal.memory_verbs import forget_item

    emit(forget_item(store, name, item, reason, quiet=json_), json_)


@memory_app.command(name="export")
def memory_export(
    name: Annotated[str, typer.Argument(help="NAME or NAME@VERSION.")],
    out: Annotated[Path, typer.Argument(help="A file; for a skill the folder of skills.")],
    format_: Annotated[str, typer.Option("--format", help="jsonl, skill or markdown; by the name of OUT.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="What is quarantined or retired too.")] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help="An item; repeat for several.")] = None,
    description: Annotated[str, typer.Option(help="Of a skill: what it is for and when to use it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Write what a memory believes to JSONL, an Agent Skill or a Markdown playbook."""
    from verbal.memory_files import export_memory

    made = export_memory(
        store, name, out, format_, everything=everything, only=only or [], description=description, force=force,
        quiet=json_,
    )  # fmt: skip
    emit(made, json_)


@memory_app.command(name="import")
def memory_import(
    name: Annotated[str, typer.Argument(help="A memory; made if there is none.")],
    source: Annotated[Path, typer.Argument(help="A file or folder.")],
    format_: Annotated[
        str, typer.Option("--format", help="jsonl, skill, markdown or transcript; by the name of SOURCE.")
    ] = "",
    trust: Annotated[bool, typer.Option("--trust", help="You answer for it: nothing is quarantined.")] = False,
    again: Annotated[bool, typer.Option("--again", help="What was retired is taken in too, as new items.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check, change nothing.")] = False,
    embedder: _Embedder = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Read lessons from a file, a skill or transcripts, into quarantine."""
    from verbal.memory_files import import_memory

    made = import_memory(
        store, name, source, format_, trust=trust, again=again, dry_run=dry_run, embedder=embedder, quiet=json_
    )  # fmt: skip
    emit(made, json_)


@memory_app.command(name="rebuild")
def memory_rebuild(
    name: _Name,
    embedder: Annotated[str, typer.Option(help="Embed everything anew with this one; as it is if not given.")] = "",
    index: _Index = "chroma",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Make the index of a memory anew from the store, and try every item."""
    from verbal.memory_verbs import rebuild_memory

    found = rebuild_memory(store, name, embedder, index, quiet=json_)
    emit(found, json_)
    if found["lost"]:
        raise typer.Exit(1)


@memory_app.command(name="scope")
def memory_scope(
    name: _Name,
    item: _Item,
    requests: Annotated[
        Path | None, typer.Option(help="JSONL of kind (inside, near, outside) and request; the proposer's otherwise.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Requests of a kind that the proposer writes.")] = 8,
    answers: Annotated[
        bool, typer.Option("--answers", help="Answer every request: training with c3po needs it.")
    ] = False,
    db: Database = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    model: Model = "",
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    json_: Json = False,
) -> None:
    """Try an item inside, near and outside its scope; one that changes answers elsewhere is narrowed or refused."""
    from verbal.scope_verb import run_scope

    options = command_options(recipe, model, db, None, set_, {"max_cost": max_cost})
    emit(run_scope(options, store, name, item, requests=requests, count=count, answers=answers, quiet=json_), json_)


@memory_app.command(name="absorbed")
def memory_absorbed(
    name: _Name,
    model: Annotated[str, typer.Option("--model", help="The weights that may know it: checkpoint:NAME.")] = "",
    split: Annotated[str, typer.Option(help="Whose tasks are attempted: train, dev or both.")] = "train,dev",
    trained: Annotated[bool, typer.Option("--trained", help="Tasks the weights were trained on count, too.")] = False,
    limit: Limit = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="An item; repeat for several.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Attempts of each task on each side.")] = 3,
    margin: Annotated[float, typer.Option(help="Points that withholding an item may lose.")] = 2.0,
    least: Annotated[int, typer.Option(min=1, help="Solved tasks below which nothing is decided.")] = 5,
    new_tasks: Annotated[bool, typer.Option("--new-tasks", help="Claim it of new tasks, not of these only.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Retire what is absorbed.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Believe again what was retired so; --model narrows it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find the tasks and estimate, call nothing.")] = False,
    db: Database = None,
    questions: Questions = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a .toml file.")] = "reflect",
    store: Store = DEFAULT_STORE,
    set_: Overrides = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    prices: Prices = None,
    cache: CacheMode = None,
    json_: Json = False,
) -> None:
    """Find what trained weights know by now: attempt its tasks with each item shown and withheld; --apply retires."""
    from verbal.absorbed import Claim
    from verbal.absorbed_verb import run_absorbed, run_take_back

    if undo:
        return emit(run_take_back(store, name, model, quiet=json_), json_)
    limits = {"max_cost": max_cost, "max_calls": max_calls}
    found = run_absorbed(
        command_options(recipe, model, db, questions, set_, limits, prices, cache), store, name, model=model,
        splits=[s.strip() for s in split.split(",") if s.strip()], trained=trained, limit=limit, only=only or [],
        seeds=seeds, claim=Claim(margin=margin / 100, least=least, finite=not new_tasks), apply=apply,
        dry_run=dry_run, quiet=json_,
    )  # fmt: skip
    emit(found, json_)


@embedded_app.command(name="train")
def embedded_train(
    out: Annotated[Path, typer.Argument(help="Folder of the new weights.")],
    minutes: Annotated[float, typer.Option(help="Wall-clock minutes of training.")] = 50.0,
    seed: int = 0,
    json_: Json = False,
) -> None:
    """Train the embedded model from nothing on synthetic databases (two cores, about an hour)."""
    from verbal.verbs import train_embedded

    emit(train_embedded(out, minutes, seed, quiet=json_), json_)


@embedded_app.command(name="card")
def embedded_card() -> None:
    """Print the model card: what it is, what it was trained on, what it can and cannot do."""
    from importlib import resources

    print(resources.files("verbal.models.embedded").joinpath("weights", "README.md").read_text(encoding="utf-8"))


def emit(result: Any, as_json: bool) -> None:
    """Prints a result as JSON, if that was asked for; what the terminal cannot write is escaped."""
    if not as_json:
        return
    text = json.dumps(result, ensure_ascii=False, indent=2, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which a model's cut reply may hold, has no UTF-8 form
        text = json.dumps(result, indent=2, default=str)
    print(text)
