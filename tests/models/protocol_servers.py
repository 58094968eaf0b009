"""Loopback servers that speak the protocols of model providers: OpenAI's chat completions and Anthropic's messages.

They answer properly unless `plan` holds another behaviour for the next request; every request is kept in `seen`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Behaviour = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class Server:
    """A server on a free loopback port."""

    routes: tuple[tuple[str, str, str], ...] = ()

    def __init__(self, latency: float = 0.0) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.plan: deque[Behaviour] = deque()
        self.always: Behaviour | None = None
        self.models = ["tiny-1", "tiny-2", "large-1"]
        self.latency = latency
        self.active = self.most_active = 0
        self.url = ""

    async def __aenter__(self) -> Server:
        app = web.Application(client_max_size=2**26)
        for method, path, name in self.routes:
            app.router.add_route(method, path, getattr(self, name))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def handle(self, request: web.Request, answer: Behaviour) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            behaviour = self.plan.popleft() if self.plan else self.always or answer
            return await behaviour(request, body)
        finally:
            self.active -= 1


def says(status: int, body: Any, headers: dict[str, str] | None = None, content_type: str = "") -> Behaviour:
    """Answers with a status and a body (JSON unless it is text)."""

    async def answer(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        if isinstance(body, str):
            return web.Response(
                status=status, text=body, headers=headers, content_type=content_type or "application/json"
            )
        return web.json_response(body, status=status, headers=headers)

    return answer


def fails(status: int, message: str = "no", *, code: str = "", param: str = "", **headers: str) -> Behaviour:
    """Answers with an error object in OpenAI's form; header names are written with underscores."""
    error = {"message": message, "type": code or "error", "code": code or None, "param": param or None}
    return says(status, {"error": error}, {k.replace("_", "-"): v for k, v in headers.items()})


async def hangs(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
    """Never answers."""
    await asyncio.sleep(3600)
    raise AssertionError


async def drops(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    """Closes the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0.01)
    return web.Response()


async def cuts(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    """Promises a long JSON body and closes after a part of it."""
    response = web.StreamResponse(headers={"Content-Length": "10000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "half')
    assert request.transport is not None
    request.transport.close()
    return response


def streams(events: list[str], *, abort: bool = False, content_type: str = "text/event-stream") -> Behaviour:
    """Sends raw lines of an event stream, each one written by itself."""

    async def answer(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for event in events:
            await response.write(event.encode())
            await asyncio.sleep(0)
        if abort:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


class OpenAIServer(Server):
    """OpenAI's chat completions, with vLLM's token ids."""

    routes = (
        ("POST", "/v1/chat/completions", "complete"),
        ("POST", "/chat/completions", "complete"),
        ("GET", "/v1/models", "list_models"),
    )

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(latency)
        self.ignores_n = False
        self.models_answer: Behaviour | None = None

    async def complete(self, request: web.Request) -> web.StreamResponse:
        return await self.handle(request, self.answer)

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        if self.models_answer:
            return await self.models_answer(request, {})
        rows = [{"id": m, "object": "model", "created": 0, "owned_by": "test"} for m in self.models]
        return web.json_response({"object": "list", "data": rows})

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if body["model"] not in self.models:
            return await fails(404, f"no model {body['model']}", code="model_not_found")(request, body)
        texts = [f"reply {i} to {body['messages'][-1]['content']}" for i in range(body.get("n") or 1)]
        texts = texts[:1] if self.ignores_n else texts
        if body.get("stream"):
            return await self.stream(request, body, texts[0])
        choices = [self.choice(i, t, body) for i, t in enumerate(texts)]
        used = sum(len(t.split()) for t in texts)
        usage = {"prompt_tokens": 7, "completion_tokens": used, "total_tokens": 7 + used}
        return web.json_response(
            # Out of order on purpose: the index decides.
            self.frame("chat.completion", body["model"], choices[::-1], usage)
        )

    def frame(self, kind: str, model: str, choices: Any, usage: Any = None) -> dict[str, Any]:
        data = {"id": "x", "object": kind, "created": 1, "model": model, "choices": choices}
        return data | ({"usage": usage} if usage else {})

    def choice(self, index: int, text: str, body: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        finish = "stop"
        if tools := body.get("tools"):
            function = {"name": tools[0]["function"]["name"], "arguments": '{"x": 1'}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            }
            finish = "tool_calls"
        choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": finish, "logprobs": None}
        if body.get("logprobs"):
            words = [{"token": w, "logprob": -0.5, "bytes": None, "top_logprobs": []} for w in text.split()]
            choice["logprobs"] = {"content": words, "refusal": None}
        if body.get("return_token_ids"):
            choice["token_ids"] = [len(w) for w in text.split()]
        return choice

    async def stream(self, request: web.Request, body: dict[str, Any], text: str) -> web.StreamResponse:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": w + " "} for w in text.split(" ")]
        finish = "stop"
        if tools := body.get("tools"):
            name, finish = tools[0]["function"]["name"], "tool_calls"
            start = {"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": ""}}
            parts = [{"index": 0, "function": {"arguments": a}} for a in ('{"x"', ": 1}")]
            deltas = [{"tool_calls": [p]} for p in (start, *parts)]
        frames = [
            self.frame("chat.completion.chunk", body["model"], [{"index": 0, "delta": d, "finish_reason": None}])
            for d in deltas
        ]
        frames.append(
            self.frame("chat.completion.chunk", body["model"], [{"index": 0, "delta": {}, "finish_reason": finish}])
        )
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
            frames.append(self.frame("chat.completion.chunk", body["model"], [], usage))
        lines = [": a comment\r\n\r\n", *(f"data: {json.dumps(f)}\n\n" for f in frames), "data: [DONE]\n\n"]
        return await streams(lines)(request, body)


class AnthropicServer(Server):
    """Anthropic's messages."""

    routes = (
        ("POST", "/v1/messages", "complete"),
        ("GET", "/v1/models", "list_models"),
        ("GET", "/v1/models/{name}", "show_model"),
    )

    def row(self, name: str) -> dict[str, Any]:
        return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}

    async def complete(self, request: web.Request) -> web.StreamResponse:
        return await self.handle(request, self.answer)

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        rows = [self.row(m) for m in self.models]
        return web.json_response({"data": rows, "has_more": False, "first_id": None, "last_id": None})

    async def show_model(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if "wrong" in (request.headers.get("x-api-key", ""), request.headers.get("authorization", "")[7:]):
            return web.json_response(self.error("authentication_error", "invalid x-api-key"), status=401)
        if name not in self.models:
            return web.json_response(self.error("not_found_error", f"model: {name}"), status=404)
        return web.json_response(self.row(name))

    def error(self, kind: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind, "message": message}}

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        content = body["messages"][-1]["content"]
        last = {"text": content} if isinstance(content, str) else content[-1]
        text = f"reply to {last.get('text') or last.get('content')}"
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        stop = "end_turn"
        if tools := body.get("tools"):
            content.append({"type": "tool_use", "id": "t1", "name": tools[0]["name"], "input": {"x": 1}})
            stop = "tool_use"
        usage = {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 3}
        data = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
        if not body.get("stream"):
            return web.json_response(data | {"content": content, "stop_reason": stop, "usage": usage})
        start = data | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
        events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        words = [w + " " for w in text.split(" ")]
        events += [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w}} for w in words
        ]
        events.append({"type": "content_block_stop", "index": 0})
        if body.get("tools"):
            block = {"type": "tool_use", "id": "t1", "name": body["tools"][0]["name"], "input": {}}
            events.append({"type": "content_block_start", "index": 1, "content_block": block})
            for part in ('{"x"', ": 1}"):
                delta = {"type": "input_json_delta", "partial_json": part}
                events.append({"type": "content_block_delta", "index": 1, "delta": delta})
            events.append({"type": "content_block_stop", "index": 1})
        delta = {"stop_reason": stop, "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}})
        events.append({"type": "message_stop"})
        return await streams([f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events])(request, body)
