"""Failures as a page is told them: one word, a sentence, what to do; nothing of this server's places and keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from verbal.errors import (
    BudgetError,
    ConfigError,
    DataError,
    ModelError,
    StoreError,
    TransientError,
    UnknownName,
    VerbalError,
)
from verbal.models._faults import redact

_PLACE = re.compile(r"(?:file://|(?<![\w:/.~])~?|(?<=:)(?!//))/(?:[\w.@+-]+/)*(?=[\w.@+-])")
_log = logging.getLogger("verbal.web")


class Fault(Exception):
    """A failure as a page is told it.

    Args:
        status: HTTP status.
        code: One word for the page.
        message: For the person.
        todo: What to do.
        headers: Of the reply.
        more: Further fields of the error.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        todo: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body = {"code": code, "message": message, "todo": todo, **(more or {})}


def fault(error: BaseException) -> Fault:
    """What a page is told of an error: without places and keys."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, VerbalError):
        status, code = next(((s, c) for kind, s, c in _CODES if isinstance(error, kind)), (500, "server"))
        # What to do about an unknown name lists the known ones, which may be somebody else's.
        todo = "" if isinstance(error, UnknownName) else clean(error.todo)
        return Fault(status, code, clean(error.what), todo)
    if isinstance(error, web.HTTPException):
        return Fault(error.status, "http", str(error.reason))
    _log.error("a request failed", exc_info=error)
    return Fault(500, "server", "the server failed; its log says how", "try again")


_CODES: tuple[tuple[type[VerbalError], int, str], ...] = (
    (UnknownName, 404, "unknown"), (BudgetError, 402, "budget"), (TransientError, 503, "model_unreachable"),
    (ModelError, 502, "model"), (DataError, 400, "data"), (ConfigError, 400, "config"), (StoreError, 503, "store"),
)  # fmt: skip


def clean(text: str) -> str:
    """A text without keys and without the folders of this machine; the name of a file stays.

    >>> clean("the database '/home/ann/data/shop.db' is gone; see a/b and http://x.org/a/b")
    "the database 'shop.db' is gone; see a/b and http://x.org/a/b"
    """
    return _PLACE.sub("", redact(text)).strip()


def shown_model(spec: str) -> str:
    """A model as `--model` takes it, without the folder or the address where it is.

    >>> [shown_model(spec) for spec in ("http/qwen3@http://10.0.0.3:8000/v1", "hf:/data/small", "openai/gpt-5")]
    ['http/qwen3', 'hf:small', 'openai/gpt-5']
    """
    return clean(re.split(r"@(?=https?://)", spec)[0])


def missing(what: str) -> Fault:
    """The answer for something that is not there, or not this person's: nobody can tell which."""
    return Fault(404, "unknown", f"there is no such {what}")


__all__ = ["Fault", "clean", "fault", "missing", "shown_model"]
