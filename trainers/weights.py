"""The weights that are trained, of either kind: as a network, as what turns messages into tokens, and as a `Model` that
the loop can ask while they change.

`embedded` weights speak the slot codec and answer through the package's numpy forward pass; those of a Hugging Face
folder speak their chat template and answer through transformers. Imports torch and transformers.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import transformers

from verbal.contracts import Model
from verbal.errors import ConfigError, TrainError
from verbal.models.embedded import hf
from verbal.models.embedded.ast import Unsupported
from verbal.models.embedded.codec import Answer, encode, encode_answer
from verbal.models.embedded.model import SHIPPED, EmbeddedModel
from verbal.models.embedded.read import fences, read_prompt
from verbal.models.embedded.vocabulary import INDEX
from verbal.types import Attempt, Message, Step

from .adapters import Quantization
from .local import LocalModel

__all__ = ["Tokens", "Weights", "open_weights", "turns_of"]

Messages = Sequence[Mapping[str, str]]
"""Conversational rows: `role` and `content` of each message."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A conversation in tokens: the prompt, and everything after it."""

    prompt: list[int]
    completion: list[int]
    mask: list[int]
    """1 on tokens of `completion` that the policy wrote, 0 on what the environment said between them."""
    logprobs: list[float] | None
    """Of `completion` under what it was sampled from, NaN where the mask is 0, and on turns whose past was read in
    other tokens than it was written in; None when not all were recorded."""
    turns: tuple[int, ...] = (0,)
    """Place in `completion` of the first token of each turn of the policy."""


class Weights(Protocol):
    """Weights under training."""

    kind: Literal["embedded", "huggingface"]
    network: Any
    """The causal language model of transformers that is trained."""
    tokenizer: Any
    context: int
    """Tokens the network reads at most."""

    def prompt_ids(self, messages: Messages) -> list[int]:
        """The prompt in tokens, up to where the answer begins.

        Raises:
            TrainError: these weights cannot read such a prompt.
        """
        ...

    def answer_ids(self, messages: Messages, text: str) -> list[int]:
        """An answer to that prompt in tokens, the one that ends it included.

        Raises:
            TrainError: these weights cannot say that.
        """
        ...

    def tokens(self, attempt: Attempt) -> Tokens | None:
        """What an attempt said and heard, in tokens as sampled; None when no token ids were recorded."""
        ...

    def policy(self) -> Model:
        """A model of the loop that answers with these weights as they were at the last `refresh`."""
        ...

    def refresh(self) -> None:
        """Lets the policy answer with the weights as they are now."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the weights, so that `open_weights(folder)` finds them."""
        ...


def open_weights(model: str, *, dtype: Any = None, quantization: Quantization | None = None) -> Weights:
    """The weights of `embedded`, `embedded:FOLDER`, or a Hugging Face folder or name (`hf:` before it or not).

    Raises:
        TrainError: they cannot be loaded, or the tokenizer has no chat template.
    """
    if model == "embedded" or model.startswith("embedded:"):
        return _Embedded(Path(model.partition(":")[2] or SHIPPED))
    return _HuggingFace(model.removeprefix("hf:"), dtype or torch.float32, quantization)


class _Embedded:
    kind: Literal["embedded", "huggingface"] = "embedded"
    context = hf.CONTEXT

    def __init__(self, folder: Path) -> None:
        try:
            self.network = hf.load(folder)
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            what = f"no embedded model can be loaded: {str(error).strip().splitlines()[0]}"
            raise TrainError(what, where=str(folder), todo="give the folder of one") from error
        self._policy = EmbeddedModel(str(folder))

    def prompt_ids(self, messages: Messages) -> list[int]:
        return [INDEX[token] for token in self._read(messages).tokens]

    def answer_ids(self, messages: Messages, text: str) -> list[int]:
        prompt = self._read(messages)
        try:
            return [INDEX[token] for token in encode_answer(prompt, _answer(prompt.role, text))]
        except Unsupported as error:
            raise TrainError(f"the embedded model cannot say {text[:80]!r}: {error}", where=prompt.role) from error

    def tokens(self, attempt: Attempt) -> Tokens | None:
        steps = [s for s in attempt.steps if s.author == "policy"]
        if len(steps) != 1 or steps[0].token_ids is None:
            return None  # a second turn is asked in a new prompt, whose slots are other ones
        ids = list(steps[0].token_ids)
        logprobs = None if steps[0].logprobs is None else list(steps[0].logprobs)
        return Tokens(self.prompt_ids(turns_of(steps[0].prompt)), ids, [1] * len(ids), logprobs)

    def policy(self) -> Model:
        return self._policy

    def refresh(self) -> None:
        state = getattr(self.network, "module", self.network).state_dict()
        self._policy.use({k: v.detach().to("cpu", torch.float32).numpy().copy() for k, v in state.items()})

    def save(self, folder: Path) -> None:
        hf.save(self.network, folder)

    def _read(self, messages: Messages) -> Any:
        try:
            return encode(read_prompt([(m["role"], m["content"]) for m in messages]))
        except Unsupported as error:
            raise TrainError(f"the embedded model cannot read this prompt: {error}", where="prompt") from error


def _answer(role: str, text: str) -> Answer:
    """What a reply says, as `write_reply` writes it."""
    queries = fences(text)
    if role in ("critic", "judge"):
        verdict = re.search(r"VERDICT: *(\w+)", text)
        clauses = re.search(r"CLAUSES: *(.*)", text)
        named = tuple(c.strip() for c in clauses[1].split(",")) if clauses else ()
        return Answer(queries[-1] if queries else "", verdict[1] if verdict else "wrong", named)
    if role == "reflector":
        return Answer(hint=text.strip().removeprefix("HINT:").strip())
    if not queries:
        raise Unsupported("a completion without a fenced query")
    question = re.search(r"QUESTION: *(.*)", text)
    return Answer(queries[-1], question=question[1] if role == "proposer" and question else "")


class _HuggingFace:
    kind: Literal["embedded", "huggingface"] = "huggingface"

    def __init__(self, model: str, dtype: Any, quantization: Quantization | None) -> None:
        from .fit import quiet
        from .huggingface import opened

        self.network, self.tokenizer = opened(model, dtype, quantization)
        self.context = int(getattr(self.network.config, "max_position_embeddings", None) or 2**31)
        self._quiet = quiet
        self._closing: list[int] = []
        self._policy = _Live(model, self)

    def prompt_ids(self, messages: Messages) -> list[int]:
        return self._ids(messages, True)

    def answer_ids(self, messages: Messages, text: str) -> list[int]:
        prompt, eos = self.prompt_ids(messages), self.tokenizer.eos_token_id
        whole = self._ids([*messages, _assistant(text)], False)
        if whole[: len(prompt)] != prompt:  # a template that writes the opening otherwise once an answer is there
            return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], eos]
        said = whole[len(prompt) :]
        return [*said[: said.index(eos)], eos] if eos in said else [*said, eos]

    def tokens(self, attempt: Attempt) -> Tokens | None:
        steps = [s for s in attempt.steps if s.author == "policy"]
        if not steps or any(s.token_ids is None for s in steps):
            return None
        prompt = self.prompt_ids(turns_of(steps[0].prompt))
        completion: list[int] = []
        mask: list[int] = []
        logprobs: list[float] = []
        turns: list[int] = []
        read = True
        for i, step in enumerate(steps):
            if i:
                between, opened = self._between(steps[i - 1], step.prompt)
                completion += between
                mask += [0] * len(between)
                logprobs += [math.nan] * len(between)
                read = [*prompt, *completion] == opened
            ids = list(step.token_ids or ())
            turns.append(len(completion))
            completion += ids
            mask += [1] * len(ids)
            logprobs += step.logprobs if read and step.logprobs is not None else [math.nan] * len(ids)
        known = all(s.logprobs is not None for s in steps)
        return Tokens(prompt, completion, mask, logprobs if known else None, tuple(turns))

    def _between(self, turn: Step, following: Sequence[Message]) -> tuple[list[int], list[int]]:
        """The tokens from the end of a turn to the start of the next, and the whole prompt of the next."""
        messages = turns_of(turn.prompt)
        before, closed = self.prompt_ids(messages), self._ids([*messages, _assistant(turn.text)], False)
        opened = self.prompt_ids(turns_of(following))
        if opened[: len(closed)] != closed or closed[: len(before)] != before:
            what = "the next prompt does not begin with the turn before it as it was said"
            raise TrainError(what, where="chat template", todo="take a template that keeps earlier turns as they were")
        ending, eos = self._ending(messages), self.tokenizer.eos_token_id
        said = list(turn.token_ids or ())
        # A turn that ended by itself has said the end of turn; one that was cut at its limit has not.
        over = ending.index(eos) + 1 if said[-1:] == [eos] and eos in ending else 0
        return [*ending[over:], *opened[len(closed) :]], opened

    def _ending(self, messages: Messages) -> list[int]:
        """What the template writes after the words of a turn."""
        if not self._closing:
            mark = "\u2038"  # words that a template neither strips nor reads
            text = self.tokenizer.apply_chat_template([*messages, _assistant(mark)], tokenize=False)
            closing = text.rpartition(mark)[2]
            self._closing.extend(self.tokenizer(closing, add_special_tokens=False)["input_ids"])
        return self._closing

    def policy(self) -> Model:
        return self._policy

    def refresh(self) -> None:
        """Nothing to do: the policy holds the network itself."""

    def save(self, folder: Path) -> None:
        with self._quiet():
            self.network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def _ids(self, messages: Messages, opens: bool) -> list[int]:
        plain = [{"role": m["role"], "content": m["content"]} for m in messages]
        made = self.tokenizer.apply_chat_template(plain, add_generation_prompt=opens, return_dict=True)
        return [int(i) for i in made["input_ids"]]


class _Live(LocalModel):
    """A model of the loop over a network that is being trained."""

    def __init__(self, name: str, weights: _HuggingFace) -> None:
        super().__init__(name, loaded=(weights.network, weights.tokenizer))
        self._weights, self._turn = weights, threading.Lock()

    def _generate(self, *args: Any) -> Any:
        with self._turn, _answering(self._weights.network):  # one at a time: each puts the mode back as it found it
            return super()._generate(*args)


@contextmanager
def _answering(network: Any) -> Iterator[None]:
    """The network without dropout and gradient checkpointing, as it was afterwards."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def turns_of(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as conversational rows."""
    if any(m.tool_calls for m in messages):
        raise ConfigError("a conversation with tool calls cannot be put into tokens", where="prompt")
    return [{"role": m.role, "content": m.content} for m in messages]
