"""OpenAI's chat completions as a server writes them, whole and in pieces, and as it overhears them. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from verbal.contracts import Reply
from verbal.models._faults import stream_fault
from verbal.models._wire import StreamedReply, read_replies
from verbal.types import Usage

from .answers import Head, cut_off
from .fields import write_body
from .refusal import Refusal

_LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has not (OpenAI's and vLLM's value)."""


class Completion:
    """Writes one answer."""

    def __init__(self, head: Head) -> None:
        self._head = {"id": head.id, "object": "chat.completion.chunk", "created": head.created, "model": head.model}
        self._head["system_fingerprint"] = head.fingerprint
        self._asked = head.asked
        self._opened: set[int] = set()
        self._replies: dict[int, Reply] = {}

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The answer in one body."""
        choices = [{"index": i, **self._choice(reply)} for i, reply in enumerate(replies)]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": _usage(replies)}

    def begin(self) -> bytes:
        """Nothing: each choice begins with its first piece."""
        return b""

    def piece(self, index: int, piece: str | Reply) -> bytes:
        """A piece of a choice's text; with the whole reply why it ended, its tool calls, its log-probabilities."""
        chunks = [] if index in self._opened else [self._chunk(index, {"role": "assistant", "content": ""})]
        self._opened.add(index)
        if isinstance(piece, Reply):
            self._replies[index] = piece
            calls = [{"index": i, **call} for i, call in enumerate(_tool_calls(piece))]
            last = self._chunk(index, {"tool_calls": calls} if calls else {})
            last["choices"][0] |= {"finish_reason": piece.finish, **self._tokens(piece)}
            chunks.append(last)
        else:
            chunks.append(self._chunk(index, {"content": piece}))
        return b"".join(map(_event, chunks))

    def end(self) -> bytes:
        """The usage, if it is wanted, and the mark of the end."""
        replies = [self._replies[i] for i in sorted(self._replies)]
        usage = _event({**self._head, "choices": [], "usage": _usage(replies)}) if self._asked.usage else b""
        return usage + b"data: [DONE]\n\n"

    def broken(self, refused: Refusal) -> bytes:
        """The last event of a stream that failed."""
        return _event(refused.body)

    def _chunk(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return {**self._head, "choices": [choice]}

    def _choice(self, reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
        if calls := _tool_calls(reply):
            message |= {"content": reply.text or None, "tool_calls": calls}
        return {"message": message, "finish_reason": reply.finish, **self._tokens(reply)}

    def _tokens(self, reply: Reply) -> dict[str, Any]:
        """Log-probabilities, and token ids if they are wanted: what the model gave and no more."""
        ids = reply.token_ids
        found: dict[str, Any] = {"token_ids": list(ids)} if self._asked.token_ids and ids is not None else {}
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


class HeardCompletion:
    """Reads the first reply of a completion that another server writes; its usage is that of all of them.

    Args:
        name: Of the model, as replies call it.
    """

    def __init__(self, name: str) -> None:
        self.id = ""
        self._name, self._pieces = name, list[str]()

    def whole(self, body: Any) -> Reply:
        """The reply in one body."""
        replies = read_replies(body, name=self._name, where=self._name)
        self.id = str(body.get("id") or "")
        if len(replies) == 1:
            return replies[0]
        return replace(replies[0], usage=sum((r.usage for r in replies), Usage(cost=None)))

    def add(self, event: Any) -> str:
        """The text that a chunk adds to the first reply."""
        if isinstance(event, Mapping):
            if event.get("error"):
                raise stream_fault(event, where=self._name)
            self.id = self.id or str(event.get("id") or "")
            choices = event.get("choices")
            if choices and isinstance(choices, list) and isinstance(choices[0], Mapping) and choices[0].get("index"):
                return ""
        piece = self._streamed.add(event)
        self._pieces.append(piece)
        return piece

    def reply(self) -> Reply:
        """The reply of a stream that ended."""
        return self._streamed.reply()

    def so_far(self) -> Reply:
        """What came until the stream broke."""
        return cut_off(self._pieces, self._name)

    @cached_property
    def _streamed(self) -> StreamedReply:
        return StreamedReply(name=self._name, where=self._name)


def break_chat(refused: Refusal) -> bytes:
    """The last event of another server's stream that broke."""
    return _event(refused.body)


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + write_body(data) + b"\n\n"


def _tool_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in reply.tool_calls
    ]


def _usage(replies: Sequence[Reply]) -> dict[str, int]:
    prompt = sum(r.usage.prompt_tokens for r in replies)
    completion = sum(r.usage.completion_tokens for r in replies)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


__all__ = ["Completion", "HeardCompletion", "break_chat"]
