"""Bad weather on the wire: what a server of chat completions sends on a bad day, drawn by a seed.

`server.always = Weather(server, rate=0.3, seed=1)` makes a server of protocol_servers.py break. What happens to a
request is drawn from the seed, its body and how often that body came, so the order of requests has no say in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

Send = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]

_JSON, _EVENTS = "application/json", "text/event-stream"
HALF = "the code of anch"
"""What is left of a reply that was cut."""


def _status(status: int, body: str, kind: str = _JSON, **headers: str) -> Send:
    async def send(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return web.Response(status=status, body=body.encode(), content_type=kind, headers=named)

    return send


def _error(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "error", "code": None, "param": None}})


def _body(payload: bytes, kind: str = _JSON, **headers: str) -> Send:
    """The same bytes whatever was asked, with the status of success; to a stream they come as an event stream."""

    async def send(_: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        events = bool(asked.get("stream")) and kind == _JSON
        sent = b"data: " + payload + b"\n\n" if events else payload
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return web.Response(body=sent, content_type=_EVENTS if events else kind, headers=named)

    return send


def _choice(message: dict[str, Any], finish: str | None, **more: Any) -> Send:
    """A completion with that message, as a body or as a stream that comes to its end."""

    async def send(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish} | more
            return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
        calls = [{"index": i, **c} for i, c in enumerate(message.get("tool_calls") or ())]
        delta = {**message, **({"tool_calls": calls} if calls else {})}
        frames = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
        frames.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        text = "".join(f"data: {json.dumps(f)}\n\n" for f in frames) + "data: [DONE]\n\n"
        return web.Response(body=text.encode(), content_type=_EVENTS)

    return send


async def _resets(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0)
    return web.Response()


async def _hangs(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


def _breaks_off(then: str) -> Send:
    """Sends half of an answer; then it stalls, resets the connection, or closes it as if nothing was missing."""

    async def send(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        frame = json.dumps({"choices": [{"index": 0, "delta": {"content": HALF}, "finish_reason": None}]})
        streaming = bool(asked.get("stream"))
        half = f"data: {frame}\n\n" if streaming else '{"choices": [{"index": 0, "message": {"content": "' + HALF
        response = web.StreamResponse(headers={"Content-Type": _EVENTS if streaming else _JSON})
        if not streaming and then != "close":
            response.content_length = 10_000
        await response.prepare(request)
        await response.write(half.encode())
        if then == "stall":
            await asyncio.sleep(3600)
        if then == "reset":
            await asyncio.sleep(0.002)
            assert request.transport is not None
            request.transport.abort()
        return response

    return send


async def _not_http(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"\x16\x03\x01 this is no HTTP \xff\xfe\r\n\r\n")  # type: ignore[attr-defined]
    request.transport.close()
    await asyncio.sleep(0)
    return web.Response()


_PAGE = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
_FUNCTION = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"word": "anch'}}

RETRIED: dict[str, Send] = {
    "rate_limit": _status(429, _error("slow down"), Retry_After="0.01"),
    "rate_limit_date": _status(429, "", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "rate_limit_odd": _status(429, "{}", Retry_After="soon"),
    "server_error": _status(500, _error("oops")),
    "bad_gateway": _status(502, _PAGE, "text/html"),
    "unavailable": _status(503, ""),
    "overloaded": _status(529, _error("overloaded")),
    "reset": _resets,
    "hangs": _hangs,
    "stalls": _breaks_off("stall"),
    "cut_off": _breaks_off("reset"),
    "ends_early": _breaks_off("close"),
    "not_http": _not_http,
    "nothing": _body(b""),
    "not_json": _body(b'{"choices": [{"message"'),
    "half_tool_calls": _body(b'{"choices": [{"index": 0, "message": {"tool_calls": [{"id": "c1", "function": {"na'),
    "bytes": _body(b"\x00\xff\xfe\x01" * 20),
    "wrong_encoding": _body(b"this is not compressed", Content_Encoding="gzip"),
    "null": _body(b"null"),
    "list": _body(b"[]"),
    "number_content": _choice({"content": 5}, "stop"),
    "tool_without_function": _choice({"content": None, "tool_calls": [7]}, "tool_calls"),
    "deep": _body(b'{"choices": ' + b"[" * 100_000),
}
"""What is tried again: sent once and then not again, nobody notices."""

EXPLAINED: dict[str, Send] = {
    "page": _status(200, _PAGE, "text/html"),
    "error_object": _body(_error("the model fell over").encode()),
    "no_key": _status(401, _error("no key")),
    "no_model": _status(404, _error("no such model")),
    "no_money": _status(402, _error("pay first")),
}
"""What another try would not mend (or must not, for it may cost): an error in three parts at once."""

MARKED: dict[str, Send] = {
    "cut": _choice({"content": HALF}, "length"),
    "half_arguments": _choice({"content": None, "tool_calls": [_FUNCTION]}, "tool_calls"),
    "empty": _choice({"content": ""}, "stop"),
    "null_content": _choice({"content": None}, "stop"),
    "bad_bytes": _body(
        b'{"choices": [{"index": 0, "message": {"content": "the c\xffde"}, "delta": {"content": "the c\xffde"},'
        b' "finish_reason": "stop"}]}'
    ),
    "odd_finish": _choice({"content": HALF}, "explosion"),
    "filtered": _choice({"content": HALF}, "content_filter"),
}
"""What comes as a reply that shows what is wrong with it."""

KINDS: dict[str, Send] = RETRIED | EXPLAINED | MARKED
"""Every fault by name."""


class Weather:
    """Decides for each request whether it is answered properly.

    Args:
        answer: The proper answer (`server.answer`).
        rate: Share of requests that meet a fault.
        seed: Chooses the weather.
        kinds: What may happen.
    """

    def __init__(self, answer: Send, *, rate: float, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> None:
        self._answer, self._rate, self._seed, self._kinds = answer, rate, seed, tuple(kinds)
        self.sent: dict[str, list[str]] = {}
        """What each question met, try after try ("" is a proper answer)."""

    @property
    def injected(self) -> Counter[str]:
        """Faults so far, by kind."""
        return Counter(kind for met in self.sent.values() for kind in met if kind)

    async def __call__(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Answers one request, well or badly."""
        question = str(body["messages"][-1]["content"])
        met = self.sent.setdefault(question, [])
        text = f"{self._seed}/{json.dumps(body, sort_keys=True)}/{len(met)}"
        drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
        bad = (drawn >> 64) < self._rate * 2**64
        met.append(self._kinds[(drawn & (2**64 - 1)) % len(self._kinds)] if bad else "")
        return await (KINDS[met[-1]] if bad else self._answer)(request, body)
