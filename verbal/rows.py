"""When two results are the same: rows as a multiset, columns in any order, numbers within a small tolerance.

Pure functions on plain rows, standard library only: critics judge by them, and so do the processes that run queries,
which import nothing else of the house. The words name the first difference and never show a gold cell.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = tuple[Any, ...]
"""One row of a result."""

_DIGITS = 9
_CELLS_TRIED = 2_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an answer's rows differ from the right ones."""

    match: bool
    text: str
    """The first difference in words."""
    parts: dict[str, float] = field(default_factory=dict)
    """`columns`: share of the columns that are right; `rows`: F1 of the rows (columns in the best order)."""


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


__all__ = ["Comparison", "Row", "compare", "is_ordered"]
