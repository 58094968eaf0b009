"""The SQLite files that a matching process holds open, and what it knows of each.

A small file that nobody writes to is read into memory: queries on it need no locks, and nothing of the user's is open.
Others are opened as for any query (`sqlite.connect`). A file that changed is opened again.
"""

from __future__ import annotations

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .sqlite import STEPS, _prepared, authorize, classify, connect

CELL_BYTES = 2**20
"""Longest text or blob of a prediction's result."""

HELD_FILES = 360
"""Connections held open: those of some suites."""

PAGE_BYTES, HELD_BYTES = 2 * 2**20, 48 * 2**20
"""What is kept of one file in memory, and of all (SQLite's heap has a ceiling). A smaller file is read as a whole."""


@dataclass(slots=True)
class Gold:
    """What a gold query gives on one file."""

    rows: list[tuple[Any, ...]]
    columns: list[str]
    seconds: float
    size: int
    """Bytes in memory, about."""


@dataclass(slots=True)
class File:
    """One database file, open."""

    path: str
    stat: tuple[int, ...]
    connection: sqlite3.Connection
    log: bool
    """Whether it is in WAL mode, and so changes without a change of the file."""
    gold: dict[str, Gold] = field(default_factory=dict)
    mark: str = ""


class Failure(Exception):
    """A query or a file that gave no result: what happened and its class."""

    def __init__(self, what: str, kind: str) -> None:
        """`kind`: one word (`sqlite.classify`)."""
        super().__init__(what)
        self.what, self.kind = what, kind


class Files:
    """The files held open, the ones used last."""

    def __init__(self, expired: Callable[[], bool], closed: Callable[[File], None]) -> None:
        """`expired` ends a query when it says true; `closed` is told of each file let go."""
        self._held: OrderedDict[str, File] = OrderedDict()
        self._expired, self._closed = expired, closed
        self._pages = 0

    def get(self, path: str, found: os.stat_result | None, wait: float) -> File:
        """The file, opened when it is not or has changed.

        Args:
            path: Where it is.
            found: What `os.stat` says of it, if that was asked; None asks.
            wait: Seconds to wait for a lock.

        Raises:
            Failure: it cannot be opened.
        """
        try:
            found = found or os.stat(path)
            stat: tuple[int, ...] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            file = self._held.get(path)
            if file is not None and file.stat == ((*stat, *_log_stat(path)) if file.log else stat):
                self._held.move_to_end(path)
                return file
            if file is not None:
                self._close(path)
            if os.path.isdir(path):
                raise Failure("it is a folder", "missing")
            return self._open(path, stat, wait)
        except sqlite3.Error as error:
            raise Failure(str(error), classify(error)) from error
        except (OSError, ValueError) as error:
            raise Failure(f"cannot be opened: {error}", "missing") from error

    def drop_gold(self, path: str, sql: str) -> None:
        """Forgets a gold result."""
        self._held[path].gold.pop(sql, None)

    def close(self) -> None:
        """Lets go of all files."""
        for path in list(self._held):
            self._close(path)

    def _open(self, path: str, stat: tuple[int, ...], wait: float) -> File:
        connection = _copied(path, stat) or connect(path, wait)
        connection.text_factory = str
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CELL_BYTES)
        connection.set_progress_handler(self._expired, STEPS)
        with open(path, "rb") as head:
            log = head.read(20)[18:20] == b"\x02\x02"
        file = File(path, (*stat, *_log_stat(path)) if log else stat, connection, log)
        self._held[path] = file
        self._pages += min(stat[2], PAGE_BYTES)
        while len(self._held) > 1 and (len(self._held) > HELD_FILES or self._pages > HELD_BYTES):
            self._close(next(iter(self._held)))
        return file

    def _close(self, path: str) -> None:
        file = self._held.pop(path)
        self._closed(file)
        self._pages -= min(file.stat[2], PAGE_BYTES)
        file.connection.close()


def is_unchanged(file: File) -> bool:
    """Whether the file is still the one that was opened.

    Raises:
        OSError: it is gone.
    """
    found = os.stat(file.path)
    stat: tuple[int, ...] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return file.stat == ((*stat, *_log_stat(file.path)) if file.log else stat)


def _copied(path: str, stat: tuple[int, ...]) -> sqlite3.Connection | None:
    """A copy in memory that can only be read; None for a file that is large, or that somebody writes to."""
    beside = (path + "-journal", path + "-wal")
    if not 100 <= stat[2] <= PAGE_BYTES or not hasattr(sqlite3.Connection, "deserialize"):
        return None
    with open(path, "rb") as file:
        body = file.read()
        after = os.fstat(file.fileno())
    # Whoever writes makes a journal first, so without one this is what the file held at one moment.
    if body[18:20] != b"\x01\x01" or any(map(os.path.exists, beside)):
        return None
    if (after.st_dev, after.st_ino, after.st_size, after.st_mtime_ns) != stat:
        return None
    connection = _prepared("file::memory:", 0.0)
    connection.set_authorizer(None)
    try:
        connection.deserialize(body)
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        return None  # what is wrong with the file, `connect` tells
    connection.set_authorizer(authorize)
    return connection


def _log_stat(path: str) -> tuple[int, ...]:
    try:
        stat = os.stat(path + "-wal")
    except OSError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)


__all__ = ["CELL_BYTES", "Failure", "File", "Files", "Gold", "is_unchanged"]
