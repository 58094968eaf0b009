"""The ledger: every cent and token of a run, known before it is spent. One for all roles, models and the trainer.

Before a call its worst case is reserved, in memory (the limits) and in the store (so that a call that was under way
when the process was killed is known, and counted at its worst case). The call that could exceed a limit is not made,
at any concurrency; one that fits only once others have settled waits for them. After the call the reservation is
settled with the real usage. Whether a role pays for a model call, an embedding or a GPU second, it is one row in the
store: run, role, model, usage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verbal.errors import BudgetError, ConfigError
from verbal.types import Usage

if TYPE_CHECKING:
    from verbal.cache import Recorded
    from verbal.store import Store

_PROCESS = uuid.uuid4().hex[:12]


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
    """Seconds since the ledger was opened, by a clock that no change of date moves."""


@dataclass(slots=True, eq=False)
class Reservation:
    """The worst a call under way can use."""

    worst: Usage


class Ledger:
    """What was spent and what may still be. One ledger serves every role of a run, in one event loop at a time.

    Args:
        limits: The hard stops.
        store: Where each call is written down, before and after; in memory only when not given.
        run: The run in the store; what it spent before (a resumed run) counts.
        spent: What was spent elsewhere and counts against the same limits.
        clock: Seconds, for `max_seconds`.
        began: When the limited time began, by `clock`; now when not given.

    Raises:
        ConfigError: money is limited, and the cost of what was spent before is not known.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        store: Store | None = None,
        run: str = "",
        spent: Usage | None = None,
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
    ) -> None:
        self.limits, self.store, self.run = limits or Limits(), store, run
        self.interrupted = 0
        """Calls of this run that were under way when an earlier process was killed; each is counted at its worst."""
        self._spent = (spent or Usage()) + self._before()
        if self.limits.max_cost is not None and self._spent.cost is None:
            what = "the cost is limited, but what was spent before is not known"
            raise ConfigError(what, todo="limit tokens or calls instead, or start a new run")
        self._open: list[Reservation] = []
        self._held = Usage()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock, self._started = clock, clock() if began is None else began

    def _before(self) -> Usage:
        """What this run spent in earlier processes; calls that were under way when those died are closed here."""
        if self.store is None:
            return Usage()
        alive = Usage()
        for row in self.store.open_calls(self.run):
            if _lives(row["owner"]):
                alive += row["worst"]
                continue
            self.interrupted += 1
            why = "interrupted: the process died before the reply came, so it is counted at its worst case"
            self.store.close_call(row["call"], self.run, row["role"], row["model"], row["worst"], why)
        return sum(self.store.usage(self.run).values(), alive)

    @property
    def spent(self) -> Usage:
        """What was spent so far."""
        return self._spent

    @property
    def seconds(self) -> float:
        """Seconds since the ledger was opened."""
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
            if not self._open or not self._broken(self._spent + self._held + worst):
                reservation = Reservation(worst)
                self._open.append(reservation)
                self._held += worst
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
        self._held = self._held_now()
        self._spent += used
        # Everyone looks again: what was freed may fit several, and the first in line may not be the one that fits.
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _held_now(self) -> Usage:
        # Added up anew: subtracting floats would leave dust behind, and a limit of nought point nothing is a limit.
        worst = [r.worst for r in self._open]
        costs = [w.cost for w in worst]
        return Usage(
            calls=sum(w.calls for w in worst),
            prompt_tokens=sum(w.prompt_tokens for w in worst),
            completion_tokens=sum(w.completion_tokens for w in worst),
            cost=None if None in costs else sum(c for c in costs if c is not None),
        )

    def open_call(self, call: str, role: str, model: str, worst: Usage) -> None:
        """Writes down that a call is about to be made, and what it can cost at most."""
        if self.store is not None:
            self.store.open_call(call, self.run, role, model, worst, owner())

    def close_call(
        self,
        call: str,
        role: str,
        model: str,
        used: Usage,
        error: str | None = None,
        recorded: Sequence[Recorded] = (),
    ) -> None:
        """Writes down what a call used, and what it gave, in one transaction."""
        if self.store is None:
            return
        with self.store.transaction():
            self.store.close_call(call, self.run, role, model, used, error)
            if recorded:
                self.store.put_replies([r.row for r in recorded])
                for r in recorded:
                    self.store.use_reply(self.run, r.key, role)

    def charge(self, role: str, model: str, used: Usage, *, call: str = "") -> None:
        """Counts what is no model call: embeddings, seconds of a trainer's GPU. `call` makes a repeat harmless."""
        self._spent += used
        if self.store is not None:
            self.store.put_call(call or uuid.uuid4().hex, self.run, role, model, used)

    def require(self, worst: Usage, *, where: str = "") -> None:
        """Looks whether `worst` may still be spent, without setting it aside (one trainer, step by step).

        Raises:
            BudgetError: it could exceed a limit. ConfigError: money is limited and its cost is not known.
        """
        if broken := self._broken(self._spent + self._held + worst):
            raise BudgetError(broken, where=where, todo="raise the limit and start again")
        if self.limits.max_cost is not None and worst.cost is None:
            raise unknown_price(where)

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
    """The error for a model whose price nobody told."""
    return ConfigError(
        "the price of this model is not known, so its cost cannot be known before it is spent",
        where=where,
        todo="give --prices FILE, or --set model.price_in=... --set model.price_out=... "
        "(US dollars per million tokens; 0 for a model that is free)",
    )


def owner() -> str:
    """Names this process: host, number, and a mark that a later process of the same number does not have."""
    return f"{socket.gethostname()}/{os.getpid()}/{_PROCESS}"


def _lives(name: str) -> bool:
    """Whether a process may still be running; one on another host is taken to be."""
    host, _, rest = name.partition("/")
    number, _, mark = rest.partition("/")
    if host != socket.gethostname() or not number.isdigit():
        return True
    if int(number) == os.getpid():
        return mark == _PROCESS
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return False
    return True


__all__ = ["Ledger", "Limits", "Reservation", "owner", "unknown_price"]
