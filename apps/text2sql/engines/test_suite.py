"""The verdict of the official test-suite evaluator, for figures that compare with published ones.

The rules are those of "Semantic Evaluation for Text-to-SQL with Distilled Test Suites" (Zhong, Yu and Klein 2020,
arXiv 2010.02840) and its evaluator, written anew: DISTINCT is taken out of both unless it is kept, an ORDER BY anywhere
in the gold query makes the order count, two empty results are equal whatever their columns, cells must be equal as
Python values (1 == 1.0, no tolerance), and columns may stand in any order. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from verbal.rows import Row, same

_TOKENS = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/|\bdistinct\b|;",
    re.IGNORECASE | re.DOTALL,
)
_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)


def prepared(sql: str, keep_distinct: bool = False) -> str:
    """The query as the official evaluator runs it.

    >>> prepared("SELECT count(DISTINCT a) FROM t WHERE b > = 'distinct'; DROP TABLE t")
    "SELECT count( a) FROM t WHERE b >= 'distinct';"
    """
    sql = sql.replace("> =", ">=").replace("< =", "<=").replace("! =", "!=")
    if not keep_distinct:
        sql = _without_distinct(sql)
    return _YEAR.sub("2020", sql) if "curdate" in sql.lower() else sql


def _without_distinct(sql: str) -> str:
    lower = sql.lower()
    if "distinct" not in lower and ";" not in sql:
        return sql
    pieces, start = [], 0
    for token in _TOKENS.finditer(sql):
        if token[0] == ";":  # only the first statement is read there
            pieces.append(sql[start : token.end()])
            start = len(sql)
            break
        if token[0].lower() == "distinct":
            pieces.append(sql[start : token.start()])
            start = token.end()
    return "".join(pieces) + sql[start:]


def is_ordered(gold: str) -> bool:
    """Whether the official evaluator compares the order of the rows."""
    return "order by" in gold.lower()


def equal(ours: list[Row], right: list[Row], *, ordered: bool) -> bool:
    """Whether the official evaluator calls the two results equal."""
    if not ours and not right:
        return True
    if len(ours) != len(right) or len(ours[0]) != len(right[0]):
        return False
    if not same(ours, right, ordered=ordered, exact=True):
        return False
    if not _has_floats(ours) and not _has_floats(right):
        return True
    # It sorts the cells of each row by their text and type first; 1 and 1.0 then may stand in different places.
    first, second = [_sorted_cells(row) for row in ours], [_sorted_cells(row) for row in right]
    return first == second if ordered else set(first) == set(second)


def _has_floats(rows: Sequence[Row]) -> bool:
    return any(v.__class__ is float for row in rows for v in row)


def _sorted_cells(row: Row) -> tuple[Any, ...]:
    return tuple(sorted(row, key=lambda cell: f"{cell}{type(cell)}"))


__all__ = ["equal", "is_ordered", "prepared"]
