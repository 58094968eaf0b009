"""Anthropic's messages as a server reads them: a request in, or the refusal it gets. No I/O here.

What cannot be honoured is refused by name: tools that the provider runs, images, documents, thinking. Earlier thinking
is taken and not passed on: nobody else can read it. `cache_control` changes no answer and is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from verbal.contracts import Sampling
from verbal.types import Message

from .fields import (
    MOST_TOKENS,
    ChatRequest,
    Fields,
    function_tool,
    joined,
    made_call,
    model_of,
    text_of,
    unsupported,
    wrong,
)
from .refusal import Refusal
from .request import LONGEST

_READ = (
    "model", "messages", "max_tokens", "system", "temperature", "top_p", "stop_sequences", "tools", "tool_choice",
    "stream", "output_config",
    "metadata",  # names a caller and changes no answer
)  # fmt: skip
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "service_tier": ("auto", "standard_only"), "thinking": ({"type": "disabled"},), "top_k": (), "mcp_servers": ([],),
}  # fmt: skip
"""Field -> the values of it that change nothing."""
_UNREAD = ("thinking", "redacted_thinking")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def read_messages(body: Mapping[str, Any], *, loose: bool = False) -> ChatRequest:
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
    most = found.count("max_tokens", LONGEST)
    if most is None and not loose:
        raise wrong("max_tokens", f"a whole number from 1 to {LONGEST}", None)
    system = body.get("system")
    first = [Message(role="system", content=text_of(system, "system", ("text",), loose=loose))] if system else []
    sampling = Sampling(
        temperature=found.real("temperature", 0.0, 1.0),
        top_p=found.real("top_p", 1e-6, 1.0),
        max_tokens=MOST_TOKENS if most is None else most,
        stop=found.stops("stop_sequences"),
        tools=_tools(body.get("tools"), loose=loose),
    )
    return ChatRequest(
        model=model_of(body),
        messages=joined((*first, *_messages(body.get("messages"), loose=loose))),
        sampling=sampling,
        stream=found.flag("stream", always=True),
        usage=True,
        more={} if loose else _more(body),
    )


def teach_messages(body: dict[str, Any], text: str) -> None:
    """Puts lessons to the end of a body's system prompt, behind what a provider may have cached of it."""
    given = body.get("system")
    if isinstance(given, list):
        body["system"] = [*given, {"type": "text", "text": text}]
    else:
        body["system"] = f"{given}\n\n{text}" if given else text


def _messages(value: Any, *, loose: bool) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise wrong("messages", "a list of one message at least", value)
    found: list[Message] = []
    for i, message in enumerate(value):
        try:
            found += _turn(message, f"messages[{i}]", loose=loose)
        except Refusal:
            if not loose:
                raise
    return found


def _turn(value: Any, where: str, *, loose: bool) -> list[Message]:
    """The messages that one turn is: results of tools come before what the user says."""
    if not isinstance(value, dict) or value.get("role") not in ("user", "assistant"):
        raise wrong(where, "an object whose role is user or assistant", value)
    role, content = value["role"], value.get("content")
    if isinstance(content, str):
        return [Message(role=role, content=content)]
    if not isinstance(content, list) or not content or not all(isinstance(b, dict) for b in content):
        raise wrong(f"{where}.content", "a text, or a list of blocks", content)
    kinds = {"user": "tool_result", "assistant": "tool_use"}
    special = [b for b in content if b.get("type") == kinds[role]]
    texts = [b for b in content if b.get("type") not in (kinds[role], *_UNREAD)]
    said = text_of(texts, f"{where}.content", ("text",), loose=loose) if texts else ""
    if role == "assistant":
        calls = tuple(
            made_call(b.get("id"), b.get("name"), json.dumps(b.get("input") or {}, ensure_ascii=False), where)
            for b in special
        )
        return [Message(role=role, content=said, tool_calls=calls)]
    results = [_result(b, where, loose=loose) for b in special]
    return [*results, Message(role=role, content=said)] if texts or not results else results


def _result(block: Mapping[str, Any], where: str, *, loose: bool) -> Message:
    made_by, content = block.get("tool_use_id"), block.get("content")
    if not isinstance(made_by, str):
        raise wrong(f"{where}.tool_use_id", "a text", made_by)
    said = text_of(content, f"{where}.content", ("text",), loose=loose) if content else ""
    return Message(role="tool", content=said, tool_call_id=made_by)


def _tools(value: Any, *, loose: bool) -> tuple[Mapping[str, Any], ...]:
    found = []
    for i, tool in enumerate(value if isinstance(value, list) else [value] if value else []):
        where = f"tools[{i}]"
        kind = tool.get("type", "custom") if isinstance(tool, dict) else None
        if kind in ("custom", None) and isinstance(tool, dict):
            found.append(function_tool(tool.get("name"), tool.get("description"), tool.get("input_schema"), where))
        elif not loose:
            raise unsupported(where, f"of type {str(kind)[:40]!r} is not supported here: only tools of the client are")
    return tuple(found)


def _more(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that not every model takes, in the form of chat completions."""
    more: dict[str, Any] = {}
    choice = body.get("tool_choice") or {"type": "auto"}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool" and isinstance(choice.get("name"), str):
        more["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif not isinstance(kind, str) or kind not in _CHOICES:
        raise wrong("tool_choice", "of type auto, any, tool or none", choice)
    elif kind != "auto":
        more["tool_choice"] = _CHOICES[kind]
    if choice.get("disable_parallel_tool_use"):
        more["parallel_tool_calls"] = False
    config = body.get("output_config") or {}
    if not isinstance(config, dict) or set(config) - {"effort", "format"}:
        raise wrong("output_config", "an object with effort and format", config)
    if config.get("effort") is not None:
        more["reasoning_effort"] = config["effort"]
    if wanted := config.get("format"):
        if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
            raise wrong("output_config.format", "of type json_schema", wanted)
        schema = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
        more["response_format"] = {"type": "json_schema", "json_schema": schema}
    return more


def write_more(more: Mapping[str, Any]) -> dict[str, Any]:
    """Fields in the form of chat completions as Anthropic's API takes them.

    Raises:
        Refusal: it has no word for one (400).
    """
    sent: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for name, value in more.items():
        if name == "model":  # of a route that passes on the client's name
            sent[name] = value
        elif name == "tool_choice":
            names = {v: k for k, v in _CHOICES.items()}
            function = value.get("function") if isinstance(value, dict) else None
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                sent[name] = {"type": "tool", "name": function["name"]}
            elif isinstance(value, str) and value in names:
                sent[name] = {"type": names[value]}
            else:
                raise wrong(name, "auto, none, required, or a function with a name", value)
        elif name == "reasoning_effort":
            config["effort"] = value
        elif name == "response_format" and (schema := _schema(value)) is not None:
            config["format"] = {"type": "json_schema", "schema": schema}
        elif name != "parallel_tool_calls":
            raise unsupported(name, "is not supported by this model; leave it out")
    if more.get("parallel_tool_calls") is False:
        sent["tool_choice"] = {"type": "auto", **sent.get("tool_choice", {}), "disable_parallel_tool_use": True}
    return sent | ({"output_config": config} if config else {})


def _schema(wanted: Any) -> dict[str, Any] | None:
    """The schema in a response format of chat completions, if it has one."""
    held = wanted.get("json_schema") if isinstance(wanted, dict) and wanted.get("type") == "json_schema" else None
    schema = held.get("schema") if isinstance(held, dict) else None
    return schema if isinstance(schema, dict) else None


__all__ = ["read_messages", "teach_messages", "write_more"]
