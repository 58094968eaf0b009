"""The server: chat completions, the list of models and its health over HTTP, on loopback unless there is a token."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from aiohttp import web

from verbal.contracts import Reply
from verbal.errors import ConfigError, VerbalError
from verbal.store import Store

from .exchange import Capture, Gate, Lessons, Pages, Shadow
from .reply import Completion, refusal
from .request import ChatRequest, Refusal, read_request
from .routes import Route
from .served import PROMOTED, Served
from .switch import Switch

TOKEN = "VERBAL_SERVE_TOKEN"
"""Environment variable of the bearer token."""
SHORTEST_TOKEN = 16
"""Characters of a token that nobody guesses."""
LARGEST_REQUEST = 10 * 2**20
"""Bytes of a request."""
MOST_AT_ONCE = 512
"""Requests under way; one more is told to come back."""
CALLER = "caller"
"""Key of a request: the `Caller`."""
VERSION = "x-verbal-version"
"""Header of a reply: number of the adopted version that answered."""
_STALLED = 60.0
"""Seconds in which a client sends its request, and takes a piece of a stream; else it would hold a place for ever."""
_ENDING = 10.0
"""Seconds that requests under way have to end when the server stops."""
_log = logging.getLogger("verbal.gateway")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """A model behind OpenAI's chat completions.

    Args:
        spec: As `--model` takes it, or `promoted` for what the store has adopted.
        store: Where adopted versions and checkpoints are; it belongs to whoever made it.
        engine: `auto`, or `vllm` for a process of its own.
        token: What clients must send as bearer token; none is needed on loopback only.
        every: Seconds between two looks at the log of versions.
        routes: Which names are answered by what; without any, `spec` answers to its own names.
        gate: Who may come; without one whoever has the token, or is on this machine.
        lessons: What is put into prompts.
        capture: Keeps what passes.
        pages: A web application on the same server.
        shadow: Lets others answer the same. A gate, lessons, a capture or a shadow that has a method `routes()` brings
            paths of its own, which go through the gate; `request[CALLER]` is who calls.

    Raises:
        ConfigError: the token is short.
    """

    def __init__(
        self,
        spec: str = PROMOTED,
        store: Store | None = None,
        *,
        engine: str = "auto",
        token: str = "",
        every: float = 0.5,
        routes: Sequence[Route] = (),
        gate: Gate | None = None,
        lessons: Lessons | None = None,
        capture: Capture | None = None,
        pages: Pages | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        if token and len(token) < SHORTEST_TOKEN:
            what = f"the token has {len(token)} characters, at least {SHORTEST_TOKEN} are needed"
            raise ConfigError(what, where=TOKEN, todo="put a long random text there")
        self.switch = Switch(spec, store, engine=engine, every=every)
        self.url = ""
        """Where it listens, such as `http://127.0.0.1:8600`."""
        self.routes = tuple(routes) or (Route(name="default", upstream=spec),)
        self._gate, self._lessons, self._capture, self._pages, self._shadow = gate, lessons, capture, pages, shadow
        self._token = token.encode()
        self._runner: web.AppRunner | None = None
        self._watching: asyncio.Task[None] | None = None
        self._answered = self._under_way = 0
        self._began = time.monotonic()

    async def open(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Loads the model and listens; gives the address.

        Args:
            host: Address to listen at.
            port: 0 takes a free one.

        Raises:
            ConfigError: the address is taken, or is not loopback and there is no token.
            VerbalError: the model cannot serve.
        """
        if not self._token and not is_loopback(host):
            what = f"a model served at {host!r} without a token could be used by anybody"
            raise ConfigError(what, where="verbal serve --host", todo=f"put a long random text into {TOKEN}")
        listener = _listening(host, port)
        try:
            await self.switch.start()
            app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[self._guarded])
            app.add_routes(
                [
                    web.post("/v1/chat/completions", self._chat),
                    web.get("/v1/models", self._models),
                    web.get("/health", self._health),
                ]
            )
            for door in (self._gate, self._lessons, self._capture, self._shadow, self._pages):
                app.add_routes(getattr(door, "routes", tuple)())
            # A client that hangs up cancels its handler, and with it the call behind.
            runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_ENDING)
            await runner.setup()
            self._runner = runner
            await web.SockSite(runner, listener).start()
        except BaseException:
            listener.close()
            await self.aclose()
            raise
        self._watching = asyncio.create_task(self.switch.watch())
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        if self._pages is not None:
            await self._pages.open(self)
        return self.url

    async def aclose(self) -> None:
        """Stops listening, lets requests under way end (ten seconds), closes the models."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._pages is not None:
            await self._pages.aclose()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.switch.aclose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Lets in who may come, and tells every failure in OpenAI's shape."""
        try:
            self._admit(request)
            return await handler(request)
        except Refusal as refused:
            found = refused
        except VerbalError as error:
            found = refusal(error)
        except web.HTTPException as error:
            too_large = f"the body is larger than {LARGEST_REQUEST >> 20} MB" if error.status == 413 else ""
            found = Refusal(error.status, too_large or f"{request.method} {request.path[:80]}: {error.reason}")
        except Exception:
            _log.exception("a request failed")
            found = Refusal(500, "the server failed; its log says how", kind="server_error", code="server_error")
        wait = {"retry-after": f"{found.retry_after:g}"} if found.retry_after is not None else None
        return web.json_response(found.body, status=found.status, headers=wait)

    def _admit(self, request: web.Request) -> None:
        """Raises a refusal for a client without the token, or, where there is none, for a page of another place."""
        if self._token:
            if request.path != "/health" and not self._known(request):
                raise Refusal(401, "the bearer token is missing or wrong", code="invalid_api_key")
            return
        # A web page could lead a browser here, under a name of its own (DNS rebinding) or blindly.
        for name in ("Host", "Origin"):
            value = request.headers.get(name, "")
            if value and not is_loopback(_host_of(value)):
                raise Refusal(403, f"{name} {value[:80]!r} is not this machine", code="forbidden")

    def _known(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), b"Bearer " + self._token)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        served = self.switch.current
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "verbal"} for name in served.names]
        return web.json_response({"object": "list", "data": rows})

    async def _health(self, request: web.Request) -> web.StreamResponse:
        switch, served = self.switch, self.switch.current
        status = {"status": "degraded" if switch.failure else "ok"}
        if self._token and not self._known(request):
            return web.json_response(status)
        policy = served.source.policy
        return web.json_response(
            {
                **status,
                "model": served.name,
                "system_fingerprint": served.fingerprint,
                "version": served.source.version or None,
                "under_way": self._under_way,
                "answered": self._answered,
                "seconds": round(time.monotonic() - self._began, 1),
                "swaps": switch.swaps,
                "loading": switch.loading,
                "retiring": switch.retiring,
                "failure": switch.failure,
                "not_served": _not_served(policy) if policy is not None else [],
            }
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self._under_way >= MOST_AT_ONCE:
            what = f"{MOST_AT_ONCE} requests are under way"
            raise Refusal(429, what, kind="server_error", code="overloaded", retry_after=1.0)
        self._under_way += 1
        try:
            try:
                async with asyncio.timeout(_STALLED):
                    body = await request.read()
            except TimeoutError:
                what = f"the body did not come within {_STALLED:g} s"
                raise Refusal(408, what, code="request_timeout") from None
            asked = read_request(body)
            with self.switch.lease() as served:
                return await self._answer(request, asked, served)
        finally:
            self._under_way -= 1

    async def _answer(self, request: web.Request, asked: ChatRequest, served: Served) -> web.StreamResponse:
        if asked.model not in served.names:
            what = f"the model {asked.model[:80]!r} is not served here; served: {', '.join(served.names)}"
            raise Refusal(404, what, param="model", code="model_not_found")
        version = served.source.version
        headers = {VERSION: str(version)} if version else {}
        completion = Completion(model=served.name, fingerprint=served.fingerprint, token_ids=asked.token_ids)
        if not asked.stream:
            body = completion.whole(await served.replies(asked))
            self._answered += 1
            return web.json_response(body, headers=headers)
        async with aclosing(served.pieces(asked)) as pieces:
            # The first piece is waited for: what fails until then is told by the status.
            first = await anext(pieces)
            response = web.StreamResponse(headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
            response.content_type = "text/event-stream"
            await response.prepare(request)
            try:
                async with aclosing(_events(completion, asked, first, pieces)) as events:
                    async for event in events:
                        async with asyncio.timeout(_STALLED):
                            await response.write(f"data: {event}\n\n".encode())
                await response.write_eof()
                self._answered += 1
            except (TimeoutError, ConnectionError):  # it stopped reading
                if request.transport is not None:
                    request.transport.abort()
            return response


async def _events(
    completion: Completion,
    asked: ChatRequest,
    first: tuple[int, str | Reply],
    pieces: AsyncIterator[tuple[int, str | Reply]],
) -> AsyncGenerator[str, None]:
    """The data of each event of a stream; a failure on the way is the last one."""
    replies: dict[int, Reply] = {}
    opened: set[int] = set()

    def told(index: int, piece: str | Reply) -> list[dict[str, Any]]:
        head = [] if index in opened else [completion.opening(index)]
        opened.add(index)
        if isinstance(piece, Reply):
            replies[index] = piece
            return [*head, completion.closing(index, piece)]
        return [*head, completion.piece(index, piece)]

    for chunk in told(*first):
        yield json.dumps(chunk)
    try:
        async for index, piece in pieces:
            for chunk in told(index, piece):
                yield json.dumps(chunk)
    except VerbalError as error:
        yield json.dumps(refusal(error).body)
        return
    except Exception:
        _log.exception("a stream failed")
        broken = Refusal(500, "the server failed; its log says how", kind="server_error", code="server_error")
        yield json.dumps(broken.body)
        return
    if asked.usage:
        yield json.dumps(completion.usage([replies[i] for i in sorted(replies)]))
    yield "[DONE]"


def _not_served(policy: Any) -> list[str]:
    """Parts of what was adopted that a caller of the bare model does not get."""
    memory = f"memory {policy.memory} at version {policy.version}: lessons are not put into prompts here"
    prompts = f"prompts of {policy.prompts}: a caller brings its own"
    return ([memory] if policy.memory else []) + ([prompts] if policy.prompts else [])


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own and no other's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_of(value: str) -> str:
    try:
        return urlsplit(value if "//" in value else f"//{value}").hostname or ""
    except ValueError:
        return ""


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        todo = "take another port (--port 0 finds a free one), or another --host"
        raise ConfigError(f"cannot listen at {host}:{port}: {error}", where="verbal serve --port", todo=todo) from error


__all__ = ["Gateway", "is_loopback"]
