"""One request on its way through the gateway: lessons in, a model asked, its answer told, the exchange kept.

Where client and upstream speak one protocol, the body goes on as it came and the answer comes back as it is; both are
read on the way. Otherwise the request is read strictly, a model is asked, and its reply written in the client's form.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from aiohttp import ClientResponse, web

from verbal.contracts import Reply
from verbal.errors import ConfigError, ModelError, VerbalError
from verbal.models import redact
from verbal.models._faults import clip, error_message
from verbal.models._wire import parse_json
from verbal.types import Message, Usage

from .answers import Head, Writer, cut_off
from .exchange import Caller, Capture, Exchange, Gate, Lessons, Shadow
from .fields import read_body, with_lessons, write_body
from .forms import CHAT, Form
from .forward import Events, Forward, late, pieces, put_model, told_error, told_headers, whole
from .refusal import Refusal, fault, lost, refusal
from .routes import ANY, Route
from .served import Served
from .tokens import estimate

_T = TypeVar("_T")
VERSION = "x-verbal-version"
"""Header of a reply: number of the adopted version that answered."""
SHOWN = "x-verbal-lessons"
"""Header of a reply: ids of the lessons that were put into the prompt."""
STALLED = 60.0
"""Seconds in which a client takes a piece of a stream; else it would hold a place for ever."""
_STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
_COUNTED = b'{"stream_options":{"include_usage":true},'
_DONE = b"[DONE]"
_NO_ID = re.compile(r"[^A-Za-z0-9._-]")
_log = logging.getLogger("verbal.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What a request passes on its way."""

    forward: Forward
    lease: Callable[[str], AbstractContextManager[Served]]
    """The model behind an upstream, while it is used."""
    gate: Gate | None = None
    lessons: Lessons | None = None
    capture: Capture | None = None
    shadow: Shadow | None = None

    @property
    def listening(self) -> bool:
        """Whether anybody wants to know what an exchange used."""
        return self.gate is not None or self.capture is not None or self.shadow is not None


class Passage:
    """One request on its way.

    Args:
        doors: What it passes.
        form: The client's protocol.
        route: What its model's name picked.
        served: The model that answers.
        caller: Who asks.
        raw: The body.
        body: The same, read.

    Raises:
        Refusal: a field that is wrong, unknown or cannot be honoured (400).
    """

    def __init__(
        self, doors: Doors, form: Form, route: Route, served: Served, caller: Caller, raw: bytes, body: dict[str, Any]
    ) -> None:
        self._doors, self._form, self._route, self._served = doors, form, route, served
        self._raw, self._body = raw, body
        wire = served.wire
        self._wire = wire if wire is not None and form.path in wire.urls else None
        self._asked = form.read(body, loose=self._wire is not None)
        asked = self._asked
        self.exchange = Exchange(
            id=f"{form.prefix}{uuid.uuid4().hex}", caller=caller, protocol=form.name, route=route.name,
            model=asked.model, messages=asked.messages, sampling=asked.sampling, n=asked.n, stream=asked.stream,
            size=len(raw),
            answered_by=served.name_of(asked.model), version=served.source.version,
        )  # fmt: skip
        self._began = time.perf_counter()
        self._price = served.price(asked.model)
        self._counts = False
        """Whether a stream is asked for its usage, which the client did not ask for and does not get."""
        self._asks = False
        """Whether a model is being asked, or was."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The answer; whatever becomes of it, the doors are told.

        Raises:
            Refusal: there is none.
        """
        exchange, doors = self.exchange, self._doors
        if doors.gate is not None:
            doors.gate.allow(exchange, self._price)
        try:
            lessons = await doors.lessons.offer(exchange) if doors.lessons is not None else ""
            self._asks = True
            if self._wire is not None:
                return await self._forward(request, lessons)
            return await self._ask(request, lessons)
        except asyncio.CancelledError:
            self._hung_up()
            raise
        except Exception as error:
            refused = _told(error)
            exchange.status, exchange.error = refused.status, refused.message
            raise refused from None
        finally:
            self._settle()

    # a model is asked ------------------------------------------------------------------------------------------------

    async def _ask(self, request: web.Request, lessons: str) -> web.StreamResponse:
        served, asked, exchange = self._served, self._asked, self.exchange
        if lessons:
            asked = replace(asked, messages=with_lessons(asked.messages, lessons))
        head = Head(
            id=exchange.id, model=exchange.answered_by, fingerprint=served.fingerprint, asked=asked, body=self._body
        )
        writer = self._form.writer(head)
        if not asked.stream:
            replies = await self._in_time(served.replies(asked))
            self._keep(replies)
            return self._whole(200, write_body(writer.whole(replies)), {})
        return await self._tell(request, {}, self._events(writer, served.pieces(asked)))

    async def _events(
        self, writer: Writer, source: AsyncGenerator[tuple[int, str | Reply], None]
    ) -> AsyncGenerator[bytes, None]:
        """The events of a stream; one that fails on the way ends with an event that says so.

        Raises:
            VerbalError: it failed before there was one.
        """
        told: list[str] = []
        replies: dict[int, Reply] = {}
        begun = False
        try:
            async with aclosing(source):
                while (got := await self._in_time(anext(source, None))) is not None:
                    index, piece = got
                    if isinstance(piece, Reply):
                        replies[index] = piece
                    else:
                        self._first()
                        told += [piece] if index == 0 else []
                    head, begun = b"" if begun else writer.begin(), True
                    yield head + writer.piece(index, piece)
            self._keep([replies[i] for i in sorted(replies)])
            yield writer.end()
        except Exception as error:
            if not begun:
                raise
            refused = _told(error)
            self.exchange.error = refused.message
            yield writer.broken(refused)
        finally:
            if begun and self.exchange.reply is None:
                self.exchange.reply = cut_off(told, self.exchange.answered_by)

    async def _in_time(self, work: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._route.timeout):
                return await work
        except TimeoutError:
            raise late(self._route.timeout) from None

    # the body goes on as it came -------------------------------------------------------------------------------------

    async def _forward(self, request: web.Request, lessons: str) -> web.StreamResponse:
        assert self._wire is not None
        timeout, stream = self._route.timeout, self._asked.stream
        answer = await self._doors.forward.send(
            self._wire, self._form.path, self._sent(lessons), spoken=request.headers, timeout=timeout, stream=stream
        )
        try:
            if answer.status >= 300:
                return await self._failed(answer)
            if stream and answer.content_type == "text/event-stream":
                return await self._tell(request, told_headers(answer), self._heard(answer))
            raw = await whole(answer, timeout)
            heard = self._form.heard(self.exchange.answered_by)
            try:
                reply = heard.whole(parse_json(raw.decode("utf-8", "replace"), "the upstream"))
            except ModelError as error:
                raise lost(502, error.what, code="upstream_malformed") from None
            self.exchange.id = heard.id or self.exchange.id
            self._keep([reply])
            return self._whole(200, raw, told_headers(answer))
        finally:
            answer.close()

    def _sent(self, lessons: str) -> bytes:
        """The body for the upstream."""
        assert self._wire is not None
        body, model = self._body, self._wire.model if self._wire.model != ANY else self._asked.model
        streams = self._form is CHAT and self._asked.stream and self._doors.listening
        options = body.get("stream_options") or {}
        # A client that wants no usage would not be counted.
        self._counts = streams and isinstance(options, dict) and options.get("include_usage") is not True
        raw = self._raw
        if lessons:
            taught = dict(body)
            self._form.teach(taught, lessons)
            raw = write_body(taught)
        if model != self._asked.model:
            raw = put_model(raw, self._asked.model, model)
        if self._counts and "stream_options" in body:
            return write_body({**read_body(raw), "stream_options": {**options, "include_usage": True}})
        return raw.replace(b"{", _COUNTED, 1) if self._counts else raw

    async def _failed(self, answer: ClientResponse) -> web.StreamResponse:
        """The upstream's own error, without keys."""
        found = told_error(answer.status, await whole(answer, self._route.timeout))
        status = answer.status if answer.status >= 400 else 502  # a redirection leads nobody anywhere
        if isinstance(found, Refusal):
            raise Refusal(status, found.message, kind=found.kind, code=found.code)
        self.exchange.status, self.exchange.error = status, clip(error_message(found))
        return self._whole(status, found, told_headers(answer))

    async def _heard(self, answer: ClientResponse) -> AsyncGenerator[bytes, None]:
        """The bytes of a stream, a few whole events at a time; one that breaks ends with an event that says so.

        Raises:
            Refusal: it broke before there was one.
        """
        heard, events = self._form.heard(self.exchange.answered_by), Events()
        passed, begun, done = list[bytes](), False, False
        try:
            async for piece in events.ended(pieces(answer, self._route.timeout)):
                for event, data in events.feed(piece):
                    done = done or data == _DONE
                    try:
                        if self._listen(heard, data):
                            passed.append(event)
                    except ModelError as error:
                        if getattr(error, "abandoned", False):  # it cannot be read
                            raise
                        begun, self.exchange.error = True, redact(error.what)
                        yield b"".join(passed) + redact(event.decode("utf-8", "replace")).encode()
                        return
                if passed:
                    told, passed, begun = b"".join(passed), [], True
                    yield told
            self._keep([heard.reply()])
        except (Refusal, VerbalError) as error:
            refused = error if isinstance(error, Refusal) else lost(502, error.what, code="upstream_malformed")
            begun = begun or bool(passed)
            if not begun:
                raise refused from None
            self.exchange.error = refused.message
            yield b"".join(passed) + (b"" if done else self._form.broken(refused))
        finally:
            self.exchange.id = heard.id or self.exchange.id
            if begun and self.exchange.reply is None:
                self.exchange.reply = heard.so_far()

    def _listen(self, heard: Any, data: bytes) -> bool:
        """Reads an event; whether the client gets it."""
        if not data or data == _DONE:
            return True
        event = parse_json(data.decode("utf-8", "replace"), "the upstream")
        if heard.add(event):
            self._first()
        return not (self._counts and event.get("usage") and not event.get("choices"))

    # what both have in common ----------------------------------------------------------------------------------------

    def _own_headers(self) -> dict[str, str]:
        exchange = self.exchange
        headers = {VERSION: str(exchange.version)} if exchange.version else {}
        if exchange.shown:
            headers[SHOWN] = ",".join(_NO_ID.sub("_", r.id) for r in exchange.shown)
        return headers

    def _whole(self, status: int, data: bytes, told: Mapping[str, str]) -> web.Response:
        self.exchange.status = status
        headers = {"content-type": "application/json", **told, **self._own_headers()}
        return web.Response(body=data, status=status, headers=headers)

    async def _tell(
        self, request: web.Request, told: Mapping[str, str], events: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**told, **_STREAM, **self._own_headers()})
        async with aclosing(events):
            # The first event is waited for: what fails until then is told by the status.
            event: bytes | None = await anext(events)
            self.exchange.status = 200
            try:
                await response.prepare(request)
                while event is not None:
                    async with asyncio.timeout(STALLED):
                        await response.write(event)
                    event = await anext(events, None)
                await response.write_eof()
            except (TimeoutError, ConnectionError):  # it stopped reading
                self._hung_up()
                if request.transport is not None:
                    request.transport.abort()
        return response

    def _first(self) -> None:
        if self.exchange.first is None:
            self.exchange.first = time.perf_counter() - self._began

    def _keep(self, replies: Sequence[Reply]) -> None:
        """Notes the first reply, with what all of them used."""
        usage = replies[0].usage if len(replies) == 1 else sum((r.usage for r in replies), Usage())
        if usage.cost is None and self._price is not None and usage.tokens:
            usage = usage.replace(cost=self._price.cost(usage.prompt_tokens, usage.completion_tokens))
        self.exchange.reply = replies[0] if usage is replies[0].usage else replace(replies[0], usage=usage)
        if not self._asked.stream:
            self._first()

    def _hung_up(self) -> None:
        self.exchange.status, self.exchange.error = 499, "the client hung up"

    def _settle(self) -> None:
        """Tells the doors; nothing that fails there reaches the client."""
        exchange, doors = self.exchange, self._doors
        exchange.seconds = time.perf_counter() - self._began
        try:
            self._guess()
            if doors.gate is not None:
                doors.gate.charge(exchange)
            if doors.capture is not None and self._route.capture:
                doors.capture.put(exchange)
            if doors.shadow is not None and exchange.status == 200 and not exchange.error:
                doors.shadow.begin(exchange, self._same)
        except Exception:
            _log.exception("a door failed")

    def _guess(self) -> None:
        """Estimates what was used, where no model said it."""
        guess = estimate(self.exchange)
        if guess is None:
            return
        if not self._asks or (self._served.here and self.exchange.status != 200):  # a turn was waited for, not bought
            guess = Usage()
        elif self._price is not None:
            guess = guess.replace(cost=self._price.cost(guess.prompt_tokens, guess.completion_tokens))
        self.exchange.guess = guess

    async def _same(self, upstream: str, messages: Sequence[Message]) -> Reply:
        """What another upstream of the route says to the same request, with these messages."""
        try:
            asked = self._form.read(self._body) if self._wire is not None else self._asked
            asked = replace(asked, messages=tuple(messages), n=1, stream=False)
            with self._doors.lease(upstream) as served:
                (reply,) = await served.replies(asked)
        except Refusal as refused:
            raise ConfigError(refused.message, where=upstream) from None
        return reply


def _told(error: Exception) -> Refusal:
    """What a client is told of any failure."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, VerbalError):
        return refusal(error)
    _log.exception("a request failed", exc_info=error)
    return fault()


__all__ = ["SHOWN", "VERSION", "Doors", "Passage"]
