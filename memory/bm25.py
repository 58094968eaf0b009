"""BM25 over a few thousand short texts that change: words to scores, kept up to date item by item."""

from __future__ import annotations

import math
from collections import Counter

from .words import informative


class BM25:
    """Scores of texts for a query.

    score(q, d) = sum over words w of q: idf(w) * f * (k1 + 1) / (f + k1 * (1 - b + b * |d| / mean |d|)),
    idf(w) = ln(1 + (N - n + 0.5) / (n + 0.5)), f the count of w in d, n the number of texts with w.

    Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework; idf as in Lucene (never negative).
    """

    def __init__(self, k1: float = 1.5, b: float = 0.75) -> None:
        self._k1, self._b = k1, b
        self._counts: dict[str, Counter[str]] = {}
        self._postings: dict[str, set[str]] = {}
        self._total = 0

    def __len__(self) -> int:
        return len(self._counts)

    def put(self, key: str, text: str) -> None:
        """Adds or replaces a text."""
        self.drop(key)
        counts = Counter(informative(text))
        self._counts[key] = counts
        self._total += counts.total()
        for word in counts:
            self._postings.setdefault(word, set()).add(key)

    def drop(self, key: str) -> None:
        """Forgets a text (an unknown key is ignored)."""
        counts = self._counts.pop(key, None)
        if counts is None:
            return
        self._total -= counts.total()
        for word in counts:
            self._postings[word].discard(key)
            if not self._postings[word]:
                del self._postings[word]

    def scores(self, query: str) -> dict[str, float]:
        """Score by key of every text that shares a word with the query; all are above zero."""
        found: dict[str, float] = {}
        mean = self._total / len(self._counts) if self._counts else 1.0
        for word in dict.fromkeys(informative(query)):
            keys = self._postings.get(word, ())
            idf = math.log(1 + (len(self._counts) - len(keys) + 0.5) / (len(keys) + 0.5))
            for key in keys:
                count, size = self._counts[key][word], self._counts[key].total()
                weight = count * (self._k1 + 1) / (count + self._k1 * (1 - self._b + self._b * size / mean))
                found[key] = found.get(key, 0.0) + idf * weight
        return found
