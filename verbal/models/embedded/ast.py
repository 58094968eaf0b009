"""The SQL subset of the embedded model as a small tree, and that tree as SQLite text.

Joins are implicit: a query names tables, and `join_tree` finds the ON conditions along foreign keys, adding the
tables between them. Whatever the tree cannot say (self-joins, derived tables, CASE, window functions, outer joins)
is outside the embedded model's limits and raises `Unsupported`. No numpy, no torch, no I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from verbal.models.embedded.fields import ForeignKey, Schema, Table

COMPARISONS = ("=", "!=", "<", ">", "<=", ">=")
"""Operators between two single values."""

OPERATORS = (*COMPARISONS, "between", "like", "not like", "in", "not in", "is null", "is not null")
"""All operators of a `Condition`."""

FUNCTIONS = ("count", "sum", "avg", "min", "max")
"""Aggregate functions."""

CLAUSES = ("select", "from", "where", "group", "having", "order", "limit", "set")
"""Names of the parts of a query, as the critic speaks of them."""


class Unsupported(ValueError):
    """Something outside the embedded model's stated limits; the message names it."""


@dataclass(frozen=True, slots=True)
class Col:
    """One column of one table."""

    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A number (`text` as written) or, when `quoted`, a string without its quotes."""

    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """The `year` or `month` of a date column, as an integer."""

    unit: str
    column: Col


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left op right` with op one of + - * /."""

    op: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate; `argument` None means `*` (only for count)."""

    function: str
    argument: Expression | None = None
    distinct: bool = False


# What can stand in a select list.
Expression = Col | Literal | Part | Arithmetic | Aggregate
"""Anything that has a value in a row or a group."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`left op right`.

    `right` is an expression or a subquery for comparisons and like, two literals for between, literals or a
    subquery for in / not in, None for is null / is not null.
    """

    left: Expression
    op: str
    right: Expression | tuple[Literal, ...] | Query | None = None


@dataclass(frozen=True, slots=True)
class Both:
    """Conditions joined by one connective, `and` or `or` (two or more parts)."""

    connective: str
    parts: tuple[Condition | Both, ...]


# What can stand after WHERE.
Predicate = Condition | Both
"""What WHERE and HAVING hold."""


@dataclass(frozen=True, slots=True)
class Order:
    """One sort key."""

    by: Expression
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """One SELECT, or two joined by a set operator (order and limit then belong to the whole)."""

    select: tuple[Expression, ...]
    tables: tuple[str, ...] = ()
    """Tables of FROM; those of the columns used and those between them may be left out."""
    via: tuple[Col, ...] = ()
    """Foreign key columns to join along where two tables are linked by more than one."""
    distinct: bool = False
    where: Predicate | None = None
    group_by: tuple[Col, ...] = ()
    having: Predicate | None = None
    order_by: tuple[Order, ...] = ()
    limit: int | None = None
    set_op: str = ""
    """`union`, `intersect` or `except` with `other`; empty for a plain query."""
    other: Query | None = None


def expressions(query: Query) -> Iterator[Expression]:
    """Every expression directly in this SELECT (not in subqueries or the other side of a set operator)."""
    yield from query.select
    yield from _sides(query.where)
    yield from query.group_by
    yield from _sides(query.having)
    for order in query.order_by:
        yield order.by


def _sides(predicate: Predicate | None) -> Iterator[Expression]:
    if isinstance(predicate, Both):
        for part in predicate.parts:
            yield from _sides(part)
    elif predicate is not None:
        yield predicate.left
        if isinstance(predicate.right, Col | Literal | Part | Arithmetic | Aggregate):
            yield predicate.right


def columns_in(expression: Expression) -> Iterator[Col]:
    """Columns of one expression, left to right."""
    if isinstance(expression, Col):
        yield expression
    elif isinstance(expression, Part):
        yield expression.column
    elif isinstance(expression, Arithmetic):
        yield from columns_in(expression.left)
        yield from columns_in(expression.right)
    elif isinstance(expression, Aggregate) and expression.argument is not None:
        yield from columns_in(expression.argument)


def used_tables(query: Query) -> tuple[str, ...]:
    """Tables of the columns used, in order of first use, then the other tables that FROM names."""
    used = [column.table for expression in expressions(query) for column in columns_in(expression)]
    return tuple(dict.fromkeys((*used, *query.tables)))


def subqueries(query: Query) -> Iterator[Query]:
    """Queries nested in WHERE and HAVING, and the other side of a set operator; one level."""
    stack: list[Predicate | None] = [query.having, query.where]
    while stack:
        predicate = stack.pop()
        if isinstance(predicate, Both):
            stack.extend(reversed(predicate.parts))
        elif predicate is not None and isinstance(predicate.right, Query):
            yield predicate.right
    if query.other is not None:
        yield query.other


@lru_cache(maxsize=512)
def table_of(schema: Schema, name: str) -> Table:
    """The table called `name`.

    Raises:
        Unsupported: when the schema has no such table.
    """
    for table in schema.tables:
        if table.name == name:
            return table
    raise Unsupported(f"no table {name!r} in the schema")


@lru_cache(maxsize=4096)
def join_tree(
    schema: Schema, tables: tuple[str, ...], via: tuple[Col, ...] = ()
) -> tuple[tuple[str, ForeignKey | None], ...]:
    """Tables to join in order, each with the foreign key that links it to those before it (None for the first).

    Greedy: each wanted table is reached by the shortest path of foreign keys from what is already joined; among
    equal paths, keys named in `via` come first, then schema order. Tables on the way are included.

    Raises:
        Unsupported: when no path of foreign keys leads to a table.
    """
    if not tables:
        raise Unsupported("a query without any table")
    keys = sorted(schema.foreign_keys, key=lambda key: Col(key.table, key.column) not in via)
    joined: dict[str, ForeignKey | None] = {tables[0]: None}
    for wanted in tables[1:]:
        if wanted in joined:
            continue
        came: dict[str, tuple[str, ForeignKey]] = {}
        frontier = list(joined)
        while frontier and wanted not in came:
            reached: list[str] = []
            for here in frontier:
                for key in keys:
                    there = key.target if key.table == here else key.table if key.target == here else ""
                    if there and there not in joined and there not in came and key.table != key.target:
                        came[there] = (here, key)
                        reached.append(there)
            frontier = reached
        if wanted not in came:
            raise Unsupported(f"no foreign key path from {', '.join(joined)} to {wanted}")
        path: list[tuple[str, ForeignKey]] = []
        while wanted not in joined:
            path.append((wanted, came[wanted][1]))
            wanted = came[wanted][0]
            if wanted in joined:
                break
        joined.update(reversed(path))
    return tuple(joined.items())


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEYWORDS = """add all alter and as asc between by case check collate column commit constraint create cross current_date
default delete desc distinct drop else end escape except exists foreign from full group having if in index inner insert
intersect into is isnull join key left like limit natural not notnull null of offset on or order outer primary
references right row rows select set table then to transaction union unique update using values when where with"""
_RESERVED = frozenset(_KEYWORDS.split())


def quote(name: str) -> str:
    """The identifier as SQL, in double quotes where it needs them."""
    if _PLAIN.match(name) and name.lower() not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def to_sql(query: Query, schema: Schema) -> str:
    """The query as one line of SQLite SQL with explicit joins.

    Raises:
        Unsupported: when its tables cannot be joined along foreign keys.
    """
    tree = join_tree(schema, used_tables(query), query.via)
    several = len(tree) > 1
    words = ["SELECT DISTINCT" if query.distinct else "SELECT"]
    words.append(", ".join(_expression(item, several) for item in query.select))
    words += ["FROM", quote(tree[0][0])]
    for table, key in tree[1:]:
        if key is not None:
            near, far = Col(key.table, key.column), Col(key.target, key.target_column)
            words.append(f"JOIN {quote(table)} ON {_expression(near, True)} = {_expression(far, True)}")
    if query.where is not None:
        words += ["WHERE", _predicate(query.where, several, schema)]
    if query.group_by:
        words += ["GROUP BY", ", ".join(_expression(column, several) for column in query.group_by)]
    if query.having is not None:
        words += ["HAVING", _predicate(query.having, several, schema)]
    if query.other is not None:
        words += [query.set_op.upper(), to_sql(query.other, schema)]
    if query.order_by:
        keys = (_expression(order.by, several) + (" DESC" if order.descending else "") for order in query.order_by)
        words += ["ORDER BY", ", ".join(keys)]
    if query.limit is not None:
        words += ["LIMIT", str(query.limit)]
    return " ".join(words)


def _expression(item: Expression, several: bool, nested: bool = False) -> str:
    if isinstance(item, Col):
        return f"{quote(item.table)}.{quote(item.name)}" if several else quote(item.name)
    if isinstance(item, Literal):
        return "'" + item.text.replace("'", "''") + "'" if item.quoted else item.text
    if isinstance(item, Part):
        pattern = {"year": "%Y", "month": "%m"}[item.unit]
        return f"CAST(strftime('{pattern}', {_expression(item.column, several)}) AS INTEGER)"
    if isinstance(item, Arithmetic):
        text = f"{_expression(item.left, several, True)} {item.op} {_expression(item.right, several, True)}"
        return f"({text})" if nested else text
    inside = "*" if item.argument is None else _expression(item.argument, several)
    return f"{item.function.upper()}({'DISTINCT ' if item.distinct else ''}{inside})"


def _predicate(item: Predicate, several: bool, schema: Schema, nested: bool = False) -> str:
    if isinstance(item, Both):
        text = f" {item.connective.upper()} ".join(_predicate(part, several, schema, True) for part in item.parts)
        return f"({text})" if nested else text
    left = _expression(item.left, several)
    operator = item.op.upper()
    if item.right is None:
        return f"{left} {operator}"
    if isinstance(item.right, Query):
        return f"{left} {operator} ({to_sql(item.right, schema)})"
    if isinstance(item.right, tuple):
        values = [_expression(value, several) for value in item.right]
        return (
            f"{left} BETWEEN {values[0]} AND {values[1]}" if item.op == "between" else _listed(left, operator, values)
        )
    return f"{left} {operator} {_expression(item.right, several)}"


def _listed(left: str, operator: str, values: list[str]) -> str:
    return f"{left} {operator} ({', '.join(values)})"


def differing_clauses(first: Query, second: Query) -> tuple[str, ...]:
    """Names (of `CLAUSES`) of the parts in which two queries differ; FROM is compared by the set of tables."""
    pairs = {
        "select": ((first.select, first.distinct), (second.select, second.distinct)),
        "from": (set(used_tables(first)), set(used_tables(second))),
        "where": (first.where, second.where),
        "group": (first.group_by, second.group_by),
        "having": (first.having, second.having),
        "order": (first.order_by, second.order_by),
        "limit": (first.limit, second.limit),
        "set": ((first.set_op, first.other), (second.set_op, second.other)),
    }
    return tuple(name for name in CLAUSES if pairs[name][0] != pairs[name][1])
