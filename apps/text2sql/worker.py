"""Read-only SQL in processes that can be killed: `await pool.run(db, sql)`.

Each thread of the pool owns one worker process for each family of engines it has met (`pipe.py`), so nothing here is
bound to an event loop and the pool works under any of them, and without one (`run_now`). Queries wait their turn; a
query that outlives its time is stopped by its worker or, failing that, with its worker, whose successor is started at
once. What takes a moment before a first query (a process, a connection, files read into memory) is not its time.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from verbal.errors import DataError, EnvironmentFault

from .pipe import FAMILIES, OPENING, Family, Process
from .sources import Source, request_of

T = TypeVar("T")

_CATALOG_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one query may use."""

    seconds: float = 5.0
    """Wall time."""
    rows: int = 50_000
    """Rows fetched; more are cut and the result is marked truncated."""
    size: int = 8 * 2**20
    """Bytes fetched, about; more are cut."""
    wait: float = 0.5
    """Seconds to wait for a lock that another process holds."""
    steps: int = 10**10
    """Steps of SQLite's virtual machine (a minute's work, about), the same on a slow machine; 0 for any number."""

    def told(self) -> dict[str, Any]:
        """The fields as a worker wants them."""
        wait = min(self.wait, self.seconds / 2)
        return {"seconds": self.seconds, "rows": self.rows, "bytes": self.size, "wait": wait, "steps": self.steps}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one query gave: rows, or an error."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    """Cells are None, int, float or str (`engines/cells.py` tells how); a blob is written as x'hex'."""
    error: str | None = None
    error_class: str | None = None
    """One word, the same for every engine, such as `no_such_column`, `syntax`, `timeout`, `denied`, `locked`,
    `not_a_database`, `missing`, `too_big`, `crashed`, `unreachable` (`engines/` has them all)."""
    seconds: float = 0.0
    truncated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict."""
        return asdict(self)


class Ask:
    """One thread's process, for requests of any `op`."""

    def __init__(self, pool: Pool, lane: int) -> None:
        """`lane`: the thread's number, from 0: what a process has cached is found again under it."""
        self._pool, self.lane = pool, lane

    def __call__(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The reply; None when the process ended or took longer, and then the next request gets a fresh one."""
        worker = self._pool._worker(FAMILIES[request.get("engine", "sqlite")])
        try:
            reply = worker.ask(request, seconds)
        except EOFError:
            reply = None
        if reply is None:
            self._pool._replace(worker)
        return reply


class Pool:
    """Worker processes that run read-only SQL."""

    def __init__(self, workers: int = 2, limits: Limits | None = None) -> None:
        """`workers`: queries at once, and processes of one family at most; `limits`: for queries that give none."""
        self.limits = limits or Limits()
        self.size = workers
        self._lanes = itertools.count()
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="verbal-sql")
        self._local = threading.local()
        self._workers: set[Process] = set()
        self._leaving: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    async def run(self, db: str | Path | Source, sql: str, limits: Limits | None = None) -> Result:
        """What `sql` gives on `db`: a source, or what names one. Whatever the statement does, this is a Result.

        Raises:
            EnvironmentFault: the pool is closed, or no process can be started.
            MissingExtra: the driver for `db` is not installed.
        """
        return await asyncio.wrap_future(self._submit(db, sql, limits))

    def run_now(self, db: str | Path | Source, sql: str, limits: Limits | None = None) -> Result:
        """`run` without an event loop: waits for the result."""
        return self._submit(db, sql, limits).result()

    async def catalog(self, db: str | Path | Source) -> dict[str, Any]:
        """What `db` holds, without a look at its rows.

        Returns:
            `tables`, a list of dicts: `name`, `schema` ("" where the name alone will do), `kind` (table or view),
            `comment`, `columns` (dicts: `name`, `type`, `nullable`, `comment`), `primary_key` (names), `foreign_keys`
            (dicts: `columns`, `table`, `target_columns`, which are empty where the target's primary key is meant).
            `warnings`, a list of texts: what could not be read, rights the account should not have.

        Raises:
            DataError: the database cannot be opened or read.
            EnvironmentFault: the pool is closed, or no process can be started.
            MissingExtra: the driver for `db` is not installed.
        """
        return await asyncio.wrap_future(self.submit(lambda ask: _catalog(ask, db)))

    def catalog_now(self, db: str | Path | Source) -> dict[str, Any]:
        """`catalog` without an event loop."""
        return self.submit(lambda ask: _catalog(ask, db)).result()

    def submit(self, job: Callable[[Ask], T]) -> Future[T]:
        """Runs `job` in a thread of the pool; it is given that thread's process to ask (see `Ask`).

        Raises:
            EnvironmentFault: the pool is closed.
        """
        if self._closed:
            raise EnvironmentFault("the SQL worker pool is closed", todo="run queries before aclose()")
        return self._threads.submit(lambda: job(self._ask()))

    def _ask(self) -> Ask:
        if not hasattr(self._local, "ask"):
            self._local.ask = Ask(self, next(self._lanes))
        ask: Ask = self._local.ask
        return ask

    def _submit(self, db: str | Path | Source, sql: str, limits: Limits | None) -> Future[Result]:
        if self._closed:
            raise EnvironmentFault("the SQL worker pool is closed", todo="run queries before aclose()")
        return self._threads.submit(self._run, db, sql, limits or self.limits)

    def _run(self, db: str | Path | Source, sql: str, limits: Limits) -> Result:
        started = time.monotonic()
        try:
            request = {**request_of(db), "sql": sql, **limits.told()}
        except DataError as error:
            return Result(error=error.what, error_class="missing", seconds=time.monotonic() - started)
        worker = self._worker(FAMILIES[request["engine"]])
        try:
            reply = worker.ask(request, limits.seconds)
        except EOFError:
            self._replace(worker)
            return Result(
                error="the query ended its worker process (out of memory?)",
                error_class="crashed",
                seconds=time.monotonic() - started,
            )
        if reply is None:
            self._replace(worker)
            late, kind = f"stopped after {limits.seconds:g} s", "timeout"
            if not worker.opened:
                late, kind = f"the database did not open within {OPENING[worker.family]:g} s", "unreachable"
            return Result(error=late, error_class=kind, seconds=time.monotonic() - started)
        rows = tuple(tuple(row) for row in reply.pop("rows", ()))
        return Result(rows=rows, columns=tuple(reply.pop("columns", ())), **reply)

    def _worker(self, family: Family) -> Process:
        """The process of the calling thread."""
        mine: dict[Family, Process] = self._local.__dict__.setdefault("workers", {})
        worker = mine.get(family)
        if worker is not None and worker in self._workers and worker.process.poll() is None:
            return worker
        if worker is not None:
            self._drop(worker)
        try:
            worker = Process(family)
        except OSError as error:
            raise EnvironmentFault(
                f"no SQL worker process could be started: {error}",
                where=sys.executable,
                todo="free memory or processes",
            ) from error
        with self._lock:
            self._workers.add(worker)
        mine[family] = worker
        return worker

    def _replace(self, worker: Process) -> None:
        """Ends this thread's process and starts the next, so that no query waits for it."""
        self._drop(worker)
        if not self._closed:
            with suppress(EnvironmentFault):  # the next query meets it, should it last
                self._worker(worker.family)

    def _drop(self, worker: Process) -> None:
        with self._lock:
            known = worker in self._workers
            self._workers.discard(worker)
        if known and (leaving := worker.stop()):
            self._leaving = [thread for thread in [*self._leaving, leaving] if thread.is_alive()]

    def close(self) -> None:
        """Ends all processes; queries that run end as `crashed`, queries that wait are not run."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.end()
        self._threads.shutdown(wait=True)
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            self._drop(worker)
        for leaving in self._leaving:
            leaving.join()

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)


def _catalog(ask: Ask, db: str | Path | Source) -> dict[str, Any]:
    request = {**request_of(db), "op": "catalog", **Limits(seconds=_CATALOG_SECONDS).told()}
    reply = ask(request, _CATALOG_SECONDS)
    if reply is None:
        raise DataError(f"reading what {request['db']!r} holds took too long, or ended its process", todo="try again")
    if "catalog" not in reply:
        raise DataError(reply["error"], where=request["db"], todo="check that the database can be opened and read")
    found: dict[str, Any] = reply["catalog"]
    return found
