"""A candidate answers the same, unseen by the client: another upstream, another memory, or both, on a share of a route.

Which exchanges are shadowed depends on their ids only. A candidate is asked after the client has its answer, at most
so many at once; one more is skipped and counted. It sees the lessons that the answer saw, or those of its own memory.
What it says is kept under the arm `shadow` with the exchange as its parent, and what it costs is charged to the same
key; a key that has nothing left is not shadowed. `compare` sums up.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from types import TracebackType
from typing import Any, Self

from verbal.errors import UnknownName, VerbalError
from verbal.models import Price, redact
from verbal.store import Store
from verbal.types import Attempt, Feedback, Usage

from .capture import StoreCapture
from .exchange import Ask, Exchange, Gate
from .fields import with_lessons
from .kept import META, SHADOW
from .lessons import Chosen, MemoryLessons
from .refusal import Refusal
from .routes import Route

AT_ONCE = 8
"""Candidates that are asked at once."""
_ENDING = 10.0
"""Seconds that candidates have at the end."""
_LESSONS = 5.0
"""Seconds in which the lessons of a candidate must be found: nobody waits for it."""


class ShadowAsker:
    """Asks candidates in the background.

    Args:
        routes: Which route has which candidate, on what share of its traffic.
        capture: Keeps what they say.
        lessons: Chooses the lessons of a candidate memory.
        gate: Is charged with what they cost.
        at_once: Candidates at once.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        capture: StoreCapture,
        *,
        lessons: MemoryLessons | None = None,
        gate: Gate | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self._routes = {r.name: r for r in routes if r.share and (r.shadow or r.shadow_memory)}
        self._capture, self._lessons, self._gate, self._at_once = capture, lessons, gate, at_once
        self.price: Callable[[str], Price | None] = lambda _: None
        """What is known of the price of an upstream."""
        self.asked = self.skipped = 0
        """Candidates that were asked, and those that were not for want of room or money."""
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, exchange: Exchange, ask: Ask) -> None:
        """Asks the candidate of an exchange's route, if the lot says so and there is room."""
        route = self._routes.get(exchange.route)
        if route is None or exchange.status != 200 or drawn(exchange.id) >= route.share:
            return
        beside = replace(
            exchange, id=f"{exchange.id}:{SHADOW}", reply=None, shown=(), offered={}, memory="", answered_by="",
            status=0, error="", first=None, seconds=0.0, stream=False, version=0, began=time.time(), guess=None,
        )  # fmt: skip
        if len(self._tasks) >= self._at_once or not self._may(beside, route):
            self.skipped += 1
            return
        self.asked += 1
        task = asyncio.create_task(self._ask(exchange, beside, route, ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def health(self) -> dict[str, int]:
        """Counts, for `/health`."""
        return {"asked": self.asked, "skipped": self.skipped, "under_way": len(self._tasks)}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets candidates end, a while; then they are cancelled."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_ENDING)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _may(self, beside: Exchange, route: Route) -> bool:
        if self._gate is None:
            return True
        try:
            self._gate.allow(beside, self.price(route.shadow or route.upstream))
        except Refusal:
            return False
        return True

    async def _ask(self, exchange: Exchange, beside: Exchange, route: Route, ask: Ask) -> None:
        chosen = Chosen(memory=exchange.memory, shown=exchange.shown)
        try:
            if route.shadow_memory:
                assert self._lessons is not None, "a route with a candidate memory has lessons"
                chosen = await self._lessons.choose(route.shadow_memory, beside, deadline=_LESSONS)
            beside.memory, beside.shown = chosen.memory, chosen.shown
            text = chosen.text
            messages = with_lessons(exchange.messages, text) if text else exchange.messages
            began = time.perf_counter()
            beside.reply = await ask(route.shadow or route.upstream, messages)
            beside.seconds, beside.status = time.perf_counter() - began, 200
            usage, price = beside.reply.usage, self.price(route.shadow or route.upstream)
            if usage.cost is None and price is not None:
                cost = price.cost(usage.prompt_tokens, usage.completion_tokens)
                beside.reply = replace(beside.reply, usage=replace(usage, cost=cost))
            beside.answered_by = beside.reply.model or route.shadow or route.upstream
        except asyncio.CancelledError:
            beside.status, beside.error = 499, "the gateway ended first"
            raise
        except Exception as error:  # a candidate that fails is data
            beside.status = 502
            beside.error = redact(error.what if isinstance(error, VerbalError) else type(error).__name__)
        finally:
            if self._gate is not None:
                self._gate.charge(beside)
            self._capture.put_beside(beside, SHADOW, exchange.id)


def drawn(id: str) -> float:
    """A number in [0, 1) that depends on an exchange's id only."""
    return (
        int.from_bytes(hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=8, person=b"shadow").digest(), "big")
        / 2**64
    )


def compare(store: Store, run: str) -> dict[str, Any]:
    """What candidates said beside what clients got: how often the same, at what cost, time and failures.

    Clients judge what they got; where both said the same, that is a judgement of both.

    Raises:
        UnknownName: no such run.
    """
    if store.run(run) is None:
        raise UnknownName.of("run", run, [r["id"] for r in store.runs()], where=store.where)
    shadows = store.attempts(run, arm=SHADOW)
    pairs = [(main, s) for s in shadows if s.parent and (main := store.attempt(s.parent)) is not None]
    said = store.feedback([main.id for main, _ in pairs])
    both = [(m, s) for m, s in pairs if m.error is None and s.error is None]
    same = {m.id for m, s in both if _said(m) == _said(s)}
    scores = {m.id: score for m, _ in pairs if (score := _score(said[m.id])) is not None}
    return {
        "run": run, "pairs": len(pairs), "compared": len(both), "same": len(same),
        "same_share": len(same) / len(both) if both else None,
        "main": _sums([m for m, _ in pairs], store), "shadow": _sums([s for _, s in pairs], store),
        "feedback": {
            "judged": len(scores), "mean": _mean(list(scores.values())),
            "mean_where_same": _mean([v for i, v in scores.items() if i in same]),
            "mean_where_different": _mean([v for i, v in scores.items() if i not in same]),
        },
    }  # fmt: skip


def _said(attempt: Attempt) -> tuple[str, list[tuple[str, str]]]:
    calls = [(c.name, c.arguments) for step in attempt.steps for c in step.tool_calls]
    return " ".join(attempt.answer.split()), calls


def _score(feedback: Sequence[Feedback]) -> float | None:
    return _mean([f.value for f in feedback if f.source == "user" and f.value is not None])


def _sums(attempts: Sequence[Attempt], store: Store) -> dict[str, Any]:
    used = sum((a.usage for a in attempts), Usage())
    seconds = [float(_meta(store, a.id).get("seconds", 0.0)) for a in attempts]
    return {
        "models": sorted({a.model for a in attempts}), "errors": sum(a.error is not None for a in attempts),
        "tokens": used.tokens, "cost": used.cost, "seconds": _mean(seconds),
        "median_seconds": median(seconds) if seconds else None,
    }  # fmt: skip


def _meta(store: Store, attempt: str) -> Mapping[str, Any]:
    step = store.step(attempt, META)
    found: dict[str, Any] = json.loads(step.text) if step is not None else {}
    return found


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


__all__ = ["AT_ONCE", "ShadowAsker", "compare", "drawn"]
