"""What answers now, and its exchange for another model without a pause.

The new model is loaded, checked and probed beside the old one, which answers all the while. Only then the next request
goes to the new one; requests under way end where they began, and the old one is closed after the last of them. A new
one that fails changes nothing: the failure is told, and tried again after a while, for files may come back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from verbal.errors import VerbalError
from verbal.models import redact
from verbal.models._faults import clip
from verbal.store import Store

from .served import PROMOTED, Served, Source, find_source, load

log = logging.getLogger("verbal.gateway")
"""Where swaps and failures are told; never what was asked or answered."""


class Switch:
    """Holds the model that answers.

    Args:
        spec: As `--model` takes it, or `promoted` for what the store has adopted.
        store: Where adopted versions and checkpoints are; it belongs to whoever made it.
        engine: `auto` or `vllm`.
        every: Seconds between two looks at the log of versions.
        again: Seconds until a version that failed is tried again.
        key: Environment variable that holds the key of an `http/` server.
        probe: Whether a model behind another server is asked before it serves.
        timeout: Seconds in which such a server answers.
        clock: The time in seconds.
    """

    def __init__(
        self,
        spec: str,
        store: Store | None = None,
        *,
        engine: str = "auto",
        every: float = 0.5,
        again: float = 60.0,
        key: str = "",
        probe: bool = True,
        timeout: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec, self.swaps = spec, 0
        self.failure: dict[str, Any] | None = None
        """The version that should serve and does not, with the reason."""
        self.loading = False
        """Whether another model is being loaded now."""
        self._store, self._every, self._again, self._clock = store, every, again, clock
        self._loads = partial(load, spec, store=store, engine=engine, key=key, probe=probe, timeout=timeout)
        self._current: Served | None = None
        self._retry_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> Served:
        """The model that answers the next request."""
        assert self._current is not None, "start() comes first"
        return self._current

    @property
    def retiring(self) -> int:
        """Models that only finish what was under way."""
        return len(self._closing)

    async def start(self) -> Served:
        """Loads the first model.

        Raises:
            VerbalError: it cannot serve (`load`).
        """
        source = await asyncio.to_thread(find_source, self.spec, self._store)
        self._current = await self._loads(source)
        return self._current

    @contextmanager
    def lease(self) -> Iterator[Served]:
        """The model that answers a request; it stays open until the request is done."""
        served = self.current
        served.take()
        try:
            yield served
        finally:
            served.give()

    async def watch(self) -> None:
        """Looks at the log of versions until it is cancelled; returns at once where the model is a fixed one."""
        while self.spec == PROMOTED:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> bool:
        """Brings the model in line with the log of versions; whether that changed it."""
        assert self._store is not None, "what is promoted is in a store"
        newest = 0
        try:
            newest = await asyncio.to_thread(self._store.newest_version)
            if newest == self.current.source.version:
                self.failure = None
                return False
            failed = self.failure is not None and self.failure["version"] == newest
            if failed and self._clock() < self._retry_at:
                return False
            source = await asyncio.to_thread(find_source, self.spec, self._store)
            new = self.current if source.same(self.current.source) else await self._load(source)
        except Exception as error:  # whatever a new model does, the old one answers
            self._note(newest, error)
            return False
        self.failure = None
        return self._take_over(new, source)

    async def _load(self, source: Source) -> Served:
        self.loading = True
        log.info("version %d: loading %s", source.version, source.name or source.opens)
        try:
            return await self._loads(source)
        finally:
            self.loading = False

    def _take_over(self, new: Served, source: Source) -> bool:
        old = self.current
        if new is old:  # the same weights under another number: with another memory, or after a way there and back
            old.source = source
            log.info("version %d: the same model, %s, goes on", source.version, old.name)
            return False
        self._current, self.swaps = new, self.swaps + 1
        log.info(
            "version %d: %s (%s) answers from now on; %d requests end on %s (%s)", source.version, new.name,
            new.fingerprint, old.under_way, old.name, old.fingerprint,
        )  # fmt: skip
        task = asyncio.create_task(_retire(old))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return True

    def _note(self, version: int, error: Exception) -> None:
        house = isinstance(error, VerbalError)
        what = clip(error.what if isinstance(error, VerbalError) else f"{type(error).__name__}: {error}", 500)
        todo = redact(error.todo) if isinstance(error, VerbalError) else "this is a fault in the program: report it"
        before, self._retry_at = self.failure, self._clock() + self._again
        self.failure = {"version": version or None, "what": what, "todo": todo, "at": round(time.time(), 3)}
        # One that lasts is told once.
        again = before is not None and (before["version"], before["what"]) == (version or None, what)
        log.log(
            logging.DEBUG if again else logging.ERROR, "version %s cannot serve, %s goes on: %s (to do: %s)",
            version or "?", self.current.name, what, todo, exc_info=None if house else error,
        )  # fmt: skip

    async def aclose(self) -> None:
        """Closes the models; what is under way is not waited for."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._current is not None:
            await self._current.model.aclose()


async def _retire(old: Served) -> None:
    """Closes a model once nobody uses it."""
    try:
        await old.idle.wait()
    finally:
        try:
            await old.model.aclose()
        except Exception:
            log.exception("%s did not close", old.name)
    log.info("%s (%s) is closed", old.name, old.fingerprint)


__all__ = ["Switch"]
