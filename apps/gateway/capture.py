"""What passes the gateway is kept in the store: a bounded queue, and one writer that nobody waits for.

Rules:

* `put` takes an exchange or counts it as lost; it never waits and never raises. The queue holds so many exchanges and
  so many characters.
* One task writes batches in a thread of its own. A store that fails is told once in the log and tried again, while the
  queue fills: short trouble loses nothing, long trouble loses what does not fit. Clients notice nothing.
* At the end what waits is written. A process that is killed loses what was in the queue, at most.
* Secrets are cut out of what is kept (`kept.py`); headers never get here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

from verbal.errors import StoreError
from verbal.store import Store

from .exchange import Exchange
from .kept import META, Cleaner, Kept, records

SIZE = 1024
"""Exchanges that may wait to be written."""
CHARACTERS = 64 * 2**20
"""Characters of their texts, together."""
_BATCH = 128
_GATHERING = 0.05
"""Seconds in which a batch comes together: each batch takes two turns of a thread and a commit, however small it is."""
_PATIENCE = 10.0
"""Seconds in which what waits must be written at the end."""
_log = logging.getLogger("verbal.gateway")


class _Waiting(NamedTuple):
    exchange: Exchange
    arm: str
    parent: str | None
    size: int


class StoreCapture:
    """Keeps exchanges in a store.

    Args:
        store: Where they are kept; used by the writer's thread, so give it a connection of its own.
        size: Exchanges that may wait.
        characters: Characters of their texts that may wait.
        again: Seconds until a store that failed is tried again.
        listeners: Called in the writer's thread with what is kept, before it is written; whatever they raise is
            logged.
        feedback: Brings the path by which feedback comes, as a method `routes`.
    """

    def __init__(
        self,
        store: Store,
        *,
        size: int = SIZE,
        characters: int = CHARACTERS,
        again: float = 1.0,
        listeners: Sequence[Callable[[Kept], None]] = (),
        feedback: Any = None,
    ) -> None:
        self._store, self._size, self._characters, self._again = store, size, characters, again
        self._listeners, self.feedback = tuple(listeners), feedback
        self.kept = self.lost = 0
        """Exchanges that were written, and those that were not and never will be."""
        self.failure = ""
        """Why the store cannot be written to now; empty while it can."""
        self.beside: dict[str, Callable[[], Any]] = {}
        """More counts for `/health`, by name."""
        self._queue: deque[_Waiting] = deque()
        self._held = self._waiting = 0
        self._ids: dict[str, str] = {}
        self._recent: dict[str, deque[str]] = {}
        self._runs: set[str] = set()
        self._news, self._clean = asyncio.Event(), Cleaner()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
        self._writer: asyncio.Task[None] | None = None

    # the door -----------------------------------------------------------------------------------------------------

    def put(self, exchange: Exchange) -> bool:
        """Takes an exchange that ended; False when there is no room for it."""
        return self.put_beside(exchange, "main", None)

    def put_beside(self, exchange: Exchange, arm: str, parent: str | None) -> bool:
        """The same for an answer that no client saw, under an arm of its own and with the attempt it belongs to."""
        size = _size(exchange)
        if self._closing or len(self._queue) >= self._size or self._held + size > self._characters:
            self.lost += 1
            if self.lost == 1:
                _log.error("capture: no room for an exchange: it is lost, as are those counted as lost in /health")
            return False
        self._queue.append(_Waiting(exchange, arm, parent, size))
        self._held, self._waiting = self._held + size, self._waiting + 1
        self._ids[exchange.id] = exchange.caller.project
        if parent is None:
            self._recent.setdefault(exchange.caller.project, deque(maxlen=3)).append(exchange.id)
        self._news.set()
        return True

    def routes(self) -> Sequence[Any]:
        """The path by which feedback comes, if there is one."""
        found: Sequence[Any] = self.feedback.routes() if self.feedback is not None else ()
        return found

    def health(self) -> dict[str, Any]:
        """Counts, for `/health`."""
        own = {"kept": self.kept, "lost": self.lost, "waiting": self._waiting, "failure": self.failure or None}
        return {**own, **{name: count() for name, count in self.beside.items()}}

    def waits(self, id: str, project: str) -> bool:
        """Whether an exchange of a project is still to be written."""
        return self._ids.get(id) == project

    def recent(self, project: str) -> list[str]:
        """Ids of the last few exchanges of a project."""
        return list(self._recent.get(project, ()))

    # the writer ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begins to write."""
        self._writer = asyncio.create_task(self._write_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what waits, tells what was lost, and marks the runs as done."""
        self._closing = True
        self._news.set()
        if self._writer is not None:
            done, _ = await asyncio.wait({self._writer}, timeout=_PATIENCE)
            if not done:
                self._writer.cancel()
                await asyncio.gather(self._writer, return_exceptions=True)
        self.lost, self._waiting = self.lost + self._waiting, 0
        self._ids.clear()
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._finish)
        self._thread.shutdown(wait=False)
        if self.lost:
            _log.error("capture: %d exchanges kept, %d lost", self.kept, self.lost)

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while not (self._closing and not self._queue):
            await self._news.wait()
            if not self._closing and len(self._queue) < _BATCH:
                await asyncio.sleep(_GATHERING)
            self._news.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                made, broken = await loop.run_in_executor(self._thread, self._made, batch)
                self.lost += broken
                self.kept += await self._written(made)
                self._held, self._waiting = self._held - sum(w.size for w in batch), self._waiting - len(batch)
                for waiting in batch:
                    self._ids.pop(waiting.exchange.id, None)

    async def _written(self, made: list[Kept]) -> int:
        """Writes a batch, however long the store fails; at the end it is tried once more. Gives how many got in."""
        loop = asyncio.get_running_loop()
        while True:
            last = self._closing
            try:
                await loop.run_in_executor(self._thread, self._write, made)
            except StoreError as error:
                if not self.failure:
                    _log.error("capture: %s (to do: %s); it is tried again", error.what, error.todo)
                self.failure = error.what
                if last:
                    self.lost += len(made)
                    return 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._again):
                        while not self._closing:
                            self._news.clear()
                            await self._news.wait()
                continue
            except Exception as error:  # one batch that cannot be written must not end the writing
                _log.error("capture: %d exchanges cannot be written: %s", len(made), type(error).__name__)
                self.lost += len(made)
                return 0
            if self.failure:
                _log.info("capture: the store takes writes again")
            self.failure = ""
            return len(made)

    def _made(self, batch: Sequence[_Waiting]) -> tuple[list[Kept], int]:
        """The records of a batch, and how many could not be made."""
        made: list[Kept] = []
        for waiting in batch:
            try:
                kept = records(waiting.exchange, self._clean, arm=waiting.arm, parent=waiting.parent)
            except Exception as error:  # one that cannot be kept must not hold up the others
                _log.error("capture: an exchange cannot be kept: %s", type(error).__name__)
                continue
            made.append(kept)
            for listener in self._listeners:
                try:
                    listener(kept)
                except Exception as error:
                    _log.error("capture: a listener failed: %s", type(error).__name__)
        return made, len(batch) - len(made)

    def _write(self, made: Sequence[Kept]) -> None:
        store, fresh = self._store, {k.attempt.run: k for k in made if k.attempt.run not in self._runs}
        with store.transaction(whole=True):
            for run, kept in fresh.items():
                store.start_run(run, {"name": "gateway"}, {"command": "serve", "project": kept.meta["project"]})
            store.put_tasks([k.task for k in made])
            for kept in made:
                attempt = kept.attempt
                if not store.put_attempt(attempt):  # a server behind that gives one id twice: feedback finds the first
                    attempt = attempt.replace(id=f"{attempt.id}~{uuid.uuid4().hex[:12]}")
                    store.put_attempt(attempt)
                store.put_step(attempt.id, META, kept.step)
                store.put_call(attempt.id, attempt.run, kept.role, attempt.model, attempt.usage, attempt.error)
        self._runs |= set(fresh)

    def _finish(self) -> None:
        for run in sorted(self._runs):
            self._store.finish_run(run, "done")


def _size(exchange: Exchange) -> int:
    """About the characters that it holds, tools and calls included."""
    asked = exchange.size or sum(len(m.content) for m in exchange.messages)
    if (reply := exchange.reply) is None:
        return asked
    return asked + len(reply.text) + sum(len(c.arguments) for c in reply.tool_calls) + 8 * len(reply.logprobs or ())


__all__ = ["CHARACTERS", "SIZE", "StoreCapture"]
