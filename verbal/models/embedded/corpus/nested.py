"""Questions that need a query in a query or two queries joined by a set operator (level 5)."""

from __future__ import annotations

from collections.abc import Callable

from verbal.models.embedded.ast import Aggregate, Condition, Literal, Order, Query
from verbal.models.embedded.corpus.asker import Asker, Clause, all_of
from verbal.models.embedded.corpus.counts import plural_of
from verbal.models.embedded.corpus.joined import Pair, a_pair, far_clause
from verbal.models.embedded.corpus.phrases import say
from verbal.models.embedded.corpus.single import (  # fmt: skip
    Asked,
    a_table,
    column_clause,
    condition,
    conditions,
    group_key,
    slots_for,
    some_columns,
    things,
)
from verbal.models.embedded.corpus.world import TableInfo


def _without(pair: Pair, clauses: list[Clause]) -> Condition | None:
    """`near.key NOT IN (SELECT link FROM far ...)`, for a near table that is the parent."""
    if pair.near.key is None:
        return None
    inner = Query((pair.link.column.col,), pair.tables[1:], where=all_of(clauses))
    return Condition(pair.near.key.col, "not in", inner)


def no_children(ask: Asker) -> Asked | None:
    """Rows without any related row, or without one that meets a condition; listed or counted."""
    pair = a_pair(ask, child=False)
    if pair is None or pair.child:
        return None
    clauses = conditions(ask, pair.far, none=0.55)
    lacking = _without(pair, clauses)
    shown = some_columns(ask, pair.near, 2)
    if lacking is None or not shown:
        return None
    near = conditions(ask, pair.near, shown, none=0.85)
    parents = things(ask, ask.noun(pair.near), [clause for clause in near if clause.before])
    near = [clause for clause in near if clause.before]
    slots = slots_for(ask, pair.far, (), clauses) | {
        "cols": ask.names(shown),
        "colsp": ask.names(shown, many=True),
        "parents": parents,
        "parent": ask.noun(pair.near, many=False),
        "verb": pair.link.verb,
    }
    slots["parent"] = things(ask, slots["parent"], near)
    where = all_of([*near, Clause(lacking)])
    if ask.chance(0.25):
        return say(ask.rng, "count_no_children", slots), Query((Aggregate("count"),), (pair.near.name,), where=where)
    return ask.say("no_children", slots, pair.near, shown), Query(tuple(column.col for column in shown), where=where)


def above_average(ask: Asker) -> Asked | None:
    """Rows above or below the average of a column; listed or counted."""
    table = a_table(ask, "number")
    if table is None:
        return None
    column = ask.rng.choice(table.of("number"))
    shown = [other for other in some_columns(ask, table, 3) if other is not column]
    if not shown:
        return None
    up = ask.chance(0.6)
    clauses = conditions(ask, table, (column, *shown), none=0.8)
    name = ask.name(column)
    slots = slots_for(ask, table, shown, clauses) | {
        "col": name,
        "colagain": name,
        "above": ask.pick("above", "greater than", "higher than", "more than", "larger than", "over")
        if up
        else ask.pick("below", "less than", "lower than", "smaller than", "under"),
    }
    inner = Query((Aggregate("avg", column.col),), (table.name,))
    where = all_of([*clauses, Clause(Condition(column.col, ">" if up else "<", inner))])
    if column.more and ask.chance(0.2) and not ask.terms:
        own = ask.rng.choice(column.more if up or not column.less else column.less)
        slots["things"] = things(ask, slots["nouns"], clauses)
        where = all_of([*clauses, Clause(Condition(column.col, ">" if own in column.more else "<", inner))])
        question = say(ask.rng, "own_above_average", slots | {"own": own})
        return question, Query(tuple(other.col for other in shown), where=where)
    if ask.chance(0.3):
        return say(ask.rng, "count_above_average", slots), Query((Aggregate("count"),), (table.name,), where=where)
    return ask.say("above_average", slots, table, shown), Query(tuple(other.col for other in shown), where=where)


def two_clauses(ask: Asker, table: TableInfo) -> tuple[Clause, Clause] | None:
    """Two different conditions on one column of a table."""
    pool = table.of("category", "number", "category")
    if not pool:
        return None
    column = ask.rng.choice(pool)
    made = [column_clause(ask, column, table), column_clause(ask, column, table)]
    if column.kind == "category":
        values = list(dict.fromkeys(str(cell) for cell in ask.world.cells(column)))
        if len(values) < 2:
            return None
        made = [ask.equality(column, value, table.person) for value in ask.rng.sample(values, 2)]
    elif column.kind == "number":
        numbers = sorted({float(str(cell)) for cell in ask.world.cells(column)})
        if len(numbers) < 4:
            return None
        low, high = str(round(numbers[len(numbers) // 2])), str(round(numbers[len(numbers) // 3]))
        above = Clause(
            Condition(column.col, ">", Literal(low)),
            after=ask.about(column, f"{ask.pick('above', 'more than', 'higher than', 'over')} {low}"),
        )
        below = Clause(
            Condition(column.col, "<", Literal(high)),
            after=ask.about(column, f"{ask.pick('below', 'less than', 'lower than', 'under')} {high}"),
        )
        made = [above, below]
    first, second = made
    if first is None or second is None or first.predicate == second.predicate:
        return None
    return first, second


def set_operation(ask: Asker) -> Asked | None:
    """Values shared by two kinds of rows, or had by one kind only (intersect, except)."""
    table = a_table(ask, "category", "text")
    key = group_key(ask, table) if table else None
    if table is None or key is None:
        return None
    clauses = two_clauses(ask, table)
    if clauses is None or any(_uses(clause, key.col) for clause in clauses):
        return None
    first, second = clauses
    noun = ask.noun(table)
    slots = {
        "keyp": plural_of(ask, key),
        "a": things(ask, noun, [first]),
        "b": things(ask, noun, [second]),
    }
    one = Query((key.col,), (table.name,), where=first.predicate)
    two = Query((key.col,), (table.name,), where=second.predicate)
    roll = ask.rng.random()
    if roll < 0.5:
        return say(ask.rng, "intersect", slots), _set(one, "intersect", two)
    if roll < 0.7:
        return say(ask.rng, "except", slots), _set(one, "except", two)
    return say(ask.rng, "except_plain", slots), _set(Query((key.col,), (table.name,)), "except", two)


def _uses(clause: Clause, column: object) -> bool:
    return isinstance(clause.predicate, Condition) and clause.predicate.left == column


def _set(one: Query, operator: str, two: Query) -> Query:
    return Query(one.select, one.tables, where=one.where, set_op=operator, other=two)


def parents_with_both(ask: Asker) -> Asked | None:
    """Rows with a related row that meets one condition and another that meets a second one."""
    pair = a_pair(ask, child=False)
    shown = pair.near.of("name") or some_columns(ask, pair.near, 1) if pair else []
    clauses = two_clauses(ask, pair.far) if pair else None
    if pair is None or clauses is None or not shown:
        return None
    columns = tuple(column.col for column in shown[:1])
    noun = ask.noun(pair.far)
    slots = {
        "cols": ask.names(shown[:1]),
        "colsp": ask.names(shown[:1], many=True),
        "parents": ask.noun(pair.near),
        "a": things(ask, noun, [clauses[0]]),
        "b": things(ask, noun, [clauses[1]]),
    }
    values = [clause.predicate.right for clause in clauses if isinstance(clause.predicate, Condition)]
    if all(isinstance(value, Literal) and value.quoted for value in values) and ask.chance(0.3):
        said = [ask.quoted(value.text) for value in values if isinstance(value, Literal)]
        slots |= {"a": said[0], "b": f"{said[1]} {noun}" if ask.chance(0.7) else said[1]}
    one = Query(columns, pair.tables, where=clauses[0].predicate)
    two = Query(columns, pair.tables, where=clauses[1].predicate)
    if ask.chance(0.25):
        slots["keyp"] = f"{slots['colsp']} of {slots['parents']}"
        return say(ask.rng, "except", slots), _set(one, "except", two)
    return say(ask.rng, "parent_intersect", slots), _set(one, "intersect", two)


def union(ask: Asker) -> Asked | None:
    """Columns of one kind of rows and of another kind as well."""
    table = a_table(ask)
    if table is None:
        return None
    shown = some_columns(ask, table, 2)
    first, second = condition(ask, table, shown), condition(ask, table, shown)
    if not shown or first is None or second is None or first.predicate == second.predicate:
        return None
    noun = ask.noun(table)
    slots = {
        "colsp": ask.names(shown, many=True),
        "a": things(ask, noun, [first]),
        "b": things(ask, noun, [second]),
    }
    columns = tuple(column.col for column in shown)
    one = Query(columns, (table.name,), where=first.predicate)
    return say(ask.rng, "union", slots), _set(one, "union", Query(columns, (table.name,), where=second.predicate))


def except_related(ask: Asker) -> Asked | None:
    """Rows that have one kind of related row: counted among those that do not meet a condition on the parent."""
    pair = a_pair(ask, child=True, bridges=False)
    if pair is None or not pair.child:
        return None
    clause = far_clause(ask, pair)
    shown = some_columns(ask, pair.near, 2)
    if clause is None or not shown or pair.far.key is None:
        return None
    inner = Query((pair.far.key.col,), (pair.far.name,), where=clause.predicate)
    where = Condition(pair.link.column.col, "not in", inner)
    slots = slots_for(ask, pair.near, shown, [Clause(where, after=f"not {clause.after}")])
    return say(ask.rng, "list", slots), Query(tuple(column.col for column in shown), where=where)


def most_common_value(ask: Asker) -> Asked | None:
    """Rows whose value of a column is the largest or smallest of all: `equal to the maximum`."""
    table = a_table(ask, "number")
    if table is None:
        return None
    column = ask.rng.choice(table.of("number"))
    shown = [other for other in some_columns(ask, table, 2) if other is not column]
    if not shown:
        return None
    up = ask.chance(0.6)
    name = ask.name(column)
    slots = slots_for(ask, table, shown, ()) | {
        "col": name,
        "max": ask.pick("maximum", "highest", "largest") if up else ask.pick("minimum", "lowest", "smallest"),
    }
    order = Order(column.col, up)
    return say(ask.rng, "max_where", slots), Query(tuple(other.col for other in shown), order_by=(order,), limit=1)


NESTED: tuple[tuple[Callable[[Asker], Asked | None], int, int], ...] = (
    (no_children, 5, 12), (above_average, 5, 7), (set_operation, 5, 6), (parents_with_both, 5, 6), (union, 5, 2),
    (except_related, 5, 1), (most_common_value, 5, 1),
)  # fmt: skip
"""Kinds of this file with their level and weight."""
