"""What passes is kept: as records of the house, without secrets, in a bounded queue; callers never notice."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import contextmanager

import aiohttp
import openai
import pytest
from aiohttp import web
from gateway_world import ask_plainly, sdk, until
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.gateway.capture import StoreCapture
from verbal.apps.gateway.exchange import Caller, Exchange
from verbal.apps.gateway.kept import META, Cleaner, lessons_text, records, task_id
from verbal.apps.gateway.opened import opened
from verbal.apps.gateway.routes import Route
from verbal.apps.gateway.server import Gateway
from verbal.contracts import Reply, Sampling
from verbal.errors import StoreError
from verbal.store import Store
from verbal.types import Message, Reflection, StopReason, ToolCall, Usage

SECRET = "sk-proj-4fQz81LmXw02PqRt77Yb"


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as made:
        yield made


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"match": "broken", "error": "model"}\n{"match": "echo", "reply": "SECRET"}\n{"reply": "hello"}'.replace(
            "SECRET", SECRET
        )
    )
    return f"scripted:{path}"


def exchange(text="hi", project="shop", **fields):
    made = Exchange(
        caller=Caller(project=project, key="key-1"), protocol="chat", route="r", model="m", sampling=Sampling(seed=3),
        messages=(Message(role="system", content="be kind"), Message(role="user", content=text)),
    )  # fmt: skip
    made.status, made.answered_by, made.seconds = 200, "a/b", 0.5
    made.reply = Reply(text="hello", usage=Usage(calls=1, prompt_tokens=4, completion_tokens=1, cost=0.25))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@contextmanager
def held(store):
    """The store's connection, so that whoever writes has to wait."""
    with store._database._lock:
        yield


# records ------------------------------------------------------------------------------------------------------------


def test_an_exchange_is_a_task_an_attempt_and_what_the_gateway_knows():
    lesson = Reflection(id="r1", text="say hello", boundary="to the boss")
    made = exchange(memory="m", shown=(lesson,), offered={"r1": 0.9, "r2": 0.5}, version=4, first=0.1)
    kept = records(made, Cleaner())
    attempt, (step,) = kept.attempt, kept.attempt.steps
    assert (attempt.id, attempt.run, attempt.arm, attempt.answer) == (made.id, "gateway-shop", "main", "hello")
    assert (attempt.model, attempt.stop, attempt.seed, attempt.usage.cost) == ("a/b", StopReason.ANSWERED, 3, 0.25)
    assert attempt.usage.seconds == 0.5 and "gateway/lessons" in attempt.prompts
    assert step.shown == ("r1",) and step.offered == {"r1": 0.9, "r2": 0.5}
    assert step.prompt[0].content == f"be kind\n\n{lessons_text([lesson])}" and step.prompt[1:] == made.messages[1:]
    assert (kept.task.messages, kept.task.split, kept.task.kind) == (made.messages, "train", "chat")
    assert kept.meta["route"] == "r" and kept.meta["key"] == "key-1" and kept.meta["version"] == 4
    assert records(exchange(), Cleaner()).task.id == kept.task.id != records(exchange("ho"), Cleaner()).task.id


@pytest.mark.parametrize(
    ("fields", "stop"),
    [
        ({"reply": Reply(text="hel", finish="length")}, StopReason.LENGTH),
        ({"reply": None, "status": 499, "error": "the client hung up"}, StopReason.ERROR),
        ({"reply": Reply(text="hel", finish="error"), "error": "cut"}, StopReason.ERROR),
        ({"reply": None, "status": 504, "error": "too slow"}, StopReason.TIMEOUT),
    ],
)
def test_a_failure_is_data(fields, stop):
    attempt = records(exchange(**fields), Cleaner()).attempt
    assert attempt.stop == stop and attempt.error == (fields.get("error") or None)


def test_secrets_are_cut_out_of_messages_replies_calls_and_errors(monkeypatch):
    monkeypatch.setenv("SHOP_API_KEY", "plain-looking-value")
    call = ToolCall(id="c", name="pay", arguments=json.dumps({"key": SECRET}))
    made = exchange(
        f"my key is {SECRET}", reply=Reply(text=f"use {SECRET}", tool_calls=(call,)),
        error="refused plain-looking-value", status=502,
    )  # fmt: skip
    kept = records(made, Cleaner())
    told = kept.task.to_json() + kept.attempt.to_json() + kept.step.to_json()
    assert SECRET not in told and "plain-looking-value" not in told
    assert "my key is [" in told and '"key": "[' in kept.attempt.steps[0].tool_calls[0].arguments


@given(st.text(alphabet="</lesson> \nx&", max_size=60), st.text(max_size=20))
def test_no_lesson_closes_its_tag_or_stands_on_two_lines(text, id):
    lines = lessons_text([Reflection(id=id, text=text or "x", boundary=text)]).splitlines()
    assert lines[0] == "<lessons>" and lines[-1] == "</lessons>" and len(lines) == 4
    assert lines[2].count("<lesson ") == 1 and lines[2].count("</lesson>") == 1 and lines[2].endswith("</lesson>")


@given(st.lists(st.text(max_size=10), min_size=1, max_size=4), st.lists(st.text(max_size=10), min_size=1, max_size=4))
def test_the_same_conversation_is_the_same_task_and_no_other(one, other):
    ids = [task_id([Message(role="user", content=t) for t in texts]) for texts in (one, other)]
    assert (ids[0] == ids[1]) is (one == other)


# the queue ----------------------------------------------------------------------------------------------------------


async def test_all_that_is_taken_is_kept_and_the_run_is_done(store):
    async with StoreCapture(store) as capture:
        for i in range(300):
            assert capture.put(exchange(f"question {i}", project=("shop", "lab")[i % 2]))
    assert (capture.kept, capture.lost) == (300, 0)
    assert len(store.attempts("gateway-shop")) == len(store.attempts("gateway-lab")) == 150
    assert [r["status"] for r in store.runs()] == ["done", "done"]
    assert store.usage("gateway-shop")["solver"].cost == pytest.approx(150 * 0.25)


async def test_a_full_queue_loses_counts_and_never_waits(store, caplog):
    async with StoreCapture(store, size=5) as capture:
        with held(store):
            taken = [capture.put(exchange()) for _ in range(9)]
            assert taken == [True] * 5 + [False] * 4
            health = capture.health()
            assert (health["lost"], health["waiting"], health["kept"]) == (4, 5, 0)
        await until(lambda: capture.kept == 5)
        assert capture.put(exchange())
    assert (capture.kept, capture.lost) == (6, 4)
    assert sum("no room" in r.message for r in caplog.records) == 1 and "4 lost" in caplog.text


async def test_long_texts_are_bounded_too(store):
    async with StoreCapture(store, characters=1000) as capture:
        with held(store):
            assert [capture.put(exchange("x" * 600)) for _ in range(2)] == [True, False]


async def test_a_store_that_fails_is_told_once_and_tried_again(store, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    put, broken = store.put_attempt, threading.Event()
    broken.set()

    def failing(*arguments):
        if broken.is_set():
            raise StoreError("the store failed: database or disk is full", todo="free some space")
        return put(*arguments)

    monkeypatch.setattr(store, "put_attempt", failing)
    async with StoreCapture(store, again=0.01) as capture:
        assert capture.put(exchange())
        await until(lambda: capture.failure)
        await asyncio.sleep(0.05)
        assert capture.put(exchange()) and "disk is full" in capture.health()["failure"]
        broken.clear()
        await until(lambda: capture.kept == 2)
        assert capture.failure == ""
    assert sum("disk is full" in r.message for r in caplog.records) == 1 and "takes writes again" in caplog.text
    assert capture.lost == 0


async def test_a_store_that_fails_to_the_end_ends_nothing(store, monkeypatch):
    def failing(*_):
        raise StoreError("the store failed: database or disk is full")

    monkeypatch.setattr(store, "put_attempt", failing)
    async with StoreCapture(store, again=60) as capture:
        capture.put(exchange())
        await until(lambda: capture.failure)
    assert (capture.kept, capture.lost) == (0, 1) and store.attempts() == []


async def test_one_that_cannot_be_kept_holds_up_no_other(store):
    async with StoreCapture(store) as capture:
        capture.put(exchange(shown=("no reflection",)))
        capture.put(exchange())
    assert (capture.kept, capture.lost) == (1, 1)


async def test_an_id_that_a_server_gives_twice_loses_nothing(store):
    async with StoreCapture(store) as capture:
        for text in ("one", "two"):
            capture.put(exchange(text, id="chatcmpl-1"))
    ids = [a.id for a in store.attempts()]
    assert ids[0] == "chatcmpl-1" and ids[1].startswith("chatcmpl-1~") and store.step(ids[1], META) is not None


# behind HTTP --------------------------------------------------------------------------------------------------------


async def test_streams_failures_and_replies_are_kept_without_secrets_and_headers(script, tmp_path):
    path = tmp_path / "v.db"
    async with opened(script, path, open=True) as it, it.gateway as gateway:
        async with sdk(gateway, default_headers={"x-customer": "header-value"}) as client:
            ask = [{"role": "user", "content": f"echo {SECRET}"}]
            stream = await client.chat.completions.create(model="scripted/m", messages=ask, stream=True)
            assert "".join([c.choices[0].delta.content or "" async for c in stream]) == SECRET
        broken = {"model": "scripted/m", "messages": [{"role": "user", "content": "broken"}]}
        assert (await ask_plainly(gateway, broken))[0] == 422
        assert (await ask_plainly(gateway, {**broken, "model": "none"}))[0] == 404
    with Store(path) as store:
        first, second = store.attempts("gateway-local")
    assert first.answer.startswith("[") and first.error is None and second.error
    assert SECRET.encode() not in path.read_bytes() and b"header-value" not in path.read_bytes()


async def test_callers_are_served_while_the_store_is_broken(script, tmp_path, monkeypatch):
    def failing(*_):
        raise StoreError("the store failed: database or disk is full")

    async with opened(script, tmp_path / "v.db", open=True) as it, it.gateway as gateway:
        monkeypatch.setattr(it.capture._store, "put_attempt", failing)
        body = {"model": "scripted/m", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(3):
            assert (await ask_plainly(gateway, body))[0] == 200
    assert (it.capture.kept, it.capture.lost) == (0, 3)


async def test_a_capture_that_raises_does_not_reach_the_caller(script):
    class Broken:
        def put(self, exchange):
            raise RuntimeError("a fault")

    async with Gateway(script, capture=Broken()) as gateway, sdk(gateway) as client:
        made = await client.chat.completions.create(model="scripted/m", messages=[{"role": "user", "content": "hi"}])
        assert made.choices[0].message.content == "hello"
        with pytest.raises(openai.NotFoundError):
            await client.post("/feedback", body={}, cast_to=object)


@pytest.mark.parametrize("forwarded", [True, False])
async def test_what_a_client_heard_before_it_hung_up_is_kept_and_charged(forwarded, tmp_path):
    gone = asyncio.Event()

    async def answer(request):
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        delta = {"index": 0, "delta": {"role": "assistant", "content": "the first words"}, "finish_reason": None}
        chunk = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
        try:
            while True:
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/v1/models", lambda request: web.json_response({"data": [{"id": "m"}]}))
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    path = tmp_path / "v.db"
    with Store(path) as store:
        key = store.add_key("shop", {"max_tokens": 5000})
    upstream = f"http/m@http://127.0.0.1:{runner.addresses[0][1]}/v1"
    routes = [Route(name="a", upstream=upstream)]
    try:
        async with opened("", path, routes=routes) as it, it.gateway as gateway, aiohttp.ClientSession() as session:
            name, body = ("chat/completions", {}) if forwarded else ("messages", {"max_tokens": 50})
            body |= {"model": "a", "stream": True, "messages": [{"role": "user", "content": "tell me all"}]}
            async with session.post(f"{gateway.url}/v1/{name}", json=body, headers={"x-api-key": key}) as response:
                while b"first words" not in await response.content.readline():
                    pass
                response.close()
            await gone.wait()
            await until(lambda: it.capture.kept == 1)
    finally:
        await runner.cleanup()
    with Store(path) as store:
        (attempt,) = store.attempts("gateway-shop")
        ((calls, tokens, _),) = store.key_uses().values()
    assert attempt.answer.startswith("the first words") and attempt.stop == StopReason.ERROR and attempt.error
    assert calls == 1 and 8 <= tokens < 5000
