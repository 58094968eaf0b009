"""The shape of a SQLite query in another dialect: groups, orders, subqueries, joins, set operations.

What SQLite does where others refuse, as its documentation says (lang_select.html) and as version 3.40 was seen to do:
a column that is neither grouped nor aggregated comes from the row of the last MIN or MAX, else from the first row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .transpile_names import is_star, sources
from .transpile_types import TEXTS, Work, as_number, as_text, common, kind_of, mark
from .transpile_values import bytewise


def inside(exp: Any, node: Any, kind: Any) -> Iterator[Any]:
    """Nodes of a kind under a node (itself too), not those of queries inside it."""
    stack = [node]
    while stack:
        found = stack.pop()
        if isinstance(found, list):
            stack.extend(reversed(found))
        elif isinstance(found, exp.Expression):
            if isinstance(found, kind):
                yield found
            if not isinstance(found, exp.Query):
                stack.extend(reversed(found.args.values()))


def aggregates(exp: Any, node: Any) -> Iterator[Any]:
    """Aggregates under a node, none that is a window's."""
    return (a for a in inside(exp, node, exp.AggFunc) if not isinstance(a.parent, exp.Window))


def is_aggregated(exp: Any, select: Any) -> bool:
    """Whether a SELECT gives groups."""
    parts = [*select.selects, select.args.get("having"), select.args.get("order")]
    return select.args.get("group") is not None or any(any(aggregates(exp, p)) for p in parts if p is not None)


# groups ---------------------------------------------------------------------------------------------------------------


def loose_group(work: Work, select: Any) -> None:
    """Columns that are neither grouped nor aggregated: one row of the group speaks for all of them."""
    exp = work.exp
    if not is_aggregated(exp, select):
        return
    keys = _keys(work, select)
    if any(is_star(exp, item) for item in select.selects):
        select.set("expressions", [e for item in select.selects for e in _expanded(exp, item, select.meta["scope"])])
    parts = [p for p in (*select.selects, select.args.get("order"), select.args.get("having")) if p is not None]
    extremes = [a for p in parts for a in inside(exp, p, exp.Min | exp.Max) if not isinstance(a.parent, exp.Window)]
    witness = extremes[-1] if extremes else None
    names = {alias.lower() for alias, _ in select.meta["scope"].sources.values()}
    for part in parts:
        for column in [*inside(exp, part, exp.Column)]:
            bare = column.table.lower() in names and not _in_aggregate(exp, column) and not _within(column, keys)
            if not bare or column.meta.get("alias"):
                continue
            work.note("loose GROUP BY")
            made = any_value(work, column, witness)
            if column.parent is select:
                made = exp.alias_(made, column.name)
            column.replace(made)


def _keys(work: Work, select: Any) -> set[Any]:
    """What is grouped by; ordinals become what they stand for, constants are left out."""
    exp, group = work.exp, select.args.get("group")
    if group is None:
        return set()
    found = []
    for key in group.expressions:
        if isinstance(key, exp.Literal) and not key.is_string and 0 < int(key.name) <= len(select.selects):
            key = select.selects[int(key.name) - 1].unalias().copy()
        if not isinstance(key, exp.Literal | exp.Null):
            found.append(key)
    if len(found) < len(group.expressions):
        work.note("GROUP BY a constant")
    if found:
        group.set("expressions", found)
    else:  # one group, or none where there are no rows
        select.set("group", None)
        some = exp.GT(this=exp.Count(this=exp.Star()), expression=exp.Literal.number(0))
        having = select.args.get("having")
        select.set("having", exp.Having(this=some if having is None else exp.and_(having.this.copy(), some)))
    return set(found)


def _expanded(exp: Any, item: Any, scope: Any) -> list[Any]:
    if not is_star(exp, item):
        return [item]
    wanted = item.table.lower() if isinstance(item, exp.Column) else ""
    found = []
    for key, (alias, columns) in scope.sources.items():
        for name, field in columns.items() if wanted in ("", key) else ():
            if field.name.lower() == name:  # not a row number
                column = exp.column(exp.to_identifier(field.name), table=exp.to_identifier(alias))
                column.meta["field"] = field
                found.append(column)
    return found or [item]


def _in_aggregate(exp: Any, node: Any) -> bool:
    while node is not None and not isinstance(node, exp.Query):
        if isinstance(node, exp.AggFunc) and not isinstance(node.parent, exp.Window):
            return True
        node = node.parent
    return False


def _within(node: Any, keys: set[Any]) -> bool:
    while node is not None:
        if node in keys:
            return True
        node = node.parent
    return False


def any_value(work: Work, node: Any, witness: Any = None) -> Any:
    """The value in one row of the group: that of the least or greatest, else the first."""
    exp, kind = work.exp, kind_of(work, node)
    desc = isinstance(witness, exp.Max)
    if work.write == "duckdb":
        if witness is not None:
            call = exp.Anonymous(
                this=f"ARG_{'MAX' if desc else 'MIN'}_NULL", expressions=[node.copy(), witness.this.copy()]
            )
        else:
            call = exp.Anonymous(this="FIRST", expressions=[node.copy()])
        return mark(call, kind)
    if work.write == "postgres":
        value = node.copy()
        if witness is not None:
            key = exp.Ordered(this=witness.this.copy(), desc=desc, nulls_first=False)
            value = exp.Order(this=value, expressions=[key])
        array = exp.Paren(this=exp.ArrayAgg(this=value))
        return mark(exp.Bracket(this=array, expressions=[exp.Literal.number(1)], offset=1), kind)
    return mark(exp.Min(this=node.copy()), kind)


# orders ---------------------------------------------------------------------------------------------------------------


def order(work: Work, query: Any) -> None:
    """Rows in SQLite's order: numbers before texts, texts by their bytes, a constant orders nothing."""
    exp, found = work.exp, query.args.get("order")
    if found is None:
        return
    keys = []
    for key in found.expressions:
        value = key.this
        if isinstance(value, exp.Literal) and value.is_string or isinstance(value, exp.Null):
            work.note("ORDER BY a constant")
            continue
        meant = _meant(exp, query, value)
        kind = kind_of(work, meant)
        if kind == "mixed":
            work.note("numbers before texts")
            keys.append(_ordered(exp, key, as_number(work, meant, whole=True)))
            keys.append(_ordered(exp, key, meant.copy()))
        elif kind == "text" and work.write == "postgres":
            work.note("byte order")
            keys.append(_ordered(exp, key, bytewise(work, meant)))
        else:
            keys.append(key)
    found.set("expressions", keys)
    if not keys:
        query.set("order", None)


def _meant(exp: Any, query: Any, value: Any) -> Any:
    """What an ordinal or an alias stands for."""
    if not isinstance(query, exp.Select):
        return value
    if isinstance(value, exp.Literal) and value.name.isdigit() and 0 < int(value.name) <= len(query.selects):
        return query.selects[int(value.name) - 1].unalias()
    if value.meta.get("alias"):
        return next((i.this for i in query.selects if isinstance(i, exp.Alias) and i.alias == value.name), value)
    return value


def _ordered(exp: Any, key: Any, value: Any) -> Any:
    return exp.Ordered(this=value.copy(), desc=key.args.get("desc"), nulls_first=key.args.get("nulls_first"))


def distinct_order(work: Work, select: Any) -> None:
    """SELECT DISTINCT ordered by what is not selected: a group, in the order of its first row."""
    exp, found = work.exp, select.args.get("order")
    if not select.args.get("distinct") or found is None or any(is_star(exp, i) for i in select.selects):
        return
    values = [item.unalias() for item in select.selects]
    if all(k.this in values or k.this.meta.get("alias") or isinstance(k.this, exp.Literal) for k in found.expressions):
        return
    work.note("order of DISTINCT")
    if is_aggregated(exp, select):
        _nested(work, select)
        return
    select.set("distinct", None)
    select.set("group", exp.Group(expressions=[v.copy() for v in values if not isinstance(v, exp.Literal | exp.Null)]))
    for key in found.expressions:
        columns = [*inside(exp, key.this, exp.Column)]
        if not all(c in values or c.meta.get("alias") for c in columns):
            key.set("this", any_value(work, key.this))


def _nested(work: Work, select: Any) -> None:
    """The same where the query has groups of its own: these first, in a subquery."""
    exp = work.exp
    names = [item.alias_or_name or f"c{i}" for i, item in enumerate(select.selects)]
    inner = exp.Select(
        **{k: v for k, v in select.args.items() if k not in ("distinct", "order", "limit", "offset", "with_")}
    )
    items = [exp.alias_(item.unalias().copy(), f"c{i}") for i, item in enumerate(select.selects)]
    keys = select.args["order"].expressions
    items += [exp.alias_(key.this.copy(), f"k{i}") for i, key in enumerate(keys)]
    inner.set("expressions", items)
    columns = [exp.column(f"c{i}", table="q") for i in range(len(names))]
    for place in ("where", "group", "having", "joins", "distinct"):
        select.set(place, None)
    select.set("expressions", [exp.alias_(c.copy(), n) for c, n in zip(columns, names, strict=True)])
    select.set("from_", exp.From(this=exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier("q")))))
    select.set("group", exp.Group(expressions=columns))
    for i, key in enumerate(keys):
        key.set("this", any_value(work, exp.column(f"k{i}", table="q")))


# subqueries, joins, sets ----------------------------------------------------------------------------------------------


def first_row(work: Work, query: Any) -> None:
    """A subquery that stands for one value gives the first of its rows."""
    exp, place = work.exp, query.parent
    if not isinstance(query, exp.Select) or not isinstance(place, exp.Subquery) or query.args.get("limit") is not None:
        return
    if isinstance(
        place.parent, exp.In | exp.Exists | exp.From | exp.Join | exp.SetOperation | exp.Subquery | exp.CTE | None
    ):
        return
    if not (query.args.get("group") is None and is_aggregated(exp, query)):
        work.note("first row")
        query.set("limit", exp.Limit(expression=exp.Literal.number(1)))


def joins(work: Work, select: Any) -> None:
    """Conditions of inner joins that name a table further on move there."""
    exp = work.exp
    found = select.args.get("joins") or []
    order_ = [source.alias_or_name.lower() for source in sources(select)]
    if any(join.side for join in found):
        return
    for at, join in enumerate(found, start=1):
        condition = join.args.get("on")
        if condition is None:
            continue
        used = {c.table.lower() for c in condition.find_all(exp.Column)} & set(order_)
        last = max((order_.index(name) for name in used), default=at)
        if last > at:
            work.note("join condition")
            join.set("on", None)
            join.set("kind", "CROSS")
            later = found[last - 1]
            known = later.args.get("on")
            later.set("kind", None)
            later.set("on", condition if known is None else exp.and_(known.copy(), condition.copy()))


def limit(work: Work, query: Any) -> None:
    """A negative LIMIT is none."""
    exp, found = work.exp, query.args.get("limit")
    if found is not None and isinstance(found.expression, exp.Neg):
        work.note("LIMIT")
        query.set("limit", None)


def set_operation(work: Work, node: Any) -> None:
    """Both sides of a set operation have one kind in each column."""
    exp = work.exp
    sides = [_select_of(exp, side) for side in (node.left, node.right)]
    if any(is_star(exp, item) for side in sides for item in side.selects):
        return
    for place in range(min(len(side.selects) for side in sides)):
        kinds = [kind_of(work, side.selects[place]) for side in sides]
        if all(kinds) and not common(kinds) or (common(kinds) == "text" and not set(kinds) <= {"text", "mixed"}):
            work.note("one kind")
            for side in sides:
                item = side.selects[place]
                if kind_of(work, item) not in ("text", "mixed", "null"):
                    item.replace(exp.alias_(as_text(work, item.unalias()), item.alias_or_name or f"c{place}"))


def _select_of(exp: Any, query: Any) -> Any:
    while isinstance(query, exp.Subquery | exp.SetOperation):
        query = query.this
    return query


def order_of_set(work: Work, node: Any) -> Any:
    """A compound that is ordered by more than its columns' names, as a subquery that is ordered."""
    exp, found = work.exp, node.args.get("order")
    if found is None or all(isinstance(k.this, exp.Column | exp.Literal) for k in found.expressions):
        return node
    outer = exp.Select(expressions=[exp.Star()])
    for place in ("order", "limit", "offset", "with_"):
        outer.set(place, node.args.get(place))
        node.set(place, None)
    inner = exp.Subquery(this=node.copy(), alias=exp.TableAlias(this=exp.to_identifier("q")))
    outer.set("from_", exp.From(this=inner))
    return outer


__all__ = [
    "TEXTS", "any_value", "distinct_order", "first_row", "joins", "limit", "loose_group", "order", "order_of_set",
    "set_operation",
]  # fmt: skip
