"""BM25 over many short texts that change: words to scores, kept up to date item by item."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .words import informative

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Rows = NDArray[np.integer[Any]]
    _Numbers = NDArray[np.float64]


_FIRST = 64


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
        self._total, self._shortest = 0, 2**31

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, key: str, *text: str) -> None:
        """Adds or replaces a text, given in one or several parts."""
        self.drop(key)
        counts = Counter(word for part in text for word in informative(part))
        self._add(key, [(self._number(word), count) for word, count in counts.items()])

    def drop(self, key: str) -> None:
        """Forgets a text (an unknown key is ignored)."""
        if (row := self._rows.pop(key, None)) is None:
            return
        self._total -= self._sizes[row]
        self._keys[row], self._alive[row] = None, 0
        for number in self._words[row]:
            self._postings[number].texts -= 1
        if len(self._keys) > 64 and 2 * len(self._rows) < len(self._keys):
            self._move_together()

    def scores(self, query: str) -> dict[str, float]:
        """Score by key of every text that shares a word with the query; all are above zero."""
        rows, scores = self._all(self._asked(query))
        return {key: s for r, s in zip(rows.tolist(), scores.tolist(), strict=True) if (key := self._keys[r])}

    def ranked(self, query: str, hidden: Collection[str] = ()) -> Iterator[str]:
        """Keys of all texts that share a word with the query, best first, ties by key; none of `hidden`."""
        asked, done, wanted = self._asked(query), 0, _FIRST + len(hidden)
        # Who looks at the first few need not wait until all are scored and sorted.
        while True:
            found = self._sorted(*self._best(asked, wanted))[:wanted]
            yield from (key for key in found[done:] if key not in hidden)
            if len(found) < wanted:
                return
            done, wanted = wanted, 8 * wanted

    def _sorted(self, rows: _Rows, scores: _Numbers) -> list[str]:
        pairs = zip(np.round(-scores, 9).tolist(), [self._keys[r] or "" for r in rows.tolist()], strict=True)
        return [key for _, key in sorted(pairs)]

    def _asked(self, query: str) -> list[tuple[float, _Posting]]:
        """(idf, posting) of each word of a query that is known, the rarest first."""
        found: list[tuple[float, _Posting]] = []
        for word in dict.fromkeys(informative(query)):
            if (number := self._numbers.get(word)) is not None and (posting := self._postings[number]).texts:
                n = posting.texts
                found.append((math.log(1 + (len(self._rows) - n + 0.5) / (n + 0.5)), posting))
        return sorted(found, key=lambda pair: -pair[0])

    def _all(self, asked: list[tuple[float, _Posting]]) -> tuple[_Rows, _Numbers]:
        """Rows of all texts with a word of the query, and their scores."""
        found = np.zeros(len(self._keys))
        for idf, posting in asked:
            rows = posting.lies()
            found[rows] += idf * self._weights(rows, posting.counted())
        return self._living(found)

    def _best(self, asked: list[tuple[float, _Posting]], k: int) -> tuple[_Rows, _Numbers]:
        """Rows and scores of the `k` best texts and all that tie with them.

        Rare words are counted first. Once k texts have more than all common words together can give, a text without a
        rare word is out, and the long lists of the common ones need not be gone through.

        Source: Turtle and Flood 1995, Query evaluation: strategies and optimizations (max score).
        """
        found, bounds = np.zeros(len(self._keys)), [self._bound(idf, posting) for idf, posting in asked]
        for at, (idf, posting) in enumerate(asked):
            left = math.fsum(bounds[at:]) + 1e-6
            if posting.texts > 4 * k and math.fsum(bounds[:at]) > left:
                rows, scores = self._living(found)
                if len(rows) >= k and (least := np.partition(scores, len(rows) - k)[len(rows) - k]) > left:
                    near = scores + left >= least
                    return _cut(*self._with(asked[at:], rows[near], scores[near]), k)
            lies = posting.lies()
            found[lies] += idf * self._weights(lies, posting.counted())
        return _cut(*self._living(found), k)

    def _bound(self, idf: float, posting: _Posting) -> float:
        """The most that a word can give a text: as often as anywhere, in a text as short as any."""
        norm = self._k1 * (1 - self._b + self._b * self._shortest * len(self._rows) / self._total)
        return idf * posting.most * (self._k1 + 1) / (posting.most + norm)

    def _with(self, asked: list[tuple[float, _Posting]], rows: _Rows, scores: _Numbers) -> tuple[_Rows, _Numbers]:
        """Some texts with what further words add to their scores."""
        for idf, posting in asked:
            lies = posting.lies()
            at = np.minimum(np.searchsorted(lies, rows), len(lies) - 1)
            hit = lies[at] == rows
            scores[hit] += idf * self._weights(rows[hit], posting.counted()[at[hit]])
        return rows, scores

    def _living(self, found: _Numbers) -> tuple[_Rows, _Numbers]:
        rows = np.flatnonzero(found > 0)  # of truth values it takes a tenth of the time
        if len(self._rows) < len(self._keys):
            rows = rows[np.frombuffer(self._alive, dtype=np.bool_)[rows]]
        return rows, found[rows]

    def _weights(self, rows: _Rows, counts: _Rows) -> _Numbers:
        """What a word that is so often in some rows gives them, without the idf."""
        sizes = np.frombuffer(self._sizes, dtype=np.intc)[rows]
        norm = self._k1 * (1 - self._b) + sizes * (self._k1 * self._b * len(self._rows) / self._total)
        weights: _Numbers = counts * (self._k1 + 1) / (counts + norm)
        return weights

    def _number(self, word: str) -> int:
        if (number := self._numbers.get(word)) is None:
            number = self._numbers[word] = len(self._postings)
            self._postings.append(_Posting())
        return number

    def _add(self, key: str, counts: list[tuple[int, int]]) -> None:
        row = self._rows[key] = len(self._keys)
        self._keys.append(key)
        self._alive.append(1)
        self._sizes.append(size := sum(count for _, count in counts))
        self._words.append(array("i", [number for number, _ in counts]))
        self._total, self._shortest = self._total + size, min(size, self._shortest)
        for number, count in counts:
            posting = self._postings[number]
            posting.most = max(count, posting.most)
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


def _cut(rows: _Rows, scores: _Numbers, k: int) -> tuple[_Rows, _Numbers]:
    """The `k` best and all that tie with them."""
    if len(rows) > k:
        near = scores >= np.partition(scores, len(rows) - k)[len(rows) - k] - 1e-9
        rows, scores = rows[near], scores[near]
    return rows, scores


class _Posting:
    """Where one word is; rows go up."""

    __slots__ = ("counts", "most", "rows", "texts")

    def __init__(self) -> None:
        self.rows, self.counts = array("i"), array("i")
        self.texts = 0
        """How many of the rows count."""
        self.most = 0
        """How often it is in one text, at most."""

    # Views without a copy: they must be let go before the arrays grow.

    def lies(self) -> _Rows:
        return np.frombuffer(self.rows, dtype=np.intc)

    def counted(self) -> _Rows:
        return np.frombuffer(self.counts, dtype=np.intc)


__all__ = ["BM25"]
