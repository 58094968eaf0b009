"""Where a store keeps its rows: one connection, its dialect of SQL, its errors in words.

`open_database` gives the dialect a URL asks for: SQLite here, PostgreSQL in `verbal/postgres.py`. The store's SQL is
the common subset of both; what differs (placeholders, types, locks, transactions, messages) is in these two files.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from verbal.commits import GroupCommit
from verbal.errors import ConfigError, StoreError, VerbalError

FREE_SPACE = "free some space; everything acknowledged so far is kept, then use --resume"
"""What to do when a disk is full."""

_T = TypeVar("_T")
_MARK = "\x1a"
_UNKEPT = re.compile("[\x00\x1a\ud800-\udfff]")
_MARKED = re.compile("\x1a([0-9a-f]{4})")


def open_database(url: str | Path) -> Database:
    """The database at a path or URL, connected.

    Raises:
        ConfigError: the URL cannot be read, or names a database that is not supported.
        MissingExtra: psycopg is not installed and the URL is one of PostgreSQL.
        StoreError: it cannot be opened.
    """
    text = str(url)
    scheme, found, _ = text.partition("://")
    if not found and re.match("[a-z+]{2,}:/", text):  # pathlib made one slash of two, and a folder would get its name
        kind = text.partition(":")[0]
        raise ConfigError(f"a URL ({kind}:...) was given as a path", todo="give the URL of the store as text")
    if found and scheme in ("postgresql", "postgres"):
        from verbal.postgres import PostgreSQL

        return PostgreSQL(text)
    if found and not text.startswith("sqlite:///"):
        todo = "give the path of a file, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        raise ConfigError(f"the store cannot live at {scheme}://...", todo=todo)
    return SQLite(Path(text.removeprefix("sqlite:///")))


class Database(ABC):
    """One connection that threads may share, and transactions on it.

    Every statement runs under one lock. `write` groups statements: the outermost is a transaction, one inside it is a
    part of it that can fail for itself.
    """

    where: str
    """What messages call it: a path, or a URL without its password."""
    folder: Path
    """Where files that are derived from it are kept."""
    memory_folder: Path
    """Where vector indexes are kept."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._whole = False

    @abstractmethod
    def create(self, schema: str) -> None:
        """Makes the tables that are not there yet.

        Args:
            schema: Statements of SQLite's dialect that end with `;` and may run again.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the connection; what comes later is refused."""

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of one query, `?` for each value."""
        with self._lock, self._explained():
            return [tuple(map(_kept_text, row)) for row in self._execute(sql, _texts(values)).fetchall()]

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Number of rows that one statement changed. Only inside `write`."""
        with self._explained():
            return int(self._execute(sql, _texts(values)).rowcount)

    def change_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs one statement for each row. Only inside `write`."""
        with self._explained():
            self._execute_many(sql, [_texts(row) for row in rows])

    @contextmanager
    def write(self, *, alone: bool = False, whole: bool = False) -> Iterator[Database]:
        """One transaction, or a part of the one that is open; kept when the block ends, undone when it raises.

        Args:
            alone: No other process writes meanwhile. For a write that depends on what it reads first, and for one of
                many statements; the outermost decides.
            whole: Nothing inside fails for itself: what raises there has to undo all, and no part is marked off.
        """
        with self._lock:
            if self._whole:
                yield self
                return
            depth, self._whole = self._depth, whole
            with self._explained():
                self._begin(depth, alone)
            self._depth = depth + 1
            try:
                yield self
                with self._explained():
                    self._commit(depth)
            except BaseException:
                self._undo(depth)
                raise
            finally:
                self._depth, self._whole = depth, False

    @abstractmethod
    def _execute(self, sql: str, values: Sequence[Any] = ()) -> Any: ...

    @abstractmethod
    def _execute_many(self, sql: str, rows: list[tuple[Any, ...]]) -> None: ...

    @abstractmethod
    def _begin(self, depth: int, alone: bool) -> None: ...

    @abstractmethod
    def _undo(self, depth: int) -> None: ...

    @abstractmethod
    def _explained(self) -> AbstractContextManager[None]: ...

    def _commit(self, depth: int) -> None:
        self._execute("COMMIT" if depth == 0 else f"RELEASE SAVEPOINT inner{depth}")


class Records:
    """Rows in a database: the common ground of what a store keeps."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commits = GroupCommit(lambda: database.write(alone=True, whole=True))

    @property
    def where(self) -> str:
        """What messages call the store: its path, or its URL without the password."""
        return self._database.where

    @property
    def folder(self) -> Path:
        """Where files derived from the store are kept."""
        return self._database.folder

    @property
    def memory_folder(self) -> Path:
        """Where the vector indexes of its memories are kept."""
        return self._database.memory_folder

    def transaction(self, *, whole: bool = False) -> AbstractContextManager[object]:
        """Groups the writes of a block into one commit: all are kept when it ends, none when it raises.

        A block inside a block joins the outer one. Nothing is acknowledged before the outermost ends, and other
        threads and processes wait for it, so never `await` inside: another task's writes would join too.

        Args:
            whole: No write inside fails for itself, which spares two statements for each.
        """
        return self._database.write(alone=True, whole=whole)

    async def together(self, write: Callable[[], _T]) -> _T:
        """What `write` gives, committed with what other tasks write in the same turn of the loop (`commits.py`)."""
        return await self._commits.write(write)


class SQLite(Database):
    """A file in WAL mode (`synchronous=NORMAL`: a killed process loses nothing that was acknowledged; a power cut may
    lose the last commits). A writer takes the file's write lock first and waits for it 30 s.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.where = str(path)
        self._in_words = _Explained(self.where)
        self.folder = path.parent
        self.memory_folder = path.parent / f"{path.stem}.memory"
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._connect()

    def create(self, schema: str) -> None:
        """Makes the tables that are not there yet."""
        with self._lock, self._explained():
            self._db.executescript(schema)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        names = {r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if names and "meta" not in names:  # `meta` is made first, so a store that another process is just making has it
            db.close()
            raise foreign(self.where)
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            _patiently(db, "PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._db.execute(sql, values)

    def _execute_many(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        self._db.executemany(sql, rows)

    def _begin(self, depth: int, alone: bool) -> None:
        self._db.execute("BEGIN IMMEDIATE" if depth == 0 else f"SAVEPOINT inner{depth}")

    def _undo(self, depth: int) -> None:
        if not self._db.in_transaction:  # a full disk has undone everything already
            return
        if depth == 0:
            self._db.execute("ROLLBACK")
        else:
            self._db.execute(f"ROLLBACK TO SAVEPOINT inner{depth}")
            self._db.execute(f"RELEASE SAVEPOINT inner{depth}")

    def _explained(self) -> _Explained:
        return self._in_words


def _patiently(db: sqlite3.Connection, sql: str) -> None:
    """Runs a statement for which SQLite does not wait while others hold the file, as it does for all others."""
    from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random

    locked = retry_if_exception_message(message="database is locked")
    Retrying(retry=locked, stop=stop_after_delay(30), wait=wait_random(0, 0.02), reraise=True)(db.execute, sql)


class _Explained:
    """Turns errors of SQLite and of the disk into those of the house. A class, for it stands around every statement."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            text = str(error)
            todo = {
                "database or disk is full": FREE_SPACE,
                "attempt to write a readonly database": "give a folder you may write to: --store PATH",
                "unable to open database file": "check that the folder exists and may be written: --store PATH",
                "file is not a database": "this file is something else; give another path: --store PATH",
                "database is locked": "another process holds the store for more than 30 s; wait for it or stop it",
            }.get(text, "check the file and the disk")
            raise StoreError(f"the store failed: {text}", where=self._where, todo=todo) from error
        if isinstance(error, OSError) and not isinstance(error, VerbalError):
            what = f"the store failed: {error.strerror or error}"
            raise StoreError(what, where=self._where, todo="give a path you may write to: --store PATH") from error


def in_key_order(rows: Iterable[tuple[Any, ...]], key: int) -> list[tuple[Any, ...]]:
    """Rows by their first `key` columns, equal ones as they came: two writers that lock rows in one order never wait
    for each other in a circle.
    """
    return sorted(rows, key=lambda row: row[:key])


def foreign(where: str) -> StoreError:
    """The error for a database that holds tables of someone else."""
    what = "this database is not a store of verbal, so it is left alone"
    return StoreError(what, where=where, todo="give another path: --store PATH")


def _texts(values: Sequence[Any]) -> tuple[Any, ...]:
    """Values with each text in a form that every database keeps, see `_keepable`."""
    return tuple([_keepable(v) if isinstance(v, str) else v for v in values])


def _keepable(text: str) -> str:
    # PostgreSQL keeps no NUL, nobody keeps half a surrogate pair, and a model's cut reply may hold either: such a
    # character becomes a mark and its number, in keys as in values. JSON never needs it: there both are escaped.
    if text.isascii():
        if "\x00" not in text and _MARK not in text:
            return text
    else:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            if "\x00" not in text and _MARK not in text:
                return text
    return _UNKEPT.sub(lambda found: f"{_MARK}{ord(found[0]):04x}", text)


def _kept_text(value: Any) -> Any:
    if isinstance(value, str) and _MARK in value:
        return _MARKED.sub(lambda found: chr(int(found[1], 16)), value)
    return value
