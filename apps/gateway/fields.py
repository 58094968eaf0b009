"""JSON bodies and their fields, read one by one. What is wrong is refused by name; where another server will judge it
(`loose`), it is left out. No I/O here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verbal.contracts import Sampling
from verbal.types import Message, ToolCall

from .refusal import Refusal

MOST_TOKENS = Sampling().max_tokens
"""Of a reply, where a client sets no limit."""
MOST_STOPS = 16
"""Stop texts of a request."""
_DEAR = ("model", "n", "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens")
"""Fields that decide what a request costs: they are read here as the server behind reads them, or refused."""


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name stands twice: of two, another reader of the same bytes might take the other one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:80]!r} stands twice in an object")
    return found


_READER = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_each_once)
# Escaped: half a surrogate pair, which JSON can hold, has no place in UTF-8.
_WRITER = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a client asks for, whatever its protocol."""

    model: str
    messages: tuple[Message, ...]
    n: int = 1
    sampling: Sampling
    stream: bool = False
    usage: bool = False
    """Whether a stream ends with its usage."""
    token_ids: bool = False
    """Whether token ids are wanted beside log-probabilities (vLLM's `return_token_ids`)."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Fields in OpenAI's form that `Sampling` does not hold, such as `response_format`; not every model takes them."""


def read_body(raw: bytes) -> dict[str, Any]:
    """The object in a body.

    Raises:
        Refusal: it is no JSON object (400).
    """
    try:
        body = _READER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        said = str(error)[:120] or type(error).__name__
        raise Refusal(400, f"the body is not JSON: {said}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is a JSON {type(body).__name__}, not an object", code="invalid_json")
    for name in body:  # some servers read `Model` as `model`
        if name not in _DEAR and len(name) < 24 and (meant := name.casefold()) in _DEAR:
            raise Refusal(400, f"unknown field {name!r}: write {meant!r}", param=name, code="unknown_parameter")
    return body


def write_body(body: Any) -> bytes:
    """JSON, as short as it can be."""
    return _WRITER.encode(body).encode()


def model_of(body: Mapping[str, Any]) -> str:
    """The model that a body names.

    Raises:
        Refusal: it names none (400).
    """
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise wrong("model", "the name of a model (GET /v1/models lists them)", name)
    return name


def wrong(name: str, wanted: str, seen: Any) -> Refusal:
    """The refusal of a field's value."""
    return Refusal(400, f"{name} must be {wanted}, found {str(seen)[:80]!r}", param=name, code="invalid_value")


def unknown(name: str, where: str = "") -> Refusal:
    """The refusal of a field that nobody knows."""
    path = f"{where}.{name[:80]}" if where else name[:80]
    return Refusal(400, f"unknown field {name[:80]!r}", param=path, code="unknown_parameter")


def unsupported(name: str, said: str = "is not supported here; leave it out") -> Refusal:
    """The refusal of a value that cannot be honoured."""
    return Refusal(400, f"{name} {said}", param=name, code="unsupported_value")


def not_neutral(name: str, neutral: Sequence[Any]) -> Refusal:
    """The refusal of a value that would change something."""
    other = f"other than {neutral[0]!r} " if neutral else ""
    return unsupported(name, f"{other}is not supported here; leave it out")


class Fields:
    """The fields of a body.

    Args:
        body: The object.
        loose: A wrong value counts as none.
    """

    def __init__(self, body: Mapping[str, Any], *, loose: bool = False) -> None:
        self.body, self.loose = body, loose

    def flag(self, name: str, *, always: bool = False) -> bool:
        """True or false; false when it is not given. `always`: another value is refused also where others judge."""
        value = self.body.get(name)
        if always and value is not None and not isinstance(value, bool):
            raise wrong(name, "true or false", value)
        return bool(self._checked(name, "true or false", value, value is None or isinstance(value, bool)))

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number in a range."""
        if (value := self.body.get(name)) is None:
            return None
        fine = type(value) is int and low <= value <= high
        found: int | None = self._checked(name, f"a whole number from {low} to {high}", value, fine)
        return found

    def count(self, name: str, high: int) -> int | None:
        """A whole number from 1 on that decides what a request costs: one that nobody could count is always refused.

        Another server may take a number below 1 for no limit: that counts as not given.
        """
        value = self.body.get(name)
        if value is not None and type(value) is not int:
            raise wrong(name, f"a whole number from 1 to {high}", value)
        return self.whole(name, 1, high)

    def real(self, name: str, low: float, high: float) -> float | None:
        """A number in a range."""
        if (value := self.body.get(name)) is None:
            return None
        fine = type(value) in (int, float) and low <= value <= high
        found = self._checked(name, f"a number from {low:g} to {high:g}", value, fine)
        return None if found is None else float(found)

    def stops(self, name: str) -> tuple[str, ...]:
        """Stop texts: one, or a list."""
        if (value := self.body.get(name)) is None:
            return ()
        found = [value] if isinstance(value, str) else value
        fine = isinstance(found, list) and len(found) <= MOST_STOPS and all(isinstance(s, str) and s for s in found)
        return tuple(self._checked(name, f"a text or a list of at most {MOST_STOPS} texts", found, fine) or ())

    def refuse_others(self, read: Sequence[str], neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuses a field that is neither read nor has one of the values that change nothing."""
        for name, value in self.body.items():
            if name in read or value is None:
                continue
            if name not in neutral:
                raise unknown(name)
            if value not in neutral[name]:
                raise not_neutral(name, neutral[name])

    def _checked(self, name: str, wanted: str, value: Any, fine: bool) -> Any:
        if fine:
            return value
        if self.loose:
            return None
        raise wrong(name, wanted, value)


def text_of(content: Any, where: str, kinds: Sequence[str], *, loose: bool) -> str:
    """The text of a message: itself, or the texts of its parts; one of another kind (an image) is refused, or named.

    Raises:
        Refusal: no text, or a part that is none (400).
    """
    if isinstance(content, str):
        return content
    parts: list[Any] = content if isinstance(content, list) and content else [None]
    found = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in kinds and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif loose and kind:
            found.append(f"[{kind}]")
        elif not loose:
            raise wrong(where, f"a text, or a list of parts of type {' or '.join(kinds)}", content)
    return "".join(found)


def with_lessons(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """A conversation with lessons at the end of its system message, which they get if there is none."""
    for i, message in enumerate(messages):
        if message.role == "system":
            taught = message.replace(content=f"{message.content}\n\n{text}")
            return (*messages[:i], taught, *messages[i + 1 :])
    return (Message(role="system", content=text), *messages)


def joined(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages whose neighbouring turns of the assistant are one: calls stand in the message that they belong to."""
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        if message.role == "assistant" and last is not None and last.role == "assistant":
            text = "\n\n".join(t for t in (last.content, message.content) if t)
            found[-1] = last.replace(content=text, tool_calls=(*last.tool_calls, *message.tool_calls))
        else:
            found.append(message)
    return tuple(found)


def function_tool(name: Any, described: Any, schema: Any, where: str, **more: Any) -> dict[str, Any]:
    """A tool in OpenAI's function form.

    Raises:
        Refusal: it has no name, or its schema is no object (400).
    """
    if not isinstance(name, str) or not name or not isinstance(schema, dict | None):
        raise wrong(where, "a function with a name and a schema", name)
    function = {"name": name, "description": described, "parameters": schema, **more}
    return {"type": "function", "function": {k: v for k, v in function.items() if v is not None}}


def made_call(id: Any, name: Any, arguments: Any, where: str) -> ToolCall:
    """A call that an assistant made earlier.

    Raises:
        Refusal: it has no name, or its arguments are no text (400).
    """
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise wrong(where, "a call with a name and arguments", name)
    return ToolCall(id=str(id or ""), name=name, arguments=arguments)


__all__ = [
    "MOST_STOPS", "MOST_TOKENS", "ChatRequest", "Fields", "function_tool", "joined", "made_call", "model_of",
    "not_neutral", "read_body", "text_of", "unknown", "unsupported", "with_lessons", "write_body", "wrong",
]  # fmt: skip
