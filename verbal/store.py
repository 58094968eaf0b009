"""The store: the system of record. Attempts, feedback, groups, memory operations, calls, runs, checkpoints.

One SQLite file, or a PostgreSQL database by URL (`verbal/database.py` has both). Every write is idempotent by key,
because LangGraph runs a node at least once. What a vector index holds is derived from here and never the other way
round. Calls and replies are in `verbal/store_calls.py`, proposals and versions in `verbal/store_evidence.py`,
operations and vectors of memories in `verbal/store_memory.py`, keys and people in `verbal/store_access.py`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from verbal.database import Database, SQLite, in_key_order, open_database
from verbal.errors import ConfigError, StoreError, UnknownName
from verbal.store_access import ACCESS_TABLES, AccessRecords
from verbal.store_calls import CALL_TABLES, CallRecords
from verbal.store_evidence import EVIDENCE_TABLES, EvidenceRecords
from verbal.store_memory import MEMORY_TABLES, MemoryRecords
from verbal.types import Attempt, Feedback, Group, Step, Task

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, started REAL NOT NULL, finished REAL, status TEXT NOT NULL,
    recipe TEXT NOT NULL, info TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, split TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, run TEXT NOT NULL,
    task TEXT NOT NULL, arm TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS attempts_by_run ON attempts (run, arm, task);
CREATE TABLE IF NOT EXISTS feedback (attempt TEXT NOT NULL, critic TEXT NOT NULL, scope TEXT NOT NULL,
    record TEXT NOT NULL, PRIMARY KEY (attempt, critic, scope));
CREATE TABLE IF NOT EXISTS later_steps (attempt TEXT NOT NULL, key TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (attempt, key));
CREATE TABLE IF NOT EXISTS groups (run TEXT NOT NULL, task TEXT NOT NULL, key TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (run, task, key));
CREATE TABLE IF NOT EXISTS checkpoints (name TEXT PRIMARY KEY, path TEXT NOT NULL, at REAL NOT NULL,
    info TEXT NOT NULL);
"""

_VERSION = "1"
_RUN = "id, started, finished, status, recipe, info"


class Store(AccessRecords, CallRecords, EvidenceRecords, MemoryRecords):
    """The store at a path or URL; threads and processes may share it.

    `runs/verbal.db` and `sqlite:///runs/verbal.db` are a file, `postgresql://user:password@host:port/database` is a
    database on a server (its schema `verbal`, or `?schema=NAME`).

    Raises:
        ConfigError: the URL cannot be read, or names a database that is not supported.
        MissingExtra: psycopg is not installed and the URL is one of PostgreSQL.
        StoreError: the database cannot be opened, is not a store, or is of another version.
    """

    def __init__(self, url: str | Path) -> None:
        super().__init__(open_database(url))
        try:
            self._database.create(_SCHEMA + CALL_TABLES + EVIDENCE_TABLES + MEMORY_TABLES + ACCESS_TABLES)
            self._check_version()
        except BaseException:
            self._database.close()
            raise

    def _check_version(self) -> None:
        if not (found := self._database.read("SELECT value FROM meta WHERE key = 'version'")):
            with self._database.write() as db:
                db.change("INSERT INTO meta VALUES ('version', ?) ON CONFLICT DO NOTHING", (_VERSION,))
                found = db.read("SELECT value FROM meta WHERE key = 'version'")
        if found[0][0] != _VERSION:
            raise StoreError(
                f"the store is of version {found[0][0]}, this code reads {_VERSION}",
                where=self.where,
                todo="give another path: --store PATH, or use the version of verbal that wrote it",
            )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._database.close()

    @property
    def path(self) -> Path:
        """The file of a store in SQLite.

        Raises:
            ConfigError: the store is in a database server.
        """
        if isinstance(self._database, SQLite):
            return self._database.path
        what = f"the store at {self.where} is no file"
        raise ConfigError(what, todo="give a path of a SQLite file for this: --store PATH")

    @property
    def identity(self) -> str:
        """32 hex digits that no other store has (a copy of its file has them too)."""
        sql = "SELECT value FROM meta WHERE key = 'identity'"
        if not (found := self._database.read(sql)):
            with self._database.write() as db:
                db.change("INSERT INTO meta VALUES ('identity', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex,))
                found = db.read(sql)
        return str(found[0][0])

    # runs ---------------------------------------------------------------------------------------------------------

    def start_run(self, run: str, recipe: dict[str, Any], info: dict[str, Any] | None = None) -> bool:
        """Registers a run; False when it was there already (it is then resumed, its recipe must be the same).

        The table `limits` may differ, so that a run which was stopped by its budget can go on under a larger one; the
        newer recipe is kept.

        Raises:
            ConfigError: the run exists with another recipe.
        """
        text = json.dumps(recipe, sort_keys=True)
        with self._database.write(alone=True) as db:
            rows = db.read("SELECT recipe FROM runs WHERE id = ?", (run,))
            if not rows:
                values = (run, time.time(), None, "running", text, json.dumps(info or {}))
                db.change("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", values)
                return True
            old, new = json.loads(rows[0][0]), json.loads(text)
            if changed := [k for k in sorted({*old, *new} - {"limits"}) if old.get(k) != new.get(k)]:
                raise ConfigError(
                    f"run {run!r} was started with another recipe (differs in: {', '.join(changed)})",
                    where=self.where,
                    todo="resume with the same options, or start a new run under another name",
                )
            db.change("UPDATE runs SET status = 'running', finished = NULL, recipe = ? WHERE id = ?", (text, run))
            return False

    def finish_run(self, run: str, status: str, info: dict[str, Any] | None = None) -> None:
        """Marks a run as `done`, `stopped` or `failed`, and merges `info` into what is known of it."""
        with self._database.write(alone=True) as db:
            db.change("UPDATE runs SET status = ?, finished = ? WHERE id = ?", (status, time.time(), run))
            _merge_info(db, run, info or {})

    def set_info(self, run: str, info: dict[str, Any]) -> None:
        """Merges `info` into what is known of a run; its status stays.

        Raises:
            UnknownName: no run of that id.
        """
        with self._database.write(alone=True) as db:
            if not _merge_info(db, run, info):
                raise UnknownName.of("run", run, [r["id"] for r in self.runs()], where=self.where)

    def run(self, run: str) -> dict[str, Any] | None:
        """The run of that id (id, started, finished, status, recipe, info), or None."""
        rows = self._database.read(f"SELECT {_RUN} FROM runs WHERE id = ?", (run,))
        return _run(rows[0]) if rows else None

    def runs(self) -> list[dict[str, Any]]:
        """Every run, oldest first: id, started, finished, status, recipe, info."""
        return [_run(r) for r in self._database.read(f"SELECT {_RUN} FROM runs ORDER BY started, id")]

    # what runs produce --------------------------------------------------------------------------------------------

    def put_tasks(self, tasks: Iterable[Task]) -> None:
        """Keeps tasks (a later version of a task replaces the earlier)."""
        with self._database.write() as db:
            db.change_many(
                "INSERT INTO tasks VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET split = excluded.split, "
                "record = excluded.record",
                in_key_order([(t.id, t.split, t.to_json()) for t in tasks], 1),
            )

    def tasks(self, ids: Sequence[str] | None = None) -> dict[str, Task]:
        """Tasks by id: all, or the given ones (a missing id is left out)."""
        if ids is None:
            rows = self._database.read("SELECT id, record FROM tasks ORDER BY id")
            return {r[0]: Task.from_json(r[1]) for r in rows}
        found: dict[str, Task] = {}
        for at in range(0, len(ids), 500):  # a statement takes only so many values
            part = ids[at : at + 500]
            marks = ", ".join("?" * len(part))
            rows = self._database.read(f"SELECT id, record FROM tasks WHERE id IN ({marks})", tuple(part))
            found.update((r[0], Task.from_json(r[1])) for r in rows)
        return {i: found[i] for i in ids if i in found}

    def put_attempt(self, attempt: Attempt, feedback: Sequence[Feedback] = ()) -> bool:
        """Keeps an attempt with its feedback in one transaction; False (and no change) when its id is known."""
        with self._database.write() as db:
            values = (attempt.id, attempt.run, attempt.task, attempt.arm, attempt.to_json())
            new = db.change(
                "INSERT INTO attempts (id, run, task, arm, record) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                values,
            )
            if new:
                _insert_feedback(db, feedback)
            return bool(new)

    def put_feedback(self, feedback: Sequence[Feedback]) -> None:
        """Adds feedback; a critic's earlier feedback of the same scope on the same attempt is replaced."""
        with self._database.write() as db:
            _insert_feedback(db, feedback)

    def attempt(self, attempt_id: str) -> Attempt | None:
        """The attempt of that id, or None."""
        rows = self._database.read("SELECT record FROM attempts WHERE id = ?", (attempt_id,))
        return Attempt.from_json(rows[0][0]) if rows else None

    def attempts(self, run: str | None = None, *, arm: str | None = None, task: str | None = None) -> list[Attempt]:
        """Attempts in the order they were kept, narrowed by run, arm and task."""
        where = {"run": run, "arm": arm, "task": task}
        given = {k: v for k, v in where.items() if v is not None}
        clause = " AND ".join(f"{k} = ?" for k in given) or "1 = 1"
        rows = self._database.read(f"SELECT record FROM attempts WHERE {clause} ORDER BY seq", tuple(given.values()))
        return [Attempt.from_json(r[0]) for r in rows]

    def latest_attempts(self, run: str, count: int) -> list[Attempt]:
        """The attempts of a run that were kept last, the newest first, at most `count`."""
        sql = "SELECT record FROM attempts WHERE run = ? ORDER BY seq DESC LIMIT ?"
        return [Attempt.from_json(r[0]) for r in self._database.read(sql, (run, count))]

    def feedback(self, attempt_ids: Iterable[str]) -> dict[str, list[Feedback]]:
        """Feedback by attempt id, critics in order of name."""
        found: dict[str, list[Feedback]] = {}
        for attempt_id in attempt_ids:
            rows = self._database.read(
                "SELECT record FROM feedback WHERE attempt = ? ORDER BY critic, scope", (attempt_id,)
            )
            found[attempt_id] = [Feedback.from_json(r[0]) for r in rows]
        return found

    def put_step(self, attempt: str, key: str, step: Step) -> Step:
        """Keeps a step that came after an attempt ended (a critique, a reflection); gives the one that is kept."""
        with self._database.write() as db:
            values = (attempt, key, step.to_json())
            db.change("INSERT INTO later_steps VALUES (?, ?, ?) ON CONFLICT DO NOTHING", values)
            sql = "SELECT record FROM later_steps WHERE attempt = ? AND key = ?"
            return Step.from_json(db.read(sql, (attempt, key))[0][0])

    def step(self, attempt: str, key: str) -> Step | None:
        """The step kept under `key` for an attempt, or None."""
        rows = self._database.read("SELECT record FROM later_steps WHERE attempt = ? AND key = ?", (attempt, key))
        return Step.from_json(rows[0][0]) if rows else None

    def put_group(self, run: str, group: Group, key: str = "0") -> None:
        """Keeps a group; `key` tells groups of one task in one run apart."""
        with self._database.write() as db:
            db.change(
                "INSERT INTO groups VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (run, group.task, key, group.to_json())
            )

    def group(self, run: str, task: str, key: str) -> Group | None:
        """The group kept under `key` for a task of a run, or None."""
        rows = self._database.read("SELECT record FROM groups WHERE run = ? AND task = ? AND key = ?", (run, task, key))
        return Group.from_json(rows[0][0]) if rows else None

    def groups(self, run: str | None = None) -> list[Group]:
        """Groups, by task and key, narrowed by run."""
        clause, values = ("run = ?", (run,)) if run is not None else ("1 = 1", ())
        rows = self._database.read(f"SELECT record FROM groups WHERE {clause} ORDER BY run, task, key", values)
        return [Group.from_json(r[0]) for r in rows]

    # checkpoints ------------------------------------------------------------------------------------------------------

    def put_checkpoint(self, name: str, path: str, info: dict[str, Any]) -> None:
        """Registers trained weights under a name (a later one of the same name replaces it)."""
        with self._database.write() as db:
            db.change(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET path = excluded.path, "
                "at = excluded.at, info = excluded.info",
                (name, path, time.time(), json.dumps(info)),
            )

    def checkpoint(self, name: str) -> dict[str, Any]:
        """Path and info of a registered checkpoint.

        Raises:
            UnknownName: none of that name.
        """
        known = {r[0]: r for r in self._database.read("SELECT name, path, at, info FROM checkpoints ORDER BY name")}
        if name not in known:
            raise UnknownName.of("checkpoint", name, known, where=self.where)
        _, path, at, info = known[name]
        return {"name": name, "path": path, "at": at, "info": json.loads(info)}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Every registered checkpoint, by name."""
        return [self.checkpoint(r[0]) for r in self._database.read("SELECT name FROM checkpoints ORDER BY name")]


def _run(row: Sequence[Any]) -> dict[str, Any]:
    found = dict(zip(_RUN.split(", "), row, strict=True))
    return {**found, "recipe": json.loads(found["recipe"]), "info": json.loads(found["info"])}


def _merge_info(db: Database, run: str, info: dict[str, Any]) -> int:
    rows = db.read("SELECT info FROM runs WHERE id = ?", (run,))
    merged = json.dumps({**json.loads(rows[0][0] if rows else "{}"), **info})
    return db.change("UPDATE runs SET info = ? WHERE id = ?", (merged, run))


def _insert_feedback(db: Database, feedback: Sequence[Feedback]) -> None:
    db.change_many(
        "INSERT INTO feedback VALUES (?, ?, ?, ?) "
        "ON CONFLICT (attempt, critic, scope) DO UPDATE SET record = excluded.record",
        in_key_order([(f.attempt, f.critic, f.scope, f.to_json()) for f in feedback], 3),
    )
