"""What a memory derives from its log: the state after the last operation, two shelves of words, an index of vectors.

Everything here can be lost: it is made anew from the store. An index that outlives the process says up to which
version it holds the log, and is brought further from there; one that says something else, or holds another number of
vectors, is made anew. An index that several processes fill is brought further by one of them at a time.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from verbal.contracts import Index
from verbal.errors import StoreError

from .log import LogState
from .matrix import ExactIndex
from .retrieval import KeyWords
from .shelf import Shelf
from .vectors import Rows, Vectors

if TYPE_CHECKING:
    from verbal.store import Store

_PART = 5000
"""Vectors that are read and put at a time."""


@runtime_checkable
class DurableIndex(Index, Protocol):
    """An index that outlives the process, and says what it holds. One with an attribute `shared` that is true is filled
    by several processes.
    """

    def state(self) -> dict[str, Any]:
        """What `mark` was last given; empty when new or damaged."""
        ...

    def mark(self, state: dict[str, Any]) -> None:
        """Keeps what the index now holds: embedder, version of the log, digest of the log."""
        ...

    def count(self) -> int:
        """How many vectors it holds."""
        ...

    def clear(self) -> None:
        """Empties it, damaged or not."""
        ...


class Projection:
    """A log as retrieval needs it.

    Args:
        store: Where the log and the vectors are.
        name: Name of the memory.
        index: Vectors of what is believed; those of what is on trial are held here, few as they are.
        vectors: The vectors of the memory.
        keys: The filters of the two shelves.
        version: The last version that is read; None for all.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        index: Index,
        vectors: Vectors,
        keys: tuple[KeyWords, KeyWords],
        version: int | None,
    ) -> None:
        self.name, self._store, self._index, self._made = name, store, index, vectors
        self._frozen_at = version
        self._shared = bool(getattr(index, "shared", False))
        if self._shared and version is not None:
            what = f"memory {name!r} frozen at version {version} would empty an index that others read"
            raise StoreError(what, todo="open a frozen memory with `exact`")
        self._lock = threading.RLock()
        self._log, self._digest, self._stale = LogState(), "", False
        self._believed = Shelf("active", index, keys[0])
        self._on_trial = Shelf("quarantined", ExactIndex(), keys[1])

    def _refresh(self) -> int:
        """Reads what is new, wherever it was written; gives the version."""
        changed = self._read()
        if self._log.embedder != self._made.name:
            self._check(changed)
        self._project(changed)
        return self._log.version

    def _check(self, changed: Iterable[str] = ()) -> None:
        try:
            self._made.check(self._log, frozen=self._frozen_at is not None)
        except StoreError:
            self._stale = True
            self._file(changed)
            raise

    def _read(self, upto: int | None = None) -> dict[str, None]:
        """Replays what is new in the log; gives the ids whose words or standing changed."""
        changed: dict[str, None] = {}
        ends = [v for v in (self._frozen_at, upto) if v is not None]
        for version, op in self._store.ops(self.name, after=self._log.version):
            if ends and version > min(ends):
                break
            counted = self._log.apply(op)
            told = (self._digest, op.op, op.reflection, *op.others, op.item.text if op.item else "")
            self._digest = hashlib.blake2b("\0".join(told).encode("utf-8", "replace"), digest_size=12).hexdigest()
            if counted.op in ("ADD", "UPDATE", "MERGE", "RETIRE") or counted.tag in ("active", "quarantined"):
                changed.update(dict.fromkeys((counted.reflection, *counted.others)))
        return changed

    def _open(self) -> None:
        """Reads the log, and brings the index to where the log is."""
        durable = self._index if isinstance(self._index, DurableIndex) else None
        held = durable.state() if durable else {}
        # A durable index holds what is believed; what is on trial is filed anew each time.
        self._file(old := self._read(int(held.get("version", 0))))
        before = self._held(), len(self._believed.ids)
        new = self._read()
        self._check(new)
        self._try([i for i in old if i not in new])
        if durable is None or (held in ({}, before[0]) and durable.count() == before[1]):
            self._project(new)
        elif self._shared:
            self._file(new)
            self._try(new)
            self._stale = True  # another process may be filling it just now: the first search will see
        else:
            self._file(new)
            self._try(new)
            self._refill()

    def _project(self, changed: Iterable[str]) -> None:
        """Brings what is derived from the log up to date for some ids."""
        if not (changed := list(changed)):
            return
        self._file(changed)
        self._try(changed)
        try:
            if self._shared:
                self._catch_up()
            else:
                self._place(changed)
        except StoreError:
            # The log has the operations, so nothing is lost: the next search makes the index anew, or says why not.
            self._stale = True

    def _file(self, changed: Iterable[str]) -> None:
        changed = list(changed)
        for shelf in (self._believed, self._on_trial):
            shelf.file(self._log.items[i] for i in changed)

    def _try(self, changed: Iterable[str]) -> None:
        """Files the vectors of what is on trial."""
        changed = list(changed)
        self._on_trial.index.drop([i for i in changed if self._log.items[i].status != "quarantined"])
        self._put(self._on_trial.index, [i for i in changed if self._log.items[i].status == "quarantined"])

    def _place(self, changed: Sequence[str]) -> None:
        """Files the vectors of what is believed."""
        self._index.drop([i for i in changed if self._log.items[i].status != "active"])
        self._put(self._index, [i for i in changed if self._log.items[i].status == "active"])
        self._mark()

    def _catch_up(self) -> None:
        """Brings an index that others fill too from where it is to where the log is; one process at a time does."""
        assert isinstance(self._index, DurableIndex)
        with self._store.transaction():
            held = self._index.state()
            if held.get("embedder", self._made.name) != self._made.name:
                raise StoreError("the index is of another embedder")
            if (version := int(held.get("version", 0))) < self._log.version:
                self._place([i for i, since in self._log.since.items() if since > version])

    def _refill(self) -> None:
        """Makes the index anew."""
        self._stale = True  # until all of it is done
        if isinstance(self._index, DurableIndex):
            self._index.clear()
        else:
            self._index.drop(list(self._log.items))
        self._put(self._index, list(self._log.active()))
        self._mark()
        self._stale = False

    def _put(self, index: Index, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _PART):
            part = ids[at : at + _PART]
            index.put(part, self._vectors(part))

    def _sound(self) -> bool:
        """Whether the index is where the log is."""
        if not isinstance(self._index, DurableIndex):
            return False
        try:
            return self._index.state() == self._held() and self._index.count() == len(self._believed.ids)
        except StoreError:
            return False

    def _nearest(self, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        if self._stale:
            if self._shared and self._sound():
                self._stale = False
            else:
                self._refill()
        try:
            return self._index.nearest(vector, k)
        except StoreError:
            self._refill()
            return self._index.nearest(vector, k)

    def _vectors(self, ids: Sequence[str]) -> Rows:
        return self._made.of(ids, self._log)

    def _mark(self) -> None:
        if isinstance(self._index, DurableIndex):
            self._index.mark(self._held())

    def _held(self) -> dict[str, Any]:
        return {"embedder": self._made.name, "version": self._log.version, "digest": self._digest}


__all__ = ["DurableIndex", "Projection"]
