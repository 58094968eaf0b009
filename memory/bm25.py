"""BM25 over many short texts that change: words to scores, kept up to date item by item."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from .words import informative

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Scores = tuple[NDArray[np.int64], NDArray[np.float64]]


_FIRST = 100


class BM25:
    """Scores of texts for a query.

    score(q, d) = sum over words w of q: idf(w) * f * (k1 + 1) / (f + k1 * (1 - b + b * |d| / mean |d|)),
    idf(w) = ln(1 + (N - n + 0.5) / (n + 0.5)), f the count of w in d, n the number of texts with w.

    A text lies in a row of its own, and a word knows its rows. A row that was left counts no more, and once more rows
    are left than lived in, all move together; so a text is put or dropped in the time its own words take.

    Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework; idf as in Lucene (never negative).
    """

    def __init__(self, k1: float = 1.5, b: float = 0.75) -> None:
        self._k1, self._b = k1, b
        self._rows: dict[str, int] = {}
        self._clear()

    def _clear(self) -> None:
        self._keys: list[str | None] = []
        self._sizes, self._alive = array("i"), bytearray()
        self._words: list[array[int]] = []
        self._numbers: dict[str, int] = {}
        self._postings: list[_Posting] = []
        self._total = self._changes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, key: str, text: str) -> None:
        """Adds or replaces a text."""
        self.drop(key)
        counts = Counter(informative(text))
        self._add(key, [(self._number(word), count) for word, count in counts.items()])

    def drop(self, key: str) -> None:
        """Forgets a text (an unknown key is ignored)."""
        if (row := self._rows.pop(key, None)) is None:
            return
        self._changes += 1
        self._total -= self._sizes[row]
        self._keys[row], self._alive[row] = None, 0
        for number in self._words[row]:
            self._postings[number].texts -= 1
        if len(self._keys) > 64 and 2 * len(self._rows) < len(self._keys):
            self._move_together()

    def scores(self, query: str) -> dict[str, float]:
        """Score by key of every text that shares a word with the query; all are above zero."""
        rows, scores = self._scored(query)
        return {key: s for r, s in zip(rows.tolist(), scores.tolist(), strict=True) if (key := self._keys[r])}

    def ranked(self, query: str, hidden: Collection[str] = ()) -> Iterator[str]:
        """Keys of all texts that share a word with the query, best first, ties by key; none of `hidden`."""
        rows, scores = self._scored(query)
        scores = np.round(scores, 9)
        wanted = _FIRST + len(hidden)
        while len(rows):
            # Who looks at the first few need not wait for all to be sorted; those that tie with the last go with it.
            least = np.partition(scores, len(rows) - wanted)[len(rows) - wanted] if wanted < len(rows) else -np.inf
            near = scores >= least
            pairs = zip((-scores[near]).tolist(), [self._keys[r] or "" for r in rows[near].tolist()], strict=True)
            yield from (key for _, key in sorted(pairs) if key not in hidden)
            rows, scores, wanted = rows[~near], scores[~near], 8 * wanted

    def _scored(self, query: str) -> _Scores:
        """Rows of texts that share a word with the query, and their scores."""
        found = np.zeros(len(self._keys))
        for word in dict.fromkeys(informative(query)):
            if (number := self._numbers.get(word)) is not None and (posting := self._postings[number]).texts:
                n = posting.texts
                idf = math.log(1 + (len(self._rows) - n + 0.5) / (n + 0.5))
                rows, weights = self._weights(posting)
                found[rows] += idf * weights
        matched = np.flatnonzero(found).astype(np.int64, copy=False)
        return matched, found[matched]

    def _weights(self, posting: _Posting) -> _Scores:
        """Rows that a word is in, and its weight in each without the idf; the same until something changes."""
        if posting.kept is None or posting.at != self._changes:
            rows = np.array(posting.rows, dtype=np.int64)
            counts = np.array(posting.counts, dtype=np.float64)
            if posting.texts < len(rows):
                alive = np.frombuffer(self._alive, dtype=np.bool_)[rows]
                rows, counts = rows[alive], counts[alive]
            sizes = np.frombuffer(self._sizes, dtype=np.intc)[rows]
            norm = self._k1 * (1 - self._b + self._b * sizes * (len(self._rows) / self._total))
            posting.kept, posting.at = (rows, counts * (self._k1 + 1) / (counts + norm)), self._changes
        return posting.kept

    def _number(self, word: str) -> int:
        if (number := self._numbers.get(word)) is None:
            number = self._numbers[word] = len(self._postings)
            self._postings.append(_Posting())
        return number

    def _add(self, key: str, counts: list[tuple[int, int]]) -> None:
        row = self._rows[key] = len(self._keys)
        self._changes += 1
        self._keys.append(key)
        self._alive.append(1)
        self._sizes.append(size := sum(count for _, count in counts))
        self._words.append(array("i", [number for number, _ in counts]))
        self._total += size
        for number, count in counts:
            posting = self._postings[number]
            posting.rows.append(row)
            posting.counts.append(count)
            posting.texts += 1

    def _move_together(self) -> None:
        """Leaves out the rows that nobody lives in, and the words that nobody says."""
        counts: dict[int, list[tuple[str, int]]] = {row: [] for row in self._rows.values()}
        for word, number in self._numbers.items():
            posting = self._postings[number]
            for row, count in zip(posting.rows, posting.counts, strict=True):
                if row in counts:
                    counts[row].append((word, count))
        rows, self._rows = self._rows, {}
        self._clear()
        for key, row in rows.items():
            self._add(key, [(self._number(word), count) for word, count in counts[row]])


class _Posting:
    """Where one word is."""

    __slots__ = ("at", "counts", "kept", "rows", "texts")

    def __init__(self) -> None:
        self.rows: array[int] = array("i")
        self.counts: array[int] = array("i")
        self.texts = 0
        """How many of the rows count."""
        self.kept: _Scores | None = None
        self.at = -1


__all__ = ["BM25"]
