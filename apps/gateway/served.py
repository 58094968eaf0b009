"""A model that serves: opened, its weights compared with the trained ones, checked and probed before it is asked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from verbal.contracts import Model, Reply, Sampling
from verbal.errors import ConfigError, DataError, ModelError, TransientError, VerbalError
from verbal.models import OverloadedError, Price, find_price, open_model, parse_model
from verbal.models._faults import clip
from verbal.models._prices import price_of
from verbal.models._wire import StreamsReply
from verbal.models.anthropic import AnthropicModel
from verbal.prompt import load_prompt
from verbal.store import Store
from verbal.types import Message, Usage
from verbal.verbs import read_checkpoint
from verbal.versions import Policy, active

from .answers import StopText, stopped
from .fields import ChatRequest, not_neutral
from .forward import Wire, wire_of
from .messages import write_more
from .request import CARRIED
from .routes import ANY
from .vllm import VllmModel

PROMOTED = "promoted"
"""Name of the model that stands for whatever the store has adopted."""
_REMOTE = ("http", "openai", "anthropic", "litellm")
_MOST_THREADS = 16
"""Requests that a model in this process computes at once, on any number of cores."""
_LOADING = 600.0
"""Seconds in which a model must have been loaded and have answered the probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model comes from."""

    name: str
    """What replies call it; empty for the name that the model has by itself."""
    opens: str
    """What opens it (`verbal.models.FORMS`)."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """File -> digest of a checkpoint's trained weights."""
    version: int = 0
    """Number in the log of adopted versions; 0 for a model that was named."""
    policy: Policy | None = None
    """What was adopted."""

    def same(self, other: Source) -> bool:
        """Whether the other one would load the very same weights."""
        return (self.name, self.opens, self.weights) == (other.name, other.opens, other.weights)


def find_source(spec: str, store: Store | None) -> Source:
    """What `spec` names now; the files of a checkpoint are compared with its papers.

    Args:
        spec: As `--model` takes it, or `promoted`.
        store: Where checkpoints and adopted versions are; only these two need it.

    Raises:
        ConfigError, DataError, TrainError: nothing is adopted, no such checkpoint, or its files were changed.
    """
    if spec == PROMOTED:
        found = active(_needed(store, spec))
        if found is None:
            todo = "let a candidate pass the gate first (verbal promote), or serve a model by its name"
            raise ConfigError("nothing is adopted yet", where=_needed(store, spec).where, todo=todo)
        record, policy = found
        name = policy.model if policy.weights else ""
        return Source(
            name=name, opens=policy.opens or policy.model, weights=policy.weights, version=int(record["number"]),
            policy=policy,
        )  # fmt: skip
    if spec.startswith("checkpoint:"):
        opens, papers = read_checkpoint(_needed(store, spec), spec)
        return Source(name=spec, opens=opens, weights=dict(papers["weights"]))
    return Source(name="", opens=spec)


def _needed(store: Store | None, spec: str) -> Store:
    if store is None:
        raise ConfigError(f"{spec!r} is looked up in a store, and none is given", todo="give --store PATH")
    return store


class Served:
    """A loaded model with its names; counts who is using it.

    Args:
        source: Where it comes from.
        model: The model itself.
        fingerprint: Of its weights, None when they are not known here.
        here: Whether it computes in this process.
        also: More names by which it may be asked.
    """

    def __init__(
        self, source: Source, model: Model, fingerprint: str | None, *, here: bool, also: tuple[str, ...] = ()
    ) -> None:
        self.source, self.model, self.fingerprint, self.here = source, model, fingerprint, here
        self.name = source.name or model.name
        self.names = tuple(dict.fromkeys((*also, self.name)))
        # What a checkpoint says is told under its own name, so it is not passed on as it is.
        self.wire: Wire | None = None if source.weights else wire_of(model)
        """Where requests of the model's own protocol are sent as they came."""
        self._any = self.name.endswith(f"/{ANY}")
        """Whether the client names the model."""
        self._price = price_of(model)
        self.under_way = 0
        """Requests that use it now."""
        # What computes here does so in threads of a shared pool: some of them stay free for the next model, and who
        # hangs up while waiting for a turn costs nothing.
        at_once = min(os.cpu_count() or 1, _MOST_THREADS)
        self._turns = asyncio.Semaphore(at_once)
        self.idle = asyncio.Event()
        """Set while nobody uses it."""
        self.idle.set()

    def name_of(self, model: str) -> str:
        """The model that answers a request for `model`."""
        return f"{self.name.removesuffix(ANY)}{model}" if self._any else self.name

    def price(self, model: str) -> Price | None:
        """What a request for `model` costs; None when that is not known."""
        return self._price or (_price(self.name_of(model)) if self._any else None)

    def take(self) -> None:
        """Notes one more request that uses it."""
        self.under_way += 1
        self.idle.clear()

    def give(self) -> None:
        """Notes that a request is done with it."""
        self.under_way -= 1
        if not self.under_way:
            self.idle.set()

    async def replies(self, asked: ChatRequest) -> list[Reply]:
        """The replies to a request, each ended at its stop texts."""
        model, sampling = self._model(asked), self._sampling(asked)
        made = await (self._computed(asked) if self.here else _generate(model, asked.messages, asked.n, sampling))
        return [stopped(reply, asked.sampling.stop) for reply in made]

    async def _computed(self, asked: ChatRequest) -> list[Reply]:
        """What a thread here computes: it cannot be stopped, so it holds its turn and the model to its end.

        Who hangs up while it waits for a turn costs nothing.
        """
        await self._turns.acquire()
        self.take()
        work = asyncio.ensure_future(_generate(self.model, asked.messages, asked.n, self._sampling(asked)))

        def ended(work: asyncio.Future[list[Reply]]) -> None:
            self._turns.release()
            self.give()
            if not work.cancelled():
                work.exception()  # told to whoever still waits; nobody else has to hear of it

        work.add_done_callback(ended)
        return await asyncio.shield(work)

    async def pieces(self, asked: ChatRequest) -> AsyncGenerator[tuple[int, str | Reply], None]:
        """Pieces of the replies as they come, each with the index of its reply; the whole reply is the last of each.

        Several replies at once, log-probabilities, and models that tell no usage in a stream come whole.
        """
        if asked.n > 1 or asked.sampling.logprobs or not isinstance(self.model, StreamsReply):
            for index, reply in enumerate(await self.replies(asked)):
                if reply.text:
                    yield index, reply.text
                yield index, reply
            return
        for last in (False, True):
            begun = False
            try:
                async with aclosing(self._streamed(asked)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield 0, piece
                return
            except TransientError as error:
                if last or begun or not _passes(error):
                    raise

    async def _streamed(self, asked: ChatRequest) -> AsyncGenerator[str | Reply, None]:
        stop, whole, told = StopText(asked.sampling.stop), Reply(text="", usage=Usage(calls=1)), ""
        source: AsyncIterator[str | Reply] = self._model(asked).stream_reply(asked.messages, self._sampling(asked))
        try:
            async for piece in source:
                if isinstance(piece, Reply):
                    whole = piece
                elif text := stop.add(piece):
                    told += text
                    yield text
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
        if text := stop.rest():
            told += text
            yield text
        yield replace(whole, text=told, finish="stop" if stop.found else whole.finish)

    def _model(self, asked: ChatRequest) -> Any:
        """The model, with those fields of a request that `Sampling` does not hold.

        Raises:
            Refusal: it takes no such field (400).
        """
        more = {**asked.more, "model": asked.model} if self._any else asked.more
        if not more:
            return self.model
        if (also := getattr(self.model, "also", None)) is None:
            name = next(iter(more))
            raise not_neutral(name, CARRIED[name])
        return also(write_more(more) if isinstance(self.model, AnthropicModel) else more)

    def _sampling(self, asked: ChatRequest) -> Sampling:
        """How the model samples: in this process it may draw alike without a seed, so each request gets its own."""
        sampling = asked.sampling
        if sampling.seed is None and sampling.temperature and self.here:
            return replace(sampling, seed=secrets.randbits(31))
        return sampling


async def load(
    spec: str,
    source: Source,
    store: Store | None = None,
    *,
    engine: str = "auto",
    key: str = "",
    probe: bool = True,
    timeout: float = 600.0,
) -> Served:
    """The model that `spec` names, loaded, checked, and found to answer one question.

    Args:
        spec: As `--model` takes it, or `promoted`.
        source: What `find_source` says of it.
        store: Where checkpoints are.
        engine: `auto`, or `vllm` for a process of its own.
        key: Environment variable that holds the key of an `http/` server.
        probe: Whether one behind another server is asked before it serves, and has to answer.
        timeout: Seconds in which such a server answers.

    Raises:
        VerbalError: it cannot be found, opened or used within ten minutes, or its weights are not the trained ones.
    """
    model = _open(source, engine, key, timeout)
    part = parse_model(source.opens).part
    if not probe and part in _REMOTE:
        if part == "litellm":  # asks nobody
            await model.check()
        return Served(source, model, None, here=False, also=_also(spec, source.opens))
    try:
        async with asyncio.timeout(_LOADING):
            await model.check()
            # Once more, for files that were exchanged while they were read.
            await asyncio.to_thread(_unchanged, source, store)
            digest = await asyncio.to_thread(getattr, model, "fingerprint", "")  # of weights in this process
            await _probe(model, logprobs=bool(digest))
    except BaseException as error:
        await model.aclose()
        if isinstance(error, VerbalError) or not isinstance(error, Exception):
            raise
        what = f"it was not ready within {_LOADING:g} s" if isinstance(error, TimeoutError) else clip(repr(error))
        raise ModelError(f"{model.name} cannot be loaded: {what}", where=source.opens, todo="try it alone") from error
    fingerprint = _fingerprint(source, str(digest))
    return Served(source, model, fingerprint, here=bool(digest), also=_also(spec, source.opens))


def _also(spec: str, opens: str) -> tuple[str, ...]:
    """Names beside its own: the one it was given where that is no path, the one that a server behind it knows."""
    found = parse_model(opens)
    behind = (found.config["model"],) if found.part == "http" else ()
    return ((spec,) if spec in (PROMOTED, "embedded") else ()) + behind


def _open(source: Source, engine: str, key: str, timeout: float) -> Model:
    if engine != "vllm":
        part = parse_model(source.opens).part
        options: dict[str, Any] = {"timeout": timeout} if part in _REMOTE else {}
        return open_model(source.opens, **options, **({"key_variable": key} if key and part == "http" else {}))
    if not source.opens.startswith("hf:"):
        what = f"vLLM serves Hugging Face folders, not {source.name or source.opens!r}"
        raise ConfigError(what, where="--engine vllm", todo="leave out --engine, or serve hf:FOLDER")
    # Two of them stand side by side while one takes over from the other.
    share = 0.45 if source.version else None
    return VllmModel(source.opens.removeprefix("hf:"), share=share)


def _unchanged(source: Source, store: Store | None) -> None:
    if not source.weights:
        return
    _, papers = read_checkpoint(_needed(store, source.name), source.name)
    if dict(papers["weights"]) != dict(source.weights):
        what = f"the weights of {source.name} changed while they were loaded"
        raise DataError(what, where=source.opens, todo="put the trained files back")


async def _probe(model: Model, *, logprobs: bool) -> None:
    """Lets the model answer one question greedily.

    Raises:
        ModelError: it fails, or its log-probabilities are no numbers (broken weights).
    """
    question = [Message(role="user", content=load_prompt("gateway/probe").fill())]
    sampling = Sampling(temperature=0.0, max_tokens=32, seed=0, logprobs=logprobs)
    found = await _generate(model, question, 1, sampling)
    if not all(map(math.isfinite, found[0].logprobs or ())):
        what = "the probe's log-probabilities are no numbers"
        raise ModelError(what, where=model.name, todo="the weights are broken: train again")


async def _generate(model: Model, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
    for last in (False, True):
        try:
            made = await model.generate(messages, n, sampling)
            break
        except TransientError as error:
            if last or not _passes(error):
                raise
    if len(made) != n:
        what = f"asked for {n} replies, the model gave {len(made)}"
        raise ModelError(what, where=model.name, todo="this is a fault in its adapter")
    return made


@lru_cache(1024)
def _price(name: str) -> Price | None:
    return find_price(name)


def _passes(error: TransientError) -> bool:
    """Whether a second try at once may help: a server refused a parameter, which is left out from now on, or was not
    reached. One that is overloaded, or may still be writing the first answer, is left alone.
    """
    return not error.abandoned and not isinstance(error, OverloadedError)


def _fingerprint(source: Source, digest: str) -> str | None:
    """Names the weights: those of a checkpoint by the digests in its papers, others by that of their folder."""
    if source.weights:
        digest = hashlib.sha256(json.dumps(dict(source.weights), sort_keys=True).encode()).hexdigest()
    return f"fp_{digest[:16]}" if digest else None


__all__ = ["PROMOTED", "Served", "Source", "find_source", "load"]
