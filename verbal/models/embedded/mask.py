"""Which token may come next in an answer: what the prompt holds, and what fits the kinds of columns and values.

Only plain nonsense is ruled out: a sum of texts, a text that is less than a number, the same column twice. What merely
is unlikely (a cell compared with a column in which it does not occur) costs a little.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from verbal.models.embedded.ast import COMPARISONS
from verbal.models.embedded.codec import Encoded, allowed
from verbal.models.embedded.forward import Array
from verbal.models.embedded.slots import is_number
from verbal.models.embedded.vocabulary import DIGITS, INDEX, VOCABULARY

UNLIKELY = 3.0
"""What an unlikely value costs, in units of log-probability."""

_CHANGING = ("sum", "avg", "min", "max", "count")
_BEFORE_COLUMN = ("where", "and", "or", "(")
_UNEVEN = ("<", ">", "<=", ">=", "between")
_COMPARING = (*COMPARISONS, "between", "in", "not_in")
_MEASURED = frozenset(("year", "date", "time", "number", "amount", "price", "height", "weight", "size", "age", "day"))


class Mask:
    """The mask of one prompt."""

    def __init__(self, encoded: Encoded) -> None:
        """Works out what the prompt allows."""
        binding = encoded.binding
        words = allowed(encoded)
        details, index = binding.index.details, binding.index
        self.columns = {slot: place for slot, place in binding.columns.items() if slot in words}
        kinds = {slot: details[place].type for slot, place in self.columns.items()}
        numbers = {slot for slot, kind in kinds.items() if kind in ("int", "real")}
        dates = {slot for slot, kind in kinds.items() if kind == "date"}
        self.even = {
            slot
            for slot, kind in kinds.items()
            if kind == "text"
            and not _MEASURED & set(index.words[self.columns[slot]])
            and not any(is_number(value) for value in details[self.columns[slot]].values)
        }
        self.numbers = numbers
        self.values = {f"v{place}": text for place, text in enumerate(binding.values)}
        self.found = binding.found
        tables = set(binding.table_slots.values()) & words
        values = {word for word in words if word[0] in "vu" and word[1:].isdigit()}
        summed = numbers | {"(", "distinct"} if numbers else set(self.columns) | {"("}
        after = {
            "sum": summed,
            "avg": summed,
            **{word: values for word in ("contains", "starts", "ends", "not_contains")},
            "year": dates or set(self.columns) - numbers,
            "month": dates or set(self.columns) - numbers,
            "limit": {slot for slot, text in self.values.items() if text.isdigit()} | set(DIGITS),
            "group_by": set(self.columns) | tables,
            "from": tables,
        }
        self.open = penalty(words)
        self.closed = {
            INDEX[word]: penalty(fitting) for word, fitting in after.items() if fitting and encoded.role != "proposer"
        }
        self.sql = encoded.role in ("solver", "critic")

    def apply(self, scores: Array, sofar: Sequence[int]) -> Array:
        """Scores of the next token after `sofar`, minus infinity for what may not come."""
        if not sofar:
            return scores + self.open
        scores = scores + self.closed.get(sofar[-1], self.open)
        if self.sql:
            self._compared(scores, sofar)
            self._repeated(scores, sofar)
        return scores

    def _compared(self, scores: Array, sofar: Sequence[int]) -> None:
        """Keeps operators to the kind of column before them, and values to the column they are compared with."""
        last, before = VOCABULARY[sofar[-1]], VOCABULARY[sofar[-2]] if len(sofar) > 1 else ""
        if last in self.even and before in _BEFORE_COLUMN:
            scores[[INDEX[word] for word in _UNEVEN]] = -np.inf
        opened = last == "(" and before in ("in", "not_in")
        at = 3 if opened else 2
        column = VOCABULARY[sofar[-at]] if len(sofar) >= at else ""
        changed = VOCABULARY[sofar[-at - 1]] if len(sofar) > at else ""
        operator = before if opened else last
        if (
            operator not in _COMPARING
            or column not in self.columns
            or changed in (*_CHANGING, "year", "month", "distinct")
        ):
            return
        place = self.columns[column]
        for slot, text in self.values.items():
            found = self.found.get(text, ())
            if column in self.numbers and not is_number(text):
                scores[INDEX[slot]] = -np.inf
            elif found and place not in found:
                scores[INDEX[slot]] -= UNLIKELY

    def _repeated(self, scores: Array, sofar: Sequence[int]) -> None:
        """Rules out a second equal item of a select list."""
        words = [VOCABULARY[token] for token in sofar]
        start = len(words) - 1 - words[::-1].index("select") if "select" in words else -1
        if start < 0 or "from" in words[start:]:
            return
        items: list[list[str]] = [[]]
        for word in words[start + 1 :]:
            if word == ",":
                items.append([])
            elif word != "distinct" or items[-1]:
                items[-1].append(word)
        for item in items[:-1]:
            if item[:-1] == items[-1] and item:
                scores[INDEX[item[-1]]] = -np.inf


def penalty(words: Collection[str]) -> Array:
    """Zero for these tokens, minus infinity for all others."""
    found = np.full(len(VOCABULARY), -np.inf, np.float32)
    found[[INDEX[word] for word in words]] = 0.0
    return found
