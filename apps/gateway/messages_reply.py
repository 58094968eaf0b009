"""Anthropic's messages as a server writes them, whole and as events, and as it overhears them. No I/O here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from verbal.contracts import Reply
from verbal.models._faults import malformed, stream_fault
from verbal.models.anthropic import StreamedMessage, read_message
from verbal.types import ToolCall, Usage

from .answers import Head, cut_off
from .fields import write_body
from .refusal import Refusal

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class Answer:
    """Writes one message."""

    def __init__(self, head: Head) -> None:
        self._frame: dict[str, Any] = {
            "id": head.id, "type": "message", "role": "assistant", "model": head.model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": _usage(Usage()),
        }  # fmt: skip
        self._text = False
        """Whether the block of text is open."""

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The answer in one body."""
        reply = replies[0]
        texts = [{"type": "text", "text": reply.text}] if reply.text or not reply.tool_calls else []
        ended = {"stop_reason": _STOP.get(reply.finish, "end_turn"), "usage": _usage(reply.usage)}
        return {**self._frame, "content": [*texts, *map(_block, reply.tool_calls)], **ended}

    def begin(self) -> bytes:
        """It begins."""
        return _event({"type": "message_start", "message": self._frame})

    def piece(self, index: int, piece: str | Reply) -> bytes:
        """A piece of text; with the whole reply its calls, why it ended, its usage."""
        if isinstance(piece, Reply):
            return b"".join(self._close(piece))
        return self._open() + _delta(0, {"type": "text_delta", "text": piece})

    def end(self) -> bytes:
        """It is over."""
        return _event({"type": "message_stop"})

    def broken(self, refused: Refusal) -> bytes:
        """It failed."""
        return _event(refused.anthropic)

    def _open(self) -> bytes:
        if self._text:
            return b""
        self._text = True
        return _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})

    def _close(self, reply: Reply) -> Iterator[bytes]:
        if self._text or not reply.tool_calls:
            yield self._open()
            yield _event({"type": "content_block_stop", "index": 0})
        for at, call in enumerate(reply.tool_calls, int(self._text)):
            block = _block(call)
            yield _event({"type": "content_block_start", "index": at, "content_block": {**block, "input": {}}})
            made = json.dumps(block["input"], ensure_ascii=False)
            yield _delta(at, {"type": "input_json_delta", "partial_json": made})
            yield _event({"type": "content_block_stop", "index": at})
        delta = {"stop_reason": _STOP.get(reply.finish, "end_turn"), "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": delta, "usage": _usage(reply.usage)})


class HeardMessage:
    """Reads a message that another server writes.

    Args:
        name: Of the model, as replies call it.
    """

    def __init__(self, name: str) -> None:
        self.id = ""
        self._name, self._pieces = name, list[str]()
        self._streamed = StreamedMessage()
        self._over = False

    def whole(self, body: Any) -> Reply:
        """The reply in one body."""
        reply = read_message(body, name=self._name, where=self._name)
        self.id = str(body.get("id") or "")
        return reply

    def add(self, event: Any) -> str:
        """The text that an event adds."""
        if not isinstance(event, Mapping):
            raise malformed("an event of the stream is no JSON object", event, where=self._name)
        kind = event.get("type")
        if kind == "error":
            raise stream_fault(event, where=self._name)
        self._over = self._over or kind == "message_stop"
        try:
            if kind == "message_start":
                self.id = str(event["message"]["id"])
            piece = self._streamed.add(event)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise malformed("an event of the stream cannot be read", event, where=self._name) from None
        self._pieces.append(piece)
        return piece

    def reply(self) -> Reply:
        """The reply of a stream that ended."""
        if not self._over:
            raise malformed("the stream ended early", "".join(self._pieces)[-80:], where=self._name)
        return read_message(self._streamed.message(self._name), name=self._name, where=self._name)

    def so_far(self) -> Reply:
        """What came until the stream broke."""
        return cut_off(self._pieces, self._name)


def break_messages(refused: Refusal) -> bytes:
    """The last event of another server's stream that broke."""
    return _event(refused.anthropic)


def _block(call: ToolCall) -> dict[str, Any]:
    """A call as a block; the API knows objects only, so what else a model wrote is kept under one name."""
    try:
        read = json.loads(call.arguments)
    except ValueError:
        read = None
    found = read if isinstance(read, dict) else {"arguments": call.arguments}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": found}


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _usage(usage: Usage) -> dict[str, int]:
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": usage.prompt_tokens, **cached, "output_tokens": usage.completion_tokens}


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: ".encode() + write_body(data) + b"\n\n"


__all__ = ["Answer", "HeardMessage", "break_messages"]
