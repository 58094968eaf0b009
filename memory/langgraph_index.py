"""How entries of a LangGraph store are found by meaning: embedders of both worlds, and vectors by slot in one matrix.

An entry has a vector for each text that its fields give, and counts as near as its nearest one. Vectors are made when a
search first needs them and kept in the store beside the log, under the name of the embedder and of the fields.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from langgraph.store.base import ensure_embeddings, get_text_at_path, tokenize_path

from verbal.contracts import Embedder
from verbal.errors import ConfigError, ModelError

from .embedders import make_embedder
from .langgraph_entries import Entry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = Sequence[NDArray[np.float32]]


class Embedding:
    """Texts and queries to vectors of length one, in float32.

    Args:
        embed: An embedder as `make_embedder` takes it; or what LangGraph takes: LangChain embeddings, a function or
            coroutine function of texts, `provider:model`.
        dims: Length its vectors must have; None for whatever it gives.
        name: What to call LangGraph's, so that their vectors can be kept: nothing else tells which model they ask.

    Raises:
        UnknownName: no embedder of that name. ValueError: LangChain has no such provider, or is not installed.
    """

    def __init__(self, embed: Any, dims: int | None = None, name: str | None = None) -> None:
        if (isinstance(embed, str) and not _of_langchain(embed)) or isinstance(embed, Mapping):
            embed = make_embedder(embed)
        # No isinstance: it would read the dimension, for which an endpoint has to be asked.
        own = callable(getattr(embed, "embed", None)) and isinstance(getattr(embed, "name", None), str)
        self._own: Embedder | None = embed if own else None
        self.embeddings = None if own else ensure_embeddings(embed)
        """LangChain's, where it is one of theirs."""
        self.name = str(embed.name) if own else name or (embed if isinstance(embed, str) else None)
        """What its vectors are kept under; None when they are not."""
        self.dims = dims
        """Length of its vectors, once it has given one."""

    def embed(self, texts: list[str], queries: list[str]) -> tuple[Vectors, Vectors]:
        """Vectors of texts, and of queries."""
        if self._own is not None:
            found = self._own.embed([*texts, *queries])
            return self._units(found[: len(texts)], texts), self._units(found[len(texts) :], queries)
        assert self.embeddings is not None
        made = self.embeddings.embed_documents(texts) if texts else []
        return self._units(made, texts), self._units([self.embeddings.embed_query(q) for q in queries], queries)

    async def aembed(self, texts: list[str], queries: list[str]) -> tuple[Vectors, Vectors]:
        """As `embed`, for a caller on an event loop."""
        if self.embeddings is None:
            return await asyncio.to_thread(self.embed, texts, queries)
        made = await self.embeddings.aembed_documents(texts) if texts else []
        asked = await asyncio.gather(*(self.embeddings.aembed_query(q) for q in queries))
        return self._units(made, texts), self._units(asked, queries)

    def _units(self, rows: Sequence[Sequence[float]], texts: Sequence[str]) -> Vectors:
        where = "index of a LangGraph store"
        if len(rows) != len(texts):
            raise ModelError(f"{len(rows)} vectors came for {len(texts)} texts", where=where, todo="check the embedder")
        units = []
        for row in rows:
            values = np.asarray(row, dtype=np.float64)
            self.dims = self.dims or len(values)
            if values.shape != (self.dims,):
                what = f"a vector of shape {values.shape} where {self.dims} numbers were expected"
                raise ConfigError(what, where=where, todo="set `dims` to what the embedder gives")
            if not np.isfinite(values).all():
                raise ModelError("a vector that is not finite", where=where, todo="check the embedder and the text")
            units.append((values / (np.linalg.norm(values) or 1.0)).astype(np.float32))
        return units


class VectorIndex:
    """Vectors by slot. Shapes: matrix [rows, dimension], float32, rows doubled when full; a slot may have many rows.

    Args:
        fields: Paths into a value, in LangGraph's form, by which an entry is found when it names none; `$` is all.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)
        self.kind = "" if self._fields == ("$",) else " of " + ", ".join(self._fields)
        """What tells the vectors of these fields from those of others."""
        self.waiting: dict[int, Entry] = {}
        """Entries whose vectors are not made yet, by slot."""
        self._matrix: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
        self._slots: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._rows: dict[int, list[int]] = {}
        self._count = 0

    def changed(self, slot: int, entry: Entry | None) -> None:
        """Forgets what is known of a slot; a new entry waits for its vectors."""
        for row in sorted(self._rows.pop(slot, ()), reverse=True):
            self._count -= 1
            if row != self._count:  # the last row moves into the gap
                moved = int(self._slots[self._count])
                self._matrix[row], self._slots[row] = self._matrix[self._count], moved
                rows = self._rows[moved]
                rows[rows.index(self._count)] = row
        self.waiting.pop(slot, None)
        if entry is not None and entry.index is not False:
            self.waiting[slot] = entry

    def texts(self, entry: Entry) -> list[str]:
        """What an entry is found by; each text once."""
        paths = entry.index if isinstance(entry.index, tuple) else self._fields
        told = (get_text_at_path(entry.value, p if p == "$" else tokenize_path(p)) for p in paths)
        return list(dict.fromkeys(text for texts in told for text in texts))

    def fill(self, entry: Entry, vectors: Vectors) -> None:
        """Files the vectors of an entry, unless it has changed meanwhile."""
        if self.waiting.get(entry.slot) is not entry:
            return
        del self.waiting[entry.slot]
        for vector in vectors:
            if self._count == len(self._slots):
                self._grow(len(vector))
            self._matrix[self._count], self._slots[self._count] = vector, entry.slot
            self._rows.setdefault(entry.slot, []).append(self._count)
            self._count += 1

    def fill_kept(self, entry: Entry, kept: bytes, count: int, dims: int) -> None:
        """Files vectors as the store has kept them, unless they are not `count` ones of `dims` numbers each."""
        if len(kept) == 4 * count * dims:
            self.fill(entry, list(np.frombuffer(kept, dtype="<f4").reshape(count, dims)))

    def holds(self, slot: int) -> bool:
        """Whether a slot has vectors."""
        return slot in self._rows

    def nearest(self, query: NDArray[np.float32], slots: Sequence[int], k: int) -> list[tuple[int, float]]:
        """The `k` best (slot, cosine similarity of its nearest vector) and what ties with the last of them, unordered.

        Args:
            query: A vector of length one.
            slots: Those to choose from; one without vectors never comes.
            k: How many.
        """
        if not self._count or not slots or k <= 0:
            return []
        wanted = np.asarray(slots, dtype=np.int64)
        owners, vectors = self._slots[: self._count], self._matrix[: self._count]
        if 4 * len(slots) < self._count:
            rows = np.array([row for slot in slots for row in self._rows.get(slot, ())], dtype=np.int64)
            owners, vectors = owners[rows], vectors[rows]
        # Equal vectors may differ in the last bits by the row they lie in; six digits make them tie.
        found = np.round((vectors @ query).astype(np.float64), 6)
        best = np.full(1 + max(int(wanted.max()), int(owners.max(initial=0))), -np.inf)
        np.maximum.at(best, owners, found)
        near = best[wanted]
        least = np.partition(near, len(near) - k)[len(near) - k] if k < len(near) else -np.inf
        chosen = (near >= least) & np.isfinite(near)
        return list(zip(wanted[chosen].tolist(), near[chosen].tolist(), strict=True))

    def _grow(self, dimension: int) -> None:
        room = max(64, 2 * self._count)
        matrix = np.zeros((room, dimension), dtype=np.float32)
        slots = np.zeros(room, dtype=np.int64)
        if self._count:
            matrix[: self._count], slots[: self._count] = self._matrix[: self._count], self._slots[: self._count]
        self._matrix, self._slots = matrix, slots


def _of_langchain(name: str) -> bool:
    """Whether it is `provider:model`; a part's name may hold a URL, but only after a slash."""
    kind, found, _ = name.partition(":")
    return bool(found) and "/" not in kind and not kind.endswith(".py") and ".py:" not in name
