"""Columns that are neither grouped nor aggregated, and orders that DISTINCT hides: what SQLite lets pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .transpile_types import Scope, Work, as_text


def inside(node: Any, kind: Any) -> Iterator[Any]:
    """Nodes of a kind under a node, not those of queries inside it."""
    from sqlglot import exp

    stack = [node]
    while stack:
        found = stack.pop()
        if isinstance(found, list):
            stack.extend(found)
        elif isinstance(found, exp.Expression):
            if isinstance(found, kind):
                yield found
            if not isinstance(found, exp.Query):
                stack.extend(found.args.values())


def _aggregates(work: Work, node: Any) -> bool:
    return any(not isinstance(a.parent, work.exp.Window) for a in inside(node, work.exp.AggFunc))


def ungrouped(work: Work, select: Any, scope: Scope) -> None:
    """Columns that are neither grouped nor aggregated: one row of the group speaks for it."""
    exp = work.exp
    group = select.args.get("group")
    parts = [*select.selects, select.args.get("having"), select.args.get("order")]
    if group is None and not any(p is not None and _aggregates(work, p) for p in parts):
        return
    keys = [*(group.expressions if group is not None else ())]
    texts = {_key(work, k, scope) for k in keys}
    texts |= {_key(work, select.selects[int(k.name) - 1].unalias(), scope) for k in keys
              if isinstance(k, exp.Literal) and not k.is_string and int(k.name) <= len(select.selects)}  # fmt: skip
    extremes = [a for p in parts if p is not None for a in inside(p, exp.Min | exp.Max)]
    # SQLite: the row of the last MIN or MAX speaks for the group, in the order of select list, HAVING and ORDER BY
    witness = extremes[-1] if extremes else None
    for part in parts:
        if part is None:
            continue
        for column in [*inside(part, exp.Column)]:
            if isinstance(column.this, exp.Star) or column.find_ancestor(exp.AggFunc) is not None:
                continue
            if _key(work, column, scope) in texts or _grouped(work, column, texts, scope):
                continue
            if Scope(scope.sources).find(column.table.lower(), column.name.lower()) is None:
                continue  # an alias of the output, or a column of a query around this one
            work.note("loose GROUP BY")
            made = _any(work, column, witness)
            if isinstance(column.parent, exp.Select):
                made = exp.alias_(made, column.name, quoted=True)
            column.replace(made)


def _grouped(work: Work, column: Any, texts: set[str], scope: Scope) -> bool:
    node = column.parent
    while node is not None and not isinstance(node, work.exp.Select):
        if _key(work, node, scope) in texts:
            return True
        node = node.parent
    return False


def _key(work: Work, node: Any, scope: Scope) -> str:
    if isinstance(node, work.exp.Column):
        found = scope.find(node.table.lower(), node.name.lower())
        if found:
            return f"{found[0]}.{found[1].lower()}"
    return str(node.sql()).lower()


def _any(work: Work, column: Any, witness: Any) -> Any:
    """The column's value in one row of the group: that of the least or greatest, or any."""
    exp = work.exp
    if work.write == "postgres":
        ordered: Any = column.copy()
        if witness is not None:
            desc = isinstance(witness, exp.Max)
            key = exp.Ordered(this=witness.this.copy(), desc=desc, nulls_first=False)
            ordered = exp.Order(this=ordered, expressions=[key])
        array = exp.Paren(this=exp.ArrayAgg(this=ordered))
        return exp.Bracket(this=array, expressions=[exp.Literal.number(1)], offset=1)
    if work.write == "duckdb":
        if witness is not None:
            name = "ARG_MAX" if isinstance(witness, exp.Max) else "ARG_MIN"
            return exp.Anonymous(this=name, expressions=[column.copy(), witness.this.copy()])
        return exp.Anonymous(this="FIRST", expressions=[column.copy()])
    return exp.Min(this=column.copy())


def distinct_order(work: Work, select: Any) -> None:
    """SELECT DISTINCT ordered by something that is not selected: a group, ordered by its first row's."""
    exp = work.exp
    order = select.args.get("order")
    if not select.args.get("distinct") or order is None or select.args.get("group") is not None:
        return
    shown = {item.unalias().sql().lower() for item in select.selects} | {i.alias.lower() for i in select.selects}
    shown |= {i.name.lower() for i in select.selects}
    missing = [o for o in order.expressions if o.this.sql().lower() not in shown and o.this.name.lower() not in shown]
    if not missing or any(item.find(exp.AggFunc) or isinstance(item.unalias(), exp.Star) for item in select.selects):
        return
    work.note("order of DISTINCT")
    select.set("distinct", None)
    select.set("group", exp.Group(expressions=[item.unalias().copy() for item in select.selects]))
    for ordered in missing:
        ordered.set("this", _any(work, ordered.this, None))


def set_operation(work: Work, node: Any) -> None:
    """Both sides of a set operation have one kind in each column."""
    exp = work.exp
    left, right = (work.shape(side) for side in (node.left, node.right))
    for (_, a), (_, b), place in zip(left.values(), right.values(), range(99), strict=False):
        if a and b and a != b:
            work.note("affinity")
            for side in (node.left, node.right):
                inner = side.unnest()
                if isinstance(inner, exp.Select):
                    item = inner.selects[place]
                    inner.selects[place].replace(
                        exp.alias_(as_text(work, item.unalias()), item.alias_or_name, quoted=True)
                    )
