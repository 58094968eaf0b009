"""Execution match: does the answer give the rows that the gold query gives.

Rows are compared as a multiset, in order when the gold query orders them; columns may stand in any order and their
names do not matter; numbers agree within a small tolerance. The words name the first difference and never show the
gold query or its cells.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from verbal.contracts import CriticContext, Observation
from verbal.types import Attempt, Feedback, StopReason, Task

Row = tuple[Any, ...]
"""One row of a result."""

_DIGITS = 9
_REMEMBERED = 256
_CELLS_TRIED = 2_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an answer's rows differ from the right ones."""

    match: bool
    text: str
    """The first difference in words."""
    parts: dict[str, float] = field(default_factory=dict)
    """`columns`: share of the columns that are right; `rows`: F1 of the rows (columns in the best order)."""


class SqlResult:
    """Value 1 when the result is right, else 0; None when that cannot be said."""

    name = "sql_result"
    oracle: ClassVar[bool] = True

    def __init__(self) -> None:
        """Remembers the results of the gold queries it has run."""
        self._gold: OrderedDict[tuple[str, str, str], Observation] = OrderedDict()

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt."""
        gold = await self._gold_result(task, context)
        return [await self._one(task, attempt, gold, context) for attempt in group]

    async def _gold_result(self, task: Task, context: CriticContext) -> Observation | str:
        if not task.gold or not task.gold.strip():
            return "the task has no gold answer"
        key = (task.id, str(task.info.get("db")), task.gold)
        seen = self._gold.get(key)
        if seen is None:
            if context.execute is None:
                return "the gold answer cannot be run here (no execute in the context)"
            seen = await context.execute(task, task.gold)
            self._gold[key] = seen
            if len(self._gold) > _REMEMBERED:
                self._gold.popitem(last=False)
        else:
            self._gold.move_to_end(key)
        if seen.info.get("error"):
            del self._gold[key]
            return f"the gold answer does not run: {seen.info['error']}"
        if seen.info.get("truncated"):
            return "the gold answer gives more rows than are fetched"
        return seen

    async def _one(self, task: Task, attempt: Attempt, gold: Observation | str, context: CriticContext) -> Feedback:
        if attempt.stop in (StopReason.ERROR, StopReason.BUDGET) and not attempt.answer:
            return self._unknown(attempt, f"the attempt ended without an answer: {attempt.error or attempt.stop.value}")
        if isinstance(gold, str):
            return self._unknown(attempt, gold)
        if not attempt.answer.strip():
            return self._known(attempt, Comparison(False, "there is no query", {"columns": 0.0, "rows": 0.0}))
        seen = context.observations.get(attempt.id)
        if seen is None or "rows" not in seen.info:
            if context.execute is None:
                return self._unknown(attempt, "the attempt was not observed")
            seen = await context.execute(task, attempt.answer)
        if seen.info.get("error_class") in ("locked", "missing"):
            return self._unknown(attempt, f"the answer could not be run: {seen.info['error']}")
        if seen.info.get("error"):
            text = f"the query fails: {seen.info['error']}"
            return self._known(attempt, Comparison(False, text, {"columns": 0.0, "rows": 0.0}))
        return self._known(attempt, compare(seen.info, gold.info, ordered=is_ordered(task.gold or "")))

    def _known(self, attempt: Attempt, found: Comparison) -> Feedback:
        return Feedback(
            attempt=attempt.id,
            critic=self.name,
            value=float(found.match),
            text=found.text,
            parts=found.parts,
            source="gold",
            oracle=True,
        )

    def _unknown(self, attempt: Attempt, reason: str) -> Feedback:
        return Feedback(attempt=attempt.id, critic=self.name, reason=reason, source="gold", oracle=True)


def compare(answer: dict[str, Any], gold: dict[str, Any], *, ordered: bool = False) -> Comparison:
    """How the result `answer` differs from `gold`; both have `columns` and `rows`.

    Args:
        answer: The result to judge.
        gold: The right result.
        ordered: Whether the order of the rows counts.
    """
    ours, right = [_row(row) for row in answer["rows"]], [_row(row) for row in gold["rows"]]
    width, wanted = len(answer["columns"]), len(gold["columns"])
    shared = _shared_columns(ours, right, width, wanted)
    order = _best_order(ours, right, width) if width == wanted else None
    moved = [tuple(row[i] for i in order) for row in ours] if order else ours
    overlap = sum((Counter(moved) & Counter(right)).values()) if width == wanted else 0
    total = len(ours) + len(right)
    same = width == wanted and (overlap == len(ours) == len(right) or _close(moved, right))
    in_order = not ordered or moved == right or _close(moved, right, ordered=True)
    rows = 1.0 if same else 2 * overlap / total if total else 0.0
    parts = {"columns": shared / max(width, wanted, 1), "rows": rows}
    if same and in_order:
        return Comparison(True, "the result is right", {"columns": 1.0, "rows": 1.0})
    if same:
        return Comparison(False, "the rows are right but in the wrong order", parts)
    return Comparison(False, _difference(moved, right, width, wanted, answer), parts)


def _difference(ours: list[Row], right: list[Row], width: int, wanted: int, answer: dict[str, Any]) -> str:
    if width != wanted:
        gap = abs(width - wanted)
        kind = "missing" if width < wanted else "too many"
        return f"{gap} column{'' if gap == 1 else 's'} {kind} in the result"
    if not ours:
        return "the query returns no rows"
    if not right:
        return "the query returns rows where none are right"
    if set(ours) == set(right):
        return "the result has duplicate rows" if len(ours) > len(right) else "the result lacks duplicate rows"
    wrong = _wrong_columns(ours, right, answer["columns"])
    if len(ours) != len(right):
        extra, lacking = set(ours) - set(right), set(right) - set(ours)
        count = "too many" if len(ours) > len(right) else "too few"
        kind = "" if extra and lacking else ", the others are right"
        return f"the result has {count} rows{kind}"
    return f"the number of rows is right but values are wrong{wrong}"


def _wrong_columns(ours: list[Row], right: list[Row], names: Sequence[str]) -> str:
    wrong = [i for i in range(len(names)) if Counter(row[i] for row in ours) != Counter(row[i] for row in right)]
    if not wrong:
        return ": cells of different rows are mixed up"
    return f" in column {', '.join(f'{i + 1} ({names[i]})' for i in wrong[:4])}"


def _row(row: Sequence[Any]) -> Row:
    return tuple(_cell(value) for value in row)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") + 0.0 if math.isfinite(value) else str(value)
    return value


def _shared_columns(ours: list[Row], right: list[Row], width: int, wanted: int) -> int:
    return sum((_signatures(ours, width) & _signatures(right, wanted)).values())


def _signatures(rows: list[Row], width: int) -> Counter[frozenset[tuple[Any, int]]]:
    return Counter(frozenset(Counter(row[i] for row in rows).items()) for i in range(width))


def _best_order(ours: list[Row], right: list[Row], width: int) -> tuple[int, ...] | None:
    """The order of our columns that makes our rows the right ones; None when they are so already or never will be."""
    wanted = Counter(right)
    if len(ours) != len(right) or Counter(ours) == wanted:
        return None
    mine = [Counter(row[i] for row in ours) for i in range(width)]
    theirs = [Counter(row[i] for row in right) for i in range(width)]
    if _signatures(ours, width) != _signatures(right, width):
        return None
    choices = [[i for i in range(width) if mine[i] == theirs[j]] for j in range(width)]
    most = max(24, _CELLS_TRIED // (len(ours) * width + 1))
    for tried, order in enumerate(_orders(choices)):
        if tried >= most:
            return None
        if Counter(tuple(row[i] for i in order) for row in ours) == wanted:
            return order
    return None


def _orders(choices: list[list[int]], taken: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    if len(taken) == len(choices):
        yield taken
        return
    for choice in choices[len(taken)]:
        if choice not in taken:
            yield from _orders(choices, (*taken, choice))


def _close(ours: list[Row], right: list[Row], *, ordered: bool = False) -> bool:
    """Equal rows within the tolerance, for numbers that fall on two sides of a rounding step."""
    if len(ours) != len(right):
        return False
    if not ordered:
        ours, right = sorted(ours, key=_sort_key), sorted(right, key=_sort_key)
    return all(len(a) == len(b) and all(map(_same, a, b)) for a, b in zip(ours, right, strict=True))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=1e-7, abs_tol=1e-9)
    return bool(a == b)


def _sort_key(row: Row) -> tuple[tuple[int, Any], ...]:
    return tuple(
        (0, 0) if v is None else (1, float(f"{v:.5g}")) if isinstance(v, int | float) else (2, str(v)) for v in row
    )


def is_ordered(sql: str) -> bool:
    """Whether the outermost query has an ORDER BY.

    >>> is_ordered("SELECT a FROM (SELECT a FROM t ORDER BY a)"), is_ordered("SELECT a FROM t ORDER BY a LIMIT 3")
    (False, True)
    """
    plain = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", " x ", sql, flags=re.DOTALL)
    depth, outer = 0, []
    for piece in re.split(r"([()])", plain):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if depth == 0:
            outer.append(piece)
    return re.search(r"\border\s+by\b", " ".join(outer), re.IGNORECASE) is not None


__all__ = ["SqlResult", "Comparison", "Row", "compare", "is_ordered"]  # noqa: RUF022  (the part comes first)
