"""The gateway under OpenAI's own SDK and under plain clients: answers, streams, refusals, hang-ups."""

from __future__ import annotations

import asyncio
import io
import json
import random

import aiohttp
import openai
import pytest

from verbal.apps.gateway.reply import StopText, refusal, stopped
from verbal.apps.gateway.request import Refusal, read_request
from verbal.apps.gateway.server import LARGEST_REQUEST, Gateway
from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ContextLengthError, DataError, ModelError, TransientError
from verbal.models import OverloadedError, open_model
from verbal.prompt import load_prompt
from verbal.types import Message

TOKEN = "a-long-random-text-0123456789"
ASK = [{"role": "user", "content": "colours?"}]
PROBE = load_prompt("gateway/probe").fill()
SCRIPT = [
    {"match": "colours", "reply": ["red green blue", "cyan"]},
    {"match": "broken", "error": "model"},
    {"match": "busy", "error": "overloaded", "retry_after": 7},
    {"match": "once", "reply": "second try", "error": "transient", "times": 1},
    {"match": "cut", "reply": "half", "finish": "length"},
    {"match": "weather", "reply": "", "tool_calls": [{"id": "c1", "name": "look", "arguments": '{"at": "Graz"}'}]},
    {"reply": "hello"},
]
SLOW = '''
import asyncio
from verbal.contracts import Reply

class Slow:
    """Answers the probe at once, everything else when it is let go."""
    name = "test/slow"
    def __init__(self):
        self.go, self.begun, self.cancelled = asyncio.Event(), 0, 0
    async def wait(self, messages):
        if "items" in messages[0].content:
            return
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
    async def generate(self, messages, n, sampling):
        await self.wait(messages)
        if "fault" in messages[0].content:
            raise ZeroDivisionError("a secret of the server")
        return [Reply(text="done", model=self.name)] * n
    async def stream(self, messages, sampling):
        yield "done"
    async def stream_reply(self, messages, sampling):
        yield "a"
        await self.wait(messages)
        if "fault" in messages[0].content:
            raise ZeroDivisionError("a secret of the server")
        yield "b"
        yield Reply(text="ab", model=self.name)
    async def check(self):
        return "ok"
    async def aclose(self):
        self.closed = True
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, SCRIPT)))
    return f"scripted:{path}"


@pytest.fixture
async def scripted(script):
    async with Gateway(script) as gateway:
        yield gateway


@pytest.fixture
async def slow(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    async with Gateway(f"{tmp_path}/slow.py:Slow") as gateway:
        yield gateway
        gateway.switch.current.model.go.set()


def sdk(gateway, **options):
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=options.pop("api_key", "none"), **options)


async def post(gateway, body, **options):
    """Status and body of a plain request."""
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/v1/chat/completions", data=data, **options) as answer,
    ):
        return answer.status, await answer.json()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


# answers --------------------------------------------------------------------------------------------------------------


async def test_the_sdk_gets_answers_with_usage(scripted):
    async with sdk(scripted) as client:
        made = await client.chat.completions.create(model="scripted/m", messages=ASK, n=2)
        assert [c.message.content for c in made.choices] == ["red green blue", "cyan"]
        assert [(c.index, c.finish_reason, c.message.role) for c in made.choices] == [
            (0, "stop", "assistant"), (1, "stop", "assistant"),
        ]  # fmt: skip
        assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (1, 4, 5)
        assert made.model == "scripted/m" and made.system_fingerprint.startswith("fp_") and made.id
        made = await client.chat.completions.create(model="scripted/m", messages=[{"role": "user", "content": "cut"}])
        assert made.choices[0].finish_reason == "length"
        made = await client.chat.completions.create(model="scripted/m", messages=ASK, stop=["gre", "zzz"])
        assert made.choices[0].message.content == "red "
        made = await client.chat.completions.create(
            model="scripted/m", messages=[{"role": "user", "content": "weather"}],
            tools=[{"type": "function", "function": {"name": "look"}}],
        )  # fmt: skip
        (call,) = made.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": "Graz"})
        assert made.choices[0].finish_reason == "tool_calls" and made.choices[0].message.content is None
        assert [m.id async for m in await client.models.list()] == ["scripted/m"]


async def test_the_sdk_streams(scripted):
    async with sdk(scripted) as client:
        chunks = [
            c
            async for c in await client.chat.completions.create(
                model="scripted/m", messages=ASK, stream=True, stream_options={"include_usage": True}
            )
        ]
        pieces = [c.choices[0].delta.content for c in chunks[:-1] if c.choices[0].delta.content]
        assert pieces == ["red", " green", " blue"]
        assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * 4 + ["stop"]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 3
        assert {(c.id, c.model, c.system_fingerprint) for c in chunks} == {
            (chunks[0].id, "scripted/m", scripted.switch.current.fingerprint)
        }
        two = [
            c async for c in await client.chat.completions.create(model="scripted/m", messages=ASK, stream=True, n=2)
        ]
        told = ["".join(c.choices[0].delta.content or "" for c in two if c.choices[0].index == i) for i in (0, 1)]
        assert told == ["red green blue", "cyan"]
        stop = await client.chat.completions.create(model="scripted/m", messages=ASK, stream=True, stop="en bl")
        assert "".join([c.choices[0].delta.content or "" async for c in stop]) == "red gre"
        tools = await client.chat.completions.create(
            model="scripted/m", messages=[{"role": "user", "content": "weather"}], stream=True
        )
        last = [c async for c in tools][-1].choices[0]
        assert last.delta.tool_calls[0].function.name == "look" and last.finish_reason == "tool_calls"


async def test_the_synchronous_sdk_and_its_stream(scripted):
    def ask():
        with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="none") as client:
            whole = client.chat.completions.create(model="scripted/m", messages=ASK).choices[0].message.content
            stream = client.chat.completions.create(model="scripted/m", messages=ASK, stream=True)
            return whole, "".join(c.choices[0].delta.content or "" for c in stream)

    assert await asyncio.to_thread(ask) == ("red green blue", "red green blue")


async def test_the_embedded_model_answers_as_it_does_without_a_server():
    alone = open_model("embedded")
    asked = [Message(role="user", content=PROBE)]
    async with Gateway("embedded") as gateway, sdk(gateway) as client:
        body = {"model": "embedded", "messages": [{"role": "user", "content": PROBE}]}
        made = await client.chat.completions.create(
            **body, n=2, temperature=1.0, top_p=0.9, seed=3, max_tokens=60, logprobs=True
        )
        want = await alone.generate(
            asked, 2, Sampling(temperature=1.0, top_p=0.9, seed=3, max_tokens=60, logprobs=True)
        )
        assert [c.message.content for c in made.choices] == [r.text for r in want]
        assert "COUNT(*)" in want[0].text
        for choice, reply in zip(made.choices, want, strict=True):
            assert [t.logprob for t in choice.logprobs.content] == pytest.approx(list(reply.logprobs))
            assert [t.token for t in choice.logprobs.content] == [f"token_id:{i}" for i in reply.token_ids]
        assert made.usage.completion_tokens == sum(r.usage.completion_tokens for r in want)
        assert made.model == "embedded/pocket"
        streamed = await client.chat.completions.create(**body, stream=True, logprobs=True)
        chunks = [c async for c in streamed]
        assert chunks[-1].choices[0].logprobs.content and "COUNT(*)" in chunks[1].choices[0].delta.content
        # Without a seed each request draws anew, with one it does not.
        warm = [await client.chat.completions.create(**body, temperature=2.0, seed=s) for s in (1, 1, 2)]
        assert warm[0].choices[0].message.content == warm[1].choices[0].message.content
        with pytest.raises(openai.UnprocessableEntityError, match="cannot read this prompt"):
            await client.chat.completions.create(model="embedded", messages=ASK)


async def test_our_own_client_reads_token_ids_through_it_and_a_gateway_stands_behind_a_gateway():
    async with Gateway("embedded") as inner, Gateway(f"http/embedded@{inner.url}/v1") as outer:
        model = open_model(f"http/embedded@{outer.url}/v1")
        asked = [Message(role="user", content=PROBE)]
        sampling = Sampling(logprobs=True, seed=1)
        (reply,) = await model.generate(asked, 1, sampling)
        (want,) = await open_model("embedded").generate(asked, 1, sampling)
        assert (reply.text, reply.token_ids, reply.usage.tokens) == (want.text, want.token_ids, want.usage.tokens)
        assert reply.logprobs == pytest.approx(want.logprobs)
        assert [p async for p in model.stream(asked, Sampling())] == [want.text]
        assert outer.switch.current.fingerprint is None and outer.switch.current.names == ("embedded", "http/embedded")
        await model.aclose()


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
    status, body = await post(scripted, {**GOOD, **change})
    assert status == (404 if change.get("model") else 400)
    assert body["error"]["param"] == param and said in body["error"]["message"], body
    assert set(body["error"]) == {"message", "type", "param", "code"}


async def test_fields_that_change_nothing_are_taken(scripted):
    more = {
        "frequency_penalty": 0, "presence_penalty": None, "user": "u7", "metadata": {"a": "b"}, "store": False,
        "response_format": {"type": "text"}, "top_logprobs": 0, "tool_choice": "auto", "max_completion_tokens": 9,
    }  # fmt: skip
    again = {"role": "assistant", "content": "red", "refusal": None, "annotations": [], "tool_calls": None}
    status, body = await post(scripted, {**GOOD, **more, "messages": [*ASK, again, *ASK]})
    assert status == 200 and body["choices"][0]["message"]["content"] == "cyan"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b"\xff", b'{"n": NaN}', b'{"n": 1' + b"0" * 5000 + b"}", b"[" * 100_000]
)
async def test_a_body_that_is_no_request_is_refused(scripted, raw):
    status, body = await post(scripted, raw)
    assert (status, body["error"]["code"]) == (400, "invalid_json")


async def test_a_large_body_a_wrong_path_and_a_wrong_method(scripted):
    status, body = await post(scripted, b" " * (LARGEST_REQUEST + 1))
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


async def test_a_fault_of_a_model_tells_nothing_of_the_server(slow, caplog):
    slow.switch.current.model.go.set()
    ask = {"model": "test/slow", "messages": [{"role": "user", "content": "fault"}]}
    status, body = await post(slow, ask)
    assert status == 500 and "secret" not in str(body) and "a secret of the server" in caplog.text
    async with sdk(slow, max_retries=0) as client:
        stream = await client.chat.completions.create(**ask, stream=True)
        with pytest.raises(openai.APIError, match="its log says how"):
            [c async for c in stream]


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
            status, body = await post(gateway, GOOD, headers={"Authorization": f"Bearer {key}"})
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
        status, body = await post(scripted, GOOD, headers=headers)
        assert (status, body["error"]["code"]) == (403, "forbidden"), headers
    status, _ = await post(scripted, GOOD, headers={"Origin": "http://localhost:3000", "Host": "localhost:1"})
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
    assert gateway.url.startswith("http://[::1]:") and (await post(gateway, GOOD))[0] == 200
    await gateway.aclose()


# hang-ups and limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_cancels_its_work(slow, stream):
    model = slow.switch.current.model
    async with aiohttp.ClientSession() as session:
        body = {"model": "test/slow", "messages": ASK, "stream": stream}
        asking = asyncio.create_task(session.post(f"{slow.url}/v1/chat/completions", json=body))
        await until(lambda: model.begun == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: model.cancelled == 1)
    await until(lambda: slow.switch.current.under_way == 0)
    model.go.set()
    assert (await post(slow, {"model": "test/slow", "messages": ASK}))[0] == 200


async def test_a_full_house_says_come_back(slow, monkeypatch):
    monkeypatch.setattr("verbal.apps.gateway.server.MOST_AT_ONCE", 1)
    ask = {"model": "test/slow", "messages": ASK}
    first = asyncio.create_task(post(slow, ask))
    await until(lambda: slow.switch.current.model.begun == 1)
    status, body = await post(slow, ask)
    assert (status, body["error"]["code"]) == (429, "overloaded")
    slow.switch.current.model.go.set()
    assert (await first)[0] == 200


async def test_requests_under_way_may_end_when_the_server_stops(slow):
    model = slow.switch.current.model
    asking = asyncio.create_task(post(slow, {"model": "test/slow", "messages": ASK}))
    await until(lambda: model.begun == 1)
    closing = asyncio.create_task(slow.aclose())
    await asyncio.sleep(0.05)
    model.go.set()
    assert (await asking)[0] == 200
    await closing
    assert model.closed


# pure parts -----------------------------------------------------------------------------------------------------------


def test_stop_texts_end_a_text_alike_however_it_comes():
    draw = random.Random(5)
    for _ in range(3000):
        text = "".join(draw.choices("abc", k=draw.randint(0, 12)))
        stops = ["".join(draw.choices("abc", k=draw.randint(1, 4))) for _ in range(draw.randint(0, 3))]
        ends = sorted((text.find(s) + len(s), text.find(s)) for s in stops if s in text)
        want = text[: ends[0][1]] if ends else text
        cut, told, rest = StopText(stops), "", text
        while rest:
            size = draw.randint(1, 5)
            told, rest = told + cut.add(rest[:size]), rest[size:]
        assert told + cut.rest() == want and cut.found == bool(ends)
        reply = stopped(Reply(text=text, finish="length"), stops)
        assert (reply.text, reply.finish) == (want, "stop" if ends else "length")


def test_a_random_body_is_read_or_refused():
    draw = random.Random(7)
    values = [None, True, 0, -1, 1.5, "", "x", [], {}, [1], ["a"], {"type": "text"}, [{"role": "user", "content": "x"}]]
    names = ["model", "messages", "n", "stop", "tools", "stream_options", "logprobs", "top_p", "logit_bias", "other"]
    for _ in range(3000):
        body = {name: draw.choice(values) for name in draw.sample(names, draw.randint(0, len(names)))}
        try:
            assert read_request(json.dumps(body).encode()).model
        except Refusal as refused:
            assert refused.status == 400 and json.dumps(refused.body)
