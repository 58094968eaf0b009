from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import Model, Sampling
from verbal.errors import ConfigError, ContextLengthError, ModelError, RefusedError, TransientError, UnknownName
from verbal.models import OverloadedError, open_model
from verbal.models.anthropic import AnthropicModel, read_message, write_tool, write_turns
from verbal.types import Message, ToolCall

ASK = [Message(role="system", content="be brief"), Message(role="user", content="hello")]
TOOL = {"type": "function", "function": {"name": "query", "description": "runs SQL", "parameters": {"type": "object"}}}


@pytest.fixture
async def model(anthropic_server: Any, keys: str) -> Any:
    model = AnthropicModel("tiny-1", url=anthropic_server.url, timeout=5)
    yield model
    await model.aclose()


async def test_the_environment_names_key_and_url(
    anthropic_server: Any, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", anthropic_server.url)
    model = open_model("anthropic/tiny-1")
    assert isinstance(model, Model) and keys not in repr(model)
    (reply,) = await model.generate(ASK, 1, Sampling())
    assert (reply.text, reply.model, reply.finish) == ("reply to hello", "anthropic/tiny-1", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.cost) == (7, 3, None)
    # Version 2 of the SDK sends a bearer token, version 1 the key in a header of its own.
    assert keys in (anthropic_server.headers[0].get("x-api-key") or anthropic_server.headers[0]["authorization"])
    await model.aclose()


async def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set"):
        await AnthropicModel("m").check()


async def test_what_is_sent(model: Any, anthropic_server: Any) -> None:
    await model.generate(ASK, 1, Sampling(temperature=0.5, top_p=0.9, seed=4, stop=("E",), max_tokens=9))
    (body,) = anthropic_server.seen
    assert body == {
        "model": "tiny-1",
        "max_tokens": 9,
        "system": "be brief",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "stop_sequences": ["E"],
        "temperature": 0.5,
        "top_p": 0.9,
    }


async def test_every_sample_is_a_call(model: Any, anthropic_server: Any) -> None:
    replies = await model.generate(ASK, 3, Sampling())
    assert len(replies) == len(anthropic_server.seen) == sum(r.usage.calls for r in replies) == 3


async def test_tool_calls_both_ways(model: Any, anthropic_server: Any) -> None:
    calls = (ToolCall(id="t0", name="query", arguments='{"y": 2}'), ToolCall(id="t1", name="query", arguments="{bad"))
    history = [*ASK, Message(role="assistant", content="let me see", tool_calls=calls)]
    history += [Message(role="tool", content=f"rows {i}", tool_call_id=f"t{i}") for i in range(2)]
    (reply,) = await model.generate(history, 1, Sampling(tools=(TOOL,)))
    assert reply.tool_calls == (ToolCall(id="t1", name="query", arguments='{"x": 1}'),)
    assert reply.finish == "tool_calls" and reply.text == "reply to rows 1"
    (body,) = anthropic_server.seen
    assert body["tools"] == [{"name": "query", "description": "runs SQL", "input_schema": {"type": "object"}}]
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
    assert [b.get("input") for b in body["messages"][1]["content"]] == [None, {"y": 2}, {"arguments": "{bad"}]
    assert [b["tool_use_id"] for b in body["messages"][2]["content"]] == ["t0", "t1"]
    with pytest.raises(ConfigError):
        write_tool({"name": "query"})


async def test_streams(model: Any, anthropic_server: Any, servers: Any) -> None:
    *pieces, reply = [p async for p in model.stream_reply(ASK, Sampling(tools=(TOOL,)))]
    assert "".join(pieces) == reply.text == "reply to hello "
    assert reply.tool_calls == (ToolCall(id="t1", name="query", arguments='{"x": 1}'),)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.finish) == (7, 3, "tool_calls")
    start = 'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}}\n\n'
    error = 'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
    odd = 'data: {"type": "content_block_delta", "index": 0, "delta": [1]}\n\n'
    for events, abort, kind in (
        ([odd], False, TransientError),
        ([start], False, TransientError),
        ([start], True, TransientError),
        ([start, "data: {no\n\n"], False, TransientError),
        ([start, error], False, OverloadedError),
    ):
        anthropic_server.plan.append(servers.streams(events, abort=abort))
        with pytest.raises(TransientError) as caught:
            _ = [p async for p in model.stream(ASK, Sampling())]
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "error", "message", "kind"),
    [
        (400, "invalid_request_error", "bad", RefusedError),
        (400, "invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum", ContextLengthError),
        (400, "invalid_request_error", "Your credit balance is too low", RefusedError),
        (401, "authentication_error", "invalid x-api-key", RefusedError),
        (404, "not_found_error", "model: x", RefusedError),
        (429, "rate_limit_error", "slow", OverloadedError),
        (500, "api_error", "oops", TransientError),
        (529, "overloaded_error", "Overloaded", OverloadedError),
    ],
)
async def test_statuses(
    model: Any, anthropic_server: Any, servers: Any, keys: str, status: int, error: str, message: str, kind: Any
) -> None:
    body = anthropic_server.error(error, f"{message} {keys}")
    anthropic_server.always = servers.says(status, body, {"retry-after-ms": "1500"})
    with pytest.raises(ModelError) as caught:
        await model.generate(ASK, 1, Sampling())
    assert type(caught.value) is kind and message in caught.value.what and keys not in str(caught.value)
    assert len(anthropic_server.seen) == 1, "the SDK does not retry"
    if isinstance(caught.value, TransientError):
        assert caught.value.retry_after == 1.5


async def test_what_is_no_answer(anthropic_server: Any, servers: Any, keys: str) -> None:
    model = AnthropicModel("tiny-1", url=anthropic_server.url, timeout=0.2)
    plan: list[tuple[Any, type[ModelError]]] = [
        (servers.hangs, TransientError),
        (servers.drops, TransientError),
        (servers.cuts, TransientError),
        (servers.says(200, "{"), TransientError),
        (servers.says(200, {"content": None}), TransientError),
        (servers.says(200, {"error": {"message": "inside"}}), ModelError),
        (servers.says(200, "<html>log in</html>", content_type="text/html"), ModelError),
    ]
    for behaviour, kind in plan:
        anthropic_server.plan.append(behaviour)
        with pytest.raises(ModelError) as caught:
            await model.generate(ASK, 1, Sampling())
        assert type(caught.value) is kind, caught.value
    assert len(anthropic_server.seen) == len(plan)
    await model.aclose()


async def test_a_refused_parameter_is_left_out(model: Any, anthropic_server: Any, servers: Any) -> None:
    body = anthropic_server.error("invalid_request_error", "`temperature` is deprecated for this model.")
    anthropic_server.plan.append(servers.says(400, body))
    with pytest.raises(TransientError, match="temperature"):
        await model.generate(ASK, 1, Sampling())
    await model.generate(ASK, 1, Sampling())
    assert "temperature" not in anthropic_server.seen[-1]


async def test_check(model: Any, anthropic_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ready" in await model.check()
    model.model = "tiny-9"
    with pytest.raises(UnknownName, match=r"tiny-9(.|\n)*tiny-"):
        await model.check()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "wrong")
    refused = AnthropicModel("tiny-1", url=anthropic_server.url)
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        await refused.check()
    await refused.aclose()
    with pytest.raises(ModelError, match="no server answers"):
        await AnthropicModel("m", url="http://127.0.0.1:9").check()


@given(
    st.lists(
        st.builds(
            Message,
            role=st.sampled_from(["system", "user", "assistant", "tool"]),
            content=st.text(max_size=4),
            tool_call_id=st.just("t"),
        )
    )
)
def test_turns_alternate_and_hold_no_empty_text(messages: list[Message]) -> None:
    turns = write_turns(messages)
    assert all(a["role"] != b["role"] for a, b in itertools.pairwise(turns))
    assert all(t["content"] for t in turns)
    assert all(b["text"].strip() for t in turns for b in t["content"] if b["type"] == "text")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["content", "type", "text", "usage", "stop_reason", "error", "input", "input_tokens"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(ModelError):
        assert isinstance(read_message(value, name="m", where="w").text, str)
