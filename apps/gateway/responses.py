"""OpenAI's responses as a server reads them: a request in, or the refusal it gets. No I/O here.

The conversation comes whole with each request: a server of this house keeps none for its clients, so what refers to one
(`previous_response_id`, `conversation`, `store`, `background`) is refused by name, as is what no model here has
(hosted tools, images). Reasoning of another model is taken and not passed on: nobody else can read it.
"""

from __future__ import annotations

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
    unknown,
    unsupported,
    wrong,
)
from .refusal import Refusal
from .request import LONGEST

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXTS = ("input_text", "output_text", "text")
_READ = (
    "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "text",
    "max_output_tokens", "stream", "reasoning",
    # These name a caller, or how a stream or a cache is made, and change no answer: taken, not used.
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "stream_options",
)  # fmt: skip
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "store": (False,), "background": (False,), "truncation": ("disabled",), "service_tier": ("auto", "default"),
    "top_logprobs": (0,), "include": ([], ["reasoning.encrypted_content"]),
}  # fmt: skip
"""Field -> the values of it that change nothing."""
_KEPT = ("previous_response_id", "conversation", "store", "background")


def read_responses(body: Mapping[str, Any], *, loose: bool = False) -> ChatRequest:
    """The request that a body is.

    Args:
        body: The object.
        loose: What is wrong or unknown is left out: another server gets the body itself, and judges it.

    Raises:
        Refusal: a field that is wrong, unknown or cannot be honoured (400).
    """
    found = Fields(body, loose=loose)
    if not loose:
        for name in _KEPT:
            if body.get(name):
                raise unsupported(name, "is not supported here: send the whole conversation as input")
        found.refuse_others(_READ, _NEUTRAL)
    most = found.count("max_output_tokens", LONGEST)
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise wrong("instructions", "a text", instructions)
    first = (Message(role="system", content=instructions),) if instructions else ()
    sampling = Sampling(
        temperature=found.real("temperature", 0.0, 2.0),
        top_p=found.real("top_p", 1e-6, 1.0),
        max_tokens=MOST_TOKENS if most is None else most,
        tools=_tools(body.get("tools"), loose=loose),
    )
    return ChatRequest(
        model=model_of(body),
        messages=joined((*first, *_messages(body.get("input"), loose=loose))),
        sampling=sampling,
        stream=found.flag("stream", always=True),
        usage=True,
        more={} if loose else _more(body),
    )


def teach_responses(body: dict[str, Any], text: str) -> None:
    """Puts lessons to the end of a body's instructions."""
    given = body.get("instructions")
    body["instructions"] = f"{given}\n\n{text}" if given else text


def _messages(value: Any, *, loose: bool) -> list[Message]:
    if isinstance(value, str) and value:
        return [Message(role="user", content=value)]
    if not isinstance(value, list) or not value:
        raise wrong("input", "a text, or a list of one item at least", value)
    found = []
    for i, item in enumerate(value):
        try:
            made = _item(item, f"input[{i}]", loose=loose)
        except Refusal:
            if not loose:
                raise
            continue
        if made is not None:
            found.append(made)
    return found


def _item(item: Any, where: str, *, loose: bool) -> Message | None:
    if not isinstance(item, dict):
        raise wrong(where, "an object", item)
    kind = item.get("type", "message")
    if kind == "message":
        role: Any = _ROLES.get(str(item.get("role")))
        if role is None:
            raise wrong(where, f"an object whose role is one of {', '.join(_ROLES)}", item)
        kinds = (*_TEXTS, "refusal") if role == "assistant" else _TEXTS
        return Message(role=role, content=text_of(_content(item), f"{where}.content", kinds, loose=loose))
    if kind == "function_call":
        call = made_call(item.get("call_id"), item.get("name"), item.get("arguments"), where)
        return Message(role="assistant", content="", tool_calls=(call,))
    if kind == "function_call_output":
        made_by = item.get("call_id")
        if not isinstance(made_by, str):
            raise wrong(f"{where}.call_id", "a text", made_by)
        output = item.get("output")
        said = "" if output in ("", []) else text_of(output, f"{where}.output", _TEXTS, loose=loose)
        return Message(role="tool", content=said, tool_call_id=made_by)
    if kind == "reasoning":
        return None
    raise unsupported(where, f"of type {str(kind)[:40]!r} is not supported here")


def _content(item: Mapping[str, Any]) -> Any:
    """An item's content; a refusal's text is read as text."""
    content = item.get("content")
    if isinstance(content, list):
        return [p | {"text": p["refusal"]} if isinstance(p, dict) and "refusal" in p else p for p in content]
    return content


def _tools(value: Any, *, loose: bool) -> tuple[Mapping[str, Any], ...]:
    found = []
    for i, tool in enumerate(value if isinstance(value, list) else [value] if value else []):
        where = f"tools[{i}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind == "function":
            strict = tool.get("strict")
            found.append(
                function_tool(tool.get("name"), tool.get("description"), tool.get("parameters"), where, strict=strict)
            )
        elif not loose:
            raise unsupported(where, f"of type {str(kind)[:40]!r} is not supported here: only functions are")
    return tuple(found)


def _more(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that not every model takes, in the form of chat completions."""
    more: dict[str, Any] = {}
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") != "function" or not isinstance(choice.get("name"), str):
            raise unsupported("tool_choice", f"of type {str(choice.get('type'))[:40]!r} is not supported here")
        more["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif choice not in (None, "auto"):
        if choice not in ("none", "required"):
            raise wrong("tool_choice", "auto, none, required or a function", choice)
        more["tool_choice"] = choice
    if body.get("parallel_tool_calls") is False:
        more["parallel_tool_calls"] = False
    if (effort := _effort(body.get("reasoning"))) is not None:
        more["reasoning_effort"] = effort
    if (wanted := _format(body.get("text"))) is not None:
        more["response_format"] = wanted
    return more


def _effort(reasoning: Any) -> str | None:
    if reasoning is None:
        return None
    if not isinstance(reasoning, dict):
        raise wrong("reasoning", "an object", reasoning)
    if others := [k for k, v in reasoning.items() if v is not None and k != "effort"]:
        raise unsupported(f"reasoning.{others[0][:80]}")
    effort: str | None = reasoning.get("effort")
    return effort


def _format(text: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    if not isinstance(text, dict):
        raise wrong("text", "an object", text)
    for name, value in text.items():
        if name not in ("format", "verbosity"):
            raise unknown(name, "text")
        if name == "verbosity" and value not in (None, "medium"):
            raise unsupported("text.verbosity")
    wanted = text.get("format") or {"type": "text"}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        return {"type": kind, kind: {k: v for k, v in wanted.items() if k != "type" and v is not None}}
    if kind not in ("text", "json_object"):
        raise wrong("text.format", "of type text, json_object or json_schema", wanted)
    return None if kind == "text" else {"type": kind}


__all__ = ["read_responses", "teach_responses"]
