"""Wrong versions of a right query, as a careless solver would write them. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from verbal.models.embedded.ast import (
    FUNCTIONS,
    Aggregate,
    Arithmetic,
    Both,
    Col,
    Condition,
    Expression,
    Literal,
    Order,
    Predicate,
    Query,
)  # fmt: skip
from verbal.models.embedded.corpus.terms import Term
from verbal.models.embedded.corpus.world import ColumnInfo, World

FLIPPED = {
    ">": "<",
    "<": ">",
    ">=": ">",
    "<=": "<",
    "=": "!=",
    "!=": "=",
    "like": "=",
    "in": "not in",
    "not in": "in",
    "is null": "is not null",
    "is not null": "is null",
    "not like": "like",
}
"""A likely confusion for each operator."""


def _info(world: World, column: Col) -> ColumnInfo | None:
    return next((info for info in world.table(column.table).columns if info.col == column), None)


def _other(rng: Random, world: World, column: Col, alike: bool = True) -> Col | None:
    """Another column: of the same table and kind if `alike`, else of any table under the same name or kind."""
    here = _info(world, column)
    if here is None:
        return None
    tables = [world.table(column.table)] if alike or rng.random() < 0.5 else world.tables
    pool = [
        info.col for table in tables for info in table.columns
        if info is not here and (info.type == here.type or info.phrase == here.phrase)
    ]  # fmt: skip
    return rng.choice(pool) if pool else None


def _select(rng: Random, world: World, query: Query) -> Query | None:
    at = rng.randrange(len(query.select))
    item = query.select[at]
    new: Expression | None = None
    if isinstance(item, Col):
        new = _other(rng, world, item, alike=rng.random() < 0.7)
    elif isinstance(item, Aggregate) and item.argument is not None:
        if rng.random() < 0.6 or not isinstance(item.argument, Col):
            new = replace(item, function=rng.choice([f for f in FUNCTIONS if f != item.function]), distinct=False)
        else:
            column = _other(rng, world, item.argument)
            new = replace(item, argument=column) if column else None
    if new is None or new in query.select:
        return None
    return replace(query, select=(*query.select[:at], new, *query.select[at + 1 :]))


def _select_less(rng: Random, world: World, query: Query) -> Query | None:
    if len(query.select) < 2 or query.set_op:
        return None
    at = rng.randrange(len(query.select))
    return replace(query, select=(*query.select[:at], *query.select[at + 1 :]))


def _select_more(rng: Random, world: World, query: Query) -> Query | None:
    item = query.select[-1]
    if query.set_op or not isinstance(item, Col):
        return None
    column = _other(rng, world, item)
    return None if column is None or column in query.select else replace(query, select=(*query.select, column))


def _select_turned(rng: Random, world: World, query: Query) -> Query | None:
    return None if len(query.select) < 2 or query.set_op else replace(query, select=query.select[::-1])


def _conditions(predicate: Predicate | None) -> list[Condition]:
    if isinstance(predicate, Both):
        return [item for part in predicate.parts for item in _conditions(part)]
    return [predicate] if predicate is not None else []


def _swap(predicate: Predicate | None, old: Condition, new: Condition | None) -> Predicate | None:
    if predicate is old:
        return new
    if isinstance(predicate, Both):
        parts = [part for part in (_swap(part, old, new) for part in predicate.parts) if part is not None]
        return Both(predicate.connective, tuple(parts)) if len(parts) > 1 else parts[0] if parts else None
    return predicate


def _where(rng: Random, world: World, query: Query) -> Query | None:
    found = _conditions(query.where)
    if not found:
        return None
    old = rng.choice(found)
    return replace(query, where=_swap(query.where, old, _worse(rng, world, old)))


def _worse(rng: Random, world: World, old: Condition) -> Condition | None:
    """A condition like `old` but wrong; None to leave it out."""
    roll = rng.random()
    if roll < 0.25:
        return None
    if roll < 0.5 and old.op in FLIPPED:
        return replace(old, op=FLIPPED[old.op])
    if roll < 0.75 and isinstance(old.left, Col):
        column = _other(rng, world, old.left, alike=rng.random() < 0.6)
        if column is not None and not isinstance(old.right, Query):
            return replace(old, left=column)
    if isinstance(old.right, Query) and rng.random() < 0.7:
        inner = _where(rng, world, old.right) or _select(rng, world, old.right)
        if inner is not None:
            return replace(old, right=inner)
    if isinstance(old.right, Literal) and isinstance(old.left, Col) and old.op in ("=", "!=", ">", "<"):
        info = _info(world, old.left)
        if info is not None and info.kind == "category":
            value = rng.choice(info.pool)
            if value != old.right.text:
                return replace(old, right=replace(old.right, text=value))
    return None


def _connective(rng: Random, world: World, query: Query) -> Query | None:
    if not isinstance(query.where, Both):
        return None
    other = "or" if query.where.connective == "and" else "and"
    return replace(query, where=Both(other, query.where.parts))


def _distinct(rng: Random, world: World, query: Query) -> Query | None:
    item = query.select[0]
    if isinstance(item, Aggregate) and item.function == "count":
        if item.distinct:
            return replace(query, select=(Aggregate("count"), *query.select[1:]), tables=query.tables or _tables(item))
        return None
    return replace(query, distinct=not query.distinct) if not query.group_by and not query.set_op else None


def _tables(item: Aggregate) -> tuple[str, ...]:
    return (item.argument.table,) if isinstance(item.argument, Col) else ()


def _order(rng: Random, world: World, query: Query) -> Query | None:
    if not query.order_by:
        return None
    first = query.order_by[0]
    roll = rng.random()
    if roll < 0.5:
        return replace(query, order_by=(replace(first, descending=not first.descending), *query.order_by[1:]))
    if roll < 0.75 and isinstance(first.by, Col):
        column = _other(rng, world, first.by)
        return replace(query, order_by=(replace(first, by=column),)) if column else None
    if roll < 0.85 and isinstance(first.by, Aggregate):
        column = next((item for item in query.select if isinstance(item, Col)), None)
        return replace(query, order_by=(Order(column, first.descending),)) if column else None
    return replace(query, order_by=())


def _limit(rng: Random, world: World, query: Query) -> Query | None:
    if query.limit is None:
        return replace(query, limit=1) if query.order_by else None
    return replace(query, limit=None if query.limit == 1 or rng.random() < 0.4 else 1)


def _group(rng: Random, world: World, query: Query) -> Query | None:
    if not query.group_by:
        return None
    if rng.random() < 0.5:
        return replace(query, group_by=())
    column = _other(rng, world, query.group_by[0], alike=rng.random() < 0.6)
    return replace(query, group_by=(column,)) if column else None


def _having(rng: Random, world: World, query: Query) -> Query | None:
    found = _conditions(query.having)
    if not found:
        return None
    if rng.random() < 0.3:
        return replace(query, having=None)
    old = found[0]
    return replace(query, having=replace(old, op=FLIPPED.get(old.op, ">")))


def _set(rng: Random, world: World, query: Query) -> Query | None:
    if not query.set_op:
        return None
    if rng.random() < 0.35:
        return replace(query, set_op="", other=None)
    return replace(query, set_op=rng.choice([op for op in ("union", "intersect", "except") if op != query.set_op]))


def _from(rng: Random, world: World, query: Query) -> Query | None:
    if len(query.tables) > 1:
        return replace(query, tables=query.tables[:1])
    if len(query.tables) == 1 and len(world.tables) > 1 and query.where is None and not query.group_by:
        other = rng.choice([table.name for table in world.tables if table.name != query.tables[0]])
        if all(isinstance(item, Aggregate) and item.argument is None for item in query.select):
            return replace(query, tables=(other,))
    linked = [link for link in world.links if link.parent.name in query.tables or link.child.name in query.tables]
    if linked and query.tables:
        link = rng.choice(linked)
        return replace(query, tables=(link.child.name, link.parent.name))
    return None


WAYS: tuple[tuple[Callable[[Random, World, Query], Query | None], int], ...] = (
    (_select, 6), (_select_less, 2), (_select_more, 2), (_select_turned, 1), (_where, 10), (_connective, 2),
    (_distinct, 2), (_order, 5), (_limit, 2), (_group, 3), (_having, 3), (_set, 3), (_from, 3),
)  # fmt: skip
"""Ways to spoil a query, with their weights; each gives None where it does not apply."""


def corrupted(rng: Random, world: World, query: Query, times: int = 0) -> Query | None:
    """The query with one mistake, at times two (or `times`); None where no way was found in a few tries."""
    spoiled = query
    for _ in range(times or rng.choices((1, 2), (78, 22))[0]):
        for _ in range(8):
            way = rng.choices([way for way, _ in WAYS], [weight for _, weight in WAYS])[0]
            made = way(rng, world, spoiled)
            if made is not None and made != query:
                spoiled = made
                break
    return spoiled if spoiled != query else None


def without_term(rng: Random, world: World, query: Query, term: Term) -> Query | None:
    """The query as someone who does not know the term would write it; None where that gives nothing new."""
    made = _ignorant(rng, world, query, term)
    return None if made == query else made


def _ignorant(rng: Random, world: World, query: Query, term: Term) -> Query | None:
    if term.condition is not None:
        found = [item for item in _conditions(query.where) if item == term.condition]
        if not found:
            inner = next((item for item in _conditions(query.where) if isinstance(item.right, Query)), None)
            if inner is None or not isinstance(inner.right, Query):
                return None
            deeper = without_term(rng, world, inner.right, term)
            return replace(query, where=_swap(query.where, inner, replace(inner, right=deeper))) if deeper else None
        roll = rng.random()
        new = None if roll < 0.5 else _worse(rng, world, found[0])
        if roll > 0.75:
            new = _guess(rng, world, term)
        return replace(query, where=_swap(query.where, found[0], new))
    if term.amount is not None:
        item = term.amount.argument if isinstance(term.amount, Aggregate) else term.amount
        parts = [column for column in _columns(item) if column.table == term.table] or _columns(item)
        guess: Expression = rng.choice(parts)
        if rng.random() < 0.4 and isinstance(guess, Col):
            guess = _other(rng, world, guess) or guess
        if rng.random() < 0.2 and isinstance(item, Arithmetic):
            guess = replace(item, op=rng.choice([op for op in "+-*" if op != item.op]))
        return _replaced(query, item, guess)
    if term.column is not None:
        other = _other(rng, world, term.column)
        return _replaced(query, term.column, other) if other is not None else None
    return corrupted(rng, world, query, 1)


def _guess(rng: Random, world: World, term: Term) -> Condition | None:
    coded = [info for info in world.table(term.table).columns if info.kind == "category" and info.type == "text"]
    if not coded:
        return None
    info = rng.choice(coded)
    return Condition(info.col, "=", Literal(rng.choice(info.pool), True))


def _columns(item: Expression | None) -> list[Col]:
    if isinstance(item, Arithmetic):
        return _columns(item.left) + _columns(item.right)
    return [item] if isinstance(item, Col) else []


def _replaced(query: Query, old: Expression | None, new: Expression) -> Query:
    """The query with one expression put in another's place, wherever it stands outside subqueries."""

    def swap(item: Expression) -> Expression:
        if item == old:
            return new
        if isinstance(item, Aggregate) and item.argument is not None:
            return replace(item, argument=swap(item.argument))
        return item

    def inside(predicate: Predicate | None) -> Predicate | None:
        if isinstance(predicate, Both):
            return Both(predicate.connective, tuple(part for part in map(inside, predicate.parts) if part is not None))
        return replace(predicate, left=swap(predicate.left)) if predicate is not None else None

    group = tuple(
        column if column != old else new for column in query.group_by if column != old or isinstance(new, Col)
    )
    return replace(
        query,
        select=tuple(swap(item) for item in query.select),
        where=inside(query.where),
        having=inside(query.having),
        order_by=tuple(replace(order, by=swap(order.by)) for order in query.order_by),
        group_by=group,  # type: ignore[arg-type]
    )
