"""Any OpenAI-compatible server over aiohttp: vLLM, Ollama, llama.cpp, SGLang, gateways. The fast path.

One attempt a call; retry, limits and cost live in `ModelCalls`. A key, if the server wants one, is read from the
environment at the call and goes into one header.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ModelError, TransientError
from verbal.models._check import answer_of_list, unreachable
from verbal.models._faults import clip, error_code, error_message, fault
from verbal.models._sdk import LoopBound
from verbal.models._wire import Dialect, check_url, parse_json, read_replies, read_stream, together, with_seed
from verbal.types import Message

if TYPE_CHECKING:
    import aiohttp

_LARGEST = 64 * 2**20
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class HttpModel:
    """A model behind an OpenAI-compatible URL.

    Args:
        model: Name of the model on the server.
        url: Address of the API, such as `http://127.0.0.1:8000/v1`.
        timeout: Seconds for one attempt (for a stream: between two pieces); `ModelCalls` usually stops it earlier.
        key_variable: Environment variable that holds the key; the default one may be unset (no key is sent then).
        token_ids: With `Sampling.logprobs`, ask for token ids too (vLLM).
        max_tokens_field: Name of the parameter that limits a reply.
        extra: More fields of every request, such as `{"reasoning_effort": "low"}`.

    Raises:
        ConfigError: not a URL, or credentials stand in it.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        timeout: float = 600.0,
        key_variable: str = "VERBAL_HTTP_KEY",
        token_ids: bool = True,
        max_tokens_field: str = "max_tokens",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = f"http/{model}"
        self.model = model
        self.url = check_url(url, where=self.name)
        self.local = urlsplit(self.url).hostname in _LOCAL
        self.one_per_call = False
        self._timeout = timeout
        self._key_variable = key_variable
        self._extra = dict(extra or {})
        self._dialect = Dialect(max_tokens=max_tokens_field, token_ids=token_ids)
        self._session: LoopBound[aiohttp.ClientSession] = LoopBound(self._open)
        self._where = f"{self.name} at {self.url}"

    def __repr__(self) -> str:
        return f"HttpModel({self.model!r}, {self.url!r})"

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies; when the server gives fewer than asked, single calls with seeds of their own make up for it."""
        asked = 1 if self.one_per_call else n
        replies = (await self._complete(messages, asked, with_seed(sampling, 0)))[:n]
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
        body = self._request(messages, 1, sampling) | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._post(body, streaming=True) as response:
            if "text/event-stream" not in response.content_type:
                # Servers without streaming answer with one JSON body.
                reply = self._read(await _read_body(response, self._where), response)[0]
                yield reply.text
                yield reply
                return
            chunks = response.content.iter_any()
            async for piece in read_stream(chunks, name=self.name, where=self._where, key=self._key_variable):
                yield piece

    def also(self, fields: Mapping[str, Any]) -> Self:
        """The same model with more fields in every request; connections are shared."""
        view = copy.copy(self)
        view._extra = self._extra | dict(fields)
        return view

    def headers(self) -> dict[str, str]:
        """What lets a request in: the key, where the environment has one."""
        key = os.environ.get(self._key_variable, "")
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def check(self) -> str:
        """One line that says the server answers and has the model.

        Raises:
            ConfigError: key missing or refused, or the server lists no such model (names the nearest).
            ModelError: the server cannot be reached.
        """
        if self._key_variable != "VERBAL_HTTP_KEY" and not os.environ.get(self._key_variable):
            raise ConfigError(f"{self._key_variable} is not set", where=self.name, todo="export it, then try again")
        import aiohttp

        try:
            limit = aiohttp.ClientTimeout(total=min(10.0, self._timeout))
            async with self._session.get().get(f"{self.url}/models", headers=self.headers(), timeout=limit) as response:
                text = await _read_body(response, self._where)
                if response.status in (401, 403):
                    what = f"the server refuses the key ({response.status}): {clip(error_message(text), 120)}"
                    raise ConfigError(what, where=self._where, todo=f"check the key in {self._key_variable}")
                return answer_of_list(response.status, text, self.model, where=self._where)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(self._where, error) from None

    async def aclose(self) -> None:
        """Closes the connections."""
        if session := self._session.take():
            await session.close()

    async def _complete(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        async with self._post(self._request(messages, n, sampling)) as response:
            return self._read(await _read_body(response, self._where), response)

    def _request(self, messages: Sequence[Message], n: int, sampling: Sampling) -> dict[str, Any]:
        return self._dialect.request(self.model, messages, n, sampling) | self._extra

    def _read(self, body: bytes, response: aiohttp.ClientResponse) -> list[Reply]:
        text = body.decode("utf-8", "replace")
        if "html" in response.content_type or text.lstrip()[:1] == "<":
            what = f"the server answered with a page, not with JSON: {clip(text, 120)}"
            raise ModelError(what, where=self._where, todo="check the URL: it usually ends in /v1")
        return read_replies(parse_json(text, self._where), name=self.name, where=self._where)

    @asynccontextmanager
    async def _post(self, body: dict[str, Any], *, streaming: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp

        total, gap = (None, self._timeout) if streaming else (self._timeout, None)
        limit = aiohttp.ClientTimeout(total=total, sock_read=gap, sock_connect=min(20.0, self._timeout))
        url = f"{self.url}/chat/completions"
        try:
            async with self._session.get().post(url, json=body, headers=self.headers(), timeout=limit) as response:
                if response.status != 200:
                    raise self._refused(response, await _read_body(response, self._where), body)
                yield response
        except TimeoutError:
            what = f"no answer within {self._timeout:g} s"
            late = TransientError(what, where=self._where, todo="raise the time-out, or ask for shorter replies")
            late.abandoned = True
            raise late from None
        except (aiohttp.ClientError, OSError) as error:
            what = f"the connection failed: {type(error).__name__}: {clip(str(error))}"
            lost = TransientError(what, where=self._where, todo="check that the server runs")
            lost.abandoned = not isinstance(error, aiohttp.ClientConnectorError)  # it got the request, and may bill it
            raise lost from None

    def _refused(self, response: aiohttp.ClientResponse, raw: bytes, sent: Mapping[str, Any]) -> ModelError:
        text = raw.decode("utf-8", "replace")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = text
        error = fault(
            response.status, error_message(body), where=self._where, headers=response.headers, code=error_code(body),
            key=self._key_variable,
        )  # fmt: skip
        return self._dialect.learn(error, body, sent)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        # The number of connections is ModelCalls' business.
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=not self.local)


async def _read_body(response: aiohttp.ClientResponse, where: str) -> bytes:
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST:
            raise ModelError(f"the answer is longer than {_LARGEST >> 20} MB", where=where, todo="check the server")
    return b"".join(pieces)


__all__ = ["HttpModel"]
