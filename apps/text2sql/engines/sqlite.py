"""SQLite inside a worker process: warm connections that can only read.

Locks, from outside in: the file is opened `mode=ro`, `query_only` is on, an authorizer allows reading and nothing
else, results are cut at a row and byte limit, memory has a ceiling, and a progress handler ends a query at its
deadline (the parent kills the process if that does not). When the parent is gone, standard input ends and so does
the worker, even in the middle of a query.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any
from urllib.parse import quote

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

_WORDS = (
    ("no such table", "no_such_table"), ("no such column", "no_such_column"), ("no such function", "no_such_function"),
    ("ambiguous column", "ambiguous_column"), ("syntax error", "syntax"), ("incomplete input", "syntax"),
    ("unrecognized token", "syntax"), ("misuse of aggregate", "misuse_of_aggregate"), ("misuse of window", "misuse"),
    ("wrong number of arguments", "wrong_arguments"), ("not authorized", "denied"), ("prohibited", "denied"),
    ("readonly database", "denied"), ("locked", "locked"), ("file is not a database", "not_a_database"),
    ("malformed", "damaged"), ("unable to open", "missing"), ("out of memory", "too_big"), ("too big", "too_big"),
    ("too large", "too_big"), ("one statement at a time", "several_statements"), ("null character", "syntax"),
    ("interrupted", "timeout"), ("same number of result columns", "set_columns"),
)  # fmt: skip


def classify(message: str) -> str:
    """The error class of an SQLite message: one word, `other` when it is none of the known."""
    lower = message.lower()
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
    """
    uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
    try:
        return _prepared(uri, wait)
    except sqlite3.OperationalError as error:
        if "unable to open" not in str(error) or not os.path.isfile(path) or os.path.exists(path + "-wal"):
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


def fetch(connection: sqlite3.Connection, sql: str, seconds: float, rows: int, size: int) -> dict[str, Any]:
    """What one statement gives: columns, rows and whether a limit cut them, or an error and its class."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        if cursor.description is None:
            return {"error": "only a query that gives rows is run", "error_class": "not_a_query"}
        found: list[list[Any]] = []
        taken, truncated = 0, False
        for row in cursor:
            cells = [_cell(value) for value in row]
            taken += sum(len(value) if isinstance(value, str) else 8 for value in cells)
            if len(found) >= rows or taken > size:
                truncated = True
                break
            found.append(cells)
        return {"columns": [column[0] for column in cursor.description], "rows": found, "truncated": truncated}
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
        message = str(error) or type(error).__name__
        if isinstance(error, MemoryError):
            message = "out of memory: the query needs more than it may use"
        if isinstance(error, UnicodeError):
            message = "syntax error: the query is not valid text"
        name = classify(message)
        return {"error": f"stopped after {seconds:g} s" if name == "timeout" else message, "error_class": name}
    finally:
        cursor.close()


def _cell(value: Any) -> Any:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


class Connections:
    """The warm connections of this process, reopened when a file changes."""

    def __init__(self, keep: int = 16) -> None:
        """`keep`: most connections held open at once."""
        self._keep = keep
        self._open: dict[str, tuple[tuple[int, ...], sqlite3.Connection]] = {}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request; a failure is a reply as well."""
        started = time.monotonic()
        try:
            connection = self._connection(request["db"], float(request["wait"]))
        except (OSError, ValueError) as error:
            what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error}"
            return {"error": f"database {request['db']}: {what}", "error_class": "missing", "seconds": 0.0}
        except sqlite3.Error as error:
            return {"error": f"database: {error}", "error_class": classify(str(error)), "seconds": 0.0}
        reply = fetch(connection, request["sql"], request["seconds"], request["rows"], request["bytes"])
        return {**reply, "seconds": time.monotonic() - started}

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
