"""The one owner of what happens around a model call: retry, concurrency, time-out, limits, cost, and a record of it.

It is a Model itself, so whatever takes a Model takes it. Nothing else in the house retries a model call.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
)

from verbal.contracts import Model, Reply, Sampling
from verbal.errors import ModelError, TransientError, VerbalError
from verbal.models._budget import Budget, unknown_price
from verbal.models._concurrency import Concurrency
from verbal.models._faults import clip
from verbal.models._prices import Price, price_of
from verbal.models._wire import StreamsReply, together, with_seed
from verbal.types import Message, Usage

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a call is tried again after a TransientError."""

    attempts: int = 6
    """Tries in all."""
    first: float = 0.5
    """Seconds; the wait before try i+1 is uniform in [0, first * 2^(i-1)], at least what the server asked for."""
    longest: float = 30.0
    """Seconds; cap of the random wait. What the server asks for is not capped."""
    deadline: float = 600.0
    """Seconds from the first try; a wait that would pass it is not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call as the store and the progress line see it."""

    id: str
    """Unique, for calls are paid one by one even when they are equal."""
    key: str
    """Equal for equal model, messages, n and sampling."""
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
    key: str
    started: float = field(default_factory=time.monotonic)
    tries: int = 0
    used: Usage = field(default_factory=Usage)


class ModelCalls:
    """Calls to one model, from here on reliable, limited and counted.

    Args:
        model: A raw adapter (one attempt a call).
        role: Recorded with each call; `for_role` gives a view with another.
        budget: Hard limits, shared by all models of a run.
        retry: When to try again.
        timeout: Seconds for one attempt (for a stream: for each piece); None leaves it to the adapter.
        concurrency: Calls under way at the start; it adapts between 1 and 512.
        price_in: US dollars per million prompt tokens, when the table does not know the model or is wrong.
        price_out: The same for completion tokens.
        on_call: Called with a record of each call, also of a failed one.

    Raises:
        ConfigError: the budget limits money and the price of the model is not known.
    """

    def __init__(
        self,
        model: Model,
        *,
        role: str = "solver",
        budget: Budget | None = None,
        retry: Retry | None = None,
        timeout: float | None = 120.0,
        concurrency: int = 20,
        price_in: float | None = None,
        price_out: float | None = None,
        on_call: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self.model, self.role, self.name = model, role, model.name
        self.budget = budget or Budget()
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
        self.concurrency = self._providers.setdefault(provider, Concurrency(self._start))
        given = price_in is not None and price_out is not None
        self._price: Price | None = Price(prompt=price_in or 0.0, completion=price_out or 0.0) if given else None
        self._looked_up = given
        if self.budget.limits.max_cost is not None and self.price is None:
            raise unknown_price(f"model {self.name}")

    @property
    def price(self) -> Price | None:
        """What its tokens cost; None when that is not known."""
        if not self._looked_up:
            self._price, self._looked_up = price_of(self.model), True
        return self._price

    def for_role(self, role: str) -> ModelCalls:
        """The same calls, recorded with another role; limits, slots and connections are shared."""
        view = copy.copy(self)
        view.role = role
        return view

    def beside(self, model: Model, *, price_in: float | None = None, price_out: float | None = None) -> ModelCalls:
        """Calls to another model under the same budget; models of one provider share its slots.

        Raises:
            ConfigError: the budget limits money and the price of the model is not known.
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
        # The replay cache (Evidence issue) answers here: a hit needs no slot, no budget and no record of a call.
        if n > 1 and getattr(self.model, "one_per_call", False):
            return await together([self._generate(messages, 1, with_seed(sampling, i)) for i in range(n)])
        return await self._generate(messages, n, sampling)

    async def _generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        async with self._recorded(messages, n, sampling) as call:

            async def attempt() -> list[Reply]:
                async with self._allowed(messages, n, sampling, call) as settle:
                    started = time.monotonic()
                    with self._explained():
                        async with asyncio.timeout(self._timeout):
                            replies = await self.model.generate(messages, n, sampling)
                    return settle(replies, time.monotonic() - started)

            return await self._tried(attempt, call)

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come; a failure is tried again until the first piece has come.

        Its slot and its reservation are held until the reader is done, so a reader calls no model in between.
        """
        async with self._recorded(messages, 1, sampling) as call:

            async def attempt() -> tuple[AsyncGenerator[str, None], str | None]:
                pieces = self._pieces(messages, sampling, call)
                return pieces, await anext(pieces, None)

            pieces, first = await self._tried(attempt, call)
            async with aclosing(pieces):
                if first is not None:
                    yield first
                    async for piece in pieces:
                        yield piece

    async def _pieces(self, messages: Sequence[Message], sampling: Sampling, call: _Call) -> AsyncGenerator[str, None]:
        """One attempt at a stream, inside its slot and reservation."""
        async with self._allowed(messages, 1, sampling, call) as settle, AsyncExitStack() as stack:
            model: Any = self.model
            source = (model.stream_reply if isinstance(model, StreamsReply) else model.stream)(messages, sampling)
            if isinstance(source, AsyncGenerator):
                stack.push_async_callback(source.aclose)
            reply = Reply(text="", usage=Usage(calls=1, cost=None))
            seconds = 0.0
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
                # What holds when the stream breaks from here on, or its reader stops early.
                settle([reply], seconds)
                yield piece
            settle([reply], seconds)

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
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retry.attempts) | stop_before_delay(self._retry.deadline),
            wait=self._wait,
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except TransientError as error:
            error.where = f"{error.where or self.name} (try {call.tries} of {self._retry.attempts}, the last)"
            raise

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next try: full jitter, on top of what the server asked for."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        if asked:
            return asked + self._random.uniform(0.0, self._retry.first)
        grown = self._retry.first * 2.0 ** min(state.attempt_number - 1, 30)
        return self._random.uniform(0.0, min(self._retry.longest, grown))

    @asynccontextmanager
    async def _allowed(
        self, messages: Sequence[Message], n: int, sampling: Sampling, call: _Call
    ) -> AsyncIterator[Callable[[list[Reply], float], list[Reply]]]:
        """One attempt's slot and reservation; what it yields notes the replies and gives them with their cost."""
        worst = self._worst(messages, n, sampling)
        async with self.concurrency.slot():
            held = await self.budget.reserve(worst, where=f"model {self.name}")
            call.tries += 1
            # A request that fails is counted; its tokens are not known, and providers do not bill an error.
            charged = used = Usage(calls=1)

            def settle(replies: list[Reply], seconds: float) -> list[Reply]:
                nonlocal charged, used
                priced = self._priced(replies, seconds)
                used = sum((r.usage for r in priced), Usage()).replace(calls=1)
                # Without a usage report the worst case is what a hard limit has to assume.
                charged = used if used.tokens else worst.replace(seconds=seconds)
                return priced

            try:
                yield settle
            finally:
                self.budget.settle(held, charged)
                call.used += used

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

    def _worst(self, messages: Sequence[Message], n: int, sampling: Sampling) -> Usage:
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
            raise TransientError(
                what, where=f"model {self.name}", todo="raise the time-out or shorten replies"
            ) from None
        except Exception as error:
            what = f"the model broke: {type(error).__name__}: {clip(str(error))}"
            raise ModelError(what, where=f"model {self.name}", todo="this is a fault in its adapter") from None

    @asynccontextmanager
    async def _recorded(self, messages: Sequence[Message], n: int, sampling: Sampling) -> AsyncIterator[_Call]:
        """Reports the call when it is over, however it ends, if any request was sent."""
        call = _Call(role=self.role, key=call_key(self.name, messages, n, sampling))
        failure: str | None = None
        try:
            yield call
        except VerbalError as error:
            failure = f"{type(error).__name__}: {clip(error.what)}"
            raise
        except BaseException as error:
            failure = "stopped by its caller" if not isinstance(error, Exception) else f"{type(error).__name__}"
            raise
        finally:
            if self._on_call is not None and call.tries:
                self._on_call(self._record(call, failure))

    def _record(self, call: _Call, failure: str | None) -> CallRecord:
        return CallRecord(
            id=uuid.uuid4().hex,
            key=call.key,
            role=call.role,
            model=self.name,
            usage=call.used,
            seconds=time.monotonic() - call.started,
            retries=max(0, call.tries - 1),
            error=failure,
        )


def call_key(model: str, messages: Sequence[Message], n: int, sampling: Sampling) -> str:
    """Hash of everything a reply depends on: 32 hex digits, equal for equal calls in any process."""
    settings = {f.name: getattr(sampling, f.name) for f in fields(sampling)}
    settings["tools"] = [dict(t) for t in sampling.tools]
    text = json.dumps([model, [m.to_dict() for m in messages], n, settings], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
