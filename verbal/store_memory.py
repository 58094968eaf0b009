"""What a store keeps of memories: their operations, and the vectors under which their items are found.

The two together are the truth of a memory. A vector belongs to the operation that wrote the words (its version) and to
the embedder that made it, so that a memory embedded anew keeps what it was found by before.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Collection, Iterable, Sequence
from sys import byteorder
from typing import Any, NamedTuple

from verbal.database import Database, Records, in_key_order
from verbal.errors import StoreError
from verbal.types import MemoryOp

MEMORY_TABLES = """
CREATE TABLE IF NOT EXISTS ops (memory TEXT NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (memory, version));
CREATE TABLE IF NOT EXISTS vectors (memory TEXT NOT NULL, version INTEGER NOT NULL, embedder TEXT NOT NULL,
    vector BLOB NOT NULL, PRIMARY KEY (memory, embedder, version));
"""

"""What this file needs in the database."""
EMBEDDER = "embedder "
"""How the operation begins (its reason) that records which embedder made the vectors of the operations after it."""

_PART = 500


class StoredVector(NamedTuple):
    """The vector of the words that one operation wrote."""

    version: int
    """Of that operation."""
    embedder: str
    """Name of the embedder that made it."""
    vector: bytes
    """Numbers of 32 bits, little-endian, four bytes each."""


class MemoryRecords(Records):
    """Operations and vectors of memories, by name of the memory."""

    def log_ops(
        self,
        memory: str,
        ops: Sequence[MemoryOp],
        *,
        expect: int | None = None,
        vectors: Iterable[StoredVector] = (),
    ) -> int:
        """Appends operations to the log of a memory, with vectors, in one transaction; gives the new version.

        Args:
            memory: Name of the memory.
            ops: Operations in order; each gets the next version number.
            expect: The version the caller read; the write is refused when the log has moved on.
            vectors: Of these operations, or of earlier ones; one of the same version and embedder is replaced.

        Raises:
            StoreError: the log is at another version than `expect`.
        """
        with self._database.write(alone=True) as db:
            version = _version(db, memory)
            if expect is not None and version != expect:
                raise StoreError(
                    f"memory {memory!r} is at version {version}, not {expect}", todo="read again and retry"
                )
            rows = [(memory, version + i, time.time(), op.to_json()) for i, op in enumerate(ops, 1)]
            db.change_many("INSERT INTO ops VALUES (?, ?, ?, ?)", rows)
            db.change_many(
                "INSERT INTO vectors (memory, version, embedder, vector) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (memory, embedder, version) DO UPDATE SET vector = excluded.vector",
                in_key_order(((memory, *row) for row in vectors), 3),
            )
            return version + len(rows)

    def ops(self, memory: str, after: int = 0) -> list[tuple[int, MemoryOp]]:
        """(version, operation) of a memory after a version, oldest first."""
        sql = "SELECT version, record FROM ops WHERE memory = ? AND version > ? ORDER BY version"
        return [(r[0], MemoryOp.from_json(r[1])) for r in self._database.read(sql, (memory, after))]

    def op_times(self, memory: str, after: int = 0) -> dict[int, float]:
        """Version -> when it was logged, in seconds since 1970, of a memory after a version."""
        sql = "SELECT version, at FROM ops WHERE memory = ? AND version > ? ORDER BY version"
        return {r[0]: r[1] for r in self._database.read(sql, (memory, after))}

    def memories(self) -> dict[str, int]:
        """Name -> version of every memory that has a log."""
        return {
            r[0]: r[1]
            for r in self._database.read("SELECT memory, MAX(version) FROM ops GROUP BY memory ORDER BY memory")
        }

    def vectors(
        self,
        memory: str,
        embedder: str | None = None,
        *,
        versions: Collection[int] | None = None,
        after: int = 0,
        upto: int | None = None,
    ) -> list[StoredVector]:
        """Vectors of a memory, by embedder and version, narrowed by embedder and versions of the operations."""
        where, values = "memory = ? AND version > ?", list[Any]([memory, after])
        for clause, value in (("embedder = ?", embedder), ("version <= ?", upto)):
            if value is not None:
                where, values = f"{where} AND {clause}", [*values, value]
        sql = f"SELECT version, embedder, vector FROM vectors WHERE {where}"
        if versions is not None:
            given = sorted(set(versions))
            parts = [given[at : at + _PART] for at in range(0, len(given), _PART)]
            found: list[StoredVector] = []
            for part in parts:
                rows = self._database.read(f"{sql} AND version IN ({', '.join('?' * len(part))})", (*values, *part))
                found += [StoredVector(*row) for row in rows]
            return sorted(found, key=lambda row: (row.embedder, row.version))
        rows = self._database.read(f"{sql} ORDER BY embedder, version", values)
        return [StoredVector(*row) for row in rows]

    def dimension(self, memory: str, embedder: str) -> int:
        """How many numbers a vector of a memory by an embedder has; 0 when there is none."""
        sql = "SELECT LENGTH(vector) FROM vectors WHERE memory = ? AND embedder = ? LIMIT 1"
        found = self._database.read(sql, (memory, embedder))
        return int(found[0][0]) // 4 if found else 0

    def embedded_in_ops(self, memory: str, after: int = 0) -> dict[int, bytes]:
        """Version -> vector, of operations that hold theirs in their record: logs were so before they had a table."""
        sql = "SELECT version, record FROM ops WHERE memory = ? AND version > ? AND record LIKE ? ORDER BY version"
        found: dict[int, bytes] = {}
        for version, record in self._database.read(sql, (memory, after, '%"embedding":[%')):
            if vector := (json.loads(record).get("item") or {}).get("embedding"):
                found[version] = as_bytes(vector)
        return found

    def logged_vectors(self, memory: str, after: int = 0) -> dict[int, bytes]:
        """Version -> vector as it was made for that operation, by the embedder of its time."""
        sql = "SELECT version, record FROM ops WHERE memory = ? AND record LIKE ? ORDER BY version"
        changes = [
            (version, op.reason.removeprefix(EMBEDDER))
            for version, record in self._database.read(sql, (memory, f'%"reason":"{EMBEDDER}%'))
            if is_embedder_op(op := MemoryOp.from_json(record))
        ]
        found = self.embedded_in_ops(memory, after)
        for i, (start, name) in enumerate(changes):
            end = changes[i + 1][0] if i + 1 < len(changes) else None
            if end is None or end > after:
                found |= {v: x for v, _, x in self.vectors(memory, name, after=max(start, after), upto=end)}
        return dict(sorted(found.items()))

    def sealed(self, tasks: Iterable[str]) -> set[str]:
        """Those of some task ids that are of the sealed split `test`."""
        found: set[str] = set()
        given = sorted(set(tasks))
        for at in range(0, len(given), _PART):
            part = given[at : at + _PART]
            sql = f"SELECT id FROM tasks WHERE split = 'test' AND id IN ({', '.join('?' * len(part))})"
            found.update(r[0] for r in self._database.read(sql, part))
        return found


def as_bytes(vector: Iterable[float]) -> bytes:
    """Numbers as a vector is stored: 32 bits each, little-endian."""
    numbers = array("f", vector)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def is_embedder_op(op: MemoryOp) -> bool:
    """Whether an operation records a change of embedder."""
    return op.op == "NOOP" and op.author == "memory" and op.reason.startswith(EMBEDDER)


def _version(db: Database, memory: str) -> int:
    return int(db.read("SELECT COALESCE(MAX(version), 0) FROM ops WHERE memory = ?", (memory,))[0][0])
