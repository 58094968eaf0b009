"""Events to a page as they come: `text/event-stream`, with a sign of life, ended when nobody listens any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from aiohttp import web

from .door import HEADERS
from .faults import fault

PING = 15.0
"""Seconds of silence after which a sign of life is sent."""
STALLED = 60.0
"""Seconds in which a client takes an event; else it would hold its turn for ever."""


class Events:
    """A stream of events that has begun.

    Args:
        response: Prepared.
    """

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response
        self._writing = asyncio.Lock()
        self._last = asyncio.get_running_loop().time()

    async def send(self, event: dict[str, Any]) -> None:
        """Sends one event.

        Raises:
            ConnectionError: the client is gone, or takes nothing.
        """
        await self._write(
            b"data: " + json.dumps(event, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n\n"
        )

    async def keep_alive(self) -> None:
        """Sends a comment whenever nothing came for a while, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.05, self._last + PING - loop.time()))
            if loop.time() - self._last >= PING:
                await self._write(b": ping\n\n")

    async def _write(self, data: bytes) -> None:
        try:
            async with self._writing, asyncio.timeout(STALLED):
                await self.response.write(data)
        except TimeoutError:
            raise ConnectionAbortedError("the client takes nothing") from None
        self._last = asyncio.get_running_loop().time()


@asynccontextmanager
async def streaming(request: web.Request) -> AsyncIterator[Events]:
    """A stream to the client of a request; what fails inside is told as its last event.

    A client that is gone cancels the task, and what it does: the server is set up that way.
    """
    headers = {**HEADERS, "cache-control": "no-store", "x-accel-buffering": "no"}
    response = web.StreamResponse(headers=headers)
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    await response.prepare(request)
    events = Events(response)
    alive = asyncio.create_task(events.keep_alive())
    try:
        try:
            yield events
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            told = fault(error)
            await events.send({"type": "error", **told.body})
        await response.write_eof()
    except ConnectionError:  # it stopped reading
        if request.transport is not None:
            request.transport.abort()
    finally:
        alive.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await alive


async def stream_all(
    request: web.Request, made: AsyncGenerator[dict[str, Any], None], ended: Callable[[], None] = lambda: None
) -> web.StreamResponse:
    """Sends everything that a generator gives, which is closed with the stream; `ended` is called in any case."""
    try:
        async with streaming(request) as events, aclosing(made):
            async for event in made:
                await events.send(event)
    finally:
        ended()
    return events.response


def wants_events(request: web.Request) -> bool:
    """Whether a client asked for a stream."""
    return "text/event-stream" in request.headers.get("Accept", "")


__all__ = ["PING", "STALLED", "Events", "stream_all", "streaming", "wants_events"]
