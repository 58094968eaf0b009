"""OpenAI's chat completions as data: messages and sampling out, replies and stream events in. No I/O here.

One reader serves the `http`, `openai` and `litellm` adapters, so that a malformed answer is treated alike everywhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ModelError, TransientError
from verbal.models._faults import clip, error_message, malformed, stream_fault
from verbal.types import Message, ToolCall, Usage

# Why a reply ended (`Reply.finish`).
Finish = Literal["stop", "length", "tool_calls", "content_filter", "error"]
_log = logging.getLogger("verbal.models")
_FINISH: dict[str, Finish] = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "complete": "stop",
    "pause_turn": "stop", "length": "length", "max_tokens": "length", "model_length": "length",
    "model_context_window_exceeded": "length", "tool_calls": "tool_calls", "function_call": "tool_calls",
    "tool_use": "tool_calls", "content_filter": "content_filter", "refusal": "content_filter",
    "safety": "content_filter",
}  # fmt: skip
_OPTIONAL = ("temperature", "top_p", "seed", "logprobs", "return_token_ids")
_REFUSES = re.compile(
    r"(?i)unsupported|not support|unknown|unrecognized|unexpected|not permitted|deprecated|extra inputs"
)


@runtime_checkable
class StreamsReply(Protocol):
    """A model whose stream also tells usage and finish: pieces of text, then the whole Reply as the last item."""

    def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> Any:
        """Pieces (str) as they come, then one Reply."""
        ...


def read_finish(reason: Any, tool_calls: Sequence[ToolCall] = ()) -> Finish:
    """Why a reply ended, in the house's words; a reason nobody knows is `error`."""
    if reason is None:
        return "tool_calls" if tool_calls else "stop"
    return _FINISH.get(str(reason).lower(), "error")


def write_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in OpenAI's form, tool calls and tool results included."""
    return [_write_message(m) for m in messages]


def _write_message(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        data["content"] = message.content or None
        data["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        data["tool_call_id"] = message.tool_call_id
    return data


class Dialect:
    """What one server takes: it starts with everything and drops an optional parameter that the server refuses.

    Args:
        max_tokens: Name of the parameter that limits the reply.
        token_ids: Ask for token ids beside log-probabilities (vLLM's `return_token_ids`).
    """

    def __init__(self, *, max_tokens: str = "max_tokens", token_ids: bool = False) -> None:
        self.max_tokens = max_tokens
        self.dropped: set[str] = set() if token_ids else {"return_token_ids"}

    def request(self, model: str, messages: Sequence[Message], n: int, sampling: Sampling) -> dict[str, Any]:
        """The request body: only what is set and not refused before."""
        wanted = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "logprobs": sampling.logprobs or None,
            "return_token_ids": sampling.logprobs or None,
            "stop": list(sampling.stop) or None,
            "tools": [dict(t) for t in sampling.tools] or None,
            "n": n if n > 1 else None,
        }
        body = {"model": model, "messages": write_messages(messages), self.max_tokens: sampling.max_tokens}
        return body | {k: v for k, v in wanted.items() if v is not None and k not in self.dropped}

    def learn(self, error: ModelError, body: Any, sent: Mapping[str, Any]) -> ModelError:
        """`error`, or a TransientError when the server refused a parameter that is from now on left out."""
        message = error_message(body) or error.what
        detail = body.get("error", body) if isinstance(body, Mapping) else {}
        param = detail.get("param") if isinstance(detail, Mapping) else None
        if isinstance(error, TransientError) or not (_REFUSES.search(message) or "unsupported" in str(detail)):
            return error
        named = [p for p in (*_OPTIONAL, self.max_tokens) if p == param or re.search(rf"\b{p}\b", message)]
        refused = next((p for p in named if p in sent), None)
        if refused is None:
            return error
        if refused == self.max_tokens:
            if self.max_tokens == "max_completion_tokens" or "max_completion_tokens" not in message:
                return error
            self.max_tokens = "max_completion_tokens"
        self.dropped.add(refused)
        _log.warning("%s: the server refuses %r; it is left out from now on", error.where, refused)
        return TransientError(f"the server refuses {refused!r}: {clip(message, 160)}", where=error.where, todo="again")


def read_replies(body: Any, *, name: str, where: str) -> list[Reply]:
    """The replies of a completion body (parsed JSON), in order of their index.

    Prompt tokens stand on the first reply; completion tokens are split over the replies by length of text when there
    are several, because servers report only their sum.

    Raises:
        TransientError: the body is not a completion.
        ModelError: the body is an error object.
    """
    if not isinstance(body, Mapping):
        raise malformed("the answer is not a JSON object", body, where=where)
    choices = body.get("choices")
    if not isinstance(choices, Sequence) or not choices or not all(isinstance(c, Mapping) for c in choices):
        if body.get("error"):
            raise ModelError(f"the server reports: {clip(error_message(body))}", where=where, todo="see its log")
        raise malformed("the answer has no choices", body, where=where)
    prompt, completion = read_usage(body.get("usage"))
    if len(choices) == 1:
        used = Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, cost=None)
        return [_read_choice(choices[0], name, where, used)]
    ordered = sorted(choices, key=lambda c: c["index"] if isinstance(c.get("index"), int) else 0)
    replies = [_read_choice(c, name, where, Usage()) for c in ordered]
    return [
        replace(r, usage=Usage(calls=int(i == 0), prompt_tokens=prompt * (i == 0), completion_tokens=share, cost=None))
        for i, (r, share) in enumerate(zip(replies, split_tokens(completion, replies), strict=True))
    ]


def read_usage(usage: Any) -> tuple[int, int]:
    """Prompt and completion tokens of a usage object; zeros when it is missing or malformed."""
    found = usage if isinstance(usage, Mapping) else {}
    pair = [found.get(k) for k in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (v if isinstance(v, int) and v >= 0 else 0 for v in pair)
    return prompt, completion


def split_tokens(total: int, replies: Sequence[Reply]) -> list[int]:
    """`total` split over the replies in proportion to their length; the parts add up to it."""
    weights = [len(r.token_ids or r.logprobs or ()) or len(r.text) + 1 for r in replies]
    parts, used, seen = [], 0, 0
    for weight in weights:
        seen += weight
        parts.append(total * seen // sum(weights) - used)
        used += parts[-1]
    return parts


def _read_choice(choice: Mapping[str, Any], name: str, where: str, usage: Usage) -> Reply:
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise malformed("a choice of the answer has no message", choice, where=where)
    calls = read_tool_calls(message.get("tool_calls"), where)
    logprobs, token_ids = _read_tokens(choice)
    return Reply(
        text=_read_content(message, where),
        finish=read_finish(choice.get("finish_reason"), calls),
        usage=usage,
        model=name,
        tool_calls=calls,
        token_ids=token_ids,
        logprobs=logprobs,
    )


def _read_content(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content")
    if content is None:
        return str(message.get("refusal") or "")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(p, Mapping) for p in content):
        return "".join(str(p.get("text") or "") for p in content)
    raise malformed("the content of the answer is not text", content, where=where)


def read_tool_calls(calls: Any, where: str) -> tuple[ToolCall, ...]:
    """The tool calls of a message; arguments stay the text the model wrote."""
    found = []
    if calls and not isinstance(calls, Sequence):
        raise malformed("the tool calls of the answer are no list", calls, where=where)
    for i, call in enumerate(calls or ()):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise malformed("a tool call of the answer has no function", call, where=where)
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
        found.append(ToolCall(id=str(call.get("id") or f"call_{i}"), name=function["name"], arguments=text))
    return tuple(found)


def _read_tokens(choice: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[int, ...] | None]:
    """Log-probabilities and token ids, each None unless the server gave them whole; never invented."""
    if choice.get("logprobs") is None and choice.get("token_ids") is None:
        return None, None
    holder = choice.get("logprobs")
    content = holder.get("content") if isinstance(holder, Mapping) else None
    entries = [e for e in content if isinstance(e, Mapping)] if isinstance(content, list) else []
    numbers = [e.get("logprob") for e in entries]
    logprobs = tuple(float(v) for v in numbers if isinstance(v, int | float))
    given = choice.get("token_ids")
    if not isinstance(given, list):
        names = [re.fullmatch(r"token_id:(\d+)", str(e.get("token"))) for e in entries]
        given = [int(m.group(1)) for m in names if m] if entries and all(names) else []
    ids = tuple(i for i in given if isinstance(i, int))
    whole = bool(numbers) and len(logprobs) == len(numbers) and (not ids or len(ids) == len(logprobs))
    return (logprobs if whole else None), (ids or None)


class StreamedReply:
    """Builds one Reply from the chunks of an OpenAI stream."""

    def __init__(self, *, name: str, where: str) -> None:
        self._name, self._where = name, where
        self._pieces: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Any = None
        self._finish: Any = None
        self._chunks = 0

    def add(self, chunk: Any) -> str:
        """The text this chunk (parsed JSON) adds, perhaps empty.

        Raises:
            TransientError: it is not a chunk of a completion.
        """
        try:
            return self._add(chunk)
        except (AttributeError, TypeError, ValueError, KeyError, IndexError):
            raise malformed("a piece of the stream cannot be read", chunk, where=self._where) from None

    def _add(self, chunk: Any) -> str:
        self._chunks += 1
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices") or ()
        if not choices or not isinstance(choices[0], Mapping):
            return ""
        self._finish = choices[0].get("finish_reason") or self._finish
        delta = choices[0].get("delta") or {}
        for call in delta.get("tool_calls") or ():
            part = self._calls.setdefault(int(call.get("index") or 0), {"id": "", "name": "", "arguments": ""})
            function = call.get("function") or {}
            part["id"] = str(call.get("id") or part["id"])
            part["name"] = str(function.get("name") or part["name"])
            part["arguments"] += function.get("arguments") or ""
        piece = delta.get("content") or ""
        if not isinstance(piece, str):
            raise malformed("a piece of the stream is not text", piece, where=self._where)
        self._pieces.append(piece)
        return piece

    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            TransientError: the stream ended before the model said that it was done.
        """
        if self._finish is None:
            what = f"the stream ended early, after {self._chunks} pieces"
            raise malformed(what, "".join(self._pieces)[-80:], where=self._where)
        calls = tuple(
            ToolCall(id=c["id"] or f"call_{i}", name=c["name"], arguments=c["arguments"] or "{}")
            for i, c in sorted(self._calls.items())
        )
        prompt, completion = read_usage(self._usage)
        usage = Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, cost=None)
        finish = read_finish(self._finish)
        return Reply(text="".join(self._pieces), finish=finish, usage=usage, model=self._name, tool_calls=calls)


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The data of each server-sent event of a byte stream; comments and other fields are skipped."""
    buffer, data = b"", list[str]()
    async for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for raw in lines:
            line = raw.rstrip(b"\r").decode("utf-8", "replace")
            if not line and data:
                yield "\n".join(data)
                data = []
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
    if buffer.startswith(b"data:"):
        data.append(buffer[5:].decode("utf-8", "replace").strip())
    if data:
        yield "\n".join(data)


def parse_json(text: str, where: str) -> Any:
    """`text` as JSON.

    Raises:
        TransientError: it is not.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise malformed("the answer is not JSON", text, where=where) from None


async def read_stream(
    chunks: AsyncIterator[bytes], *, name: str, where: str, key: str = ""
) -> AsyncIterator[str | Reply]:
    """Pieces of text of an OpenAI event stream, then the whole reply.

    Raises:
        ModelError: the stream reports an error. TransientError: it is malformed or ends early.
    """
    streamed = StreamedReply(name=name, where=where)
    async for data in read_events(chunks):
        if data == "[DONE]":
            break
        chunk = parse_json(data, where)
        if isinstance(chunk, Mapping) and chunk.get("error"):
            raise stream_fault(chunk, where=where, key=key)
        if piece := streamed.add(chunk):
            yield piece
    yield streamed.reply()


async def together(calls: Sequence[Coroutine[Any, Any, list[Reply]]]) -> list[Reply]:
    """The replies of all calls, in order; the first failure cancels the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(c) for c in calls]
    try:
        return [reply for replies in await asyncio.gather(*tasks) for reply in replies]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def with_seed(sampling: Sampling, index: int) -> Sampling:
    """The sampling of the sample `index`: its own seed, when a seed is set."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + index)


def check_url(url: str, *, where: str) -> str:
    """`url` without its closing slash.

    Raises:
        ConfigError: not an http(s) URL, or credentials stand in it.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ConfigError("the URL holds credentials", where=where, todo="put the key into an environment variable")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"not an http(s) URL: {clip(url, 120)!r}", where=where, todo="write http://HOST:PORT/v1")
    return url.rstrip("/")
