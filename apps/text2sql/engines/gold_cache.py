"""Results of gold queries that outlive the process: one SQLite file in the user's cache folder.

A row's key is the content of the database and the text of the query, so a changed file is never answered from here.
Only results that took long are worth a row. The cache is a convenience: whatever is wrong with the file (locked,
damaged, full, not ours), nothing is found in it, and a file that is no database is begun anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any

MAX_BYTES = 128 * 2**20
"""Most bytes of results kept; the ones not used for longest go first."""

HASHED_BYTES = 256 * 2**20
"""Larger databases are known by place, size and time instead of by content."""

_HOUR = 3600
_DAMAGED = ("not a database", "malformed", "no such table", "no such column", "disk image")


def content_mark(path: str, stat: tuple[int, ...]) -> str:
    """What identifies the content of a database file whose `stat` (device, inode, size, time, ...) is known.

    Raises:
        OSError: it cannot be read.
    """
    log = f"{path}-wal"
    if stat[2] > HASHED_BYTES or os.path.exists(log):
        return f"{os.path.abspath(path)}:{stat}"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


class GoldCache:
    """Results by key. No method raises for a reason that lies in the file."""

    def __init__(self, path: str, max_bytes: int = MAX_BYTES) -> None:
        """Opens nothing yet."""
        self._path, self._max = path, max_bytes
        self._connection: sqlite3.Connection | None = None
        self._broken = False
        self._bytes = 0
        self._keys: set[str] | None = None

    @staticmethod
    def key(mark: str, sql: str) -> str:
        """The key of a query on a content."""
        return hashlib.blake2b(f"{mark}\0{sql}".encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()

    def filled(self) -> bool:
        """Whether anything at all is in it; its keys are read once, what other processes add later is not seen."""
        if self._keys is None:
            self._keys = {key for (key,) in self._try("SELECT key FROM gold")}
        return bool(self._keys)

    def get(self, key: str) -> tuple[list[str], list[tuple[Any, ...]], float] | None:
        """Column names, rows and the seconds they took, or None."""
        if not self.filled() or key not in (self._keys or ()):
            return None
        found = self._try("SELECT body, digest, used FROM gold WHERE key = ?", (key,))
        if not found:
            return None
        body, digest, used = found[0]
        try:
            if hashlib.blake2b(body, digest_size=16).digest() != digest:
                return None
            columns, rows, seconds = json.loads(zlib.decompress(body))
            result = [str(c) for c in columns], [tuple(map(_thawed, row)) for row in rows], float(seconds)
        except (TypeError, ValueError, zlib.error):
            return None
        if time.time() - used > _HOUR:
            self._try("UPDATE gold SET used = ? WHERE key = ?", (int(time.time()), key))
        return result

    def put(self, key: str, columns: list[str], rows: list[tuple[Any, ...]], seconds: float) -> None:
        """Keeps a result, unless it alone would take a quarter of the room."""
        text = json.dumps([columns, [list(map(_frozen, row)) for row in rows], seconds])
        body = zlib.compress(text.encode("utf-8", "surrogatepass"), 1)
        if len(body) > self._max // 4:
            return
        digest = hashlib.blake2b(body, digest_size=16).digest()
        self._try("INSERT OR REPLACE INTO gold VALUES (?, ?, ?, ?)", (key, body, digest, int(time.time())))
        if self._keys is not None:
            self._keys.add(key)
        self._bytes += len(body)
        if self._bytes > self._max:
            self._forget()

    def _forget(self) -> None:
        """Keeps the half that was used last."""
        kept, gone = 0, []
        for key, size in self._try("SELECT key, LENGTH(body) FROM gold ORDER BY used DESC, rowid DESC"):
            kept += size
            if kept > self._max // 2:
                gone.append(key)
        for key in gone:
            self._try("DELETE FROM gold WHERE key = ?", (key,))
        self._bytes = (self._try("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM gold") or [(0,)])[0][0]

    def _try(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """What the statement gives, or nothing when the file does not let us."""
        if self._broken:
            return []
        try:
            if self._connection is None:
                self._connection = self._open()
            return self._connection.execute(sql, values).fetchall()
        except (sqlite3.Error, sqlite3.Warning, OSError, OverflowError) as error:
            if isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _DAMAGED):
                self._begin_anew()
            elif not isinstance(error, sqlite3.OperationalError) or "locked" not in str(error):
                self._broken = True
            return []

    def _open(self) -> sqlite3.Connection:
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=0.2, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS gold (key TEXT PRIMARY KEY, body BLOB, digest BLOB, used INTEGER)"
            )
            (self._bytes,) = connection.execute("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM gold").fetchone()
            os.chmod(self._path, 0o600)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self) -> None:
        """The damaged file is set aside once; then the cache is off."""
        self.close()
        self._broken = True
        try:
            for ending in ("", "-wal", "-shm"):
                Path(self._path + ending).unlink(missing_ok=True)
            self._connection = self._open()
            self._broken = False
        except (sqlite3.Error, OSError):
            pass

    def close(self) -> None:
        """Lets go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _frozen(cell: Any) -> Any:
    return {"x": cell.hex()} if isinstance(cell, bytes) else cell


def _thawed(cell: Any) -> Any:
    return bytes.fromhex(cell["x"]) if isinstance(cell, dict) else cell


__all__ = ["GoldCache", "content_mark"]
