from __future__ import annotations

from typing import Any

import pytest

from verbal.contracts import Model, Sampling
from verbal.errors import ConfigError, ContextLengthError, ModelError, RefusedError, TransientError, UnknownName
from verbal.models import OverloadedError, open_model
from verbal.models.openai import OpenAIModel
from verbal.types import Message, ToolCall

ASK = [Message(role="user", content="hello")]
TOOL = {"type": "function", "function": {"name": "query", "parameters": {"type": "object"}}}


@pytest.fixture
async def model(openai_server: Any, keys: str) -> Any:
    model = OpenAIModel("tiny-1", url=f"{openai_server.url}/v1", timeout=5)
    yield model
    await model.aclose()


async def test_the_environment_names_key_and_url(
    openai_server: Any, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_model("openai/gpt-4o").url == "https://api.openai.com/v1"  # type: ignore[attr-defined]
    monkeypatch.setenv("OPENAI_BASE_URL", f"{openai_server.url}/v1")
    model = open_model("openai/tiny-1", timeout=5)
    assert isinstance(model, Model) and keys not in repr(model)
    (reply,) = await model.generate(ASK, 1, Sampling())
    assert reply.text == "reply 0 to hello" and reply.model == "openai/tiny-1"
    assert openai_server.headers[0]["authorization"] == f"Bearer {keys}"
    await model.aclose()


async def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = OpenAIModel("gpt-4o")
    for call in (model.check(), model.generate(ASK, 1, Sampling())):
        with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
            await call


async def test_newer_models_get_their_own_name_for_the_limit() -> None:
    assert OpenAIModel("gpt-5")._dialect.max_tokens == "max_completion_tokens"
    assert OpenAIModel("m", url="http://127.0.0.1:1/v1")._dialect.max_tokens == "max_tokens"


async def test_samples_tools_and_logprobs(model: Any, openai_server: Any) -> None:
    replies = await model.generate(ASK, 3, Sampling(temperature=None, seed=3, stop=("E",)))
    assert [r.text for r in replies] == [f"reply {i} to hello" for i in range(3)]
    assert [r.usage.prompt_tokens for r in replies] == [7, 0, 0]
    assert "temperature" not in openai_server.seen[0] and openai_server.seen[0]["seed"] == 3
    call = ToolCall(id="c0", name="query", arguments="{}")
    history = [*ASK, Message(role="assistant", content="", tool_calls=(call,))]
    history.append(Message(role="tool", content="rows", tool_call_id="c0"))
    (reply,) = await model.generate(history, 1, Sampling(tools=(TOOL,)))
    assert reply.tool_calls == (ToolCall(id="c1", name="query", arguments='{"x": 1'),)
    (reply,) = await model.generate(ASK, 1, Sampling(logprobs=True))
    assert reply.logprobs == (-0.5,) * 4 and reply.token_ids is None
    assert "return_token_ids" not in openai_server.seen[-1]


async def test_a_server_without_n(model: Any, openai_server: Any) -> None:
    openai_server.ignores_n = True
    assert len(await model.generate(ASK, 3, Sampling(seed=1))) == 3
    assert model.one_per_call and sorted(b["seed"] for b in openai_server.seen) == [1, 2, 3]


async def test_streams(model: Any, openai_server: Any, servers: Any) -> None:
    *pieces, reply = [p async for p in model.stream_reply(ASK, Sampling())]
    assert "".join(pieces) == reply.text == "reply 0 to hello " and reply.usage.prompt_tokens == 7
    *_, reply = [p async for p in model.stream_reply(ASK, Sampling(tools=(TOOL,)))]
    assert reply.tool_calls == (ToolCall(id="c1", name="query", arguments='{"x": 1}'),)
    half = 'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'
    for events, abort in (([half], False), ([half], True), (["data: {no\n\n"], False)):
        openai_server.plan.append(servers.streams(events, abort=abort))
        with pytest.raises(TransientError):
            _ = [p async for p in model.stream(ASK, Sampling())]
    openai_server.plan.append(servers.fails(429, "slow down"))
    with pytest.raises(OverloadedError):
        _ = [p async for p in model.stream(ASK, Sampling())]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "", RefusedError),
        (400, "context_length_exceeded", ContextLengthError),
        (401, "", RefusedError),
        (403, "", RefusedError),
        (404, "", RefusedError),
        (409, "", TransientError),
        (429, "", OverloadedError),
        (429, "insufficient_quota", RefusedError),
        (500, "", TransientError),
        (503, "", OverloadedError),
    ],
)
async def test_statuses(
    model: Any, openai_server: Any, servers: Any, keys: str, status: int, code: str, kind: type[ModelError]
) -> None:
    openai_server.always = servers.fails(status, f"what went wrong {keys}", code=code, retry_after="2")
    with pytest.raises(ModelError) as caught:
        await model.generate(ASK, 1, Sampling())
    assert type(caught.value) is kind and "what went wrong" in caught.value.what and keys not in str(caught.value)
    assert caught.value.__cause__ is None and len(openai_server.seen) == 1, "the SDK does not retry"
    if isinstance(caught.value, TransientError):
        assert caught.value.retry_after == 2


async def test_what_is_no_answer(openai_server: Any, servers: Any, keys: str) -> None:
    model = OpenAIModel("tiny-1", url=f"{openai_server.url}/v1", timeout=0.2)
    plan: list[tuple[Any, type[ModelError]]] = [
        (servers.hangs, TransientError),
        (servers.drops, TransientError),
        (servers.cuts, TransientError),
        (servers.says(200, "{"), TransientError),
        (servers.says(200, {"choices": []}), TransientError),
        (servers.says(200, "<html>log in</html>", content_type="text/html"), ModelError),
        (servers.says(502, "<html>bad gateway</html>", content_type="text/html"), TransientError),
    ]
    for behaviour, kind in plan:
        openai_server.plan.append(behaviour)
        with pytest.raises(ModelError) as caught:
            await model.generate(ASK, 1, Sampling())
        assert type(caught.value) is kind, caught.value
    assert len(openai_server.seen) == len(plan)
    await model.aclose()


async def test_a_refused_parameter_is_left_out(model: Any, openai_server: Any, servers: Any) -> None:
    openai_server.plan.append(servers.fails(400, "Unsupported value", code="unsupported_value", param="temperature"))
    with pytest.raises(TransientError, match="temperature"):
        await model.generate(ASK, 1, Sampling(temperature=0.3))
    await model.generate(ASK, 1, Sampling(temperature=0.3))
    assert "temperature" not in openai_server.seen[-1]


async def test_check(model: Any, openai_server: Any, servers: Any, keys: str) -> None:
    assert "ready" in await model.check()
    model.model = "tiny-9"
    with pytest.raises(UnknownName, match=r"tiny-9(.|\n)*tiny-"):
        await model.check()
    openai_server.models_answer = servers.fails(401, f"wrong key {keys}")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        await model.check()
    assert keys not in str(caught.value)
    with pytest.raises(ModelError, match="no server answers"):
        await OpenAIModel("m", url="http://127.0.0.1:9/v1").check()


def test_one_model_serves_several_event_loops(keys: str) -> None:
    import asyncio

    model = OpenAIModel("m", url="http://127.0.0.1:9/v1", timeout=2)

    async def call() -> None:
        with pytest.raises(TransientError):
            await model.generate(ASK, 1, Sampling())
        await model.aclose()

    asyncio.run(call())
    asyncio.run(call())
