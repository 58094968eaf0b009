"""Credited memories as namespaces of a LangGraph store: `("reflections", NAME)` is the memory NAME.

A search gives active items only (the filter `{"status": "quarantined"}` looks among those on trial); a put is an ADD in
quarantine, where outcomes decide; a delete of an item that is believed sends it back there, unless the author is one
whose word counts at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from langgraph.store.base import Item, SearchItem, SearchOp

from verbal.errors import DataError
from verbal.types import MemoryOp, Reflection, Status

from .langgraph_match import filtering

if TYPE_CHECKING:
    from verbal.store import Store

    from .reflections import ReflectionMemory

ROOT = "reflections"
"""The first label of their namespaces."""
_WORDS = ("text", "title", "when", "boundary", "polarity", "kind", "scope")
_READ_ONLY = ("value", "status", "evidence", "task", "rival")
_MOST = 1_000_000
_T = TypeVar("_T")


class ReflectionSpaces:
    """Memories of a store under their names.

    Args:
        store: Where their op logs are.
        names: Which memories may be read and written.
        author: Who writes.
        options: For the memories, as for `ReflectionMemory`.
    """

    def __init__(self, store: Store, names: Sequence[str], author: str, options: Mapping[str, Any]) -> None:
        self._store, self._names, self._author = store, tuple(names), author
        self._options = {"quarantine": True, "token_cap": None, "min_overlap": 0, **options}
        self._opened: dict[str, tuple[ReflectionMemory, _Times]] = {}
        self._lock = threading.RLock()

    def name(self, namespace: tuple[str, ...]) -> str | None:
        """The memory that a namespace is, or None."""
        mine = len(namespace) == 2 and namespace[0] == ROOT and namespace[1] in self._names
        return namespace[1] if mine else None

    def under(self, prefix: tuple[str, ...]) -> list[str]:
        """The memories that a search below `prefix` asks for by name: none for the empty one."""
        if prefix == (ROOT,):
            return list(self._names)
        return [name] if (name := self.name(prefix)) is not None else []

    @property
    def namespaces(self) -> list[tuple[str, ...]]:
        """The namespaces of the memories."""
        return [(ROOT, name) for name in self._names]

    def shows(self, namespace: tuple[str, ...]) -> bool:
        """Whether a memory has a log."""
        return namespace[-1] in self._store.memories()

    def get(self, name: str, key: str) -> Item | None:
        """An item by id, active or on trial; None when it is retired or unknown."""
        item = self._items(name).get(key)
        return None if item is None or item.status == "retired" else self._item(name, item)

    def search(self, name: str, op: SearchOp) -> list[SearchItem]:
        """Items of one standing, best first for a query, else in order of their ADD; a rank and no score."""
        wanted = dict(op.filter or {})
        status: Status = "quarantined" if wanted.get("status") == "quarantined" else "active"
        if op.query:
            # A filter is applied to what was found, so all is asked for.
            most = _MOST if wanted else op.offset + op.limit
            found = _done(self._memory(name)[0].search(op.query, most, status=status))
        else:
            found = [item for item in self._items(name).values() if item.status == status]
        fits = filtering(wanted)
        return [item for made in found if fits((item := self._item(name, made)).value)]

    def put(self, name: str, key: str, value: Mapping[str, Any] | None) -> None:
        """Adds an item to quarantine, changes one, or (None) deletes one.

        Raises:
            DataError: the value has no text or unknown fields, or the memory refused it; says why.
        """
        items = self._items(name)
        known, here = items.get(key), f"namespace ({ROOT!r}, {name!r}), key {key!r}"
        if value is None:
            if known is None or known.status == "retired":
                return
            op = MemoryOp(op="RETIRE", reflection=key, author=self._author, reason="deleted through a LangGraph store")
        else:
            item = _reflection(key, value, known, here)
            kind = "UPDATE" if known is not None and known.status != "retired" else "ADD"
            op = MemoryOp(op="ADD" if kind == "ADD" else "UPDATE", reflection=key, item=item, author=self._author)
        memory = self._memory(name)[0]
        before = _done(memory.apply([]))
        _done(memory.apply([op]))
        for _, logged in self._store.ops(name, after=before):
            if logged.op == "NOOP" and logged.author == self._author and logged.reflection == key:
                raise DataError(
                    f"the memory refused it: {logged.reason}", where=here, todo="put other words or a new key"
                )

    def close(self) -> None:
        """Releases the memories' indexes."""
        with self._lock:
            for memory, _ in self._opened.values():
                memory.close()
            self._opened.clear()

    def _memory(self, name: str) -> tuple[ReflectionMemory, _Times]:
        with self._lock:
            if name not in self._opened:
                from .exact import ExactMemory  # an app that uses none does without them

                self._opened[name] = ExactMemory(self._store, name, **self._options), _Times(self._store, name)
            return self._opened[name]

    def _items(self, name: str) -> dict[str, Reflection]:
        memory = self._memory(name)[0]
        _done(memory.apply([]))  # reads what others have logged
        return memory.items()

    def _item(self, name: str, item: Reflection) -> SearchItem:
        created, updated = self._memory(name)[1].of(item)
        counters = item.counters
        value = {
            **{field: getattr(item, field) for field in _WORDS},
            "value": item.value,
            "status": item.status,
            "evidence": {"shown": counters.shown, "helped": counters.helped, "harmed": counters.harmed},
            "task": item.task,
            "rival": item.rival,
        }
        return SearchItem((ROOT, name), item.id, value, created, updated)


class _Times:
    """When the items of a memory were added and last changed, from its log."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._at: dict[int, float] = {}
        self._added: dict[str, int] = {}
        self._version = 0

    def of(self, item: Reflection) -> tuple[datetime, datetime]:
        """(added, last changed) of an item."""
        if item.version > self._version:
            self._at.update(self._store.op_times(self._name, self._version))
            for version, op in self._store.ops(self._name, self._version):
                if op.op == "ADD":
                    self._added.setdefault(op.reflection, version)
                self._version = version
        added = self._added.get(item.id, item.version)
        return datetime.fromtimestamp(self._at[added], UTC), datetime.fromtimestamp(self._at[item.version], UTC)


def _reflection(key: str, value: Mapping[str, Any], known: Reflection | None, where: str) -> Reflection:
    """The item that a value describes. `content`, as LangMem's tools call it, is the text too."""
    told = {name: part for name, part in value.items() if name not in _READ_ONLY}
    if "content" in told:
        told.setdefault("text", told.pop("content"))
    if unknown := [name for name in told if name not in _WORDS]:
        todo = f"a reflection has the fields {', '.join(_WORDS)}"
        raise DataError(f"a reflection has no field {unknown[0]!r}", where=where, todo=todo)
    if wrong := [name for name, part in told.items() if not isinstance(part, str)]:
        raise DataError(f"the field {wrong[0]!r} is {told[wrong[0]]!r:.80}, no text", where=where, todo="put text")
    if not told.get("text", "").strip():
        raise DataError("a reflection without words", where=where, todo="put the lesson under `text`")
    base = known if known is not None else Reflection(id=key, text="-", status="quarantined")
    return Reflection.from_dict({**base.to_dict(), **told, "id": key})


def _done(work: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine gives, for a caller that may or may not be on an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    found: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="reflections")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
