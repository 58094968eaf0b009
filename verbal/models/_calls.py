"""The one owner of what happens around a model call: replay cache, retry, concurrency, time-out, ledger, record.

It is a Model itself, so whatever takes a Model takes it. Nothing else in the house retries a model call. A recorded
reply (`verbal.cache`) needs no slot, no money and no record of a call.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from verbal.cache import Cache, Request, recorded, requests_of
from verbal.contracts import Model, Reply, Sampling
from verbal.errors import BudgetError, ModelError, TransientError, VerbalError
from verbal.ledger import Ledger, unknown_price
from verbal.models._concurrency import Concurrency
from verbal.models._faults import clip
from verbal.models._prices import Price, price_of
from verbal.models._retry import Retry
from verbal.models._wire import StreamsReply, together, with_seed
from verbal.types import Message, Usage

_T = TypeVar("_T")
_Pieces = AsyncGenerator[str | Reply, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call as the store and the progress line see it."""

    id: str
    """Unique, for calls are paid one by one even when they are equal."""
    key: str
    """Of the first sample that was asked for (`verbal.cache.Request`)."""
    role: str
    model: str
    usage: Usage
    """Of all tries: `calls` counts the requests sent, `seconds` the time they took."""
    seconds: float
    """From the first try to the end, waits included."""
    retries: int
    error: str | None = None
    """What the call failed with in the end; None when it gave replies."""


@dataclass(slots=True)
class _Call:
    """One call under way."""

    role: str
    asked: Sequence[Request]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    tries: int = 0
    used: Usage = field(default_factory=Usage)
    replies: Sequence[Reply] = ()
    """What it gave, once it is over."""
    open: bool = False
    """Whether it was written ahead."""
    over: bool = False
    """Whether nobody waits for it any more."""
    first: bool = False
    """Whether the recording holds these replies, and not earlier ones."""


class ModelCalls:
    """Calls to one model, from here on reliable, limited and counted.

    Args:
        model: A raw adapter (one attempt a call).
        role: Recorded with each call; `for_role` gives a view with another.
        ledger: What was spent and hard limits, shared by all models of a run.
        cache: Recorded replies, shared by all models of a run.
        fingerprint: Tells models of one name apart in the cache.
        retry: When to try again.
        timeout: Seconds for one attempt (for a stream: for each piece); None leaves it to the adapter.
        concurrency: Calls under way at the start; it adapts between 1 and 512.
        price_in: US dollars per million prompt tokens, when the table does not know the model or is wrong.
        price_out: The same for completion tokens.
        on_call: Called with a record of each call, also of a failed one.

    Raises:
        ConfigError: the ledger limits money and the price of the model is not known.
    """

    def __init__(
        self,
        model: Model,
        *,
        role: str = "solver",
        ledger: Ledger | None = None,
        cache: Cache | None = None,
        fingerprint: str = "",
        retry: Retry | None = None,
        timeout: float | None = 120.0,
        concurrency: int = 20,
        price_in: float | None = None,
        price_out: float | None = None,
        on_call: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self.model, self.role, self.name = model, role, model.name
        self.ledger, self.cache, self.fingerprint = ledger or Ledger(), cache or Cache(), fingerprint
        self._retry, self._timeout, self._on_call = retry or Retry(), timeout, on_call
        self._start = concurrency
        self._providers: dict[tuple[str, str], Concurrency] = {}
        self._random = random.Random()
        self._set_model(model, price_in, price_out)

    def __repr__(self) -> str:
        return f"ModelCalls({self.model!r}, role={self.role!r})"

    def _set_model(self, model: Model, price_in: float | None, price_out: float | None) -> None:
        self.model, self.name = model, model.name
        provider = (model.name.split("/")[0], str(getattr(model, "url", None) or ""))
        self.concurrency = self._providers.setdefault(provider, Concurrency(self._start, patience=self._retry.deadline))
        given = price_in is not None and price_out is not None
        self._price: Price | None = Price(prompt=price_in or 0.0, completion=price_out or 0.0) if given else None
        self._looked_up = given
        if self.ledger.limits.max_cost is not None and self.price is None:
            raise unknown_price(f"model {self.name}")

    @property
    def price(self) -> Price | None:
        """What its tokens cost; None when that is not known."""
        if not self._looked_up:
            self._price, self._looked_up = price_of(self.model), True
        return self._price

    @property
    def chats(self) -> bool:
        """Whether the model follows free instructions; one that does not is never asked to curate."""
        return bool(getattr(self.model, "chats", True))

    def for_role(self, role: str) -> ModelCalls:
        """The same calls, recorded with another role; limits, slots and connections are shared."""
        view = copy.copy(self)
        view.role = role
        return view

    def beside(self, model: Model, *, price_in: float | None = None, price_out: float | None = None) -> ModelCalls:
        """Calls to another model under the same ledger; models of one provider share its slots.

        Raises:
            ConfigError: the ledger limits money and the price of the model is not known.
        """
        other = copy.copy(self)
        other._set_model(model, price_in, price_out)
        return other

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies to one conversation, in order.

        Raises:
            BudgetError: a call could exceed a limit, so it was not made.
            TransientError: all tries failed. RefusedError, ContextLengthError, ModelError: the first try did.
        """
        asked = requests_of(self.name, self.fingerprint, messages, n, sampling)
        async with self.cache.alone(asked):
            return await self._ask(messages, sampling, asked)

    async def _ask(self, messages: Sequence[Message], sampling: Sampling, asked: Sequence[Request]) -> list[Reply]:
        """What is recorded, and for the rest what the model says."""
        found, n = self.cache.find(asked, self.role), len(asked)
        missing = [i for i in range(n) if i not in found]
        if not missing:
            return [found[i] for i in range(n)]
        new = [asked[i] for i in missing]
        if getattr(self.model, "one_per_call", False):
            made = await together([self._generate(messages, with_seed(sampling, i), [asked[i]]) for i in missing])
        else:
            # Where some samples are known, the others must not be drawn from where those began.
            made = await self._generate(messages, with_seed(sampling, missing[0]) if found else sampling, new)
        found |= dict(zip(missing, made, strict=True))
        return [found[i] for i in range(n)]

    async def _generate(self, messages: Sequence[Message], sampling: Sampling, asked: Sequence[Request]) -> list[Reply]:
        n = len(asked)
        async with self._recorded(asked) as call:

            async def attempt() -> list[Reply]:
                async with self._allowed(messages, n, sampling, call) as settle:
                    started = time.monotonic()
                    with self._explained():
                        async with asyncio.timeout(self._timeout):
                            replies = await self.model.generate(messages, n, sampling)
                    if len(replies) != n:
                        what = f"asked for {n} replies, the model gave {len(replies)}"
                        raise ModelError(what, where=f"model {self.name}", todo="this is a fault in its adapter")
                    return settle(replies, time.monotonic() - started)

            call.replies = await self._tried(attempt, call)
        return list(call.replies) if call.first else self.cache.first(asked, call.replies)

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come; a failure is tried again until the first piece has come. Its slot and its
        reservation are held until the reader is done, so a reader calls no model in between.
        """
        async with aclosing(self.stream_reply(messages, sampling)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield piece

    async def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> _Pieces:
        """The same, then the whole reply: tool calls, usage, why it ended."""
        asked = requests_of(self.name, self.fingerprint, messages, 1, sampling)
        if known := self.cache.find(asked, self.role):
            if known[0].text:
                yield known[0].text
            yield known[0]
            return
        async with self._recorded(asked) as call:

            async def attempt() -> tuple[AsyncGenerator[str, None], str | None]:
                pieces = self._pieces(messages, sampling, call)
                return pieces, await anext(pieces, None)

            pieces, first = await self._tried(attempt, call)
            async with aclosing(pieces):
                if first is not None:
                    yield first
                    async for piece in pieces:
                        yield piece
        yield call.replies[0]

    async def _pieces(self, messages: Sequence[Message], sampling: Sampling, call: _Call) -> AsyncGenerator[str, None]:
        """One attempt at a stream, inside its slot and reservation."""
        async with self._allowed(messages, 1, sampling, call) as settle, AsyncExitStack() as stack:
            model: Any = self.model
            source = (model.stream_reply if isinstance(model, StreamsReply) else model.stream)(messages, sampling)
            if isinstance(source, AsyncGenerator):
                stack.push_async_callback(source.aclose)
            reply = Reply(text="", usage=Usage(calls=1, cost=None))
            seconds, text = 0.0, ""
            while True:
                started = time.monotonic()
                with self._explained():
                    async with asyncio.timeout(self._timeout):
                        piece = await anext(source, None)
                seconds += time.monotonic() - started
                if piece is None:
                    break
                if isinstance(piece, Reply):
                    reply = piece
                    continue
                text += piece
                # What holds when the stream breaks from here on, or its reader stops early.
                settle([reply], seconds)
                yield piece
            call.replies = settle([reply if isinstance(model, StreamsReply) else replace(reply, text=text)], seconds)

    async def check(self) -> str:
        """What the model's own check says."""
        with self._explained():
            async with asyncio.timeout(self._timeout):
                return await self.model.check()

    async def aclose(self) -> None:
        """Closes the model's connections."""
        await self.model.aclose()

    async def _tried(self, attempt: Callable[[], Awaitable[_T]], call: _Call) -> _T:
        """What `attempt` gives, after as many tries as `Retry` allows."""
        try:
            return await self._retry.tried(attempt, self._wait)
        except TransientError as error:
            error.where = f"{error.where or self.name} (try {call.tries} of {self._retry.attempts}, the last)"
            raise

    def _wait(self, state: Any) -> float:
        return self._retry.wait(state, self._random)

    @asynccontextmanager
    async def _allowed(
        self, messages: Sequence[Message], n: int, sampling: Sampling, call: _Call
    ) -> AsyncIterator[Callable[[list[Reply], float], list[Reply]]]:
        """One attempt's slot and reservation; what it yields notes the replies and gives them with their cost."""
        worst = self.worst(messages, n, sampling)
        async with self.concurrency.slot():
            held = await self.ledger.reserve(worst, where=f"model {self.name}")
            charged = used = Usage()

            def settle(replies: list[Reply], seconds: float) -> list[Reply]:
                nonlocal charged, used
                priced = self._priced(replies, seconds)
                used = sum((r.usage for r in priced), Usage()).replace(calls=1)
                # Without a usage report the worst case is what a hard limit has to assume.
                charged = used if used.tokens else worst.replace(seconds=seconds)
                return priced

            try:
                # Again before each try: what the tries before it used is known only here.
                await self.ledger.together(partial(self._open, call, call.used + worst))
                call.tries += 1
                # A request that fails is counted; its tokens are not known, and providers do not bill an error.
                charged = used = Usage(calls=1)
                yield settle
            except BaseException as error:
                # Nobody waits for the answer any more, but the provider may be writing it: what it can cost counts.
                unknown = used.calls and not used.tokens
                if unknown and (not isinstance(error, Exception) or getattr(error, "abandoned", False)):
                    charged = worst
                raise
            finally:
                self.ledger.settle(held, charged)
                call.used += charged

    def _priced(self, replies: list[Reply], seconds: float) -> list[Reply]:
        """The replies with cost, and with seconds on the first."""
        total = sum((r.usage for r in replies), Usage())
        rates = self.price.rates(total.prompt_tokens) if self.price else None
        priced = []
        for i, reply in enumerate(replies):
            usage, cost = reply.usage, reply.usage.cost
            if rates is not None:
                cost = (usage.prompt_tokens * rates[0] + usage.completion_tokens * rates[1]) / 1e6
                cost = None if not total.tokens and any(rates) else cost
            usage = usage.replace(cost=cost, seconds=seconds if i == 0 else 0.0)
            priced.append(replace(reply, usage=usage, model=reply.model or self.name))
        return priced

    def worst(self, messages: Sequence[Message], n: int, sampling: Sampling) -> Usage:
        """The most one attempt can use: a token is at least one byte of the prompt, plus what frames a message."""
        prompt = sum(len(m.to_json().encode()) for m in messages) + len(json.dumps([dict(t) for t in sampling.tools]))
        completion = n * sampling.max_tokens
        cost = self.price.cost(prompt, completion) if self.price else None
        return Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, cost=cost)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a time-out, and whatever a model raises that is not of the house, into a ModelError."""
        try:
            yield
        except VerbalError:
            raise
        except TimeoutError:
            what = f"no answer within {self._timeout:g} s" if self._timeout else "no answer in time"
            late = TransientError(what, where=f"model {self.name}", todo="raise the time-out or shorten replies")
            late.abandoned = True
            raise late from None
        except Exception as error:
            what = f"the model broke: {type(error).__name__}: {clip(str(error))}"
            raise ModelError(what, where=f"model {self.name}", todo="this is a fault in its adapter") from None

    @asynccontextmanager
    async def _recorded(self, asked: Sequence[Request]) -> AsyncIterator[_Call]:
        """Writes the call down when it is over, however it ends, if any request was sent; with its replies."""
        call = _Call(role=self.role, asked=asked)
        failure: str | None = None
        lasting: ModelError | None = None
        try:
            yield call
        except VerbalError as error:
            failure = f"{type(error).__name__}: {clip(error.what)}"
            if isinstance(error, ModelError) and not isinstance(error, BudgetError | TransientError):
                lasting = error
            raise
        except BaseException as error:
            failure = "stopped by its caller" if not isinstance(error, Exception) else f"{type(error).__name__}"
            raise
        finally:
            call.over = True
            try:
                if call.tries and failure is None:
                    await self.ledger.together(partial(self._close, call))
                elif call.tries:
                    self._close(call, failure, lasting)
                elif call.open:
                    self.ledger.drop_call(call.id)
            finally:
                if call.tries:
                    self._tell(call, failure)

    def _open(self, call: _Call, worst: Usage) -> None:
        if not call.over:  # it was cancelled before its turn to be written down
            self.ledger.open_call(call.id, call.role, self.name, worst)
            call.open = True

    def _close(self, call: _Call, failure: str | None = None, lasting: ModelError | None = None) -> None:
        outcomes: Sequence[Reply | ModelError] = [lasting] * len(call.asked) if lasting else call.replies
        rows = []
        if self.cache.mode == "record" and (outcomes and (lasting or not failure)):
            rows = [recorded(r, self.name, o) for r, o in zip(call.asked, outcomes, strict=True)]
        call.first = self.ledger.close_call(call.id, call.role, self.name, call.used, failure, rows)

    def _tell(self, call: _Call, failure: str | None) -> None:
        if self._on_call is not None:
            made = CallRecord(
                id=call.id, key=call.asked[0].key, role=call.role, model=self.name, usage=call.used, error=failure,
                seconds=time.monotonic() - call.started, retries=max(0, call.tries - 1),
            )  # fmt: skip
            self._on_call(made)
