"""The vectors of a memory's items: made by its embedder, checked, kept in the store beside the log."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from verbal.contracts import Embedder
from verbal.errors import ConfigError, ModelError, StoreError
from verbal.store_memory import StoredVector
from verbal.types import Usage

from .embedders import make_embedder
from .log import LogState
from .retrieval import full_text

if TYPE_CHECKING:
    from verbal.store import Store

Rows = Sequence[Sequence[float]]
"""Vectors; in fact a matrix of float32. Shape: [texts, dimension]."""


class Vectors:
    """The vectors of one memory, by one embedder.

    Args:
        store: Where they are kept.
        memory: Name of the memory.
        embedder: A name as `make_embedder` takes it, or an embedder.
    """

    def __init__(self, store: Store, memory: str, embedder: str | Mapping[str, Any] | Embedder) -> None:
        self._store, self._memory = store, memory
        self._embedder = make_embedder(embedder)
        self.spend: Callable[[Usage, bool], None] | None = None
        """Told what embedding will use at most (False), which it may refuse by raising, and what it used (True)."""
        self._kept = 0

    @property
    def name(self) -> str:
        """Name of the embedder."""
        return self._embedder.name

    @property
    def blocking(self) -> bool:
        """Whether embedding waits for something, so that it must not be done on an event loop."""
        return bool(getattr(self._embedder, "blocking", False))

    def asked(self, query: str) -> Sequence[float]:
        """The vector of a query: some models embed what is asked in another way than what is kept."""
        return self._make([query], getattr(self._embedder, "embed_query", self._embedder.embed))[0]

    def make(self, texts: Sequence[str]) -> Rows:
        """The vectors of texts, paid for by whoever listens (`spend`): refused before, counted after.

        Raises:
            ModelError: the embedder gave another number of vectors, of another length, or what is no direction.
            StoreError: they are of another length than those that are kept.
        """
        return self._make(texts, self._embedder.embed) if texts else []

    def _make(self, texts: Sequence[str], embed: Callable[[Sequence[str]], Sequence[Sequence[float]]]) -> Rows:
        price = getattr(self._embedder, "price", 0.0)
        paid = price is None or price > 0
        # A token is a byte at least; what costs nothing is counted in seconds only.
        tokens = sum(len(t.encode("utf-8", "replace")) for t in texts) if paid else 0
        cost = None if price is None else tokens * price / 1e6
        worst = Usage(calls=int(paid), prompt_tokens=tokens, cost=cost)
        if self.spend is not None:
            self.spend(worst, False)
        began = time.monotonic()
        try:
            rows = list(embed(texts))
        finally:  # tries that failed may be billed
            used = self._embedder.take_usage() if hasattr(self._embedder, "take_usage") else worst
            if self.spend is not None:
                self.spend(used.replace(seconds=time.monotonic() - began), True)
        return self._checked(rows, len(texts))

    def of(self, ids: Sequence[str], log: LogState) -> Rows:
        """The vectors of items, as they are kept; those that nobody has kept are made, for this process only."""
        if not ids:
            return []
        version = {i: log.written[i] for i in ids}
        found = {v: x for v, _, x in self._store.vectors(self._memory, self.name, versions=version.values())}
        old = [v for i, v in version.items() if v not in found and log.embedded_by[i] == self.name]
        if old:
            size = 4 * (self._dimension() or self._embedder.dimension)
            held = self._store.embedded_in_ops(self._memory, after=min(old) - 1)
            found |= {v: held[v] for v in old if len(held.get(v, b"")) == size}
        missing = [i for i in dict.fromkeys(ids) if version[i] not in found]
        made = self.make([full_text(log.items[i]) for i in missing])
        found |= {version[i]: blob(row) for i, row in zip(missing, made, strict=True)}
        return _rows([found[version[i]] for i in ids])

    def stored(self, versions: Collection[int], vectors: Rows) -> list[StoredVector]:
        """Vectors of the operations of some versions, as the store keeps them."""
        return [StoredVector(v, self.name, blob(row)) for v, row in zip(versions, vectors, strict=True)]

    def check(self, log: LogState, *, frozen: bool = False) -> None:
        """Whether a memory is this embedder's.

        Args:
            log: The memory.
            frozen: It is an earlier version, which may have been embedded anew since.

        Raises:
            StoreError: it was made with another one.
        """
        if log.embedder not in ("", self.name) and not (frozen and self._dimension()):
            raise self._foreign(f"with the embedder {log.embedder!r}, not with {self.name!r}")
        told = inspect.getattr_static(self._embedder, "dimension", 0)  # a property may have to ask a server
        if isinstance(told, int) and self._dimension() not in (0, told):
            raise self._foreign(f"with {self.name!r} of {self._dimension()} numbers, not of {told}")

    def _checked(self, rows: Sequence[Sequence[float]], count: int) -> Rows:
        where, dimension = f"embedder {self.name!r}", self._embedder.dimension
        if len(rows) != count:
            raise ModelError(f"{len(rows)} vectors came for {count} texts", where=where, todo="check the embedder")
        try:
            with np.errstate(over="ignore"):
                vectors = np.asarray(rows, dtype="<f4")
        except (ValueError, TypeError) as error:
            raise ModelError(f"no vectors of numbers: {error}", where=where, todo="check the embedder") from error
        if vectors.ndim != 2 or vectors.shape[1] != dimension or not dimension:
            what = f"vectors of shape {vectors.shape[1:]}, not of {dimension} numbers each"
            raise ModelError(what, where=where, todo="one embedder has one dimension: check its model")
        if not np.isfinite(vectors).all() or not np.any(vectors, axis=1).all():
            bad = int(np.flatnonzero(~(np.isfinite(vectors).all(axis=1) & np.any(vectors, axis=1)))[0])
            what = f"vector {bad} of {count} holds what is no finite number, or nothing but zeros"
            raise ModelError(what, where=where, todo="check the text and the embedder; nothing was written")
        if self._dimension() not in (0, dimension):
            raise self._foreign(f"with {self.name!r} of {self._dimension()} numbers, not of {dimension}")
        return cast("Rows", vectors)

    def _dimension(self) -> int:
        """Length of the vectors that are kept; 0 when there are none."""
        self._kept = self._kept or self._store.dimension(self._memory, self.name)
        return self._kept

    def _foreign(self, made: str) -> StoreError:
        return StoreError(
            f"memory {self._memory!r} was made {made}",
            where=self._store.where,
            todo=f"open it with that one, or embed it anew: verbal memory rebuild {self._memory} --embedder SPEC",
        )


def blob(row: Sequence[float]) -> bytes:
    """A vector as the store keeps it."""
    return np.asarray(row, dtype="<f4").tobytes()


def _rows(blobs: Sequence[bytes]) -> Rows:
    if len({len(x) for x in blobs}) > 1:
        raise ConfigError("vectors of several lengths in one memory", todo="verbal memory rebuild NAME --embedder SPEC")
    return cast("Rows", np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), -1))


__all__ = ["Rows", "Vectors", "blob"]
