"""When a call is tried again, and how long it waits before. tenacity is the engine; the first try needs none."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, stop_before_delay

from verbal.errors import TransientError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a call is tried again after a TransientError."""

    attempts: int = 6
    """Tries in all."""
    first: float = 0.5
    """Seconds; the wait before try i+1 is uniform in [0, first * 2^(i-1)], at least what the server asked for."""
    longest: float = 30.0
    """Seconds; cap of the random wait. What the server asks for is not capped."""
    deadline: float = 600.0
    """Seconds from the first try; a wait that would pass it is not begun."""

    def wait(self, state: RetryCallState, random: Random) -> float:
        """Seconds before the next try: full jitter, on top of what the server asked for."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        if asked:
            return asked + random.uniform(0.0, self.first)
        grown = self.first * 2.0 ** min(state.attempt_number - 1, 30)
        return random.uniform(0.0, min(self.longest, grown))

    async def tried(self, attempt: Callable[[], Awaitable[_T]], wait: Callable[[RetryCallState], float]) -> _T:
        """What `attempt` gives, after as many tries as are allowed.

        Raises:
            TransientError: the last of them failed. Anything else: the first that raised it.
        """
        began = time.monotonic()
        try:
            return await attempt()
        except TransientError as error:
            failed = [error]

        async def again() -> _T:
            if failed:  # the engine sees the first try too, and counts and waits as if it had made it
                raise failed.pop()
            return await attempt()

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.attempts) | stop_before_delay(self.deadline - (time.monotonic() - began)),
            wait=wait,
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        )
        return await retrying(again)
