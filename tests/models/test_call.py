from __future__ import annotations

import asyncio
import pickle
import random
from typing import Any

import pytest

from verbal.contracts import Model, Sampling
from verbal.errors import ModelError, RefusedError, TransientError
from verbal.ledger import Ledger, Limits
from verbal.models import (
    CallRecord,
    ModelCalls,
    OverloadedError,
    Retry,
)
from verbal.models.anthropic import AnthropicModel
from verbal.models.http import HttpModel
from verbal.models.litellm import LiteLLMModel
from verbal.models.openai import OpenAIModel
from verbal.models.scripted import ScriptedModel
from verbal.types import Message

ASK = [Message(role="user", content="hello")]
FAST = Retry(attempts=4, first=0.001, longest=0.01)


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


async def test_time_outs_and_foreign_exceptions_become_model_errors(slow_model: Any) -> None:
    calls = ModelCalls(slow_model, timeout=0.01, retry=Retry(attempts=2, first=0.0))
    with pytest.raises(TransientError, match=r"no answer within 0\.01 s"):
        await calls.generate(ASK, 1, Sampling())
    assert calls.ledger.spent.calls == 2 and calls.concurrency.active == 0

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
    assert calls.ledger is other.ledger and calls.concurrency is judge.concurrency is other.concurrency
    assert calls.ledger.spent.calls == 3 and records[0].key == records[1].key != records[2].key
    assert len({r.id for r in records}) == 3


async def test_a_stream_is_tried_again_only_before_its_first_piece(openai_server: Any, servers: Any) -> None:
    records: list[CallRecord] = []
    model = HttpModel("tiny-1", openai_server.url)
    calls = ModelCalls(model, retry=FAST, price_in=1.0, price_out=1.0, on_call=records.append)
    openai_server.plan.extend([servers.fails(500), servers.streams([])])
    assert "".join([p async for p in calls.stream(ASK, Sampling())]) == "reply 0 to hello "
    assert len(openai_server.seen) == 3 and records[0].retries == 2
    worst = calls.worst(ASK, 1, Sampling()).tokens  # the stream that broke off may have been written, and billed
    assert records[0].usage.tokens == 11 + worst and records[0].usage.cost == pytest.approx((11 + worst) * 1e-6)
    half = 'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'
    openai_server.plan.append(servers.streams([half]))
    seen = []
    with pytest.raises(TransientError):
        async for piece in calls.stream(ASK, Sampling()):
            seen.append(piece)
    assert seen == ["half"] and len(openai_server.seen) == 4
    assert records[1].error is not None and calls.concurrency.active == 0
    await calls.aclose()


async def test_a_reader_that_stops_early_frees_the_slot(slow_model: Any) -> None:
    records: list[CallRecord] = []
    calls = ModelCalls(slow_model, concurrency=1, on_call=records.append, timeout=5)
    stream = calls.stream(ASK, Sampling())
    assert await anext(stream) == "a" and calls.concurrency.active == 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert calls.concurrency.active == 0 and calls.ledger.spent.calls == 1
    assert records[0].error == "stopped by its caller"
    empty = ModelCalls(ScriptedModel([""]))
    assert [p async for p in empty.stream(ASK, Sampling())] == []


def test_calls_work_in_one_event_loop_after_another() -> None:
    calls = ModelCalls(ScriptedModel(["x"], latency=0.001), concurrency=1, ledger=Ledger(Limits(max_tokens=10_000)))

    async def several() -> int:
        return len(await asyncio.gather(*(calls.generate(ASK, 1, Sampling(max_tokens=4000)) for _ in range(4))))

    assert asyncio.run(several()) == asyncio.run(several()) == 4
