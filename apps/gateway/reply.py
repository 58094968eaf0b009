"""Replies in OpenAI's form, whole and in pieces, and errors of the house as a client is told them. No I/O here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verbal.contracts import Reply
from verbal.errors import ConfigError, ContextLengthError, ModelError, TransientError, VerbalError
from verbal.models import OverloadedError, redact

from .request import Refusal

_LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has not (OpenAI's and vLLM's value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What all parts of one answer have in common."""

    model: str
    """The model that answers: of a promoted checkpoint its name."""
    fingerprint: str | None
    """Of its weights; None when they are behind another server."""
    token_ids: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The answer in one body."""
        choices = [{"index": i, **self._choice(reply)} for i, reply in enumerate(replies)]
        return {**self._head("chat.completion"), "choices": choices, "usage": _usage(replies)}

    def opening(self, index: int) -> dict[str, Any]:
        """The first piece of a choice."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """A piece of a choice's text."""
        return self._chunk(index, {"content": text})

    def closing(self, index: int, reply: Reply) -> dict[str, Any]:
        """The last piece of a choice: why it ended, its tool calls, its log-probabilities."""
        calls = [{"index": i, **call} for i, call in enumerate(_tool_calls(reply))]
        chunk = self._chunk(index, {"tool_calls": calls} if calls else {})
        chunk["choices"][0] |= {"finish_reason": reply.finish, **self._tokens(reply)}
        return chunk

    def usage(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The piece that tells the usage of a stream."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(replies)}

    def _head(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": self.fingerprint}

    def _chunk(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _choice(self, reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
        if calls := _tool_calls(reply):
            message |= {"content": reply.text or None, "tool_calls": calls}
        return {"message": message, "finish_reason": reply.finish, **self._tokens(reply)}

    def _tokens(self, reply: Reply) -> dict[str, Any]:
        """Log-probabilities, and token ids if they are wanted: what the model gave and no more."""
        ids = reply.token_ids
        found: dict[str, Any] = {"token_ids": list(ids)} if self.token_ids and ids is not None else {}
        if reply.logprobs is None:
            return {"logprobs": None, **found}
        # A reply holds no text for each token; a token is named by its id, as vLLM does on request.
        names = [f"token_id:{i}" for i in ids] if ids is not None and len(ids) == len(reply.logprobs) else None
        content: list[dict[str, Any]] = [
            {
                "token": names[i] if names else "",
                "logprob": max(p, _LEAST_LOGPROB),
                "bytes": None,
                "top_logprobs": [],
            }
            for i, p in enumerate(reply.logprobs)
        ]
        return {"logprobs": {"content": content, "refusal": None}, **found}


class StopText:
    """Ends a text before the first of some stop texts, as its pieces come; for models that do not stop by themselves.

    Args:
        stops: The stop texts.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        """Whether one of them came."""
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._held = ""

    def add(self, piece: str) -> str:
        """What can be told after this piece: what may still begin a stop text is held back."""
        if self.found:
            return ""
        text = self._held + piece
        if places := [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]:
            self.found, self._held = True, ""
            return text[: min(places)[1]]  # the one that is complete first, as a model would have stopped
        sure = max(0, len(text) - max(0, self._longest - 1))
        self._held = text[sure:]
        return text[:sure]

    def rest(self) -> str:
        """What was held back when the text is over."""
        held, self._held = self._held, ""
        return held


def stopped(reply: Reply, stops: Sequence[str]) -> Reply:
    """The reply, ended before the first stop text in it."""
    cut = StopText(stops)
    text = cut.add(reply.text)
    return replace(reply, text=text, finish="stop") if cut.found else reply


def refusal(error: VerbalError) -> Refusal:
    """What a client is told of an error of the house: no place of this server, and no key."""
    advice = f". To do: {error.todo}" if error.todo else ""
    message = redact(f"{error.what}{advice}")
    if isinstance(error, ContextLengthError):
        return Refusal(400, message, param="messages", code="context_length_exceeded")
    if isinstance(error, TransientError):
        busy = isinstance(error, OverloadedError)
        status, code = (429, "model_overloaded") if busy else (503, "model_unreachable")
        return Refusal(status, message, kind="server_error", code=code, retry_after=error.retry_after)
    if isinstance(error, ModelError):  # trying again does not help, so the status is none of those that are retried
        return Refusal(422, message, code="model_refused")
    if isinstance(error, ConfigError):
        return Refusal(400, message, code="unsupported")
    return Refusal(500, message, kind="server_error", code="server_error")


def _tool_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in reply.tool_calls
    ]


def _usage(replies: Sequence[Reply]) -> dict[str, int]:
    prompt = sum(r.usage.prompt_tokens for r in replies)
    completion = sum(r.usage.completion_tokens for r in replies)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


__all__ = ["Completion", "StopText", "refusal", "stopped"]
