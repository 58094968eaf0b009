"""How hard a gold query is, as Spider defines it: easy, medium, hard or extra by counts of its parts.

Only the outermost query is counted, of a set operation its first part. Three counts decide:

* clauses: WHERE, GROUP BY, ORDER BY and LIMIT one each, every table after the first, every OR and every LIKE;
* nested: subqueries that a condition compares with, and one for a set operation (a subquery in FROM is no nesting);
* others: one each for more than one aggregate, selected column, condition, grouping column.

Source: Yu et al. 2018, arXiv 1809.08887, and the definition of its evaluator (`eval_hardness` of test-suite-sql-eval),
with its oddities, because published tables rest on them: a negated condition and each AND or OR of HAVING count as
aggregates, and an ORDER BY that follows a set operation belongs to its last part, which is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

LEVELS = ("easy", "medium", "hard", "extra")
"""Spider's levels, easiest first."""
UNKNOWN = "unknown"
"""The level of a query that cannot be parsed, and of a question without gold."""

_RULES = (
    ("easy", ((1, 0, 0, 0),)),
    ("medium", ((1, 0, 0, 2), (2, 0, 0, 1))),
    ("hard", ((2, 0, 3, math.inf), (3, 0, 0, 2), (1, 1, 0, 0))),
)
"""Level -> boxes (most clauses, most nested, fewest others, most others); the first level with a fitting box."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Parts of a query that decide how hard it is."""

    clauses: int
    nested: int
    others: int

    @property
    def level(self) -> str:
        """One of `LEVELS`."""
        for name, boxes in _RULES:
            for clauses, nested, fewest, most in boxes:
                if self.clauses <= clauses and self.nested <= nested and fewest <= self.others <= most:
                    return name
        return "extra"


def hardness(sql: str | None, dialect: str = "sqlite") -> str:
    """The level of a query: one of `LEVELS`, or `UNKNOWN`.

    >>> hardness("SELECT count(*) FROM singer"), hardness("SELECT a, b FROM t WHERE c = 1 ORDER BY d")
    ('easy', 'medium')
    """
    found = counts(sql, dialect) if sql else None
    return found.level if found else UNKNOWN


def counts(sql: str, dialect: str = "sqlite") -> Counts | None:
    """The counts of a query; None when it is not one query or cannot be parsed."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree: Any = sqlglot.parse_one(sql, read=dialect)
    except (SqlglotError, RecursionError):
        return None
    nested = 0
    while isinstance(tree, exp.SetOperation | exp.Subquery):
        nested = max(nested, int(isinstance(tree, exp.SetOperation)))
        tree = tree.this
    return _counted(tree, nested) if isinstance(tree, exp.Select) else None


def _counted(select: exp.Select, nested: int) -> Counts:
    from sqlglot import exp

    where, having, joined = _Conditions(), _Conditions(), _Conditions()
    where.add(_inner(select, "where"))
    having.add(_inner(select, "having"))
    joins = select.args.get("joins") or []
    for join in joins:
        joined.add(join.args.get("on"))
    group, order = _listed(select, "group"), _listed(select, "order")
    every = [*joined.units, *where.units, *having.units]
    clauses = bool(where.units) + bool(group) + bool(order) + (select.args.get("limit") is not None) + len(joins)
    clauses += sum(c.ors for c in (where, having, joined))
    clauses += sum(isinstance(_plain(unit), exp.Like) for unit in every)
    aggregates = sum(_aggregates(item) for item in (*select.expressions, *order))
    aggregates += sum(_negated(unit) for unit in (*where.units, *having.units)) + max(len(having.units) - 1, 0)
    others = sum((aggregates > 1, len(select.expressions) > 1, len(where.units) > 1, len(group) > 1))
    return Counts(clauses, nested + sum(_subqueries(unit) for unit in every), others)


class _Conditions:
    """The conditions that AND and OR join."""

    def __init__(self) -> None:
        self.units: list[exp.Expression] = []
        self.ors = 0

    def add(self, tree: exp.Expression | None) -> None:
        from sqlglot import exp

        waiting = [tree] if tree is not None else []
        while waiting:
            node = waiting.pop()
            if isinstance(node, exp.And | exp.Or):
                self.ors += isinstance(node, exp.Or)
                waiting += [node.expression, node.this]
            elif isinstance(node, exp.Paren):
                waiting.append(node.this)
            else:
                self.units.append(node)


def _inner(select: exp.Select, clause: str) -> exp.Expression | None:
    found = select.args.get(clause)
    return found.this if found is not None else None


def _listed(select: exp.Select, clause: str) -> list[exp.Expression]:
    found = select.args.get(clause)
    return list(found.expressions) if found is not None else []


def _plain(unit: exp.Expression) -> exp.Expression:
    """A condition without its NOT."""
    from sqlglot import exp

    while isinstance(unit, exp.Not | exp.Paren):
        unit = unit.this
    return unit


def _negated(unit: exp.Expression) -> bool:
    """NOT IN, NOT LIKE and the like; IS NOT is an operator of its own."""
    from sqlglot import exp

    return isinstance(unit, exp.Not) and not isinstance(_plain(unit), exp.Is)


def _aggregates(item: exp.Expression) -> bool:
    """Whether an item is made by an aggregate, one in a subquery left aside."""
    from sqlglot import exp

    kinds = exp.Count | exp.Sum | exp.Avg | exp.Min | exp.Max
    return any(isinstance(node, kinds) for node in item.walk(prune=lambda n: isinstance(n, exp.Query)))


def _subqueries(unit: exp.Expression) -> int:
    """Subqueries of a condition, what lies inside them left aside."""
    from sqlglot import exp

    found = [n for n in unit.walk(prune=lambda n: isinstance(n, exp.Query)) if isinstance(n, exp.Query)]
    return len(found)


__all__ = ["LEVELS", "UNKNOWN", "Counts", "counts", "hardness"]
