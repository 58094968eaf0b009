"""One random database: tables, columns with the words people use for them, keys and rows. No torch, no numpy."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from random import Random

from verbal.models.embedded.ast import Col, quote
from verbal.models.embedded.fields import Schema

NUMERIC = ("int", "real")
"""Types a number column may have."""


@dataclass(slots=True, eq=False)
class ColumnInfo:
    """One column and what people call it."""

    table: str
    name: str
    kind: str
    """`key`, `link` (foreign key), `name`, `text`, `category`, `number` or `date`."""
    type: str
    phrase: str
    """The words of its name, as in a question: `credit score`."""
    short: str = ""
    """A shorter way to say it, where that is common: `name` for `singer name`."""
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    most: tuple[str, ...] = ()
    least: tuple[str, ...] = ()
    """Comparatives and superlatives of its own (`older than`, `oldest`), by direction of its values."""
    leads: tuple[str, ...] = ()
    """Words before a value of a category (`from`, `in`; `adj` = the value itself as an adjective)."""
    pool: tuple[str, ...] = ()
    low: float = 0
    high: float = 100
    nullable: bool = False
    unique: bool = False

    @property
    def col(self) -> Col:
        """The column in a query."""
        return Col(self.table, self.name)


@dataclass(slots=True, eq=False)
class TableInfo:
    """One table and what people call one of its rows."""

    name: str
    noun: str
    columns: list[ColumnInfo]
    key: ColumnInfo | None = None
    bridge: bool = False
    person: bool = False

    def of(self, *kinds: str) -> list[ColumnInfo]:
        """Its columns of the given kinds."""
        return [column for column in self.columns if column.kind in kinds]


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key: each row of `child` points at one row of `parent`."""

    child: TableInfo
    column: ColumnInfo
    parent: TableInfo
    verb: str


@dataclass(slots=True, eq=False)
class World:
    """A database and everything the question generator knows of it."""

    schema: Schema
    tables: list[TableInfo]
    links: list[Link]
    rows: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)

    def table(self, name: str) -> TableInfo:
        """The table of that name."""
        return next(table for table in self.tables if table.name == name)

    def cells(self, column: ColumnInfo) -> list[object]:
        """Values of one column that are not null, row by row."""
        table = self.table(column.table)
        at = table.columns.index(column)
        return [row[at] for row in self.rows[table.name] if row[at] is not None]

    def connect(self, rng: Random | None = None) -> sqlite3.Connection:
        """An in-memory SQLite database with these tables; with `rng`, filled anew instead of with `rows`."""
        connection = sqlite3.connect(":memory:")
        rows = self.rows if rng is None else fill(self, rng)
        for table in self.tables:
            kinds = {"int": "INTEGER", "real": "REAL", "text": "TEXT", "date": "DATE"}
            columns = ", ".join(f"{quote(column.name)} {kinds[column.type]}" for column in table.columns)
            connection.execute(f"CREATE TABLE {quote(table.name)} ({columns})")
            marks = ", ".join("?" * len(table.columns))
            connection.executemany(f"INSERT INTO {quote(table.name)} VALUES ({marks})", rows[table.name])
        return connection


def fill(world: World, rng: Random) -> dict[str, list[tuple[object, ...]]]:
    """Rows for every table: keys from 1, links to existing rows (some parents get none), values from each pool."""
    sizes = {table.name: rng.randint(18, 40) if not table.bridge else rng.randint(30, 60) for table in world.tables}
    targets = {(link.column.table, link.column.name): sizes[link.parent.name] for link in world.links}
    rows: dict[str, list[tuple[object, ...]]] = {}
    for table in world.tables:
        size = sizes[table.name]
        columns = [_cells(column, size, targets.get((column.table, column.name)), rng) for column in table.columns]
        rows[table.name] = list(zip(*columns, strict=True))
    return rows


def _cells(column: ColumnInfo, size: int, target: int | None, rng: Random) -> list[object]:
    if column.kind == "key":
        return list(range(1, size + 1))
    if target is not None:
        reach = max(2, int(target * 0.8))
        return [min(rng.randint(1, reach), rng.randint(1, reach)) for _ in range(size)]
    cells = [_cell(column, rng) for _ in range(size)]
    if column.unique:
        cells = [cell if cells.index(cell) == at else f"{cell} {at}" for at, cell in enumerate(cells)]
    if column.nullable:
        cells = [None if rng.random() < 0.15 else cell for cell in cells]
    return cells


def _cell(column: ColumnInfo, rng: Random) -> object:
    if column.kind == "number":
        if column.type == "int":
            return rng.randint(int(column.low), int(column.high))
        return round(rng.uniform(column.low, column.high), rng.choice((0, 1, 2)))
    if column.kind == "date":
        return f"{rng.randint(2015, 2024)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return rng.choice(column.pool)


def identifier(phrase: str, style: str) -> str:
    """A phrase as a name in one of five styles: snake, camel, pascal, upper, joined."""
    words: list[str] = re.findall(r"[A-Za-z0-9]+", phrase)
    if style == "camel":
        return words[0].lower() + "".join(word.capitalize() for word in words[1:])
    if style == "pascal":
        return "".join(word.capitalize() for word in words)
    if style == "title":
        return "_".join(word.capitalize() for word in words)
    if style == "joined" and len(words) <= 2:
        return "".join(words).lower()
    joined = "_".join(words)
    return joined.upper() if style == "upper" else joined.lower()
