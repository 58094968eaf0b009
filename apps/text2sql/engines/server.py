"""Servers inside a worker process: PostgreSQL and MySQL / MariaDB through SQLAlchemy, one warm session each.

Every query runs in a READ ONLY transaction of its own with the server's own time limits, streams its rows and is rolled
back. An account that could leave the database (a superuser, one that may touch the server's files) is refused, one
that could write is named in the catalog's warnings. What a killed worker leaves on the server is cancelled on the way
out (`cancel`), and by the server's time limit at the latest.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from .cells import chunked, failure, is_text, stopped, take
from .words import refusal, several

CONNECT_SECONDS = 5
"""Seconds a server may take to accept a connection."""

_STREAMED = {"stream_results": True, "no_parameters": True}
_LOST = "unreachable"


class Dialect(Protocol):
    """What differs from server to server."""

    hashes: bool
    """Whether `#` begins a comment."""
    stops: bool
    """Whether closing a cursor ends its query; else the rest of its rows would be read."""

    def connect(self, server: dict[str, Any]) -> Any:
        """A DB-API connection in autocommit mode."""

    def engine(self, creator: Any) -> Any:
        """The SQLAlchemy engine on it."""

    def account(self, connection: Any, server: dict[str, Any]) -> tuple[str, list[str]]:
        """Why the account is refused ("" when it is not), and warnings."""

    def begin(self, connection: Any, seconds: float, wait: float) -> None:
        """A READ ONLY transaction with time limits."""

    def end(self, connection: Any) -> None:
        """Rolls back and gives up what the session holds."""

    def cancel(self, raw: Any, server: dict[str, Any]) -> None:
        """Stops what the session of `raw` runs, from outside it."""

    def error(self, error: Any) -> tuple[str, str]:
        """Message and class of a driver's error."""

    def schema(self, server: dict[str, Any]) -> str | None:
        """The schema whose tables are told of."""


def dialect_of(kind: str) -> Dialect:
    """The dialect for `postgresql` or `mysql`."""
    if kind == "postgresql":
        from .postgresql import PostgreSql

        return PostgreSql()
    from .mysql import MySql

    return MySql()


class _Session:
    """One connection to one server."""

    def __init__(self, dialect: Dialect, server: dict[str, Any]) -> None:
        self.dialect, self.server = dialect, server
        self.raw = dialect.connect(server)
        self.connection: Any = None
        self.running = False
        try:
            self.connection = dialect.engine(lambda: self.raw).connect()
            self.refused, self.warnings = dialect.account(self.connection, server)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection without waiting for the server."""
        try:
            if self.connection is not None:
                self.connection.invalidate()
            self.raw.close()
        except Exception:  # a lost connection has nothing left to close
            self.raw = None

    def abandon(self) -> None:
        """Stops what still runs, from outside, and closes."""
        try:
            self.dialect.cancel(self.raw, self.server)
        except Exception:  # the server's own time limit ends it then
            self.running = False
        self.close()


class Sessions:
    """The warm sessions of this process."""

    def __init__(self, keep: int = 4) -> None:
        """`keep`: most sessions held open at once."""
        import sqlalchemy  # noqa: F401  (loaded before the process is said to be ready)

        self._keep = keep
        self._open: dict[str, _Session] = {}

    def is_open(self, request: dict[str, Any]) -> bool:
        """Whether a session with these settings stands."""
        held = self._open.get(request["db"])
        return held is not None and held.server == request["server"]

    def open(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Connects and looks at the account's rights; the reply when that fails."""
        self._close(request["db"])
        dialect = dialect_of(request["engine"])
        try:
            session = _Session(dialect, request["server"])
        except Exception as error:
            message, name = self._said(dialect, error, request)
            return failure(f"database {request['db']}: {message}", _LOST if name == "other" else name)
        if session.refused:
            session.close()
            return failure(f"database {request['db']}: {session.refused}", "refused_account")
        while len(self._open) >= self._keep:
            self._close(next(iter(self._open)))
        self._open[request["db"]] = session
        return None

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one query."""
        started = time.monotonic()
        reply = self._run(request)
        if reply.get("error_class") == _LOST:  # the server ended an idle session: once more, on a new one
            reply = self.open(request) or self._run(request)
        return {**reply, "seconds": time.monotonic() - started}

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        session = self._open[request["db"]]
        sql, hashes = request["sql"], session.dialect.hashes
        if not is_text(sql):
            return failure("syntax error: the query is not valid text", "syntax")
        if (refused := refusal(sql, hashes=hashes)) is not None:
            return dict(refused)
        try:
            return self._fetched(session, request)
        except Exception as error:
            message, name = self._said(session.dialect, error, request)
            if name == _LOST:
                self._close(request["db"])
            if name == "syntax" and several(sql, hashes=hashes):
                return failure("only one statement at a time is run", "several_statements")
            return stopped(request["seconds"]) if name == "timeout" else failure(message, name)

    def _fetched(self, session: _Session, request: dict[str, Any]) -> dict[str, Any]:
        from sqlalchemy.exc import DBAPIError

        connection, deadline = session.connection, time.monotonic() + request["seconds"]
        finished = False
        session.running = True
        try:
            session.dialect.begin(connection, request["seconds"], request["wait"])
            result = connection.exec_driver_sql(request["sql"], execution_options=_STREAMED)
            if not result.returns_rows:
                finished = True
                return failure("only a query that gives rows is run", "not_a_query")
            columns = [column[0] for column in result.cursor.description]
            found, truncated = take(chunked(result.fetchmany, deadline), request["rows"], request["bytes"])
            finished = not truncated or session.dialect.stops
            if finished:
                result.close()
            return {"columns": columns, "rows": found, "truncated": truncated}
        except DBAPIError:
            finished = True
            raise
        finally:
            session.running = False
            if finished:
                self._end(session, request["db"])
            else:  # the rest of the rows is not waited for
                self._open.pop(request["db"], None)
                session.abandon()

    def _end(self, session: _Session, key: str) -> None:
        try:
            session.dialect.end(session.connection)
        except Exception:  # the connection is lost, and the transaction with it
            self._close(key)

    def catalog(self, request: dict[str, Any]) -> dict[str, Any]:
        """Tables, columns, keys and comments (`worker.Pool.catalog` tells the shape)."""
        session = self._open[request["db"]]
        try:
            found = catalog(session.connection, session.dialect.schema(session.server))
        except Exception as error:
            self._close(request["db"])
            return failure(*self._said(session.dialect, error, request))
        return {"catalog": {"tables": found, "warnings": session.warnings}}

    def cancel(self) -> None:
        """Stops what runs on any server; called by another thread."""
        for session in list(self._open.values()):
            if session.running:
                session.abandon()

    def idle(self) -> None:
        """A session without a transaction keeps nobody out."""

    def _close(self, key: str) -> None:
        if session := self._open.pop(key, None):
            session.close()

    @staticmethod
    def _said(dialect: Dialect, error: Exception, request: dict[str, Any]) -> tuple[str, str]:
        if isinstance(error, MemoryError):
            return "out of memory: the query needs more than it may use", "too_big"
        if isinstance(error, TimeoutError):
            return "", "timeout"
        message, name = dialect.error(getattr(error, "orig", None) or error)
        if password := request["server"].get("password"):
            message = message.replace(password, "***")
        return message, name


def catalog(connection: Any, schema: str | None) -> list[dict[str, Any]]:
    """The tables and views of `schema` (the session's own when None)."""
    from sqlalchemy import inspect
    from sqlalchemy.engine.reflection import ObjectKind

    look = inspect(connection)
    views = {*look.get_view_names(schema=schema)}
    columns = look.get_multi_columns(schema=schema, kind=ObjectKind.ANY)
    keys = look.get_multi_pk_constraint(schema=schema)
    links = look.get_multi_foreign_keys(schema=schema)
    comments = look.get_multi_table_comment(schema=schema, kind=ObjectKind.ANY)
    found = []
    for key in sorted(columns, key=lambda key: key[1]):
        said: Any = comments.get(key) or {}
        primary: Any = keys.get(key) or {}
        found.append(
            {
                "name": key[1],
                "schema": "",
                "kind": "view" if key[1] in views else "table",
                "comment": said.get("text") or "",
                "columns": [_column(column, connection.dialect) for column in columns[key]],
                "primary_key": list(primary.get("constrained_columns") or []),
                "foreign_keys": [_link(link, schema) for link in links.get(key) or []],
            }
        )
    return found


def _column(column: Any, dialect: Any) -> dict[str, Any]:
    try:
        kind = str(column["type"].compile(dialect))
    except Exception:  # a type of an extension that SQLAlchemy has no word for
        kind = ""
    return {
        "name": column["name"], "type": kind, "nullable": bool(column["nullable"]),
        "comment": column.get("comment") or "",
    }  # fmt: skip


def _link(link: Any, schema: str | None) -> dict[str, Any]:
    table, other = link["referred_table"], link.get("referred_schema")
    target = table if other in (None, schema) else f"{other}.{table}"
    columns, target_columns = list(link["constrained_columns"]), list(link["referred_columns"])
    return {"columns": columns, "table": target, "target_columns": target_columns}
