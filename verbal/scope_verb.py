"""`verbal memory scope`: tries one lesson of a memory inside, near and outside its scope, and narrows or refuses it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbal.errors import ConfigError, DataError, UnknownName
from verbal.parts import load_function
from verbal.screen import Screen
from verbal.store import Store
from verbal.verbs import make_recipe, open_store

if TYPE_CHECKING:
    from verbal.recipe import Recipe
    from verbal.run import Workshop
    from verbal.scope import Requests, Scope
    from verbal.types import Reflection, Task

_NEAREST, _OTHERS = 3, 2
"""Examples that share words with a lesson, and examples that do not."""


def run_scope(
    options: dict[str, Any],
    url: str,
    name: str,
    item: str,
    *,
    requests: Path | None = None,
    count: int = 8,
    answers: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Tries a lesson on requests of three kinds; keeps it, narrows it by a boundary, or refuses it.

    Args:
        options: Recipe, model, app, overrides (`verbal.cli`).
        url: The store.
        name: The memory.
        item: Id of the lesson.
        requests: A JSONL file of lines `{"kind": "inside" | "near" | "outside", "request": "..."}`, and at most one
            `{"boundary": "..."}`; the model that plays the proposer writes them when not given.
        count: Requests of a kind that the proposer is asked for.
        answers: Also answer the requests that the lesson is not found for, as training with c3po needs.
        quiet: Print nothing.

    Returns:
        verdict (`kept`, `narrowed`, `refused`), the id, standing and boundary the lesson has now, the findings before
        and after narrowing, the requests whose answers changed, run and usage.

    Raises:
        UnknownName: no such memory or item. ConfigError: the item is retired, or nobody can write requests.
        DataError: the file or the proposer's reply cannot be used.
    """
    with open_store(url) as store, Screen(f"verbal memory scope: {name} {item}", quiet=quiet) as screen:
        if name not in store.memories():
            raise UnknownName.of("memory", name, store.memories(), where=store.where)
        given = _read_file(requests) if requests is not None else None
        recipe = make_recipe(options, store)
        if not recipe.memory.name:
            recipe = dataclasses.replace(recipe, memory=dataclasses.replace(recipe.memory, name="exact"))
        found = asyncio.run(_try(store, recipe, screen, name, item, given, count, answers))
        screen.stage("")
        for line in _words(found):
            screen.print(line)
        return found


async def _try(
    store: Store,
    recipe: Recipe,
    screen: Screen,
    name: str,
    item_id: str,
    given: dict[str, Any] | None,
    count: int,
    answers: bool,
) -> dict[str, Any]:
    from verbal.run import Progress, open_workshop
    from verbal.scope import KINDS, confine, digest, make_requests, verdict, write_requests

    # A run has one recipe; the same lesson tried in the same way goes on with what was answered already.
    run = f"scope-{name}-{item_id}-{digest(json.dumps(recipe.to_dict(), sort_keys=True))[:8]}"
    progress = Progress(changed=screen.show, solved=None)
    async with open_workshop(recipe, store, run=run, progress=progress, memory_name=name) as shop:
        memory = shop.memory
        assert memory is not None
        await memory.search("", 1)  # reads the log
        item = _item(memory.preview().items, item_id, store)
        examples = _examples(shop.app.tasks("train"), item)
        if given is None:
            _check_proposer(shop)
        info = {"command": "scope", "scope": {"memory": name, "item": item_id}, **shop.info}
        store.start_run(run, recipe.to_dict(), info)
        status = "stopped"
        try:
            if given is None:
                screen.stage("the proposer writes requests")
                tried = await write_requests(shop, item, examples, count)
            else:
                worlds = {str(t.info["db"]) for t in examples if t.info.get("db")}
                tried = make_requests(shop.app, given["asked"], given["boundary"], db=min(worlds, default=None))
            store.set_info(run, {"requests": {kind: [t.id for t in tried.of(kind)] for kind in KINDS}})
            screen.stage("answering with and without the lesson")
            first, last = await confine(shop, memory, item, tried, run=run, answers=answers)
            if last.item.id != item.id:
                store.set_info(run, {"scope": {**info["scope"], "narrowed": last.item.id}})
            status = "done"
        finally:
            shop.ledger.flush()
            store.finish_run(run, status)
        kept = memory.preview().items[last.item.id]
        return {
            "memory": name,
            "item": item_id,
            "verdict": verdict(first, last),
            "now": {"id": kept.id, "status": kept.status, "text": kept.text, "boundary": kept.boundary},
            "first": _finding(first, tried),
            "last": _finding(last, tried),
            "run": run,
            "usage": {role: used.to_dict() for role, used in store.usage(run).items()},
        }


def _item(items: Mapping[str, Reflection], item_id: str, store: Store) -> Reflection:
    if item_id not in items:
        raise UnknownName.of("item", item_id, items, where=store.where)
    if items[item_id].status == "retired":
        raise ConfigError(f"{item_id} is retired: it is never shown", where=store.where, todo="name another item")
    return items[item_id]


def _check_proposer(shop: Workshop) -> None:
    proposer = shop.roles("proposer")
    if not getattr(proposer, "chats", True):
        raise ConfigError(
            f"{proposer.name} cannot write requests: it follows no free instructions",
            where="role proposer",
            todo="give --requests FILE (lines of kind and request), or --set model.roles.proposer=provider/model",
        )


def _examples(tasks: Sequence[Task], item: Reflection) -> list[Task]:
    """A few tasks that share words with a lesson, then some that do not."""
    from verbal.loop.context import query

    informative = load_function("memory", "words", "informative")
    about = set(informative(" ".join((item.title, item.when, item.text))))
    shared = {t.id: len(about & set(informative(query(t)))) for t in tasks if t.split != "test"}
    known = sorted((t for t in tasks if t.id in shared), key=lambda t: -shared[t.id])
    others = [t for t in known[_NEAREST:] if not shared[t.id]]
    return [*known[:_NEAREST], *others[:_OTHERS]]


def _read_file(path: Path) -> dict[str, Any]:
    """The requests of a file, by kind, and its boundary.

    Raises:
        DataError: names the line that cannot be used.
    """
    from verbal.scope import KINDS, read_requests

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the requests cannot be read: {error}", where=str(path), todo="give a JSONL file") from error
    asked: dict[str, Any] = {kind: [] for kind in KINDS}
    boundary = ""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            row = None
        if isinstance(row, dict) and set(row) == {"boundary"} and isinstance(row["boundary"], str):
            boundary = row["boundary"]
        elif isinstance(row, dict) and row.get("kind") in KINDS and isinstance(row.get("request"), str):
            asked[row["kind"]].append(row["request"])
        else:
            todo = 'lines look like {"kind": "near", "request": "..."}; kinds: ' + ", ".join(KINDS)
            raise DataError(f"not a request: {line[:80]}", where=f"{path}:{number}", todo=todo)
    try:
        read = read_requests(json.dumps({"boundary": boundary, **asked}))
    except ValueError as error:
        raise DataError(
            f"the requests cannot be used: {error}", where=str(path), todo="give each kind some, and none to two kinds"
        ) from error
    return {"asked": {kind: read[kind] for kind in KINDS}, "boundary": read["boundary"]}


def _finding(found: Scope, tried: Requests) -> dict[str, Any]:
    from verbal.loop.context import query
    from verbal.scope import KINDS

    said = {t.id: query(t) for kind in KINDS for t in tried.of(kind)}
    return {
        "words": found.words(),
        "asked": dict(found.asked),
        "changed": {kind: [said[i] for i in found.changed.get(kind, ())] for kind in KINDS},
        "score": found.score,
        "boundary": found.item.boundary,
    }


def _words(found: Mapping[str, Any]) -> list[str]:
    """The findings for a person."""
    now, first, last = found["now"], found["first"], found["last"]
    lines = [f"{found['item']}: {now['text']}", f"  it {first['words']}"]
    if last["boundary"] != first["boundary"]:
        lines += [f"  narrowed, not for: {last['boundary']}", f"  it then {last['words']}"]
    for kind in ("near", "outside"):
        lines += [f"  changed {kind}: {request}" for request in last["changed"][kind][:5]]
    if not first["changed"]["inside"]:
        lines.append("  it changes nothing inside either: it is not found there, or the model does not follow it")
    if now["id"] != found["item"]:
        lines.append(f"  {now['id']} is the narrowed lesson, and {found['item']} has to prove itself against it")
    ends = {"kept": "stays as it is", "narrowed": "stays, narrowed", "refused": "is refused"}
    return [*lines, f"{found['item']} {ends[found['verdict']]} ({now['status']})"]


__all__ = ["run_scope"]
