"""Two groups of verbs: reading a memory, and the embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from verbal.options import DEFAULT_STORE, Json, Store

# The groups.
memory_app = typer.Typer(help="Read a memory: what it believes and where that came from.", no_args_is_help=True)
embedded_app = typer.Typer(help="The embedded model: train it anew, or read its card.", no_args_is_help=True)


@memory_app.command(name="list")
def memory_list(
    name: Annotated[str, typer.Argument(help="A memory; all are listed if not given.")] = "",
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """List memories, or what one memory believes."""
    from verbal.verbs import list_memory

    emit(list_memory(store, name, quiet=json_), json_)


@memory_app.command(name="search")
def memory_search(
    name: str, text: str, k: int = 5, index: str = "chroma", store: Store = DEFAULT_STORE, json_: Json = False
) -> None:
    """Show what would be retrieved for a question."""
    from verbal.verbs import search_memory

    emit(search_memory(store, name, text, k, index, quiet=json_), json_)


@memory_app.command(name="history")
def memory_history(name: str, store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """Print every operation on a memory, oldest first."""
    from verbal.verbs import memory_log

    emit(memory_log(store, name, quiet=json_), json_)


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
    """Prints a result as JSON, if that was asked for."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2, default=str))
