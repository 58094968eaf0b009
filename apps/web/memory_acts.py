"""What a person does to lessons: approve, narrow, retire, edit, share, undo. Operations in the log, by `user:NAME`.

The log only grows: taking back appends the opposite of what was done. A lesson of a shared memory is changed by admins
and by whom it is from; what is shared to others is on trial there, and again when its author changes it: only outcomes
and admins let it be believed by all. A person answers for what they write, so it counts at once in a memory of theirs;
words that hold a secret or speak to the model are refused everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from verbal.errors import DataError
from verbal.memory_verbs import open_for, open_part
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Counters, MemoryOp, Reflection

from .._said import check_for_others
from .door import read_json, text_of, whole_of
from .faults import Fault, clean
from .memories import item_of, readable, told
from .people import Person
from .scopes import may_write, own_memory

if TYPE_CHECKING:
    from .site import Site

ACTIONS = ("approve", "narrow", "retire", "edit", "share")
"""What may be done to a lesson."""
LONGEST = 2_000
"""Characters of a lesson's words, when and boundary."""


async def act_on_item(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/memories/{name}/items/{id}."""
    body = await read_json(request)
    action = text_of(body, "action", most=20, need=True)
    if action not in ACTIONS:
        raise Fault(400, "action", f"actions are: {', '.join(ACTIONS)}")
    words: dict[str, str] = {k: text_of(body, k, most=LONGEST) for k in ("text", "when", "boundary") if k in body}
    to = text_of(body, "to", most=20)

    def look() -> tuple[str, Reflection, bool]:
        name = readable(person, request.match_info["name"], site.store)
        read = site.states.read(name)
        item = item_of(read, request.match_info["id"])
        if action != "share" and not told(site.store, person, name, read, item)["writable"]:
            raise Fault(403, "rights", "only its author and admins change this lesson", "tell one of them")
        if action == "approve" and not may_write(person, name):
            raise Fault(403, "rights", "only admins approve what all believe", "outcomes decide, or ask an admin")
        rival = read.state.items.get(item.rival)
        return name, item, rival is not None and rival.status != "retired"

    name, item, contested = await asyncio.to_thread(look)
    if action == "share":
        return web.json_response(await _share(site, person, name, item, to))
    ops = _ops(person, action, item, words, contested=contested)
    if not may_write(person, name):
        # In one operation, so that no version of the log has new words that are believed.
        ops = [op.replace(item=op.item.replace(status="quarantined")) if op.item else op for op in ops]
        for op in ops if name.startswith("chat-") else ():
            _for_others(op.item)
    await _write(site.store, name, ops)

    def after() -> dict[str, Any]:
        read = site.states.read(name)
        return {
            "item": told(site.store, person, name, read, item_of(read, item.id)), "version": read.state.version,
        }  # fmt: skip

    return web.json_response(await asyncio.to_thread(after))


def _ops(person: Person, action: str, item: Reflection, words: dict[str, str], *, contested: bool) -> list[MemoryOp]:
    """The operations of an action; `contested`: whether the item it is a rival of still stands.

    Raises:
        Fault: it does not fit the lesson, or the words must not be kept.
    """
    author, said = (
        f"user:{person.name}",
        {"approve": "approved", "retire": "retired", "narrow": "narrowed", "edit": "edited"},
    )
    reason = f"{said[action]} by {person.name}"
    if item.status == "retired":
        raise Fault(409, "retired", f"{item.id} is retired", "take that back first")
    if action == "approve":
        if item.status == "active":
            raise Fault(409, "active", f"{item.id} is believed already")
        beaten = [
            MemoryOp(op="RETIRE", reflection=item.rival, reason=f"{reason} in favour of {item.id}", author=author)
        ]
        tag = MemoryOp(op="TAG", reflection=item.id, tag="active", reason=reason, author=author)
        return [tag, *(beaten if contested else [])]
    if action == "retire":
        return [MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author=author)]
    if action == "narrow" and "text" in words:
        raise Fault(400, "body", "narrowing changes `when` and `boundary`; to change the words: edit")
    new = item.replace(**words)
    if (new.text, new.when, new.boundary) == (item.text, item.when, item.boundary):
        raise Fault(400, "same", "nothing would change")
    check_words(new)
    return [MemoryOp(op="UPDATE", reflection=item.id, item=new.replace(embedding=()), reason=reason, author=author)]


def check_words(item: Reflection) -> None:
    """Refuses words that must not be kept.

    Raises:
        Fault: none, a secret, or words that speak to the model (400).
    """
    if not item.text.strip():
        raise Fault(400, "body", "a lesson needs words")
    said = "\n".join((item.text, item.when, item.boundary))
    if kinds := sorted({s.kind for s in load_function("memory", "leaks", "find_secrets")(said)}):
        raise Fault(400, "secret", f"that seems to hold a secret ({', '.join(kinds)}); nothing was kept")
    if why := load_function("memory", "screening", "instruction")(item):
        raise Fault(400, "instruction", f"that was not taken: {why}", "say what is so, and no more")


def _for_others(item: Reflection | None) -> None:
    try:
        if item is not None:
            check_for_others(item)
    except DataError as error:
        raise Fault(400, "address", clean(error.what), error.todo) from None


async def _share(site: Site, person: Person, memory: str, item: Reflection, to: str) -> dict[str, Any]:
    """Files a lesson for the team or for all, on trial there."""
    target = own_memory(person, to) if to in ("team", "global") else ""
    if not target:
        raise Fault(400, "to", "a lesson is shared to your `team`, where you are of one, or `global`")
    if target == memory or item.status == "retired":
        raise Fault(409, "there", "it is there already" if target == memory else f"{item.id} is retired")
    check_words(item)
    if not person.admin:
        _for_others(item)
    copied = item.replace(
        id="", status="quarantined", value=None, counters=Counters(), rival="", embedding=(), task=None, attempts=()
    )

    def known() -> Reflection | None:
        there = list(site.states.read(target).state.items.values()) if target in site.store.memories() else []
        said = (item.text, item.when, item.boundary)
        return next((i for i in there if (i.text, i.when, i.boundary) == said and i.status != "retired"), None)

    if (twin := await asyncio.to_thread(known)) is not None:
        raise Fault(409, "there", f"it is there already, as {twin.id}")
    reason = f"shared by {person.name} from {memory}, {item.id}"
    await _write(site.store, target, [MemoryOp(op="ADD", item=copied, reason=reason, author=f"user:{person.name}")])

    def after() -> dict[str, Any]:
        read = site.states.read(target)
        made = next(i for i, op in reversed(read.added.items()) if op.reason == reason)
        return {
            "item": told(site.store, person, target, read, item_of(read, made)), "version": read.state.version,
            "memory": target,
        }  # fmt: skip

    return await asyncio.to_thread(after)


async def _write(store: Store, name: str, ops: Sequence[MemoryOp]) -> int:
    """Applies operations of a person, which count at once; gives the new version.

    Raises:
        Fault: the log did not take one of them (409).
    """

    def opened() -> Any:
        made = open_for if name in store.memories() else open_part
        extra: dict[str, Any] = {} if made is open_for else {"embedder": "hashing"}
        return made(store, name, "exact", **extra)

    memory = await asyncio.to_thread(opened)
    try:
        before = memory.version
        version = int(await memory.apply(list(ops)))
    finally:
        memory.close()
    reasons = {op.reason for op in ops}
    for _, op in await asyncio.to_thread(store.ops, name, before):
        if op.op == "NOOP" and op.author.startswith("user:") and any(op.reason.startswith(f"{o.op}: ") for o in ops):
            raise Fault(409, "changed", f"the lesson has changed meanwhile: {clean(op.reason)}", "look at it again")
        if op.reason in reasons:
            break
    return version


# taking back --------------------------------------------------------------------------------------------------------


async def undo_since(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/memories/{name}/undo: takes back what was done since a version."""
    body = await read_json(request)
    version = whole_of(body.get("version"), "version", 0, 2**53, -1)

    def look() -> tuple[str, list[MemoryOp], list[str]]:
        name = readable(person, request.match_info["name"], site.store)
        now = site.states.read(name).state.version
        if not 0 <= version <= now:
            raise Fault(400, "version", f"this memory has the versions 0 to {now}")
        log = site.store.ops(name)
        ops, left = undo_ops(log, version, person, everything=may_write(person, name))
        return name, ops, left

    name, ops, left = await asyncio.to_thread(look)
    told_ = [f"{len(ops)} changes taken back"] if ops else ["nothing to take back"]
    if ops:
        await _write(site.store, name, ops)
    if left:
        told_.append(f"left as they are, for others changed them: {', '.join(left[:20])}")
    new = await asyncio.to_thread(lambda: site.states.read(name).state.version)
    return web.json_response({"version": new, "says": "; ".join(told_), "changed": len(ops), "left": left})


def undo_ops(
    log: Sequence[tuple[int, MemoryOp]], version: int, person: Person, *, everything: bool
) -> tuple[list[MemoryOp], list[str]]:
    """What leads a memory's words and standings back to a version, and the items that are left as they are.

    Outcomes stay: they are what happened. What was retired comes back as a new item, for ids are never used again.

    Args:
        log: All operations.
        version: To which it goes back.
        person: Who asks.
        everything: Whether what others did is taken back too.
    """
    state = load_function("memory", "log", "LogState")()
    before: dict[str, Reflection] = {}
    by: dict[str, set[str]] = {}
    for number, op in log:
        counted = state.apply(op)
        if number <= version:
            if number == version:
                before = dict(state.items)
        elif counted.op in ("ADD", "UPDATE", "MERGE", "RETIRE") or counted.tag in ("active", "quarantined"):
            for name in (counted.reflection, *counted.others):
                by.setdefault(name, set()).add(op.author)
    author, ops, left = f"user:{person.name}", list[MemoryOp](), list[str]()
    for name, authors in by.items():
        old, now = before.get(name), state.items.get(name)
        if now is None or (old is not None and _same(old, now)):
            continue
        if not everything and authors != {author}:
            left.append(name)
            continue
        ops += _back(name, old, now, f"taken back by {person.name}, to version {version}", author)
    return ops, left


def _same(old: Reflection, now: Reflection) -> bool:
    return all(getattr(old, k) == getattr(now, k) for k in ("text", "title", "when", "boundary", "polarity", "status"))


def _back(name: str, old: Reflection | None, now: Reflection, reason: str, author: str) -> list[MemoryOp]:
    """The operations that lead one item back."""
    if old is None:
        gone = MemoryOp(op="RETIRE", reflection=name, reason=reason, author=author)
        return [gone] if now.status != "retired" else []
    if old.status == "retired":
        return [MemoryOp(op="RETIRE", reflection=name, reason=reason, author=author)]
    if now.status == "retired":
        again = old.replace(id="", value=None, counters=Counters(), embedding=())
        return [MemoryOp(op="ADD", item=again, reason=f"{reason}: {name} again", author=author)]
    ops = []
    if not _same(old.replace(status=now.status), now):
        item = old.replace(status=now.status, counters=now.counters, value=now.value, embedding=())
        ops.append(MemoryOp(op="UPDATE", reflection=name, item=item, reason=reason, author=author))
    if old.status != now.status:
        plain = {"op": "TAG", "reflection": name, "tag": old.status, "reason": reason, "author": author}
        ops.append(MemoryOp.from_dict(plain))
    return ops


__all__ = ["ACTIONS", "LONGEST", "act_on_item", "check_words", "undo_ops", "undo_since"]
