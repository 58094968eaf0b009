"""Bodies sent to other servers as they came, over kept connections, and their answers read piece by piece."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from verbal.contracts import Model
from verbal.models._faults import clip, error_message, redact
from verbal.models.anthropic import AnthropicModel
from verbal.models.http import HttpModel
from verbal.models.openai import OpenAIModel

from .fields import read_body, write_body
from .refusal import Refusal, lost

_LARGEST = 64 * 2**20
"""Bytes of an answer, and of one event of a stream."""
_CONNECTING = 10.0
_KEPT = 15.0
"""Seconds that a connection is kept for the next request."""
_SPOKEN = ("anthropic-version", "anthropic-beta", "openai-beta")
"""Headers of a client that are part of the protocol; no other one is passed on."""
_TOLD = ("content-type", "retry-after", "retry-after-ms", "x-should-retry", "x-request-id", "request-id")
_TOLD_FAMILIES = ("x-ratelimit-", "anthropic-ratelimit-")
"""Headers of an answer that are passed on."""
_BLANK = re.compile(rb"\n\r?\n")
_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*"|)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Where bodies of a protocol are sent as they are."""

    urls: Mapping[str, URL]
    """Path below `/v1` -> address."""
    headers: Mapping[str, str] = field(repr=False)
    """With its key."""
    model: str
    """What the server calls the model; `*` for the name that the client gave."""
    proxy: str | None = None


def wire_of(model: Model) -> Wire | None:
    """The wire to a model, if it stands behind a server that speaks a protocol of ours.

    Raises:
        ConfigError: its key is not set.
    """
    paths: tuple[str, ...]
    if isinstance(model, AnthropicModel):
        paths, base = ("messages", "messages/count_tokens"), f"{model.url}/v1"
    elif isinstance(model, OpenAIModel):
        paths, base = ("chat/completions", "responses"), model.url
    elif isinstance(model, HttpModel):
        paths, base = ("chat/completions",), model.url
    else:
        return None
    urls = {path: URL(f"{base}/{path}") for path in paths}
    # No compression: an answer is read while it is passed on.
    headers = {**model.headers(), "Content-Type": "application/json", "Accept-Encoding": "identity"}
    return Wire(urls=urls, headers=headers, model=model.model, proxy=_proxy(base, local=getattr(model, "local", False)))


def _proxy(url: str, *, local: bool) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urlsplit(url)
    if local or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


class Forward:
    """Connections to other servers."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Makes ready; no connection is made before the first request."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT, ttl_dns_cache=60)
        agent = {"User-Agent": "verbal-gateway"}
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=agent, skip_auto_headers=("Accept",)
        )  # fmt: skip

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self, wire: Wire, path: str, data: bytes, *, spoken: Mapping[str, str], timeout: float, stream: bool
    ) -> aiohttp.ClientResponse:
        """The beginning of a server's answer; whoever asked closes it.

        Args:
            wire: The server.
            path: Below `/v1`.
            data: The body.
            spoken: Headers of the client, of which those of the protocol are sent.
            timeout: Seconds for the answer; of a stream, between two pieces.
            stream: Whether a stream is asked for.

        Raises:
            Refusal: it cannot be reached (503), or is too slow (504).
        """
        assert self._session is not None, "open() comes first"
        headers = dict(wire.headers)
        for name in _SPOKEN:
            if value := spoken.get(name):
                headers[name] = value
        if path.startswith("messages"):
            headers.setdefault("anthropic-version", "2023-06-01")
        limit = _limit(timeout, stream)
        try:
            return await self._session.post(
                wire.urls[path], data=data, headers=headers, timeout=limit, proxy=wire.proxy, allow_redirects=False
            )
        except TimeoutError:
            raise late(timeout) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _gone(error) from None


async def pieces(answer: aiohttp.ClientResponse, timeout: float) -> AsyncIterator[bytes]:
    """The bytes of an answer as they come.

    Raises:
        Refusal: the connection broke (503), or nothing came in time (504).
    """
    try:
        async for piece in answer.content.iter_any():
            yield piece
    except TimeoutError:
        raise late(timeout) from None
    except (aiohttp.ClientError, OSError) as error:
        raise _gone(error) from None


async def whole(answer: aiohttp.ClientResponse, timeout: float) -> bytes:
    """The bytes of an answer.

    Raises:
        Refusal: the connection broke (503), nothing came in time (504), or it is too long (502).
    """
    found, size = [], 0
    async for piece in pieces(answer, timeout):
        size += len(piece)
        if size > _LARGEST:
            raise _too_long()
        found.append(piece)
    return found[0] if len(found) == 1 else b"".join(found)


def told_headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """Headers of an answer that a client is told."""
    found = ((name.lower(), value) for name, value in answer.headers.items())
    told = {n: v for n, v in found if n in _TOLD or n.startswith(_TOLD_FAMILIES)}
    # What is read as JSON is told as JSON: no browser takes it for a page.
    return told | {"content-type": answer.content_type if "json" in answer.content_type else "application/json"}


def told_error(status: int, raw: bytes) -> bytes | Refusal:
    """The body of an error as a client is told it: without keys, and in the shape of its protocol."""
    text = raw.decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        return redact(text).encode()
    return lost(status, f"the upstream answered {status}: {clip(error_message(text)) or 'nothing'}", code="upstream")


class Events:
    """Cuts the bytes of a stream into whole events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Each event that is whole with this piece: its bytes, and its data.

        Raises:
            Refusal: an event is too long (502).
        """
        buffer, start = self._rest + piece, 0
        for match in _BLANK.finditer(buffer, max(0, len(self._rest) - 2)):
            event, start = buffer[start : match.end()], match.end()
            yield event, _data(event)
        self._rest = buffer[start:]
        if len(self._rest) > _LARGEST:
            raise _too_long()

    async def ended(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of a stream that is fed here; an event that it leaves open is ended."""
        async for piece in source:
            yield piece
        if self._rest:
            yield b"\n\n"


def _data(event: bytes) -> bytes:
    lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def put_model(raw: bytes, old: str, new: str) -> bytes:
    """A body that asks for another model and is otherwise as it came, to the byte where that is possible."""
    # A quote inside a text is escaped, so what is found are keys; a single one is the body's own.
    found = _MODEL.findall(raw)
    if len(found) == 1 and found[0] == write_body(old):
        made = _MODEL.sub(lambda _: b'"model":' + write_body(new), raw)
        # The body's own key may be written with escapes, and what was found be another one.
        if b"\\u" not in raw or read_body(made)["model"] == new:
            return made
    return write_body({**read_body(raw), "model": new})


def late(timeout: float) -> Refusal:
    """What a client is told of an upstream that is too slow."""
    return lost(504, f"the upstream did not answer within {timeout:g} s", code="upstream_timeout", wait=1.0)


@lru_cache(64)
def _limit(timeout: float, stream: bool) -> aiohttp.ClientTimeout:
    total, gap = (None, timeout) if stream else (timeout, None)
    return aiohttp.ClientTimeout(total=total, sock_read=gap, sock_connect=min(_CONNECTING, timeout))


def _gone(error: Exception) -> Refusal:
    kind = type(error).__name__
    return lost(503, f"the connection to the upstream failed: {kind}: {clip(str(error), 120)}", wait=1.0)


def _too_long() -> Refusal:
    return lost(502, f"the upstream's answer is longer than {_LARGEST >> 20} MB", code="upstream_malformed")


__all__ = ["Events", "Forward", "Wire", "late", "pieces", "put_model", "told_error", "told_headers", "whole", "wire_of"]
