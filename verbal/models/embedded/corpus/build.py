"""Random databases: `world(rng)` invents tables, names, keys, value pools and rows."""

from __future__ import annotations

from random import Random

from verbal.models.embedded.corpus.words import Lexicon, natural_columns, plural, sections
from verbal.models.embedded.corpus.world import ColumnInfo, Link, TableInfo, World, fill, identifier
from verbal.models.embedded.fields import Column, ForeignKey, Schema, Table

STYLES = ("snake", "snake", "snake", "title", "camel", "pascal", "upper", "joined")
"""Naming styles; a database keeps to one."""


_TWINS = {"fname": "first name", "lname": "last name", "surname": "last name", "date of birth": "birth date",
          "birthday": "birth date", "phone": "phone number"}  # fmt: skip


def world(rng: Random, words: Lexicon, tables: int | None = None) -> World:
    """A database of `tables` tables (default: mostly 1 to 4, at times up to 10), filled."""
    count = tables or rng.choices(range(1, 11), (8, 22, 25, 17, 11, 6, 4, 3, 2, 2))[0]
    style = rng.choice(STYLES)
    plurals, prefix = rng.random() < 0.35, rng.random() < 0.25
    made: list[TableInfo] = []
    links: list[Link] = []
    used: set[str] = set()
    while len(made) < count:
        table = _table(rng, words, style, plurals, prefix, used)
        if table is not None:
            _link(table, made, links, rng, words, style)
            made.append(table)
    result = World(Schema(()), made, links)
    for table in made:
        rng_rest = table.columns[1:] if table.key is not None else table.columns
        if rng.random() < 0.3:
            rng.shuffle(rng_rest)
            table.columns[-len(rng_rest) :] = rng_rest
    result.rows = fill(result, rng)
    result.schema = _schema(result)
    return result


def _schema(made: World) -> Schema:
    tables = []
    for table in made.tables:
        columns = tuple(Column(column.name, column.type, _listed(made, column)) for column in table.columns)
        key = (table.key.name,) if table.key is not None else ()
        tables.append(Table(table.name, columns, key))
    links = (ForeignKey(link.child.name, link.column.name, link.parent.name, _key(link.parent)) for link in made.links)
    return Schema(tuple(tables), tuple(links))


def _key(table: TableInfo) -> str:
    return table.key.name if table.key is not None else table.columns[0].name


def _listed(made: World, column: ColumnInfo) -> tuple[str, ...]:
    if column.kind != "category":
        return ()
    values = sorted({str(cell) for cell in made.cells(column)})
    return tuple(values) if len(values) <= 9 else ()


def _table(rng: Random, words: Lexicon, style: str, plurals: bool, prefix: bool, used: set[str]) -> TableInfo | None:
    noun = words.noun(rng)
    name = identifier(plural(noun) if plurals else noun, style)
    if name.lower() in used or noun in used:
        return None
    used.update((name.lower(), noun))
    table = TableInfo(name, noun, [], person=rng.random() < 0.35)
    if rng.random() < 0.93:
        phrase = rng.choice(
            ("id", f"{noun} id", f"{noun} id", f"{noun} number" if rng.random() < 0.2 else f"{noun} id")
        )
        kind = "int"
        key = ColumnInfo(name, identifier(phrase, style), "key", kind, phrase, short="id")
        table.columns.append(key)
        table.key = key
    taken = {column.name.lower() for column in table.columns}
    for _ in range(rng.choices(range(2, 9), (10, 18, 22, 20, 14, 10, 6))[0]):
        column = _column(table, rng, words, bool(table.columns) and len(table.columns) < 2)
        full = f"{noun} {column.phrase}" if prefix and rng.random() < 0.7 else column.phrase
        column.name = identifier(full, style)
        if full != column.phrase:
            column.short, column.phrase = column.phrase, full
        twin = _TWINS.get(column.short or column.phrase, column.short or column.phrase)
        if twin in {_TWINS.get(info.short or info.phrase, info.short or info.phrase) for info in table.columns}:
            continue
        if column.name.lower() not in taken:
            taken.add(column.name.lower())
            table.columns.append(column)
    return table


def _column(table: TableInfo, rng: Random, words: Lexicon, first: bool) -> ColumnInfo:
    roll = 0.0 if first and rng.random() < 0.75 else rng.random()
    natural = natural_columns()
    if roll < 0.16:
        return _text(table, rng.choice(natural["texts"]), rng)
    if roll < 0.20:
        return _text(table, words.attribute(rng), rng)
    if roll < 0.42:
        phrase, kind, low, high, more, less, most, least = rng.choice(natural["numbers"])
        if rng.random() < 0.25:
            phrase = f"{rng.choice(words.adjectives)} {phrase}"
        return ColumnInfo(
            table.name, "", "number", kind, phrase, more=tuple(more), less=tuple(less), most=tuple(most),
            least=tuple(least), low=low, high=high, nullable=rng.random() < 0.08,
        )  # fmt: skip
    if roll < 0.56:
        high = rng.choice((10, 50, 100, 1000, 20000))
        kind = rng.choice(("int", "int", "real"))
        phrase = words.attribute(rng)
        if rng.random() < 0.12:
            phrase = f"number of {plural(rng.choice(words.entities))}"
        return ColumnInfo(table.name, "", "number", kind, phrase, low=0, high=high, nullable=rng.random() < 0.1)
    if roll < 0.66:
        phrase, more, less, most, least = rng.choice(natural["dates"])
        if rng.random() < 0.2:
            phrase = f"{words.attribute(rng)} date"
            more, less, most, least = natural["dates"][0][1:]
        return ColumnInfo(
            table.name, "", "date", "date", phrase, more=tuple(more), less=tuple(less), most=tuple(most),
            least=tuple(least), nullable=rng.random() < 0.15,
        )  # fmt: skip
    return _category(table, rng, words, natural_only=roll < 0.88)


def _category(table: TableInfo, rng: Random, words: Lexicon, natural_only: bool) -> ColumnInfo:
    if natural_only:
        phrase, pool, leads = rng.choice(natural_columns()["categories"])
        values = list(sections()["places"]) if pool == ["@place"] else list(pool)
        style = rng.random()
        if style < 0.1:
            values = [value.upper()[:3] for value in values]
        elif style < 0.3:
            values = [value.capitalize() for value in values]
    else:
        phrase, leads = words.attribute(rng), rng.choice((["adj"], ["with"], ["of"], ["in"], []))
        roll = rng.random()
        if roll < 0.3:
            values = rng.sample("ABCDEFGHKLMNPQRSTVWXYZ", 6)
        elif roll < 0.5:
            values = [f"{rng.choice('ABCDEFG')}{rng.randint(1, 99)}" for _ in range(5)]
        elif roll < 0.7:
            values = [_made_up(rng) for _ in range(7)]
        else:
            values = [rng.choice(words.adjectives + words.attributes) for _ in range(6)]
            values = values if rng.random() < 0.6 else [value.capitalize() for value in values]
    values = list(dict.fromkeys(values))
    pool = tuple(rng.sample(values, rng.randint(2, len(values)) if len(values) > 2 else len(values)))
    if rng.random() < 0.07:
        return ColumnInfo(
            table.name, "", "category", "int", phrase, leads=(), pool=("0", "1", "2", "3")[: rng.randint(2, 4)]
        )
    return ColumnInfo(table.name, "", "category", "text", phrase, leads=tuple(leads), pool=pool)


def _made_up(rng: Random) -> str:
    return "".join(rng.sample(sections()["syllables"], rng.randint(2, 3))).capitalize()


def _text(table: TableInfo, phrase: str, rng: Random) -> ColumnInfo:
    lists = sections()
    first, last = lists["names"], lists["surnames"]
    if phrase in ("first name", "fname", "nickname"):
        pool = rng.sample(first, 30)
    elif phrase in ("last name", "lname", "surname"):
        pool = rng.sample(last, 30)
    elif table.person and phrase in ("name", "full name"):
        pool = [f"{rng.choice(first)} {rng.choice(last)}" for _ in range(40)]
    elif phrase == "email":
        pool = [f"{rng.choice(first).lower()}@{_made_up(rng).lower()}.com" for _ in range(30)]
    elif phrase in ("phone", "phone number", "zip code"):
        pool = [f"{rng.randint(100, 999)}-{rng.randint(1000, 9999)}" for _ in range(40)]
    elif phrase in ("address", "street"):
        pool = [f"{rng.randint(1, 99)} {_made_up(rng)} Street" for _ in range(40)]
    else:
        pool = [_title(rng) for _ in range(40)]
    kind = "name" if phrase in ("name", "title", "first name", "last name", "full name") else "text"
    return ColumnInfo(
        table.name, "", kind, "text", phrase, pool=tuple(pool), unique=phrase == "name", nullable=rng.random() < 0.06
    )


def _title(rng: Random) -> str:
    lists = sections()
    roll = rng.random()
    if roll < 0.5:
        return _made_up(rng)
    if roll < 0.8:
        return f"{rng.choice(lists['adjectives'])} {rng.choice(lists['entities'])}".title()
    return f"{_made_up(rng)} {rng.choice(lists['entities'])}".title()


def _link(table: TableInfo, made: list[TableInfo], links: list[Link], rng: Random, words: Lexicon, style: str) -> None:
    parents = [other for other in made if other.key is not None]
    if not parents or rng.random() < 0.04:
        return
    wanted = min(len(parents), rng.choices((1, 2, 3), (68, 30, 2))[0])
    table.bridge = wanted > 1 and (len(table.columns) < 4 or rng.random() < 0.4)
    if table.bridge and table.key is not None and rng.random() < 0.5:
        table.columns.remove(table.key)
        table.key = None
    for parent in rng.sample(parents, wanted):
        assert parent.key is not None
        roll = rng.random()
        noun = parent.noun
        phrase = f"{noun} id" if parent.key.phrase == "id" or roll < 0.7 else noun if roll < 0.85 else parent.key.phrase
        if roll > 0.93:
            phrase = f"{rng.choice(words.entities)} id"
        name = identifier(phrase, style)
        if any(column.name.lower() == name.lower() for column in table.columns):
            continue
        column = ColumnInfo(table.name, name, "link", parent.key.type, phrase)
        table.columns.insert(1 if table.key is not None else 0, column)
        links.append(Link(table, column, parent, rng.choice(words.verbs)))
    if table.bridge and len(links) >= 2 and links[-2].child is table and rng.random() < 0.4:
        first, second = links[-2].parent, links[-1].parent
        phrase = f"{first.noun} {second.noun}"
        name = identifier(phrase, style)
        if all(name.lower() != other.name.lower() for other in made):
            table.noun = phrase
            table.name = name
            for column in table.columns:
                column.table = name
