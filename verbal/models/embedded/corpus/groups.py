"""Questions that group rows: counts and aggregates for each value, HAVING, most common values (level 3)."""

from __future__ import annotations

from collections.abc import Callable

from verbal.models.embedded.ast import Aggregate, Condition, Literal, Order, Query
from verbal.models.embedded.corpus.asker import Asker, all_of
from verbal.models.embedded.corpus.counts import compare, literal, more_than, plural_of
from verbal.models.embedded.corpus.namer import NUMBER_WORDS
from verbal.models.embedded.corpus.phrases import say
from verbal.models.embedded.corpus.single import (  # fmt: skip
    Asked,
    a_table,
    aggregates,
    conditions,
    group_key,
    slots_for,
)


def group_count(ask: Asker) -> Asked | None:
    """How many rows for each value, at times in order of the count."""
    table = a_table(ask, "category", "text")
    key = group_key(ask, table) if table else None
    if table is None or key is None:
        return None
    clauses = conditions(ask, table, (key,), none=0.7)
    first = ask.chance(0.5)
    name = ask.name(key)
    slots = slots_for(ask, table, (key,), clauses) | {"key": name, "keyp": plural_of(ask, key), "keyagain": name}
    question = say(ask.rng, "group_count_first" if first else "group_count", slots)
    count = Aggregate("count")
    orders: tuple[Order, ...] = ()
    limit = None
    if ask.chance(0.15):
        orders, words, limit = count_order(ask)
        question = question.rstrip("?.") + words
    having = None
    if not orders and ask.chance(0.06):
        words, op, number = more_than(ask)
        question = question.rstrip("?.") + ask.pick(", only for those with {w}", " with {w} {t}").format(
            w=words, t=ask.noun(table)
        )
        having = Condition(count, op, literal(number))
    select = (key.col, count)
    query = Query(
        select, (table.name,), where=all_of(clauses), group_by=(key.col,), having=having, order_by=orders, limit=limit
    )
    return question, query


def count_order(ask: Asker) -> tuple[tuple[Order, ...], str, int | None]:
    """An order by the count, its words and a limit or none."""
    down = ask.chance(0.7)
    if ask.chance(0.2):
        limit = ask.rng.choice((3, 5, 10))
        said = NUMBER_WORDS[limit] if ask.chance(0.4) else str(limit)
        return (
            (Order(Aggregate("count"), True),),
            f", {ask.pick('only the top', 'top', 'show only the top', 'for the top')} {said}",
            limit,
        )
    if down:
        words = ask.pick(
            ", most first",
            " in descending order of the number",
            " sorted by the number in descending order",
            ", ordered by count descending",
            " from most to least",
            ", starting with the most",
            " in descending order of count",
        )
    else:
        words = ask.pick(
            ", fewest first",
            " in ascending order of the number",
            " sorted by the number",
            ", ordered by count",
            " from least to most",
            " in ascending order of count",
        )
    return (Order(Aggregate("count"), down),), words, None


def group_aggregate(ask: Asker) -> Asked | None:
    """An average, sum, largest or smallest value for each value of another column."""
    table = a_table(ask, "number")
    key = group_key(ask, table) if table else None
    if table is None or key is None:
        return None
    clauses = conditions(ask, table, (key,), none=0.75)
    made = aggregates(ask, table, 3)
    if made is None or key.col in made[0]:
        return None
    items, words = made
    first = ask.chance(0.5)
    name = ask.name(key)
    slots = slots_for(ask, table, (), clauses) | {
        "key": name,
        "keyp": plural_of(ask, key),
        "keyagain": name,
        "aggs": words,
    }
    question = say(ask.rng, "group_aggregate_first" if first else "group_aggregate", slots)
    select = (key.col, *items)
    orders: tuple[Order, ...] = ()
    if len(items) == 1 and ask.chance(0.12):
        down = ask.chance(0.7)
        orders = (Order(items[0], down),)
        question = question.rstrip("?.") + (
            ask.pick(", highest first", " in descending order", ", from highest to lowest", ", largest first")
            if down
            else ask.pick(", lowest first", " in ascending order", ", from lowest to highest")
        )
    return question, Query(select, (table.name,), where=all_of(clauses), group_by=(key.col,), order_by=orders)


def group_having(ask: Asker) -> Asked | None:
    """Values that more than so many rows share."""
    table = a_table(ask, "category", "text")
    key = group_key(ask, table) if table else None
    if table is None or key is None:
        return None
    clauses = conditions(ask, table, (key,), none=0.8)
    words, op, number = more_than(ask)
    slots = slots_for(ask, table, (key,), clauses) | {"key": ask.name(key), "keyp": plural_of(ask, key), "more": words}
    having = Condition(Aggregate("count"), op, literal(number))
    return say(ask.rng, "having", slots), Query(
        (key.col,), (table.name,), where=all_of(clauses), group_by=(key.col,), having=having
    )


def having_aggregate(ask: Asker) -> Asked | None:
    """Values whose rows have an average or a sum above a number."""
    table = a_table(ask, "number")
    key = group_key(ask, table) if table else None
    numbers = [column for column in table.of("number") if column is not key] if table else []
    if table is None or key is None or not numbers:
        return None
    made = aggregates(ask, table, 1)
    if made is None or not isinstance(made[0][0], Aggregate):
        return None
    item, phrase = made[0][0], made[1]
    assert isinstance(item, Aggregate)
    column = ask.rng.choice(numbers)
    words, op, value = compare(ask, ask.rng.uniform(column.low, column.high) * (5 if item.function == "sum" else 1))
    slots = slots_for(ask, table, (key,), ()) | {
        "key": ask.name(key), "keyp": plural_of(ask, key), "agg": phrase, "cmp": words, "agg2": f"{phrase} is {words}",
    }  # fmt: skip
    having = Condition(item, op, Literal(value))
    return say(ask.rng, "having_aggregate", slots), Query((key.col,), (table.name,), group_by=(key.col,), having=having)


def most_common(ask: Asker) -> Asked | None:
    """The value, or the few values, that most or fewest rows share."""
    table = a_table(ask, "category", "text")
    key = group_key(ask, table) if table else None
    if table is None or key is None:
        return None
    clauses = conditions(ask, table, (key,), none=0.8)
    slots = slots_for(ask, table, (key,), clauses) | {"key": ask.name(key), "keyp": plural_of(ask, key)}
    limit, down = 1, ask.chance(0.75)
    name = "most_common" if down else "least_common"
    if ask.chance(0.2):
        limit, down, name = ask.rng.choice((2, 3, 3, 5)), True, "top_common"
        slots["n"] = NUMBER_WORDS[limit] if ask.chance(0.4) else str(limit)
    question = say(ask.rng, name, slots)
    select: tuple[Aggregate | object, ...] = (key.col,)
    if ask.chance(0.12):
        question = question.rstrip("?.") + ask.pick(
            ", and how many?", " and how many {t} does it have?", ", and the number of {t}?", " and the count"
        ).format(t=slots["nouns"])
        select = (key.col, Aggregate("count"))
    return question, Query(
        select, (table.name,), where=all_of(clauses), group_by=(key.col,),  # type: ignore[arg-type]
        order_by=(Order(Aggregate("count"), down),), limit=limit,
    )  # fmt: skip


GROUPS: tuple[tuple[Callable[[Asker], Asked | None], int, int], ...] = (
    (group_count, 3, 10), (group_aggregate, 3, 8), (group_having, 3, 6), (having_aggregate, 3, 2), (most_common, 3, 8),
)  # fmt: skip
"""Kinds of this file with their level and weight."""
