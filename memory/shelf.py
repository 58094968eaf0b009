"""One standing's items as retrieval sees them: vectors, words and keys, kept up to date together.

A memory has two shelves: what is believed lies on one, what is in quarantine on the other, so that no search for one
can meet the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from verbal.contracts import Index
from verbal.types import Reflection, Status

from .bm25 import BM25
from .retrieval import KeyWords, fuse

_DEPTH = 30
"""Items of each ranking that are fused, at least."""
_LOOKED_AT = 10
"""Times as many items as are wanted are looked at, by words, for relevant ones: a word may be in every item."""


class Shelf:
    """The items of one standing.

    Args:
        status: Which items lie here.
        index: Vectors to ids.
        keys: The filter against irrelevant items.
    """

    def __init__(self, status: Status, index: Index, keys: KeyWords) -> None:
        self.status, self.index, self.keys = status, index, keys
        self.lexical = BM25()
        self.ids: set[str] = set()

    def file(self, items: Iterable[Reflection]) -> None:
        """Files the words of items, or forgets those of another standing; vectors are the caller's."""
        for item in items:
            if item.status == self.status:
                self.ids.add(item.id)
                self.lexical.put(item.id, item.title, item.when, item.text)
                self.keys.put(item)
            elif item.id in self.ids:
                self.ids.discard(item.id)
                self.lexical.drop(item.id)
                self.keys.drop(item.id)

    def similar(
        self,
        query: str,
        k: int,
        hidden: set[str],
        nearest: Callable[[int], Sequence[tuple[str, float]]],
    ) -> list[str]:
        """Ids for a query, best first: words and vectors fused by rank, irrelevant items dropped.

        Args:
            query: What is asked.
            k: Items wanted.
            hidden: Ids that must not come.
            nearest: Gives the n nearest ids of this shelf by vector; called only when it can matter.
        """
        depth = max(_DEPTH, 3 * k)
        by_words = self._relevant(query, self.lexical.ranked(query, hidden), depth)
        if self.keys.min_overlap > 0 and len(by_words) < 2:
            return by_words
        hits = nearest(depth + len(hidden))
        # An index may hold ids that the log no longer shows (a crash between the two), hence the check.
        near = (i for i, _ in hits if i in self.ids and i not in hidden)
        return fuse([by_words, self._relevant(query, near, depth)])

    def _relevant(self, query: str, ranked: Iterable[str], n: int) -> list[str]:
        """The first `n` ids that are about the query."""
        if self.keys.min_overlap <= 0:
            return list(islice(ranked, n))
        return self.keys.first(query, islice(ranked, _LOOKED_AT * n), n)
