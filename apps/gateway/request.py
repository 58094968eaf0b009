"""OpenAI's chat completions as a server reads them: a request in, or the refusal it gets. No I/O here.

What cannot be honoured is refused by name, never left out silently: a field with another value than the one that
changes nothing (`_NEUTRAL`), a field nobody knows, an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verbal.contracts import Sampling
from verbal.types import Message, ToolCall

from .fields import MOST_TOKENS, ChatRequest, Fields, made_call, model_of, read_body, text_of, unknown, wrong
from .refusal import Refusal

LONGEST = 2**31 - 1
"""Tokens of a reply that a client may ask for."""
CARRIED: dict[str, tuple[Any, ...]] = {
    "tool_choice": ("auto",), "parallel_tool_calls": (True,), "response_format": ({"type": "text"},),
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "reasoning_effort": (),
}  # fmt: skip
"""Fields that some models take (`ChatRequest.more`) -> the values of them that change nothing."""
_MOST_REPLIES = 128
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id")
_READ = (
    "model", "messages", "n", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "tools",
    "logprobs", "return_token_ids", "stream", "stream_options",
    # These name a caller and change no answer: taken, not used.
    "user", "metadata", "safety_identifier", "prompt_cache_key",
    *CARRIED,
)  # fmt: skip
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_logprobs": (0,), "modalities": (["text"],), "store": (False,), "service_tier": ("auto", "default"),
}  # fmt: skip
"""Field -> the values of it that change nothing."""


def read_request(raw: bytes) -> ChatRequest:
    """The request in a body.

    Raises:
        Refusal: not JSON, a field that is wrong, unknown or cannot be honoured (400).
    """
    return read_chat(read_body(raw))


def read_chat(body: Mapping[str, Any], *, loose: bool = False) -> ChatRequest:
    """The request that a body is.

    Args:
        body: The object.
        loose: What is wrong or unknown is left out: another server gets the body itself, and judges it.

    Raises:
        Refusal: a field that is wrong, unknown or cannot be honoured (400).
    """
    found = Fields(body, loose=loose)
    if not loose:
        found.refuse_others(_READ, _NEUTRAL)
    logprobs = found.flag("logprobs")
    new, old = (found.count(name, LONGEST) for name in ("max_completion_tokens", "max_tokens"))
    # A server behind may know one of the names only: what counts is the larger one.
    most = (max(new or 0, old or 0) or None) if loose else new or old
    sampling = Sampling(
        temperature=found.real("temperature", 0.0, 2.0),
        top_p=found.real("top_p", 1e-6, 1.0),
        max_tokens=MOST_TOKENS if most is None else most,
        seed=found.whole("seed", -(2**63), 2**63 - 1),
        stop=found.stops("stop"),
        tools=_tools(body.get("tools"), loose=loose),
        logprobs=logprobs,
    )
    options = body.get("stream_options") or {}
    known = isinstance(options, dict) and (loose or not set(options) - {"include_usage", "include_obfuscation"})
    if not known:
        raise wrong("stream_options", "an object with include_usage", options)
    return ChatRequest(
        model=model_of(body),
        messages=_messages(body.get("messages"), loose=loose),
        n=found.count("n", LONGEST if loose else _MOST_REPLIES) or 1,
        sampling=sampling,
        stream=found.flag("stream", always=True),
        usage=bool(options.get("include_usage")),
        token_ids=logprobs and found.flag("return_token_ids"),
        more={} if loose else carried(body),
    )


def carried(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a body that not every model takes, where they change anything."""
    return {k: body[k] for k, neutral in CARRIED.items() if body.get(k) is not None and body[k] not in neutral}


def teach_chat(body: dict[str, Any], text: str) -> None:
    """Puts lessons to the end of a body's system message, which it gets if there is none."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return
    for i, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") in ("system", "developer"):
            content = message.get("content")
            parts = [*content, {"type": "text", "text": text}] if isinstance(content, list) else f"{content}\n\n{text}"
            body["messages"] = [*messages[:i], message | {"content": parts}, *messages[i + 1 :]]
            return
    body["messages"] = [{"role": "system", "content": text}, *messages]


def _tools(value: Any, *, loose: bool) -> tuple[Mapping[str, Any], ...]:
    tools = value or []
    if isinstance(tools, list) and (loose or all(map(_named, tools))):
        return tuple(t for t in tools if _named(t))
    if loose:
        return ()
    raise wrong("tools", "a list of objects with a function that has a name", value)


def _named(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _messages(value: Any, *, loose: bool) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise wrong("messages", "a list of one message at least", value)
    if not loose:
        return tuple(_message(m, f"messages[{i}]") for i, m in enumerate(value))
    found = []
    for message in value:
        try:
            found.append(_message(message, "messages", loose=True))
        except Refusal:
            continue
    return tuple(found)


def _message(value: Any, where: str, *, loose: bool = False) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or value["role"] not in _ROLES:
        raise wrong(where, f"an object whose role is one of {', '.join(_ROLES)}", value)
    # What an assistant said is often sent back as it came, with empty fields (refusal, annotations, audio).
    if not loose and (more := [k for k, v in value.items() if k not in _MESSAGE and v not in (None, [])]):
        raise unknown(more[0], where)
    made = value.get("tool_calls")
    calls = _calls(made, f"{where}.tool_calls") if made else ()
    made_by = value.get("tool_call_id")
    if made_by is not None and not isinstance(made_by, str):
        raise wrong(f"{where}.tool_call_id", "a text", made_by)
    role: Any = _ROLES[value["role"]]
    content = value.get("content")
    said = "" if content is None and (calls or loose) else text_of(content, f"{where}.content", ("text",), loose=loose)
    return Message(role=role, content=said, tool_calls=calls, tool_call_id=made_by)


def _calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    made = []
    for call in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        function: Any = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise wrong(where, "a list of calls with a function (name, arguments)", value)
        made.append(made_call(call.get("id"), function.get("name"), function.get("arguments"), where))
    return tuple(made)


__all__ = ["CARRIED", "LONGEST", "ChatRequest", "Refusal", "carried", "read_chat", "read_request", "teach_chat"]
