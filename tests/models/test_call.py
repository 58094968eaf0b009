from __future__ import annotations

import asyncio
import contextlib
import pickle
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Model, Reply, Sampling
from verbal.errors import BudgetError, ConfigError, ModelError, RefusedError, TransientError
from verbal.models import (
    FORMS,
    Budget,
    CallRecord,
    Limits,
    ModelCalls,
    OverloadedError,
    Price,
    Retry,
    find_price,
    open_model,
    parse_model,
)
from verbal.models._calls import call_key
from verbal.models._concurrency import Concurrency
from verbal.models._prices import price_of
from verbal.models.anthropic import AnthropicModel
from verbal.models.http import HttpModel
from verbal.models.litellm import LiteLLMModel
from verbal.models.openai import OpenAIModel
from verbal.models.scripted import ScriptedModel
from verbal.types import Message, Usage

ASK = [Message(role="user", content="hello")]
FAST = Retry(attempts=4, first=0.001, longest=0.01)


class _Slow:
    """A model whose calls wait until they are let go; it counts how many are under way."""

    name = "test/slow"

    def __init__(self, tokens: int = 1) -> None:
        self.go = asyncio.Event()
        self.active = self.most = self.calls = 0
        self.tokens = tokens

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        self.calls += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await self.go.wait()
        finally:
            self.active -= 1
        usage = Usage(calls=1, prompt_tokens=self.tokens, completion_tokens=self.tokens, cost=None)
        return [Reply(text="done", usage=usage)] * n

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        yield "a"
        await self.go.wait()
        yield "b"

    async def check(self) -> str:
        return "ok"

    async def aclose(self) -> None:
        return None


def test_names_of_models() -> None:
    assert parse_model("http/org/m@https://h:1/v1").config == {"model": "org/m", "url": "https://h:1/v1"}
    assert parse_model("embedded:/a b/w.safetensors").config == {"path": "/a b/w.safetensors"}
    assert parse_model("ollama/llama3").part == "litellm" and parse_model(" embedded ").part == "embedded"
    for bad in (
        "",
        "gpt-4o",
        "openai/",
        "/x",
        "http/m",
        "litellm/x",
        "embedded/x",
        "http/m@ftp://h",
        "a b/c",
        "x/y@http://h",
    ):
        with pytest.raises(ConfigError) as caught:
            parse_model(bad)
        assert all(form in str(caught.value) for form in FORMS), bad


@given(st.text(max_size=30))
def test_any_name_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_model(text).part


def test_a_users_model_and_bad_options(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    name = 'mine/x'\n    def __init__(self, *, timeout=1):\n        self.t = timeout\n"
    )
    assert open_model(f"{tmp_path}/mine.py:Mine", timeout=3).t == 3  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="temprature"):
        open_model("openai/gpt-4o", temprature=1)


def test_importing_is_light() -> None:
    code = """
import sys, verbal.models
verbal.models.parse_model("openai/x")
heavy = {"litellm", "openai", "anthropic", "aiohttp", "numpy", "torch", "tenacity"} & set(sys.modules)
assert not heavy, heavy
for spec in ("openai/x", "anthropic/x", "groq/x", "http/x@http://h"):
    verbal.models.open_model(spec)
from verbal.models import ModelCalls, find_price
assert find_price("openai/gpt-4o")
heavy = {"litellm", "openai", "anthropic", "aiohttp", "numpy", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")
@pytest.mark.parametrize("kind", ["http", "openai", "litellm", "anthropic"])
async def test_the_server_sees_exactly_as_many_requests_as_tries(
    kind: str, openai_server: Any, anthropic_server: Any, servers: Any, keys: str
) -> None:
    server = anthropic_server if kind == "anthropic" else openai_server
    url = server.url if kind == "anthropic" else f"{server.url}/v1"
    model: Model = {
        "http": lambda: HttpModel("tiny-1", url),
        "openai": lambda: OpenAIModel("tiny-1", url=url),
        "litellm": lambda: LiteLLMModel("openai/tiny-1", url=url),
        "anthropic": lambda: AnthropicModel("tiny-1", url=url),
    }[kind]()
    records: list[CallRecord] = []
    calls = ModelCalls(model, retry=FAST, on_call=records.append)
    server.plan.extend([servers.fails(500), servers.fails(429, retry_after_ms="5"), servers.drops])
    (reply,) = await calls.generate(ASK, 1, Sampling())
    assert "hello" in reply.text and len(server.seen) == 4
    assert (records[0].retries, records[0].usage.calls, records[0].error) == (3, 4, None)
    server.always = servers.fails(500, "always")
    with pytest.raises(TransientError, match="try 4 of 4, the last"):
        await calls.generate(ASK, 1, Sampling())
    assert len(server.seen) == 8
    server.always = servers.fails(401)
    with pytest.raises(RefusedError):
        await calls.generate(ASK, 1, Sampling())
    assert len(server.seen) == 9 and [r.retries for r in records] == [3, 3, 0]
    assert records[2].error is not None and records[2].error.startswith("RefusedError")
    await calls.aclose()


def _state(number: int, error: Exception) -> Any:
    from tenacity import AsyncRetrying, Future, RetryCallState

    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number, state.outcome = number, Future(number)
    state.outcome.set_exception(error)
    return state


def test_waits_grow_and_honour_the_server() -> None:
    calls = ModelCalls(ScriptedModel(["x"]), retry=Retry(first=1.0, longest=8.0))
    calls._random = random.Random(0)
    for number, cap in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (50, 8.0)):
        waits = [calls._wait(_state(number, TransientError("x"))) for _ in range(300)]
        assert min(waits) >= 0 and cap * 0.9 < max(waits) <= cap
    asked = TransientError("x")
    asked.retry_after = 40.0
    assert all(40 <= calls._wait(_state(1, asked)) <= 41 for _ in range(50))


async def test_a_wait_past_the_deadline_is_not_begun(openai_server: Any, servers: Any) -> None:
    openai_server.always = servers.fails(503, retry_after="3600")
    calls = ModelCalls(HttpModel("tiny-1", openai_server.url), retry=Retry(deadline=60))
    with pytest.raises(OverloadedError) as caught:
        await calls.generate(ASK, 1, Sampling())
    assert caught.value.retry_after == 3600 and len(openai_server.seen) == 1
    assert pickle.loads(pickle.dumps(caught.value)).retry_after == 3600
    await calls.aclose()


async def test_time_outs_and_foreign_exceptions_become_model_errors() -> None:
    calls = ModelCalls(_Slow(), timeout=0.01, retry=Retry(attempts=2, first=0.0))
    with pytest.raises(TransientError, match=r"no answer within 0\.01 s"):
        await calls.generate(ASK, 1, Sampling())
    assert calls.budget.spent.calls == 2 and calls.concurrency.active == 0

    def broken(*_: Any) -> str:
        raise KeyError("inside Bearer abcdef")

    with pytest.raises(ModelError, match="KeyError") as caught:
        await ModelCalls(ScriptedModel(broken)).generate(ASK, 1, Sampling())
    assert "abcdef" not in str(caught.value)


async def test_a_provider_without_n_is_called_and_recorded_once_a_sample(anthropic_server: Any, keys: str) -> None:
    records: list[CallRecord] = []
    calls = ModelCalls(AnthropicModel("tiny-1", url=anthropic_server.url), on_call=records.append)
    assert len(await calls.generate(ASK, 3, Sampling(seed=1))) == len(anthropic_server.seen) == len(records) == 3
    assert len({r.id for r in records}) == len({r.key for r in records}) == 3
    await calls.aclose()


# concurrency ----------------------------------------------------------------------------------------------------------


async def test_calls_under_way_stay_below_the_limit() -> None:
    model = _Slow()
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


# limits and cost ------------------------------------------------------------------------------------------------------


async def test_a_limit_on_calls_stops_before_the_call_that_would_exceed_it(openai_server: Any) -> None:
    budget = Budget(Limits(max_calls=3))
    calls = ModelCalls(HttpModel("tiny-1", openai_server.url), budget=budget)
    results = await asyncio.gather(*(calls.generate(ASK, 1, Sampling()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(r, list) for r in results) == 3 == len(openai_server.seen) == budget.spent.calls
    assert all(isinstance(r, list | BudgetError) for r in results)
    await calls.aclose()


async def test_retries_count_against_the_limit(openai_server: Any, servers: Any) -> None:
    openai_server.always = servers.fails(500)
    calls = ModelCalls(HttpModel("tiny-1", openai_server.url), budget=Budget(Limits(max_calls=2)), retry=FAST)
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

    budget = Budget(Limits(max_tokens=limit, max_cost=limit * 2e-6))
    calls = ModelCalls(ScriptedModel(answer), budget=budget, price_in=1.0, price_out=2.0, concurrency=4)
    tasks = [
        calls.generate([Message(role="user", content=str(size))], 1, Sampling(max_tokens=size, seed=delay))
        for size, delay in jobs
    ]
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert all(isinstance(r, list | BudgetError) for r in results)
    assert budget.spent.tokens <= limit and (budget.spent.cost or 0.0) <= limit * 2e-6
    done = [r[0].usage for r in results if isinstance(r, list)]
    assert budget.spent.tokens == sum(u.tokens for u in done) and budget.spent.calls == len(done)


async def test_a_call_waits_for_others_that_stand_in_its_way_only_for_now() -> None:
    model = _Slow(tokens=1)
    calls = ModelCalls(model, budget=Budget(Limits(max_tokens=1000)))
    tasks = [asyncio.create_task(calls.generate(ASK, 1, Sampling(max_tokens=700))) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert model.active == 1
    model.go.set()
    assert all(len(r) == 1 for r in await asyncio.gather(*tasks))
    assert calls.budget.spent.tokens == 6


async def test_cancelling_a_call_frees_what_it_held() -> None:
    model = _Slow()
    records: list[CallRecord] = []
    calls = ModelCalls(model, budget=Budget(Limits(max_tokens=1000)), concurrency=1, on_call=records.append)
    tasks = [asyncio.create_task(calls.generate(ASK, 1, Sampling(max_tokens=700))) for _ in range(3)]
    await asyncio.sleep(0.01)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.sleep(0.01)
    model.go.set()
    assert len(await tasks[2]) == 1 and calls.concurrency.active == 0
    assert [r.error for r in records] == ["stopped by its caller", None], "the second was never sent"


async def test_a_limit_on_time_and_a_resumed_budget() -> None:
    now = [0.0]
    budget = Budget(Limits(max_seconds=60, max_calls=10), spent=Usage(calls=9), clock=lambda: now[0])
    calls = ModelCalls(ScriptedModel(["x"]), budget=budget)
    await calls.generate(ASK, 1, Sampling())
    with pytest.raises(BudgetError, match="10 calls"):
        await calls.generate(ASK, 1, Sampling())
    now[0] = 61.0
    with pytest.raises(BudgetError, match="60 s"):
        await calls.generate(ASK, 1, Sampling())


async def test_a_reply_without_usage_is_charged_at_its_worst(openai_server: Any, servers: Any) -> None:
    openai_server.always = servers.says(200, {"choices": [{"message": {"content": "x"}}]})
    budget = Budget(Limits(max_cost=1.0))
    model = HttpModel("tiny-1", openai_server.url)
    calls = ModelCalls(model, budget=budget, price_in=1.0, price_out=1.0)
    (reply,) = await calls.generate(ASK, 1, Sampling(max_tokens=100))
    assert reply.usage.cost is None, "not guessed"
    assert budget.spent.tokens > 100 and (budget.spent.cost or 0) > 1e-4
    await calls.aclose()


async def test_cost_is_priced_and_shared_over_samples(openai_server: Any) -> None:
    records: list[CallRecord] = []
    model = HttpModel("tiny-1", openai_server.url)
    calls = ModelCalls(model, price_in=1.0, price_out=2.0, on_call=records.append)
    replies = await calls.generate(ASK, 3, Sampling())
    total = 7 * 1e-6 + 12 * 2e-6
    assert sum(r.usage.cost or 0 for r in replies) == pytest.approx(total)
    assert records[0].usage.cost == pytest.approx(total) and calls.budget.spent.cost == pytest.approx(total)
    assert records[0].usage.seconds > 0 and records[0].seconds >= records[0].usage.seconds
    assert [r.usage.seconds > 0 for r in replies] == [True, False, False]
    await calls.aclose()


async def test_unknown_prices_are_never_guessed() -> None:
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
        ModelCalls(unknown, budget=Budget(Limits(max_cost=1.0)))
    with pytest.raises(ConfigError, match="price_in"):
        ModelCalls(ScriptedModel(["x"]), budget=Budget(Limits(max_cost=1.0))).beside(unknown)
    with pytest.raises(ConfigError, match="spent before"):
        Budget(Limits(max_cost=1.0), spent=Usage(cost=None))
    model = _Slow()
    model.go.set()
    calls = ModelCalls(model)
    (reply,) = await calls.generate(ASK, 1, Sampling())
    assert reply.usage.cost is None and calls.budget.spent.cost is None


# roles, keys, streams -------------------------------------------------------------------------------------------------


async def test_roles_and_models_share_budget_and_slots() -> None:
    records: list[CallRecord] = []
    calls = ModelCalls(ScriptedModel(["a"], name="one"), on_call=records.append)
    judge = calls.for_role("judge")
    other = calls.beside(ScriptedModel(["b"], name="two")).for_role("critic")
    for model in (calls, judge, other):
        assert isinstance(model, Model)
        await model.generate(ASK, 1, Sampling())
    assert [(r.role, r.model) for r in records] == [
        ("solver", "scripted/one"),
        ("judge", "scripted/one"),
        ("critic", "scripted/two"),
    ]
    assert calls.budget is other.budget and calls.concurrency is judge.concurrency is other.concurrency
    assert calls.budget.spent.calls == 3 and records[0].key == records[1].key != records[2].key
    assert len({r.id for r in records}) == 3


def test_keys_depend_on_everything_that_is_sent() -> None:
    base = call_key("m", ASK, 1, Sampling())
    assert base == call_key("m", list(ASK), 1, Sampling()) and len(base) == 32
    others = [
        call_key("n", ASK, 1, Sampling()),
        call_key("m", ASK * 2, 1, Sampling()),
        call_key("m", ASK, 2, Sampling()),
        call_key("m", ASK, 1, Sampling(seed=1)),
        call_key("m", ASK, 1, Sampling(tools=({"type": "function"},))),
    ]
    assert len({base, *others}) == 6


async def test_a_stream_is_tried_again_only_before_its_first_piece(openai_server: Any, servers: Any) -> None:
    records: list[CallRecord] = []
    model = HttpModel("tiny-1", openai_server.url)
    calls = ModelCalls(model, retry=FAST, price_in=1.0, price_out=1.0, on_call=records.append)
    openai_server.plan.extend([servers.fails(500), servers.streams([])])
    assert "".join([p async for p in calls.stream(ASK, Sampling())]) == "reply 0 to hello "
    assert len(openai_server.seen) == 3 and records[0].retries == 2
    assert records[0].usage.tokens == 11 and records[0].usage.cost == pytest.approx(11e-6)
    half = 'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'
    openai_server.plan.append(servers.streams([half]))
    seen = []
    with pytest.raises(TransientError):
        async for piece in calls.stream(ASK, Sampling()):
            seen.append(piece)
    assert seen == ["half"] and len(openai_server.seen) == 4
    assert records[1].error is not None and calls.concurrency.active == 0
    await calls.aclose()


async def test_a_reader_that_stops_early_frees_the_slot() -> None:
    records: list[CallRecord] = []
    calls = ModelCalls(_Slow(), concurrency=1, on_call=records.append, timeout=5)
    stream = calls.stream(ASK, Sampling())
    assert await anext(stream) == "a" and calls.concurrency.active == 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert calls.concurrency.active == 0 and calls.budget.spent.calls == 1
    assert records[0].error == "stopped by its caller"
    empty = ModelCalls(ScriptedModel([""]))
    assert [p async for p in empty.stream(ASK, Sampling())] == []


def test_calls_work_in_one_event_loop_after_another() -> None:
    calls = ModelCalls(ScriptedModel(["x"], latency=0.001), concurrency=1, budget=Budget(Limits(max_tokens=10_000)))

    async def several() -> int:
        return len(await asyncio.gather(*(calls.generate(ASK, 1, Sampling(max_tokens=4000)) for _ in range(4))))

    assert asyncio.run(several()) == asyncio.run(several()) == 4
