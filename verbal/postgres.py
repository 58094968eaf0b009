"""A store in PostgreSQL, through psycopg 3 (extra `postgres`).

`postgresql://user:password@host:port/database` keeps the store in the schema `verbal` of that database, which is made
when it is not there; `?schema=NAME` names another, so that one database can hold several stores. Every other parameter
of a libpq URL works too, and so do PGPASSWORD and the password file.

Writers of one store share an advisory lock, and one that must write `alone` holds it exclusively. Nothing then waits
in a circle: rows are locked in one order by those that share, and by nobody else meanwhile. What is acknowledged is on
the server's disk, unless its `synchronous_commit` says otherwise.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from verbal.database import FREE_SPACE, Database, foreign
from verbal.errors import ConfigError, MissingExtra, StoreError

if TYPE_CHECKING:
    import psycopg

# A dead server is noticed within a minute; whatever the URL says wins.
_CONNECTION: dict[str, Any] = {
    "application_name": "verbal",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# A stopped process must not hold up the others for ever; a large read over a slow line may take a while.
_SESSION = {
    "lock_timeout": "30s",
    "statement_timeout": "300s",
    "idle_in_transaction_session_timeout": "300s",
    "client_min_messages": "warning",
}
_TYPES = {
    "seq INTEGER PRIMARY KEY": "seq BIGSERIAL PRIMARY KEY",
    " INTEGER": " BIGINT",
    " REAL": " DOUBLE PRECISION",
    " BLOB": " BYTEA",
    " TEXT": ' TEXT COLLATE "C"',  # SQLite's order, and Python's
}
_RIGHTS = "let this user use the schema and its tables, or create them: GRANT"
_LOST = "the connection was lost: use --resume; what was acknowledged is kept"
# Code of an error, or its class, and words of those that have no code (they come up before there is a session).
_ADVICE = {
    "28": "check the user and the password of the URL",
    "3D000": "make the database first: createdb NAME",
    "42501": _RIGHTS,
    "42P01": _RIGHTS,  # a table that is there is not found by who may not use its schema
    "25006": "this server only reads; give the URL of the one that writes",
    "40": "two writers were in each other's way: use --resume",
    "53100": FREE_SPACE,
    "53300": "the server has no connection left; stop a process or raise its max_connections",
    "55P03": "another process holds the store for more than 30 s; wait for it or stop it",
    "57014": "the server did not answer in time; try again, or look at its load",
    "25P03": _LOST,
    "57P": _LOST,
    "08": _LOST,
}
_ADVICE_BY_WORDS = {
    "password": _ADVICE["28"],
    "authentication": _ADVICE["28"],
    "does not exist": "make the role or the database first: createuser NAME, createdb NAME",
    "too many": _ADVICE["53300"],
    "refused": "start the server, or check host and port of the URL",
    "translate host name": "check the host of the URL",
    "timeout": "check that the server can be reached from here",
    "closed": _LOST,
}


class PostgreSQL(Database):
    """One schema of a database on a server; a connection that was lost is opened again for the next statement."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._settings, self._schema = _parsed(url)
        self.where = _shown(self._settings, self._schema)
        self._lock_key = 0x76657262 << 32 | zlib.crc32(self._schema.encode())
        self._closed = False
        self._db = self._connect()
        own = "" if self._schema == "verbal" else f".{self._schema}"
        self.folder = Path("runs")
        self.memory_folder = self.folder / f"{self._db.info.dbname}{own}.memory"

    def create(self, schema: str) -> None:
        """Makes the schema and the tables that are not there yet."""
        wanted = set(re.findall(r"CREATE (?:TABLE|INDEX) IF NOT EXISTS (\w+)", schema))
        with self.write(alone=True) as db:
            sql = "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace(?)"
            found = {r[0] for r in db.read(sql, (self._schema,))}
            if found and "meta" not in found:
                raise foreign(self.where)
            if wanted <= found:  # also a user who may not create anything can then use the store
                return
            if not db.read("SELECT 1 WHERE to_regnamespace(?) IS NOT NULL", (self._schema,)):
                db.change(f"CREATE SCHEMA {self._schema}")
            for word, own in _TYPES.items():
                schema = schema.replace(word, own)
            for statement in schema.split(";"):
                if statement.strip():
                    db.change(statement)

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            self._closed = True
            self._db.close()

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        try:
            db = psycopg.connect(**{**_CONNECTION, **self._settings, "client_encoding": "utf8"}, autocommit=True)
        except psycopg.Error as error:
            raise self._said(error) from None  # the original may show how it was called, with the password
        try:
            if db.info.parameter_status("server_encoding") != "UTF8":
                what = f"the database's encoding is {db.info.parameter_status('server_encoding')}"
                raise StoreError(
                    what, where=self.where, todo="make one with createdb --encoding=UTF8 -T template0 NAME"
                )
            for name, value in {**_SESSION, "search_path": self._schema}.items():
                db.execute("SELECT set_config(%s, %s, false)", (name, value))
        except psycopg.Error as error:
            db.close()
            raise self._said(error) from None
        except StoreError:
            db.close()
            raise
        return db

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        import psycopg

        text = _placed(sql)
        if self._depth or self._closed:  # half a transaction cannot go on in another connection
            return self._db.execute(text, values or None)
        try:
            return self._db.execute(text, values or None)
        except psycopg.OperationalError:
            if not self._db.closed:
                raise
            self._db.close()
            self._db = self._connect()
            return self._db.execute(text, values or None)

    def _execute_many(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        with self._db.cursor() as cursor:
            cursor.executemany(_placed(sql), rows)

    def _begin(self, depth: int, alone: bool) -> None:
        if depth:
            self._execute(f"SAVEPOINT inner{depth}")
            return
        kind = "" if alone else "_shared"
        try:  # one trip; whatever the server's defaults are, a read after the lock sees what was there before it
            self._execute(
                f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock{kind}({self._lock_key})"
            )
        except BaseException:
            self._undo(0)
            raise

    def _commit(self, depth: int) -> None:
        if depth:
            super()._commit(depth)
        elif self._execute("COMMIT").statusmessage != "COMMIT":  # so the server answers when a statement had failed
            what = "the store failed: a statement of the transaction had failed, so it was undone"
            raise StoreError(what, where=self.where, todo="see the error before this one, then use --resume")

    def _undo(self, depth: int) -> None:
        import psycopg

        try:
            if depth and not self._db.closed:
                self._db.execute(f"ROLLBACK TO SAVEPOINT inner{depth}")
                self._db.execute(f"RELEASE SAVEPOINT inner{depth}")
            elif not self._db.closed and self._db.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self._db.execute("ROLLBACK")
        except psycopg.Error:  # the server undoes what is left when it sees that nobody is there
            self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise self._said(error) from error

    def _said(self, error: psycopg.Error) -> StoreError:
        text = error.diag.message_primary or next(iter(str(error).splitlines()), type(error).__name__)
        if password := self._settings.get("password"):
            text = text.replace(str(password), "***")
        code = error.sqlstate or ""
        known = [todo for start, todo in _ADVICE.items() if code.startswith(start)]
        known += [todo for words, todo in _ADVICE_BY_WORDS.items() if words in text.lower()]
        todo = (known or ["check the server and its log"])[0]
        return StoreError(f"the store failed: {text}", where=self.where, todo=todo)


@cache
def _placed(sql: str) -> Any:  # psycopg types a query as a literal, so that nobody builds one from data; nor do we
    return sql.replace("?", "%s")


def _parsed(url: str) -> tuple[dict[str, Any], str]:
    """Settings of the connection, and the schema, of a URL.

    Raises:
        MissingExtra: psycopg is not installed.
        ConfigError: the URL cannot be read; it is not shown, for it may hold a password.
    """
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise MissingExtra.of("psycopg", "postgres") from error
    todo = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for an @ in the password"
    unread = ConfigError("the URL of the store cannot be read", where="postgresql://...", todo=todo)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise unread from None
    query = dict(parse_qsl(parts.query))
    schema = query.pop("schema", "verbal")
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
        raise ConfigError(f"{schema!r} is no name of a schema", todo="use small letters, digits and _")
    try:
        settings = conninfo_to_dict(urlunsplit(parts._replace(query=urlencode(query, quote_via=quote))))
    except psycopg.Error:
        raise unread from None
    return {k: v for k, v in settings.items() if v is not None}, schema


def _shown(settings: dict[str, Any], schema: str) -> str:
    host, port = str(settings.get("host", "")), settings.get("port")
    user = f"{settings['user']}@" if "user" in settings else ""
    query = {"host": host} if host.startswith("/") else {}
    query |= {"schema": schema} if schema != "verbal" else {}
    place = ("" if query.get("host") else host) + (f":{port}" if port else "")
    tail = f"?{urlencode(query, safe='/')}" if query else ""
    return f"postgresql://{user}{place}/{settings.get('dbname', '')}{tail}"
