"""Anthropic's messages through its own SDK (version 1 or 2). One attempt a call; the SDK's retries are off.

The protocol has no `n` (each reply is a call of its own) and no seed (a `Sampling.seed` is not sent), and gives no
log-probabilities.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ModelError, RefusedError, TransientError
from verbal.models._check import listed, unreachable
from verbal.models._faults import clip, error_message, malformed, stream_fault
from verbal.models._sdk import LoopBound, read_key, translated
from verbal.models._wire import Dialect, check_url, parse_json, read_events, read_finish, together
from verbal.types import Message, ToolCall, Usage

if TYPE_CHECKING:
    import anthropic

_KEY = "ANTHROPIC_API_KEY"


class AnthropicModel:
    """A model of Anthropic, or of a server at ANTHROPIC_BASE_URL. The key is read from ANTHROPIC_API_KEY.

    Args:
        model: Name of the model.
        url: Address of the API without `/v1`; the environment's or Anthropic's own when None.
        timeout: Seconds for one attempt; `ModelCalls` usually stops it earlier.
        extra: More fields of every request, such as `{"thinking": {...}}`.

    Raises:
        ConfigError: not a URL, or credentials stand in it.
    """

    one_per_call = True

    def __init__(
        self, model: str, *, url: str | None = None, timeout: float = 600.0, extra: Mapping[str, Any] | None = None
    ) -> None:
        self.name = f"anthropic/{model}"
        self.model = model
        self.url = check_url(
            url or os.environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com", where=f"model {self.name}"
        )
        self._timeout = timeout
        self._extra = dict(extra or {})
        self._dialect = Dialect()
        self._client: LoopBound[anthropic.AsyncAnthropic] = LoopBound(self._open)
        self._where = f"{self.name} at {self.url}"

    def __repr__(self) -> str:
        return f"AnthropicModel({self.model!r}, url={self.url!r})"

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies, by as many calls side by side."""
        return await together([self._complete(messages, sampling) for _ in range(n)])

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come."""
        async for piece in self.stream_reply(messages, sampling):
            if isinstance(piece, str):
                yield piece

    async def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str | Reply]:
        """Pieces of one reply as they come, then the whole reply with its usage."""
        sent, more = self._request(messages, sampling)
        with translated(self._where, _KEY, dialect=self._dialect, sent=more):
            create = self._client.get().messages.with_streaming_response.create
            async with create(**sent, stream=True, extra_body=more) as response:
                streamed = StreamedMessage()
                async for data in read_events(response.iter_bytes()):
                    event = parse_json(data, self._where)
                    if not isinstance(event, Mapping):
                        raise malformed("an event of the stream is not a JSON object", event, where=self._where)
                    if event.get("type") == "error":
                        raise stream_fault(event, where=self._where, key=_KEY)
                    try:
                        piece = streamed.add(event)
                    except (AttributeError, TypeError, ValueError):
                        raise malformed("an event of the stream cannot be read", event, where=self._where) from None
                    if piece:
                        yield piece
                    if event.get("type") == "message_stop":
                        break
        yield read_message(streamed.message(self._where), name=self.name, where=self._where)

    def also(self, fields: Mapping[str, Any]) -> Self:
        """The same model with more fields in every request; connections are shared."""
        view = copy.copy(self)
        view._extra = self._extra | dict(fields)
        return view

    def headers(self) -> dict[str, str]:
        """What lets a request in.

        Raises:
            ConfigError: the key is not set.
        """
        return {"x-api-key": read_key(_KEY, name=self.name)}

    async def check(self) -> str:
        """One line that says the key works and the model exists.

        Raises:
            ConfigError: key missing or refused, or no such model (names the nearest).
            ModelError: the server cannot be reached.
        """
        client = self._client.get().with_options(timeout=min(10.0, self._timeout))
        try:
            try:
                with translated(self._where, _KEY):
                    await client.models.retrieve(self.model)
                return f"{self._where}: ready"
            except RefusedError as error:
                if " 404" not in error.what:
                    raise ConfigError(error.what, where=error.where, todo=error.todo) from None
            with translated(self._where, _KEY):
                page = await client.models.list(limit=1000)
        except TransientError as error:
            raise unreachable(self._where, error) from None
        return listed(self.model, [str(m.id) for m in page.data or ()], where=self._where)

    async def aclose(self) -> None:
        """Closes the connections."""
        if client := self._client.take():
            await client.close()

    async def _complete(self, messages: Sequence[Message], sampling: Sampling) -> list[Reply]:
        sent, more = self._request(messages, sampling)
        with translated(self._where, _KEY, dialect=self._dialect, sent=more):
            raw = await self._client.get().messages.with_raw_response.create(**sent, extra_body=more)
            text = raw.http_response.text
        if text.lstrip()[:1] == "<":
            what = f"the server answered with a page, not with JSON: {clip(text, 120)}"
            raise ModelError(what, where=self._where, todo="check ANTHROPIC_BASE_URL")
        return [read_message(parse_json(text, self._where), name=self.name, where=self._where)]

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the SDK, and the rest of the body (the SDK's versions differ in what they name)."""
        system = "\n\n".join(m.content for m in messages if m.role == "system" and m.content)
        sent: dict[str, Any] = {
            "model": self.model,
            "max_tokens": sampling.max_tokens,
            "messages": write_turns(messages),
        }
        if system:
            sent["system"] = system
        if sampling.stop:
            sent["stop_sequences"] = list(sampling.stop)
        if sampling.tools:
            sent["tools"] = [write_tool(t) for t in sampling.tools]
        numbers = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        more = {k: v for k, v in numbers.items() if v is not None and k not in self._dialect.dropped}
        return sent, more | self._extra

    def _open(self) -> anthropic.AsyncAnthropic:
        import anthropic

        key = read_key(_KEY, name=self.name)
        return anthropic.AsyncAnthropic(api_key=key, base_url=self.url, timeout=self._timeout, max_retries=0)


def write_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in Anthropic's form: no system messages, tool results inside user turns, neighbours of a role merged."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system" or not (blocks := _write_blocks(message)):
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _write_blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id or "", "content": message.content}]
    # An empty text block is an error to the API.
    blocks: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content.strip() else []
    for call in message.tool_calls:
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
        # The API takes objects only; what the model wrote is kept under one name.
        arguments = arguments if isinstance(arguments, dict) else {"arguments": call.arguments}
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments})
    return blocks


def write_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool definition of OpenAI's function form in Anthropic's form.

    Raises:
        ConfigError: it is not of that form.
    """
    function = tool.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise ConfigError(f"not a tool definition: {clip(str(dict(tool)), 120)}", todo="use OpenAI's function form")
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    described = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], "input_schema": schema, **described}


def read_message(body: Any, *, name: str, where: str) -> Reply:
    """The reply of a message body (parsed JSON).

    Raises:
        TransientError: it is not a message. ModelError: it is an error object.
    """
    content = body.get("content") if isinstance(body, Mapping) else None
    if isinstance(body, Mapping) and content is None and body.get("error"):
        raise ModelError(f"the server reports: {clip(error_message(body))}", where=where, todo="see its log")
    if not isinstance(content, list) or not all(isinstance(b, Mapping) for b in content):
        raise malformed("the answer is not a message", body, where=where)
    calls = tuple(
        ToolCall(id=str(b.get("id")), name=str(b.get("name")), arguments=_arguments(b.get("input")))
        for b in content
        if b.get("type") == "tool_use"
    )
    usage = body.get("usage") if isinstance(body.get("usage"), Mapping) else {}
    counted = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    prompt = sum(v for k in counted if isinstance(v := usage.get(k), int))
    completion = v if isinstance(v := usage.get("output_tokens"), int) else 0
    return Reply(
        text="".join(str(b.get("text") or "") for b in content if b.get("type") == "text"),
        finish=read_finish(body.get("stop_reason"), calls),
        usage=Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, cost=None),
        model=name,
        tool_calls=calls,
    )


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps({} if value is None else value, ensure_ascii=False)


class StreamedMessage:
    """Builds one message body from the events of a stream."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self._stop: Any = None

    def add(self, event: Mapping[str, Any]) -> str:
        """The text this event adds, perhaps empty."""
        kind, index = event.get("type"), event.get("index", 0)
        if kind == "message_start":
            self._usage |= (event.get("message") or {}).get("usage") or {}
        elif kind == "content_block_start":
            block = dict(event.get("content_block") or {})
            self._blocks[index] = block | ({"input": ""} if block.get("type") == "tool_use" else {})
            return str(block.get("text") or "")
        elif kind == "content_block_delta":
            delta, block = event.get("delta") or {}, self._blocks.setdefault(index, {"type": "text"})
            if delta.get("type") == "text_delta":
                block["text"] = (block.get("text") or "") + str(delta.get("text") or "")
                return str(delta.get("text") or "")
            if delta.get("type") == "input_json_delta":
                block["input"] = str(block.get("input") or "") + str(delta.get("partial_json") or "")
        elif kind == "message_delta":
            self._stop = (event.get("delta") or {}).get("stop_reason") or self._stop
            self._usage |= {k: v for k, v in (event.get("usage") or {}).items() if v is not None}
        return ""

    def message(self, where: str) -> dict[str, Any]:
        """The whole message.

        Raises:
            TransientError: the stream ended before the model said that it was done.
        """
        if self._stop is None:
            raise malformed("the stream ended early", [*self._blocks.values()][-1:], where=where)
        blocks = [b | ({"input": b["input"] or "{}"} if "input" in b else {}) for _, b in sorted(self._blocks.items())]
        return {"content": blocks, "stop_reason": self._stop, "usage": self._usage}


__all__ = ["AnthropicModel", "StreamedMessage", "read_message", "write_tool", "write_turns"]
