"""Vectors in one Chroma collection, in a folder (`memory/chroma.py`) or on a server (`memory/chroma_server.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from verbal.errors import StoreError

BATCH = 2000
"""Vectors that Chroma is given in one call."""
CONFIGURATION = {"hnsw": {"space": "cosine", "ef_search": 160}}
"""How a collection is made: up to so many items are all looked at, so that small memories are searched exactly."""


class ChromaCollection:
    """What both kinds of index do alike.

    Args:
        where: What messages call it.
        todo: What the reader can do when Chroma fails.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, where: str, todo: str) -> None:
        self.where, self._todo = where, todo
        self._client: Any = None
        self._collection: Any = None

    def put(self, ids: Sequence[str], vectors: Sequence[Sequence[float]]) -> None:
        """Adds or replaces vectors.

        Raises:
            StoreError: ids and vectors differ in number, a vector has another dimension, or Chroma fails.
        """
        if len(ids) != len(vectors):
            raise StoreError(f"{len(ids)} ids for {len(vectors)} vectors", where=self.where)
        latest = {i: n for n, i in enumerate(ids)}  # Chroma refuses an id that comes twice in one call
        keys = list(latest)
        for at in range(0, len(keys), BATCH):
            part = keys[at : at + BATCH]
            with self._explained():
                rows = [np.asarray(vectors[latest[key]], dtype=np.float32) for key in part]
            self._upsert(part, rows)

    def drop(self, ids: Sequence[str]) -> None:
        """Forgets ids (unknown ones are ignored)."""
        for at in range(0, len(ids), BATCH):
            self._delete(list(ids[at : at + BATCH]))

    def nearest(self, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """At most `k` (id, cosine similarity), best first, ties by id."""
        pairs: list[tuple[str, float]] = []
        if k <= 0:
            return pairs
        asked, wanted = np.asarray(vector, dtype=np.float32), k + 4
        while True:
            ((ids, distances),) = self._query([asked], wanted)
            near = np.round(1.0 - np.asarray(distances, dtype=np.float64), 6).tolist()
            pairs = sorted(zip(ids, near, strict=True), key=lambda pair: (-pair[1], pair[0]))
            # Which of several equals Chroma gives is chance, and ties go by id here: all of them must be seen.
            if len(pairs) < wanted or pairs[-1][1] < pairs[k - 1][1]:
                return pairs[:k]
            wanted = 2 * wanted + 16

    def sure(self, ids: Sequence[str], vectors: Sequence[Sequence[float]]) -> set[str]:
        """Those of the ids that their own vectors lead to; many are asked in one call."""
        found: set[str] = set()
        for at in range(0, len(ids), BATCH):
            asked = [np.asarray(vector, dtype=np.float32) for vector in vectors[at : at + BATCH]]
            answers = self._query(asked, 10)
            found |= {i for i, (near, _) in zip(ids[at : at + BATCH], answers, strict=True) if i in near}
        return found

    def count(self) -> int:
        """How many vectors it holds."""
        with self._explained():
            return int(self._open.count())

    def _upsert(self, ids: list[str], rows: list[Any]) -> None:
        with self._explained():
            self._open.upsert(ids=ids, embeddings=rows)

    def _delete(self, ids: list[str]) -> None:
        with self._explained():
            self._open.delete(ids=ids)

    def _query(self, vectors: list[Any], n: int) -> list[tuple[list[str], list[float]]]:
        """Ids and distances of the `n` nearest of each vector; fewer when there are no more."""
        with self._explained():
            return self._asked(vectors, n)

    def _asked(self, vectors: list[Any], n: int) -> list[tuple[list[str], list[float]]]:
        found = self._open.query(query_embeddings=vectors, n_results=n, include=["distances"])
        return list(zip(found["ids"], found["distances"], strict=True))

    @property
    def _open(self) -> Any:
        if self._collection is None:
            raise StoreError("the index is closed", where=self.where, todo="open the memory again")
        return self._collection

    def _disconnect(self) -> None:
        client, self._client, self._collection = self._client, None, None
        if client is not None:
            client.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import httpx
        from chromadb.errors import ChromaError

        try:
            yield
        except StoreError:
            raise
        except (ChromaError, OSError, ValueError, TypeError, RuntimeError, KeyError, httpx.HTTPError) as error:
            raise StoreError(f"the Chroma index failed: {error}", where=self.where, todo=self._todo) from error


__all__ = ["BATCH", "CONFIGURATION", "ChromaCollection"]
