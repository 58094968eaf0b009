"""How entries of a LangGraph store are found by meaning: embedders of both worlds, and vectors by slot in one matrix.

An entry has a vector for each text that its fields give, and counts as near as its nearest one. Vectors are made when a
search first needs them and held in the process; the op log is the truth and they follow from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from langgraph.store.base import ensure_embeddings, get_text_at_path, tokenize_path

from verbal.contracts import Embedder
from verbal.errors import ConfigError
from verbal.parts import make_part

from .langgraph_entries import Entry

if TYPE_CHECKING:
    from numpy.typing import NDArray

Vectors = list[Sequence[float]]


class Embedding:
    """Texts and queries to vectors.

    Args:
        embed: An embedder part by name or itself; or what LangGraph takes: LangChain embeddings, a function or
            coroutine function of texts, `provider:model`.
        dims: Length its vectors must have; None for whatever it gives.

    Raises:
        UnknownName: no part of that name. ValueError: LangChain has no such provider, or is not installed.
    """

    def __init__(self, embed: Any, dims: int | None = None) -> None:
        if isinstance(embed, str) and not _of_langchain(embed):
            embed = make_part("memory", embed)
        self._own: Embedder | None = embed if isinstance(embed, Embedder) else None
        self.embeddings = None if self._own else ensure_embeddings(embed)
        """LangChain's, where it is one of theirs."""
        self._dims = self._own.dimension if self._own else dims
        if self._own and dims not in (None, self._dims):
            raise self._wrong(self._own.dimension, dims)

    def embed(self, texts: list[str], queries: list[str]) -> tuple[Vectors, Vectors]:
        """Vectors of texts, and of queries."""
        if self._own is not None:
            found = self._own.embed([*texts, *queries])
            return self._checked(found[: len(texts)]), self._checked(found[len(texts) :])
        assert self.embeddings is not None
        made = self.embeddings.embed_documents(texts) if texts else []
        return self._checked(made), self._checked([self.embeddings.embed_query(q) for q in queries])

    async def aembed(self, texts: list[str], queries: list[str]) -> tuple[Vectors, Vectors]:
        """As `embed`, for a caller on an event loop."""
        if self.embeddings is None:
            return await asyncio.to_thread(self.embed, texts, queries)
        made = await self.embeddings.aembed_documents(texts) if texts else []
        asked = await asyncio.gather(*(self.embeddings.aembed_query(q) for q in queries))
        return self._checked(made), self._checked(asked)

    def _checked(self, vectors: Sequence[Sequence[float]]) -> Vectors:
        for vector in vectors:
            self._dims = self._dims or len(vector)
            if len(vector) != self._dims:
                raise self._wrong(len(vector), self._dims)
        return list(vectors)

    def _wrong(self, seen: int, wanted: int | None) -> ConfigError:
        what = f"a vector of {seen} numbers where {wanted} were expected"
        return ConfigError(what, where="index of a LangGraph store", todo="set `dims` to what the embedder gives")


class VectorIndex:
    """Vectors by slot. Shapes: matrix [rows, dimension], float32, rows doubled when full; a slot may have many rows.

    Args:
        fields: Paths into a value, in LangGraph's form, by which an entry is found when it names none; `$` is all.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)
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

    def fill(self, entry: Entry, vectors: Sequence[Sequence[float]]) -> None:
        """Files the vectors of an entry, unless it has changed meanwhile."""
        if self.waiting.get(entry.slot) is not entry:
            return
        del self.waiting[entry.slot]
        for vector in vectors:
            if self._count == len(self._slots):
                self._grow(len(vector))
            values = np.asarray(vector, dtype=np.float64)
            self._matrix[self._count] = values / (np.linalg.norm(values) or 1.0)
            self._slots[self._count] = entry.slot
            self._rows.setdefault(entry.slot, []).append(self._count)
            self._count += 1

    def holds(self, slot: int) -> bool:
        """Whether a slot has vectors."""
        return slot in self._rows

    def nearest(self, query: Sequence[float], slots: Sequence[int], k: int) -> list[tuple[int, float]]:
        """The `k` best (slot, cosine similarity of its nearest vector) and what ties with the last of them, unordered.

        Args:
            query: A vector.
            slots: Those to choose from; one without vectors never comes.
            k: How many.
        """
        asked = np.asarray(query, dtype=np.float64)
        asked = (asked / (np.linalg.norm(asked) or 1.0)).astype(np.float32)
        if not self._count or not slots or k <= 0:
            return []
        wanted = np.asarray(slots, dtype=np.int64)
        owners, vectors = self._slots[: self._count], self._matrix[: self._count]
        if 4 * len(slots) < self._count:
            rows = np.array([row for slot in slots for row in self._rows.get(slot, ())], dtype=np.int64)
            owners, vectors = owners[rows], vectors[rows]
        # Equal vectors may differ in the last bits by the row they lie in; six digits make them tie.
        found = np.round((vectors @ asked).astype(np.float64), 6)
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
