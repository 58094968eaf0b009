"""A store of verbal as the `store` of any LangGraph app: `graph.compile(store=VerbalStore("runs/verbal.db"))`.

Durable and shared: what is put is in the op log before `put` returns, and every call first reads what other threads and
processes have logged. An app's data lies in a memory of its own and is no lesson of ours; the credited memories can be
read and proposed to under `("reflections", NAME)`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from verbal.errors import ConfigError, StoreError
from verbal.store import Store
from verbal.store_memory import StoredVector
from verbal.types import MemoryOp

from .langgraph_entries import AUTHOR, Entries, Entry, EntryPath, copied, is_entry, lifetime, plain
from .langgraph_index import Embedding, VectorIndex
from .langgraph_match import filtering, matches
from .langgraph_reflections import ReflectionSpaces

if TYPE_CHECKING:
    from .langgraph_index import Vectors

_WRITE_TRIES = 200
_AT_ONCE = 1000
"""Entries that are embedded before their vectors are kept."""
_DEFAULT_INDEX = MappingProxyType({"embed": "hashing"})
_Wanted = tuple[list[str], list[str]]
"""Texts and queries to embed."""
_Made = tuple["Vectors", "Vectors"]
_Steps = Generator[_Wanted, _Made, list[Result]]


class VerbalStore(BaseStore):
    """LangGraph's store contract over an op log.

    Answers are those of LangGraph's `InMemoryStore`, with these differences: `created_at` is when a key was first put;
    a namespace without values is not listed; equal scores are ordered by namespace and key; pages of a search by
    meaning never overlap; a value that a filter cannot compare does not match; values come back as JSON has them
    (tuples as lists) and what has no JSON form is refused before anything is written.

    Args:
        store: A store, or the path or URL of one, which is then closed with this.
        name: Name of the memory that holds the values.
        index: How values are found by meaning. `embed`: an embedder as `make_embedder` takes it (`hashing`), or what
            LangGraph takes; `fields`: paths into a value (all of it by default); `dims`; `name`: what to call an
            embedder of LangGraph's, so that its vectors outlive the process. None for no such search.
        ttl: Lives of values, in minutes: `default_ttl`, `refresh_on_read`, `omit_expired`, `sweep_interval_minutes`
            (then a call that comes after that time deletes what has expired; else `sweep_ttl` does).
        reflections: Credited memories that may be read and proposed to.
        reflection_options: For those memories, as for `ReflectionMemory`.
        author: Who proposes and deletes reflections. An author named `user` is believed at once when it deletes.
        clock: Gives the time, with its zone.

    Raises:
        ConfigError: the memory holds reflections, or an option is wrong. StoreError: the store cannot be opened.
    """

    supports_ttl = True

    def __init__(
        self,
        store: Store | str | Path,
        name: str = "langgraph",
        *,
        index: IndexConfig | Mapping[str, Any] | None = _DEFAULT_INDEX,
        ttl: TTLConfig | None = None,
        reflections: Sequence[str] = ("main",),
        reflection_options: Mapping[str, Any] | None = None,
        author: str = AUTHOR,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if name in reflections:
            raise ConfigError(f"memory {name!r} is to hold values and reflections", todo="give another name")
        self.name, self.ttl_config = name, ttl
        lifetime(ttl.get("default_ttl") if ttl else None, "ttl: default_ttl")
        told: Mapping[str, Any] = index or {}
        self._embedding = Embedding(told["embed"], told.get("dims"), told.get("name")) if index else None
        self.embeddings = self._embedding.embeddings if self._embedding else None
        self._vectors = VectorIndex(told.get("fields") or ["$"])
        self._clock, self._lock, self._entries = clock, threading.RLock(), Entries()
        self._swept = clock()
        self._owns = not isinstance(store, Store)
        self._store = store if isinstance(store, Store) else Store(store)
        self._reflections = ReflectionSpaces(self._store, reflections, author, reflection_options or {})
        try:
            self._refresh()
            self._check_own()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VerbalStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the credited memories, and the store when it was opened here."""
        self._reflections.close()
        if self._owns:
            self._store.close()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """What each operation gives, in order. All reads see the store before any write of the batch; of several puts
        to one key the last counts; values are kept together or not at all, proposed reflections each for itself.

        Raises:
            InvalidNamespaceError: a label is empty, no text, or has a period.
            DataError: a value has no JSON form, or a proposed reflection was refused.
            StoreError: the store cannot be read or written.
        """
        steps = self._steps(list(ops))
        try:
            wanted = next(steps)
            while True:
                assert self._embedding is not None
                wanted = steps.send(self._embedding.embed(*wanted))
        except StopIteration as end:
            return cast(list[Result], end.value)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`; the event loop never waits for the database or an embedder."""
        steps = self._steps(list(ops))

        def further(vectors: _Made | None) -> tuple[_Wanted | None, list[Result]]:
            try:
                return (next(steps) if vectors is None else steps.send(vectors)), []
            except StopIteration as end:  # which no future may carry
                return None, end.value

        wanted, results = await asyncio.to_thread(further, None)
        while wanted is not None:
            assert self._embedding is not None
            wanted, results = await asyncio.to_thread(further, await self._embedding.aembed(*wanted))
        return results

    def sweep_ttl(self) -> int:
        """Deletes what has expired; gives how many values that were."""
        with self._lock:
            self._swept = now = self._clock()
            self._refresh()
            return self._write(lambda: [_retire(entry, "expired") for entry in self._entries.expired(now)])

    # ---------------------------------------------------------------------------------------------------------------

    def _steps(self, ops: list[Op]) -> _Steps:
        """Does a batch; yields the texts and queries to embed, holding no lock, and is sent their vectors."""
        puts = _last_puts(ops)
        for path, op in puts.items():
            if op.value is not None and self._reflections.name(path[0]) is None:
                where = f"namespace {path[0]!r}, key {path[1]!r}"
                puts[path] = op._replace(value=plain(op.value), ttl=lifetime(op.ttl, where))
        queries = list(dict.fromkeys(op.query for op in ops if isinstance(op, SearchOp) and op.query))
        asked: dict[str, Any] = {}
        while self._embedding is not None and queries:
            # A query tells the length of vectors, and so which of those that were kept still fit.
            todo = self._unfilled(self._embedding) if self._embedding.dims else {}
            texts = list(dict.fromkeys(text for found in todo.values() for text in found))
            new = [query for query in queries if query not in asked]
            if not (texts or new):
                break
            vectors, found = yield texts, new
            asked.update(zip(new, found, strict=True))
            self._fill(self._embedding.name, todo, dict(zip(texts, vectors, strict=True)))
        return self._run(ops, puts, asked)

    def _unfilled(self, embedding: Embedding) -> dict[Entry, list[str]]:
        """The texts of some entries whose vectors nobody has made yet; empty when all have theirs."""
        with self._lock:
            self._refresh()
            while self._vectors.waiting:
                part = islice(self._vectors.waiting.values(), _AT_ONCE)
                todo = {entry.version: (entry, self._vectors.texts(entry)) for entry in part}
                if embedding.name is not None and embedding.dims:
                    name = embedding.name + self._vectors.kind
                    for version, _, kept in self._store.vectors(self.name, name, versions=todo):
                        entry, texts = todo[version]
                        self._vectors.fill_kept(entry, kept, len(texts), embedding.dims)
                for entry, texts in todo.values():
                    if not texts:
                        self._vectors.fill(entry, [])
                if left := {e: texts for e, texts in todo.values() if self._vectors.waiting.get(e.slot) is e}:
                    return left
            return {}

    def _fill(self, embedder: str | None, todo: Mapping[Entry, list[str]], made: Mapping[str, Any]) -> None:
        """Files vectors, and keeps them for other processes and for later."""
        with self._lock:
            kept: list[StoredVector] = []
            for entry, texts in todo.items():
                vectors = [made[text] for text in texts]
                self._vectors.fill(entry, vectors)
                if embedder is not None:
                    blob = b"".join(vector.astype("<f4").tobytes() for vector in vectors)
                    kept.append(StoredVector(entry.version, embedder + self._vectors.kind, blob))
            if kept:
                self._store.log_ops(self.name, [], vectors=kept)

    def _run(self, ops: list[Op], puts: dict[EntryPath, PutOp], asked: Mapping[str, Any]) -> list[Any]:
        with self._lock:
            now = self._clock()
            every = (self.ttl_config or {}).get("sweep_interval_minutes")
            if every is not None and now - self._swept >= timedelta(minutes=every):
                self.sweep_ttl()
            self._refresh()
            read: dict[int, Entry] = {}
            results: list[Any] = []
            for op in ops:
                if isinstance(op, GetOp):
                    results.append(self._get(op, now, read))
                elif isinstance(op, SearchOp):
                    results.append(self._search(op, now, asked.get(op.query or ""), read))
                elif isinstance(op, ListNamespacesOp):
                    results.append(self._list(op, now))
                else:
                    results.append(None)
            self._write(lambda: [*self._reads(read.values(), now), *self._puts(puts, now)])
        for (namespace, key), op in puts.items():
            if (name := self._reflections.name(namespace)) is not None:
                self._reflections.put(name, key, op.value)
        return results

    def _get(self, op: GetOp, now: datetime, read: dict[int, Entry]) -> Item | None:
        if (name := self._reflections.name(tuple(op.namespace))) is not None:
            return self._reflections.get(name, str(op.key))
        entry = self._entries.get((tuple(op.namespace), str(op.key)))
        if entry is None or self._gone(entry, now):
            return None
        self._touch(entry, op.refresh_ttl, now, read)
        (namespace, key), value = entry.path, copied(entry.value)
        return Item(value=value, key=key, namespace=namespace, created_at=entry.created, updated_at=entry.updated)

    def _search(self, op: SearchOp, now: datetime, asked: Any, read: dict[int, Entry]) -> list[SearchItem]:
        prefix, end = tuple(op.namespace_prefix), op.offset + op.limit
        told = [item for name in self._reflections.under(prefix) for item in self._reflections.search(name, op)]
        kept = self._entries.under(prefix)
        if op.filter or (self.ttl_config or {}).get("omit_expired"):
            fits = filtering(op.filter)
            kept = (entry for entry in kept if not self._gone(entry, now) and fits(entry.value))
        if asked is not None:
            ranked = self._ranked(list(kept), asked, end if min(op.offset, op.limit) >= 0 else None)
        else:
            # A slice with negative bounds counts from the end.
            ranked = [(entry, None) for entry in (islice(kept, end) if min(op.offset, op.limit) >= 0 else kept)]
        items: list[SearchItem] = []
        page: list[SearchItem | tuple[Entry, float | None]] = [*told, *ranked]
        for found in page[op.offset : end]:
            if isinstance(found, SearchItem):
                items.append(found)
                continue
            entry, score = found
            self._touch(entry, op.refresh_ttl, now, read)
            value = copied(entry.value)
            items.append(SearchItem(*entry.path, value, entry.created, entry.updated, score))
        return items

    def _ranked(self, kept: list[Entry], asked: Any, most: int | None) -> list[tuple[Entry, float | None]]:
        """Entries by similarity, equal ones by path; then those that have no vectors, as they came."""
        near = self._vectors.nearest(asked, [entry.slot for entry in kept], len(kept) if most is None else most)
        scored = [(entry, score) for slot, score in near if (entry := self._entries.slots[slot]) is not None]
        ranked: list[tuple[Entry, float | None]] = [*sorted(scored, key=lambda pair: (-pair[1], pair[0].path))]
        if most is None or len(ranked) < most:
            ranked += [(entry, None) for entry in kept if not self._vectors.holds(entry.slot)]
        return ranked

    def _list(self, op: ListNamespacesOp, now: datetime) -> list[tuple[str, ...]]:
        spaces, conditions = self._entries.spaces, op.match_conditions or ()
        found = [ns for ns in spaces if matches(ns, conditions)]
        if (self.ttl_config or {}).get("omit_expired"):
            found = [ns for ns in found if not all(entry.expired(now) for entry in spaces[ns].values())]
        found += [ns for ns in self._reflections.namespaces if matches(ns, conditions) and self._reflections.shows(ns)]
        return sorted({ns[: op.max_depth] for ns in found})[op.offset : op.offset + op.limit]

    def _gone(self, entry: Entry, now: datetime) -> bool:
        return entry.expires is not None and entry.expired(now) and bool((self.ttl_config or {}).get("omit_expired"))

    def _touch(self, entry: Entry, refresh: bool, now: datetime, read: dict[int, Entry]) -> None:
        if refresh and entry.ttl is not None:
            entry.prolong(now)
            read[entry.slot] = entry

    def _reads(self, read: Iterable[Entry], now: datetime) -> list[MemoryOp]:
        living = (entry for entry in read if self._entries.slots[entry.slot] is entry)
        return [op for entry in living if (op := self._entries.read(entry, now)) is not None]

    def _puts(self, puts: Mapping[EntryPath, PutOp], now: datetime) -> list[MemoryOp]:
        ops: list[MemoryOp] = []
        for path, put in puts.items():
            if self._reflections.name(path[0]) is not None:
                continue
            if put.value is not None:
                index = put.index if put.index is None or put.index is False else tuple(put.index)
                ops.append(self._entries.put(path, cast(dict[str, Any], put.value), index, put.ttl, now))
            elif (entry := self._entries.get(path)) is not None:
                ops.append(_retire(entry, "deleted"))
        return ops

    def _write(self, made: Callable[[], list[MemoryOp]]) -> int:
        """Logs the operations that `made` gives for the entries as they are; gives their number."""
        for tried in range(_WRITE_TRIES):
            if not (ops := made()):
                return 0
            try:
                self._store.log_ops(self.name, ops, expect=self._entries.version)
            except StoreError:
                # Another writer was faster: its operations are read first, then ours are made again.
                if tried + 1 == _WRITE_TRIES or not self._refresh():
                    raise
                continue
            self._refresh()
            return len(ops)
        raise AssertionError("unreachable")

    def _refresh(self) -> bool:
        """Reads what is new in the log; gives whether there was anything."""
        new = self._store.ops(self.name, after=self._entries.version)
        for _, op in new:
            for slot in self._entries.apply(op):
                if self._embedding is not None:
                    self._vectors.changed(slot, self._entries.slots[slot])
        return bool(new)

    def _check_own(self) -> None:
        items = self._entries.log.items.values()
        if foreign := [item.id for item in items if item.status != "retired" and not is_entry(item)]:
            what = f"memory {self.name!r} holds reflections, such as {foreign[0]!r}"
            raise ConfigError(what, todo="give another name; memories are read under ('reflections', NAME)")


def _retire(entry: Entry, why: str) -> MemoryOp:
    return MemoryOp(op="RETIRE", reflection=entry.id, reason=why, author=AUTHOR)


def _last_puts(ops: Iterable[Op]) -> dict[EntryPath, PutOp]:
    """The puts that count, by path; checks every operation."""
    puts: dict[EntryPath, PutOp] = {}
    for op in ops:
        if not isinstance(op, GetOp | SearchOp | ListNamespacesOp | PutOp):
            raise ValueError(f"Unknown operation type: {type(op)}")
        validate_op_namespace(op)
        if isinstance(op, PutOp):
            puts[(tuple(op.namespace), str(op.key))] = op
    return puts
