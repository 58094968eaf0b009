"""DuckDB inside a worker process: database files, and CSV or Parquet files as tables.

A database file is opened read-only. Table files are read into memory by this code, each as one table; then the door
is shut. In both cases no query meets a connection that can reach a file, load an extension or change a setting, each
query must be one statement that DuckDB calls a SELECT, and runs in a READ ONLY transaction. DuckDB's own memory limit
does not hold for single values, so the process has a ceiling too (`process.py`).
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import Any

from .cells import chunked, failure, is_text, stopped, take
from .table_text import fault, form_of

MEMORY = "512MB"
"""Most memory DuckDB gives to its operators; for table files half of it may be taken by the tables."""

FILES_MEMORY = "1GB"
"""The same where table files are held in memory."""

_SHUT = ("enable_external_access = false", "lock_configuration = true")
_AS_WRITTEN = """sample_size = -1, quote = '"', skip = 0, comment = '', null_padding = false, ignore_errors = false,
    strict_mode = true"""
_COUNTED = re.compile(r"count\s*\(\s*\*\s*\)", re.IGNORECASE)
_SETTINGS: dict[str, Any] = {
    "autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": 1,
    "temp_directory": "", "python_enable_replacements": "false",
}  # fmt: skip
_WORDS = (
    ("scalar function with name", "no_such_function"), ("function with name", "no_such_function"),
    ("table with name", "no_such_table"), ("referenced table", "no_such_column"),
    ("referenced column", "no_such_column"), ("does not have a column", "no_such_column"),
    ("values list", "no_such_column"), ("ambiguous", "ambiguous_column"),
    ("must appear in the group by", "misuse_of_aggregate"),
    ("aggregate function calls cannot", "misuse_of_aggregate"), ("cannot contain aggregates", "misuse_of_aggregate"),
    ("cannot contain window", "misuse"), ("same number of result columns", "set_columns"),
    ("no function matches", "wrong_arguments"), ("read-only", "denied"), ("out of memory", "too_big"),
    ("failed to allocate", "too_big"), ("division by zero", "division_by_zero"), ("could not convert", "type_mismatch"),
    ("cannot compare values", "type_mismatch"), ("conversion error", "type_mismatch"), ("permission error", "denied"),
    ("locked", "denied"), ("disabled by configuration", "denied"), ("syntax error", "syntax"),
    ("parser error", "syntax"),
    ("unterminated", "syntax"),
)  # fmt: skip
_OPENING_WORDS = (
    ("set lock", "locked"), ("not a valid duckdb", "not_a_database"), ("no such file", "missing"),
    ("cannot open", "missing"), ("csv error", "damaged"), ("sniffing", "damaged"), ("serialization", "damaged"),
    ("checksum", "damaged"),
)  # fmt: skip
_KINDS = {
    "InterruptException": "timeout", "OutOfMemoryException": "too_big", "MemoryError": "too_big",
    "ConversionException": "type_mismatch", "PermissionException": "denied", "ParserException": "syntax",
}  # fmt: skip


def classify(error: BaseException, *, opening: bool = False) -> str:
    """The error class of what DuckDB raised, in the words of `sqlite.classify`.

    Faults of the files are told of when they are opened, never of a query, which can put any words into a message.
    """
    lower = str(error).lower()
    if opening:
        known = next((name for words, name in _OPENING_WORDS if words in lower), "")
        if known:
            return known
    if name := _KINDS.get(type(error).__name__):
        return name
    if type(error) is RuntimeError and "interrupt" in lower:
        return "timeout"
    return next((name for words, name in _WORDS if words in lower), "other")


def connect(request: dict[str, Any]) -> Any:
    """A connection that only reads: to a database file, or to the tables of files held in memory.

    Raises:
        duckdb.Error, OSError: a file cannot be read. ValueError: lines of a text file differ in their fields.
    """
    import duckdb

    files = request["engine"] == "files"
    if files:
        connection = duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": FILES_MEMORY})
    else:
        os.stat(request["db"])
        connection = duckdb.connect(request["db"], read_only=True, config={**_SETTINGS, "memory_limit": MEMORY})
    try:
        if files:
            for name, path in table_names(request["files"]).items():
                _load(connection, name, path)
        for setting in _SHUT:
            connection.execute(f"SET {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def table_names(paths: list[str]) -> dict[str, str]:
    """Table name -> path: the file's name without its endings; with them when two files would share one."""
    names: dict[str, str] = {}
    for path in paths:
        file = os.path.basename(path)
        name = file.removesuffix(".gz").rpartition(".")[0]
        names[name if name.lower() not in {known.lower() for known in names} else file.replace(".", "_")] = path
    return names


def _load(connection: Any, name: str, path: str) -> None:
    import duckdb

    table, lower = '"' + name.replace('"', '""') + '"', path.lower()
    if lower.endswith(".parquet"):
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet(?)", [path])
        return
    try:
        form = form_of(path)
    except ValueError as error:
        raise ValueError(f"{os.path.basename(path)}: {error}; nothing of the file was read") from error
    read = f"CREATE TABLE {table} AS SELECT * FROM read_csv(?, delim = ?, header = {form.header}, {_AS_WRITTEN}"
    read += ", encoding = 'latin-1'" if form.encoding == "latin-1" else ""
    read += ", encoding = 'utf-16'" if form.encoding == "utf-16" else ""
    try:
        try:
            connection.execute(f"{read}, escape = '\"')", [path, form.separator])
        except duckdb.InvalidInputException:
            connection.execute(f"{read}, escape = '\\')", [path, form.separator])  # as some programs write quotes
    except duckdb.InvalidInputException as error:
        told = fault(path, form) or str(error).partition("\n")[0]
        raise ValueError(f"{os.path.basename(path)}: {told}; nothing of the file was read") from error


def fetch(connection: Any, sql: str, seconds: float, rows: int, size: int) -> dict[str, Any]:
    """What one statement gives: columns, rows and whether a limit cut them, or an error and its class."""
    import duckdb

    if not is_text(sql):  # DuckDB would end the process
        return failure("syntax error: the query is not valid text", "syntax")
    own = connection.cursor()  # closed with whatever the statement leaves behind
    watch = threading.Timer(seconds, own.interrupt)
    watch.daemon = True
    try:
        statements = own.extract_statements(sql)
        if not statements:
            return failure("only a query that gives rows is run", "not_a_query")
        if len(statements) > 1:
            return failure("only one statement at a time is run", "several_statements")
        if statements[0].type != duckdb.StatementType.SELECT:
            return failure(f"not authorized: {statements[0].type.name} is no query", "denied")
        watch.start()
        own.execute("BEGIN TRANSACTION READ ONLY")
        own.execute(statements[0])
        written = _COUNTED.search(sql)  # DuckDB calls that column count_star()
        named = {"count_star()": written[0]} if written else {}
        columns = [named.get(column[0], column[0]) for column in own.description]
        found, truncated = take(chunked(own.fetchmany), rows, size)
        return {"columns": columns, "rows": found, "truncated": truncated}
    except (duckdb.Error, RuntimeError, ValueError, OverflowError, MemoryError) as error:
        return _failed(error, seconds)
    finally:
        watch.cancel()
        own.close()


def _failed(error: Exception, seconds: float) -> dict[str, Any]:
    message = str(error).strip() or type(error).__name__
    name = classify(error)
    if name == "too_big":
        message = message.partition("\n")[0]  # the rest is advice for whoever may change settings
    return stopped(seconds) if name == "timeout" else failure(message, name)


class Connections:
    """The warm DuckDB connections of this process, reopened when a file changes."""

    def __init__(self, keep: int = 4) -> None:
        """`keep`: most databases held open at once."""
        self._keep = keep
        self._open: dict[str, tuple[object, Any]] = {}

    def is_open(self, request: dict[str, Any]) -> bool:
        """Whether the request needs no opening first: its connection is warm and its files are as they were."""
        held = self._open.get(request["db"])
        return held is not None and held[0] == _mark(request)

    def open(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Opens the database, which for table files takes as long as reading them; the reply when that fails."""
        import duckdb

        try:
            if held := self._open.pop(request["db"], None):
                held[1].close()
            mark = _mark(request)
            if mark is None:
                return failure(f"database {request['db']}: no such file", "missing")
            while len(self._open) >= self._keep:
                self._open.pop(next(iter(self._open)))[1].close()
            self._open[request["db"]] = (mark, connect(request))
        except (duckdb.Error, OSError, RuntimeError, MemoryError, ValueError) as error:
            message = str(error).strip() or type(error).__name__
            name = classify(error, opening=True)
            return failure(f"database {request['db']}: {message}", "not_a_database" if name == "other" else name)
        return None

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a query on an open database."""
        started = time.monotonic()
        connection = self._open[request["db"]][1]
        reply = fetch(connection, request["sql"], request["seconds"], request["rows"], request["bytes"])
        return {**reply, "seconds": time.monotonic() - started}

    def catalog(self, request: dict[str, Any]) -> dict[str, Any]:
        """Tables, columns, keys and comments of an open database (`worker.Pool.catalog` tells the shape)."""
        return {"catalog": catalog(self._open[request["db"]][1])}

    def cancel(self) -> None:
        """Nothing runs anywhere but here."""

    def idle(self) -> None:
        """Closes database files, which cannot be written by anybody while they are open here."""
        for key in [key for key, (_, connection) in self._open.items() if not _in_memory(connection)]:
            self._open.pop(key)[1].close()


def _in_memory(connection: Any) -> bool:
    (path,) = connection.execute("SELECT path FROM duckdb_databases() WHERE NOT internal").fetchone()
    return path is None


def _mark(request: dict[str, Any]) -> object:
    """What changes when the files do; None when they are gone."""
    paths = request.get("files") or [request["db"], f"{request['db']}.wal"]
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
            found.append((path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            if path == paths[0]:
                return None
    return found


def catalog(connection: Any) -> dict[str, Any]:
    """What the connection's database holds, in the order of its tables and columns."""
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    listed = """SELECT schema_name, table_name, comment, 'table', table_oid FROM duckdb_tables()
        WHERE NOT internal AND NOT temporary UNION ALL
        SELECT schema_name, view_name, comment, 'view', view_oid FROM duckdb_views()
        WHERE NOT internal AND NOT temporary
        ORDER BY 5"""
    for schema, name, comment, kind, _ in connection.execute(listed).fetchall():
        tables[schema, name] = {
            "name": name, "schema": "" if schema == "main" else schema, "kind": kind, "comment": comment or "",
            "columns": [], "primary_key": [], "foreign_keys": [],
        }  # fmt: skip
    columns = """SELECT schema_name, table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns()
        WHERE NOT internal ORDER BY table_oid, column_index"""
    for schema, table, name, kind, nullable, comment in connection.execute(columns).fetchall():
        if found := tables.get((schema, table)):
            entry = {"name": name, "type": kind, "nullable": bool(nullable), "comment": comment or ""}
            found["columns"].append(entry)
    keys = """SELECT schema_name, table_name, constraint_type, constraint_column_names, referenced_table,
        referenced_column_names FROM duckdb_constraints() ORDER BY table_oid, constraint_index"""
    for schema, table, kind, names, target, target_names in connection.execute(keys).fetchall():
        found = tables.get((schema, table))
        if found and kind == "PRIMARY KEY":
            found["primary_key"] = list(names)
        elif found and kind == "FOREIGN KEY":
            link = {"columns": list(names), "table": target, "target_columns": list(target_names)}
            found["foreign_keys"].append(link)
    return {"tables": list(tables.values()), "warnings": []}
