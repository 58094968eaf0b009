"""What the gateway refuses, how it says so, and who may come."""

from __future__ import annotations

import json

import aiohttp
import openai
import pytest
from gateway_world import ASK, SCRIPT, TOKEN, ask_plainly, sdk

from verbal.apps.gateway.refusal import refusal
from verbal.apps.gateway.server import LARGEST_REQUEST, Gateway
from verbal.errors import ConfigError, ContextLengthError, DataError, ModelError, TransientError
from verbal.models import OverloadedError


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, SCRIPT)))
    return f"scripted:{path}"


@pytest.fixture
async def scripted(script):
    async with Gateway(script) as gateway:
        yield gateway


# refusals -------------------------------------------------------------------------------------------------------------

GOOD = {"model": "scripted/m", "messages": ASK}


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"model": "gpt-9"}, "model", "not served here; served: scripted/m"),
        ({"model": None}, "model", "GET /v1/models"),
        ({"messages": []}, "messages", "one message at least"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]", "one of system"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "type text"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "type text"),
        ({"messages": [{"role": "user", "content": "x", "audio": 3}]}, "messages[0].audio", "unknown field"),
        ({"messages": [{"role": "assistant", "tool_calls": [3]}]}, "messages[0].tool_calls", "function"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": 3}]}, "messages[0].tool_call_id", "a text"),
        ({"temprature": 1}, "temprature", "unknown field"),
        ({"temperature": 2.5}, "temperature", "from 0 to 2"),
        ({"temperature": "hot"}, "temperature", "a number"),
        ({"top_p": 0}, "top_p", "a number"),
        ({"n": 0}, "n", "from 1 to 128"),
        ({"n": True}, "n", "whole number"),
        ({"max_tokens": 1.5}, "max_tokens", "whole number"),
        ({"seed": 2**64}, "seed", "whole number"),
        ({"stop": [""]}, "stop", "at most 16"),
        ({"stream": 1}, "stream", "true or false"),
        ({"stream_options": {"x": 1}}, "stream_options", "include_usage"),
        ({"tools": [{"type": "function"}]}, "tools", "has a name"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "leave it out"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"top_logprobs": 5}, "top_logprobs", "not supported"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(scripted, change, param, said):
    status, body = await ask_plainly(scripted, {**GOOD, **change})
    assert status == (404 if change.get("model") else 400)
    assert body["error"]["param"] == param and said in body["error"]["message"], body
    assert set(body["error"]) == {"message", "type", "param", "code"}


async def test_fields_that_change_nothing_are_taken(scripted):
    more = {
        "frequency_penalty": 0, "presence_penalty": None, "user": "u7", "metadata": {"a": "b"}, "store": False,
        "response_format": {"type": "text"}, "top_logprobs": 0, "tool_choice": "auto", "max_completion_tokens": 9,
    }  # fmt: skip
    again = {"role": "assistant", "content": "red", "refusal": None, "annotations": [], "tool_calls": None}
    status, body = await ask_plainly(scripted, {**GOOD, **more, "messages": [*ASK, again, *ASK]})
    assert status == 200 and body["choices"][0]["message"]["content"] == "cyan"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b"\xff", b'{"n": NaN}', b'{"n": 1' + b"0" * 5000 + b"}", b"[" * 100_000]
)
async def test_a_body_that_is_no_request_is_refused(scripted, raw):
    status, body = await ask_plainly(scripted, raw)
    assert (status, body["error"]["code"]) == (400, "invalid_json")


async def test_a_large_body_a_wrong_path_and_a_wrong_method(scripted):
    status, body = await ask_plainly(scripted, b" " * (LARGEST_REQUEST + 1))
    assert (status, body["error"]["message"]) == (413, "the body is larger than 10 MB")
    async with aiohttp.ClientSession() as session:
        for method, path, want in (("GET", "/v1/embeddings", 404), ("PUT", "/v1/models", 405)):
            async with session.request(method, scripted.url + path) as answer:
                assert answer.status == want and path in (await answer.json())["error"]["message"]


async def test_failures_of_the_model_are_told_in_the_sdks_classes(scripted):
    async with sdk(scripted, max_retries=0) as client:

        async def ask(text, **more):
            return await client.chat.completions.create(
                model="scripted/m", messages=[{"role": "user", "content": text}], **more
            )

        for more in ({}, {"stream": True}):
            with pytest.raises(openai.UnprocessableEntityError, match="scripted model error"):
                await ask("broken", **more)
            with pytest.raises(openai.RateLimitError, match="overloaded") as found:
                await ask("busy", **more)
            assert found.value.response.headers["retry-after"] == "7"
        assert (await ask("once")).choices[0].message.content == "second try"
        # a stream too is begun a second time
        stream = await ask("do this once more", stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "second try"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ContextLengthError("x"), 400, "context_length_exceeded"),
        (OverloadedError("x"), 429, "model_overloaded"),
        (TransientError("x"), 503, "model_unreachable"),
        (ModelError("x"), 422, "model_refused"),
        (ConfigError("x"), 400, "unsupported"),
        (DataError("x"), 500, "server_error"),
    ],
)
def test_each_error_of_the_house_has_a_status(error, status, code):
    found = refusal(error)
    assert (found.status, found.body["error"]["code"]) == (status, code)


def test_no_key_and_no_place_is_told(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret-key")
    found = refusal(ModelError("the key s3cret-key is refused", where="/home/someone", todo="ask"))
    assert found.body["error"]["message"] == "the key [OPENAI_API_KEY] is refused. To do: ask"


# who may come ---------------------------------------------------------------------------------------------------------


async def test_with_a_token_nobody_else_may_come(script):
    gateway = Gateway(script, token=TOKEN)
    await gateway.open()
    try:
        async with sdk(gateway, api_key=TOKEN) as client:
            assert (await client.chat.completions.create(model="scripted/m", messages=ASK)).choices
        for key in ("wrong", TOKEN[:-1], "é"):
            status, body = await ask_plainly(gateway, GOOD, headers={"Authorization": f"Bearer {key}"})
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{gateway.url}/health") as answer:
                assert await answer.json() == {"status": "ok"}
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with session.get(f"{gateway.url}/health", headers=headers) as answer:
                assert (await answer.json())["model"] == "scripted/m"
            async with session.get(f"{gateway.url}/v1/models") as answer:
                assert answer.status == 401
    finally:
        await gateway.aclose()


async def test_a_wide_open_address_needs_a_token_of_some_length(script):
    with pytest.raises(ConfigError, match="used by anybody"):
        await Gateway(script).open("0.0.0.0")
    with pytest.raises(ConfigError, match="at least 16"):
        Gateway(script, token="short")


async def test_a_web_page_of_another_place_is_refused(scripted):
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "["}):
        status, body = await ask_plainly(scripted, GOOD, headers=headers)
        assert (status, body["error"]["code"]) == (403, "forbidden"), headers
    status, _ = await ask_plainly(scripted, GOOD, headers={"Origin": "http://localhost:3000", "Host": "localhost:1"})
    assert status == 200


async def test_an_address_that_is_taken_is_told(scripted, script):
    with pytest.raises(ConfigError, match="cannot listen"):
        await Gateway(script).open(port=int(scripted.url.rsplit(":", 1)[1]))


async def test_an_ipv6_address(script):
    gateway = Gateway(script)
    try:
        await gateway.open("::1")
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert gateway.url.startswith("http://[::1]:") and (await ask_plainly(gateway, GOOD))[0] == 200
    await gateway.aclose()
