"""An answer that is an error: in OpenAI's shape, in Anthropic's, and what the errors of the house are told as."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from verbal.errors import ConfigError, ContextLengthError, ModelError, TransientError, VerbalError
from verbal.models import OverloadedError, redact

_KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
"""Status -> Anthropic's name of the error."""


STALLED = 60.0
"""Seconds in which a client sends its request; else it would hold a place for ever."""


class Refusal(Exception):
    """An answer to a client that is an error.

    Args:
        status: HTTP status. The SDKs try 408, 409, 429 and 5xx again, so only what may pass gets one of these.
        message: What failed and what to do.
        kind: OpenAI's type of the error.
        param: The field that is wrong.
        code: Machine-readable name of the error.
        retry_after: Seconds to wait, when that is known.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after
        self.kind, self.param, self.code = kind, param, code

    @property
    def body(self) -> dict[str, Any]:
        """It in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def anthropic(self) -> dict[str, Any]:
        """It in Anthropic's shape."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}, "request_id": None}


def refusal(error: VerbalError) -> Refusal:
    """What a client is told of an error of the house: no place of this server, and no key."""
    advice = f". To do: {error.todo}" if error.todo else ""
    message = redact(f"{error.what}{advice}")
    if isinstance(error, ContextLengthError):
        return Refusal(400, message, param="messages", code="context_length_exceeded")
    if isinstance(error, TransientError):
        busy = isinstance(error, OverloadedError)
        status, code = (429, "model_overloaded") if busy else (503, "model_unreachable")
        wait = 1.0 if error.retry_after is None else error.retry_after
        return Refusal(status, message, kind="server_error", code=code, retry_after=wait)
    if isinstance(error, ModelError):  # trying again does not help, so the status is none of those that are retried
        return Refusal(422, message, code="model_refused")
    if isinstance(error, ConfigError):
        return Refusal(400, message, code="unsupported")
    return Refusal(500, message, kind="server_error", code="server_error")


def fault() -> Refusal:
    """What a client is told of a fault in the program: nothing but that there is one."""
    return Refusal(500, "the server failed; its log says how", kind="server_error", code="server_error")


async def received(request: web.Request) -> bytes:
    """The body of a request.

    Raises:
        Refusal: it does not come (408).
    """
    if request.content.is_eof():  # most are there with their head
        return await request.read()
    try:
        async with asyncio.timeout(STALLED):
            return await request.read()
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {STALLED:g} s", code="request_timeout") from None


def lost(status: int, message: str, *, code: str = "upstream_unreachable", wait: float | None = None) -> Refusal:
    """What a client is told of an upstream that failed: no key stands in it."""
    return Refusal(status, redact(message), kind="server_error", code=code, retry_after=wait)


__all__ = ["STALLED", "Refusal", "fault", "lost", "received", "refusal"]
