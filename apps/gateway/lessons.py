"""Lessons of a memory for what passes: found by the last message of the user, shown as data, never waited for long.

A route that names a memory gets what is believed there. With `trials` it also takes part in finding out what helps: one
lesson on trial is shown by an even lot, and a believed one is left out now and then, as in the loop
(`verbal/loop/offers.py`); the chances are noted with the attempt, and feedback counts for each lesson that was offered.
The lots are drawn from the key, the first message of the user and the day: a lesson does not come and go within a
conversation. A memory that is pinned at a version, and that of the adopted policy, stands still: it is shown, no lots
are drawn.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from verbal.errors import VerbalError
from verbal.loop.offers import offer
from verbal.recipe import MemoryTable
from verbal.types import Message, Reflection, Task

from .exchange import Exchange
from .kept import Cleaner, lessons_text, task_id
from .memories import Memories
from .routes import Route

if TYPE_CHECKING:
    from verbal.loop.context import Context

DEADLINE = 0.05
"""Seconds in which lessons must be found."""
_LONGEST = 2000
"""Characters of a message that are looked up."""
_log = logging.getLogger("verbal.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The lessons for one request."""

    memory: str = ""
    shown: tuple[Reflection, ...] = ()
    offered: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As a prompt gets them."""
        return lessons_text(self.shown)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the lots of the loop are drawn from."""

    memory: Any
    recipe: Any
    learning: bool
    seed: str

    def draw(self, task: object, *parts: object) -> int:
        """A number below 2**31 that depends on the conversation and the parts; not on the task, which grows with it."""
        text = "\x1f".join(map(str, (self.seed, *parts)))
        return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "big") >> 1


class MemoryLessons:
    """Chooses lessons for the routes that name a memory.

    Args:
        memories: Where they are opened.
        routes: Which route has which memory.
        k: Believed lessons of a prompt at most.
        withhold: With trials, the chance that a believed one is left out.
        deadline: Seconds; a request goes on without lessons when they take longer.
    """

    def __init__(
        self,
        memories: Memories,
        routes: Sequence[Route],
        *,
        k: int = 3,
        withhold: float = 0.1,
        deadline: float = DEADLINE,
    ) -> None:
        self._memories, self._deadline = memories, deadline
        self._table = MemoryTable(k=k, withhold=withhold)
        self._routes = {r.name: r for r in routes if r.memory}
        self._specs = [spec for r in routes for spec in (r.memory, r.shadow_memory) if spec]
        self._clean = Cleaner()
        self._waiting, self._usual = 0, 0.0
        self.late = self.failed = 0
        """Requests that went on without lessons, for these took too long or failed."""

    async def open(self) -> None:
        """Opens the memories, so that the first request does not wait for it; one that fails is told."""
        for spec in dict.fromkeys(self._specs):
            try:
                await self._memories.run(lambda spec=spec: self._opened(spec))  # type: ignore[misc]
            except VerbalError as error:
                _log.error("memory %s: %s (to do: %s); requests go on without it", spec, error.what, error.todo)

    async def offer(self, exchange: Exchange) -> str:
        """The lessons for a request as text, or an empty one; notes what was chosen. Never raises, never is late."""
        route = self._routes.get(exchange.route)
        if route is None:
            return ""
        chosen = await self.choose(route.memory, exchange, trials=route.trials)
        exchange.memory, exchange.shown, exchange.offered = chosen.memory, chosen.shown, chosen.offered
        return chosen.text

    async def choose(
        self, spec: str, exchange: Exchange, *, trials: bool = False, deadline: float | None = None
    ) -> Chosen:
        """The lessons of a memory for a request; none where they take too long or fail."""
        limit, began = self._deadline if deadline is None else deadline, time.perf_counter()
        if self._waiting * self._usual > limit:  # its turn would come too late: it need not wait to find out
            self.late += 1
            return Chosen()
        self._waiting += 1
        try:
            async with asyncio.timeout(limit):
                return await self._memories.run(lambda: self._choose(spec, exchange, trials))
        except TimeoutError:
            self.late += 1
        except Exception as error:  # whatever a memory does, the request goes on
            self.failed += 1
            if self.failed == 1:
                _log.error("memory %s failed: %s; requests go on without it", spec, type(error).__name__)
        finally:
            self._waiting -= 1
            self._usual += 0.1 * ((time.perf_counter() - began) / (self._waiting + 1) - self._usual)
        return Chosen()

    def health(self) -> dict[str, int]:
        """Counts, for `/health`."""
        return {"late": self.late, "failed": self.failed}

    async def _opened(self, spec: str) -> None:
        if (found := self._memories.find(spec)) is not None and not found[0].items():
            _log.info("memory %s has no lessons yet", spec)

    async def _choose(self, spec: str, exchange: Exchange, trials: bool) -> Chosen:
        found = self._memories.find(spec)
        query = _last_said(exchange.messages)
        if found is None or not query:
            return Chosen()
        memory, name, version = found
        asked = Task(id=task_id(self._clean.messages(exchange.messages)), kind="chat", messages=exchange.messages)
        learning = trials and version is None
        turn = _Turn(memory, SimpleNamespace(memory=self._table), learning, _conversation(exchange))
        made = await offer(cast("Context", turn), asked, query)
        chances = made.chances if learning else {} if version is not None else {r.id: 1.0 for r in made.shown}
        return Chosen(memory=name, shown=tuple(made.shown), offered=chances)


def _conversation(exchange: Exchange) -> str:
    """What all turns of a conversation have in common."""
    first = next((m.content for m in exchange.messages if m.role == "user"), "")
    return "\x1f".join((exchange.caller.project, exchange.caller.key, str(int(exchange.began // 86400)), first))


def _last_said(messages: Sequence[Message]) -> str:
    """What the user said last."""
    said = next((m.content for m in reversed(messages) if m.role == "user" and m.content.strip()), "")
    return said[-_LONGEST:]


__all__ = ["DEADLINE", "Chosen", "MemoryLessons"]
