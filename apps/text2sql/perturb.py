"""Other contents for a database: the same schema, rows perturbed so that wrong queries show.

Rows are dropped, values are swapped between rows, repeated, set to null where nulls are known, moved to the edge of
what the queries compare with, or made anew; tables may be empty. Primary keys and unique columns stay unique and
foreign keys point at rows that exist, so a query that is right on every legal content stays right. Everything follows
from a seed.
"""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .names import quoted

MOST_READ = 2_000
"""Rows read of each table."""

WRITE_SECONDS = 10.0
"""Time to write one content: a schema may have checks that take long."""

Rows = dict[str, list[list[Any]]]
"""Rows of each table."""


@dataclass(slots=True)
class Column:
    """What is known of a column."""

    name: str
    unique: bool = False
    """Whether it must differ from row to row: a key by itself."""
    nulls: bool = False
    """Whether nulls were seen."""
    parent: tuple[str, int] | None = None
    """Table and place of the column it refers to."""
    values: list[Any] = field(default_factory=list)
    """Values seen, without nulls, each once, in order of their first row."""
    edges: list[Any] = field(default_factory=list)
    """Values beside which the queries decide."""


@dataclass(slots=True)
class Table:
    """What is known of a table."""

    name: str
    columns: list[Column]
    rows: list[list[Any]]
    keys: list[tuple[int, ...]]
    """Places of columns that together must differ from row to row."""


class Content:
    """A database's schema and rows, and other contents made of them."""

    def __init__(self, path: str | Path, golds: Iterable[str]) -> None:
        """Reads the SQLite file at `path`; `golds` tell which values matter.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        with closing(sqlite3.connect(f"file:{quote(str(Path(path).resolve()))}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda value: value.decode("utf-8", "replace")
            made = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            entries = [e for e in connection.execute(made) if re.match(r"CREATE\s+(TABLE|VIEW)\b", e[2], re.IGNORECASE)]
            self.schema = [sql for kind, _, sql in entries if kind == "table"]
            self.schema += [sql for kind, _, sql in entries if kind == "view"]
            self.tables = {name.lower(): _table(connection, name) for kind, name, _ in entries if kind == "table"}
            for table in self.tables.values():
                self._refer(connection, table)
        edges = _edges(golds)
        for table in self.tables.values():
            for column in table.columns:
                column.edges = edges.get(column.name.lower(), [])

    @property
    def columns(self) -> dict[str, list[str]]:
        """Column names of each table (lower case)."""
        return {name: [c.name for c in table.columns] for name, table in self.tables.items()}

    def _refer(self, connection: sqlite3.Connection, table: Table) -> None:
        for _, _, other, ours, theirs, *_ in connection.execute(f"PRAGMA foreign_key_list({quoted(table.name)})"):
            parent = self.tables.get(other.lower())
            place = next((i for i, c in enumerate(table.columns) if c.name.lower() == ours.lower()), None)
            if parent is None or place is None:
                continue
            wanted = (theirs or "").lower()
            keys = [i for i, c in enumerate(parent.columns) if c.name.lower() == wanted] or [
                key[0] for key in parent.keys if len(key) == 1
            ]
            known = {row[keys[0]] for row in parent.rows} if keys else set()
            whole = len(parent.rows) < MOST_READ
            kept = not whole or all(row[place] in known or row[place] is None for row in table.rows)
            if keys and parent is not table and kept:
                table.columns[place].parent = (other.lower(), keys[0])

    def other(self, seed: str, most: int = 40) -> Rows:
        """Another content, of `most` rows a table at most."""
        rng = random.Random(seed)
        style = {name: rng.random() for name in ("empty", "swap", "draw", "edge", "null", "fresh", "keep", "twin")}
        small = rng.random() < 0.5
        made: Rows = {}
        for table in self._parents_first():
            if rng.random() < 0.25 * style["empty"]:
                made[table.name.lower()] = []
                continue
            count = min(most, max(1, round(len(table.rows) * rng.uniform(0.2, 1.2))), rng.choice((4, 8, 16, most)))
            rows = [list(row) for row in rng.sample(table.rows, min(count, len(table.rows)))]
            while len(rows) < (count if table.rows else rng.randint(2, 8)):
                rows.append(_fresh_row(table, rng, len(rows)))
            for place, column in enumerate(table.columns):
                self._perturb(rows, place, column, made, style, small, rng)
            if rng.random() < style["twin"]:
                _twins(rows, table, rng)
            made[table.name.lower()] = _lawful(rows, table)
        return made

    def _perturb(
        self, rows: list[list[Any]], place: int, column: Column, made: Rows,
        style: dict[str, float], small: bool, rng: random.Random,
    ) -> None:  # fmt: skip
        """Changes one column of the rows; rows that would have to refer to nothing are taken out."""
        if column.parent is not None:
            there, key = made.get(column.parent[0], []), column.parent[1]
            known = [row[key] for row in there if row[key] is not None]
            few = known[: max(1, len(known) // 2)] if rng.random() < 0.5 else known
            if not known and not column.nulls:
                rows.clear()
            for row in rows:
                if not known or (row[place] is None and rng.random() < 0.5):
                    row[place] = None
                elif row[place] not in known or rng.random() < 0.4:
                    row[place] = rng.choice(few)
            return
        if column.unique:
            return
        ways = ("swap", "draw", "fresh", "keep")
        way = rng.choices(ways, [style[name] + 0.05 for name in ways])[0]
        values = column.values[:]
        rng.shuffle(values)
        pool = values[:3] if small and values else values
        if way == "swap":
            cells = [row[place] for row in rows]
            rng.shuffle(cells)
            for row, cell in zip(rows, cells, strict=True):
                row[place] = cell
        for row in rows:
            if way == "draw" and pool:
                row[place] = rng.choice(pool)
            elif way == "fresh" and row[place] is not None:
                row[place] = _fresh(row[place], column, rng, small)
            if column.edges and rng.random() < 0.6 * style["edge"] + 0.1:
                row[place] = rng.choice(column.edges)
            if column.nulls and rng.random() < 0.3 * style["null"]:
                row[place] = None

    def _parents_first(self) -> list[Table]:
        done: dict[str, Table] = {}

        def visit(name: str, above: tuple[str, ...]) -> None:
            if name in done or name in above:
                return
            for column in self.tables[name].columns:
                if column.parent is not None:
                    visit(column.parent[0], (*above, name))
            done[name] = self.tables[name]

        for name in self.tables:
            visit(name, ())
        return list(done.values())

    def write(self, rows: Rows, path: Path) -> None:
        """Makes the SQLite file `path` of a content; rows that its constraints do not let in are left out.

        Raises:
            sqlite3.Error: it cannot be written, or takes longer than `WRITE_SECONDS`.
        """
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            deadline = time.monotonic() + WRITE_SECONDS
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            connection.execute("PRAGMA trusted_schema = 0")
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            for statement in self.schema:
                connection.execute(statement)
            for name, table in self.tables.items():
                marks = ", ".join("?" * len(table.columns))
                insert = f"INSERT OR IGNORE INTO {quoted(table.name)} VALUES ({marks})"
                connection.executemany(insert, rows.get(name, []))
            connection.execute("COMMIT")


# reading ------------------------------------------------------------------------------------------------------------


def _table(connection: sqlite3.Connection, name: str) -> Table:
    facts = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    columns = [Column(fact[1]) for fact in facts]
    listed = ", ".join(quoted(c.name) for c in columns)
    rows = [list(r) for r in connection.execute(f"SELECT {listed} FROM {quoted(name)} LIMIT {MOST_READ}")]
    main = tuple(i for i, fact in sorted(enumerate(facts), key=lambda pair: pair[1][5]) if fact[5])
    keys = [main] if main else []
    for _, index, unique, *_ in connection.execute(f"PRAGMA index_list({quoted(name)})").fetchall():
        places = tuple(place for _, place, _ in connection.execute(f"PRAGMA index_info({quoted(index)})"))
        if unique and all(place >= 0 for place in places) and places not in keys:
            keys.append(places)
    for place, column in enumerate(columns):
        cells = [row[place] for row in rows]
        column.nulls = None in cells
        column.values = [value for value in dict.fromkeys(cells) if value is not None]
        column.unique = (place,) in keys
    return Table(name, columns, rows, keys)


def _edges(golds: Iterable[str]) -> dict[str, list[Any]]:
    """Column name -> values on both sides of what the queries compare it with."""
    import sqlglot
    from sqlglot import exp

    found: dict[str, dict[Any, None]] = defaultdict(dict)
    for gold in golds:
        try:
            tree = sqlglot.parse_one(gold, read="sqlite")
        except sqlglot.errors.SqlglotError:
            continue
        for test in tree.find_all(exp.Binary, exp.In, exp.Between):
            columns = [c for c in test.find_all(exp.Column) if not c.this.args.get("quoted")]
            texts = [c.name for c in test.find_all(exp.Column) if c.this.args.get("quoted") and not c.table]
            texts += [v.name for v in test.find_all(exp.Literal) if v.is_string]
            numbers = [v.name for v in test.find_all(exp.Literal) if not v.is_string]
            if len(columns) == 1 and not isinstance(test, exp.Connector):
                beside = [value for number in numbers for value in _beside(number)]
                found[columns[0].name.lower()].update(dict.fromkeys(beside + [v for t in texts for v in _near_text(t)]))
    return {name: list(values) for name, values in found.items()}


def _beside(number: str) -> list[Any]:
    if number.isdigit():
        return [int(number) - 1, int(number), int(number) + 1]
    value = float(number)
    return [value * 0.9, value, value * 1.1]


def _near_text(text: str) -> list[str]:
    core = text.strip("%_")
    found = [core, core, core.lower(), core + "x"]
    return [*found, f"a{core}", f"{core}b", f"a{core}b"] if core != text else found


# making -------------------------------------------------------------------------------------------------------------


def _fresh(value: Any, column: Column, rng: random.Random, small: bool) -> Any:
    """A value of the same type that may be new."""
    numbers = [v for v in column.values if isinstance(v, int | float)]
    if isinstance(value, int) and numbers:
        low, high = int(min(numbers)), int(max(numbers))
        return rng.randint(low, low + 3) if small else rng.randint(low - 1, high + 1)
    if isinstance(value, float) and numbers:
        return round(rng.uniform(float(min(numbers)), float(max(numbers))), 2)
    if isinstance(value, str) and column.values:
        other = rng.choice(column.values)
        return other if small or not isinstance(other, str) or rng.random() < 0.5 else f"{other}{rng.choice('abc')}"
    return value


def _fresh_row(table: Table, rng: random.Random, number: int) -> list[Any]:
    """A row with keys of its own, the other values as some rows have them."""
    row: list[Any] = []
    for column in table.columns:
        if not column.values:
            row.append(number + 1 if column.unique else rng.choice((1, 2, "a", "b")))
        elif column.unique:
            last = column.values[-1]
            numbers = [v for v in column.values if isinstance(v, int)]
            row.append(max(numbers) + number + 1 if isinstance(last, int) and numbers else f"{last}{number}")
        else:
            row.append(rng.choice(column.values))
    return row


def _twins(rows: list[list[Any]], table: Table, rng: random.Random) -> None:
    """Makes some rows equal to others in all but their keys."""
    keys = {place for key in table.keys for place in key}
    free = [place for place in range(len(table.columns)) if place not in keys]
    for row in rows:
        if rng.random() < 0.4:
            model = rng.choice(rows)
            kept = rng.choice(free) if free and rng.random() < 0.5 else -1
            for place in free:
                if place != kept:
                    row[place] = model[place]
    if not keys and rows:
        rows += [list(rng.choice(rows)) for _ in range(rng.randint(1, 3))]


def _lawful(rows: Sequence[list[Any]], table: Table) -> list[list[Any]]:
    """The rows without those that repeat a key."""
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for row in rows:
        keys = {(number, *(row[i] for i in key)) for number, key in enumerate(table.keys)}
        if not keys & seen:
            seen |= keys
            kept.append(row)
    return kept


__all__ = ["Content", "Rows"]
