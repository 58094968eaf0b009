"""Vectors from any server that speaks OpenAI's `/v1/embeddings`: OpenAI, vLLM, Ollama, llama.cpp, gateways.

One embedder owns its retries: `embed` is called from a thread, so it waits there. The key is read from the environment
at each call, goes into one header, and is followed nowhere (a redirect is refused).
"""

from __future__ import annotations

import base64
import binascii
import http.client
import importlib.util
import json
import logging
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay

from verbal.errors import ConfigError, ContextLengthError, ModelError, TransientError
from verbal.models import Retry
from verbal.models._faults import clip, error_code, error_message, fault, malformed
from verbal.models._wire import check_url, parse_json, read_usage
from verbal.types import Usage

from .embedders import still, unit_vectors

_OPENAI = "https://api.openai.com/v1"
_PROVIDERS = {"api.openai.com": "openai", "api.mistral.ai": "mistral", "api.voyageai.com": "voyage"}
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_TABLE = "model_prices_and_context_window_backup.json"
_LARGEST = 64 * 2**20
_MOST_TEXTS = 256
# A token is a byte at least, and OpenAI takes 300,000 tokens a call.
_MOST_BYTES = 200_000
# A text this short is not what makes a prompt too long.
_SHORTEST = 256
_log = logging.getLogger("verbal.memory")


class EndpointEmbedder:
    """Texts to unit vectors through an OpenAI-compatible server.

    Texts go out in order, at most 256 and 200,000 bytes a call. A text without words is not sent: it has one fixed
    direction. A text longer than the model reads is cut from its end until it fits, with a warning.

    Args:
        model: Name of the model on the server.
        url: Address of the API, such as `http://127.0.0.1:8000/v1`; else OPENAI_BASE_URL, else OpenAI's own.
        dimensions: Length of the vectors, for models that can shorten them; sent with each call.
        price: US dollars per million tokens. When not given: 0 on this machine, else what litellm's table says of
            OpenAI, Mistral and Voyage, else None (not known: a run with a limit of money refuses it).
        key_variable: Environment variable of the key. When not given: OPENAI_API_KEY for OpenAI and for
            OPENAI_BASE_URL; VERBAL_HTTP_KEY, as for `http/MODEL@URL`, for any other address, because a key is not shown
            to another's server. Only OpenAI and a variable that is named here must have one.
        timeout: Seconds for one try.
        encoding: How the numbers are asked for; `base64` is a quarter as long where a server has it. Both are read.
        retry: When a call is tried again; the default gives up after 6 tries or 120 seconds, and at once when the
            server asks for a longer wait.
        extra: More fields of each request, such as `{"input_type": "query"}`.

    Raises:
        ConfigError: not a URL, or credentials stand in it; a negative price or dimension.
    """

    blocking: ClassVar[bool] = True

    def __init__(
        self,
        model: str,
        url: str = "",
        *,
        dimensions: int | None = None,
        price: float | None = None,
        key_variable: str = "",
        timeout: float = 60.0,
        encoding: Literal["float", "base64"] = "float",
        retry: Retry | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.name = f"endpoint/{model}" + (f"/{dimensions}" if dimensions else "")
        self.url = _checked(url or os.environ.get("OPENAI_BASE_URL", "") or _OPENAI, where=f"embedder {self.name}")
        host = urlsplit(self.url).hostname or ""
        self._where = f"embedder {self.name} at {self.url}"
        _check_numbers(self._where, dimensions=dimensions, price=price, timeout=timeout)
        if encoding not in ("float", "base64"):
            raise ConfigError(f"encoding {encoding!r}", where=self._where, todo="take float or base64")
        if price is None:
            price = 0.0 if host in _LOCAL else find_price(_PROVIDERS.get(host, ""), model)
        self.price: float | None = price
        """US dollars per million tokens; None when it is not known."""
        self._must_have_key = bool(key_variable) or host == "api.openai.com"
        openai = host == "api.openai.com" or not url
        self._key_variable = key_variable or ("OPENAI_API_KEY" if openai else "VERBAL_HTTP_KEY")
        self._asked, self._dimension = dimensions, dimensions
        self._timeout, self._encoding, self._extra = timeout, encoding, dict(extra or {})
        self._retry, self._random = retry or Retry(deadline=120.0), Random()
        self._used, self._lock = Usage(), threading.RLock()
        proxies = [urllib.request.ProxyHandler({})] if host in _LOCAL else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def __repr__(self) -> str:
        return f"EndpointEmbedder({self.model!r}, {self.url!r})"

    @property
    def dimension(self) -> int:
        """Length of the vectors: the one asked for, else the first answer's. Before any, one word is embedded.

        Raises:
            As `embed`.
        """
        with self._lock:
            if self._dimension is None:
                self.embed(["dimension"])
            assert self._dimension is not None
            return self._dimension

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One unit vector per text.

        Raises:
            ConfigError: the key is not set. RefusedError: the server refuses key, model or request. TransientError: it
                could not be reached or answered nonsense, try after try. ModelError: its vectors are wrong.
        """
        clean = [t.encode("utf-8", "replace").decode("utf-8") for t in texts]
        worded = [t for t in clean if t.strip()]
        with self._lock:
            made: list[tuple[float, ...]] = []
            for batch in _batches(worded):
                made += self._embed(batch)
            if len(worded) == len(clean):
                return made
            vectors, nothing = iter(made), still(self.dimension)
            return [next(vectors) if t.strip() else nothing for t in clean]

    def check(self) -> None:
        """Whether it can be used as far as this machine knows: no call is made.

        Raises:
            ConfigError: the key is not set, or holds what no key does.
        """
        self._key()

    def take_usage(self) -> Usage:
        """What calls used since this was last asked, the look for the dimension included.

        Tokens are those the server counted; bytes (never fewer) where it counted none or its answer was lost.
        """
        with self._lock:
            used, self._used = self._used, Usage()
            return used

    def _embed(self, texts: list[str]) -> list[tuple[float, ...]]:
        try:
            rows = self._tried(texts)
        except ContextLengthError:
            if len(texts) > 1:
                half = len(texts) // 2
                return self._embed(texts[:half]) + self._embed(texts[half:])
            if len(texts[0]) <= _SHORTEST:
                raise
            short = texts[0][: len(texts[0]) // 2]
            _log.warning("%s: a text of %d characters is cut to %d", self._where, len(texts[0]), len(short))
            return self._embed([short])
        vectors = unit_vectors(rows, len(texts), dimension=self._dimension, where=self._where)
        self._dimension = len(vectors[0])
        return vectors

    def _tried(self, texts: list[str]) -> list[Any]:
        retrying = Retrying(
            stop=stop_after_attempt(self._retry.attempts) | stop_before_delay(self._retry.deadline),
            wait=lambda state: self._retry.wait(state, self._random),
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        )
        return retrying(self._once, texts)

    def _once(self, texts: list[str]) -> list[Any]:
        size = sum(len(t.encode("utf-8")) for t in texts)
        began = time.monotonic()
        try:
            body = self._post(texts)
            rows = _rows(body, len(texts), where=self._where)
        except TransientError as error:
            if error.abandoned:  # it may have been billed all the same
                self._count(size, began)
            raise
        self._count(read_usage(body.get("usage"))[0] or size, began)
        return rows

    def _count(self, tokens: int, began: float) -> None:
        cost = None if self.price is None else tokens * self.price / 1e6
        self._used += Usage(calls=1, prompt_tokens=tokens, cost=cost, seconds=time.monotonic() - began)

    def _post(self, texts: list[str]) -> Any:
        body: dict[str, Any] = {"model": self.model, "input": texts}
        body |= {"dimensions": self._asked} if self._asked else {}
        body |= {"encoding_format": self._encoding} if self._encoding != "float" else {}
        data = json.dumps(body | self._extra, ensure_ascii=False).encode("utf-8")
        key = self._key()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "verbal"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        request = urllib.request.Request(f"{self.url}/embeddings", data=data, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                raw = self._body(response)
        except urllib.error.HTTPError as error:
            raise self._refused(error, key) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        text = raw.decode("utf-8", "replace")
        if text.lstrip()[:1] == "<":
            what = f"the server answered with a page, not with JSON: {clip(self._without(key, text), 120)}"
            raise ModelError(what, where=self._where, todo="check the URL: it usually ends in /v1")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        # What is no answer goes into an error, and a server may say the key in it.
        return answer if _has_rows(answer) else parse_json(self._without(key, text), self._where)

    def _without(self, key: str, text: str) -> str:
        return text.replace(key, f"[{self._key_variable}]") if key else text

    def _body(self, response: Any) -> bytes:
        """The whole body; a server that drips is not waited for beyond the time of one try."""
        pieces, size, end = [], 0, time.monotonic() + self._timeout
        while piece := response.read1(2**18):
            pieces.append(piece)
            size += len(piece)
            if size > _LARGEST:
                what = f"the answer is longer than {_LARGEST >> 20} MB"
                raise ModelError(what, where=self._where, todo="check the server")
            if time.monotonic() > end:
                raise TimeoutError
        return b"".join(pieces)

    def _refused(self, error: urllib.error.HTTPError, key: str) -> ModelError:
        with error:
            try:
                raw = error.read(2**16)
            except (OSError, http.client.HTTPException):
                raw = b""  # the status says enough
        text = self._without(key, raw.decode("utf-8", "replace"))
        try:
            body: Any = json.loads(text)
        except (ValueError, RecursionError):
            body = text
        if 300 <= error.code < 400:
            what = f"the server sends the call elsewhere ({error.code})"
            return ModelError(what, where=self._where, todo="give the address it sends to; redirects are not followed")
        said, code, headers = error_message(body), error_code(body), dict(error.headers or {})
        if error.code == 413:  # of a text or of the whole call: smaller calls tell
            return ContextLengthError(
                f"too much for one call: {clip(said)}", where=self._where, todo="shorten the text"
            )
        return fault(error.code, said, where=self._where, headers=headers, code=code, key=self._key_variable)

    def _lost(self, error: Exception) -> TransientError:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            lost = TransientError(
                f"no answer within {self._timeout:g} s", where=self._where, todo="raise the time-out, or try again"
            )
        else:
            what = f"the connection failed: {type(reason).__name__}: {clip(str(reason), 160)}"
            lost = TransientError(what, where=self._where, todo="check that the server runs, its host and port")
        # urllib wraps what happens before a request is sent; anything else may have reached the server.
        lost.abandoned = not isinstance(error, urllib.error.URLError)
        return lost

    def _key(self) -> str:
        key = os.environ.get(self._key_variable, "").strip()
        if not key and self._must_have_key:
            raise ConfigError(f"{self._key_variable} is not set", where=self._where, todo="export it, then try again")
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            what = f"{self._key_variable} holds a character that no key has"
            raise ConfigError(what, where=self._where, todo="export the key alone, without quotes and line breaks")
        return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses a redirect: it would take the key and the texts to a server nobody named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _rows(body: Any, count: int, *, where: str) -> list[Any]:
    """The vectors of an answer in order of their `index`; base64 (float32, little-endian) is read too."""
    if not _has_rows(body):
        if isinstance(body, Mapping) and body.get("error"):
            raise ModelError(f"the server reports: {clip(error_message(body))}", where=where, todo="see its log")
        raise malformed("the answer has no vectors", body, where=where)
    data = body["data"]
    if len(data) != count:
        what = f"the server gave {len(data)} vectors for {count} texts"
        raise ModelError(what, where=where, todo="check the server: /v1/embeddings must take a list of texts")
    places = [row.get("index") for row in data]
    if any(p is not None for p in places):
        if {p for p in places if type(p) is int} != set(range(count)):
            what = f"the vectors are numbered {clip(str(places), 80)}, not 0 to {count - 1}"
            raise ModelError(what, where=where, todo="check the server: which vector is whose cannot be known")
        data = sorted(data, key=lambda row: row["index"])
    return [_row(row["embedding"], where) for row in data]


def _has_rows(body: Any) -> bool:
    data = body.get("data") if isinstance(body, Mapping) else None
    return isinstance(data, list) and all(isinstance(row, Mapping) and "embedding" in row for row in data)


def _row(values: Any, where: str) -> Any:
    if not isinstance(values, str):
        return values
    try:
        return np.frombuffer(base64.b64decode(values, validate=True), dtype="<f4")
    except (binascii.Error, ValueError):
        raise malformed("a vector is not base64 of float32", values[:40], where=where) from None


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        more = len(text.encode("utf-8"))
        if batch and (len(batch) == _MOST_TEXTS or size + more > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += more
    if batch:
        yield batch


def _checked(url: str, *, where: str) -> str:
    url = check_url(url, where=where)
    parts = urlsplit(url)
    bad = ""
    try:
        _ = parts.port
    except ValueError:
        bad = "its port is no number to 65535"
    if parts.query or parts.fragment:
        bad = "it has a query, where a key might stand"
    elif not re.fullmatch(r"[\x21-\x7e]+", url):
        bad = "it holds a blank, or letters beyond ASCII"
    if bad:
        raise ConfigError(f"the address cannot be used: {bad}", where=where, todo="write http://HOST:PORT/v1")
    return url


def _check_numbers(where: str, *, dimensions: int | None, price: float | None, timeout: float) -> None:
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise ConfigError(f"dimensions {dimensions!r}", where=where, todo="give a whole number from 1, or none")
    if price is not None and not (isinstance(price, int | float) and 0 <= price < math.inf):
        raise ConfigError(f"price {price!r}", where=where, todo="give US dollars per million tokens, or none")
    if not 0 < timeout < math.inf:
        raise ConfigError(f"timeout {timeout!r}", where=where, todo="give seconds")


def find_price(provider: str, model: str) -> float | None:
    """US dollars per million tokens of an embedding model, from the table in the litellm package; None if unknown."""
    return _prices().get((provider, model))


@cache
def _prices() -> dict[tuple[str, str], float]:
    spec = importlib.util.find_spec("litellm")  # the package itself is not imported
    path = Path(spec.origin).parent / _TABLE if spec and spec.origin else None
    if path is None or not path.is_file():
        return {}
    found = {}
    for name, row in json.loads(path.read_text(encoding="utf-8")).items():
        price = row.get("input_cost_per_token")
        if row.get("mode") == "embedding" and isinstance(price, int | float):
            provider = str(row.get("litellm_provider"))
            found[provider, name.removeprefix(f"{provider}/")] = price * 1e6
    return found


__all__ = ["EndpointEmbedder", "find_price"]
