"""Cells that a text nearly mentions: misspelled, without its accents, with its words in another order.

A span of one to four words is compared (optimal string alignment distance: one insertion, deletion, substitution or
swap of neighbours costs 1) with cells of about its length. Short words must agree in their first letter, words that are
names of the schema or grammar are left alone, and what is further away than `allowed` says is not taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from verbal.models.embedded.lexicon import ASKING, CLOSED, SYNONYMS, noun
from verbal.models.embedded.words import identifier_words

from .schema import Table

if TYPE_CHECKING:
    from .values import Cell

MOST_COMPARED = 60_000
"""Cells of one length that a span is compared with; where there are more, only those with its first letter."""

MOST_WORDS = 200
"""Words of a text that are looked at."""

LONGEST_SPAN = 4
"""Words of a span."""

MOST_FOUND = 3
"""Different cells that one span may stand for."""

_WORD = re.compile(r"\w+")
_FREE = CLOSED | ASKING


def allowed(length: int) -> int:
    """Edits that a span of `length` characters may be away from a cell.

    >>> [allowed(n) for n in (4, 5, 8, 9, 15, 30)]
    [0, 1, 1, 2, 3, 3]
    """
    return 0 if length < 5 else 1 if length < 9 else 2 if length < 15 else 3


def unaccented(text: str) -> str:
    """`text` in lower case without accents.

    >>> unaccented("São José, Łódź, Straße")
    'sao jose, lodz, strasse'
    """
    if text.isascii():
        return text.casefold()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in parts if not unicodedata.combining(c)).translate(_LETTERS)


_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ı": "i"})


class NearCells:
    """An index of cells by length and first letter, on top of the exact one."""

    def __init__(self, index: Mapping[str, list[Cell]], tables: Sequence[Table]) -> None:
        """Prepares what is to be compared: one string a different value."""
        self._cells: dict[str, list[Cell]] = {}
        self._sorted: dict[str, list[Cell]] = {}
        for key, cells in index.items():
            flat = unaccented(key)
            self._cells.setdefault(flat, []).extend(cells)
            if " " in flat:
                self._sorted.setdefault(" ".join(sorted(flat.split())), []).extend(cells)
        self._by_length: dict[int, list[str]] = {}
        self._by_letter: dict[tuple[int, str], list[str]] = {}
        for flat in self._cells:
            if allowed(len(flat)) and not flat.replace(" ", "").isdigit():
                self._by_length.setdefault(len(flat), []).append(flat)
                self._by_letter.setdefault((len(flat), flat[0]), []).append(flat)
        self._known = {noun(word) for t in tables for name in (t.name, *(c.name for c in t.columns))
                       for word in identifier_words(name)}  # fmt: skip

    def mentions(self, text: str, covered: Sequence[tuple[int, int]] = ()) -> list[list[Cell]]:
        """The cells of each near mention, longest spans first and then in order.

        Args:
            text: Any text.
            covered: Places (from, to) that mention something exactly: left alone, but for a span that reaches beyond.
        """
        words = list(islice(_WORD.finditer(text), MOST_WORDS))
        taken = list(covered)
        found: list[tuple[int, list[Cell]]] = []
        for length in range(min(LONGEST_SPAN, len(words)), 0, -1):
            for first in range(len(words) - length + 1):
                start, end = words[first].start(), words[first + length - 1].end()
                if _taken(start, end, taken):
                    continue
                span = [word[0].casefold() for word in words[first : first + length]]
                if self._says_nothing(span):
                    continue
                if cells := self._near(unaccented(" ".join(span))):
                    found.append((start, cells))
                    taken.append((start, end))
        return [cells for _, cells in sorted(found, key=lambda pair: pair[0])]

    def _says_nothing(self, span: Sequence[str]) -> bool:
        """Whether the span begins or ends with grammar, or is made of names of the schema alone."""
        ends = {span[0], span[-1]}
        if ends & _FREE or ends & {noun(word) for word in ends} & _FREE or max(map(len, span)) < 4:
            return True
        return all(self._names(word) for word in span)

    def _names(self, word: str) -> bool:
        base = noun(word)
        return base in self._known or base in _FREE or any(other in self._known for other in SYNONYMS.get(base, ()))

    def _near(self, span: str) -> list[Cell]:
        if span in self._cells:
            return self._cells[span]
        if " " in span and (other := self._sorted.get(" ".join(sorted(span.split())))):
            return other
        limit = allowed(len(span))
        if not limit or span.replace(" ", "").isdigit():
            return []
        best: dict[str, int] = {}
        for key, distance in self._compared(span, limit):
            if _same_start(span, key) and _same_digits(span, key):
                best[key] = distance
        least = min(best.values(), default=0)
        near = [key for key, distance in best.items() if distance == least]
        return [cell for key in sorted(near)[:MOST_FOUND] for cell in self._cells[key]] if len(near) <= 9 else []

    def _compared(self, span: str, limit: int) -> Iterator[tuple[str, int]]:
        from rapidfuzz import process
        from rapidfuzz.distance import OSA

        for length in range(len(span) - limit, len(span) + limit + 1):
            keys = self._by_length.get(length, [])
            if len(keys) > MOST_COMPARED:
                keys = self._by_letter.get((length, span[0]), [])[:MOST_COMPARED]
            most = min(limit, allowed(length))
            for key, distance, _ in process.extract(span, keys, scorer=OSA.distance, score_cutoff=most, limit=20):
                yield key, int(distance)


def _taken(start: int, end: int, taken: Sequence[tuple[int, int]]) -> bool:
    """Whether a place is taken; one that reaches beyond a place on both or one of its sides, and holds it, is not."""
    return any(
        start < stop and begin < end and not (start <= begin and stop <= end and end - start > stop - begin)
        for begin, stop in taken
    )


def _same_start(span: str, key: str) -> bool:
    return len(span) > 8 or span[0] == key[0]


def _same_digits(span: str, key: str) -> bool:
    """Numbers are never misspelled here: `Room 12` is not `Room 13`."""
    return re.findall(r"\d+", span) == re.findall(r"\d+", key)
