"""What was paid for: model calls, the reservations that go ahead of them, and the replies they brought.

A paid call is written ahead: `open_call` says what it may cost at worst, `close_call` puts what it did cost, and its
reply, in its place. After kill -9 between the two the reservation is still there, and no money is forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from verbal.database import Records, in_key_order
from verbal.errors import DataError
from verbal.types import Usage

CALL_TABLES = """
CREATE TABLE IF NOT EXISTS calls (id TEXT PRIMARY KEY, run TEXT NOT NULL, role TEXT NOT NULL, model TEXT NOT NULL,
    usage TEXT NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS calls_by_run ON calls (run);
CREATE TABLE IF NOT EXISTS reservations (call TEXT PRIMARY KEY, run TEXT NOT NULL, role TEXT NOT NULL,
    model TEXT NOT NULL, worst TEXT NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL,
    reply TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS replies_by_model ON replies (model, at);
CREATE TABLE IF NOT EXISTS used_replies (run TEXT NOT NULL, key TEXT NOT NULL, role TEXT NOT NULL,
    PRIMARY KEY (run, key, role));
"""
"""The tables of this file, in the order they are made."""

_PUT_CALL = "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
# The first reply stays: what a run was given must be what its replay is given. An error gives way to a reply.
_PUT_REPLY = (
    "INSERT INTO replies VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET model = excluded.model, "
    "request = excluded.request, reply = excluded.reply, at = excluded.at "
    "WHERE substr(replies.reply, 1, 8) = '{\"error\"'"
)
_USE_REPLY = "INSERT INTO used_replies VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


class CallRecords(Records):
    """Calls, reservations and replies."""

    def open_call(self, call: str, run: str, role: str, model: str, worst: Usage, owner: str) -> None:
        """Reserves what a call may use at worst, before it is sent; a second time, the newer reservation counts.

        Args:
            call: Unique id of the call.
            run: The run that pays.
            role: Role of the call: solver, critic, ...
            model: Name of the model.
            worst: The most that the call can use.
            owner: The process that makes the call, in words that tell later whether it still lives.
        """
        with self._database.write() as db:
            db.change(
                "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (call) DO UPDATE SET "
                "worst = excluded.worst, owner = excluded.owner, at = excluded.at",
                (call, run, role, model, worst.to_json(), owner, time.time()),
            )

    def open_calls(self, run: str | None = None) -> list[dict[str, Any]]:
        """Reservations that no call closed yet, oldest first: call, run, role, model, worst (Usage), owner, at."""
        clause, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        names = ("call", "run", "role", "model", "worst", "owner", "at")
        rows = self._database.read(f"SELECT {', '.join(names)} FROM reservations {clause} ORDER BY at, call", values)
        return [{**dict(zip(names, r, strict=True)), "worst": Usage.from_json(r[4])} for r in rows]

    def close_call(
        self,
        call: str,
        run: str,
        role: str,
        model: str,
        usage: Usage,
        error: str | None = None,
        key: str | None = None,
        request: str | None = None,
        reply: str | None = None,
    ) -> bool:
        """Puts a call in the place of its reservation, with its reply when there is one; in one transaction.

        Args:
            call: The id given to `open_call`.
            run: The run that pays.
            role: Role of the call.
            model: Name of the model.
            usage: What the call used.
            error: What went wrong, for a call that failed.
            key: Key of the reply in the replay cache; the run is marked as one that used it.
            request: The request as text, kept beside the reply.
            reply: The reply as text.

        Returns:
            Whether that reply is the one that is kept; False when another was there before, or none was given.

        Raises:
            DataError: a reply is given without its key.
        """
        if reply is not None and key is None:
            raise DataError(f"the reply of call {call!r} has no key", where=self.where, todo="give key= with reply=")
        with self._database.write() as db:
            db.change("DELETE FROM reservations WHERE call = ?", (call,))
            db.change(_PUT_CALL, (call, run, role, model, usage.to_json(), error))
            if reply is None:
                return False
            new = db.change(_PUT_REPLY, (key, model, request or "", reply, time.time()))
            db.change(_USE_REPLY, (run, key, role))
            return bool(new)

    def drop_call(self, call: str) -> None:
        """Takes back the reservation of a call that was never sent."""
        with self._database.write() as db:
            db.change("DELETE FROM reservations WHERE call = ?", (call,))

    def put_call(self, call: str, run: str, role: str, model: str, usage: Usage, error: str | None = None) -> bool:
        """Keeps one model call; False (and no change) when it is known: `call` is unique, so none is counted twice."""
        with self._database.write() as db:
            return bool(db.change(_PUT_CALL, (call, run, role, model, usage.to_json(), error)))

    def usage(self, run: str | None = None) -> dict[str, Usage]:
        """What was used, by role, narrowed by run."""
        clause, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        total: dict[str, Usage] = {}
        for role, text in self._database.read(f"SELECT role, usage FROM calls {clause} ORDER BY role, id", values):
            total[role] = total.get(role, Usage()) + Usage.from_json(text)
        return total

    def mean_call(self, model: str) -> Usage | None:
        """What a call to a model used on average when it gave a reply; None when there was none."""
        rows = self._database.read(
            "SELECT usage FROM calls WHERE model = ? AND error IS NULL ORDER BY id LIMIT 2000", (model,)
        )
        used = [Usage.from_json(r[0]) for r in rows]
        if not used:
            return None
        total = sum(used, Usage())
        return Usage(
            calls=1,
            prompt_tokens=round(total.prompt_tokens / len(used)),
            completion_tokens=round(total.completion_tokens / len(used)),
            cost=None if total.cost is None else total.cost / len(used),
            seconds=total.seconds / len(used),
        )

    # replies --------------------------------------------------------------------------------------------------------

    def reply(self, key: str) -> str | None:
        """The reply kept under a key, or None."""
        rows = self._database.read("SELECT reply FROM replies WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def use_reply(self, run: str, key: str, role: str) -> None:
        """Marks a run as one that used the reply of a key in a role."""
        with self._database.write() as db:
            db.change(_USE_REPLY, (run, key, role))

    def used_replies(self, run: str) -> list[tuple[str, str]]:
        """(key, role) of every reply a run used, sorted."""
        rows = self._database.read("SELECT key, role FROM used_replies WHERE run = ? ORDER BY key, role", (run,))
        return [(r[0], r[1]) for r in rows]

    def replies(self, run: str) -> list[dict[str, str]]:
        """The replies a run used, by key: key, model, request, reply."""
        names = ("key", "model", "request", "reply")
        sql = (
            f"SELECT {', '.join(names)} FROM replies WHERE key IN (SELECT key FROM used_replies WHERE run = ?) "
            "ORDER BY key"
        )
        return [dict(zip(names, r, strict=True)) for r in self._database.read(sql, (run,))]

    def put_replies(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Keeps replies as `replies` gives them (those of a run of another store); a known reply stays."""
        at = time.time()
        values = [(r["key"], r["model"], r["request"], r["reply"], at) for r in rows]
        with self._database.write() as db:
            db.change_many(_PUT_REPLY, in_key_order(values, 1))

    def nearest_requests(self, model: str, limit: int = 50) -> list[tuple[str, str]]:
        """(key, request) of the newest replies of a model, to tell in what a request that has no reply differs."""
        sql = "SELECT key, request FROM replies WHERE model = ? ORDER BY at DESC, key LIMIT ?"
        return [(r[0], r[1]) for r in self._database.read(sql, (model, limit))]
