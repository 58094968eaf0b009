"""The server: three protocols, the list of models and its health over HTTP, on loopback unless there is a token."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from verbal.errors import ConfigError, VerbalError
from verbal.store import Store

from .exchange import CALLER, Caller, Capture, Gate, Lessons, Pages, Shadow
from .fields import model_of, read_body
from .forms import FORMS, Form
from .forward import Forward, put_model, told_error, told_headers, whole
from .passage import Doors, Passage
from .places import is_loopback, refuse_other_places
from .refusal import Refusal, fault, received, refusal
from .routes import ANY, Route, find_route, only_route
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
_ENDING = 10.0
"""Seconds that requests under way have to end when the server stops."""
_log = logging.getLogger("verbal.gateway")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """Models behind OpenAI's chat completions and responses, and Anthropic's messages.

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
        self.url = ""
        """Where it listens, such as `http://127.0.0.1:8600`."""
        self.routes = tuple(routes) or (only_route(spec),)
        self._named, self._pages = bool(routes) or self.routes[0].name == ANY, pages
        keys = {r.upstream: r.key for r in reversed(self.routes) if r.key}
        # Adapters have a time-out of their own: the route's comes first, and is told as one.
        patience = 2.0 * max(r.timeout for r in self.routes)
        self._switches = {
            spec: Switch(
                spec, store, engine=engine, every=every, key=keys.get(spec, ""), probe=not self._named, timeout=patience
            )
            for route in self.routes
            for spec in route.upstreams
        }
        self._forward = Forward()
        self._doors = Doors(
            forward=self._forward, lease=self.lease, gate=gate, lessons=lessons, capture=capture, shadow=shadow
        )
        self._open_routes: set[web.AbstractRoute] = set()
        """Those of the web application, which lets people in by itself."""
        self._token = token.encode()
        self._runner: web.AppRunner | None = None
        self._watching: list[asyncio.Task[None]] = []
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
        if not self._token and self._doors.gate is None and not is_loopback(host):
            what = f"a model served at {host!r} without a token could be used by anybody"
            raise ConfigError(what, where="verbal serve --host", todo=f"put a long random text into {TOKEN}")
        listener = _listening(host, port)
        try:
            for switch in self._switches.values():
                await switch.start()
            self._forward.open()
            # A client that hangs up cancels its handler, and with it the call behind.
            runner = web.AppRunner(self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=_ENDING)
            await runner.setup()
            self._runner = runner
            await web.SockSite(runner, listener).start()
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
            if self._pages is not None:
                await self._pages.open(self)
        except BaseException:
            listener.close()
            await self.aclose()
            raise
        self._watching = [asyncio.create_task(switch.watch()) for switch in self._switches.values()]
        return self.url

    async def aclose(self) -> None:
        """Stops listening, lets requests under way end (ten seconds), closes the models."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._pages is not None:
            await self._pages.aclose()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._forward.aclose()
        for switch in self._switches.values():
            await switch.aclose()

    @property
    def switch(self) -> Switch:
        """What answers on the first route."""
        return self._switches[self.routes[0].upstream]

    @contextmanager
    def lease(self, upstream: str) -> Iterator[Served]:
        """The model behind an upstream of a route; it stays open until the request is done."""
        with self._switches[upstream].lease() as served:
            yield served

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[self._guarded])
        app.add_routes([web.post(f"/v1/{form.path}", self._answers(form)) for form in FORMS])
        app.add_routes(
            [
                web.post("/v1/messages/count_tokens", self._count),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{name:.+}", self._model),
                web.get("/health", self._health),
            ]
        )
        doors = self._doors
        # One object may be several doors.
        for door in {id(d): d for d in (doors.gate, doors.lessons, doors.capture, doors.shadow)}.values():
            app.add_routes(getattr(door, "routes", tuple)())
        if self._pages is not None:
            self._open_routes = set(app.add_routes(self._pages.routes()))
        return app

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Lets in who may come, and tells every failure in the shape of the client's protocol."""
        if request.match_info.route in self._open_routes:
            return await handler(request)
        try:
            request[CALLER] = self._admit(request)
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
            found = fault()
        wait = {"retry-after": f"{found.retry_after:g}"} if found.retry_after is not None else None
        body = found.anthropic if _speaks_anthropic(request) else found.body
        return web.json_response(body, status=found.status, headers=wait)

    def _admit(self, request: web.Request) -> Caller | None:
        """Who calls; None for one who may see no more than whether the server is well.

        Raises:
            Refusal: it has no right to come, or is led here by a page of another place.
        """
        try:
            if self._doors.gate is not None:
                return self._doors.gate.admit(request.headers)
            if not self._token:
                refuse_other_places(request.headers)
            elif not self._known(request.headers):
                raise Refusal(401, "the bearer token is missing or wrong", code="invalid_api_key")
            return Caller()
        except Refusal as refused:
            if request.path == "/health" and refused.status == 401:
                return None
            raise

    def _known(self, headers: Mapping[str, str]) -> bool:
        given = headers.get("Authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return _listed(request, [n for n in self._names(request[CALLER]) if n != ANY])

    async def _model(self, request: web.Request) -> web.StreamResponse:
        name, caller = request.match_info["name"], request[CALLER]
        if caller.routes and not {self._route(name, caller).name, name} & set(caller.routes):
            raise self._not_served(name, caller)  # as one that is not there
        self._route(name, caller)
        return _listed(request, [name], one=True)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        failures = {spec: s.failure for spec, s in self._switches.items() if s.failure}
        status = {"status": "degraded" if failures else "ok"}
        if request[CALLER] is None:
            return web.json_response(status)
        switch, served = self.switch, self.switch.current
        policy = served.source.policy
        capture = getattr(self._doors.capture, "health", None)
        names = self._names(request[CALLER])
        # Where an upstream is, and with what name and password, is no client's business.
        routes = {r.name: {"upstream": r.upstream.partition("@")[0], "model": self._switches[r.upstream].current.name}
                  for r in self.routes if r.name in names}  # fmt: skip
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
                **({"routes": routes} if self._named else {}),
                **({"capture": capture()} if capture is not None else {}),
            }
        )

    def _answers(self, form: Form) -> _Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if self._under_way >= MOST_AT_ONCE:
                what = f"{MOST_AT_ONCE} requests are under way"
                raise Refusal(429, what, kind="server_error", code="overloaded", retry_after=1.0)
            self._under_way += 1
            try:
                raw = await received(request)
                body = read_body(raw)
                caller = request[CALLER]
                route = self._route(model_of(body), caller)
                with self.lease(route.upstream) as served:
                    passage = Passage(self._doors, form, route, served, caller, raw, body)
                    response = await passage.answer(request)
                self._answered += passage.exchange.status == 200 and not passage.exchange.error
                return response
            finally:
                self._under_way -= 1

        return answer

    async def _count(self, request: web.Request) -> web.StreamResponse:
        """How many tokens a message has: only its provider knows."""
        raw = await received(request)
        model = model_of(read_body(raw))
        caller = request[CALLER]
        route = self._route(model, caller)
        if caller.routes and not {route.name, model} & set(caller.routes):  # what is free is not asked of the gate
            raise Refusal(403, f"this key may not use {model[:80]!r}", param="model", code="route_not_allowed")
        with self.lease(route.upstream) as served:
            wire, path = served.wire, "messages/count_tokens"
            if wire is None or path not in wire.urls:
                raise Refusal(404, "only routes to Anthropic count tokens", code="unsupported")
            sent = raw if wire.model == ANY else put_model(raw, model, wire.model)
            answer = await self._doors.forward.send(
                wire, path, sent, spoken=request.headers, timeout=route.timeout, stream=False
            )
            try:
                raw = await whole(answer, route.timeout)
                found = told_error(answer.status, raw) if answer.status >= 300 else raw
                if isinstance(found, Refusal):
                    raise found
                return web.Response(body=found, status=answer.status, headers=told_headers(answer))
            finally:
                answer.close()

    def _route(self, model: str, caller: Caller) -> Route:
        """The route that a model's name picks for a caller."""
        if self._named:
            route = find_route(self.routes, model)
        else:
            route = self.routes[0] if model in self.switch.current.names else None
        if route is None:
            raise self._not_served(model, caller)
        return route

    def _not_served(self, model: str, caller: Caller) -> Refusal:
        what = f"the model {model[:80]!r} is not served here; served: {', '.join(self._names(caller))}"
        return Refusal(404, what, param="model", code="model_not_found")

    def _names(self, caller: Caller) -> Sequence[str]:
        """The names that a caller may ask for."""
        if not self._named:
            return self.switch.current.names
        return [r.name for r in self.routes if not caller.routes or r.name in caller.routes]


def _not_served(policy: Any) -> list[str]:
    """Parts of what was adopted that a caller of the bare model does not get."""
    memory = f"memory {policy.memory} at version {policy.version}: lessons are not put into prompts here"
    prompts = f"prompts of {policy.prompts}: a caller brings its own"
    return ([memory] if policy.memory else []) + ([prompts] if policy.prompts else [])


def _listed(request: web.Request, names: Sequence[str], *, one: bool = False) -> web.Response:
    """Models in the shape of the client's protocol."""
    if _speaks_anthropic(request):
        made = "1970-01-01T00:00:00Z"
        rows: list[dict[str, Any]] = [
            {"type": "model", "id": name, "display_name": name, "created_at": made} for name in names
        ]
        ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
        return web.json_response(rows[0] if one else {"data": rows, "has_more": False, **ends})
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "verbal"} for name in names]
    return web.json_response(rows[0] if one else {"object": "list", "data": rows})


def _speaks_anthropic(request: web.Request) -> bool:
    return request.path.startswith("/v1/messages") or "anthropic-version" in request.headers


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        todo = "take another port (--port 0 finds a free one), or another --host"
        raise ConfigError(f"cannot listen at {host}:{port}: {error}", where="verbal serve --port", todo=todo) from error


__all__ = ["Gateway"]
