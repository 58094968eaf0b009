"""What passes the gateway: who calls, one exchange from request to reply, and the doors that it goes through.

The server knows nothing of keys, memories and the store: it calls three doors, each of which may be missing. `Gate`
says who may come, `Lessons` what is put into a prompt, `Capture` keeps what happened.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from aiohttp import web

from verbal.contracts import Reply, Sampling
from verbal.types import Message, Reflection, Usage

if TYPE_CHECKING:
    from verbal.models import Price

Ask = Callable[[str, Sequence[Message]], Awaitable[Reply]]
"""Asks an upstream (of a route) what a client asked, with these messages; raises what a model raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks."""

    project: str = "local"
    """What is captured is filed under it."""
    key: str = ""
    """Id of the key, never the key; empty where none was needed."""
    routes: tuple[str, ...] = ()
    """Routes it may use; empty for all."""


# aiohttp before 3.14 knows texts only.
CALLER: Any = web.RequestKey("caller", Caller) if hasattr(web, "RequestKey") else "caller"
"""Where an HTTP request that was let in keeps its `Caller`."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and what became of it. The server fills it as it goes; nobody else changes it."""

    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    """What the client is told as the id of the response; feedback names it."""
    caller: Caller
    protocol: Literal["chat", "responses", "messages"]
    """OpenAI's chat completions, OpenAI's responses, Anthropic's messages."""
    route: str
    model: str
    """As the client asked."""
    messages: tuple[Message, ...]
    """As the client sent them, without what was put in here."""
    sampling: Sampling
    n: int = 1
    """Replies that are wanted."""
    size: int = 0
    """Bytes of the request."""
    stream: bool = False
    began: float = field(default_factory=time.time)
    memory: str = ""
    """Name of the memory whose lessons were offered."""
    shown: tuple[Reflection, ...] = ()
    offered: dict[str, float] = field(default_factory=dict)
    """Lesson -> the chance it had of being shown."""
    reply: Reply | None = None
    """None when there was none; a stream that was cut off has what came until then, its finish is `error`."""
    answered_by: str = ""
    """The model that answered."""
    version: int = 0
    """Number of the adopted version that answered, 0 for none."""
    status: int = 0
    """Of the HTTP response; 499 when the client hung up."""
    error: str = ""
    """Without keys and places."""
    guess: Usage | None = None
    """What it used, estimated (`tokens.py`): where no model said it."""
    first: float | None = None
    """Seconds until the first piece of text."""
    seconds: float = 0.0
    """Seconds until the end."""

    @property
    def usage(self) -> Usage:
        """What the model says that it used; where it says nothing, the estimate."""
        if self.guess is not None:
            return self.guess
        return self.reply.usage if self.reply is not None else Usage()


class Gate(Protocol):
    """Says who may come. Every method is quick and does no I/O: it is called for each request."""

    def admit(self, headers: Mapping[str, str]) -> Caller:
        """Who calls, by `Authorization: Bearer` or `x-api-key`.

        Raises:
            Refusal: no key, a wrong one, or one that has used up what it may (401, 403, 429 with seconds to wait).
        """
        ...

    def allow(self, exchange: Exchange, price: Price | None) -> None:
        """Whether the request may go on: called once its route is known and before a model is asked.

        Args:
            exchange: What is asked.
            price: Of the model that would answer; None when it is not known.

        Raises:
            Refusal: the key may not use the route, or has a limit on cost and the price is not known (403); what this
                costs at worst is more than what is left (429 with seconds to wait).
        """
        ...

    def charge(self, exchange: Exchange) -> None:
        """Counts what an exchange used against the limits of its key: once for each that was allowed, however it
        ended.
        """
        ...


class Lessons(Protocol):
    """Chooses what is put into prompts."""

    async def offer(self, exchange: Exchange) -> str:
        """The text to put in front of the conversation as data, or an empty one; notes memory, shown and offered.

        It never raises and has a deadline: a request is answered without lessons rather than late.
        """
        ...


class Capture(Protocol):
    """Keeps what happened."""

    def put(self, exchange: Exchange) -> bool:
        """Takes an exchange that ended; False when there is no room (counted as lost). Never waits, never raises."""
        ...


class Shadow(Protocol):
    """Lets another memory or model answer the same, unseen by the client."""

    def begin(self, exchange: Exchange, ask: Ask) -> None:
        """Called when an exchange is answered. Never waits, never raises; it owns the tasks that it starts."""
        ...


class Pages(Protocol):
    """A web application on the same server. It lets people in by itself: the gate is not asked for its paths."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Its paths, none of them under `/v1`."""
        ...

    async def open(self, gateway: Any) -> None:
        """Called when the gateway listens."""
        ...

    async def aclose(self) -> None:
        """Called before the models are closed."""
        ...


__all__ = ["CALLER", "Ask", "Caller", "Capture", "Exchange", "Gate", "Lessons", "Pages", "Shadow"]
