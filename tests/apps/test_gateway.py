"""The gateway under OpenAI's own SDK and under plain clients: answers, streams, refusals, hang-ups."""

from __future__ import annotations

import asyncio
import json
import random

import openai
import pytest
from gateway_world import ASK, PROBE, SCRIPT, ask_plainly, sdk, until

from verbal.apps.gateway.answers import StopText, stopped
from verbal.apps.gateway.request import Refusal, read_request
from verbal.apps.gateway.server import Gateway
from verbal.contracts import Reply, Sampling
from verbal.models import open_model
from verbal.types import Message

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


# hang-ups and limits --------------------------------------------------------------------------------------------------


async def sent(gateway, asked):
    """The connection of a client that asked and reads nothing."""
    body = json.dumps(asked).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]), limit=2**10)
    writer.write(head.encode() + body)
    return writer


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_cancels_its_work(slow, stream):
    model = slow.switch.current.model
    writer = await sent(slow, {"model": "test/slow", "messages": ASK, "stream": stream})
    await until(lambda: model.begun == 1)
    writer.close()
    await until(lambda: model.cancelled == 1)
    await until(lambda: slow.switch.current.under_way == 0)
    model.go.set()
    assert (await ask_plainly(slow, {"model": "test/slow", "messages": ASK}))[0] == 200


async def test_a_client_that_stops_reading_holds_nothing_for_ever(slow, monkeypatch):
    monkeypatch.setattr("verbal.apps.gateway.passage.STALLED", 0.05)
    model = slow.switch.current.model

    async def endless(messages, sampling):
        try:
            while True:
                yield "x" * 2**20
        finally:
            model.cancelled += 1

    monkeypatch.setattr(model, "stream_reply", endless)
    writer = await sent(slow, {"model": "test/slow", "messages": ASK, "stream": True})
    await until(lambda: model.cancelled == 1)
    await until(lambda: slow.switch.current.under_way == 0)
    writer.close()


async def test_a_body_that_does_not_come_holds_nothing_for_ever(slow, monkeypatch):
    monkeypatch.setattr("verbal.apps.gateway.refusal.STALLED", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(slow.url.rsplit(":", 1)[1]))
    writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
    assert b" 408 " in await reader.readline()
    writer.close()


async def test_a_full_house_says_come_back(slow, monkeypatch):
    monkeypatch.setattr("verbal.apps.gateway.server.MOST_AT_ONCE", 1)
    ask = {"model": "test/slow", "messages": ASK}
    first = asyncio.create_task(ask_plainly(slow, ask))
    await until(lambda: slow.switch.current.model.begun == 1)
    status, body = await ask_plainly(slow, ask)
    assert (status, body["error"]["code"]) == (429, "overloaded")
    slow.switch.current.model.go.set()
    assert (await first)[0] == 200


async def test_requests_under_way_may_end_when_the_server_stops(slow):
    model = slow.switch.current.model
    asking = asyncio.create_task(ask_plainly(slow, {"model": "test/slow", "messages": ASK}))
    await until(lambda: model.begun == 1)
    closing = asyncio.create_task(slow.aclose())
    await asyncio.sleep(0.05)
    model.go.set()
    assert (await asking)[0] == 200
    await closing
    assert model.closed


async def test_a_fault_of_a_model_tells_nothing_of_the_server(slow, caplog):
    slow.switch.current.model.go.set()
    ask = {"model": "test/slow", "messages": [{"role": "user", "content": "fault"}]}
    status, body = await ask_plainly(slow, ask)
    assert status == 500 and "secret" not in str(body) and "a secret of the server" in caplog.text
    async with sdk(slow, max_retries=0) as client:
        stream = await client.chat.completions.create(**ask, stream=True)
        with pytest.raises(openai.APIError, match="its log says how"):
            [c async for c in stream]


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
