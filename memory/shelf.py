"""One standing's items as retrieval sees them: vectors, words and keys, kept up to date together.

A memory has two shelves: what is believed lies on one, what is in quarantine on the other, so that no search for one
can meet the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from verbal.contracts import Index
from verbal.types import Reflection, Status

from .bm25 import BM25
from .retrieval import KeyWords, full_text, fuse


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
                self.lexical.put(item.id, full_text(item))
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
        lexical = {i: s for i, s in self.lexical.scores(query).items() if i not in hidden}
        allowed: set[str] | None = None
        if self.keys.min_overlap > 0:
            allowed = self.keys.relevant(query, lexical)
            if len(allowed) < 2:
                return list(allowed)
            lexical = {i: s for i, s in lexical.items() if i in allowed}
        depth = max(50, 4 * k)
        by_words = sorted(lexical, key=lambda i: (-round(lexical[i], 9), i))[:depth]
        hits = nearest(depth + len(hidden))
        # An index may hold ids that the log no longer shows (a crash between the two), hence the check.
        by_vector = [i for i, _ in hits if i in self.ids and i not in hidden and (not allowed or i in allowed)]
        return fuse([by_words, by_vector[:depth]])
