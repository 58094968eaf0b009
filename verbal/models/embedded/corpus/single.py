"""Questions about one table: lists, conditions, counts, aggregates, superlatives and groups (levels 1 to 3).

Each kind takes an `Asker` and returns a question with its query, or None where the database does not lend itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from verbal.models.embedded.ast import Aggregate, Both, Condition, Expression, Order, Query
from verbal.models.embedded.corpus.asker import Asker, Clause, all_of
from verbal.models.embedded.corpus.namer import (  # fmt: skip
    AGGREGATES,
    LARGEST,
    NUMBER_WORDS,
    SMALLEST,
)
from verbal.models.embedded.corpus.phrases import say
from verbal.models.embedded.corpus.world import ColumnInfo, TableInfo

Asked = tuple[str, Query]
"""A question and the query that answers it."""


def a_table(ask: Asker, *kinds: str) -> TableInfo | None:
    """A table with a column of one of these kinds; one that a term in play speaks of, if there is one."""
    wanted = {term.table for term in ask.terms}
    fit = [table for table in ask.world.tables if not kinds or table.of(*kinds)]
    preferred = [table for table in fit if table.name in wanted]
    pool = preferred or [table for table in fit if not table.bridge or ask.chance(0.2)]
    return ask.rng.choice(pool) if pool else None


def some_columns(ask: Asker, table: TableInfo, most: int = 3) -> list[ColumnInfo]:
    """One to three columns to show, names first come."""
    label = ask.label(table)
    if label is not None and ask.chance(0.16):
        return [label]
    pool = table.of("name", "text", "number", "category", "date")
    if not pool or ask.chance(0.2):
        pool = table.of("key", "name", "text", "number", "category", "date")
    if not pool:
        return []
    names = table.of("name")
    count = min(len(pool), ask.rng.choices((1, 2, 3, 4), (52, 30, 14, 4))[0], most)
    if names and count == 1 and ask.chance(0.6):
        return [ask.rng.choice(names)]
    columns = ask.rng.sample(pool, count)
    if names and ask.chance(0.5) and names[0] not in columns:
        columns[0] = names[0]
    firsts = [column for column in table.columns if column.phrase in ("first name", "last name")]
    if len(firsts) == 2 and ask.chance(0.5):
        columns = firsts + [column for column in columns if column not in firsts][: most - 2]
    return columns


def condition(ask: Asker, table: TableInfo, avoid: Sequence[ColumnInfo] = ()) -> Clause | None:
    """One condition on a table: a term's, if one is in play, or one of the schema's own."""
    term = ask.term("predicate", table.name, fresh=True)
    if term is not None and term.condition is not None:
        return term_clause(ask, term.phrase, term.condition, table)
    pool = [column for column in table.of("name", "text", "number", "category", "date", "key") if column not in avoid]
    weights = [{"name": 5, "category": 9, "number": 8, "date": 6, "text": 3, "key": 1}[column.kind] for column in pool]
    if not pool:
        return None
    column = ask.rng.choices(pool, weights)[0]
    aliased = [column for column in pool if any(term.column == column.col for term in ask.terms)]
    if aliased and ask.chance(0.6):
        column = aliased[0]
    return column_clause(ask, column, table)


def term_clause(ask: Asker, phrase: str, predicate: Condition, table: TableInfo) -> Clause:
    """A term's condition, its word before or after the noun."""
    if ask.chance(0.75):
        return Clause(predicate, before=phrase)
    who = "who" if table.person else "that"
    form = ask.pick("{w} are {p}", "{w} were {p}", "{w} are {p}", "considered {p}", "{w} count as {p}", "which are {p}")
    return Clause(predicate, after=form.format(w=who, p=phrase))


def column_clause(ask: Asker, column: ColumnInfo, table: TableInfo) -> Clause | None:
    """A condition on one column."""
    roll = ask.rng.random()
    if column.nullable and roll < 0.12:
        return ask.missing(column)
    value, other = ask.cell(column), ask.cell(column)
    if value is None or other is None:
        return None
    if column.kind in ("number", "key"):
        if column.kind == "number" and roll > 0.93:
            low, high = sorted((value, other), key=float)
            return ask.span(column, low, high, table.person)
        if roll > 0.42 and column.kind == "number":
            if ask.chance(0.5):
                value = str(round(float(value)))
            return ask.comparison(column, value, table.person)
        if roll > 0.36 and value != other:
            return ask.either(column, value, other, table.person)
        if roll > 0.30:
            return ask.different(column, value, table.person)
        return ask.equality(column, value, table.person)
    if column.kind == "date":
        if roll > 0.9:
            return ask.span(column, min(value, other), max(value, other), table.person)
        return ask.year(column, value) if roll > 0.55 else ask.date(column, value, table.person)
    if column.kind in ("name", "text") and roll > 0.68:
        return ask.like(column, value)
    if roll > 0.82 and value != other:
        return ask.either(column, value, other, table.person)
    if roll > 0.72:
        return ask.different(column, value, table.person)
    return ask.equality(column, value, table.person)


def said_of(clause: Clause) -> object:
    """The left side of a clause's (first) condition: what it is about."""
    predicate = clause.predicate
    while isinstance(predicate, Both):
        predicate = predicate.parts[0]
    return predicate.left


def conditions(ask: Asker, table: TableInfo, avoid: Sequence[ColumnInfo] = (), none: float = 0.4) -> list[Clause]:
    """No condition, one or two; always one where a term in play needs it."""
    wanted = sum(term.kind == "predicate" and term.table == table.name for term in ask.terms)
    count = ask.rng.choices((0, 1, 2), (none, 0.78 * (1 - none), 0.22 * (1 - none)))[0]
    found: list[Clause] = []
    for _ in range(max(count, wanted)):
        clause = condition(ask, table, avoid if ask.chance(0.6) else ())
        if clause is not None and all(said_of(clause) != said_of(other) for other in found):
            found.append(clause)
    if len(found) == 2 and not ask.terms and found[0].after and found[1].after and ask.chance(0.2):
        first, second = found
        if isinstance(first.predicate, Condition) and isinstance(second.predicate, Condition):
            joined = f"{first.after} or {second.after}"
            return [Clause(Both("or", (first.predicate, second.predicate)), after=joined)]
    return found


def things(ask: Asker, noun: str, clauses: Sequence[Clause]) -> str:
    """A noun with its conditions: `active students whose age is over 20`."""
    before = " ".join(clause.before for clause in clauses if clause.before)
    after = ask.pick(" and ", " and ", " and ", " and ", ", ").join(clause.after for clause in clauses if clause.after)
    return " ".join(word for word in (before, noun, after) if word)


def slots_for(ask: Asker, table: TableInfo, columns: Sequence[ColumnInfo], clauses: Sequence[Clause]) -> dict[str, str]:
    """The slots most sentences have."""
    one, many = ask.noun(table, many=False), ask.noun(table)
    after = " ".join(clause.after for clause in clauses if clause.after)
    before = " ".join(clause.before for clause in clauses if clause.before)
    return {
        "cols": ask.names(columns) if columns else "",
        "colsp": ask.names(columns, many=True) if columns else "",
        "things": things(ask, many, clauses),
        "thing": things(ask, one, clauses),
        "noun": f"{before} {one}".strip(),
        "nouns": many,
        "only": f" {after}" if after else "",
        "tail": "",
    }


def listing(ask: Asker) -> Asked | None:
    """Level 1: columns of the rows that meet conditions, at times in order."""
    table = a_table(ask)
    columns = some_columns(ask, table) if table else []
    if table is None or not columns:
        return None
    clauses = conditions(ask, table, columns, none=0.35)
    slots = slots_for(ask, table, columns, clauses)
    orders: tuple[Order, ...] = ()
    if ask.chance(0.22):
        keys = table.of("number", "date", "name") or columns
        order, slots["tail"] = ask.direction(ask.rng.choice(keys if ask.chance(0.8) else columns))
        orders = (order,)
    distinct = not orders and ask.chance(0.15)
    key = "distinct" if distinct else "which" if clauses and ask.chance(0.12) else "list"
    if clauses and key == "which" and orders:
        key = "list"
    query = Query(tuple(column.col for column in columns), distinct=distinct, where=all_of(clauses), order_by=orders)
    return ask.say(key, slots, table, shown=() if distinct else columns), query


def attribute(ask: Asker) -> Asked | None:
    """Level 1: columns of the one thing of a given name."""
    table = a_table(ask, "name", "key")
    if table is None:
        return None
    column = ask.rng.choice(table.of("name", "name", "text") or table.of("key"))
    shown = [other for other in some_columns(ask, table, 2) if other is not column]
    value = ask.cell(column)
    if not shown or value is None:
        return None
    literal = ask.literal(column, value)
    said = ask.quoted(value)
    roll = ask.rng.random()
    if column.kind == "name" and roll < 0.35:
        thing = said
    elif column.kind == "name" and roll < 0.6:
        thing = f"{ask.noun(table, many=False)} {said}"
    else:
        thing = things(ask, ask.noun(table, many=False), [ask.equality(column, value, table.person)])
    slots = {"cols": ask.names(shown), "colsp": ask.names(shown, many=True), "thing": thing}
    return say(ask.rng, "attribute", slots), Query(
        tuple(c.col for c in shown), where=Condition(column.col, "=", literal)
    )


def counting(ask: Asker) -> Asked | None:
    """Level 1: how many rows meet conditions."""
    table = a_table(ask)
    if table is None:
        return None
    clauses = conditions(ask, table, none=0.2)
    slots = slots_for(ask, table, (), clauses)
    return say(ask.rng, "count", slots), Query((Aggregate("count"),), (table.name,), where=all_of(clauses))


def count_distinct(ask: Asker) -> Asked | None:
    """Level 2: how many different values a column has."""
    table = a_table(ask, "category", "text", "name")
    if table is None:
        return None
    column = ask.rng.choice(table.of("category", "text", "name"))
    clauses = conditions(ask, table, (column,), none=0.6)
    slots = slots_for(ask, table, (column,), clauses)
    return say(ask.rng, "count_distinct", slots), Query((Aggregate("count", column.col, True),), where=all_of(clauses))


def amount(ask: Asker, table: TableInfo) -> tuple[Expression, str, ColumnInfo | None] | None:
    """Something to add up or compare: a term's measure, if one is in play, or a number column."""
    term = ask.term("measure", table.name, share=1.0)
    if term is not None and term.amount is not None:
        return term.amount, term.phrase, None
    numbers = table.of("number")
    aliased = [column for column in numbers if any(term.column == column.col for term in ask.terms)]
    if not numbers:
        return None
    column = ask.rng.choice(aliased or numbers)
    return column.col, ask.name(column), column


def aggregates(ask: Asker, table: TableInfo, most: int = 3) -> tuple[list[Expression], str] | None:
    """One to three aggregates of one amount, and their words."""
    found = amount(ask, table)
    if found is None:
        return None
    item, phrase, column = found
    if isinstance(item, Aggregate):
        return [item], ask.pick("", "", "total ") + phrase
    functions = ask.rng.sample(list(AGGREGATES), ask.rng.choices((1, 2, 3), (74, 17, 9))[0] if most > 1 else 1)
    if column is None and ask.chance(0.6):
        functions = ["sum"]
    made = [Aggregate(function, item) for function in functions]
    if len(made) == 1:
        if functions == ["sum"] and column is None and ask.chance(0.4):
            return [made[0]], phrase
        return [made[0]], ask.aggregate(functions[0], item, phrase)[1]
    words = [ask.pick(*AGGREGATES[function]).removesuffix(" of the").removesuffix(" of") for function in functions]
    joined = f"{', '.join(words[:-1])}{ask.pick(' and ', ' and ', ', and ')}{words[-1]} {phrase}"
    return list(made), joined


def aggregating(ask: Asker) -> Asked | None:
    """Level 2: averages, sums, largest and smallest values."""
    table = a_table(ask, "number")
    if table is None:
        return None
    clauses = conditions(ask, table, none=0.45)
    made = aggregates(ask, table)
    if made is None:
        return None
    items, words = made
    if len(items) == 1 and isinstance(items[0], Aggregate) and ask.chance(0.12):
        items, words = [*items, Aggregate("count")], f"{words} and the number"
    slots = slots_for(ask, table, (), clauses) | {"aggs": words}
    tables = (table.name,)
    return say(ask.rng, "aggregate", slots), Query(tuple(items), tables, where=all_of(clauses))


def superlative(ask: Asker) -> Asked | None:
    """Level 2: the first rows in some order: `the three oldest students`."""
    table = a_table(ask, "number", "date")
    if table is None:
        return None
    shown = some_columns(ask, table, 3)
    clauses = conditions(ask, table, none=0.65)
    made = extreme(ask, table, clauses)
    if made is None or not shown:
        return None
    words, which, order, limit = made
    slots = {"cols": ask.names(shown), "colsp": ask.names(shown, many=True), "super": words, "superq": which}
    query = Query(tuple(column.col for column in shown), where=all_of(clauses), order_by=(order,), limit=limit)
    return ask.say("superlative", slots, table, shown), query


def extreme(ask: Asker, table: TableInfo, clauses: Sequence[Clause]) -> tuple[str, str, Order, int] | None:
    """Words for the first rows by some amount (`oldest student`, `student has the highest age`), order and limit."""
    limit = ask.rng.choice((2, 3, 3, 4, 5, 5, 10)) if ask.chance(0.25) else 1
    down = ask.chance(0.6)
    measure = ask.term("measure", table.name, share=1.0)
    if measure is not None and measure.amount is not None and not measure.total:
        by, name, column = measure.amount, measure.phrase, None
    else:
        pool = table.of("number", "number", "date")
        aliased = [item for item in pool if any(term.column == item.col for term in ask.terms)]
        if not pool:
            return None
        column = ask.rng.choice(aliased or pool)
        by, name = column.col, ask.name(column)
    order = Order(by, down)
    noun = things(ask, ask.noun(table, many=limit > 1), clauses)
    said = NUMBER_WORDS[limit] if ask.chance(0.5) else str(limit)
    lead = f"{said} " if limit > 1 else ""
    own = column and (column.most if down else column.least)
    rivals = [
        info for info in table.of("number", "date") if info is not column and not any(t.column for t in ask.terms)
    ]
    if own and any(set(own) & {*info.most, *info.least} for info in rivals):
        own = ()
    if own and ask.chance(0.6) and not any(term.column for term in ask.terms):
        word = ask.rng.choice(own)
        return (
            f"{lead}{word} {noun}",
            f"{noun} is the {word}" if limit == 1 else f"are the {lead}{word} {noun}",
            order,
            limit,
        )
    if column is not None and column.kind == "date":
        word = ask.pick("latest", "most recent", "last", "newest") if down else ask.pick("earliest", "oldest", "first")
    else:
        word = ask.pick(*(LARGEST if down else SMALLEST))
    if limit > 1 and down and ask.chance(0.3):
        return (
            f"top {said} {noun} {ask.pick('by', 'in terms of', 'ranked by', 'with the highest')} {name}",
            f"are the top {said} {noun} by {name}",
            order,
            limit,
        )
    link = ask.pick(
        "with the", "with the", "that has the", "who has the" if table.person else "which has the", "having the"
    )
    amount_words = ask.pick("{w} {n}", "{w} {n}", "{w} value of {n}").format(w=word, n=name)
    words = f"{lead}{noun} {link} {amount_words}"
    verb = "have" if limit > 1 else "has"
    return words, f"{lead}{noun} {verb} the {amount_words}", order, limit


def group_key(ask: Asker, table: TableInfo) -> ColumnInfo | None:
    """A column to group by."""
    pool = table.of("category", "category", "category", "text", "name")
    numbers = [column for column in table.of("number") if column.high - column.low < 90]
    aliased = [column for column in table.columns if any(term.column == column.col for term in ask.terms)]
    if aliased and ask.chance(0.7):
        return aliased[0]
    if numbers and ask.chance(0.1):
        return ask.rng.choice(numbers)
    return ask.rng.choice(pool) if pool else None


SINGLE: tuple[tuple[Callable[[Asker], Asked | None], int, int], ...] = (
    (listing, 1, 20), (attribute, 1, 6), (counting, 1, 9), (count_distinct, 2, 5),
    (aggregating, 2, 10), (superlative, 2, 12),
)  # fmt: skip
"""Kinds of this file with their level and weight."""
