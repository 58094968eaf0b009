"""The store: the system of record. Attempts, feedback, groups, memory operations, calls, runs, checkpoints.

One SQLite file in WAL mode (`synchronous=NORMAL`: a killed process loses nothing that was acknowledged; a power cut
may lose the last commits). Every write is idempotent by key, because LangGraph runs a node at least once. The SQL is
the common subset of SQLite and PostgreSQL; only `_connect` knows the dialect. What a vector index holds is derived
from here and never the other way round.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, DataError, StoreError, UnknownName
from verbal.types import Attempt, Feedback, Group, MemoryOp, Step, Task, Usage

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
CREATE TABLE IF NOT EXISTS ops (memory TEXT NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (memory, version));
CREATE TABLE IF NOT EXISTS calls (id TEXT PRIMARY KEY, run TEXT NOT NULL, role TEXT NOT NULL, model TEXT NOT NULL,
    usage TEXT NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS calls_by_run ON calls (run);
CREATE TABLE IF NOT EXISTS checkpoints (name TEXT PRIMARY KEY, path TEXT NOT NULL, at REAL NOT NULL,
    info TEXT NOT NULL);
"""

_VERSION = "1"


class Store:
    """The store at a path or URL (`verbal.db`, `sqlite:///runs/verbal.db`); threads and processes may share it.

    Raises:
        ConfigError: the URL names a database that is not supported.
        StoreError: the file cannot be opened, is no database, or is of another version.
    """

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        if "://" in text and not text.startswith("sqlite:///"):
            raise ConfigError(f"the store cannot live at {text.split('://')[0]}://...", todo="give a file path")
        self.path = Path(text.removeprefix("sqlite:///"))
        self._lock = threading.RLock()
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _connect(self.path)
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT INTO meta VALUES ('version', ?) ON CONFLICT DO NOTHING", (_VERSION,))
            found = self._db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()[0]
        if found != _VERSION:
            raise StoreError(
                f"the store is of version {found}, this code reads {_VERSION}",
                where=str(self.path),
                todo="give another path: --store PATH, or use the version of verbal that wrote it",
            )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    # runs ---------------------------------------------------------------------------------------------------------

    def start_run(self, run: str, recipe: dict[str, Any], info: dict[str, Any] | None = None) -> bool:
        """Registers a run; False when it was there already (it is then resumed, its recipe must be the same).

        Raises:
            ConfigError: the run exists with another recipe.
        """
        text = json.dumps(recipe, sort_keys=True)
        with self._write() as db:
            row = db.execute("SELECT recipe FROM runs WHERE id = ?", (run,)).fetchone()
            if row is None:
                values = (run, time.time(), None, "running", text, json.dumps(info or {}))
                db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", values)
                return True
            if row[0] != text:
                old, new = json.loads(row[0]), json.loads(text)
                changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
                raise ConfigError(
                    f"run {run!r} was started with another recipe (differs in: {', '.join(changed)})",
                    where=str(self.path),
                    todo="resume with the same options, or start a new run under another name",
                )
            db.execute("UPDATE runs SET status = 'running', finished = NULL WHERE id = ?", (run,))
            return False

    def finish_run(self, run: str, status: str, info: dict[str, Any] | None = None) -> None:
        """Marks a run as `done`, `stopped` or `failed`, and merges `info` into what is known of it."""
        with self._write() as db:
            row = db.execute("SELECT info FROM runs WHERE id = ?", (run,)).fetchone()
            merged = json.dumps({**json.loads(row[0] if row else "{}"), **(info or {})})
            db.execute(
                "UPDATE runs SET status = ?, finished = ?, info = ? WHERE id = ?", (status, time.time(), merged, run)
            )

    def runs(self) -> list[dict[str, Any]]:
        """Every run, oldest first: id, started, finished, status, recipe, info."""
        rows = self._read("SELECT id, started, finished, status, recipe, info FROM runs ORDER BY started, id")
        return [
            {"id": r[0], "started": r[1], "finished": r[2], "status": r[3]}
            | {"recipe": json.loads(r[4]), "info": json.loads(r[5])}
            for r in rows
        ]

    # what runs produce --------------------------------------------------------------------------------------------

    def put_tasks(self, tasks: Iterable[Task]) -> None:
        """Keeps tasks (a later version of a task replaces the earlier)."""
        with self._write() as db:
            db.executemany(
                "INSERT INTO tasks VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET split = excluded.split, "
                "record = excluded.record",
                [(t.id, t.split, t.to_json()) for t in tasks],
            )

    def tasks(self, ids: Sequence[str] | None = None) -> dict[str, Task]:
        """Tasks by id: all, or the given ones (a missing id is left out)."""
        found = {r[0]: Task.from_json(r[1]) for r in self._read("SELECT id, record FROM tasks ORDER BY id")}
        return found if ids is None else {i: found[i] for i in ids if i in found}

    def put_attempt(self, attempt: Attempt, feedback: Sequence[Feedback] = ()) -> bool:
        """Keeps an attempt with its feedback in one transaction; False (and no change) when its id is known."""
        with self._write() as db:
            values = (attempt.id, attempt.run, attempt.task, attempt.arm, attempt.to_json())
            new = db.execute(
                "INSERT INTO attempts (id, run, task, arm, record) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                values,
            ).rowcount
            if new:
                _insert_feedback(db, feedback)
            return bool(new)

    def put_feedback(self, feedback: Sequence[Feedback]) -> None:
        """Adds feedback; a critic's earlier feedback of the same scope on the same attempt is replaced."""
        with self._write() as db:
            _insert_feedback(db, feedback)

    def attempt(self, attempt_id: str) -> Attempt | None:
        """The attempt of that id, or None."""
        rows = self._read("SELECT record FROM attempts WHERE id = ?", (attempt_id,))
        return Attempt.from_json(rows[0][0]) if rows else None

    def attempts(self, run: str | None = None, *, arm: str | None = None, task: str | None = None) -> list[Attempt]:
        """Attempts in the order they were kept, narrowed by run, arm and task."""
        where = {"run": run, "arm": arm, "task": task}
        given = {k: v for k, v in where.items() if v is not None}
        clause = " AND ".join(f"{k} = ?" for k in given) or "1 = 1"
        rows = self._read(f"SELECT record FROM attempts WHERE {clause} ORDER BY seq", tuple(given.values()))
        return [Attempt.from_json(r[0]) for r in rows]

    def feedback(self, attempt_ids: Iterable[str]) -> dict[str, list[Feedback]]:
        """Feedback by attempt id, critics in order of name."""
        found: dict[str, list[Feedback]] = {}
        for attempt_id in attempt_ids:
            rows = self._read("SELECT record FROM feedback WHERE attempt = ? ORDER BY critic, scope", (attempt_id,))
            found[attempt_id] = [Feedback.from_json(r[0]) for r in rows]
        return found

    def put_step(self, attempt: str, key: str, step: Step) -> Step:
        """Keeps a step that came after an attempt ended (a critique, a reflection); gives the one that is kept."""
        with self._write() as db:
            values = (attempt, key, step.to_json())
            db.execute("INSERT INTO later_steps VALUES (?, ?, ?) ON CONFLICT DO NOTHING", values)
            sql = "SELECT record FROM later_steps WHERE attempt = ? AND key = ?"
            return Step.from_json(db.execute(sql, (attempt, key)).fetchone()[0])

    def step(self, attempt: str, key: str) -> Step | None:
        """The step kept under `key` for an attempt, or None."""
        rows = self._read("SELECT record FROM later_steps WHERE attempt = ? AND key = ?", (attempt, key))
        return Step.from_json(rows[0][0]) if rows else None

    def put_group(self, run: str, group: Group, key: str = "0") -> None:
        """Keeps a group; `key` tells groups of one task in one run apart."""
        with self._write() as db:
            db.execute(
                "INSERT INTO groups VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (run, group.task, key, group.to_json())
            )

    def group(self, run: str, task: str, key: str) -> Group | None:
        """The group kept under `key` for a task of a run, or None."""
        rows = self._read("SELECT record FROM groups WHERE run = ? AND task = ? AND key = ?", (run, task, key))
        return Group.from_json(rows[0][0]) if rows else None

    def groups(self, run: str | None = None) -> list[Group]:
        """Groups, by task and key, narrowed by run."""
        clause, values = ("run = ?", (run,)) if run is not None else ("1 = 1", ())
        rows = self._read(f"SELECT record FROM groups WHERE {clause} ORDER BY run, task, key", values)
        return [Group.from_json(r[0]) for r in rows]

    # memory -------------------------------------------------------------------------------------------------------

    def log_ops(self, memory: str, ops: Sequence[MemoryOp], *, expect: int | None = None) -> int:
        """Appends operations to the log of a memory in one transaction; gives the new version.

        Args:
            memory: Name of the memory.
            ops: Operations in order; each gets the next version number.
            expect: The version the caller read; the write is refused when the log has moved on.

        Raises:
            StoreError: the log is at another version than `expect`.
        """
        with self._write() as db:
            version = _version(db, memory)
            if expect is not None and version != expect:
                raise StoreError(
                    f"memory {memory!r} is at version {version}, not {expect}", todo="read again and retry"
                )
            rows = [(memory, version + i, time.time(), op.to_json()) for i, op in enumerate(ops, 1)]
            db.executemany("INSERT INTO ops VALUES (?, ?, ?, ?)", rows)
            return version + len(rows)

    def ops(self, memory: str, after: int = 0) -> list[tuple[int, MemoryOp]]:
        """(version, operation) of a memory after a version, oldest first."""
        sql = "SELECT version, record FROM ops WHERE memory = ? AND version > ? ORDER BY version"
        return [(r[0], MemoryOp.from_json(r[1])) for r in self._read(sql, (memory, after))]

    def memories(self) -> dict[str, int]:
        """Name -> version of every memory that has a log."""
        return {r[0]: r[1] for r in self._read("SELECT memory, MAX(version) FROM ops GROUP BY memory ORDER BY memory")}

    # calls and checkpoints ----------------------------------------------------------------------------------------

    def put_call(self, call: str, run: str, role: str, model: str, usage: Usage, error: str | None = None) -> None:
        """Keeps one model call; `call` is unique, so a call is never counted twice."""
        with self._write() as db:
            values = (call, run, role, model, usage.to_json(), error)
            db.execute("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values)

    def usage(self, run: str | None = None) -> dict[str, Usage]:
        """What was used, by role, narrowed by run."""
        clause, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        total: dict[str, Usage] = {}
        for role, text in self._read(f"SELECT role, usage FROM calls {clause} ORDER BY role, id", values):
            total[role] = total.get(role, Usage()) + Usage.from_json(text)
        return total

    def put_checkpoint(self, name: str, path: str, info: dict[str, Any]) -> None:
        """Registers trained weights under a name (a later one of the same name replaces it)."""
        with self._write() as db:
            db.execute(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET path = excluded.path, "
                "at = excluded.at, info = excluded.info",
                (name, path, time.time(), json.dumps(info)),
            )

    def checkpoint(self, name: str) -> dict[str, Any]:
        """Path and info of a registered checkpoint.

        Raises:
            UnknownName: none of that name.
        """
        known = {r[0]: r for r in self._read("SELECT name, path, at, info FROM checkpoints ORDER BY name")}
        if name not in known:
            raise UnknownName.of("checkpoint", name, known, where=str(self.path))
        _, path, at, info = known[name]
        return {"name": name, "path": path, "at": at, "info": json.loads(info)}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Every registered checkpoint, by name."""
        return [self.checkpoint(r[0]) for r in self._read("SELECT name FROM checkpoints ORDER BY name")]

    # ---------------------------------------------------------------------------------------------------------------

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, _explained(self.path):
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    names = {r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if names and "meta" not in names:  # `meta` is made first, so a store that another process is just making has it
        db.close()
        what = "this database is not a store of verbal, so it is left alone"
        raise StoreError(what, where=str(path), todo="give another path: --store PATH")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def _version(db: sqlite3.Connection, memory: str) -> int:
    return int(db.execute("SELECT COALESCE(MAX(version), 0) FROM ops WHERE memory = ?", (memory,)).fetchone()[0])


def _insert_feedback(db: sqlite3.Connection, feedback: Sequence[Feedback]) -> None:
    db.executemany(
        "INSERT INTO feedback VALUES (?, ?, ?, ?) "
        "ON CONFLICT (attempt, critic, scope) DO UPDATE SET record = excluded.record",
        [(f.attempt, f.critic, f.scope, f.to_json()) for f in feedback],
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what SQLite and the file system say into errors a tired person understands."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        todo = {
            "database or disk is full": "free some space; everything acknowledged so far is kept, then use --resume",
            "attempt to write a readonly database": "give a folder you may write to: --store PATH",
            "unable to open database file": "check that the folder exists and may be written: --store PATH",
            "file is not a database": "this file is something else; give another path: --store PATH",
            "database is locked": "another process holds the store for more than 30 s; wait for it or stop it",
        }.get(text, "check the file and the disk")
        raise StoreError(f"the store failed: {text}", where=str(path), todo=todo) from error
    except OSError as error:
        if isinstance(error, StoreError | DataError):
            raise
        what = f"the store failed: {error.strerror or error}"
        raise StoreError(what, where=str(path), todo="give a path you may write to: --store PATH") from error
