"""Bodies and answers that pass the gateway as they are, and what becomes of them when something breaks on the way."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest
from aiohttp import web
from gateway_upstream import KEY, Kept, Provider, any_, between, post
from gateway_world import ASK, until
from protocol_servers import cuts, drops, fails, hangs, says, streams

from verbal.apps.gateway.refusal import Refusal
from verbal.apps.gateway.routes import Route
from verbal.apps.gateway.server import LARGEST_REQUEST, Gateway
from verbal.errors import ConfigError

CHUNK = 'data: {"id": "x7", "choices": [{"index": 0, "delta": {"content": "a b"}, "finish_reason": null}]}\n\n'
ENDED = 'data: {"id":"x7","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\r\n\r\ndata: [DONE]\n\n'
PATHS = {"chat": "chat/completions", "responses": "responses", "messages": "messages"}


@pytest.fixture
async def provider():
    async with Provider() as made:
        yield made


@pytest.fixture
async def forwarded(provider):
    async with between(provider, "http/tiny-1@{url}/v1", timeout=5) as gateway:
        yield gateway


@pytest.fixture
async def everywhere(provider, monkeypatch):
    """Routes to a provider that is asked in its own protocol whatever a client speaks."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    door = Kept()
    routes = [Route(name="chat", upstream="openai/tiny-1"), Route(name="responses", upstream="openai/tiny-1")]
    async with Gateway(routes=[*routes, Route(name="messages", upstream="anthropic/*")], capture=door) as gateway:
        gateway.door = door
        yield gateway


def body_for(protocol, **more):
    asked = {"input": "hi"} if protocol == "responses" else {"messages": ASK}
    return {"model": protocol, "max_tokens": 9, **asked, **more}


async def get(gateway, path, **headers):
    async with aiohttp.ClientSession() as session, session.get(gateway.url + path, headers=headers) as answer:
        assert answer.status == 200
        return await answer.text()


# as they are ----------------------------------------------------------------------------------------------------------


async def test_a_body_goes_on_as_it_came_but_for_the_model(forwarded, provider):
    raw = b'{ "seed": 123456789012345678901234567890,\n'
    raw += b' "messages": [{"role":"user","content":"\\ud83d \\"model\\": \\"x\\""}],\n'
    raw += b' "top_k": 1.50, "model" : "any" }'
    got = []

    async def keep(request, body):
        got.append(await request.read())
        return await provider.answer(request, body)

    provider.always = keep
    assert (await post(forwarded, raw))[0] == 200
    assert got == [raw.replace(b'"model" : "any"', b'"model":"tiny-1"')]
    # Where the name of the field stands twice, the body is written anew.
    assert (await post(forwarded, any_(metadata={"model": "gpt"})))[0] == 200
    assert json.loads(got[1]) == any_(metadata={"model": "gpt"}) | {"model": "tiny-1"}


async def test_a_stream_comes_back_to_the_byte(forwarded, provider):
    lines = [": a comment\r\n\r\n", CHUNK[:20], CHUNK[20:] + CHUNK[:9], CHUNK[9:], ENDED, ": the end"]
    provider.plan.append(streams(lines, content_type="text/event-stream"))
    asked = any_(stream=True, stream_options={"include_usage": False})
    status, headers, got = await post(forwarded, asked)
    assert status == 200 and headers["content-type"] == "text/event-stream"
    assert got == "".join(lines).encode() + b"\n\n"
    kept = forwarded.door.last
    assert (kept.id, kept.reply.text, kept.reply.finish, kept.error) == ("x7", "a ba b", "stop", "")


async def test_any_name_may_be_served_and_a_server_has_a_key_of_its_own(provider, monkeypatch):
    monkeypatch.setenv("ONE_SERVERS_KEY", KEY)
    upstream = f"http/*@{provider.url}/v1"
    async with Gateway(upstream) as gateway:
        for path, body in (("chat/completions", any_()), ("responses", {"input": "hi"})):
            status, _, raw = await post(gateway, body | {"model": "tiny-2"}, path)
            assert status == 200 and provider.seen[-1]["model"] == "tiny-2"
        assert json.loads(raw)["model"] == "http/tiny-2"
        assert json.loads(await get(gateway, "/v1/models"))["data"] == []
        with gateway.lease(upstream) as served:
            assert served.price("tiny-2").cost(9, 9) == 0.0  # on this machine
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with Gateway("openai/*") as gateway:
        with gateway.lease("openai/*") as served:
            assert served.price("gpt-4o").cost(10**6, 0) > 0.1 and served.price("gpt-0") is None
    async with Gateway(routes=[Route(name="a", upstream=upstream, key="ONE_SERVERS_KEY")]) as gateway:
        assert (await post(gateway, any_(model="a")))[0] == 404  # nobody knows a model of that name
        assert provider.headers[-1]["authorization"] == f"Bearer {KEY}"


async def test_a_packed_answer_is_unpacked(forwarded, provider):
    async def packed(request, body):
        response = await provider.answer(request, body)
        response.enable_compression(web.ContentCoding.gzip, strategy=0)
        return response

    provider.plan.append(packed)
    status, headers, raw = await post(forwarded, any_())
    assert status == 200 and json.loads(raw)["choices"] and "content-encoding" not in headers


async def test_an_answer_that_is_no_stream_is_passed_on_whole(forwarded, provider):
    provider.plan.append(lambda r, b: provider.answer(r, b | {"stream": False}))
    status, headers, raw = await post(forwarded, any_(stream=True))
    assert status == 200 and headers["content-type"].startswith("application/json")
    assert json.loads(raw)["choices"][0]["message"]["content"] == forwarded.door.last.reply.text


async def test_errors_keep_status_and_wait_and_lose_keys(everywhere, provider):
    said = f"the key {KEY} is over its limit"
    for protocol, path in PATHS.items():
        provider.plan.append(fails(429, said, retry_after="3", x_ratelimit_reset="9", set_cookie="a=b"))
        status, headers, raw = await post(everywhere, body_for(protocol), path)
        assert (status, headers["retry-after"], headers["x-ratelimit-reset"]) == (429, "3", "9")
        assert "set-cookie" not in headers and KEY.encode() not in raw and b"over its limit" in raw
        kept = everywhere.door.last
        assert kept.status == 429 and "over its limit" in kept.error and KEY not in kept.error and kept.reply is None
    provider.plan.append(says(200, {"error": {"message": f"{KEY} is bad"}}))
    status, _, raw = await post(everywhere, body_for("chat"))
    assert status == 502 and KEY.encode() not in raw


async def test_pages_and_redirections_are_told_in_the_protocols_shape(everywhere, provider):
    for status, said in ((502, 502), (302, 502)):
        headers = {"location": "http://127.0.0.1:1/"}
        provider.plan.append(says(status, "<html>bad gateway</html>", headers, content_type="text/html"))
        told, _, raw = await post(everywhere, body_for("messages"), "messages")
        assert told == said and json.loads(raw)["type"] == "error" and b"answered" in raw
    provider.plan.append(says(200, "<html>hello</html>", content_type="text/html"))
    told, _, raw = await post(everywhere, body_for("chat"))
    assert (told, json.loads(raw)["error"]["code"]) == (502, "upstream_malformed")


# broken ---------------------------------------------------------------------------------------------------------------


async def test_an_upstream_that_is_down_slow_or_breaks_off(provider):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    door = Kept()
    routes = [
        Route(name="down", upstream=f"http/m@http://127.0.0.1:{port}/v1"),
        Route(name="slow", upstream=f"http/tiny-1@{provider.url}/v1", timeout=0.1),
    ]
    async with Gateway(routes=routes, capture=door) as gateway:
        for stream in (False, True):
            status, headers, raw = await post(gateway, any_(model="down", stream=stream))
            assert (status, headers["retry-after"]) == (503, "1") and b"ConnectorError" in raw
            provider.plan.append(hangs)
            status, headers, raw = await post(gateway, any_(model="slow", stream=stream))
            assert (status, headers["retry-after"]) == (504, "1") and b"within 0.1 s" in raw
            provider.plan.append(hangs)  # asked by the contract of a model
            status, headers, raw = await post(gateway, {"model": "slow", "input": "hi", "stream": stream}, "responses")
            assert (status, headers["retry-after"]) == (504, "1") and b"within 0.1 s" in raw
        for breaks in (drops, cuts):
            provider.plan.append(breaks)
            status, _, raw = await post(gateway, any_(model="slow"))
            assert status == 503 and b"connection to the upstream failed" in raw
    assert [e.status for e in door.exchanges] == [503, 504, 504, 503, 504, 504, 503, 503]
    assert all(e.error and e.reply is None for e in door.exchanges)


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("how", ["no JSON", "early end", "abort", "error"])
async def test_a_stream_that_breaks_ends_with_an_error_event(everywhere, provider, protocol, how):
    good = {
        "chat": CHUNK,
        "responses": 'event: x\ndata: {"type": "response.output_text.delta", "delta": "a b"}\n\n',
        "messages": 'event: x\ndata: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"a b"}}\n\n',
    }[protocol]
    error = f'data: {{"type": "error", "error": {{"type": "api_error", "message": "lost {KEY}"}}}}\n\n'
    bad = {"no JSON": "data: {no\n\n", "early end": "", "abort": 'data: {"half', "error": error}[how]
    provider.plan.append(streams([good, bad], abort=how == "abort"))
    status, _, raw = await post(everywhere, body_for(protocol, stream=True), PATHS[protocol])
    assert status == 200 and raw.startswith(good.encode()) and KEY.encode() not in raw and raw.endswith(b"\n\n")
    last = json.loads(raw.split(b"\n\n")[-2].split(b"data: ")[1])
    assert last["error"]["message"] if protocol != "responses" or how == "error" else last["type"] == "error"
    kept = everywhere.door.last
    assert (kept.status, kept.reply.text, kept.reply.finish) == (200, "a b", "error") and kept.error
    assert KEY not in kept.error
    # What breaks before there is anything is told by the status.
    if how in ("no JSON", "early end"):
        provider.plan.append(streams([bad]))
        status, _, raw = await post(everywhere, body_for(protocol, stream=True), PATHS[protocol])
        assert status == 502 and b"error" in raw and everywhere.door.last.status == 502


@pytest.mark.parametrize(("protocol", "last"), [("responses", "response.failed"), ("messages", "error")])
async def test_a_reply_that_breaks_off_is_told_in_the_clients_protocol(forwarded, provider, protocol, last):
    provider.plan.append(streams([CHUNK]))
    asked = {"input": "hi"} if protocol == "responses" else {"messages": ASK, "max_tokens": 9}
    status, _, raw = await post(forwarded, {"model": "any", "stream": True, **asked}, PATHS[protocol])
    events = [json.loads(e.split(b"data: ")[1]) for e in raw.split(b"\n\n")[:-1]]
    assert status == 200 and events[-1]["type"] == last
    told = events[-1]["response"]["error"] if protocol == "responses" else events[-1]["error"]
    assert "ended early" in told["message"]
    kept = forwarded.door.last
    assert (kept.reply.text, kept.reply.finish) == ("a b", "error") and "ended early" in kept.error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat/completions", "responses"])  # as it came; asked by the contract
async def test_a_client_that_hangs_up_stops_the_upstream(forwarded, provider, path, stream):
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def endless(request, body):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if body.get("stream"):
            await response.prepare(request)
            await response.write(CHUNK.encode())
        begun.set()
        try:
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.005)
        finally:
            stopped.set()
        return response

    provider.plan.append(endless)
    asked = json.dumps({**any_(stream=stream), "input": "hi"} if path == "chat/completions" else
                       {"model": "any", "input": "hi", "stream": stream}).encode()  # fmt: skip
    _, writer = await asyncio.open_connection("127.0.0.1", int(forwarded.url.rsplit(":", 1)[1]))
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(asked)}\r\n\r\n"
    writer.write(head.encode() + asked)
    await begun.wait()
    await asyncio.sleep(0.02)
    writer.close()
    async with asyncio.timeout(10):
        await stopped.wait()
    await until(lambda: forwarded.door.exchanges)
    kept = forwarded.door.last
    assert (kept.status, kept.error) == (499, "the client hung up") and forwarded.door.charged == [kept]
    if stream:
        assert (kept.reply.text, kept.reply.finish) == ("a b", "error")


# doors ----------------------------------------------------------------------------------------------------------------


async def test_the_gate_is_asked_and_told(provider):
    door = Kept(refuses=Refusal(429, "the limit is reached", retry_after=9))
    async with between(provider, "http/tiny-1@{url}/v1", door=door) as gateway:
        status, headers, raw = await post(gateway, any_(), headers={"x-api-key": "wrong"})
        assert (status, json.loads(raw)["error"]["code"]) == (401, "invalid_api_key")
        status, headers, raw = await post(gateway, any_(), "messages", headers={"x-api-key": "mine"})
        assert status == 400  # no max_tokens, which Anthropic wants
        status, headers, raw = await post(gateway, any_(max_tokens=1), "messages", headers={"x-api-key": "mine"})
        assert (status, headers["retry-after"]) == (429, "9")
        assert json.loads(raw)["error"] == {"type": "rate_limit_error", "message": "the limit is reached"}
        assert door.prices[0].cost(10, 10) == 0.0 and not door.charged and not door.exchanges and not provider.seen
        assert json.loads(await get(gateway, "/health", **{"x-api-key": "wrong"})) == {"status": "ok"}
        assert json.loads(await get(gateway, "/health"))["routes"]["any"]["model"] == "http/tiny-1"


async def test_a_door_that_fails_breaks_nobody_and_a_route_may_be_kept_nowhere(provider, caplog):
    class Broken(Kept):
        def put(self, exchange):
            raise OSError("disk full")

    async with between(provider, "http/tiny-1@{url}/v1", door=Broken()) as gateway:
        assert (await post(gateway, any_()))[0] == 200
        assert len(gateway.door.charged) == 1 and "disk full" in caplog.text
    async with between(provider, "http/tiny-1@{url}/v1", capture=False) as gateway:
        assert (await post(gateway, any_()))[0] == 200
        assert len(gateway.door.charged) == 1 and gateway.door.exchanges == []


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_shadow_asks_another_upstream_the_same(provider, protocol):
    class Shadow:
        def __init__(self):
            self.replies = []

        def begin(self, exchange, ask):
            again = [m.replace(content=f"{m.content} again") for m in exchange.messages]
            self.task = asyncio.ensure_future(ask("http/tiny-2@" + provider.url + "/v1", again))

    shadow = Shadow()
    upstream, other = (f"http/{m}@{provider.url}/v1" for m in ("tiny-1", "tiny-2"))
    routes = [Route(name="any", upstream=upstream, shadow=other)]
    async with Gateway(routes=routes, shadow=shadow) as gateway:
        asked = body_for(protocol, model="any", stream=True)
        if protocol == "responses":
            asked["max_output_tokens"] = asked.pop("max_tokens")
        assert (await post(gateway, asked, PATHS[protocol]))[0] == 200
        reply = await shadow.task
        assert "again" in reply.text and provider.seen[-1]["model"] == "tiny-2"
        if protocol == "chat":  # what only passes as it is cannot be asked by the contract
            assert (await post(gateway, any_(min_p=0.1)))[0] == 200
            with pytest.raises(ConfigError, match="min_p"):
                await shadow.task


async def test_pages_let_people_in_by_themselves_and_doors_bring_paths(provider):
    class Pages:
        def routes(self):
            async def hello(request):
                return web.Response(text="hello")

            return [web.get("/", hello)]

        async def open(self, gateway):
            self.at = gateway.url

        async def aclose(self):
            self.at = ""

    class Feedback(Kept):
        def routes(self):
            async def take(request):
                raise Refusal(404, "no such response")

            return [web.post("/v1/feedback", take)]

        def health(self):
            return {"lost": 0}

    pages, door = Pages(), Feedback()
    routes = [Route(name="any", upstream=f"http/tiny-1@{provider.url}/v1")]
    async with Gateway(routes=routes, gate=door, capture=door, pages=pages) as gateway:
        assert pages.at == gateway.url
        assert await get(gateway, "/", **{"x-api-key": "wrong"}) == "hello"
        assert (await post(gateway, {}, "feedback", headers={"x-api-key": "wrong"}))[0] == 401
        assert json.loads((await post(gateway, {}, "feedback"))[2])["error"]["message"] == "no such response"
        assert json.loads(await get(gateway, "/health"))["capture"] == {"lost": 0}
    assert pages.at == ""


async def test_a_large_body_is_told_in_anthropics_shape(forwarded):
    status, _, raw = await post(forwarded, b" " * (LARGEST_REQUEST + 1), "messages")
    assert (status, json.loads(raw)["error"]["type"]) == (413, "request_too_large")
