"""Bad weather for tests: a model that breaks as real ones do, by a seed, the same whenever a run is repeated.

What breaks is decided by a hash of the seed, the conversation with its sampling, the sample's index and the number of
the try. The order of calls has no say in it, so a run that was killed and resumed meets the same weather, and so does
the same run with other concurrency.

Two families, as the adapters in `verbal/models` tell them apart. What they raise is retried by `ModelCalls`; what they
hand over as a reply is data, and whoever reads the reply has to notice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import fields, replace
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

from verbal.contracts import Model, Reply, Sampling
from verbal.errors import ConfigError, ModelError, TransientError
from verbal.models._faults import fault, malformed
from verbal.models._wire import StreamsReply
from verbal.types import Message, ToolCall, Usage

# What can go wrong with a call.
Raised = Literal["rate_limit", "server_error", "overloaded", "dropped", "hang", "truncated", "not_json"]
# What can be wrong with a reply, or with the time it takes.
Damage = Literal["garbled", "cut", "tool_call", "empty", "slow"]
Kind = Raised | Damage

RAISED: tuple[Kind, ...] = get_args(Raised)
"""Kinds that an adapter raises as a TransientError (429 and 529: OverloadedError): 429 with Retry-After, 500, 529, a
connection that is dropped, a model that never returns, a body or stream that ends early, a body that is not JSON."""
DAMAGES: tuple[Kind, ...] = get_args(Damage)
"""Kinds that come as replies: bytes that are not UTF-8, a reply cut in the middle (finish `length`), a tool call whose
arguments are half written, no text at all; and a proper reply that comes late."""
ALL: tuple[Kind, ...] = RAISED + DAMAGES
"""Every kind."""

_BEFORE = ("rate_limit", "server_error", "overloaded", "dropped", "hang")
_STATUS = {"rate_limit": 429, "server_error": 500, "overloaded": 529}


class ChaosModel:
    """Any model, with faults injected.

    Tries are counted within the asyncio task that makes a call, so equal calls side by side do not disturb each other.
    A fault of the whole call is drawn with its first sample; damage to a reply is drawn for each sample.

    Args:
        model: The model that answers in good weather.
        rate: Share of tries, and of replies, that meet a fault, in [0, 1].
        seed: Chooses the weather.
        kinds: What may happen, each as often as the others.
        hang: Seconds after which a model that never returns is given up as an adapter would; None waits for ever.
        slow: Seconds a slow reply takes longer.
        retry_after: Seconds that a 429 asks to wait.
        clock: Waits so many seconds (a test gives its own).

    Raises:
        ConfigError: the rate is out of range, or a kind is unknown.
    """

    def __init__(
        self,
        model: Model,
        *,
        rate: float,
        seed: int,
        kinds: Sequence[Kind] = ALL,
        hang: float | None = None,
        slow: float = 1.0,
        retry_after: float = 0.05,
        clock: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if not 0.0 <= rate <= 1.0:
            raise ConfigError(f"the rate of faults is {rate!r}", where="ChaosModel", todo="give a share from 0 to 1")
        if unknown := [k for k in kinds if k not in ALL]:
            raise ConfigError(f"no fault is named {unknown[0]!r}", where="ChaosModel", todo=f"kinds: {', '.join(ALL)}")
        if rate and not kinds:
            raise ConfigError("no kind of fault is given", where="ChaosModel", todo=f"kinds: {', '.join(ALL)}")
        self.model, self.name = model, f"{model.name}+chaos"
        self.rate, self.seed, self.kinds = rate, seed, tuple(kinds)
        self.tries = 0
        """Tries so far, faulty ones included."""
        self.injected: Counter[Kind] = Counter()
        """Faults so far, by kind."""
        self._hang, self._slow, self._retry_after, self._clock = hang, slow, retry_after, clock
        self._last: WeakKeyDictionary[asyncio.Task[Any], tuple[str, int]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"ChaosModel({self.model!r}, rate={self.rate}, seed={self.seed})"

    @property
    def url(self) -> str | None:
        """Where the model is."""
        return getattr(self.model, "url", None)

    @property
    def local(self) -> bool:
        """Whether the model runs on this machine, which makes it free."""
        return bool(getattr(self.model, "local", False))

    @property
    def one_per_call(self) -> bool:
        """Whether the model gives one reply a call, whatever is asked."""
        return bool(getattr(self.model, "one_per_call", False))

    @property
    def fingerprint(self) -> str:
        """Tells apart, in a cache of replies, what the model said in other weather."""
        own = getattr(self.model, "fingerprint", "")
        return f"{own}+chaos/{self.seed}/{self.rate}/{','.join(self.kinds)}"

    def weather(
        self, messages: Sequence[Message], sampling: Sampling, *, index: int = 0, attempt: int = 1
    ) -> Kind | None:
        """What happens to the sample `index` at the try `attempt` (from 1); None is good weather."""
        return self._draw(_key(messages, sampling), index, attempt)

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies of the model, some of them damaged.

        Raises:
            TransientError: the weather is bad. ModelError: the model itself failed.
        """
        key, attempt = self._begin(messages, sampling)
        kinds = [self._draw(key, i, attempt) for i in range(n)]
        if kinds and kinds[0] in RAISED:
            await self._raise_before(kinds[0])
            replies = await self.model.generate(messages, n, sampling)
            raise self._unreadable(kinds[0], replies[0].text)
        replies = await self.model.generate(messages, n, sampling)
        if "slow" in kinds:
            await self._clock(self._slow)
        self._end()
        return [self._damaged(reply, kind) for reply, kind in zip(replies, kinds, strict=False)]

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come; see `generate`."""
        async for piece in self.stream_reply(messages, sampling):
            if isinstance(piece, str):
                yield piece

    async def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str | Reply]:
        """Pieces of one reply as they come, then the whole reply; a stream may end early, after some pieces."""
        key, attempt = self._begin(messages, sampling)
        kind = self._draw(key, 0, attempt)
        if kind is not None:
            await self._raise_before(kind)
        pieces, reply = [], Reply(text="", usage=Usage(calls=1, cost=None))
        async with aclosing(_pieces(self.model, messages, sampling)) as source:
            async for piece in source:
                if isinstance(piece, Reply):
                    reply = piece
                    continue
                pieces.append(piece)
                if kind is None:
                    yield piece
        reply = reply if reply.text else replace(reply, text="".join(pieces))
        if kind in RAISED:
            for piece in pieces[: len(pieces) // 2]:
                yield piece
            raise self._unreadable(kind, reply.text)
        if kind is not None:
            if kind == "slow":
                await self._clock(self._slow)
            reply = self._damaged(reply, kind)
            for piece in re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", reply.text):
                yield piece
        self._end()
        yield reply

    async def check(self) -> str:
        """What the model's own check says; the weather does not touch it."""
        return f"{await self.model.check()} (with faults, rate {self.rate:g}, seed {self.seed})"

    async def aclose(self) -> None:
        """Closes the model."""
        await self.model.aclose()

    def _begin(self, messages: Sequence[Message], sampling: Sampling) -> tuple[str, int]:
        """The key of a call and the number of this try at it."""
        self.tries += 1
        key, task = _key(messages, sampling), asyncio.current_task()
        assert task is not None
        last, attempt = self._last.get(task, ("", 0))
        attempt = attempt + 1 if last == key else 1
        self._last[task] = key, attempt
        return key, attempt

    def _end(self) -> None:
        """The call is over, so an equal one that follows starts at its first try."""
        if (task := asyncio.current_task()) is not None:
            self._last.pop(task, None)

    def _draw(self, key: str, index: int, attempt: int) -> Kind | None:
        text = f"{self.seed}/{key}/{index}/{attempt}"
        drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
        chance, choice = drawn >> 64, drawn & (2**64 - 1)
        return self.kinds[choice % len(self.kinds)] if chance < self.rate * 2**64 else None

    async def _raise_before(self, kind: Kind | None) -> None:
        """Raises what keeps a call from ever reaching the model, worded as the adapters word it."""
        if kind not in _BEFORE:
            return
        self.injected[kind] += 1
        if kind == "hang":
            await (asyncio.Event().wait() if self._hang is None else self._clock(self._hang))
            what = f"no answer within {self._hang:g} s"
            raise TransientError(what, where=self.name, todo="raise the time-out, or ask for shorter replies")
        if kind == "dropped":
            what = "the connection failed: ServerDisconnectedError: Server disconnected"
            raise TransientError(what, where=self.name, todo="check that the server runs")
        headers = {"retry-after": str(self._retry_after)} if kind == "rate_limit" else None
        raise fault(_STATUS[kind], f"injected {kind}", where=self.name, headers=headers)

    def _unreadable(self, kind: Kind | None, text: str) -> ModelError:
        """What an adapter raises after the model has answered: the work was done, and the answer cannot be read."""
        assert kind is not None
        self.injected[kind] += 1
        half = text[: len(text) // 2]
        if kind == "truncated":
            return malformed("the stream ended early", half[-80:], where=self.name)
        return malformed("the answer is not JSON", '{"choices": [{"message": {"content": "' + half, where=self.name)

    def _damaged(self, reply: Reply, kind: Kind | None) -> Reply:
        """The reply as a bad day leaves it; what stood beside the old text no longer fits and is dropped."""
        if kind is None or kind in RAISED:
            return reply
        self.injected[kind] += 1
        if kind == "slow":
            return reply
        bare = replace(reply, token_ids=None, logprobs=None, tool_calls=())
        if kind == "garbled":
            # Where bytes are no UTF-8 the adapters put U+FFFD.
            return replace(bare, text="".join("\ufffd" if i % 3 == 1 else c for i, c in enumerate(reply.text)))
        if kind == "cut":
            return replace(bare, text=reply.text[: len(reply.text) // 2], finish="length")
        if kind == "tool_call":
            half = json.dumps({"answer": reply.text})[:-2]
            call = ToolCall(id="call_0", name="answer", arguments=half)
            return replace(bare, text="", finish="tool_calls", tool_calls=(call,))
        return replace(bare, text="")


async def _pieces(model: Model, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[str | Reply, None]:
    """What the model streams, with the whole reply at the end where the model gives one; closed with its reader."""
    source: Any = (model.stream_reply if isinstance(model, StreamsReply) else model.stream)(messages, sampling)
    try:
        async for piece in source:
            yield piece
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


def _key(messages: Sequence[Message], sampling: Sampling) -> str:
    """Hash of what a reply depends on, the model and the number of samples left out."""
    settings = {f.name: getattr(sampling, f.name) for f in fields(sampling)}
    settings["tools"] = [dict(t) for t in sampling.tools]
    text = json.dumps([[m.to_dict() for m in messages], settings], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


__all__ = ["ALL", "DAMAGES", "RAISED", "ChaosModel", "Kind"]
