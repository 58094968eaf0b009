"""Questions over two or three tables joined along foreign keys (level 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verbal.models.embedded.ast import Aggregate, Condition, Expression, Literal, Order, Query
from verbal.models.embedded.corpus.asker import Asker, Clause, all_of
from verbal.models.embedded.corpus.counts import compare, literal, more_than, plural_of
from verbal.models.embedded.corpus.namer import NUMBER_WORDS
from verbal.models.embedded.corpus.phrases import say
from verbal.models.embedded.corpus.single import (  # fmt: skip
    Asked,
    aggregates,
    amount,
    condition,
    conditions,
    extreme,
    group_key,
    slots_for,
    some_columns,
    things,
)
from verbal.models.embedded.corpus.world import ColumnInfo, Link, TableInfo


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tables that a question relates: `link` joins them, or `bridge` stands between them."""

    near: TableInfo
    far: TableInfo
    link: Link
    child: bool
    """Whether `near` is the child of `far`."""
    through: TableInfo | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that must be in FROM."""
        middle = (self.through.name,) if self.through is not None else ()
        return (self.near.name, *middle, self.far.name)


def pairs(ask: Asker, child: bool | None = None, bridges: bool = True) -> list[Pair]:
    """Pairs of tables of this database; those that a term in play speaks of, if there are any."""
    found: list[Pair] = []
    single: dict[frozenset[str], int] = {}
    for link in ask.world.links:
        key = frozenset((link.child.name, link.parent.name))
        single[key] = single.get(key, 0) + 1
    for link in ask.world.links:
        if single[frozenset((link.child.name, link.parent.name))] > 1 or link.child is link.parent:
            continue
        if not link.child.bridge or ask.chance(0.3):
            found.append(Pair(link.child, link.parent, link, True))
            found.append(Pair(link.parent, link.child, link, False))
        if bridges:
            for other in ask.world.links:
                if other.child is link.child and other.parent is not link.parent:
                    found.append(Pair(link.parent, other.parent, link, False, link.child))
                if other.child is link.parent and other.parent is not link.child and ask.chance(0.5):
                    found.append(Pair(link.child, other.parent, link, True, link.parent))
    direct = {frozenset((link.child.name, link.parent.name)) for link in ask.world.links}
    found = [pair for pair in found if pair.through is None or frozenset((pair.near.name, pair.far.name)) not in direct]
    if child is not None:
        found = [pair for pair in found if pair.child is child]
    wanted = {term.table for term in ask.terms}
    preferred = [pair for pair in found if wanted & {pair.near.name, pair.far.name}]
    return preferred or found


def a_pair(ask: Asker, child: bool | None = None, bridges: bool = True) -> Pair | None:
    """One pair of tables."""
    found = pairs(ask, child, bridges)
    return ask.rng.choice(found) if found else None


def joined_listing(ask: Asker) -> Asked | None:
    """Columns of one table for rows related to rows of another that meet a condition."""
    pair = a_pair(ask)
    if pair is None:
        return None
    shown = some_columns(ask, pair.near, 3)
    clause = far_clause(ask, pair)
    if not shown or clause is None:
        return None
    near = conditions(ask, pair.near, shown, none=0.8)
    clauses = [*near, clause]
    slots = slots_for(ask, pair.near, shown, clauses)
    orders: tuple[Order, ...] = ()
    if ask.chance(0.1):
        order, slots["tail"] = ask.direction(ask.rng.choice(shown))
        orders = (order,)
    key = "distinct" if ask.chance(0.12) and not orders else "list" if ask.chance(0.85) or orders else "which"
    question = ask.say(key, slots, pair.near, () if key == "distinct" else shown)
    distinct = key == "distinct"
    query = Query(
        tuple(column.col for column in shown), pair.tables, distinct=distinct, where=all_of(clauses), order_by=orders
    )
    return question, query


def far_clause(ask: Asker, pair: Pair) -> Clause | None:
    """A condition on the far table, said of the near one: `of customers from Berlin`."""
    inner = condition(ask, pair.far)
    if inner is None:
        return None
    far = ask.noun(pair.far, many=ask.chance(0.5))
    relation = ask.related(pair.link, pair.child, pair.near.person)
    bare = _bare(ask, pair, inner)
    if bare is not None:
        return Clause(inner.predicate, after=bare)
    said = things(ask, far, [inner])
    if ask.chance(0.3):
        said = f"{ask.pick('the', 'a', 'any', 'some')} {said}"
    if inner.after.startswith("whose") and ask.chance(0.3):
        said = f"{far} {inner.after.replace('whose', 'that have', 1)}"
    if ask.chance(0.1) and inner.after.startswith("whose"):
        return Clause(
            inner.predicate, after=f"whose {ask.noun(pair.far, many=False)} {inner.after.removeprefix('whose ')}"
        )
    return Clause(inner.predicate, after=f"{relation} {said}")


def _bare(ask: Asker, pair: Pair, inner: Clause) -> str | None:
    """A name alone: `orders by Anna Diaz`."""
    predicate = inner.predicate
    if not isinstance(predicate, Condition) or predicate.op != "=" or not isinstance(predicate.right, Literal):
        return None
    column = next((column for column in pair.far.columns if column.col == predicate.left), None)
    if column is None or column.kind not in ("name", "category") or not predicate.right.quoted or not ask.chance(0.35):
        return None
    said = ask.quoted(predicate.right.text)
    relation = ask.related(pair.link, pair.child, pair.near.person)
    if ask.chance(0.5):
        return f"{relation} the {said} {ask.noun(pair.far, many=False)}"
    if ask.chance(0.4):
        return f"{relation} {ask.noun(pair.far, many=False)} {said}"
    return f"{relation} {said}"


def joined_count(ask: Asker) -> Asked | None:
    """How many rows are related to rows of another table that meet a condition."""
    pair = a_pair(ask)
    clause = far_clause(ask, pair) if pair else None
    if pair is None or clause is None:
        return None
    clauses = [*conditions(ask, pair.near, none=0.8), clause]
    many = not pair.child or pair.through is not None
    counted = Aggregate("count", pair.near.key.col, True) if many and pair.near.key else Aggregate("count")
    query = Query((counted,), pair.tables, where=all_of(clauses))
    return say(ask.rng, "count", slots_for(ask, pair.near, (), clauses)), query


def joined_aggregate(ask: Asker) -> Asked | None:
    """Aggregates over rows related to rows of another table that meet a condition."""
    pair = a_pair(ask, child=True, bridges=False)
    clause = far_clause(ask, pair) if pair else None
    made = aggregates(ask, pair.near, 2) if pair else None
    if pair is None or clause is None or made is None:
        return None
    clauses = [*conditions(ask, pair.near, none=0.85), clause]
    slots = slots_for(ask, pair.near, (), clauses) | {"aggs": made[1]}
    return say(ask.rng, "aggregate", slots), Query(tuple(made[0]), pair.tables, where=all_of(clauses))


def both_columns(ask: Asker) -> Asked | None:
    """Columns of two related tables side by side."""
    pair = a_pair(ask)
    if pair is None:
        return None
    shown, other = some_columns(ask, pair.near, 2), some_columns(ask, pair.far, 2)
    if not shown or not other:
        return None
    clauses = conditions(ask, pair.near, shown, none=0.65)
    if not clauses and ask.chance(0.3) and (extra := far_clause(ask, pair)) is not None:
        clauses = [extra]
    slots = slots_for(ask, pair.near, shown, clauses) | {
        "other": ask.noun(pair.far, many=not pair.child or pair.through is not None),
        "othercols": ask.names(other), "othercolsp": ask.names(other, many=True),
    }  # fmt: skip
    orders: tuple[Order, ...] = ()
    if ask.chance(0.15):
        order, slots["tail"] = ask.direction(ask.rng.choice([*shown, *other]))
        orders = (order,)
    select = tuple(column.col for column in (*shown, *other))
    return say(ask.rng, "both_columns", slots), Query(select, pair.tables, where=all_of(clauses), order_by=orders)


def per_parent(ask: Asker) -> Asked | None:
    """How many children each parent has, or an aggregate over them."""
    pair = a_pair(ask, child=False)
    if pair is None or pair.near.key is None:
        return None
    shown = some_columns(ask, pair.near, 2)
    if not shown:
        return None
    clauses = conditions(ask, pair.far, none=0.8) if ask.chance(0.5) else []
    total = aggregates(ask, pair.far, 2) if pair.through is None and ask.chance(0.35) else None
    slots = parent_slots(ask, pair, shown, clauses)
    items: Sequence[Expression] = [Aggregate("count")]
    key = "per_parent"
    if total is not None:
        items, slots["aggs"] = total
        key = "agg_per_parent"
    elif any(term.kind == "measure" for term in ask.terms):
        return None
    first = ask.chance(0.6)
    question = ask.say(key if first else f"{key}_last", slots, pair.near, shown)
    columns = tuple(column.col for column in shown)
    select = (*columns, *items)
    orders: tuple[Order, ...] = ()
    limit = None
    if len(items) == 1 and ask.chance(0.12):
        from verbal.models.embedded.corpus.groups import count_order

        orders, words, limit = count_order(ask)
        orders = (Order(items[0], orders[0].descending),)
        question = question.rstrip("?.") + words
    query = Query(
        select,
        pair.tables,
        where=all_of(clauses),
        group_by=(pair.near.key.col,),
        order_by=orders,
        limit=limit,
    )
    return question, query


def parent_slots(ask: Asker, pair: Pair, shown: Sequence[ColumnInfo], clauses: Sequence[Clause]) -> dict[str, str]:
    """The slots of sentences about parents (the near table) and their children (the far one)."""
    parent = ask.noun(pair.near, many=False)
    slots = slots_for(ask, pair.far, (), clauses)
    verb = pair.link.verb
    return slots | {
        "cols": ask.names(shown), "colsp": ask.names(shown, many=True), "parent": parent, "parentagain": parent,
        "parents": ask.noun(pair.near), "verb": verb, "verb3": f"{verb}s",
    }  # fmt: skip


def group_far(ask: Asker) -> Asked | None:
    """How many rows, or which total, for each value of a related table's column."""
    pair = a_pair(ask, child=True, bridges=False)
    key = group_key(ask, pair.far) if pair else None
    if pair is None or key is None:
        return None
    clauses = conditions(ask, pair.near, none=0.75)
    made = aggregates(ask, pair.near, 1) if ask.chance(0.5) else None
    if made is None and any(term.kind == "measure" for term in ask.terms):
        return None
    items, words = made if made is not None else ([Aggregate("count")], "")
    first = ask.chance(0.5)
    noun = f"{ask.noun(pair.far, many=False)} " if ask.chance(0.6) else ""
    slots = slots_for(ask, pair.near, (), clauses) | {
        "key": noun + ask.name(key), "keyp": noun + plural_of(ask, key), "keyagain": ask.name(key), "aggs": words,
    }  # fmt: skip
    name = ("group_aggregate" if made is not None else "group_count") + ("_first" if first else "")
    question = say(ask.rng, name, slots)
    orders: tuple[Order, ...] = ()
    limit = None
    select = (key.col, *items)
    if made is None and ask.chance(0.2):
        question = say(ask.rng, "most_common", slots)
        select, orders, limit = (key.col,), (Order(Aggregate("count"), True),), 1
    return question, Query(
        select, pair.tables, where=all_of(clauses), group_by=(key.col,), order_by=orders, limit=limit
    )


def most_children(ask: Asker) -> Asked | None:
    """The parent with the most or fewest children, or with the largest total over them."""
    pair = a_pair(ask, child=False)
    if pair is None or pair.near.key is None:
        return None
    shown = some_columns(ask, pair.near, 2)
    if not shown:
        return None
    clauses = conditions(ask, pair.far, none=0.85)
    slots = parent_slots(ask, pair, shown, clauses)
    limit, down = 1, ask.chance(0.82)
    name = "most_children" if down else "fewest_children"
    by = Aggregate("count")
    found = amount(ask, pair.far) if pair.through is None and ask.chance(0.3) else None
    if found is not None:
        item, phrase, _ = found
        down, name = True, "top_sum"
        by = item if isinstance(item, Aggregate) else Aggregate(ask.pick("sum", "sum", "avg"), item)
        slots["agg"] = (
            phrase
            if isinstance(item, Aggregate)
            else f"{ask.pick('total', 'total', 'combined') if by.function == 'sum' else 'average'} {phrase}"
        )
    elif any(term.kind == "measure" for term in ask.terms):
        return None
    if ask.chance(0.2) and down:
        limit = ask.rng.choice((2, 3, 3, 5))
        name = "top_sum" if found is not None else "top_children"
    slots["n"] = (NUMBER_WORDS[limit] if ask.chance(0.4) else str(limit)) if limit > 1 else ""
    question = ask.say(name, slots, pair.near, shown)
    if name == "top_sum" and limit > 1 and str(slots["n"]) not in question.split():
        limit = 1
    query = Query(
        tuple(column.col for column in shown), pair.tables, where=all_of(clauses), group_by=(pair.near.key.col,),
        order_by=(Order(by, down),), limit=limit,
    )  # fmt: skip
    if (
        name == "top_sum"
        and limit == 1
        and (" by " in question or (slots["n"] == "" and question.startswith(("Show the  ", "What are the  "))))
    ):
        return None
    return question, query


def children_having(ask: Asker) -> Asked | None:
    """Parents with more than so many children."""
    pair = a_pair(ask, child=False)
    if pair is None or pair.near.key is None or any(term.kind == "measure" for term in ask.terms):
        return None
    shown = some_columns(ask, pair.near, 2)
    if not shown:
        return None
    clauses = conditions(ask, pair.far, none=0.85)
    words, op, number = more_than(ask)
    slots = parent_slots(ask, pair, shown, clauses) | {"more": words}
    having = Condition(Aggregate("count"), op, literal(number))
    return ask.say("children_having", slots, pair.near, shown), Query(
        tuple(column.col for column in shown),
        pair.tables,
        where=all_of(clauses),
        group_by=(pair.near.key.col,),
        having=having,
    )


def total_having(ask: Asker) -> Asked | None:
    """Parents whose children add up to more than so much."""
    pair = a_pair(ask, child=False, bridges=False)
    made = aggregates(ask, pair.far, 1) if pair else None
    if pair is None or pair.near.key is None or made is None or not isinstance(made[0][0], Aggregate):
        return None
    shown = some_columns(ask, pair.near, 2)
    if not shown:
        return None
    words, op, value = compare(ask, ask.rng.choice((10, 50, 100, 500, 1000, 5000)))
    slots = parent_slots(ask, pair, shown, ()) | {"more": f"{ask.article(made[1])} {ask.pick('', 'of ')}{words} in"}
    question = say(ask.rng, "children_having", slots)
    having = Condition(made[0][0], op, Literal(value))
    return question, Query(
        tuple(column.col for column in shown), pair.tables, group_by=(pair.near.key.col,), having=having
    )


def joined_superlative(ask: Asker) -> Asked | None:
    """Columns of one table for the related row that comes first in some order."""
    pair = a_pair(ask, child=None, bridges=False)
    if pair is None:
        return None
    shown = some_columns(ask, pair.near, 2)
    clauses = conditions(ask, pair.far, none=0.8)
    made = extreme(ask, pair.far, clauses)
    if made is None or not shown:
        return None
    words, _, order, limit = made
    relation = ask.related(pair.link, pair.child, pair.near.person)
    noun = ask.noun(pair.near, many=limit > 1)
    superlative = f"{noun} {relation} the {words}"
    slots = {
        "cols": ask.names(shown), "colsp": ask.names(shown, many=True), "super": superlative,
        "superq": f"{noun} {ask.pick('has', 'is associated with', 'belongs to')} the {words}",
    }  # fmt: skip
    return ask.say("superlative", slots, pair.near, shown), Query(
        tuple(column.col for column in shown), pair.tables, where=all_of(clauses), order_by=(order,), limit=limit
    )


JOINED: tuple[tuple[Callable[[Asker], Asked | None], int, int], ...] = (
    (joined_listing, 4, 16), (joined_count, 4, 7), (joined_aggregate, 4, 4), (both_columns, 4, 6), (per_parent, 4, 9),
    (group_far, 4, 5), (most_children, 4, 9), (children_having, 4, 7), (total_having, 4, 2), (joined_superlative, 4, 6),
)  # fmt: skip
"""Kinds of this file with their level and weight."""
