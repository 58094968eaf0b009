"""What a LangGraph store holds, as a pure function of an op log: namespace and key -> the value that was put last.

A put is an ADD, or an UPDATE of the key's item; a delete is a RETIRE; a read that prolongs a life is a TAG `shown`. The
item's title is the path (a JSON list: labels of the namespace, then the key) and its text is JSON: the value, when it
was first and last put, and what was asked for it (`index`, `ttl`), so an item says all of itself at any version. Ids
are never reused: a key that comes back after a delete gets an item of the next generation.

The items are quarantined, for they are an app's data and no lesson of ours: a memory opened under the same name would
show none of them as active until a person says so. No I/O, no clock.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from verbal.errors import DataError
from verbal.types import MemoryOp, Reflection

from .log import LogState

AUTHOR = "langgraph"
"""Who put what came through a LangGraph store."""

EntryPath = tuple[tuple[str, ...], str]
"""Namespace and key."""
Index = Literal[False] | tuple[str, ...] | None
"""Fields by which an entry is found: the store's (None), none at all (False), or these."""

_DEPTH = 200
_READ = "read "


@dataclass(slots=True, eq=False)
class Entry:
    """One value and what is known of it."""

    id: str
    """Of its item in the op log."""
    path: EntryPath
    value: dict[str, Any]
    """Plain JSON. Not to be changed: `copied` gives one that may be."""
    created: datetime
    updated: datetime
    index: Index
    ttl: float | None
    """Minutes it lives after it was last put or read; None for ever."""
    expires: datetime | None
    logged: datetime | None
    """As `expires`, as far as the log knows."""
    slot: int
    """A small number that no other living entry has."""
    version: int
    """Of the operation that put it."""

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now

    def prolong(self, now: datetime) -> None:
        """Starts its time anew."""
        if self.ttl is not None:
            self.expires = max(now + timedelta(minutes=self.ttl), self.expires or now)


class Entries:
    """The entries after some operations; `apply` takes them one further."""

    def __init__(self) -> None:
        self.log = LogState()
        self.spaces: dict[tuple[str, ...], dict[str, Entry]] = {}
        """Namespace -> key -> entry, both in the order in which they came; a namespace without entries is none."""
        self.slots: list[Entry | None] = []
        self._free: list[int] = []
        self._by_id: dict[str, Entry] = {}
        self._generations: dict[EntryPath, int] = {}

    @property
    def version(self) -> int:
        """How many operations were applied."""
        return self.log.version

    def get(self, path: EntryPath) -> Entry | None:
        """The entry of a path, or None."""
        return self.spaces.get(path[0], {}).get(path[1])

    def under(self, prefix: tuple[str, ...]) -> Iterator[Entry]:
        """The entries of all namespaces that start with `prefix`, in the order in which they came."""
        for namespace, found in self.spaces.items():
            if namespace[: len(prefix)] == prefix:
                yield from found.values()

    def expired(self, now: datetime) -> list[Entry]:
        """The entries whose time is over."""
        return [entry for entry in self.slots if entry is not None and entry.expired(now)]

    def apply(self, op: MemoryOp) -> list[int]:
        """Applies one logged operation; gives the slots whose entries changed or left."""
        op = self.log.apply(op)
        if op.op in ("ADD", "UPDATE", "MERGE"):
            return [*(slot for other in op.others for slot in self._drop(other)), *self._write(op)]
        if op.op == "RETIRE":
            # A deleted value stays in the log only.
            self.log.items[op.reflection] = self.log.items[op.reflection].replace(text="-")
            return self._drop(op.reflection)
        if op.op == "TAG" and op.tag == "shown" and op.reason.startswith(_READ):
            entry, at = self._by_id.get(op.reflection), _time(op.reason.removeprefix(_READ))
            if entry is not None and at is not None:
                entry.prolong(at)
                entry.logged = entry.expires
        return []

    # the operations that change it ---------------------------------------------------------------------------------

    def put(self, path: EntryPath, value: dict[str, Any], index: Index, ttl: float | None, now: datetime) -> MemoryOp:
        """The operation that puts a plain JSON value (`plain` makes one)."""
        old = self.get(path)
        born = now if old is None or old.expired(now) else old.created
        told: dict[str, Any] = {"created_at": born.isoformat(), "updated_at": now.isoformat(), "value": value}
        if index is not None:
            told["index"] = list(index) if index else False
        if ttl is not None:
            told["ttl"] = ttl
        title = json.dumps([*path[0], path[1]], ensure_ascii=False)
        item = Reflection(id="", kind="case", title=title, text=_json(told), status="quarantined")
        if old is not None:
            item = item.replace(status=self.log.items[old.id].status)
            return MemoryOp(op="UPDATE", reflection=old.id, item=item, author=AUTHOR)
        return MemoryOp(op="ADD", reflection=self._new_id(path, title), item=item, author=AUTHOR)

    def read(self, entry: Entry, now: datetime) -> MemoryOp | None:
        """The operation that keeps a prolonged life; None while the log is behind by less than a hundredth of it."""
        if entry.ttl is None or entry.expires is None or entry.logged is None:
            return None
        if entry.expires - entry.logged < timedelta(minutes=entry.ttl) / 100:
            return None
        return MemoryOp(op="TAG", reflection=entry.id, tag="shown", reason=_READ + now.isoformat(), author=AUTHOR)

    def _new_id(self, path: EntryPath, title: str) -> str:
        generation = self._generations.get(path, 0) + 1
        digest = hashlib.blake2b(title.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
        while f"{digest}.{generation}" in self.log.items:
            generation += 1
        return f"{digest}.{generation}"

    def _write(self, op: MemoryOp) -> list[int]:
        assert op.item is not None
        if (told := _told(op.item)) is None:
            return self._drop(op.reflection)  # a person wrote something else over it
        path, value, index, ttl, created, updated = told
        old, held = self.get(path), self._by_id.get(op.reflection)
        left = self._drop(op.reflection) if held is not None and held is not old else []
        if old is None:
            slot = self._free.pop() if self._free else len(self.slots)
            if slot == len(self.slots):
                self.slots.append(None)
        else:
            slot = old.slot
            del self._by_id[old.id]
        if op.op == "ADD":
            self._generations[path] = self._generations.get(path, 0) + 1
        ends = None if ttl is None else updated + timedelta(minutes=ttl)
        entry = Entry(op.reflection, path, value, created, updated, index, ttl, ends, ends, slot, self.version)
        self.spaces.setdefault(path[0], {})[path[1]] = self.slots[slot] = self._by_id[entry.id] = entry
        return [*left, slot]

    def _drop(self, item_id: str) -> list[int]:
        if (entry := self._by_id.pop(item_id, None)) is None:
            return []
        namespace, key = entry.path
        del self.spaces[namespace][key]
        if not self.spaces[namespace]:
            del self.spaces[namespace]
        self.slots[entry.slot] = None
        self._free.append(entry.slot)
        return [entry.slot]


def is_entry(item: Reflection) -> bool:
    """Whether an item was put through a LangGraph store."""
    return _told(item) is not None


def plain(value: Any, where: str = "value") -> dict[str, Any]:
    """A value as plain JSON, tuples as lists; a copy.

    Raises:
        DataError: it is no mapping with keys of text, or something in it has no JSON form; says where in the value.
    """
    if not isinstance(value, Mapping):
        raise _no_json(value, where, "a value is a dict")
    found: dict[str, Any] = _plain(value, where, _DEPTH)
    return found


def lifetime(ttl: float | None, where: str) -> float | None:
    """Minutes that an entry lives, checked.

    Raises:
        DataError: no finite number of minutes, or more than the calendar holds.
    """
    try:
        if ttl is not None:
            timedelta(minutes=ttl)
            assert math.isfinite(ttl) and ttl <= 1e9
            return float(ttl)
    except (TypeError, ValueError, OverflowError, AssertionError) as error:
        todo = "give minutes, at most 1e9; None lives for ever"
        raise DataError(f"a life of {ttl!r} minutes", where=where, todo=todo) from error
    return None


def copied(value: Any) -> Any:
    """A copy of plain JSON."""
    if type(value) is dict:
        return {name: copied(part) for name, part in value.items()}
    return [copied(part) for part in value] if type(value) is list else value


def _plain(value: Any, where: str, depth: int) -> Any:
    if value is None or type(value) in (bool, str):
        return value
    if not depth:
        raise _no_json(None, where, f"a value is nested at most {_DEPTH} deep")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        if value.bit_length() > 10_000:
            raise _no_json(None, where, "an integer of more than 10000 bits is not read back")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _no_json(value, where, "JSON has finite numbers only; put None or a word")
        return float(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise _no_json(name, f"a key of {where}", "keys are text; put str(key)")
        return {str.__str__(name): _plain(part, f"{where}[{name!r}]", depth - 1) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{where}[{i}]", depth - 1) for i, part in enumerate(value)]
    raise _no_json(value, where, "put what JSON has: text, numbers, true, false, null, lists, dicts with keys of text")


def _no_json(value: Any, where: str, todo: str) -> DataError:
    seen = "it" if value is None else f"{type(value).__name__} {value!r:.80}"
    return DataError(f"{seen} has no JSON form here", where=where[:300], todo=todo)


def _json(told: dict[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _told(item: Reflection) -> tuple[EntryPath, dict[str, Any], Index, float | None, datetime, datetime] | None:
    """What an item says of its entry, or None when it is no entry."""
    if not item.title.startswith("[") or not item.text.startswith("{"):
        return None
    try:
        title, told = json.loads(item.title), json.loads(item.text)
    except ValueError:
        return None
    created, updated = _time(told.get("created_at")), _time(told.get("updated_at"))
    if not title or not all(isinstance(part, str) for part in title) or not isinstance(told.get("value"), dict):
        return None
    if created is None or updated is None:
        return None
    index, ttl = told.get("index"), told.get("ttl")
    fields: Index = tuple(map(str, index)) if isinstance(index, list) else (False if index is False else None)
    life = float(ttl) if isinstance(ttl, int | float) else None
    return (tuple(title[:-1]), title[-1]), told["value"], fields, life, created, updated


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError):
        return None
