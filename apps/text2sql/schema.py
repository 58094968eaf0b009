"""What a prompt says of a database: its tables with comments that tell what the columns hold.

Reads any SQLite file, read-only, and never writes beside it. Text that is not UTF-8 is decoded with replacement
characters. Names, cells and comments are data: each stays on its line and can close neither a fence nor a tag.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote as quote_url

from verbal.errors import DataError

from .names import literal, plain, quoted, shown

if TYPE_CHECKING:
    from .linking import Linked

CATEGORY_SIZE = 9
"""A text column with at most so many different values is listed in full."""

SCANNED_ROWS = 200_000
"""Rows of a table that are looked at, from its start."""

_LONGEST = 40
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?\Z")


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    type: str
    """As declared, in capitals; when nothing is declared, after what it holds."""
    comment: str = ""
    """What it holds, in words: `1 to 2000`, `one of 'A', 'B'`, `such as 'Ann', 'Bob'`."""
    text: bool = False
    """Holds text that is no date."""
    note: str = ""
    """What the database's own comment says of it: data, never an instruction."""
    nullable: bool = True
    """Declared so that it may be NULL."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`columns` of a table reference `target_columns` of the table `target`."""

    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    declared: bool = True
    """False: nobody declared it, names and values suggest it (`profile.py`); the full style leaves it out."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    note: str = ""
    """What the database's own comment says of it."""
    schema: str = ""
    """The schema it is in, which its name begins with (`sales.orders`); empty for the default one."""

    dialect: str = "sqlite"
    """Whose SQL its names are quoted for (sqlglot's names)."""

    @property
    def shown(self) -> str:
        """Its name as SQL on one line."""
        return self.name_of(self.name)

    def name_of(self, name: str) -> str:
        """The name of a table beside it as SQL on one line."""
        return shown(name, self.dialect, self.schema)

    def to_sql(self) -> str:
        """A CREATE TABLE statement with a comment after each column that has one."""
        lines = []
        for column in self.columns:
            key = " PRIMARY KEY" if self.primary_key == (column.name,) else ""
            lines.append((f"{shown(column.name, self.dialect)} {plain(column.type)}{key}".rstrip(), column.comment))
        if len(self.primary_key) > 1:
            lines.append((f"PRIMARY KEY ({self._names(self.primary_key)})", ""))
        for link in (key for key in self.foreign_keys if key.declared):
            target = f"{self.name_of(link.target)} ({self._names(link.target_columns)})"
            lines.append((f"FOREIGN KEY ({self._names(link.columns)}) REFERENCES {target}", ""))
        last = len(lines) - 1
        body = [
            f"  {text}{'' if index == last else ','}{f' -- {comment}' if comment else ''}"
            for index, (text, comment) in enumerate(lines)
        ]
        return "\n".join([f"CREATE TABLE {self.shown} (", *body, ");"])

    def _names(self, names: Sequence[str]) -> str:
        return ", ".join(shown(name, self.dialect) for name in names)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the database at `path`, closed at the end.

    Raises:
        DataError: no such file, not a database, locked, or it cannot be read.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"the database {str(path)!r} {what}", todo="give the path of an SQLite file")
    if path.stat().st_size == 0:
        raise DataError(f"the database {str(path)!r} is empty (0 bytes)", todo="give an SQLite file that holds tables")
    connection = None
    try:
        connection = _connect(path)
        yield connection
    except sqlite3.Error as error:
        raise _explained(path, error) from error
    finally:
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote_url(str(path.resolve()))}?mode=ro"
    for suffix in ("", "&immutable=1"):
        connection = sqlite3.connect(uri + suffix, uri=True, timeout=0.5)
        connection.text_factory = _decoded
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if suffix or "unable to open" not in str(error) or Path(f"{path}-wal").exists():
                raise
        except sqlite3.Error:
            connection.close()
            raise
    raise AssertionError("not reached")


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _explained(path: Path, error: sqlite3.Error) -> DataError:
    text = str(error)
    if "not a database" in text:
        return DataError(f"{str(path)!r} is not an SQLite database", todo="give the path of an SQLite file")
    if "locked" in text:
        todo = "close the program that holds it, or copy the file"
        return DataError(f"the database {str(path)!r} is locked by another program", todo=todo)
    todo = "check that the file is readable and whole (PRAGMA integrity_check)"
    return DataError(f"the database {str(path)!r} cannot be read: {text}", todo=todo)


def read_tables(path: Path) -> tuple[Table, ...]:
    """The tables of the database at `path`, in the order they were made.

    Raises:
        DataError: it cannot be read, or holds no table.
    """
    return _read(path, _column)


def read_catalog(path: Path) -> tuple[Table, ...]:
    """The same without a look at any row: names, declared types, keys.

    Raises:
        DataError: it cannot be read, or holds no table.
    """
    return _read(path, lambda connection, table, name, declared, linked: Column(name, declared))


def _read(path: Path, column: Callable[[sqlite3.Connection, str, str, str, bool], Column]) -> tuple[Table, ...]:
    with reading(path) as connection:
        found = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
            "ORDER BY rowid"
        ).fetchall()
        names = [row[0] for row in found]
        keys = {name: _primary_key(connection, name) for name in names}
        tables = tuple(table for name in names if (table := _table(connection, name, keys, column)) is not None)
    if not tables:
        raise DataError(f"the database {str(path)!r} holds no table", todo="give an SQLite file that holds tables")
    return tables


def schema_text(
    tables: Sequence[Table],
    *,
    style: Literal["full", "compact"] = "full",
    budget: int | None = None,
    linked: Linked | None = None,
) -> str:
    """The tables as one text, as it stands in a prompt.

    Args:
        tables: In the order they are shown.
        style: CREATE TABLE statements, or one line a table (`compact.py`).
        budget: Tokens at most (`compact.tokens`); the full style gives way to the compact one where it needs more.
        linked: What the question is about, so that a budget keeps it; None treats all tables alike.

    Raises:
        ConfigError: the budget is smaller than the part that is linked, or than the tables' names.
    """
    from .compact import render, tokens

    if style == "full":
        text = "\n".join(table.to_sql() for table in tables)
        if budget is None or tokens(text) <= budget:
            return text
    return render(tables, budget=budget, linked=linked).text


def _primary_key(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    rows = connection.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
    return tuple(row[1] for row in sorted((row for row in rows if row[5]), key=lambda row: row[5]))


def _table(
    connection: sqlite3.Connection,
    name: str,
    keys: dict[str, tuple[str, ...]],
    read: Callable[[sqlite3.Connection, str, str, str, bool], Column],
) -> Table | None:
    info = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    links = _foreign_keys(connection, name, keys)
    linked = {column for link in links for column in link.columns}
    try:
        columns = tuple(
            replace(read(connection, name, row[1], row[2], row[1] in linked), nullable=not row[3]) for row in info
        )
    except sqlite3.OperationalError as error:
        if "no such module" in str(error):  # a virtual table whose extension is not here
            return None
        raise
    return Table(name, columns, keys[name], links) if columns else None


def _foreign_keys(
    connection: sqlite3.Connection, table: str, keys: dict[str, tuple[str, ...]]
) -> tuple[ForeignKey, ...]:
    known = {name.lower(): name for name in keys}
    groups: dict[int, list[Any]] = {}
    for row in connection.execute(f"PRAGMA foreign_key_list({quoted(table)})").fetchall():
        groups.setdefault(row[0], []).append(row)
    links = []
    for number in sorted(groups):
        rows = sorted(groups[number], key=lambda row: row[1])
        target = known.get(rows[0][2].lower())
        if target is None:
            continue
        far = tuple(row[4] for row in rows) if rows[0][4] is not None else keys[target]
        if len(far) == len(rows):
            links.append(ForeignKey(tuple(row[3] for row in rows), target, far))
    return tuple(reversed(links))  # SQLite numbers them backwards


def _column(connection: sqlite3.Connection, table: str, name: str, declared: str, linked: bool) -> Column:
    cell, rows = quoted(name), f"(SELECT {quoted(name)} FROM {quoted(table)} LIMIT {SCANNED_ROWS})"
    low, high = connection.execute(f"SELECT MIN({cell}), MAX({cell}) FROM {rows}").fetchone()
    kind = " ".join(declared.upper().split()) or _kind(low, high)
    if low is None:
        return Column(name, kind, "" if linked else "always NULL")
    if isinstance(high, bytes):
        return Column(name, kind)
    if not isinstance(high, str):
        return Column(name, kind, "" if linked else between(low, high))
    if is_date(low) and is_date(high):
        return Column(name, kind, "" if linked else between(low, high))
    query = f"SELECT DISTINCT {cell} FROM {rows} WHERE {cell} IS NOT NULL LIMIT {CATEGORY_SIZE + 1}"
    values = [str(row[0]) for row in connection.execute(query) if not isinstance(row[0], bytes)]
    return Column(name, kind, "" if linked else listed(values, whole=len(values) <= CATEGORY_SIZE), text=True)


def is_date(value: Any) -> bool:
    """Whether a cell is a date, or a date and time, as ISO text."""
    return isinstance(value, str) and _DATE.match(value) is not None


def between(low: Any, high: Any) -> str:
    """The comment of a column of numbers or dates."""
    return " to ".join(literal(end) if isinstance(end, str) else _number(end) for end in (low, high))


def listed(values: Sequence[str], *, whole: bool) -> str:
    """The comment of a column of texts: all of them when these are all and short, else two."""
    if whole and all(len(value) <= _LONGEST for value in values):
        return "one of " + ", ".join(literal(value) for value in sorted(values))
    return "such as " + ", ".join(
        literal(value if len(value) <= _LONGEST else value[:_LONGEST] + "...")
        for value in [v for v in values if v.strip()][:2]
    )


def _kind(low: Any, high: Any) -> str:
    kinds: dict[type, str] = {int: "INTEGER", float: "REAL", str: "TEXT"}
    return kinds.get(type(high), "") if low is not None else "TEXT"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
