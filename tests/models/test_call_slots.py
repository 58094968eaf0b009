from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Sampling
from verbal.models import (
    ModelCalls,
    OverloadedError,
    Retry,
)
from verbal.models._concurrency import Concurrency
from verbal.models.http import HttpModel
from verbal.types import Message

ASK = [Message(role="user", content="hello")]
FAST = Retry(attempts=4, first=0.001, longest=0.01)


async def test_calls_under_way_stay_below_the_limit(slow_model: Any) -> None:
    model = slow_model
    calls = ModelCalls(model, concurrency=5)
    tasks = [asyncio.create_task(calls.generate(ASK, 1, Sampling())) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert model.active == 5
    model.go.set()
    await asyncio.gather(*tasks)
    assert model.calls == 50 and 5 < calls.concurrency.limit < 20 and calls.concurrency.active == 0


async def test_the_limit_halves_once_a_window_and_grows_again() -> None:
    slots = Concurrency(16)

    async def refused() -> None:
        async with slots.slot():
            await asyncio.sleep(0)
            raise OverloadedError("slow")

    await asyncio.gather(*(refused() for _ in range(16)), return_exceptions=True)
    assert slots.limit == 8, "one wave of refusals is one signal"
    for _ in range(10):
        await asyncio.gather(refused(), return_exceptions=True)
    assert slots.limit == 1 and slots.active == 0

    async def fine() -> None:
        async with slots.slot():
            await asyncio.sleep(0)

    for _ in range(100):
        await asyncio.gather(*(fine() for _ in range(8)))
    assert slots.limit > 8


async def test_an_overloaded_provider_gets_fewer_calls_and_all_are_answered(openai_server: Any, servers: Any) -> None:
    async def limited(request: Any, body: Any) -> Any:
        if openai_server.active > 4:
            return await servers.fails(429, retry_after_ms="1")(request, body)
        await asyncio.sleep(0.002)
        return await openai_server.answer(request, body)

    openai_server.always = limited
    retry = Retry(attempts=50, first=0.005, longest=0.05)
    calls = ModelCalls(HttpModel("tiny-1", openai_server.url), concurrency=64, retry=retry)
    replies = await asyncio.gather(*(calls.generate(ASK, 1, Sampling()) for _ in range(150)))
    assert len(replies) == 150 and calls.concurrency.limit < 20
    await calls.aclose()


async def test_a_pause_holds_for_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    slots, slept = Concurrency(4), list[float]()
    error = OverloadedError("slow")
    error.retry_after = 30.0
    with pytest.raises(OverloadedError):
        async with slots.slot():
            raise error

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        slots._resume_at = 0.0

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with slots.slot():
        pass
    assert len(slept) == 1 and 29 < slept[0] <= 30


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
async def test_slots_survive_any_cancellation(plan: list[int], start: int, rng: random.Random) -> None:
    slots = Concurrency(start)

    async def work(kind: int) -> None:
        async with slots.slot():
            for _ in range(kind):
                await asyncio.sleep(0)
            if kind == 3:
                raise OverloadedError("slow")

    tasks = [asyncio.create_task(work(kind)) for kind in plan]
    for _ in range(rng.randrange(4)):
        await asyncio.sleep(0)
        for task in tasks:
            if rng.random() < 0.3:
                task.cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert slots.active == 0
    async with asyncio.timeout(5), slots.slot():
        pass
