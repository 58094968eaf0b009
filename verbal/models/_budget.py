"""Hard limits on money, tokens, calls and time, checked before each call: reserve the worst case, settle after.

A call that fits only once others have settled waits for them; one that cannot fit at all is refused. (The ledger that
survives a process belongs around this: it hands in what was spent before and reads `spent`.)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from verbal.errors import BudgetError, ConfigError
from verbal.types import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard stops. None is no limit."""

    max_cost: float | None = None
    """US dollars."""
    max_calls: int | None = None
    """Requests sent, retries included."""
    max_tokens: int | None = None
    """Prompt and completion tokens together."""
    max_seconds: float | None = None
    """Seconds since the budget was opened, by the clock on the wall."""


@dataclass(slots=True, eq=False)
class Reservation:
    """The worst a call under way can use."""

    worst: Usage


class Budget:
    """What may still be spent. One budget serves every model of a run, in one event loop at a time.

    Args:
        limits: The hard stops.
        spent: What was spent before (a resumed run).
        clock: Seconds, for `max_seconds`.

    Raises:
        ConfigError: money is limited, and the cost of what was spent before is not known.
    """

    def __init__(
        self, limits: Limits | None = None, *, spent: Usage | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits or Limits()
        self._spent = spent or Usage()
        if self.limits.max_cost is not None and self._spent.cost is None:
            what = "the cost is limited, but what was spent before is not known"
            raise ConfigError(what, todo="limit tokens or calls instead, or start a new run")
        self._open: list[Reservation] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock, self._started = clock, clock()

    @property
    def spent(self) -> Usage:
        """What was spent so far."""
        return self._spent

    @property
    def seconds(self) -> float:
        """Seconds since the budget was opened."""
        return self._clock() - self._started

    async def reserve(self, worst: Usage, *, where: str = "") -> Reservation:
        """Sets `worst` aside, waiting for calls under way when only they stand in its way.

        Raises:
            BudgetError: the call could exceed a limit even when nothing else is under way.
            ConfigError: money is limited and the price of the call is not known.
        """
        while True:
            if broken := self._broken(self._spent + worst):
                raise BudgetError(broken, where=where, todo="raise the limit and resume; nothing done so far is lost")
            if self.limits.max_cost is not None and worst.cost is None:
                raise unknown_price(where)
            held = sum((r.worst for r in self._open), self._spent)
            if not self._open or not self._broken(held + worst):
                reservation = Reservation(worst)
                self._open.append(reservation)
                return reservation
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)

    def settle(self, reservation: Reservation, used: Usage) -> None:
        """Replaces a reservation by what was used."""
        self._open.remove(reservation)
        self._spent += used
        # Everyone looks again: what was freed may fit several, and the first in line may not be the one that fits.
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _broken(self, after: Usage) -> str:
        """Which limit `after` breaks, in words; empty when none."""
        limits, spent = self.limits, self._spent
        if limits.max_seconds is not None and self.seconds >= limits.max_seconds:
            return f"the limit of {limits.max_seconds:g} s is reached ({self.seconds:.0f} s)"
        if limits.max_calls is not None and after.calls > limits.max_calls:
            return f"the limit of {limits.max_calls} calls is reached ({spent.calls} made)"
        if limits.max_tokens is not None and after.tokens > limits.max_tokens:
            return (
                f"the next call could bring the tokens to {after.tokens}, "
                f"over the limit of {limits.max_tokens} ({spent.tokens} used)"
            )
        if limits.max_cost is not None and after.cost is not None and after.cost > limits.max_cost:
            return (
                f"the next call could bring the cost to ${after.cost:.4f}, "
                f"over the limit of ${limits.max_cost:.4f} (${spent.cost or 0.0:.4f} spent)"
            )
        return ""


def unknown_price(where: str) -> ConfigError:
    """The error for a limit on money around a model without a price."""
    return ConfigError(
        "the cost is limited, but the price of this model is not known",
        where=where,
        todo="give price_in and price_out (US dollars per million tokens), or limit tokens or calls instead",
    )
