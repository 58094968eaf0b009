"""Neighbours of a query: the same query with one thing changed, the way people and models get queries wrong.

A set of questions, or of database states, is good when it tells the gold query from these. sqlglot only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

BASIC = frozenset({"where", "and", "compare", "aggregate", "order", "limit", "distinct", "column"})
"""Kinds of change that nearly always change the result."""

ALL = BASIC | {"edge", "connective", "literal", "join", "add distinct", "count", "group", "having", "no limit",
               "no order", "set", "other column", "like", "negate"}  # fmt: skip
"""Every kind of change."""

_FLIPPED = {"EQ": "NEQ", "NEQ": "EQ", "GT": "LTE", "GTE": "LT", "LT": "GTE", "LTE": "GT"}
_EDGES = {"GT": "GTE", "GTE": "GT", "LT": "LTE", "LTE": "LT"}
_SWAPPED = {"Avg": "Sum", "Sum": "Avg", "Min": "Max", "Max": "Min"}

Change = tuple[str, Callable[[Any], None]]
"""A kind and what it does to its node (in a copy of the tree)."""


def mutations(
    sql: str,
    kinds: frozenset[str] = BASIC,
    columns: Mapping[str, Sequence[str]] | None = None,
    dialect: str = "sqlite",
) -> list[str]:
    """The neighbours of `sql`, sorted; none when it cannot be parsed.

    Args:
        sql: One query.
        kinds: The kinds of change (`BASIC`, `ALL`).
        columns: Columns of each table (lower case), for `other column`.
        dialect: Its dialect, by sqlglot's name.
    """
    import sqlglot

    try:
        tree = sqlglot.parse_one(sql, read=dialect)
        found = {copy.sql(dialect=dialect) for copy in _changed(tree, kinds, columns or {})}
        return sorted(found - {sql, tree.sql(dialect=dialect)})
    except (sqlglot.errors.SqlglotError, RecursionError):
        return []


def _changed(tree: exp.Expr, kinds: frozenset[str], columns: Mapping[str, Sequence[str]]) -> Iterator[exp.Expr]:
    from sqlglot import exp

    for index, node in enumerate(tree.walk()):
        for kind, change in changes(node, columns):
            if kind not in kinds:
                continue
            holder = exp.Tuple(expressions=[tree.copy()])  # a root without a parent cannot be replaced
            twin = next(other for number, other in enumerate(holder.expressions[0].walk()) if number == index)
            change(twin)
            yield holder.expressions[0]


def changes(node: exp.Expr, columns: Mapping[str, Sequence[str]]) -> Iterator[Change]:
    """What can be changed at one node."""
    from sqlglot import exp

    name = type(node).__name__
    inside_join = node.find_ancestor(exp.Join) is not None and node.find_ancestor(exp.Where) is None
    if name in ("Where", "Having"):
        yield name.lower(), lambda n: n.pop()
    elif name in ("And", "Or"):
        yield "and" if name == "And" else "connective", lambda n: n.replace(n.this)
        yield "connective", lambda n: n.replace(n.expression)
        other = exp.Or if name == "And" else exp.And
        yield "connective", lambda n: n.replace(other(this=n.this, expression=n.expression))
    elif name in _FLIPPED and not inside_join:
        yield "compare", lambda n: n.replace(getattr(exp, _FLIPPED[name])(this=n.this, expression=n.expression))
        if name in _EDGES:
            yield "edge", lambda n: n.replace(getattr(exp, _EDGES[name])(this=n.this, expression=n.expression))
    elif name == "Is":
        yield "compare", lambda n: n.replace(exp.Not(this=n.copy()))
    elif name in ("In", "Exists") and not isinstance(node.parent, exp.Not):
        yield "negate", lambda n: n.replace(exp.Not(this=n.copy()))
    elif name == "Not":
        yield "negate", lambda n: n.replace(n.this)
    elif name in _SWAPPED or name == "Count":
        yield from _aggregates(node)
    elif name in ("Ordered", "Limit", "Order", "Group", "Distinct", "Select", "Join"):
        yield from _clauses(node)
    elif name in ("Union", "Intersect", "Except"):
        yield from _sets(node)
    elif name == "Literal":
        yield from _literals(node)
    elif name == "Column":
        yield from _columns(node, columns)


def _aggregates(node: exp.Expr) -> Iterator[Change]:
    from sqlglot import exp

    name = type(node).__name__
    if name in _SWAPPED:
        yield "aggregate", lambda n: n.replace(getattr(exp, _SWAPPED[name])(this=n.this))
    elif isinstance(node.this, exp.Distinct):
        yield "distinct", lambda n: n.replace(exp.Count(this=n.this.expressions[0]))
    elif isinstance(node.this, exp.Column):
        yield "count", lambda n: n.set("this", exp.Distinct(expressions=[n.this.copy()]))
        yield "count", lambda n: n.replace(exp.Sum(this=n.this))
        yield "count", lambda n: n.set("this", exp.Star())


def _clauses(node: exp.Expr) -> Iterator[Change]:
    from sqlglot import exp

    if isinstance(node, exp.Ordered):
        yield "order", lambda n: n.set("desc", not n.args.get("desc"))
    elif isinstance(node, exp.Order) and isinstance(node.parent, exp.Select):
        yield "no order", lambda n: n.pop()
    elif isinstance(node, exp.Limit) and node.expression.name.isdigit():
        yield "limit", lambda n: n.set("expression", exp.Literal.number(int(n.expression.name) + 1))
        yield "no limit", lambda n: n.pop()
    elif isinstance(node, exp.Group):
        yield "group", lambda n: n.pop()
        if len(node.expressions) > 1:
            yield "group", lambda n: n.set("expressions", n.expressions[:-1])
    elif isinstance(node, exp.Distinct) and isinstance(node.parent, exp.Select):
        yield "distinct", lambda n: n.pop()
    elif isinstance(node, exp.Join):
        side = "" if node.args.get("side") else "LEFT"
        yield "join", lambda n: n.set("side", side)
        if not _needed(node):
            yield "join", lambda n: n.pop()
    elif isinstance(node, exp.Select):
        if node.parent is None and len(node.expressions) > 1:
            yield "column", lambda n: n.set("expressions", n.expressions[:-1])
        if not node.args.get("distinct"):
            yield "add distinct", lambda n: n.distinct(copy=False)


def _needed(join: exp.Expr) -> bool:
    """Whether anything but the join's own condition, or a later join, names its table."""
    from sqlglot import exp

    name = join.alias_or_name.lower()
    named = (c for c in join.root().find_all(exp.Column) if c.find_ancestor(exp.Join) is not join)
    return any(c.table.lower() in (name, "") for c in named)


def _sets(node: exp.Expr) -> Iterator[Change]:
    from sqlglot import exp

    yield "set", lambda n: n.replace(n.this.copy())
    yield "set", lambda n: n.replace(n.expression.copy())
    for kind in (exp.Union, exp.Intersect, exp.Except):
        if type(node) is not kind:
            yield "set", _to_set(kind)
        elif kind is exp.Union:
            yield "set", lambda n: n.set("distinct", not n.args.get("distinct"))


def _literals(node: exp.Expr) -> Iterator[Change]:
    from sqlglot import exp

    if isinstance(node.parent, exp.Limit | exp.Ordered | exp.Group):
        return
    if not node.is_string:
        if node.name.isdigit():
            yield "literal", lambda n: n.replace(exp.Literal.number(int(n.name) + 1))
            yield "literal", lambda n: n.replace(exp.Literal.number(int(n.name) - 1))
    elif isinstance(node.parent, exp.Like):
        text = node.name
        for other in (text.lstrip("%"), text.rstrip("%"), text.strip("%")):
            if other != text:
                yield "like", _to_string(other)
    else:
        yield "literal", lambda n: n.replace(exp.Literal.string(n.name + "x"))
        yield "like", lambda n: n.replace(exp.Literal.string(n.name.lower()))


def _columns(node: Any, columns: Mapping[str, Sequence[str]]) -> Iterator[Change]:
    """Another column of its table: only where the query says which table that is."""
    from sqlglot import exp

    if node.find_ancestor(exp.Join) is not None:
        return
    select = node.find_ancestor(exp.Select)
    tables = [] if select is None else [t for t in select.find_all(exp.Table) if t.find_ancestor(exp.Select) is select]
    named = [t for t in tables if not node.table or t.alias_or_name.lower() == node.table.lower()]
    if len(named) != 1:
        return
    for other in columns.get(named[0].name.lower(), ()):
        if other.lower() != node.name.lower():
            yield "other column", _to_column(other)


def _to_set(kind: Any) -> Callable[[Any], None]:
    def change(node: Any) -> None:
        node.replace(kind(this=node.this, expression=node.expression, distinct=True))

    return change


def _to_string(text: str) -> Callable[[Any], None]:
    from sqlglot import exp

    return lambda node: node.replace(exp.Literal.string(text))


def _to_column(name: str) -> Callable[[Any], None]:
    from sqlglot import exp

    return lambda node: node.set("this", exp.to_identifier(name, quoted=True))


__all__ = ["ALL", "BASIC", "changes", "mutations"]
