"""Vectors in one numpy matrix, searched by brute force: no file, no lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from verbal.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ExactIndex:
    """Vectors in one matrix. Shapes: matrix [rows, dimension], float32, rows doubled when full."""

    blocking: ClassVar[bool] = False

    def __init__(self) -> None:
        self._matrix: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}

    def put(self, ids: Sequence[str], vectors: Sequence[Sequence[float]]) -> None:
        """Adds or replaces vectors.

        Raises:
            StoreError: ids and vectors differ in number, or a vector has another dimension than those before it.
        """
        if len(ids) != len(vectors):
            raise StoreError(f"{len(ids)} ids for {len(vectors)} vectors", where="index exact")
        for item_id, vector in zip(ids, vectors, strict=True):
            if not self._ids and len(vector) != self._matrix.shape[1]:
                self._matrix = np.zeros((0, len(vector)), dtype=np.float32)
            self._check(vector)
            if (row := self._rows.get(item_id)) is None:
                row = len(self._ids)
                if row == len(self._matrix):
                    larger = np.zeros((max(64, 2 * row), len(vector)), dtype=np.float32)
                    larger[:row] = self._matrix
                    self._matrix = larger
                self._ids.append(item_id)
                self._rows[item_id] = row
            values = np.asarray(vector, dtype=np.float64)
            self._matrix[row] = values / (np.linalg.norm(values) or 1.0)

    def drop(self, ids: Sequence[str]) -> None:
        """Forgets ids (unknown ones are ignored); the last row moves into the gap."""
        for item_id in ids:
            if (row := self._rows.pop(item_id, None)) is None:
                continue
            last = self._ids.pop()
            if last != item_id:
                self._matrix[row] = self._matrix[len(self._ids)]
                self._ids[row] = last
                self._rows[last] = row

    def nearest(self, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """At most `k` (id, cosine similarity), best first, ties by id."""
        count = len(self._ids)
        if k <= 0 or not count:
            return []
        self._check(vector)
        asked = np.asarray(vector, dtype=np.float64)
        asked = (asked / (np.linalg.norm(asked) or 1.0)).astype(np.float32)
        # Equal vectors may differ in the last bits by the row they lie in; six digits make them tie.
        scores = np.round((self._matrix[:count] @ asked).astype(np.float64), 6)
        least = np.partition(scores, count - k)[count - k] if k < count else -np.inf
        found = [(self._ids[row], float(scores[row])) for row in np.flatnonzero(scores >= least)]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]

    def close(self) -> None:
        """Frees the vectors."""
        self._matrix, self._ids, self._rows = np.zeros((0, 0), dtype=np.float32), [], {}

    def _check(self, vector: Sequence[float]) -> None:
        if len(vector) != self._matrix.shape[1]:
            raise StoreError(
                f"a vector of {len(vector)} numbers in an index of {self._matrix.shape[1]}",
                where="index exact",
                todo="one memory has one embedder; open it with the one it was made with",
            )
