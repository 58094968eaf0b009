"""OpenAI's responses as a server writes them, whole and as events, and as it overhears them. No I/O here."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from verbal.contracts import Reply
from verbal.errors import ModelError
from verbal.models._faults import clip, error_message, malformed, stream_fault
from verbal.models._wire import Finish
from verbal.types import ToolCall, Usage

from .answers import Head, cut_off
from .fields import write_body
from .refusal import Refusal

_REPEATED = (
    "instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "previous_response_id", "reasoning",
    "temperature", "text", "tool_choice", "tools", "top_p", "truncation", "user",
)  # fmt: skip
"""What a response repeats of its request."""
_UNSAID: dict[str, Any] = {
    "metadata": {}, "parallel_tool_calls": True, "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "truncation": "disabled",
}  # fmt: skip
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
_WHY: dict[str, Finish] = {"max_output_tokens": "length", "content_filter": "content_filter"}


class Response:
    """Writes one answer."""

    def __init__(self, head: Head) -> None:
        said = {k: head.body.get(k) for k in _REPEATED}
        self._frame: dict[str, Any] = {
            "id": head.id, "object": "response", "created_at": head.created, "status": "in_progress", "error": None,
            "incomplete_details": None, "model": head.model, "output": [], "usage": None, "store": False,
            **{k: _UNSAID.get(k) if v is None else v for k, v in said.items()},
        }  # fmt: skip
        self._message = _named("msg")
        self._count = 0
        self._text = False
        """Whether the message is open."""
        self._reply: Reply | None = None

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The answer in one body."""
        reply = replies[0]
        return self._done(reply, [*self._texts(reply), *map(_call, reply.tool_calls)])

    def begin(self) -> bytes:
        """It was made, and is under way."""
        return self._event("response.created", response=self._frame) + self._event(
            "response.in_progress", response=self._frame
        )

    def piece(self, index: int, piece: str | Reply) -> bytes:
        """A piece of text; with the whole reply the end of the message, and its calls."""
        if isinstance(piece, Reply):
            self._reply = piece
            return b"".join(self._close(piece))
        opening = b"" if self._text else b"".join(self._open())
        delta = {"item_id": self._message, "output_index": 0, "content_index": 0, "delta": piece, "logprobs": []}
        return opening + self._event("response.output_text.delta", **delta)

    def end(self) -> bytes:
        """How it ended, with the whole response."""
        assert self._reply is not None, "the whole reply comes before the end"
        done = self._done(self._reply, self._frame["output"])
        return self._event(f"response.{done['status']}", response=done)

    def broken(self, refused: Refusal) -> bytes:
        """It failed."""
        error = {"code": refused.code or "server_error", "message": refused.message}
        return self._event("response.failed", response={**self._frame, "status": "failed", "error": error})

    def _open(self) -> Iterator[bytes]:
        self._text = True
        item = {"id": self._message, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event(
            "response.content_part.added", item_id=self._message, output_index=0, content_index=0, part=_part("")
        )

    def _close(self, reply: Reply) -> Iterator[bytes]:
        output = self._frame["output"] = []
        if texts := self._texts(reply):
            if not self._text:
                yield from self._open()
            place = {"item_id": self._message, "output_index": 0, "content_index": 0}
            yield self._event("response.output_text.done", **place, text=reply.text, logprobs=[])
            yield self._event("response.content_part.done", **place, part=_part(reply.text))
            yield self._event("response.output_item.done", output_index=0, item=texts[0])
            output += texts
        for call in reply.tool_calls:
            item, at = _call(call), len(output)
            place = {"item_id": item["id"], "output_index": at}
            begun = {**item, "status": "in_progress", "arguments": ""}
            yield self._event("response.output_item.added", output_index=at, item=begun)
            yield self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
            yield self._event("response.function_call_arguments.done", **place, arguments=call.arguments)
            yield self._event("response.output_item.done", output_index=at, item=item)
            output.append(item)

    def _texts(self, reply: Reply) -> list[dict[str, Any]]:
        if not reply.text and reply.tool_calls and not self._text:
            return []
        status = "incomplete" if reply.finish in _CUT else "completed"
        content = [_part(reply.text)]
        return [{"id": self._message, "type": "message", "status": status, "role": "assistant", "content": content}]

    def _done(self, reply: Reply, output: list[dict[str, Any]]) -> dict[str, Any]:
        usage, reason = reply.usage, _CUT.get(reply.finish)
        status = "incomplete" if reason else "failed" if reply.finish == "error" else "completed"
        error = {"code": "server_error", "message": "the model ended for a reason that is not known"}
        return {
            **self._frame,
            "status": status,
            "error": error if status == "failed" else None,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": output,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.tokens,
            },
        }

    def _event(self, kind: str, **data: Any) -> bytes:
        number, self._count = self._count, self._count + 1
        return _event({"type": kind, **data, "sequence_number": number})


class HeardResponse:
    """Reads a response that another server writes.

    Args:
        name: Of the model, as replies call it.
    """

    def __init__(self, name: str) -> None:
        self.id = ""
        self._name, self._pieces = name, list[str]()
        self._reply: Reply | None = None

    def whole(self, body: Any) -> Reply:
        """The reply in one body."""
        output = body.get("output") if isinstance(body, Mapping) else None
        if not isinstance(output, list) or not all(isinstance(i, Mapping) for i in output):
            raise malformed("the answer is no response", body, where=self._name)
        self.id = str(body.get("id") or "")
        if body.get("status") == "failed":
            raise ModelError(f"the server reports: {clip(error_message(body))}", where=self._name, todo="see its log")
        calls = tuple(
            ToolCall(id=str(i.get("call_id") or ""), name=str(i.get("name")), arguments=str(i.get("arguments") or "{}"))
            for i in output
            if i.get("type") == "function_call"
        )
        contents = [i.get("content") for i in output if i.get("type") == "message"]
        parts = [p for c in contents if isinstance(c, list) for p in c]
        details = body.get("incomplete_details") or {}
        stop: Finish = "tool_calls" if calls else "stop"
        return Reply(
            text="".join(str(p.get("text") or p.get("refusal") or "") for p in parts if isinstance(p, Mapping)),
            finish=_WHY.get(str(details.get("reason")), stop) if isinstance(details, Mapping) else stop,
            usage=_read_usage(body.get("usage")),
            model=self._name,
            tool_calls=calls,
        )

    def add(self, event: Any) -> str:
        """The text that an event adds."""
        if not isinstance(event, Mapping):
            raise malformed("an event of the stream is no JSON object", event, where=self._name)
        kind, response = str(event.get("type")), event.get("response")
        if isinstance(response, Mapping):
            self.id = self.id or str(response.get("id") or "")
        if kind == "error" or event.get("error"):
            raise stream_fault(event, where=self._name)
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._reply = self.whole(response)
        if kind != "response.output_text.delta":
            return ""
        piece = str(event.get("delta") or "")
        self._pieces.append(piece)
        return piece

    def reply(self) -> Reply:
        """The reply of a stream that ended."""
        if self._reply is None:
            raise malformed("the stream ended early", "".join(self._pieces)[-80:], where=self._name)
        # Some servers leave the output out of the last event.
        text = self._reply.text or "".join(self._pieces)
        return replace(self._reply, text=text)

    def so_far(self) -> Reply:
        """What came until the stream broke."""
        return cut_off(self._pieces, self._name)


def break_responses(refused: Refusal) -> bytes:
    """The last event of another server's stream that broke."""
    said = {"code": refused.code, "message": refused.message, "param": refused.param, "sequence_number": 0}
    return _event({"type": "error", **said})


def _read_usage(usage: Any) -> Usage:
    found = usage if isinstance(usage, Mapping) else {}
    prompt, completion = (
        v if type(v := found.get(k)) is int and v >= 0 else 0 for k in ("input_tokens", "output_tokens")
    )
    return Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, cost=None)


def _call(call: ToolCall) -> dict[str, Any]:
    item = {"id": _named("fc"), "type": "function_call", "status": "completed", "call_id": call.id, "name": call.name}
    return {**item, "arguments": call.arguments}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _named(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: ".encode() + write_body(data) + b"\n\n"


__all__ = ["HeardResponse", "Response", "break_responses"]
