from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from verbal.contracts import Model, Sampling
from verbal.errors import ConfigError, ContextLengthError, ModelError, RefusedError, TransientError, UnknownName
from verbal.models import OverloadedError, open_model
from verbal.models.litellm import LiteLLMModel
from verbal.types import Message, ToolCall

ASK = [Message(role="system", content="be brief"), Message(role="user", content="hello")]
# litellm's own data types make pydantic warn at the first use.
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")
TOOL = {"type": "function", "function": {"name": "query", "parameters": {"type": "object"}}}


@pytest.fixture
async def model(openai_server: Any, keys: str) -> Any:
    model = LiteLLMModel("openai/tiny-1", url=f"{openai_server.url}/v1", timeout=5)
    yield model
    await model.aclose()


def test_names() -> None:
    for spec in ("groq/llama-3", "litellm/groq/llama-3"):
        model = open_model(spec)
        assert isinstance(model, Model) and isinstance(model, LiteLLMModel)
        assert (model.model, model.name) == ("groq/llama-3", "litellm/groq/llama-3")


async def test_samples_tools_and_logprobs(model: Any, openai_server: Any, keys: str) -> None:
    replies = await model.generate(ASK, 3, Sampling(temperature=0.5, seed=3, stop=("E",)))
    # litellm numbers the choices anew, in the order in which the server sent them.
    assert sorted(r.text for r in replies) == [f"reply {i} to hello" for i in range(3)]
    assert [r.usage.prompt_tokens for r in replies] == [7, 0, 0]
    (body,) = openai_server.seen
    assert (body["n"], body["seed"], body["temperature"], body["stop"]) == (3, 3, 0.5, ["E"])
    assert set(body) <= {"model", "messages", "n", "seed", "temperature", "stop", "max_tokens"}
    assert openai_server.headers[0]["authorization"] == f"Bearer {keys}"
    (reply,) = await model.generate(ASK, 1, Sampling(tools=(TOOL,), temperature=None))
    assert reply.tool_calls == (ToolCall(id="c1", name="query", arguments='{"x": 1'),)
    assert "temperature" not in openai_server.seen[-1]
    (reply,) = await model.generate(ASK, 1, Sampling(logprobs=True))
    assert reply.logprobs == (-0.5,) * 4


async def test_streams(model: Any, openai_server: Any, servers: Any) -> None:
    *pieces, reply = [p async for p in model.stream_reply(ASK, Sampling())]
    assert "".join(pieces) == reply.text == "reply 0 to hello "
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 4)
    *_, reply = [p async for p in model.stream_reply(ASK, Sampling(tools=(TOOL,)))]
    assert reply.tool_calls == (ToolCall(id="c1", name="query", arguments='{"x": 1}'),)
    openai_server.plan.append(servers.streams(["data: {no\n\n"]))
    with pytest.raises(TransientError):
        _ = [p async for p in model.stream(ASK, Sampling())]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "", RefusedError),
        (400, "context_length_exceeded", ContextLengthError),
        (401, "", RefusedError),
        (403, "", RefusedError),
        (404, "", RefusedError),
        (429, "", OverloadedError),
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
    assert caught.value.__cause__ is None and len(openai_server.seen) == 1, "nobody retries below"
    if status == 429:
        assert isinstance(caught.value, TransientError) and caught.value.retry_after == 2


async def test_what_is_no_answer(openai_server: Any, servers: Any, keys: str) -> None:
    model = LiteLLMModel("openai/tiny-1", url=f"{openai_server.url}/v1", timeout=0.3)
    plan: list[Any] = [servers.hangs, servers.drops, servers.cuts, servers.says(200, "{"), servers.says(200, {})]
    for behaviour in plan:
        openai_server.plan.append(behaviour)
        with pytest.raises(TransientError):
            await model.generate(ASK, 1, Sampling())
    openai_server.plan.append(servers.says(200, "<html>log in</html>", content_type="text/html"))
    with pytest.raises(ModelError):
        await model.generate(ASK, 1, Sampling())
    assert len(openai_server.seen) == len(plan) + 1
    await model.aclose()


async def test_a_provider_without_n_gets_single_calls(anthropic_server: Any, keys: str) -> None:
    model = LiteLLMModel("anthropic/tiny-1", url=anthropic_server.url, timeout=5)
    replies = await model.generate(ASK, 2, Sampling(seed=5))
    assert [r.text for r in replies] == ["reply to hello"] * 2 and model.one_per_call
    assert len(anthropic_server.seen) == 2 and "seed" not in anthropic_server.seen[0]
    assert replies[0].usage.completion_tokens == 3
    await model.aclose()


async def test_check_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="GROQ_API_KEY"):
        await open_model("groq/llama-3").check()
    monkeypatch.setenv("GROQ_API_KEY", "k")
    assert "not verified" in await open_model("groq/no-such-model").check()
    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    assert await open_model("mistral/mistral-large-latest").check()
    with pytest.raises(UnknownName, match=r"grok(.|\n)*groq"):
        await open_model("grok/llama-3").check()


def test_litellm_is_imported_late_and_fetches_nothing() -> None:
    code = """
import socket, sys
def refuse(*a, **k): raise AssertionError("network")
import verbal.models.litellm as m
assert "litellm" not in sys.modules
socket.socket.connect = refuse
litellm = m.load_litellm()
assert litellm.model_cost["gpt-4o"] and litellm.telemetry is False and litellm.cache is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "", done.stderr


async def test_closing_one_model_leaves_the_others_working(openai_server: Any, keys: str) -> None:
    url = f"{openai_server.url}/v1"
    first, second = LiteLLMModel("openai/tiny-1", url=url), LiteLLMModel("openai/tiny-2", url=url)
    for model in (first, second):
        await model.generate(ASK, 1, Sampling())
    await first.aclose()
    assert len(await second.generate(ASK, 1, Sampling())) == 1
    await second.aclose()
    assert len(await second.generate(ASK, 1, Sampling())) == 1, "it opens again"
    await second.aclose()
