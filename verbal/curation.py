"""From a batch of attempts to memory operations: credit for what was shown, lessons filed, standings settled."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from verbal.contracts import Credit, Curator, Memory, MemoryState
from verbal.loop.context import Context, Roles
from verbal.parts import load_function, load_part, make_part
from verbal.recipe import Recipe
from verbal.store import Store
from verbal.types import Attempt, Group, MemoryOp, Reflection, Task

if TYPE_CHECKING:
    from verbal.run import Workshop


def open_memory(recipe: Recipe, store: Store, name: str, folder: str) -> Memory:
    """The memory of a recipe, which learns under a name of the store; its index lies in a folder."""
    options = {"name": name, "quarantine": recipe.memory.quarantine, **recipe.memory.options}
    if "server" not in options:
        options.setdefault("folder", folder)
    made: Memory = make_part("memory", recipe.memory.name, where="[memory]", store=store, **options)
    return made


def make_credit(recipe: Recipe) -> Credit | None:
    """Who turns outcomes into credit, or None where the recipe names nobody."""
    table = recipe.memory
    made: Credit | None = None
    if table.credit:
        made = make_part("memory", table.credit, where="[memory] credit", **table.credit_options)
    return made


def make_curator(recipe: Recipe, roles: Roles) -> Curator:
    """The curator of a recipe; one that asks a model gets None where the model cannot follow free instructions."""
    maker, options = load_part("memory", recipe.memory.curator), dict(recipe.memory.curator_options)
    if "model" in inspect.signature(maker).parameters:
        caller = roles("curator")
        options["model"] = caller if getattr(caller, "chats", True) else None
    made: Curator = make_part("memory", recipe.memory.curator, where="[memory] curator_options", **options)
    return made


def check_memory(recipe: Recipe) -> None:
    """Tries what a recipe says of memory, curator and credit on an empty memory, before anything is paid for.

    Raises:
        ConfigError, UnknownName: an option is unknown or out of range, or the embedder cannot be used.
    """
    if not recipe.memory.name:
        return
    options = {k: v for k, v in recipe.memory.options.items() if k not in ("name", "folder", "server", "version")}
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "try.db") as store:
        make_part("memory", "exact", where="[memory] options", store=store, name="try", **options).close()
    embedder = load_function("memory", "embedders", "make_embedder")(options.get("embedder", "hashing"))
    if hasattr(embedder, "check"):  # a key that is not there
        embedder.check()
    make_credit(recipe)
    make_curator(recipe, lambda role: cast(Any, None))


async def curate(workshop: Workshop, context: Context, tasks: Sequence[Task], key: str) -> None:
    """Turns a batch into memory operations, once: what was shown is credited, lessons are filed, standings settled.

    All of it is one write, and a closing NOOP in the log marks the batch done.
    """
    from verbal.loop.nodes import lessons, tags

    memory, verify = workshop.memory, context.recipe.loop.verify and context.recipe.loop.graph == "reflect"
    if memory is None or workshop.curator is None:
        return
    mark = MemoryOp(op="NOOP", reason=f"batch {key} curated", author="run")
    if any(op.op == "NOOP" and op.reason == mark.reason for op in memory.history()):
        return
    drawn: list[Reflection] = []
    ops: list[MemoryOp] = []
    known = memory.preview().items
    for task in tasks:
        group = context.store.group(context.run, context.group_key(task), context.arm)
        attempts = [a for i in (group.attempts if group else ()) if (a := context.store.attempt(i))]
        ops += _credited(workshop, context, attempts, memory.preview(ops))
        for attempt in attempts:
            ops += tags(context, attempt)
            if not verify or _helped(context, attempt, group) or context.score(attempt) == 1.0:
                asked = context.tasks.get(attempt.task) or context.store.tasks([attempt.task])[attempt.task]
                question = str(asked.info.get("question", ""))
                told = {_folded(known[i].text) for step in attempt.steps for i in step.shown if i in known}
                # Words that the prompt put there are no news: counted again they would prove themselves.
                new = [r for r in lessons(context, attempt) if _folded(r.text) not in told]
                drawn += [r if r.when else r.replace(when=question) for r in new]
    everything = list(memory.preview(ops).items.values())  # retired ones too: their ids are never given again
    changes = await workshop.curator.propose(drawn, everything) if drawn else []
    ops += changes
    if workshop.credit is not None:
        # Another writer may take the ids that are previewed for new items, so these are settled with the next batch.
        ops += [op for op in workshop.credit.settle(memory.preview(ops)) if op.reflection in known]
    await memory.apply([*ops, mark])
    context.offers.clear()
    workshop.progress.update(note=f"{sum(o.op == 'ADD' for o in changes)} lessons added")


def _credited(workshop: Workshop, context: Context, attempts: Sequence[Attempt], state: MemoryState) -> list[MemoryOp]:
    """What the first attempts on a task say of the reflections they were offered.

    Attempts side by side saw the same, by one lot, so they are one trial, and its outcome is their mean.
    """
    first = [a for a in attempts if a.round == 0 and a.steps]
    scores = [s for a in first if (s := context.score(a)) is not None]
    if workshop.credit is None or not scores or not first[0].steps[0].offered:
        return []
    step = first[0].steps[0]
    return workshop.credit.observe(first[0].id, step.offered, step.shown, sum(scores) / len(scores), state)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _helped(context: Context, attempt: Attempt, group: Group | None) -> bool:
    """Whether the attempt that came next, and saw the lesson drawn from this one, was solved."""
    tried = [a for i in (group.attempts if group else ()) if (a := context.store.attempt(i)) and a.parent == attempt.id]
    return any(context.verdict(context.store.feedback([a.id])[a.id]) == 1.0 for a in tried)


__all__ = ["check_memory", "curate", "make_credit", "make_curator", "open_memory"]
