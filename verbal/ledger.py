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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from verbal.errors import BudgetError, ConfigError
from verbal.types import Usage

if TYPE_CHECKING:
    from verbal.cache import Recorded
    from verbal.store import Store

_T = TypeVar("_T")
_PROCESS = uuid.uuid4().hex[:12]
_UNIT = 1e12
"""Money is added up in whole parts of this of a dollar: floats would leave dust behind, in an order of their own."""


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


@dataclass(slots=True)
class _Tally:
    """Usages added up, and taken out again as exactly."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: int = 0
    unpriced: int = 0
    """How many of them have a cost that is not known."""
    seconds: float = 0.0

    def __iadd__(self, used: Usage) -> _Tally:
        return self._add(used, 1)

    def __isub__(self, used: Usage) -> _Tally:
        return self._add(used, -1)

    def _add(self, used: Usage, times: int) -> _Tally:
        self.calls += times * used.calls
        self.prompt_tokens += times * used.prompt_tokens
        self.completion_tokens += times * used.completion_tokens
        self.seconds += times * used.seconds
        if used.cost is None:
            self.unpriced += times
        elif used.cost:
            self.money += times * round(used.cost * _UNIT)
        return self

    @property
    def usage(self) -> Usage:
        """The sum."""
        return Usage(
            calls=self.calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost=None if self.unpriced else self.money / _UNIT,
            seconds=self.seconds,
        )


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
        self._metered: dict[tuple[str, str], Usage] = {}
        self.interrupted = 0
        """Calls of this run that were under way when an earlier process was killed; each is counted at its worst."""
        self._spent, self._held, self._nothing = _Tally(), _Tally(), _Tally()
        self._spent += (spent or Usage()) + self._before()
        if self.limits.max_cost is not None and self._spent.unpriced:
            what = "the cost is limited, but what was spent before is not known"
            raise ConfigError(what, todo="limit tokens or calls instead, or start a new run")
        self._open: dict[Reservation, None] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock, self._started = clock, clock() if began is None else began

    def _before(self) -> Usage:
        """What this run spent in earlier processes; calls that were under way when those died are closed here."""
        if self.store is None:
            return Usage()
        alive = Usage()
        for row in self.store.open_calls(self.run):
            if lives(row["owner"]):
                alive += row["worst"]
                continue
            self.interrupted += 1
            why = "interrupted: the process died before the reply came, so it is counted at its worst case"
            self.store.close_call(row["call"], self.run, row["role"], row["model"], row["worst"], why)
        return sum(self.store.usage(self.run).values(), alive)

    @property
    def spent(self) -> Usage:
        """What was spent so far."""
        return self._spent.usage

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
            if broken := self._broken(worst, self._nothing):
                raise BudgetError(broken, where=where, todo="raise the limit and resume; nothing done so far is lost")
            if self.limits.max_cost is not None and worst.cost is None:
                raise unknown_price(where)
            if not self._open or not self._broken(worst, self._held):
                reservation = Reservation(worst)
                self._open[reservation] = None
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
        del self._open[reservation]
        self._held -= reservation.worst
        self._spent += used
        # Everyone looks again: what was freed may fit several, and the first in line may not be the one that fits.
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

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
    ) -> bool:
        """Writes down what a call used, and what it gave, in one transaction.

        Returns:
            Whether these replies are known to be the ones that are kept (others may have been there before).
        """
        if self.store is None:
            return False
        if len(recorded) <= 1:
            kept = (recorded[0].key, recorded[0].request, recorded[0].reply) if recorded else (None, None, None)
            return self.store.close_call(call, self.run, role, model, used, error, *kept)
        with self.store.transaction():
            self.store.close_call(call, self.run, role, model, used, error)
            self.store.put_replies([r.row for r in recorded])
            for r in recorded:
                self.store.use_reply(self.run, r.key, role)
        return False

    def drop_call(self, call: str) -> None:
        """Takes back that a call was about to be made: it was not."""
        if self.store is not None:
            self.store.drop_call(call)

    async def together(self, write: Callable[[], _T]) -> _T:
        """What `write` gives, once it is kept, in one commit with what others write in the same turn of the loop."""
        return await self.store.together(write) if self.store is not None else write()

    def charge(self, role: str, model: str, used: Usage, *, call: str = "") -> None:
        """Counts what is no model call: embeddings, seconds of a trainer's GPU. `call` makes a repeat harmless."""
        if self.store is None or self.store.put_call(call or uuid.uuid4().hex, self.run, role, model, used):
            self._spent += used

    def meter(self, role: str, model: str) -> Callable[[Usage, bool], None]:
        """A listener for many small uses of one kind (embeddings): looked at before each, written down by `flush`.

        Called with the worst case and False it raises what `require` raises; with what was used and True it counts.
        """

        def spend(used: Usage, done: bool) -> None:
            if not done:
                if used.tokens or used.cost:
                    self.require(used, where=f"{role} {model}")
                return
            if not used.tokens and not used.cost:
                return  # what is free and made here needs no account
            self._spent += used
            self._metered[role, model] = self._metered.get((role, model), Usage()) + used

        return spend

    def flush(self) -> None:
        """Writes down what meters counted since the last time."""
        if self.store is not None:
            for (role, model), used in self._metered.items():
                self.store.put_call(uuid.uuid4().hex, self.run, role, model, used)
        self._metered.clear()

    def require(self, worst: Usage, *, where: str = "") -> None:
        """Looks whether `worst` may still be spent, without setting it aside (one trainer, step by step).

        Raises:
            BudgetError: it could exceed a limit. ConfigError: money is limited and its cost is not known.
        """
        if broken := self._broken(worst, self._held):
            raise BudgetError(broken, where=where, todo="raise the limit and start again")
        if self.limits.max_cost is not None and worst.cost is None:
            raise unknown_price(where)

    def _broken(self, worst: Usage, held: _Tally) -> str:
        """Which limit a call would break, beside what was spent and is held, in words; empty when none."""
        limits, spent = self.limits, self._spent
        if limits.max_seconds is not None and self.seconds >= limits.max_seconds:
            return f"the limit of {limits.max_seconds:g} s is reached ({self.seconds:.0f} s)"
        if limits.max_calls is not None and spent.calls + held.calls + worst.calls > limits.max_calls:
            return f"the limit of {limits.max_calls} calls is reached ({spent.calls} made)"
        if limits.max_tokens is not None:
            used = spent.prompt_tokens + spent.completion_tokens
            after = used + held.prompt_tokens + held.completion_tokens + worst.tokens
            if after > limits.max_tokens:
                return (
                    f"the next call could bring the tokens to {after}, "
                    f"over the limit of {limits.max_tokens} ({used} used)"
                )
        if limits.max_cost is not None and worst.cost is not None and not spent.unpriced and not held.unpriced:
            cost = (spent.money + held.money + round(worst.cost * _UNIT)) / _UNIT
            if cost > limits.max_cost:
                return (
                    f"the next call could bring the cost to ${cost:.4f}, "
                    f"over the limit of ${limits.max_cost:.4f} (${spent.money / _UNIT:.4f} spent)"
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
    """Names this process: host, number, when it began, and a mark that no other process has."""
    return _named(os.getpid(), _PROCESS)


@cache
def _named(number: int, mark: str) -> str:
    # Each paid call is written down under this name, so the system is asked once.
    return f"{socket.gethostname()}/{number}/{_began(number)}.{mark}"


def _began(number: int) -> str:
    """When a process began, as the system tells it: a later one of the same number began at another time."""
    try:
        # The name in brackets may hold anything; what follows its last bracket are numbers, the 20th is the start.
        return Path(f"/proc/{number}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # another system, or the process is gone
        return ""


def lives(name: str) -> bool:
    """Whether the process of an `owner` may still be running; one on another host is taken to be."""
    host, _, rest = name.partition("/")
    number, _, mark = rest.partition("/")
    if host != socket.gethostname() or not number.isdigit():
        return True
    if int(number) == os.getpid():
        return name == owner()
    began = _began(int(number))
    if began and began != mark.partition(".")[0]:
        return False  # the number is another process's now
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return False
    return True


__all__ = ["Ledger", "Limits", "Reservation", "lives", "owner", "unknown_price"]
