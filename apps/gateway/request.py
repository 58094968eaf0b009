"""OpenAI's chat completions as a server reads them: a request in, or the refusal it gets. No I/O here.

What cannot be honoured is refused by name, never left out silently: a field with another value than the one that
changes nothing (`_NEUTRAL`), a field nobody knows, an image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verbal.contracts import Sampling
from verbal.types import Message, ToolCall

_MOST_REPLIES = 128
_MOST_STOPS = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id")
_READ = (
    "model", "messages", "n", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "tools",
    "logprobs", "return_token_ids", "stream", "stream_options",
)  # fmt: skip
_LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key")
"""Fields that name a caller and change no answer: taken, not used."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "top_logprobs": (0,),
    "response_format": ({"type": "text"},), "tool_choice": ("auto",), "parallel_tool_calls": (True,),
    "modalities": (["text"],), "store": (False,), "service_tier": ("auto", "default"),
}  # fmt: skip
"""Field -> the values of it that change nothing."""


class Refusal(Exception):
    """An answer to a client that is an error, in OpenAI's shape.

    Args:
        status: HTTP status. The SDK tries 408, 409, 429 and 5xx again, so only what may pass gets one of these.
        message: What failed and what to do.
        kind: Type of the error.
        param: The field that is wrong.
        code: Machine-readable name of the error.
        retry_after: Seconds to wait, when that is known.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A chat completion that a client asks for."""

    model: str
    messages: tuple[Message, ...]
    n: int = 1
    sampling: Sampling
    stream: bool = False
    usage: bool = False
    """Whether a stream ends with its usage."""
    token_ids: bool = False
    """Whether token ids are wanted beside log-probabilities (vLLM's `return_token_ids`)."""


def read_request(raw: bytes) -> ChatRequest:
    """The request in a body.

    Raises:
        Refusal: not JSON, a field that is wrong, unknown or cannot be honoured (400).
    """
    body = _json(raw)
    _refuse_others(body)
    logprobs = _flag(body, "logprobs")
    most = _whole(body, "max_completion_tokens", 1, 2**31 - 1) or _whole(body, "max_tokens", 1, 2**31 - 1)
    sampling = Sampling(
        temperature=_real(body, "temperature", 0.0, 2.0),
        top_p=_real(body, "top_p", 1e-6, 1.0),
        max_tokens=Sampling().max_tokens if most is None else most,
        seed=_whole(body, "seed", -(2**63), 2**63 - 1),
        stop=_stops(body.get("stop")),
        tools=_tools(body.get("tools")),
        logprobs=logprobs,
    )
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise _wrong("stream_options", "an object with include_usage", options)
    return ChatRequest(
        model=_model(body.get("model")),
        messages=_messages(body.get("messages")),
        n=_whole(body, "n", 1, _MOST_REPLIES) or 1,
        sampling=sampling,
        stream=_flag(body, "stream"),
        usage=bool(options.get("include_usage")),
        token_ids=logprobs and _flag(body, "return_token_ids"),
    )


def _json(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        said = str(error)[:120] or type(error).__name__
        raise Refusal(400, f"the body is not JSON: {said}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is a JSON {type(body).__name__}, not an object", code="invalid_json")
    return body


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _refuse_others(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if name in _READ or name in _LABELS or value is None:
            continue
        if name not in _NEUTRAL:
            raise Refusal(400, f"unknown field {name[:80]!r}", param=name[:80], code="unknown_parameter")
        if value not in _NEUTRAL[name]:
            what = f"{name} other than {_NEUTRAL[name][0]!r} is not supported here; leave it out"
            raise Refusal(400, what, param=name, code="unsupported_value")


def _wrong(name: str, wanted: str, seen: Any) -> Refusal:
    return Refusal(400, f"{name} must be {wanted}, found {str(seen)[:80]!r}", param=name, code="invalid_value")


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(name, f"a whole number from {low} to {high}", value)
    return value


def _real(body: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _wrong(name, f"a number from {low:g} to {high:g}", value)
    return float(value)


def _stops(value: Any) -> tuple[str, ...]:
    found = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > _MOST_STOPS or not all(isinstance(s, str) and s for s in found):
        raise _wrong("stop", f"a text or a list of at most {_MOST_STOPS} texts", value)
    return tuple(found)


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    tools = value or []
    named = isinstance(tools, list) and all(
        isinstance(t, dict) and isinstance(t.get("function"), dict) and isinstance(t["function"].get("name"), str)
        for t in tools
    )
    if not named:
        raise _wrong("tools", "a list of objects with a function that has a name", value)
    return tuple(tools)


def _model(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong("model", "the name of a model (GET /v1/models lists them)", value)
    return value


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "a list of one message at least", value)
    return tuple(_message(m, f"messages[{i}]") for i, m in enumerate(value))


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or value["role"] not in _ROLES:
        raise _wrong(where, f"an object whose role is one of {', '.join(_ROLES)}", value)
    # What an assistant said is often sent back as it came, with empty fields (refusal, annotations, audio).
    if more := [k for k, v in value.items() if k not in _MESSAGE and v not in (None, [])]:
        raise Refusal(400, f"unknown field {more[0][:80]!r}", param=f"{where}.{more[0][:80]}", code="unknown_parameter")
    calls = _calls(value.get("tool_calls") or [], f"{where}.tool_calls")
    made_by = value.get("tool_call_id")
    if made_by is not None and not isinstance(made_by, str):
        raise _wrong(f"{where}.tool_call_id", "a text", made_by)
    role: Any = _ROLES[value["role"]]
    content = _content(value.get("content"), f"{where}.content", optional=bool(calls))
    return Message(role=role, content=content, tool_calls=calls, tool_call_id=made_by)


def _content(value: Any, where: str, *, optional: bool) -> str:
    if isinstance(value, str):
        return value
    if value is None and optional:
        return ""
    parts: list[Any] = value if isinstance(value, list) and value else [None]
    if all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts):
        return "".join(p["text"] for p in parts)
    raise _wrong(where, "a text, or a list of parts of type text", value)


def _calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    made = []
    for call in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        function: Any = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not all(isinstance(function.get(k), str) for k in ("name", "arguments")):
            raise _wrong(where, "a list of calls with a function (name, arguments)", value)
        made.append(ToolCall(id=str(call.get("id") or ""), name=function["name"], arguments=function["arguments"]))
    return tuple(made)


__all__ = ["ChatRequest", "Refusal", "read_request"]
