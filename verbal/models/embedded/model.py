"""The embedded model behind the same contract and the same prompts as any other model."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from verbal.cache import folder_digest
from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ContextLengthError, ModelError
from verbal.models.embedded.ast import Unsupported, to_sql
from verbal.models.embedded.codec import Encoded, encode
from verbal.models.embedded.fields import Fields, Schema
from verbal.models.embedded.foreign import from_sql
from verbal.models.embedded.read import read_prompt, write_reply
from verbal.types import Message, Usage

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from verbal.models.embedded.decode import Decoder, Sample
    from verbal.models.embedded.forward import Array

SHIPPED = Path(__file__).parent / "weights"
"""The folder of the weights that come with the package."""

_LONGEST = 160
_OTHER = "use another model with --model provider/model; the limits are in the card (`verbal embedded card`)"


class EmbeddedModel:
    """A small language model for questions about one SQLite database; numpy only, no torch.

    It reads the prompts of apps/text2sql (roles solver, critic, reflector, proposer, judge) and nothing else: English,
    SELECT statements, one database at a time. Whatever lies outside is an error, never a made-up answer.

    Args:
        path: Folder of the weights (config.json, model.safetensors); the shipped ones when empty.
    """

    chats = False
    """It cannot follow instructions that are not those of its prompts."""

    def __init__(self, path: str = "") -> None:
        self.folder = Path(path) if path else SHIPPED
        self.name = f"embedded/{self.folder.name if path else 'pocket'}"
        self._decoder: Decoder | None = None
        self._lock = Lock()
        self._pools: ThreadpoolController | None = None

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the weights: what was recorded of others is not theirs."""
        return folder_digest(self.folder) if self.folder.is_dir() else ""

    def __repr__(self) -> str:
        return f"EmbeddedModel({str(self.folder)!r})"

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies to one prompt, in order; with a seed they are the same every time.

        Raises:
            ConfigError: the weights cannot be read.
            ModelError: the prompt is outside the model's limits; the message says which.
        """
        return await asyncio.to_thread(self._calm, tuple(messages), n, sampling)

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """The reply, in one piece."""
        for reply in await self.generate(messages, 1, sampling):
            yield reply.text

    async def check(self) -> str:
        """One line that says how large the model is.

        Raises:
            ConfigError: the weights cannot be read.
        """
        network = (await asyncio.to_thread(self._open)).network
        size = network.embedding.size + sum(
            part.size for layer in network.layers for part in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )
        return f"{self.name}: {size / 1e6:.1f} million parameters, {network.context} tokens of context, runs on numpy"

    async def aclose(self) -> None:
        """Lets go of the weights."""
        self._decoder = None

    def use(self, tensors: Mapping[str, Array]) -> None:
        """Answers with these weights from now on (of the shape that the folder's configuration says)."""
        from verbal.models.embedded.decode import Decoder
        from verbal.models.embedded.forward import Network

        with self._lock:
            self._decoder = Decoder(Network(self.folder, tensors))

    def _open(self) -> Decoder:
        with self._lock:
            if self._decoder is None:
                from verbal.models.embedded.decode import Decoder
                from verbal.models.embedded.forward import Network

                try:
                    self._decoder = Decoder(Network(self.folder))
                except (OSError, ValueError) as error:
                    raise ConfigError(
                        f"the embedded model's weights cannot be read: {error}",
                        where=str(self.folder),
                        todo="train them with `verbal embedded train`, or name another model with --model",
                    ) from error
            return self._decoder

    def _calm(self, messages: tuple[Message, ...], n: int, sampling: Sampling) -> list[Reply]:
        """The replies with one BLAS thread: products this small spin in several, ten times slower on busy cores."""
        self._open()
        if self._pools is None:
            from threadpoolctl import ThreadpoolController

            self._pools = ThreadpoolController()
        with self._pools.limit(limits=1, user_api="blas"):
            return self._replies(messages, n, sampling)

    def _replies(self, messages: tuple[Message, ...], n: int, sampling: Sampling) -> list[Reply]:
        started = time.perf_counter()
        decoder = self._open()
        if sampling.tools:
            raise ModelError("the embedded model calls no tools", where=self.name, todo=_OTHER)
        try:
            fields = read_prompt([(message.role, message.content) for message in messages])
            if fields.role == "judge":
                return self._judged(decoder, fields, n, started)
            encoded = encode(fields)
        except Unsupported as error:
            raise ModelError(
                f"the embedded model cannot read this prompt: {error}", where=self.name, todo=_OTHER
            ) from None
        self._fits(encoded, decoder)
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        samples = decoder.answers(
            encoded,
            n,
            sampling.temperature or 0.0,
            1.0 if sampling.top_p is None else sampling.top_p,
            abs(seed),
            min(sampling.max_tokens, _LONGEST),
            {_written(sql, fields.schema) for sql in fields.tried},
        )
        seconds = (time.perf_counter() - started) / max(1, n)
        return [
            self._reply(encoded, sample, sampling, len(encoded.tokens) if place == 0 else 0, seconds)
            for place, sample in enumerate(samples)
        ]

    def _reply(self, encoded: Encoded, sample: Sample, sampling: Sampling, prompt: int, seconds: float) -> Reply:
        text = write_reply(encoded.role, sample.answer) if sample.answer else f"No answer: {sample.problem}."
        usage = Usage(
            calls=1 if prompt else 0, prompt_tokens=prompt, completion_tokens=len(sample.tokens), seconds=seconds
        )
        return Reply(
            text=text,
            finish="stop" if sample.finished else "length",
            usage=usage,
            model=self.name,
            token_ids=sample.ids if sampling.logprobs else None,
            logprobs=sample.logprobs if sampling.logprobs else None,
        )

    def _judged(self, decoder: Decoder, fields: Fields, n: int, started: float) -> list[Reply]:
        """One line a candidate: the probability that the critic would call it right."""
        lines: list[str] = []
        tokens = 0
        results = fields.results or ("",) * len(fields.candidates)
        for place, (sql, result) in enumerate(zip(fields.candidates, results, strict=True)):
            encoded = encode(replace(fields, sql=sql, result=result))
            self._fits(encoded, decoder)
            tokens += len(encoded.tokens)
            lines.append(f"SQL{place}: {decoder.right(encoded):.2f}")
        if not lines:
            raise Unsupported("a prompt without candidates")
        usage = Usage(
            calls=1, prompt_tokens=tokens, completion_tokens=len(lines), seconds=time.perf_counter() - started
        )
        first = Reply(text="\n".join(lines), usage=usage, model=self.name)
        return [first, *(replace(first, usage=Usage()) for _ in range(n - 1))]

    def _fits(self, encoded: Encoded, decoder: Decoder) -> None:
        if len(encoded.tokens) + 8 > decoder.network.context:
            what = f"a prompt of {len(encoded.tokens)} tokens, but the embedded model reads {decoder.network.context}"
            raise ContextLengthError(what, where=self.name, todo=_OTHER)


def _written(sql: str, schema: Schema) -> str:
    """The query as the model itself would write it, so that it is recognised."""
    try:
        return to_sql(from_sql(sql, schema), schema)
    except Unsupported:
        return sql
