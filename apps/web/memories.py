"""The memory page: what is believed, since when, on what evidence, where it does not apply, and how it came to be.

All of it follows from the log of operations; a state that was read once is only taken further.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from verbal.memory_verbs import evidence_of
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

from .door import attached, whole_of
from .faults import Fault, missing
from .people import Person
from .scopes import author_of, may_read, may_write, own_memory, scope_of

if TYPE_CHECKING:
    from .site import Site

MOST_ITEMS = 1_000
"""Items of a memory that a page gets at once."""
MOST_HISTORY = 1_000
"""Operations on an item that a page gets: the latest."""
FORMATS = {
    "jsonl": ("jsonl", "application/jsonl"),
    "skill": ("zip", "application/zip"),
    "markdown": ("md", "text/markdown"),
}
"""Format of an export -> ending and type of its file."""
_MOST_STATES = 32
_TITLES = {"user": "yours", "team": "team", "global": "everybody's"}


class States:
    """Memories as their logs leave them, read further when they are asked for.

    Args:
        store: Where the logs are.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        self._kept: OrderedDict[str, _Read] = OrderedDict()
        self._counts: dict[str, tuple[int, dict[str, int]]] = {}

    def read(self, memory: str) -> _Read:
        """The state of a memory now; a thread that waits may read it."""
        with self._lock:
            read = self._kept.pop(memory, None) or _Read()
            self._kept[memory] = read
            while len(self._kept) > _MOST_STATES:
                self._kept.popitem(last=False)
        with read.lock:
            after = read.state.version
            ops = self._store.ops(memory, after)
            if ops:
                read.times.update(self._store.op_times(memory, after))
            for version, op in ops:
                read.take(version, op)
        return read

    def counts(self, memory: str, version: int) -> dict[str, int]:
        """How many lessons of a memory have which standing; counted once for a version."""
        known = self._counts.get(memory)
        if known is None or known[0] != version:
            counts = dict.fromkeys(("active", "quarantined", "retired"), 0)
            if version:
                for item in list(self.read(memory).state.items.values()):
                    counts[item.status] += 1
            known = self._counts[memory] = version, counts
        return known[1]


class _Row(NamedTuple):
    """An operation on an item, and the item's words and standing after it."""

    version: int
    op: MemoryOp
    after: dict[str, Any] | None


class _Read:
    """A log as far as it was read."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.state: Any = load_function("memory", "log", "LogState")()
        self.times: dict[int, float] = {}
        self.added: dict[str, MemoryOp] = {}
        self.rows: dict[str, list[_Row]] = {}
        """Item -> the operations on it."""
        self.authors: dict[str, str] = {}
        self.said: dict[str, tuple[int, int, dict[str, Any]]] = {}
        """Item -> since when its words stand, number of its trials, and what these say."""

    def take(self, version: int, op: MemoryOp) -> None:
        counted = self.state.apply(op)
        for name in (counted.reflection, *counted.others):
            if name:
                rows, words = self.rows.setdefault(name, []), _words(self.state.items.get(name))
                same = rows and rows[-1].after == words
                # Without its vector and its item: those are in the state, as they are now.
                rows.append(_Row(version, counted.replace(item=None), rows[-1].after if same else words))
        if counted.op == "ADD":
            self.added[counted.reflection] = counted

    def author(self, store: Store, item: Reflection) -> str:
        """Name of the person a lesson is from."""
        if item.id not in self.authors:
            self.authors[item.id] = author_of(store, item, self.added.get(item.id))
        return self.authors[item.id]

    def evidence(self, item: str) -> dict[str, Any]:
        """What outcomes say of an item, reckoned anew when there are more."""
        mark = self.state.since.get(item, 0), len(self.state.trials.get(item, ()))
        known = self.said.get(item)
        if known is None or known[:2] != mark:
            known = self.said[item] = (*mark, evidence(self.state, item))
        return known[2]


def readable(person: Person, memory: str, store: Store) -> str:
    """The name of a memory that a person may see.

    Raises:
        Fault: there is none (404).
    """
    if not may_read(person, memory) or memory not in store.memories():
        raise missing("memory")
    return memory


def item_of(read: Any, name: str) -> Reflection:
    """An item by its id.

    Raises:
        Fault: there is none (404).
    """
    found: Reflection | None = read.state.items.get(name)
    if found is None:
        raise missing("lesson")
    return found


def told(store: Store, person: Person, memory: str, read: Any, item: Reflection) -> dict[str, Any]:
    """An item as the page shows it."""
    since = read.state.since.get(item.id, 0)
    added, author = read.added.get(item.id), read.author(store, item)
    attempt = item.attempts[0] if item.attempts else None
    return {
        "id": item.id, "title": item.title, "text": item.text, "when": item.when, "boundary": item.boundary,
        "scope": item.scope, "polarity": item.polarity, "status": item.status, "kind": item.kind,
        "since": {"version": since, "at": read.times.get(since)}, "shown": item.counters.shown,
        "helped": item.counters.helped, "harmed": item.counters.harmed, "value": item.value,
        "evidence": read.evidence(item.id), "rival": item.rival or None,
        "source": {"author": author or (added.author if added else ""), "reason": added.reason if added else "",
                   "attempt": attempt, "chat": _chat_of(attempt), "task": item.task},
        "writable": may_write(person, memory) or bool(author and author == person.name),
        "approvable": may_write(person, memory),
    }  # fmt: skip


def _chat_of(attempt: str | None) -> str | None:
    run = (attempt or "").partition("/")[0]
    return run if run.startswith(("ask-", "chat-")) else None


def evidence(state: Any, item: str) -> dict[str, Any]:
    """What outcomes say of an item: trials, and the effect with its interval where lots were drawn."""
    found = evidence_of(state, item)
    effect = found.get("effect") or {}
    shown, withheld = found["shown"], found["withheld"]
    says = found.get("told") or (
        f"shown {shown['trials']} times, never withheld: no effect is known" if shown["trials"] else "not tried yet"
    )
    return {
        "trials": shown["trials"] + withheld["trials"], "shown": shown, "withheld": withheld,
        "effect": effect.get("mean"), "low": effect.get("low"), "high": effect.get("high"), "says": says,
    }  # fmt: skip


def history(read: Any, item: str) -> list[dict[str, Any]]:
    """Every operation on an item, with its words and standing before and after."""
    told_: list[dict[str, Any]] = []
    before = None
    for version, op, after in list(read.rows.get(item, ())):
        told_.append(
            {"version": version, "op": op.op, "author": op.author, "reason": op.reason, "at": read.times.get(version),
             "before": before, "after": after, "tag": op.tag, "outcome": op.outcome}
        )  # fmt: skip
        before = after
    return told_


def _words(item: Reflection | None) -> dict[str, Any] | None:
    return {k: getattr(item, k) for k in ("text", "when", "boundary", "status")} if item else None


# over HTTP ----------------------------------------------------------------------------------------------------------


async def list_memories(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/memories."""

    def work() -> list[dict[str, Any]]:
        known = site.store.memories()
        own = [n for s in ("user", "team", "global") if (n := own_memory(person, s))]
        names = [*own, *(n for n in known if may_read(person, n) and n not in own)]
        return [_summary(site, person, n, known.get(n, 0)) for n in names if n in known or n == own[0]]

    return web.json_response(await asyncio.to_thread(work))


def _summary(site: Site, person: Person, name: str, version: int) -> dict[str, Any]:
    scope = scope_of(name)
    title = _TITLES.get(scope, name) if name == own_memory(person, scope) else name
    return {
        "name": name, "title": f"{title} {person.team}" if scope == "team" and title == "team" else title,
        "scope": scope, "counts": site.states.counts(name, version), "version": version,
        "writable": may_write(person, name),
    }  # fmt: skip


async def show_memory(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/memories/{name}: what it holds, what is believed first; from `offset`, at most `limit`."""
    offset = whole_of(request.query.get("offset"), "offset", 0, 10**9, 0)
    limit = whole_of(request.query.get("limit"), "limit", 1, MOST_ITEMS, MOST_ITEMS)

    def work() -> dict[str, Any]:
        name = request.match_info["name"]
        if name == own_memory(person, "user") and name not in site.store.memories():
            return {"name": name, "version": 0, "items": [], "more": 0}
        read = site.states.read(readable(person, name, site.store))
        order = {"active": 0, "quarantined": 1, "retired": 2}
        items = sorted(reversed(list(read.state.items.values())), key=lambda i: order[i.status])
        rows = [told(site.store, person, name, read, item) for item in items[offset : offset + limit]]
        more = max(0, len(items) - offset - limit)
        return {"name": name, "version": read.state.version, "items": rows, "more": more, "offset": offset}

    return web.json_response(await asyncio.to_thread(work))


async def show_item(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/memories/{name}/items/{id}."""

    def work() -> dict[str, Any]:
        name = readable(person, request.match_info["name"], site.store)
        read = site.states.read(name)
        item = item_of(read, request.match_info["id"])
        rows = history(read, item.id)
        shown = {"history": rows[-MOST_HISTORY:], "earlier": max(0, len(rows) - MOST_HISTORY)}
        return {"item": told(site.store, person, name, read, item), **shown}

    return web.json_response(await asyncio.to_thread(work))


async def export_memory(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/memories/{name}/export: what it believes as a file, with `all` what is on trial too."""
    format_ = request.query.get("format", "jsonl")
    if format_ not in FORMATS:
        raise Fault(400, "format", f"formats are: {', '.join(FORMATS)}")
    name = await asyncio.to_thread(readable, person, request.match_info["name"], site.store)
    ending, kind = FORMATS[format_]
    data = await asyncio.to_thread(_exported, site, name, format_, bool(request.query.get("all")))
    return attached(request, f"{name}.{ending}", data, kind)


def _exported(site: Site, name: str, format_: str, everything: bool) -> bytes:
    """The file, made in a folder of its own; a skill is a folder, which goes into an archive."""
    import io
    import tempfile
    import zipfile
    from pathlib import Path

    items = [
        i
        for i in list(site.states.read(name).state.items.values())
        if i.status == "active" or (everything and i.status != "retired")
    ]
    if not items:
        raise Fault(409, "empty", "this memory believes nothing yet", "approve a lesson first, or take all of them")
    with tempfile.TemporaryDirectory(prefix="verbal-export-") as folder:
        out = Path(folder) / ("skill" if format_ == "skill" else "file")
        load_function("memory", "transfer", "write_memory")(items, out, format_, name=name)
        if format_ != "skill":
            return out.read_bytes()
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(p for p in out.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(out))
        return held.getvalue()


__all__ = [
    "FORMATS", "MOST_HISTORY", "MOST_ITEMS", "States", "evidence", "export_memory", "history", "item_of",
    "list_memories", "readable", "show_item", "show_memory", "told",
]  # fmt: skip
