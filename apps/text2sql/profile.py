"""What the columns of a database hold: ranges, distinct counts, nulls, examples, and keys that nobody declared.

Works on any engine through a function that runs a query and a catalog of tables; an SQLite file is read directly. The
work is bounded: of each table the first rows are read, fewer the more columns it has. The profile of a file is kept on
disk by the file's content (`profile_cache.py`).
"""

from __future__ import annotations

import datetime
import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from verbal.errors import DataError, VerbalError

from . import schema
from .names import quoted
from .schema import CATEGORY_SIZE, SCANNED_ROWS, Column, ForeignKey, Table

Query = Callable[[str], Sequence[Sequence[Any]]]
"""Runs a query and gives its rows. Raises DataError where it does not run."""

SCANNED_CELLS = 2_000_000
"""Cells of a table that are looked at, about: a wide table is read less deep."""

SCANNED_IN_ALL = 20_000_000
"""Cells of a database that are looked at, about: many tables are read less deep each."""

LEAST_ROWS = 2_000
"""Rows that are always looked at."""

COMPARED = 200
"""Characters of a text by which values are told apart."""

SHOWN = 60
"""Characters of a text that are kept as an example or a bound."""

_AT_ONCE = 20
_KINDS = (
    ("text", r"^\s*(ENUM|SET)\b"),
    ("blob", r"BLOB|BYTEA|BINARY|BIT\b|GEOM"),
    ("other", r"\[|JSON|STRUCT|MAP|LIST|UNION|ARRAY|XML|INTERVAL|UUID|VECTOR|INET"),
    ("boolean", r"BOOL"),
    ("date", r"DATE|TIME"),
    ("number", r"INT|DEC|NUM|REAL|FLOA|DOUB|SERIAL|MONEY|YEAR"),
    ("text", r""),
)
_TEXT_TYPES = {"sqlite": "TEXT", "duckdb": "VARCHAR", "postgres": "TEXT", "mysql": "CHAR"}


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What one column holds, as far as its table was read."""

    name: str
    type: str
    """As declared."""
    kind: str
    """number, text, date, boolean, blob, other, empty (only NULL), or unread (its query failed)."""
    nullable: bool = True
    """Declared so that it may be NULL."""
    note: str = ""
    """The database's own comment."""
    low: int | float | str | None = None
    high: int | float | str | None = None
    distinct: int = 0
    """Different values, NULL aside; texts that begin alike for `COMPARED` characters count as one."""
    nulls: float = 0.0
    """Share of NULL, 0 to 1."""
    examples: tuple[str, ...] = ()
    """Values as text: all when there are few, else the most frequent."""


@dataclass(frozen=True, slots=True)
class TableProfile:
    """One table."""

    name: str
    rows: int
    """Rows read; all of them when `whole`."""
    whole: bool
    columns: tuple[ColumnProfile, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    """Declared ones, then probable ones (`declared` is False)."""
    note: str = ""
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """A database."""

    dialect: str
    """sqlite, duckdb, postgres or mysql."""
    profiles: tuple[TableProfile, ...]

    def tables(self) -> tuple[Table, ...]:
        """The same as prompts see it."""
        return tuple(
            Table(
                t.name,
                tuple(_shown(c, t) for c in t.columns),
                t.primary_key,
                t.foreign_keys,
                t.note,
                t.schema,
                self.dialect,
            )
            for t in self.profiles
        )


def profile_file(path: Path, cache: Path | None = None) -> Profile:
    """The profile of an SQLite file, from disk where its content was profiled before.

    Args:
        path: The file.
        cache: Folder to keep profiles in; None is the user's cache folder.

    Raises:
        DataError: the file cannot be read or holds no table.
    """
    from .profile_cache import kept

    def make() -> Profile:
        tables = schema.read_catalog(path)
        with schema.reading(path) as connection:

            def query(sql: str) -> list[Any]:
                try:
                    return connection.execute(sql).fetchall()
                except (sqlite3.OperationalError, OverflowError) as error:
                    raise DataError(f"a column cannot be profiled: {error}", where=str(path)) from error

            return profile(query, tables, "sqlite")

    return kept(path, make, cache)


def profile(query: Query, catalog: Sequence[Table] | Mapping[str, Any], dialect: str) -> Profile:
    """The profile of the tables in `catalog`, made by queries.

    A column whose query fails (no right to read it, a type that cannot be compared) is `unread`, not an error.

    Args:
        query: Runs SQL of the dialect.
        catalog: Tables, or what `Pool.catalog` gives.
        dialect: sqlite, duckdb, postgres or mysql (sqlglot's names); it decides how names are quoted.

    Raises:
        DataError: there is no table.
    """
    from .profile_keys import probable_keys

    tables = catalog_tables(catalog) if isinstance(catalog, Mapping) else tuple(catalog)
    if not tables:
        raise DataError("the database holds no table", todo="give one that holds tables")
    deep = min(SCANNED_ROWS, SCANNED_IN_ALL // max(1, sum(len(table.columns) for table in tables)))
    found = tuple(_table(query, table, dialect, deep) for table in tables)
    return Profile(dialect, probable_keys(query, found, dialect))


def catalog_tables(catalog: Mapping[str, Any]) -> tuple[Table, ...]:
    """The tables of `Pool.catalog`. One outside the default schema is named `schema.table`."""
    found = []
    names = {_full(t.get("schema", ""), t["name"]) for t in catalog["tables"]}
    for table in catalog["tables"]:
        space = str(table.get("schema") or "")
        columns = tuple(
            Column(
                c["name"], str(c.get("type", "")), note=c.get("comment") or "", nullable=bool(c.get("nullable", True))
            )
            for c in table["columns"]
        )
        links = []
        for key in table.get("foreign_keys", ()):
            target = _full(space, key["table"])
            target = target if target in names else key["table"]
            if target in names and len(key["columns"]) == len(key["target_columns"]):
                links.append(ForeignKey(tuple(key["columns"]), target, tuple(key["target_columns"])))
        name = _full(space, table["name"])
        primary = tuple(table.get("primary_key", ()))
        found.append(Table(name, columns, primary, tuple(links), table.get("comment") or "", space))
    return tuple(table for table in found if table.columns)


def distinct_values(query: Query, table: Table, column: str, dialect: str, most: int, longest: int) -> Iterator[str]:
    """Different texts of a column that are not longer than `longest`; none where it cannot be read."""
    cell, rows = quoted(column, dialect), quoted(table.name, dialect, table.schema)
    text = cell if dialect == "sqlite" else f"CAST({cell} AS {_TEXT_TYPES[dialect]})"
    sql = f"SELECT DISTINCT {text} FROM (SELECT {cell} FROM {rows} LIMIT {SCANNED_ROWS}) AS t WHERE "
    try:
        found = query(f"{sql}LENGTH({text}) <= {longest} ORDER BY 1 LIMIT {most}")
    except VerbalError:
        return iter(())
    return (row[0] for row in found if isinstance(row[0], str))


def _full(space: str, name: str) -> str:
    return f"{space}.{name}" if space else name


def _table(query: Query, table: Table, dialect: str, deep: int) -> TableProfile:
    limit = max(LEAST_ROWS, min(deep, SCANNED_CELLS // max(1, len(table.columns))))
    name = quoted(table.name, dialect, table.schema)
    try:
        rows = int(query(f"SELECT COUNT(*) FROM (SELECT 1 AS one FROM {name} LIMIT {limit + 1}) AS t")[0][0])
    except VerbalError:
        unread = tuple(ColumnProfile(c.name, c.type, "unread", c.nullable, c.note) for c in table.columns)
        return TableProfile(
            table.name, 0, False, unread, table.primary_key, table.foreign_keys, table.note, table.schema
        )
    read = min(rows, limit)
    columns: list[ColumnProfile] = []
    for start in range(0, len(table.columns), _AT_ONCE):
        part = table.columns[start : start + _AT_ONCE]
        try:
            columns += _measured(query, name, part, read, dialect)
        except VerbalError:
            columns += [_alone(query, name, column, read, dialect) for column in part]
    keys = table.primary_key, table.foreign_keys
    return TableProfile(table.name, read, rows <= limit, tuple(columns), *keys, table.note, table.schema)


def _alone(query: Query, name: str, column: Column, rows: int, dialect: str) -> ColumnProfile:
    try:
        return _measured(query, name, (column,), rows, dialect)[0]
    except VerbalError:
        return ColumnProfile(column.name, column.type, "unread", column.nullable, column.note)


def _measured(query: Query, table: str, columns: Sequence[Column], rows: int, dialect: str) -> list[ColumnProfile]:
    parts, cells = [], []
    for number, column in enumerate(columns):
        cell = quoted(column.name, dialect)
        cells.append(f"{cell} AS c{number}")
        parts += _measures(f"c{number}", _kind(column.type), dialect)
    source = f"(SELECT {', '.join(cells)} FROM {table} LIMIT {rows}) AS t"
    if not rows:
        return [ColumnProfile(c.name, c.type, "empty", c.nullable, c.note) for c in columns]
    measured = query(f"SELECT {', '.join(parts)} FROM {source}")[0]
    found = []
    for number, column in enumerate(columns):
        count, distinct, low, high, texts, blobs = (_plain(v) for v in measured[number * 6 : number * 6 + 6])
        kind = _kind(column.type)
        if dialect == "sqlite" or not count:
            kind = "empty" if not count else "blob" if blobs else "text" if texts else "number"
        if kind == "text" and schema.is_date(low) and schema.is_date(high):
            kind = "date"
        examples = () if kind in ("blob", "empty") else _examples(query, f"c{number}", source, kind, distinct, dialect)
        nulls = round(1 - count / rows, 6)
        note = column.note
        found.append(
            ColumnProfile(column.name, column.type, kind, column.nullable, note, low, high, distinct, nulls, examples)
        )
    return found


def _measures(cell: str, kind: str, dialect: str) -> list[str]:
    """Count, distinct count, least, greatest, number of texts, number of blobs of a column, as SQL."""
    if dialect == "sqlite":
        short = f"CASE typeof({cell}) WHEN 'text' THEN substr({cell}, 1, %d) WHEN 'blob' THEN NULL ELSE {cell} END"
        return [
            f"COUNT({cell})", f"COUNT(DISTINCT {short % COMPARED})", f"MIN({short % SHOWN})", f"MAX({short % SHOWN})",
            f"SUM(typeof({cell}) = 'text')", f"SUM(typeof({cell}) = 'blob')",
        ]  # fmt: skip
    if kind == "blob":
        return [f"COUNT({cell})", "0", "NULL", "NULL", "0", f"COUNT({cell})"]
    text = f"CAST({cell} AS {_TEXT_TYPES[dialect]})"
    value = cell if kind in ("number", "date") else f"SUBSTR({text}, 1, %d)"
    texts = f"COUNT({cell})" if kind == "text" else "0"
    if kind in ("number", "date"):
        low, high = f"MIN({cell})", f"MAX({cell})"
        if kind == "date":
            low, high = (f"CAST({bound} AS {_TEXT_TYPES[dialect]})" for bound in (low, high))
        return [f"COUNT({cell})", f"COUNT(DISTINCT {cell})", low, high, texts, "0"]
    return [
        f"COUNT({cell})", f"COUNT(DISTINCT {value % COMPARED})", f"MIN({value % SHOWN})", f"MAX({value % SHOWN})",
        texts, "0",
    ]  # fmt: skip


def _examples(query: Query, cell: str, source: str, kind: str, distinct: int, dialect: str) -> tuple[str, ...]:
    """All values when they are few, else the most frequent."""
    if kind in ("number", "date", "other") and distinct > 5:
        return ()
    text = cell if dialect == "sqlite" else f"CAST({cell} AS {_TEXT_TYPES[dialect]})"
    most = CATEGORY_SIZE if distinct <= CATEGORY_SIZE else 3
    # Order by the count and then by the text itself: no engine gives rows in an order that may be relied on.
    sql = f"SELECT SUBSTR({text}, 1, {SHOWN}) AS v, COUNT(*) AS n FROM {source} WHERE {cell} IS NOT NULL"
    rows = query(f"{sql} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {most}")
    values = [str(_plain(row[0])) for row in rows if row[0] is not None and not isinstance(row[0], bytes)]
    return tuple(sorted(values)) if distinct <= CATEGORY_SIZE else tuple(v for v in values if v.strip())


def _kind(declared: str) -> str:
    return next(name for name, words in _KINDS if re.search(words, declared.upper()))


def _plain(value: Any) -> Any:
    """A measured value as JSON knows it."""
    if isinstance(value, bool | bytes):
        return str(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value


def _shown(column: ColumnProfile, table: TableProfile) -> Column:
    linked = {name for key in table.foreign_keys if key.declared for name in key.columns}
    kind = column.type or {"number": "INTEGER", "blob": ""}.get(column.kind, "TEXT")
    kind = kind if "'" in kind else kind.upper()  # the values of an ENUM keep their case
    text = column.kind == "text"
    comment = "" if column.name in linked else _comment(column)
    return Column(column.name, " ".join(kind.split()), comment, text, column.note, column.nullable)


def _comment(column: ColumnProfile) -> str:
    if column.kind == "empty":
        return "always NULL"
    if column.kind in ("text", "other") and column.examples:
        return schema.listed(column.examples, whole=column.distinct <= CATEGORY_SIZE)
    if column.kind in ("number", "date") and column.low is not None:
        return schema.between(column.low, column.high)
    return ""
