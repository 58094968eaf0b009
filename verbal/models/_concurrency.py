"""How many calls to one provider may be under way: starts at a guess, grows on success, halves when told to slow down.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as in TCP: one more slot for each full window of
successes, half the slots at the first refusal of a window. Refusals of calls that started before the last halving
say nothing new and are ignored.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from verbal.errors import TransientError
from verbal.models._faults import OverloadedError


class Concurrency:
    """Slots of one provider, first come first served; at least 1.

    Args:
        start: Slots at the start.
        most: Slots at most.
        patience: Seconds of the longest pause that is waited for; calls that come in a longer one fail at once.
    """

    def __init__(self, start: int = 20, *, most: int = 512, patience: float = 600.0) -> None:
        self._patience = patience
        self._limit = float(max(1, start))
        self._most = max(self._limit, float(most))
        self._active = 0
        self._window = 0
        self._resume_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Slots now."""
        return int(self._limit)

    @property
    def active(self) -> int:
        """Calls under way."""
        return self._active

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one slot; what the body raises decides whether the limit grows or halves."""
        await self._acquire()
        try:
            # A provider that asked for a pause gets it from every call, not only from the one it told.
            while (pause := self._resume_at - time.monotonic()) > 0:
                if pause > self._patience:
                    what = f"the provider asked for a pause of {pause:.0f} s"
                    raise TransientError(what, where="Retry-After", todo="resume later: what is done so far is kept")
                await asyncio.sleep(pause)
            window, full = self._window, self._active >= self.limit
            try:
                yield
            except OverloadedError as error:
                self._shrink(window, error.retry_after)
                raise
            if full:
                self._limit = min(self._most, self._limit + 1 / self._limit)
        finally:
            self._release()

    def _shrink(self, window: int, pause: float | None) -> None:
        if window == self._window:
            self._limit = max(1.0, self._limit / 2)
            self._window += 1
        if pause:
            self._resume_at = max(self._resume_at, time.monotonic() + pause)

    async def _acquire(self) -> None:
        if not self._waiting and self._active < self.limit:
            self._active += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # The slot was handed over in the same moment: pass it on, or it is lost for ever.
                self._release()
            elif waiter in self._waiting:  # a slot freed in the same moment has passed it over already
                self._waiting.remove(waiter)
            raise

    def _release(self) -> None:
        self._active -= 1
        while self._waiting and self._active < self.limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._active += 1
                waiter.set_result(None)
