"""SQLite inside a worker process: warm connections that can only read.

Locks, from outside in: the file is opened `mode=ro`, `query_only` is on, an authorizer allows reading and nothing
else, results are cut at a row and byte limit, memory has a ceiling, and a progress handler ends a query at its
deadline or after its steps (the parent kills the process if that does not). The only statements that are not a
user's are those of `catalog`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any
from urllib.parse import quote

from .cells import failure, stopped, take

STEPS = 5_000
"""Virtual machine steps between two looks at the clock."""

HEAP_BYTES = 256 * 2**20
"""Most memory SQLite may hold."""

VALUE_BYTES = 16 * 2**20
"""Longest string or blob a query may make."""

READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
"""What a statement may do besides calling functions."""

DENIED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "sqlite_log"})
"""Functions that reach outside the database."""

PRAGMAS = frozenset({"data_version"})
"""Pragmas that a statement may use (full-text tables read this one)."""

_CODES = {
    5: "locked", 6: "locked", 7: "too_big", 8: "denied", 9: "timeout", 11: "damaged", 14: "missing", 18: "too_big",
    23: "denied", 26: "not_a_database",
}  # fmt: skip
"""SQLite's primary result codes that say more than that a statement is wrong."""
_WORDS = (
    ("no such table", "no_such_table"), ("no such column", "no_such_column"), ("no such function", "no_such_function"),
    ("ambiguous column", "ambiguous_column"), ("syntax error", "syntax"), ("incomplete input", "syntax"),
    ("unrecognized token", "syntax"), ("misuse of aggregate", "misuse_of_aggregate"), ("misuse of window", "misuse"),
    ("wrong number of arguments", "wrong_arguments"), ("authorization denied", "denied"),
    ("not authorized", "denied"), ("prohibited", "denied"),
    ("out of memory", "too_big"), ("too big", "too_big"), ("too large", "too_big"),
    ("one statement at a time", "several_statements"), ("null character", "syntax"),
    ("same number of result columns", "set_columns"),
)  # fmt: skip


def classify(error: BaseException) -> str:
    """The error class of what SQLite or its driver raised: one word, `other` when it is none of the known.

    A fault of the file, a lock and the clock are told by SQLite's number alone: a statement can put any words into a
    message (`COLLATE locked`).
    """
    if name := _CODES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF):
        return name
    lower = str(error).lower()
    return next((name for words, name in _WORDS if words in lower), "other")


def authorize(action: int, first: str | None, second: str | None, base: str | None, inner: str | None) -> int:
    """SQLITE_OK for reading, SQLITE_DENY for everything else (also inside views and triggers)."""
    if action in READING:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").lower() in DENIED_FUNCTIONS else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in PRAGMAS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def connect(path: str, wait: float) -> sqlite3.Connection:
    """A connection that can only read the file at `path`.

    A database in WAL mode in a folder that cannot be written is opened as immutable, when it has no log beside it.
    Elsewhere an empty log and its index (`-wal`, `-shm`) stay beside the file: SQLite needs them to read beside a
    writer, and lets only a connection that may write take them away, which none here may. The next writer does.
    """
    uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
    try:
        return _prepared(uri, wait)
    except sqlite3.OperationalError as error:
        if classify(error) != "missing" or not os.path.isfile(path) or os.path.exists(path + "-wal"):
            raise
        return _prepared(uri + "&immutable=1", wait)


def _prepared(uri: str, wait: float) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=wait, isolation_level=None, cached_statements=64)
    try:
        connection.text_factory = _text
        connection.execute("PRAGMA query_only = 1")
        connection.execute("PRAGMA temp_store = 2")
        connection.execute("PRAGMA trusted_schema = 0")
        connection.execute(f"PRAGMA hard_heap_limit = {HEAP_BYTES}")
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
        connection.set_authorizer(authorize)
    except BaseException:
        connection.close()
        raise
    return connection


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def fetch(
    connection: sqlite3.Connection, sql: str, seconds: float, rows: int, size: int, steps: int = 0
) -> dict[str, Any]:
    """What one statement gives: columns, rows and whether a limit cut them, or an error and its class.

    `steps`: virtual machine steps the statement may take (to the next multiple of `STEPS`), 0 for any number.
    """
    watch = _Watch(seconds, steps)
    connection.set_progress_handler(watch, STEPS)
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        if cursor.description is None:
            return failure("only a query that gives rows is run", "not_a_query")
        found, truncated = take(cursor, rows, size, _cell)
        return {"columns": [column[0] for column in cursor.description], "rows": found, "truncated": truncated}
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
        message, name = str(error) or type(error).__name__, classify(error)
        if isinstance(error, MemoryError):
            message, name = "out of memory: the query needs more than it may use", "too_big"
        if isinstance(error, UnicodeError):
            message, name = "syntax error: the query is not valid text", "syntax"
        if name == "timeout" and watch.too_many:
            return failure(f"stopped after {steps} steps", "steps")
        return stopped(seconds) if name == "timeout" else failure(message, name)
    finally:
        cursor.close()


class _Watch:
    """Called every `STEPS` steps: true ends the statement."""

    def __init__(self, seconds: float, steps: int) -> None:
        self._deadline = time.monotonic() + seconds
        self._left = steps // STEPS if steps else -1
        self.too_many = False

    def __call__(self) -> bool:
        self.too_many = self._left == 0
        self._left -= 1
        return self.too_many or time.monotonic() > self._deadline


def _cell(value: Any) -> Any:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


class Connections:
    """The warm connections of this process, reopened when a file changes."""

    def __init__(self, keep: int = 16) -> None:
        """`keep`: most connections held open at once."""
        self._keep = keep
        self._open: dict[str, tuple[tuple[int, ...], sqlite3.Connection]] = {}

    def is_open(self, request: dict[str, Any]) -> bool:
        """Always: opening a file takes no time that a query would notice."""
        return True

    def open(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Nothing to do: `run` opens and renews connections."""

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one query; a failure is a reply as well."""
        started = time.monotonic()
        connection = self._opened(request)
        if isinstance(connection, dict):
            return {**connection, "seconds": 0.0}
        limits = (request["seconds"], request["rows"], request["bytes"], request.get("steps", 0))
        return {**fetch(connection, request["sql"], *limits), "seconds": time.monotonic() - started}

    def catalog(self, request: dict[str, Any]) -> dict[str, Any]:
        """Tables, columns and keys of the file (`worker.Pool.catalog` tells the shape)."""
        connection = self._opened(request)
        if isinstance(connection, dict):
            return connection
        connection.set_authorizer(None)
        connection.set_progress_handler(None, STEPS)
        try:
            return {"catalog": catalog(connection)}
        except sqlite3.Error as error:
            return failure(f"database {request['db']}: {error}", classify(error))
        finally:
            connection.set_authorizer(authorize)

    def cancel(self) -> None:
        """Nothing runs anywhere but here."""

    def idle(self) -> None:
        """An open file keeps nobody out."""

    def _opened(self, request: dict[str, Any]) -> sqlite3.Connection | dict[str, Any]:
        try:
            return self._connection(request["db"], float(request["wait"]))
        except (OSError, ValueError) as error:
            what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error}"
            return failure(f"database {request['db']}: {what}", "missing")
        except sqlite3.Error as error:
            return failure(f"database: {error}", classify(error))

    def _connection(self, path: str, wait: float) -> sqlite3.Connection:
        stat = os.stat(path)
        mark = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        held = self._open.pop(path, None)
        if held is not None and held[0] != mark:
            held[1].close()
            held = None
        if held is None:
            if os.path.isdir(path):
                raise IsADirectoryError("it is a folder")
            held = (mark, connect(path, wait))
        self._open[path] = held
        if len(self._open) > self._keep:
            self._open.pop(next(iter(self._open)))[1].close()
        return held[1]


def catalog(connection: sqlite3.Connection) -> dict[str, Any]:
    """What the file holds; a view that cannot be read is left out and named in `warnings`."""
    tables, warnings = [], []
    listed = "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view', 'virtual')"
    kinds = dict(connection.execute(listed).fetchall())
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    for name in names:
        if name.lower().startswith("sqlite_") or name not in kinds:
            continue
        try:
            tables.append(_table(connection, name, "view" if kinds[name] == "view" else "table"))
        except sqlite3.Error as error:
            warnings.append(f"{name} cannot be read: {error}")
    return {"tables": tables, "warnings": warnings}


def _table(connection: sqlite3.Connection, name: str, kind: str) -> dict[str, Any]:
    columns, key = [], []
    described = 'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid'
    for column, declared, required, place, hidden in connection.execute(described, (name,)).fetchall():
        if hidden == 1:
            continue
        columns.append({"name": column, "type": declared, "nullable": not required, "comment": ""})
        if place:
            key.append((place, column))
    links: dict[int, dict[str, Any]] = {}
    listed = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'
    for number, target, column, target_column in connection.execute(listed, (name,)).fetchall():
        link = links.setdefault(number, {"columns": [], "table": target, "target_columns": []})
        link["columns"].append(column)
        if target_column is not None:  # otherwise the target's primary key is meant
            link["target_columns"].append(target_column)
    return {
        "name": name, "schema": "", "kind": kind, "comment": "", "columns": columns,
        "primary_key": [column for _, column in sorted(key)],
        "foreign_keys": [links[number] for number in sorted(links, reverse=True)],
    }  # fmt: skip
