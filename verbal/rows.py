"""When two results are the same: rows as a multiset, columns in any order, numbers within a small tolerance.

Pure functions on plain rows, standard library only: critics judge by them, and so do the processes that run queries,
which import nothing else of the house. `same` gives the verdict and is fast; `compare` gives words and shares too. The
words name the first difference and never show a gold cell or the name of a gold column.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, permutations, product
from typing import Any

Row = tuple[Any, ...]
"""One row of a result."""

DIGITS = 12
"""Significant digits in which two floats must agree, or else be within `NEAR` of each other."""

NEAR = 1e-10
"""Relative distance of two numbers that count as equal: the noise of adding in another order, far below a cent."""

OUTAGES = frozenset({"locked", "missing", "unreachable", "login", "refused_account", "not_a_database", "damaged"})
"""Error classes that say nothing of a query: its database could not be used, so an answer gets no score by them."""

_STEPS, _CELLS = 400, 4_000_000
"""Pairs of columns tried, and cells looked at, at most, to find the order of the columns (30 pairs at least)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an answer's rows differ from the right ones."""

    match: bool
    text: str
    """The first difference in words."""
    parts: dict[str, float] = field(default_factory=dict)
    """`columns`: share of the columns that are right; `rows`: F1 of the rows (columns in the best order)."""


def same(ours: list[Row], right: list[Row], *, ordered: bool = False, exact: bool = False) -> bool:
    """Whether two results with as many columns are the same: the verdict of `compare`, without its words.

    Args:
        ours: Rows of the answer.
        right: The right rows.
        ordered: Whether the order of the rows counts.
        exact: Whether numbers must be equal, without a tolerance.
    """
    if ours == right:
        return True
    if len(ours) != len(right) or len(ours[0]) != len(right[0]):
        return False
    if not ordered and Counter(ours) == Counter(right):
        return True
    if exact:
        return _permuted(ours, right, ordered)
    return _same(normal(ours), normal(right), ordered)


def compare(answer: dict[str, Any], gold: dict[str, Any], *, ordered: bool = False) -> Comparison:
    """How the result `answer` differs from `gold`; both have `columns` and `rows`.

    Args:
        answer: The result to judge.
        gold: The right result.
        ordered: Whether the order of the rows counts.
    """
    ours, right = normal(answer["rows"]), normal(gold["rows"])
    width, wanted = len(answer["columns"]), len(gold["columns"])
    if width == wanted and (ours == right or _same(ours, right, ordered)):
        return Comparison(True, "the result is right", {"columns": 1.0, "rows": 1.0})
    order = _order(ours, right) if width == wanted and not _equal(ours, right) else None
    moved = [tuple([row[i] for i in order]) for row in ours] if order else ours
    if width == wanted and ordered and (_equal(moved, right) or _close(moved, right)):
        return Comparison(False, "the rows are right but in the wrong order", {"columns": 1.0, "rows": 1.0})
    overlap = sum((Counter(moved) & Counter(right)).values()) if width == wanted else 0
    total = len(ours) + len(right)
    shared = _shared_columns(ours, right, width, wanted)
    parts = {"columns": shared / max(width, wanted, 1), "rows": 2 * overlap / total if total else 0.0}
    return Comparison(False, _difference(moved, right, answer["columns"], wanted), parts)


def fingerprint(result: Mapping[str, Any]) -> str | None:
    """What tells results apart that are to be counted: equal for rows and columns in any order, and for 1 and 1.0.

    Numbers are compared as `normal` gives them: two that lie on two sides of a rounding step are different, even where
    `same` would take them for noise. So are some results with many alike columns that are the same.

    Args:
        result: `columns` and `rows`; `error` where it has none.

    Returns:
        A short text; None for a result with an error or without rows to compare.
    """
    if result.get("error") or "rows" not in result:
        return None
    rows, width = result["rows"], len(result.get("columns", ()))
    columns = [tuple(map(_cell_text, column)) for column in zip(*rows, strict=True)]
    lines = min(sorted(zip(*order, strict=True)) for order in _orders(columns, len(rows)))
    return f"{width}x{len(rows)}-{hashlib.blake2b(repr(lines).encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def _cell_text(value: Any) -> str:
    value = _cell(value) if value.__class__ is float else value
    return (
        repr(int(value)) if isinstance(value, int) or (isinstance(value, float) and value.is_integer()) else repr(value)
    )


def _orders(columns: list[tuple[str, ...]], height: int) -> list[list[tuple[str, ...]]]:
    """The columns sorted by content: all orders of those that their cells and their rows do not tell apart.

    One order, as they came, where there are too many to look at.
    """
    names: list[tuple[Any, ...]] = [tuple(sorted(column)) for column in columns]
    if len(set(names)) < len(set(columns)):
        for _ in range(2):
            ranks = {name: rank for rank, name in enumerate(sorted(set(names)))}
            marked = [[f"{ranks[name]} {cell}" for cell in column] for name, column in zip(names, columns, strict=True)]
            lines = [repr(sorted(line)) for line in zip(*marked, strict=True)]
            names = [tuple(sorted(zip(column, lines, strict=True))) for column in columns]
    alike = [[c for n, c in zip(names, columns, strict=True) if n == name] for name in sorted(set(names))]
    count = math.prod(math.factorial(len(group)) for group in alike if len(set(group)) > 1)
    if count > 24 or count * height * len(columns) > _CELLS:
        return [list(chain(*alike))]
    ways = [list(permutations(group)) if len(set(group)) > 1 else [tuple(group)] for group in alike]
    return [list(chain(*order)) for order in product(*ways)]


# the verdict ------------------------------------------------------------------------------------------------------


def normal(rows: Sequence[Sequence[Any]]) -> list[Row]:
    """Rows as they are compared: floats to `DIGITS` significant digits, larger ones to the unit."""
    return [tuple([_cell(v) if v.__class__ is float else v for v in row]) for row in rows]


def _cell(value: float) -> Any:
    if 10**DIGITS <= abs(value) < 2**53:
        return float(round(value))  # an equal int keeps all its digits
    return float(f"{value:.{DIGITS}g}") + 0.0 if math.isfinite(value) else str(value)


def _same(ours: list[Row], right: list[Row], ordered: bool) -> bool:
    if len(ours) != len(right):
        return False
    if not ours or _permuted(ours, right, ordered):
        return True
    if not (_has_floats(ours) or _has_floats(right)):
        return False
    return all(map(_near_rows, ours, right)) if ordered else _close(ours, right)


def _permuted(ours: list[Row], right: list[Row], ordered: bool) -> bool:
    """Whether some order of the columns makes the results equal, cell by cell; both have as many rows, at least one."""
    if ordered:
        return Counter(zip(*ours, strict=True)) == Counter(zip(*right, strict=True))
    return _equal(ours, right) or _order(ours, right) is not None


def _equal(ours: list[Row], right: list[Row]) -> bool:
    return len(ours) == len(right) and Counter(ours) == Counter(right)


def _order(ours: list[Row], right: list[Row]) -> tuple[int, ...] | None:
    """The order of our columns that makes our rows the right ones; None when there is none.

    Columns are placed one at a time, and the rows so far must be those of the right columns so far.
    """
    if len(ours) != len(right) or not ours or len(ours[0]) < 2:
        return None
    mine, theirs = list(zip(*ours, strict=True)), list(zip(*right, strict=True))
    bags, wanted = [_signature(c) for c in mine], [_signature(c) for c in theirs]
    if Counter(bags) != Counter(wanted):
        return None
    # Columns that few could stand for come first.
    places = sorted(range(len(theirs)), key=lambda j: (bags.count(wanted[j]), j))
    steps = max(30, min(_STEPS, _CELLS // (len(ours) * len(mine))))
    found = _place(mine, theirs, bags, wanted, places, [], [steps])
    return None if found is None else tuple(i for _, i in sorted(zip(places, found, strict=True)))


def _place(
    mine: list[Row], theirs: list[Row], bags: list[Any], wanted: list[Any],
    places: list[int], taken: list[int], steps: list[int],
) -> list[int] | None:  # fmt: skip
    depth = len(taken)
    if depth == len(places):
        return taken
    goal = Counter(zip(*(theirs[j] for j in places[: depth + 1]), strict=True))
    for i, bag in enumerate(bags):
        if i in taken or bag != wanted[places[depth]] or any(mine[i] == mine[k] for k in range(i) if k not in taken):
            continue
        steps[0] -= 1
        if steps[0] < 0:
            return None
        if Counter(zip(*(mine[k] for k in (*taken, i)), strict=True)) == goal:
            found = _place(mine, theirs, bags, wanted, places, [*taken, i], steps)
            if found is not None:
                return found
    return None


def _signature(column: Sequence[Any]) -> frozenset[tuple[Any, int]]:
    return frozenset(Counter(column).items())


def _close(ours: list[Row], right: list[Row]) -> bool:
    """Equal rows within the tolerance, for numbers that fall on two sides of a rounding step."""
    if len(ours) != len(right):
        return False
    ours, right = sorted(ours, key=_sort_key), sorted(right, key=_sort_key)
    return all(map(_near_rows, ours, right))


def _has_floats(rows: list[Row]) -> bool:
    return any(v.__class__ is float for row in rows for v in row)


def _near_rows(first: Row, second: Row) -> bool:
    return len(first) == len(second) and all(map(_near, first, second))


def _near(a: Any, b: Any) -> bool:
    if (isinstance(a, float) and isinstance(b, int | float)) or (isinstance(b, float) and isinstance(a, int)):
        return a == b or math.isclose(a, b, rel_tol=NEAR, abs_tol=1e-9)
    return bool(a == b)


def _sort_key(row: Row) -> tuple[tuple[int, Any], ...]:
    return tuple(
        (0, 0) if v is None else (1, float(f"{v:.5g}")) if isinstance(v, int | float) else (2, str(v)) for v in row
    )


# the words --------------------------------------------------------------------------------------------------------


def _difference(ours: list[Row], right: list[Row], names: Sequence[str], wanted: int) -> str:
    width = len(names)
    if width != wanted:
        return _other_width(ours, right, names, wanted)
    if not ours:
        return "the query returns no rows"
    if not right:
        return "the query returns rows where none are right"
    mine, theirs = set(ours), set(right)
    if mine == theirs:
        return "the result has duplicate rows" if len(ours) > len(right) else "the result lacks duplicate rows"
    if len(ours) == len(right):
        return f"the number of rows is right but values are wrong{_wrong_columns(ours, right, names)}"
    if len(ours) > len(right):
        more = ", the others are right: a condition is missing or too loose" if theirs <= mine else ""
        return f"the result has too many rows{more}"
    fewer = ", the others are right: a condition or a join takes too many away" if mine <= theirs else ""
    return f"the result has too few rows{fewer}"


def _other_width(ours: list[Row], right: list[Row], names: Sequence[str], wanted: int) -> str:
    gap = abs(len(names) - wanted)
    kind = "missing" if len(names) < wanted else "too many"
    said = f"{gap} column{'' if gap == 1 else 's'} {kind} in the result"
    theirs = _signatures(right, wanted)
    known = [i for i, bag in enumerate(column_bags(ours, len(names))) if theirs[bag] > 0] if ours and right else []
    if len(names) > wanted and len(known) == wanted:
        return f"{said}: not asked for is {_named([i for i in range(len(names)) if i not in known], names)}"
    if len(names) < wanted and known and len(known) == len(names):
        return f"{said}, the others are right"
    return said


def _wrong_columns(ours: list[Row], right: list[Row], names: Sequence[str]) -> str:
    mine, theirs = column_bags(ours, len(names)), column_bags(right, len(names))
    wrong = [i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
    return f" in {_named(wrong, names)}" if wrong else ": cells of different rows are mixed up"


def _named(places: Sequence[int], names: Sequence[str]) -> str:
    return f"column {', '.join(f'{i + 1} ({names[i]})' for i in places[:4])}"


def column_bags(rows: list[Row], width: int) -> list[frozenset[tuple[Any, int]]]:
    """The cells of each column, each with the number of its rows; give it `normal` rows."""
    return [_signature([row[i] for row in rows]) for i in range(width)]


def _signatures(rows: list[Row], width: int) -> Counter[frozenset[tuple[Any, int]]]:
    return Counter(column_bags(rows, width))


def _shared_columns(ours: list[Row], right: list[Row], width: int, wanted: int) -> int:
    return sum((_signatures(ours, width) & _signatures(right, wanted)).values())


_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)


def is_ordered(sql: str) -> bool:
    """Whether the outermost query has an ORDER BY.

    >>> is_ordered("SELECT a FROM (SELECT a FROM t ORDER BY a)"), is_ordered("SELECT a FROM t ORDER BY a LIMIT 3")
    (False, True)
    """
    if "order" not in sql.lower():
        return False
    depth, outer = 0, []
    for piece in re.split(r"([()])", _QUOTED.sub(" x ", sql)):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if depth == 0:
            outer.append(piece)
    return re.search(r"\border\s+by\b", " ".join(outer), re.IGNORECASE) is not None


__all__ = [
    "DIGITS", "NEAR", "OUTAGES", "Comparison", "Row", "column_bags", "compare", "fingerprint", "is_ordered", "normal",
    "same",
]  # fmt: skip
