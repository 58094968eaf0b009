"""Foreign failures as errors of the house: HTTP statuses, SDK exceptions, malformed bodies. Secrets are cut out.

Errors made here are raised `from None`: a foreign traceback may print a header or a URL with a key in it.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from verbal.errors import ContextLengthError, ModelError, RefusedError, TransientError

_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$")
_SECRET_TEXT = re.compile(
    r"(?i)(bearer\s+|basic\s+|x-api-key['\"]?\s*[:=]\s*['\"]?|[?&](?:api[-_]?)?key=)[^\s'\",&]+|\bsk-[\w*-]{6,}"
)
_TOO_LONG = re.compile(
    r"(?i)context[ _-]?(length|window|size)|maximum context|(prompt|input)( is|'s)? too (long|large)"
    r"|too many (input )?tokens|longer than the model|exceeds? (the )?(available|model'?s?|maximum) (context|input)"
)
_NO_QUOTA = re.compile(r"(?i)insufficient[ _]quota|exceeded your current quota|credit balance is too low|billing")


class OverloadedError(TransientError):
    """The provider asks for fewer calls at once (429, 503, 529): retried, and the concurrency is halved."""


def environment_secrets() -> list[tuple[str, str]]:
    """Name and value of every variable of the environment that holds a key."""
    return [(n, v) for n, v in os.environ.items() if len(v) >= 6 and _SECRET_VARIABLE.search(n.upper())]


def redact(text: str, secrets: Sequence[tuple[str, str]] | None = None) -> str:
    """`text` without anything that looks like a key, and without the value of any key in the environment.

    Args:
        text: Any text.
        secrets: Those of the environment, for who has many texts.
    """
    for name, value in environment_secrets() if secrets is None else secrets:
        text = text.replace(value, f"[{name}]")
    return _SECRET_TEXT.sub(lambda match: f"{match.group(1) or ''}[secret]", text)


def clip(text: str, size: int = 300) -> str:
    """`text` on one line, without secrets, at most `size` characters."""
    line = " ".join(redact(text).split())
    return line if len(line) <= size else line[: size - 3] + "..."


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, or `retry-after` as seconds or as an HTTP date; else None."""
    found = {k.lower(): v for k, v in headers.items()}
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(found.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(found.get("retry-after", "")).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def error_message(body: Any) -> str:
    """What an error body says: `error.message`, `error`, `message` or `detail` of a JSON object, else all of it."""
    if isinstance(body, str | bytes):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return body if isinstance(body, str) else body.decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(name):
            return error_message(body[name]) if isinstance(body[name], Mapping) else str(body[name])
    return "" if body is None else str(body)


def error_code(body: Any) -> str:
    """The machine-readable code or type of a JSON error body, or an empty text."""
    error = body.get("error", body) if isinstance(body, Mapping) else None
    return str(error.get("code") or error.get("type") or "") if isinstance(error, Mapping) else ""


def fault(
    status: int, message: str, *, where: str, headers: Mapping[str, str] | None = None, code: str = "", key: str = ""
) -> ModelError:
    """The error for an HTTP status.

    Args:
        status: HTTP status, or the status an SDK gave the failure.
        message: What the server said.
        where: Model and URL.
        headers: Response headers, for the time the server asks to wait.
        code: Machine-readable code of the error body.
        key: Environment variable that holds the key.
    """
    said = f"the model server answered {status}: {clip(message) or 'nothing'}"
    if code and code not in message:
        said += f" ({clip(code, 60)})"
    if status != 429 and (_TOO_LONG.search(message) or _TOO_LONG.search(code)):
        return ContextLengthError(said, where=where, todo="shorten the prompt: fewer tables, hints or earlier answers")
    if status in (401, 403):
        return RefusedError(said, where=where, todo=f"check the key in {key}" if key else "check the key")
    if status == 402 or _NO_QUOTA.search(code) or (status in (400, 429) and _NO_QUOTA.search(message)):
        return RefusedError(said, where=where, todo="check the plan and the balance of the account")
    if status == 404:
        return RefusedError(said, where=where, todo="check the model's name and the URL: verbal doctor --model ...")
    if status in (408, 409, 425, 429) or (status >= 500 and status not in (501, 505)):
        kind = OverloadedError if status in (429, 503, 529) else TransientError
        error = kind(said, where=where, todo="try again later, or with fewer calls at once")
        error.retry_after = read_retry_after(headers or {})
        return error
    if status >= 400:
        return RefusedError(said, where=where, todo="the request itself is refused; trying again does not help")
    return ModelError(said, where=where, todo="check the URL: an OpenAI-compatible one usually ends in /v1")


def malformed(what: str, seen: Any, *, where: str) -> TransientError:
    """The error for an answer that cannot be read, with what was seen."""
    text = seen if isinstance(seen, str) else repr(seen)
    said = f"{what}: {clip(text, 200) or 'nothing'}"
    error = TransientError(said, where=where, todo="try again, or check the server")
    error.abandoned = True  # it was written, so it may be billed
    return error


def foreign_fault(error: Exception, *, where: str, key: str = "") -> ModelError:
    """The error for an exception of an SDK (openai, anthropic, litellm, httpx), told by what it carries."""
    if isinstance(error, ModelError):
        return error
    status, body = getattr(error, "status_code", None), getattr(error, "body", None)
    kind, message = type(error).__name__, str(error)
    if kind == "ContextWindowExceededError":
        return ContextLengthError(clip(message), where=where, todo="shorten the prompt")
    if kind == "APIResponseValidationError" or isinstance(error, ValueError):
        return malformed(f"the answer cannot be read ({kind})", message, where=where)
    if isinstance(status, int) and status >= 400:
        said = error_message(body) if isinstance(body, Mapping) else message
        headers = getattr(error, "litellm_response_headers", None) or getattr(
            getattr(error, "response", None), "headers", None
        )
        return fault(status, said, where=where, headers=headers, code=error_code(body), key=key)
    if isinstance(error, TimeoutError | OSError) or re.search(r"Timeout|Connect|Protocol|Read|Write|Network", kind):
        cause = f" ({clip(str(error.__cause__), 120)})" if error.__cause__ else ""
        lost = TransientError(f"the connection failed: {kind}: {clip(message)}{cause}", where=where, todo="try again")
        lost.abandoned = "Connect" not in kind  # a request that was sent may be answered, and billed, all the same
        return lost
    if isinstance(status, int) or kind == "APIError":
        return _stream_fault(message, body, where=where, key=key)
    return ModelError(
        f"the model's library failed: {kind}: {clip(message)}", where=where, todo="see the library's issues"
    )


def _stream_fault(message: str, body: Any, *, where: str, key: str) -> ModelError:
    """The error that arrived inside a stream, where no HTTP status can tell its kind."""
    code = error_code(body)
    statuses = {"overloaded_error": 529, "rate_limit_error": 429, "rate_limit_exceeded": 429, "api_error": 500}
    statuses |= {"authentication_error": 401, "permission_error": 403, "not_found_error": 404}
    statuses |= {"invalid_request_error": 400, "insufficient_quota": 402, "server_error": 500}
    status = statuses.get(code, int(code) if code.isdigit() and len(code) == 3 else 500)
    return fault(status, message or error_message(body), where=where, code=code, key=key)


def stream_fault(event: Mapping[str, Any], *, where: str, key: str = "") -> ModelError:
    """The error for an error object inside a stream of events."""
    return _stream_fault(error_message(event), event, where=where, key=key)
