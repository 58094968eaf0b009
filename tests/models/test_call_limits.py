from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Sampling
from verbal.errors import BudgetError, ConfigError
from verbal.ledger import Ledger, Limits
from verbal.models import (
    CallRecord,
    ModelCalls,
    Price,
    Retry,
    find_price,
)
from verbal.models._prices import price_of
from verbal.models.http import HttpModel
from verbal.models.scripted import ScriptedModel
from verbal.types import Message, Usage

ASK = [Message(role="user", content="hello")]
FAST = Retry(attempts=4, first=0.001, longest=0.01)


async def test_a_limit_on_calls_stops_before_the_call_that_would_exceed_it(openai_server: Any) -> None:
    ledger = Ledger(Limits(max_calls=3))
    calls = ModelCalls(HttpModel("tiny-1", openai_server.url), ledger=ledger)
    results = await asyncio.gather(*(calls.generate(ASK, 1, Sampling()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(r, list) for r in results) == 3 == len(openai_server.seen) == ledger.spent.calls
    assert all(isinstance(r, list | BudgetError) for r in results)
    await calls.aclose()


async def test_retries_count_against_the_limit(openai_server: Any, servers: Any) -> None:
    openai_server.always = servers.fails(500)
    calls = ModelCalls(HttpModel("tiny-1", openai_server.url), ledger=Ledger(Limits(max_calls=2)), retry=FAST)
    with pytest.raises(BudgetError, match="limit of 2 calls"):
        await calls.generate(ASK, 1, Sampling())
    assert len(openai_server.seen) == 2
    await calls.aclose()


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3)), min_size=1, max_size=25),
    st.integers(100, 3000),
)
@settings(max_examples=60, deadline=None)
async def test_tokens_and_money_never_exceed_their_limits(jobs: list[tuple[int, int]], limit: int) -> None:
    async def answer(messages: Sequence[Message], index: int, seed: int | None) -> str:
        for _ in range((seed or 0) % 4):
            await asyncio.sleep(0)
        return "w " * (int(messages[0].content) - 1) + "w"

    ledger = Ledger(Limits(max_tokens=limit, max_cost=limit * 2e-6))
    calls = ModelCalls(ScriptedModel(answer), ledger=ledger, price_in=1.0, price_out=2.0, concurrency=4)
    tasks = [
        calls.generate([Message(role="user", content=str(size))], 1, Sampling(max_tokens=size, seed=delay))
        for size, delay in jobs
    ]
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert all(isinstance(r, list | BudgetError) for r in results)
    assert ledger.spent.tokens <= limit and (ledger.spent.cost or 0.0) <= limit * 2e-6
    done = [r[0].usage for r in results if isinstance(r, list)]
    assert ledger.spent.tokens == sum(u.tokens for u in done) and ledger.spent.calls == len(done)


async def test_a_call_waits_for_others_that_stand_in_its_way_only_for_now(slow_model: Any) -> None:
    model = slow_model
    calls = ModelCalls(model, ledger=Ledger(Limits(max_tokens=1000)))
    tasks = [asyncio.create_task(calls.generate(ASK, 1, Sampling(max_tokens=700))) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert model.active == 1
    model.go.set()
    assert all(len(r) == 1 for r in await asyncio.gather(*tasks))
    assert calls.ledger.spent.tokens == 6


async def test_cancelling_a_call_frees_its_slot_and_counts_it_at_its_worst(slow_model: Any) -> None:
    model = slow_model
    records: list[CallRecord] = []
    calls = ModelCalls(model, ledger=Ledger(Limits(max_tokens=2000)), concurrency=1, on_call=records.append)
    tasks = [asyncio.create_task(calls.generate(ASK, 1, Sampling(max_tokens=700))) for _ in range(3)]
    await asyncio.sleep(0.01)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.sleep(0.01)
    model.go.set()
    assert len(await tasks[2]) == 1 and calls.concurrency.active == 0
    assert [r.error for r in records] == ["stopped by its caller", None], "the second was never sent"
    assert records[0].usage.tokens > 700, "its provider may have written the answer, and bill it"
    assert calls.ledger.spent.tokens == sum(r.usage.tokens for r in records)


async def test_a_limit_on_time_and_a_resumed_budget() -> None:
    now = [0.0]
    ledger = Ledger(Limits(max_seconds=60, max_calls=10), spent=Usage(calls=9), clock=lambda: now[0])
    calls = ModelCalls(ScriptedModel(["x"]), ledger=ledger)
    await calls.generate(ASK, 1, Sampling())
    with pytest.raises(BudgetError, match="10 calls"):
        await calls.generate(ASK, 1, Sampling())
    now[0] = 61.0
    with pytest.raises(BudgetError, match="60 s"):
        await calls.generate(ASK, 1, Sampling())


async def test_a_reply_without_usage_is_charged_at_its_worst(openai_server: Any, servers: Any) -> None:
    openai_server.always = servers.says(200, {"choices": [{"message": {"content": "x"}}]})
    ledger = Ledger(Limits(max_cost=1.0))
    model = HttpModel("tiny-1", openai_server.url)
    calls = ModelCalls(model, ledger=ledger, price_in=1.0, price_out=1.0)
    (reply,) = await calls.generate(ASK, 1, Sampling(max_tokens=100))
    assert reply.usage.cost is None, "not guessed"
    assert ledger.spent.tokens > 100 and (ledger.spent.cost or 0) > 1e-4
    await calls.aclose()


async def test_cost_is_priced_and_shared_over_samples(openai_server: Any) -> None:
    records: list[CallRecord] = []
    model = HttpModel("tiny-1", openai_server.url)
    calls = ModelCalls(model, price_in=1.0, price_out=2.0, on_call=records.append)
    replies = await calls.generate(ASK, 3, Sampling())
    total = 7 * 1e-6 + 12 * 2e-6
    assert sum(r.usage.cost or 0 for r in replies) == pytest.approx(total)
    assert records[0].usage.cost == pytest.approx(total) and calls.ledger.spent.cost == pytest.approx(total)
    assert records[0].usage.seconds > 0 and records[0].seconds >= records[0].usage.seconds
    assert [r.usage.seconds > 0 for r in replies] == [True, False, False]
    await calls.aclose()


async def test_unknown_prices_are_never_guessed(slow_model: Any) -> None:
    assert find_price("openai/no-such-model") is None and find_price("gpt-4o") is None
    assert find_price("anthropic/gpt-4o") is None, "a model of another provider"
    known = find_price("litellm/openai/gpt-4o-mini")
    assert known == find_price("openai/gpt-4o-mini") and known and known.cost(1_000_000, 0) == known.prompt > 0
    assert Price(prompt=1, completion=2, above=((10, 3, 4),)).cost(11, 1) == pytest.approx(37e-6)
    free = Price(prompt=0.0, completion=0.0)
    assert price_of(ScriptedModel(["x"])) == free == price_of(HttpModel("m", "http://localhost:1/v1"))
    assert price_of(HttpModel("m", "https://models.example.org/v1")) is None
    unknown = HttpModel("m", "https://models.example.org/v1")
    with pytest.raises(ConfigError, match="price_in"):
        ModelCalls(unknown, ledger=Ledger(Limits(max_cost=1.0)))
    with pytest.raises(ConfigError, match="price_in"):
        ModelCalls(ScriptedModel(["x"]), ledger=Ledger(Limits(max_cost=1.0))).beside(unknown)
    with pytest.raises(ConfigError, match="spent before"):
        Ledger(Limits(max_cost=1.0), spent=Usage(cost=None))
    model = slow_model
    model.go.set()
    calls = ModelCalls(model)
    (reply,) = await calls.generate(ASK, 1, Sampling())
    assert reply.usage.cost is None and calls.ledger.spent.cost is None
