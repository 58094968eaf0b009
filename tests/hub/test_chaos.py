"""Injected faults: the same for the same seed, worded as adapters word them, counted, and survived by ModelCalls."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from verbal.chaos import ALL, DAMAGES, RAISED, ChaosModel, Kind
from verbal.contracts import Model, Reply, Sampling
from verbal.errors import ConfigError, TransientError
from verbal.models import ModelCalls, OverloadedError, Retry
from verbal.models._wire import StreamsReply
from verbal.testing import ScriptedModel
from verbal.types import Message, Usage

TEXT = "the code of anchor is 117"
FAST = Retry(attempts=30, first=0.0001)


def ask(number: int = 0) -> list[Message]:
    return [Message(role="user", content=f"question {number}")]


def chaos(kind: Kind | Sequence[Kind] = ALL, *, rate: float = 1.0, seed: int = 3, **options: Any) -> ChaosModel:
    kinds = [kind] if isinstance(kind, str) else kind
    return ChaosModel(ScriptedModel([TEXT]), rate=rate, seed=seed, kinds=kinds, **options)


async def pieces(model: Any) -> list[Any]:
    """What a stream gives before it fails, the failure last."""
    found: list[Any] = []
    try:
        async for piece in model.stream_reply(ask(), Sampling()):
            found.append(piece)
    except TransientError as error:
        found.append(error)
    return found


def test_it_is_a_model_whose_name_tells() -> None:
    model = chaos()
    assert isinstance(model, Model) and isinstance(model, StreamsReply)
    assert model.name == "scripted/list+chaos", "what it says must not be taken for the model's own in a cache"
    assert (model.url, model.local, model.one_per_call) == (None, False, False)
    assert len({chaos(seed=s, rate=r).fingerprint for s in (1, 2) for r in (0.1, 0.2)}) == 4, (
        "nor that of other weather"
    )
    assert set(ALL) == {*RAISED, *DAMAGES} and len(ALL) == len(RAISED) + len(DAMAGES)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"rate": 1.5}, "rate of faults is 1.5"), ({"kind": ["rain"]}, "no fault is named 'rain'"), ({"kind": []}, "no")],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        chaos(**options)
    assert caught.value.where and caught.value.todo


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("way", ["generate", "stream"])
async def test_what_an_adapter_raises_is_raised_and_explained(kind: Kind, way: str) -> None:
    model = chaos(kind, hang=0.001, retry_after=7)
    if way == "generate":
        with pytest.raises(TransientError) as caught:
            await model.generate(ask(), 2, Sampling())
        error = caught.value
    else:
        *before, error = await pieces(model)
        assert "".join(before) == (TEXT[: len("the code of")] if kind in ("truncated", "not_json") else "")
    assert isinstance(error, TransientError)
    assert isinstance(error, OverloadedError) is (kind in ("rate_limit", "overloaded"))
    assert error.retry_after == (7.0 if kind == "rate_limit" else None)
    assert error.what and error.where == model.name and error.todo
    assert model.injected == {kind: 1} and model.tries == 1


@pytest.mark.parametrize(
    ("kind", "text", "finish"),
    [
        ("garbled", "t\ufffde\ufffdod\ufffd o\ufffd a\ufffdch\ufffdr\ufffds\ufffd11\ufffd", "stop"),
        ("cut", "the code of ", "length"),
        ("tool_call", "", "tool_calls"),
        ("empty", "", "stop"),
        ("slow", TEXT, "stop"),
    ],
)
async def test_what_an_adapter_hands_over_comes_as_a_reply(kind: Kind, text: str, finish: str) -> None:
    model = chaos(kind, slow=0.0)
    (first, second) = await model.generate(ask(), 2, Sampling())
    for reply in (first, second):
        if kind != "garbled":
            assert reply.text == text
        assert ("\ufffd" in reply.text) is (kind == "garbled")
        assert reply.finish == finish
        if kind == "tool_call":
            assert reply.tool_calls[0].arguments == '{"answer": "' + TEXT
    assert first.usage.calls == 1 and first.usage.tokens > 0, "a bad reply is billed like a good one"
    *said, last = await pieces(model)
    assert isinstance(last, Reply) and "".join(said) == last.text
    assert (last.finish, last.tool_calls, last.text) == (first.finish, first.tool_calls, first.text)
    assert model.injected == {kind: 3}


async def test_the_weather_depends_on_the_call_and_never_on_the_order() -> None:
    async def day(order: Sequence[int], seed: int = 3) -> tuple[dict[int, tuple[str, str]], Any]:
        model = chaos(rate=0.5, seed=seed, hang=0.0, slow=0.0, retry_after=0.0)
        calls = ModelCalls(model, retry=FAST)
        replies = await asyncio.gather(*(calls.generate(ask(i), 1, Sampling()) for i in order))
        found = {i: (r.text, r.finish) for i, (r,) in zip(order, replies, strict=True)}
        return found, model.injected

    numbers = list(range(60))
    one, two, other = await day(numbers), await day(numbers[::-1]), await day(numbers, seed=4)
    assert one == two
    assert one != other
    first, _ = await day(numbers[:30])
    second, _ = await day(numbers[30:])
    assert first | second == one[0], "a run that was stopped and resumed meets the same weather"


async def test_equal_calls_side_by_side_meet_the_same() -> None:
    model = chaos(RAISED, rate=0.7, hang=0.0, retry_after=0.0)
    calls = ModelCalls(model, retry=FAST)
    await calls.generate(ask(), 1, Sampling())
    alone = model.tries
    await asyncio.gather(*(calls.generate(ask(), 1, Sampling()) for _ in range(10)))
    assert alone > 1 and model.tries == 11 * alone


async def test_the_rate_holds_and_every_kind_comes() -> None:
    model = chaos(rate=0.2, hang=0.0, slow=0.0, retry_after=0.0)
    drawn = collections.Counter(model.weather(ask(i), Sampling()) for i in range(6000))
    assert 0.18 < 1 - drawn.pop(None) / 6000 < 0.22
    assert set(drawn) == set(ALL) and min(drawn.values()) > 60
    assert chaos(rate=0.0).weather(ask(), Sampling()) is None
    assert model.weather(ask(7), Sampling(), attempt=1) == model.weather(ask(7), Sampling())
    seeds = {model.weather(ask(), Sampling(seed=s), index=i) for s in range(40) for i in range(4)}
    assert len(seeds) > 5, "the sampling and the sample's index count"


async def test_a_model_that_never_returns_is_left_by_the_time_out_of_the_calls() -> None:
    model = chaos("hang")
    calls = ModelCalls(model, retry=Retry(attempts=2, first=0.001), timeout=0.02)
    async with asyncio.timeout(10):
        with pytest.raises(TransientError, match=r"no answer within 0.02 s") as caught:
            await calls.generate(ask(), 1, Sampling())
    assert "try 2 of 2" in caught.value.where and caught.value.todo
    assert model.injected == {"hang": 2}


async def test_the_clock_is_the_tests_own() -> None:
    waited: list[float] = []

    async def clock(seconds: float) -> None:
        waited.append(seconds)

    slow = chaos("slow", slow=30.0, clock=clock)
    assert (await slow.generate(ask(), 1, Sampling()))[0].text == TEXT
    with pytest.raises(TransientError, match="no answer within 600 s"):
        await chaos("hang", hang=600.0, clock=clock).generate(ask(), 1, Sampling())
    assert waited == [30.0, 600.0]


class Plain:
    """A model that streams text only, and notes when its stream is closed."""

    name, closed = "test/plain", False

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        return [Reply(text=TEXT, usage=Usage(calls=1))] * n

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        try:
            for word in TEXT.split():
                yield f"{word} "
        finally:
            self.closed = True

    async def check(self) -> str:
        return "ok"

    async def aclose(self) -> None:
        self.closed = True


async def test_a_model_that_streams_text_only() -> None:
    inner = Plain()
    model = ChaosModel(inner, rate=0.0, seed=0)
    *said, last = await pieces(model)
    assert "".join(said) == last.text == f"{TEXT} "
    said = [piece async for piece in model.stream(ask(), Sampling())]
    assert "".join(said) == f"{TEXT} "
    inner.closed = False
    stream = model.stream_reply(ask(), Sampling())
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert inner.closed, "a reader that stops early leaves nothing open"
    assert await model.check() == "ok (with faults, rate 0, seed 0)"


async def test_a_stream_that_breaks_before_its_first_piece_is_tried_again() -> None:
    model = chaos(("rate_limit", "server_error", "dropped"), rate=0.6, seed=2, retry_after=0.0)
    calls = ModelCalls(model, retry=FAST)
    said = ["".join([p async for p in calls.stream(ask(i), Sampling())]) for i in range(10)]
    assert said == [TEXT] * 10
    assert model.injected
