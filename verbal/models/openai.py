"""OpenAI's chat completions through its own SDK (version 2 or 3). One attempt a call; the SDK's retries are off.

The SDK carries the request; the body is read here, by the reader all OpenAI-compatible adapters share.
"""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ModelError, RefusedError, TransientError
from verbal.models._check import listed, unreachable
from verbal.models._faults import clip
from verbal.models._sdk import LoopBound, read_key, translated
from verbal.models._wire import Dialect, check_url, parse_json, read_replies, read_stream, together, with_seed
from verbal.types import Message

if TYPE_CHECKING:
    import openai

_KEY = "OPENAI_API_KEY"


class OpenAIModel:
    """A model of OpenAI, or of a server at OPENAI_BASE_URL. The key is read from OPENAI_API_KEY.

    Args:
        model: Name of the model.
        url: Address of the API; the environment's or OpenAI's own when None.
        timeout: Seconds for one attempt; `ModelCalls` usually stops it earlier.
        extra: More fields of every request, such as `{"reasoning_effort": "low"}`.

    Raises:
        ConfigError: not a URL, or credentials stand in it.
    """

    def __init__(
        self, model: str, *, url: str | None = None, timeout: float = 600.0, extra: Mapping[str, Any] | None = None
    ) -> None:
        self.name = f"openai/{model}"
        self.model = model
        self.url = check_url(
            url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1", where=f"model {self.name}"
        )
        self.one_per_call = False
        self._timeout = timeout
        self._extra = dict(extra or {})
        # Newer models refuse max_tokens; other servers may know nothing else.
        newer = (urlsplit(self.url).hostname or "").endswith("openai.com")
        self._dialect = Dialect(max_tokens="max_completion_tokens" if newer else "max_tokens")
        self._client: LoopBound[openai.AsyncOpenAI] = LoopBound(self._open)
        self._where = f"{self.name} at {self.url}"

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model!r}, url={self.url!r})"

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies; when the server gives fewer than asked, single calls with seeds of their own make up for it."""
        replies = (await self._complete(messages, 1 if self.one_per_call else n, sampling))[:n]
        if len(replies) < n:
            self.one_per_call = True
            rest = [self._complete(messages, 1, with_seed(sampling, i)) for i in range(len(replies), n)]
            replies += await together(rest)
        return replies

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come."""
        async for piece in self.stream_reply(messages, sampling):
            if isinstance(piece, str):
                yield piece

    async def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str | Reply]:
        """Pieces of one reply as they come, then the whole reply with its usage."""
        sent = self._dialect.request(self.model, messages, 1, sampling)
        sent |= {"stream": True, "stream_options": {"include_usage": True}}
        with translated(self._where, _KEY, dialect=self._dialect, sent=sent):
            completions = self._client.get().chat.completions.with_streaming_response
            async with completions.create(**sent, extra_body=self._extra or None) as response:
                chunks = response.iter_bytes()
                async for piece in read_stream(chunks, name=self.name, where=self._where, key=_KEY):
                    yield piece

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
        named = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
        more = {name: os.environ[variable] for name, variable in named.items() if os.environ.get(variable)}
        return {"Authorization": f"Bearer {read_key(_KEY, name=self.name)}", **more}

    async def check(self) -> str:
        """One line that says the key works and the model exists.

        Raises:
            ConfigError: key missing or refused, or no such model (names the nearest).
            ModelError: the server cannot be reached.
        """
        client = self._client.get().with_options(timeout=min(10.0, self._timeout))
        try:
            with translated(self._where, _KEY):
                page = await client.models.list()
                names = [str(m.id) for m in page.data or ()]
        except RefusedError as error:
            raise ConfigError(error.what, where=error.where, todo=error.todo) from None
        except TransientError as error:
            raise unreachable(self._where, error) from None
        return listed(self.model, names, where=self._where)

    async def aclose(self) -> None:
        """Closes the connections."""
        if client := self._client.take():
            await client.close()

    async def _complete(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        sent = self._dialect.request(self.model, messages, n, sampling)
        with translated(self._where, _KEY, dialect=self._dialect, sent=sent):
            completions = self._client.get().chat.completions.with_raw_response
            raw = await completions.create(**sent, extra_body=self._extra or None)
            text = raw.http_response.text
        if text.lstrip()[:1] == "<":
            what = f"the server answered with a page, not with JSON: {clip(text, 120)}"
            raise ModelError(what, where=self._where, todo="check OPENAI_BASE_URL: it usually ends in /v1")
        return read_replies(parse_json(text, self._where), name=self.name, where=self._where)

    def _open(self) -> openai.AsyncOpenAI:
        import openai

        key = read_key(_KEY, name=self.name)
        return openai.AsyncOpenAI(api_key=key, base_url=self.url, timeout=self._timeout, max_retries=0)


__all__ = ["OpenAIModel"]
