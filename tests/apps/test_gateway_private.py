"""What one client must not see or hold up: places behind, other keys' names, a broken store, those that hang up."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from gateway_upstream import Kept, Provider, any_, between, post
from gateway_world import until
from protocol_servers import hangs, says

from verbal.apps.gateway.capture import StoreCapture
from verbal.apps.gateway.exchange import Caller, Exchange
from verbal.apps.gateway.keys import Keys
from verbal.apps.gateway.routes import Route
from verbal.apps.gateway.server import Gateway
from verbal.contracts import Reply, Sampling
from verbal.store import Store
from verbal.types import Message, Reflection, ToolCall


@pytest.fixture
async def provider():
    async with Provider() as made:
        yield made


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as made:
        yield made


def exchange(**fields):
    made = Exchange(
        caller=Caller(project="shop"), protocol="chat", route="r", model="m", sampling=Sampling(),
        messages=(Message(role="user", content="hi"),),
    )  # fmt: skip
    made.status = 200
    for name, value in fields.items():
        setattr(made, name, value)
    return made


async def get(gateway, path, key=""):
    headers = {"x-api-key": key} if key else {}
    async with aiohttp.ClientSession() as session, session.get(gateway.url + path, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_key_sees_its_own_routes_and_no_places(provider, store):
    key, every = store.add_key("shop", {"routes": ["a"]}), store.add_key("desk")
    routes = [Route(name=n, upstream=f"http/tiny-{i}@{provider.url}/v1") for i, n in enumerate("ab", 1)]
    async with Gateway(routes=routes, gate=Keys(store)) as gateway:
        assert (await get(gateway, "/v1/models/a", key))[0] == 200
        for name in ("b", "c"):  # one that it may not use is as one that is not there
            status, body = await get(gateway, f"/v1/models/{name}", key)
            assert status == 404 and body["error"]["message"].endswith("served: a")
        assert list((await get(gateway, "/health", key))[1]["routes"]) == ["a"]
        whole = (await get(gateway, "/health", every))[1]
        assert whole["routes"]["b"]["upstream"] == "http/tiny-2" and provider.url not in json.dumps(whole)
        assert (await get(gateway, "/health"))[1] == {"status": "ok"}


@pytest.mark.parametrize("path", ["/v1/models/../../health", "//health", "/v1/models", "/v1/feedback", "/x"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"])
async def test_nothing_is_told_without_a_key_whatever_the_method_and_path(store, method, path):
    store.add_key("shop")
    async with Gateway("embedded", gate=Keys(store)) as gateway:
        reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
        status = (await reader.read()).split()[1]
        writer.close()
        await writer.wait_closed()
    assert status in (b"401", b"400")


async def test_an_answer_is_never_taken_for_a_page(provider):
    body = {"id": "x", "choices": [{"message": {"content": "<script>"}, "finish_reason": "stop"}]}
    async with between(provider, "http/tiny-1@{url}/v1") as gateway:
        provider.plan.append(says(200, json.dumps(body), content_type="text/html"))
        status, headers, _ = await post(gateway, any_())
    assert status == 200 and headers["content-type"] == "application/json"


async def test_ids_of_lessons_cannot_break_a_header(provider):
    class Odd(Kept):
        async def offer(self, exchange):
            exchange.shown = (Reflection(id="r1\r\nset-cookie: a=b", text="x"),)
            return self.lessons

    async with between(provider, "http/tiny-1@{url}/v1", door=Odd("be kind")) as gateway:
        status, headers, _ = await post(gateway, any_())
    assert status == 200 and headers["x-verbal-lessons"] == "r1__set-cookie__a_b" and "set-cookie" not in headers


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
async def test_one_that_is_too_slow_is_504_on_both_ways(provider, path):
    provider.always = hangs
    async with between(provider, "http/tiny-1@{url}/v1", timeout=0.2) as gateway:
        assert (await post(gateway, any_(max_tokens=5), path))[0] == 504
        assert gateway.switch.current.model._timeout > 0.2
    assert gateway.door.last.usage.tokens > 0 and gateway.door.last.guess is not None


# hang-ups -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["body", "lessons", "answer", "stream"])
async def test_who_hangs_up_leaves_nothing_behind(provider, where):
    slow, at, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Kept):
        async def offer(self, exchange):
            if where == "lessons":
                at.set()
                await slow.wait()
            return ""

    async def waits(request, body):
        at.set()
        response = None
        if where == "stream":
            response = aiohttp.web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n')
        await over.wait()
        return response or aiohttp.web.Response()

    provider.always = waits
    door = Slow()
    async with between(provider, "http/tiny-1@{url}/v1", door=door) as gateway:
        before = len(asyncio.all_tasks())
        for _ in range(3):
            at.clear()
            _, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
            data = json.dumps(any_(stream=True)).encode()
            size = len(data) + 9 * (where == "body")
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + data)
            await (until(lambda: gateway._under_way) if where == "body" else at.wait())
            writer.transport.abort()
        await until(lambda: gateway._under_way == 0 and gateway.switch.current.under_way == 0)
        if where != "body":
            await until(lambda: len(door.charged) == 3)
            assert all(e.status == 499 for e in door.charged)
            assert all(bool(e.usage.tokens) is (where != "lessons") for e in door.charged)
        assert not gateway._doors.forward._session.connector._acquired  # no connection to the server behind is held
        over.set()  # the provider's own tasks are on this loop too
        await until(lambda: len(asyncio.all_tasks()) <= before)


# doors whose other side is broken ------------------------------------------------------------------------------------


async def test_a_batch_that_cannot_be_written_for_any_reason_ends_nothing(store, monkeypatch, caplog):
    put, broken = store.put_tasks, [True]

    def failing(*arguments):
        if broken.pop() if broken else False:
            raise ValueError("no idea")
        return put(*arguments)

    monkeypatch.setattr(store, "put_tasks", failing)
    async with StoreCapture(store) as capture:
        capture.put(exchange())
        await until(lambda: capture.lost == 1)
        capture.put(exchange())
        await until(lambda: capture.kept == 1)
    assert "ValueError" in caplog.text and "no idea" not in caplog.text


async def test_calls_and_tools_count_against_what_may_wait(store):
    call = ToolCall(id="c", name="f", arguments="x" * 600)
    async with StoreCapture(store, characters=1000) as capture:
        assert capture.put(exchange(reply=Reply(text="", tool_calls=(call,))))
        assert not capture.put(exchange(size=600))


async def test_a_gate_whose_store_cannot_be_read_goes_on_looking(store, monkeypatch):
    key = store.add_key("shop")
    looked = []

    def broken():
        looked.append(1)
        raise KeyError("hash")

    async with Keys(store, every=0.01) as gate:
        with monkeypatch.context() as patch:
            patch.setattr(store, "api_keys", broken)
            await until(lambda: len(looked) > 1)
        assert gate.admit({"x-api-key": key}).project == "shop"
        store.revoke_key(store.api_keys()[0]["id"])
        await until(lambda: all(k.revoked for k in gate._by_id.values()))
