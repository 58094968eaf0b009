"""Every fault on the wire becomes a retried call, an explained error or a reply that shows what is wrong with it.

Never a crash, never a hang, never a wrong answer that looks right. The faults are in wire_weather.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import wire_weather as wire
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Reply, Sampling
from verbal.errors import ModelError, TransientError
from verbal.models import ModelCalls, Retry
from verbal.models._wire import StreamedReply, read_replies
from verbal.models.http import HttpModel
from verbal.types import Message

FAST = Retry(attempts=3, first=0.001, longest=0.01)
TIMEOUT = 0.25


WAYS = ("generate", "stream")
BROKEN = ("stalls", "cut_off", "ends_early")


def ask(text: str = "hello") -> list[Message]:
    return [Message(role="user", content=text)]


async def answer(calls: ModelCalls, way: str, text: str = "hello") -> Reply:
    """One reply, asked for in either way; a call that hangs fails here."""
    async with asyncio.timeout(20):
        if way == "generate":
            return (await calls.generate(ask(text), 1, Sampling()))[0]
        return Reply(text="".join([piece async for piece in calls.stream(ask(text), Sampling())]).rstrip())


@pytest.fixture
async def calls(openai_server: Any) -> AsyncIterator[ModelCalls]:
    """Calls to the server through the adapter that users have."""
    made = ModelCalls(HttpModel("tiny-1", f"{openai_server.url}/v1"), retry=FAST, timeout=TIMEOUT)
    yield made
    await made.aclose()


def explained(error: ModelError) -> bool:
    """All three parts are there, and it is not taken for a fault of the adapter."""
    return bool(error.what and error.where and error.todo) and "fault in its adapter" not in error.todo


def marked(kind: str, reply: Reply) -> bool:
    """Whether a bad reply shows that it is bad."""
    if kind == "half_arguments":
        with pytest.raises(ValueError):
            json.loads(reply.tool_calls[0].arguments)
    return {
        "cut": reply.finish == "length",
        "half_arguments": reply.finish == "tool_calls" and not reply.text,
        "empty": reply.text == "",
        "null_content": reply.text == "",
        "bad_bytes": "\ufffd" in reply.text,
        "odd_finish": reply.finish == "error",
        "filtered": reply.finish == "content_filter",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "way"),
    # Of a stream that broke, the reader may have a piece already: see below.
    [(k, w) for k in sorted(wire.RETRIED) for w in WAYS if w == "generate" or k not in BROKEN],
)
async def test_a_fault_that_passes_is_not_noticed(kind: str, way: str, openai_server: Any, calls: ModelCalls) -> None:
    openai_server.plan.append(wire.RETRIED[kind])
    assert (await answer(calls, way)).text == "reply 0 to hello"
    assert len(openai_server.seen) == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", sorted(wire.RETRIED | wire.EXPLAINED))
async def test_a_fault_that_stays_is_explained(kind: str, way: str, openai_server: Any, calls: ModelCalls) -> None:
    openai_server.always = wire.KINDS[kind]
    with pytest.raises(ModelError) as caught:
        await answer(calls, way)
    assert explained(caught.value), str(caught.value)
    # Inside a stream no status tells whether the server's error lasts, so it is tried again.
    lasts = kind in wire.EXPLAINED and (way, kind) != ("stream", "error_object")
    assert isinstance(caught.value, TransientError) is not lasts, str(caught.value)
    if lasts:
        assert len(openai_server.seen) == 1, "what lasts is not asked for again"


@pytest.mark.parametrize("kind", sorted(wire.MARKED))
async def test_a_bad_reply_shows_what_is_wrong_with_it(kind: str, openai_server: Any, calls: ModelCalls) -> None:
    openai_server.always = wire.MARKED[kind]
    assert marked(kind, await answer(calls, "generate"))
    model: Any = calls.model
    async for piece in model.stream_reply(ask(), Sampling()):
        last = piece
    assert isinstance(last, Reply) and marked(kind, last)


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_stream_that_breaks_after_a_piece_is_told(kind: str, openai_server: Any, calls: ModelCalls) -> None:
    openai_server.plan.append(wire.RETRIED[kind])
    said = []
    with pytest.raises(TransientError) as caught:
        async with asyncio.timeout(20):
            async for piece in calls.stream(ask(), Sampling()):
                said.append(piece)
    assert said == [wire.HALF] and explained(caught.value)
    assert len(openai_server.seen) == 1, "what the reader has is not begun anew"


async def test_a_storm(openai_server: Any, calls: ModelCalls) -> None:
    weather = wire.Weather(openai_server.answer, rate=0.3, seed=1)
    openai_server.always = weather
    questions = [f"question {i}" for i in range(500)]
    async with asyncio.timeout(120):
        found = await asyncio.gather(*(answer(calls, "generate", q) for q in questions), return_exceptions=True)
    outcomes = {"right": 0, "explained": 0, "marked": 0}
    for question, got in zip(questions, found, strict=True):
        last = weather.sent[question][-1]
        if isinstance(got, ModelError):
            assert explained(got) and last in wire.KINDS, f"{last}: {got}"
            outcomes["explained"] += 1
        elif isinstance(got, BaseException):
            pytest.fail(f"{last} was not explained: {got!r}")
        elif last:
            assert last in wire.MARKED and marked(last, got), f"{last} gave {got!r}"
            outcomes["marked"] += 1
        else:
            assert (got.text, got.finish) == (f"reply 0 to {question}", "stop")
            outcomes["right"] += 1
    assert set(weather.injected) == set(wire.KINDS), "every fault came"
    assert outcomes["right"] > 300 and min(outcomes.values()) > 0


# fmt: off
_WORDS = [
    "choices", "message", "content", "delta", "function", "name", "arguments", "index", "finish_reason",
    "usage", "prompt_tokens", "completion_tokens", "logprobs", "logprob", "token_ids", "error", "text", "refusal", "id",
    "tool_calls",
]
# fmt: on
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "stop", "{", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=12,
)


def shaped(choice: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Bodies that are right on the outside and anything inside."""
    return _PLAIN | st.fixed_dictionaries(
        {"choices": st.lists(choice, min_size=1, max_size=2)}, optional={"usage": _PLAIN}
    )


_SCALAR = st.sampled_from([None, True, 3, -1.5, "", "x"])
_CALLS = st.lists(_SCALAR | st.fixed_dictionaries({"function": _PLAIN}), max_size=2)
_PART = {"content": _SCALAR | _PLAIN, "tool_calls": st.sampled_from([None, "", "x"]) | _CALLS}
_REST = {"finish_reason": _SCALAR | _PLAIN, "index": _SCALAR, "logprobs": _PLAIN, "token_ids": _PLAIN}
_CHOICE = st.fixed_dictionaries({"message": st.fixed_dictionaries({}, optional=_PART) | _PLAIN}, optional=_REST)
_DELTA = st.fixed_dictionaries({"delta": st.fixed_dictionaries({}, optional=_PART) | _PLAIN}, optional=_REST)


@settings(max_examples=300)
@given(shaped(_CHOICE | _PLAIN))
def test_any_json_is_replies_or_an_error_in_three_parts(body: Any) -> None:
    try:
        replies = read_replies(body, name="m", where="here")
    except ModelError as error:
        assert explained(error)
    else:
        assert replies and all(isinstance(r.text, str) and r.usage.tokens >= 0 for r in replies)


@settings(max_examples=300)
@given(st.lists(shaped(_DELTA | _PLAIN), max_size=4))
def test_any_chunks_are_a_reply_or_an_error_in_three_parts(chunks: list[Any]) -> None:
    streamed = StreamedReply(name="m", where="here")
    try:
        for chunk in chunks:
            assert isinstance(streamed.add(chunk), str)
        reply = streamed.reply()
    except ModelError as error:
        assert explained(error)
    else:
        assert isinstance(reply.text, str) and all(isinstance(c.arguments, str) for c in reply.tool_calls)


def test_tool_calls_that_are_a_number() -> None:
    with pytest.raises(TransientError):
        read_replies({"choices": [{"message": {"content": "x", "tool_calls": 3}}]}, name="m", where="here")


async def test_a_pause_of_a_day_is_told_and_not_waited_for(openai_server: Any, calls: ModelCalls, servers: Any) -> None:
    openai_server.plan.append(servers.fails(429, "come back tomorrow", retry_after="86400"))
    for text in ("one", "two"):
        with pytest.raises(TransientError) as caught:
            async with asyncio.timeout(2):
                await calls.generate(ask(text), 1, Sampling())
        assert explained(caught.value), str(caught.value)
