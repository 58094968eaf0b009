"""What was judged and adopted: proposals, the log of versions, and the uses of sealed test sets."""

from __future__ import annotations

import json
import time
from typing import Any

from verbal.database import Records
from verbal.errors import StoreError

EVIDENCE_TABLES = """
CREATE TABLE IF NOT EXISTS proposals (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL,
    status TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versions (number INTEGER PRIMARY KEY, at REAL NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sealed (version INTEGER NOT NULL, digest TEXT NOT NULL, run TEXT NOT NULL,
    at REAL NOT NULL, record TEXT NOT NULL, PRIMARY KEY (version, digest));
"""
"""The tables of this file, in the order they are made."""


class EvidenceRecords(Records):
    """Proposals, versions and sealed uses."""

    def put_proposal(self, id: str, status: str, record: dict[str, Any]) -> None:
        """Keeps a proposal; a later state of it replaces the earlier and keeps its place and its time."""
        with self._database.write() as db:
            db.change(
                "INSERT INTO proposals (id, at, status, record) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "status = excluded.status, record = excluded.record",
                (id, time.time(), status, json.dumps(record)),
            )

    def proposal(self, id: str) -> dict[str, Any] | None:
        """The proposal of that id (id, at, status and its record), or None."""
        rows = self._database.read("SELECT id, at, status, record FROM proposals WHERE id = ?", (id,))
        return _joined({"id": rows[0][0], "at": rows[0][1], "status": rows[0][2]}, rows[0][3]) if rows else None

    def proposals(self) -> list[dict[str, Any]]:
        """Every proposal in the order they were first kept: id, at, status and its record."""
        rows = self._database.read("SELECT id, at, status, record FROM proposals ORDER BY seq")
        return [_joined({"id": r[0], "at": r[1], "status": r[2]}, r[3]) for r in rows]

    def add_version(self, record: dict[str, Any], expect: int | None = None) -> int:
        """Appends to the log of adopted versions; gives the new number, which starts at 1.

        Args:
            record: What was adopted.
            expect: The number the caller took for the newest; the write is refused when the log has moved on.

        Raises:
            StoreError: the log is at another number than `expect`.
        """
        with self._database.write(alone=True) as db:
            newest = int(db.read("SELECT COALESCE(MAX(number), 0) FROM versions")[0][0])
            if expect is not None and newest != expect:
                what = f"the log of versions is at {newest}, not {expect}"
                raise StoreError(what, where=self.where, todo="another process adopted something: read again and retry")
            db.change("INSERT INTO versions VALUES (?, ?, ?)", (newest + 1, time.time(), json.dumps(record)))
            return newest + 1

    def newest_version(self) -> int:
        """Number of the newest adopted version, 0 when there is none: what a server asks twice a second."""
        return int(self._database.read("SELECT COALESCE(MAX(number), 0) FROM versions")[0][0])

    def versions(self) -> list[dict[str, Any]]:
        """Every adopted version, oldest first: number, at and its record."""
        rows = self._database.read("SELECT number, at, record FROM versions ORDER BY number")
        return [_joined({"number": r[0], "at": r[1]}, r[2]) for r in rows]

    def unseal(self, version: int, digest: str, run: str, record: dict[str, Any]) -> bool:
        """Marks a sealed test set as used by a version; False (and no change) when that version used it before."""
        with self._database.write() as db:
            values = (version, digest, run, time.time(), json.dumps(record))
            return bool(db.change("INSERT INTO sealed VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values))

    def update_sealed(self, version: int, digest: str, record: dict[str, Any]) -> None:
        """Replaces the record of a use (with the result, when it is known).

        Raises:
            StoreError: that version has not used that test set.
        """
        with self._database.write() as db:
            sql = "UPDATE sealed SET record = ? WHERE version = ? AND digest = ?"
            if not db.change(sql, (json.dumps(record), version, digest)):
                what = f"version {version} has not used the test set {digest!r}"
                raise StoreError(what, where=self.where, todo="call unseal first")

    def sealed_uses(self) -> list[dict[str, Any]]:
        """Every use of a sealed test set, oldest first: version, digest, run, at and its record."""
        names = ("version", "digest", "run", "at")
        rows = self._database.read(f"SELECT {', '.join(names)}, record FROM sealed ORDER BY at, version, digest")
        return [_joined(dict(zip(names, r[:4], strict=True)), r[4]) for r in rows]


def _joined(columns: dict[str, Any], record: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record)
    return columns | found | columns  # columns come first, and are the truth where a record repeats one
