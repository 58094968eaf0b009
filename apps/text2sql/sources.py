"""Where the rows are: an SQLite or DuckDB file, CSV or Parquet files, a PostgreSQL or MySQL / MariaDB server.

`Source.of(text)` reads what a user wrote and opens no database. A password stays in the memory of this process: it is
in no name, no message and no pickle, and reaches a worker through its pipe alone. It may stand in the URL, in the
environment (PGPASSWORD, MYSQL_PWD) or in the environment under a name of yours: `postgresql://ann:${SHOP_PASSWORD}@host/shop`.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from verbal.errors import DataError, MissingExtra

Kind = Literal["sqlite", "duckdb", "files", "postgresql", "mysql"]
"""What holds the rows."""

TABLE_FILES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
"""Endings of files that are tables, read by DuckDB; each file is one table, named after the file."""

FILES_BYTES = 512 * 2**20
"""Most bytes of such files in one source: they are read into the memory of each worker."""

_DIALECTS = {"sqlite": "sqlite", "duckdb": "duckdb", "files": "duckdb", "postgresql": "postgres", "mysql": "mysql"}
_SCHEMES: dict[str, Kind] = {
    "postgresql": "postgresql", "postgres": "postgresql", "postgresql+psycopg": "postgresql",
    "mysql": "mysql", "mysql+pymysql": "mysql", "mariadb": "mysql", "mariadb+pymysql": "mysql",
    "sqlite": "sqlite", "duckdb": "duckdb",
}  # fmt: skip
_OPTIONS = {
    "postgresql": {"sslmode", "sslrootcert", "sslcert", "sslkey", "schema", "allow_superuser"},
    "mysql": {"ssl_ca", "ssl_cert", "ssl_key", "charset", "allow_superuser"},
}
_DRIVERS = {"postgresql": ("sqlalchemy", "psycopg"), "mysql": ("sqlalchemy", "pymysql"), "duckdb": ("duckdb",)}
_PASSWORDS = {"postgresql": "PGPASSWORD", "mysql": "MYSQL_PWD"}
_known: dict[str, str] = {}
"""location -> password, for locations that come back without it (`task.info["db"]`)."""


@dataclass(frozen=True, slots=True)
class _Server:
    host: str
    port: int
    user: str
    database: str
    options: tuple[tuple[str, str], ...]


class Source:
    """One place with tables. Two sources are equal when their kind and location are; `repr` shows no password."""

    __slots__ = ("_server", "kind", "location")

    kind: Kind
    location: str
    """The absolute path, or the URL without its password. `Source.of(location)` in the same process finds it again."""

    def __init__(self, kind: Kind, location: str, server: _Server | None = None) -> None:
        """Use `Source.of`."""
        self.kind, self.location, self._server = kind, location, server

    @classmethod
    def of(cls, text: str | Path | Source) -> Source:
        """The source that `text` names: a path, a URL, or `${NAME}` for a URL in the environment.

        Nothing is opened but the first bytes of a file.

        Raises:
            DataError: no such file, a folder without tables, a file or URL that no engine reads.
            MissingExtra: the driver is not installed.
        """
        if isinstance(text, Source):
            return text
        written = str(text).strip()
        whole = re.fullmatch(r"\$\{(\w+)\}", written)
        if whole:
            return cls.of(_variable(whole[1]))
        if not written:
            raise DataError("no database is named", todo="give the path of a database file, or a URL")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", written):
            return _from_url(written)
        return _from_path(Path(written))

    @property
    def dialect(self) -> str:
        """Its SQL, by sqlglot's name: `sqlite`, `duckdb`, `postgres` or `mysql`."""
        return _DIALECTS[self.kind]

    @property
    def name(self) -> str:
        """A short name: of the file or folder, or of the server's database."""
        return self._server.database if self._server else Path(self.location).stem

    def mark(self) -> str:
        """Text that changes when files change (size, time, identity); "" for a server, where nobody can tell.

        Raises:
            DataError: the files are gone.
        """
        if self._server:
            return ""
        found: list[str] = []
        try:
            paths = table_files(self.location) if self.kind == "files" else [self.location]
            for path in paths + [p for p in (f"{self.location}-wal", f"{self.location}.wal") if os.path.exists(p)]:
                stat = os.stat(path)
                found.append(f"{path}:{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}")
        except OSError as error:
            raise DataError(f"the database {self.location!r} cannot be read: {error}", todo="put it back") from error
        return hashlib.sha256("\n".join(found).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def request(self) -> dict[str, Any]:
        """What a worker process is told of it, the password included; for the pipe alone."""
        told: dict[str, Any] = {"engine": self.kind, "db": self.location}
        if self.kind == "files":
            told["files"] = _listed(self.location)
        if self._server:
            variable = os.environ.get(_PASSWORDS[self.kind])
            told["server"] = {
                "host": self._server.host, "port": self._server.port, "user": self._server.user,
                "database": self._server.database, "password": _known.get(self.location) or variable,
                "options": dict(self._server.options),
            }  # fmt: skip
        return told

    def __repr__(self) -> str:
        return f"Source({self.kind}, {self.location!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and (self.kind, self.location) == (other.kind, other.location)

    def __hash__(self) -> int:
        return hash((self.kind, self.location))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Source, (self.kind, self.location, self._server))


def table_files(location: str) -> list[str]:
    """The table files at `location`: the file itself, or those in the folder (not deeper), sorted.

    Raises:
        OSError: it is not there.
    """
    if not os.path.isdir(location):
        os.stat(location)
        return [location]
    names = sorted(n for n in os.listdir(location) if n.lower().endswith(TABLE_FILES) and not n.startswith("."))
    return [os.path.join(location, name) for name in names]


def _listed(location: str) -> list[str]:
    try:
        return table_files(location)
    except OSError:
        return [location]


def request_of(db: str | Path | Source) -> dict[str, Any]:
    """What a worker is told of `db`. A path is not looked at before its worker does: what is wrong is its reply.

    Raises:
        DataError: a URL that no engine reads.
        MissingExtra: the driver is not installed.
    """
    if not isinstance(db, Source):
        text = str(db)
        if "://" in text or text.startswith("${"):
            db = Source.of(text)
        else:
            kind = kind_of_path(text)
            if kind != "sqlite":
                _need("duckdb")
            db = Source(kind, text)
    return db.request()


def kind_of_path(path: str) -> Kind:
    """The engine for a path, by its ending or first bytes; `sqlite` when nothing else fits, also for a missing file."""
    lower = path.lower()
    if lower.endswith((".sqlite", ".sqlite3")):
        return "sqlite"
    if lower.endswith(TABLE_FILES):
        return "files"
    if _head(path)[8:12] == b"DUCK":
        return "duckdb"
    return "files" if os.path.isdir(path) and table_files(path) else "sqlite"


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(16)
    except (OSError, ValueError):
        return b""


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise DataError(f"the environment has no variable {name}", where=f"${{{name}}}", todo=f"export {name}=...")
    return value


def _from_path(path: Path) -> Source:
    where = os.path.abspath(path.expanduser())
    shown = repr(str(path))
    if not os.path.exists(where):
        raise DataError(f"the database {shown} does not exist", where=where, todo="give the path of a file or folder")
    if not os.access(where, os.R_OK):
        raise DataError(
            f"the database {shown} may not be read", where=where, todo="give this user the right to read it"
        )
    if os.path.isdir(where):
        return _from_folder(where, shown)
    if not os.path.isfile(where):
        raise DataError(
            f"{shown} is neither a file nor a folder", where=where, todo="give the path of a file or folder"
        )
    if os.path.getsize(where) == 0:
        raise DataError(f"the database {shown} is empty (0 bytes)", where=where, todo="give a file that holds tables")
    if where.lower().endswith(TABLE_FILES):
        return _of_files(where, shown)
    head = _head(where)
    if head[8:12] == b"DUCK":
        _need("duckdb")
        return Source("duckdb", where)
    if head == b"SQLite format 3\0":
        return Source("sqlite", where)
    raise DataError(
        f"the file {shown} is neither an SQLite nor a DuckDB database",
        where=where,
        todo=f"give a database file, or a table as {', '.join(TABLE_FILES)}",
    )


def _from_folder(where: str, shown: str) -> Source:
    if table_files(where):
        return _of_files(where, shown)
    inside = sorted(
        n for n in os.listdir(where) if n.lower().endswith((".sqlite", ".sqlite3", ".db", ".duckdb", ".ddb"))
    )
    hint = f"name one file in it, such as {inside[0]}" if inside else f"give a folder with {', '.join(TABLE_FILES)}"
    raise DataError(f"the folder {shown} holds no tables", where=where, todo=hint)


def _of_files(where: str, shown: str) -> Source:
    size = sum(os.path.getsize(path) for path in table_files(where))
    if size > FILES_BYTES:
        raise DataError(
            f"the tables of {shown} take {size / 2**20:,.0f} MiB, at most {FILES_BYTES // 2**20} MiB are read",
            where=where,
            todo="make a DuckDB file of them (CREATE TABLE t AS FROM 'FILE') and give that",
        )
    _need("duckdb")
    return Source("files", where)


@cache
def _need(kind: str) -> None:
    for module in _DRIVERS[kind]:
        if find_spec(module) is None:
            raise MissingExtra.of(module, "sql")


def _from_url(text: str) -> Source:
    scheme = text.partition("://")[0].lower()
    kind = _SCHEMES.get(scheme)
    todo = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE or mysql://..., with %40 for an @ in the password"
    if kind is None:
        raise DataError(f"no engine reads {scheme}://", todo=f"known: {', '.join(sorted(_SCHEMES))}, or a path")
    if kind in ("sqlite", "duckdb"):
        return _from_path(Path(unquote(text.partition("://")[2].partition("?")[0].removeprefix("/"))))
    filled = re.sub(r"\$\{(\w+)\}", lambda found: quote(_variable(found[1]), safe=""), text)
    try:
        parts = urlsplit(filled)
        port = parts.port or {"postgresql": 5432, "mysql": 3306}[kind]
    except ValueError:  # its text may hold the URL, and the URL a password
        raise DataError(f"the {scheme} URL cannot be read: its host or port is wrong", todo=todo) from None
    database = unquote(parts.path.strip("/"))
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    password = options.pop("password", "") or unquote(parts.password or "")
    if unknown := sorted(set(options) - _OPTIONS[kind]):
        raise DataError(
            f"unknown option {unknown[0]!r} in the {scheme} URL", todo=f"known: {', '.join(sorted(_OPTIONS[kind]))}"
        )
    if not database or "/" in database:
        raise DataError(f"the {scheme} URL names no database", todo=todo)
    _need(kind)
    server = _Server(
        unquote(parts.hostname or "localhost"),
        port,
        unquote(parts.username or ""),
        database,
        tuple(sorted(options.items())),
    )
    login = f"{quote(server.user, safe='')}@" if server.user else ""
    host = f"[{server.host}]" if ":" in server.host else server.host
    query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in server.options)
    location = f"{kind}://{login}{host}:{port}/{quote(database, safe='')}{'?' * bool(query)}{query}"
    if password:
        _known[location] = password
    return Source(kind, location, server)
