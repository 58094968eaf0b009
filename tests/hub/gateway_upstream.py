"""Upstream servers of the gateway's tests: what providers send, and doors that keep what they see."""

from __future__ import annotations

import io
import json
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from gateway_world import ASK
from protocol_servers import AnthropicServer, OpenAIServer, streams

from verbal.apps.gateway.exchange import Caller
from verbal.apps.gateway.refusal import Refusal
from verbal.apps.gateway.routes import Route
from verbal.apps.gateway.server import Gateway
from verbal.types import Reflection

KEY = "sk-the-providers-own-0123456789"
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks at the weather",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}


class Provider(OpenAIServer, AnthropicServer):
    """A provider that speaks all three protocols, as their owners' servers do."""

    routes = (
        *(r for r in OpenAIServer.routes if r[1].startswith("/v1/")),
        ("POST", "/v1/responses", "respond"),
        ("POST", "/v1/messages", "message"),
        ("POST", "/v1/messages/count_tokens", "count"),
    )

    async def complete(self, request: web.Request) -> web.StreamResponse:
        return await self.handle(request, lambda r, b: OpenAIServer.answer(self, r, b))

    async def message(self, request: web.Request) -> web.StreamResponse:
        return await self.handle(request, lambda r, b: AnthropicServer.answer(self, r, b))

    async def respond(self, request: web.Request) -> web.StreamResponse:
        return await self.handle(request, self.response)

    async def count(self, request: web.Request) -> web.StreamResponse:
        return await self.handle(request, self.counted)

    async def stream(self, request: web.Request, body: dict[str, Any], text: str) -> web.StreamResponse:
        return await OpenAIServer.stream(self, request, body, text)

    async def counted(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"input_tokens": 14})

    async def response(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        text = f"reply to {body['input']}"
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, **details}
        frame = {
            "id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "in_progress",
            "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {},
        }  # fmt: skip
        done = frame | {"status": "completed", "output": [item], "usage": usage}
        if not body.get("stream"):
            return web.json_response(done)
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        begun = item | {"status": "in_progress", "content": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": frame},
            {"type": "response.in_progress", "response": frame},
            {"type": "response.output_item.added", "output_index": 0, "item": begun},
            {"type": "response.content_part.added", **place, "part": part | {"text": ""}},
            *({"type": "response.output_text.delta", **place, "delta": f"{w} ", "logprobs": []} for w in text.split()),
            {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **place, "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": done},
        ]
        lines = [
            f"event: {e['type']}\ndata: {json.dumps({**e, 'sequence_number': i})}\n\n" for i, e in enumerate(events)
        ]
        return await streams(lines)(request, body)


class Kept:
    """All doors in one: lets in, teaches, keeps."""

    def __init__(self, lessons: str = "", *, refuses: Refusal | None = None) -> None:
        self.lessons, self.refuses = lessons, refuses
        self.exchanges: list[Any] = []
        self.charged: list[Any] = []
        self.prices: list[Any] = []

    def admit(self, headers: Any) -> Caller:
        if headers.get("authorization", headers.get("x-api-key", "")).removeprefix("Bearer ") == "wrong":
            raise Refusal(401, "no such key", code="invalid_api_key")
        return Caller(project="p", key="k")

    def allow(self, exchange: Any, price: Any) -> None:
        self.prices.append(price)
        if self.refuses is not None:
            raise self.refuses

    def charge(self, exchange: Any) -> None:
        self.charged.append(exchange)

    async def offer(self, exchange: Any) -> str:
        if self.lessons:
            exchange.shown = (Reflection(id="r3", text="x"), Reflection(id="r12", text="y"))
        return self.lessons

    def put(self, exchange: Any) -> bool:
        self.exchanges.append(exchange)
        return True

    @property
    def last(self) -> Any:
        return self.exchanges[-1]


@asynccontextmanager
async def between(provider: Any, upstream: str, *, door: Kept | None = None, **more: Any):
    """A gateway with one route `any` to a provider; `{url}` in the upstream is its address."""
    door = door or Kept()
    route = Route(name="any", upstream=upstream.format(url=provider.url), **more)
    async with Gateway(routes=[route], gate=door, lessons=door, capture=door) as gateway:
        gateway.door = door
        yield gateway


async def post(gateway: Any, body: Any, path: str = "chat/completions", **options: Any) -> tuple[int, Any, bytes]:
    """Status, headers and bytes of a plain request."""
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/v1/{path}", data=data, **options) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


def any_(**more: Any) -> dict[str, Any]:
    """A request for the route `any`."""
    return {"model": "any", "messages": ASK, **more}
