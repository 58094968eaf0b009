"""Read-only SQL in processes that can be killed: `await pool.run(db, sql)`.

Each thread of the pool owns one worker process (`engines/process.py`), so nothing here is bound to an event loop and
the pool works under any of them, and without one (`run_now`). Queries wait their turn; a query that outlives its
time is stopped by its worker or, failing that, with its worker.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import verbal
from verbal.errors import EnvironmentFault

T = TypeVar("T")

_HERE = Path(__file__).resolve().parent
_BOOT = """
import json, sys, types
for name, folders in json.loads(sys.argv[1]).items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = folders
from verbal.apps.text2sql.engines.process import main
main()
"""
# Bare frames of the packages, so that a process finds the engines and `verbal.rows` and loads nothing else.
_FRAMES = {"verbal": list(verbal.__path__), "verbal.apps": [str(_HERE.parent)], "verbal.apps.text2sql": [str(_HERE)]}
_GRACE = 0.25
"""Seconds after the time limit until the process is killed."""
_PING = {"db": "", "sql": "SELECT 1", "seconds": 1.0, "rows": 1, "bytes": 64, "wait": 0.0}
_START = 20.0
"""Seconds a new process may take to be ready."""


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
    """Seconds to wait for a lock that another process holds on the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one query gave: rows, or an error."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    """Cells are None, int, float or str; a blob is written as x'hex'."""
    error: str | None = None
    error_class: str | None = None
    """One word, such as `no_such_column`, `syntax`, `timeout`, `denied`, `locked`, `not_a_database`, `missing`."""
    seconds: float = 0.0
    truncated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict."""
        return asdict(self)


class _Worker:
    """One process and its two pipes; used by one thread at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps(_FRAMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            close_fds=True,
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._fresh = True

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The reply, or None when it did not come in time.

        Raises:
            EOFError: the process ended.
        """
        body = json.dumps(request).encode()
        patience = seconds + (_START if self._fresh else _GRACE)
        if self._fresh:
            self._send(json.dumps(_PING).encode())
            if self._receive(time.monotonic() + patience) is None:
                return None
            self._fresh = False
        self._send(body)
        return self._receive(time.monotonic() + seconds + _GRACE)

    def _send(self, body: bytes) -> None:
        frame = memoryview(struct.pack(">I", len(body)) + body)
        try:
            while frame:
                frame = frame[os.write(self._in, frame) :]
        except OSError as error:
            raise EOFError("the worker process ended") from error

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        head = self._read(4, deadline)
        body = None if head is None else self._read(struct.unpack(">I", head)[0], deadline + 2.0)
        if body is None:
            return None
        reply: dict[str, Any] = json.loads(body)
        return reply

    def _read(self, size: int, deadline: float) -> bytes | None:
        found = bytearray()
        while len(found) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                return None
            piece = os.read(self._out, min(size - len(found), 1 << 20))
            if not piece:
                raise EOFError("the worker process ended")
            found += piece
        return bytes(found)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Ask:
    """One thread's process, for requests of any `op`."""

    def __init__(self, pool: Pool, lane: int) -> None:
        """`lane`: the thread's number, from 0: what a process has cached is found again under it."""
        self._pool, self.lane = pool, lane

    def __call__(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The reply; None when the process ended or took longer, and then the next request gets a fresh one."""
        worker = self._pool._worker()
        try:
            reply = worker.ask(request, seconds)
        except EOFError:
            reply = None
        if reply is None:
            self._pool._drop(worker)
        return reply


class Pool:
    """Worker processes that run read-only SQL."""

    def __init__(self, workers: int = 2, limits: Limits | None = None) -> None:
        """`workers`: processes at most (started when needed); `limits`: for queries that give none."""
        self.limits = limits or Limits()
        self.size = workers
        self._lanes = itertools.count()
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="verbal-sql")
        self._local = threading.local()
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False

    async def run(self, db: str | Path, sql: str, limits: Limits | None = None) -> Result:
        """What `sql` gives on the SQLite file `db`. Whatever the statement does, this is a Result, never an exception.

        Raises:
            EnvironmentFault: the pool is closed, or no process can be started.
        """
        return await asyncio.wrap_future(self._submit(db, sql, limits))

    def run_now(self, db: str | Path, sql: str, limits: Limits | None = None) -> Result:
        """`run` without an event loop: waits for the result."""
        return self._submit(db, sql, limits).result()

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

    def _submit(self, db: str | Path, sql: str, limits: Limits | None) -> Future[Result]:
        if self._closed:
            raise EnvironmentFault("the SQL worker pool is closed", todo="run queries before aclose()")
        return self._threads.submit(self._run, str(db), sql, limits or self.limits)

    def _run(self, db: str, sql: str, limits: Limits) -> Result:
        started = time.monotonic()
        worker = self._worker()
        wait = min(limits.wait, limits.seconds / 2)
        request = {"db": db, "sql": sql, **asdict(limits), "bytes": limits.size, "wait": wait}
        try:
            reply = worker.ask(request, limits.seconds)
        except EOFError:
            self._drop(worker)
            return Result(
                error="the query ended its worker process (out of memory?)",
                error_class="crashed",
                seconds=time.monotonic() - started,
            )
        if reply is None:
            self._drop(worker)
            error = f"stopped after {limits.seconds:g} s"
            return Result(error=error, error_class="timeout", seconds=time.monotonic() - started)
        rows = tuple(tuple(row) for row in reply.pop("rows", ()))
        return Result(rows=rows, columns=tuple(reply.pop("columns", ())), **reply)

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is not None and worker in self._workers and worker.process.poll() is None:
            return worker
        if worker is not None:
            self._drop(worker)
        try:
            worker = _Worker()
        except OSError as error:
            raise EnvironmentFault(
                f"no SQL worker process could be started: {error}",
                where=sys.executable,
                todo="free memory or processes",
            ) from error
        with self._lock:
            self._workers.add(worker)
        self._local.worker = worker
        return worker

    def _drop(self, worker: _Worker) -> None:
        with self._lock:
            known = worker in self._workers
            self._workers.discard(worker)
        if known:
            worker.stop()

    def close(self) -> None:
        """Ends all processes; queries that run end as `crashed`, queries that wait are not run."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.process.kill()
        self._threads.shutdown(wait=True)
        for worker in workers:
            self._drop(worker)

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)
