"""Further kinds of questions of all levels: sorted groups, existence, columns of a related table, any and all."""

from __future__ import annotations

from collections.abc import Callable

from verbal.models.embedded.ast import Aggregate, Condition, Expression, Order, Query
from verbal.models.embedded.corpus.asker import Asker, Clause, all_of
from verbal.models.embedded.corpus.counts import literal, more_than, plural_of
from verbal.models.embedded.corpus.groups import count_order
from verbal.models.embedded.corpus.joined import a_pair, far_clause, parent_slots
from verbal.models.embedded.corpus.namer import AGGREGATES
from verbal.models.embedded.corpus.phrases import say
from verbal.models.embedded.corpus.single import (  # fmt: skip
    Asked,
    a_table,
    aggregates,
    conditions,
    group_key,
    slots_for,
    some_columns,
    things,
)


def ordered_groups(ask: Asker) -> Asked | None:
    """Level 3: the values of a column in order of how many rows have them."""
    table = a_table(ask, "category", "text")
    key = group_key(ask, table) if table else None
    if table is None or key is None:
        return None
    orders, _, limit = count_order(ask)
    down = orders[0].descending
    slots = slots_for(ask, table, (key,), ())
    words = ask.pick(
        "in descending order of the number of {t}",
        "sorted by the number of {t} in descending order",
        "from the one with the most {t} to the one with the fewest",
        "ordered by the number of {t} descending",
    )
    if not down:
        words = ask.pick(
            "in ascending order of the number of {t}",
            "sorted by the number of {t}",
            "ordered by the number of {t}",
            "from the one with the fewest {t} to the one with the most",
        )
    if limit is not None:
        words = f"with the most {{t}}, {ask.pick('top', 'only the top', 'only the first')} {limit}"
    slots |= {"keyp": plural_of(ask, key), "tail": " " + words.format(t=slots["nouns"])}
    return say(ask.rng, "ordered_groups", slots), Query(
        (key.col,), (table.name,), group_by=(key.col,), order_by=orders, limit=limit
    )


def two_keys(ask: Asker) -> Asked | None:
    """Level 3: counts or aggregates for each pair of values of two columns."""
    table = a_table(ask, "category")
    keys = table.of("category", "category", "text") if table else []
    if table is None or len({id(key) for key in keys}) < 2:
        return None
    first, second = ask.rng.sample(list({id(key): key for key in keys}.values()), 2)
    made = aggregates(ask, table, 1) if ask.chance(0.4) else None
    items, words = made if made is not None else ([Aggregate("count")], "number")
    if made is None and any(term.kind == "measure" for term in ask.terms):
        return None
    slots = slots_for(ask, table, (), ())
    slots |= {"key": ask.name(first), "key2": ask.name(second), "aggs": words}
    question = say(ask.rng, "two_keys", slots)
    counted = (
        "number of" in question
        or question.startswith(("How many", "Count"))
        or "how many" in question
        or "count the" in question
    )
    if counted == (made is not None):
        return None
    return question, Query((first.col, second.col, *items), (table.name,), group_by=(first.col, second.col))


def with_children(ask: Asker) -> Asked | None:
    """Level 4: rows that have any related row; listed or counted."""
    pair = a_pair(ask, child=False)
    if pair is None or pair.near.key is None:
        return None
    shown = some_columns(ask, pair.near, 2)
    if not shown:
        return None
    clauses = conditions(ask, pair.far, none=0.75)
    slots = parent_slots(ask, pair, shown, clauses)
    if ask.chance(0.35):
        count = Aggregate("count", pair.near.key.col, True)
        return say(ask.rng, "count_with_children", slots), Query((count,), pair.tables, where=all_of(clauses))
    return ask.say("with_children", slots, pair.near, shown), Query(
        tuple(column.col for column in shown), pair.tables, where=all_of(clauses)
    )


def far_columns(ask: Asker) -> Asked | None:
    """Level 4: columns of a related table, alone or with own ones, asked of rows as if they were their own."""
    pair = a_pair(ask, child=True if ask.chance(0.7) else None)
    if pair is None:
        return None
    far = some_columns(ask, pair.far, 2)
    near = some_columns(ask, pair.near, 2) if ask.chance(0.4) else []
    if not far:
        return None
    shown = [*near, *far]
    clauses = conditions(ask, pair.near, shown, none=0.3)
    if ask.chance(0.25):
        extra = far_clause(ask, pair)
        clauses = [extra] if extra is not None else clauses
    slots = slots_for(ask, pair.near, (), clauses)
    noun = ask.noun(pair.far, many=False)
    words = []
    for at, column in enumerate(shown):
        own = (
            f"{noun} "
            if column in far and (near or ask.chance(0.5)) and ask.chance(0.85) and at != 1 + len(near)
            else ""
        )
        words.append(own + ask.name(column))
    slots["cols"] = slots["colsp"] = ask.listed(words)
    orders: tuple[Order, ...] = ()
    if ask.chance(0.12):
        order, slots["tail"] = ask.direction(ask.rng.choice(shown))
        orders = (order,)
    question = say(ask.rng, "far_columns", slots)
    if orders and slots["tail"].strip() not in question:
        orders = ()
    return question, Query(tuple(column.col for column in shown), pair.tables, where=all_of(clauses), order_by=orders)


def per_parent_having(ask: Asker) -> Asked | None:
    """Level 4: columns of parents with more than so many children, and how many they have."""
    pair = a_pair(ask, child=False)
    if pair is None or pair.near.key is None or any(term.kind == "measure" for term in ask.terms):
        return None
    shown = some_columns(ask, pair.near, 2)
    if not shown:
        return None
    words, op, number = more_than(ask)
    clauses = conditions(ask, pair.far, none=0.9)
    slots = parent_slots(ask, pair, shown, clauses) | {"more": words}
    question = say(ask.rng, "children_having", slots)
    tail = ask.pick(
        "Also show the number of {t}.",
        "Show the number of {t} too.",
        "And how many {t} do they have?",
        "Include the number of {t}.",
    )
    question = question.rstrip() + " " + tail.format(t=ask.noun(pair.far))
    if ask.chance(0.5):
        slots |= {"far": ask.noun(pair.far)}
        question = say(ask.rng, "per_parent_having", slots)
    having = Condition(Aggregate("count"), op, literal(number))
    select: tuple[Expression, ...] = (*(column.col for column in shown), Aggregate("count"))
    return question, Query(select, pair.tables, where=all_of(clauses), group_by=(pair.near.key.col,), having=having)


def mixed_aggregates(ask: Asker) -> Asked | None:
    """Level 2: aggregates of two different columns."""
    table = a_table(ask, "number")
    numbers = table.of("number") if table else []
    if table is None or len(numbers) < 2 or any(term.kind == "measure" for term in ask.terms):
        return None
    items: list[Expression] = []
    words = []
    for column in ask.rng.sample(numbers, 2):
        item, said = ask.aggregate(ask.rng.choice(list(AGGREGATES)), column.col, ask.name(column))
        items.append(item)
        words.append(said)
    clauses = conditions(ask, table, none=0.6)
    slots = slots_for(ask, table, (), clauses) | {"aggs": ask.pick(" and ", " and the ", " and ").join(words)}
    return say(ask.rng, "aggregate", slots), Query(tuple(items), (table.name,), where=all_of(clauses))


def above_extreme(ask: Asker) -> Asked | None:
    """Level 5: rows above any or all rows of another kind."""
    table = a_table(ask, "number")
    if table is None:
        return None
    column = ask.rng.choice(table.of("number"))
    shown = [other for other in some_columns(ask, table, 2) if other is not column]
    clauses = [clause for clause in conditions(ask, table, (column,), none=0.0) if "or" not in clause.after.split()][:1]
    if not shown or not clauses:
        return None
    up = ask.chance(0.6)
    every = ask.chance(0.55)
    function = "max" if up == every else "min"
    noun = ask.noun(table)
    slots = slots_for(ask, table, shown, ()) | {
        "col": ask.name(column),
        "above": ask.pick("greater than", "larger than", "higher than", "above")
        if up
        else ask.pick("less than", "lower than", "smaller than", "below"),
        "quant": ask.pick("all", "that of all", "every one of the", "those of all")
        if every
        else ask.pick("any", "that of any", "some", "at least one of the"),
        "others": things(ask, noun, clauses),
        "othersall": things(ask, f"{ask.pick('', 'all ', 'the ')}{noun}", clauses),
        "extreme": ask.pick(
            *{"max": ("maximum", "highest", "largest"), "min": ("minimum", "lowest", "smallest")}[function]
        ),
    }
    inner = Query((Aggregate(function, column.col),), (table.name,), where=all_of(clauses))
    where = Condition(column.col, ">" if up else "<", inner)
    if ask.chance(0.35):
        return say(ask.rng, "count_above_extreme", slots), Query((Aggregate("count"),), (table.name,), where=where)
    return say(ask.rng, "above_extreme", slots), Query(tuple(other.col for other in shown), where=where)


def everything(ask: Asker) -> Asked | None:
    """Level 1: all columns of the rows that meet conditions."""
    table = a_table(ask)
    if table is None or len(table.columns) > 9:
        return None
    clauses = conditions(ask, table, none=0.25)
    return say(ask.rng, "everything", slots_for(ask, table, (), clauses)), Query(
        tuple(column.col for column in table.columns), where=all_of(clauses)
    )


def far_both(ask: Asker) -> Asked | None:
    """Level 4: conditions on both of two related tables, counted or listed."""
    pair = a_pair(ask)
    shown = some_columns(ask, pair.near, 2) if pair else []
    if pair is None or not shown:
        return None
    near = conditions(ask, pair.near, shown, none=0.0)[:1]
    clause = far_clause(ask, pair)
    if clause is None or not near:
        return None
    clauses: list[Clause] = [clause, *near] if ask.chance(0.5) else [*near, clause]
    slots = slots_for(ask, pair.near, shown, clauses)
    if ask.chance(0.4) and (pair.child and pair.through is None):
        return say(ask.rng, "count", slots), Query((Aggregate("count"),), pair.tables, where=all_of(clauses))
    return ask.say("list", slots, pair.near, shown), Query(
        tuple(c.col for c in shown), pair.tables, where=all_of(clauses)
    )


MORE: tuple[tuple[Callable[[Asker], Asked | None], int, int], ...] = (
    (ordered_groups, 3, 2), (two_keys, 3, 2), (with_children, 4, 6), (far_columns, 4, 12), (per_parent_having, 4, 3),
    (mixed_aggregates, 2, 3), (above_extreme, 5, 4), (everything, 1, 2), (far_both, 4, 5),
)  # fmt: skip
"""Kinds of this file with their level and weight."""
