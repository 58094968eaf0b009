"""What `check()` says: the server lists the model, or the nearest names it has."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from verbal.errors import ModelError, UnknownName
from verbal.models._faults import clip, error_message


def answer_of_list(status: int, text: bytes, model: str, *, where: str) -> str:
    """One line about `model`, from the answer to GET /models.

    Raises:
        UnknownName: the server lists other models only.
        ModelError: the URL is not an API.
    """
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    rows = body.get("data") if isinstance(body, dict) else None
    if status == 200 and isinstance(rows, list):
        return listed(model, [str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row], where=where)
    if status in (404, 405, 500, 501) and body is not None:
        return f"{where}: the server answers but lists no models ({status}), so the name is not verified"
    said = clip(error_message(text), 120)
    what = f"no model API answers there: GET /models gave {status}: {said}"
    raise ModelError(what, where=where, todo="check the URL: it usually ends in /v1")


def listed(model: str, names: Sequence[str], *, where: str) -> str:
    """One line that says the server has `model`.

    Raises:
        UnknownName: it has not; lists the nearest.
    """
    if model in names or f"{model}:latest" in names:
        return f"{where}: ready"
    near = difflib.get_close_matches(model, names, n=5, cutoff=0.3) or sorted(names)[:5]
    raise UnknownName(
        f"the server has no model {model!r}",
        where=where,
        todo=f"nearest of its {len(names)}: {', '.join(near) or 'none (load a model first)'}",
    )


def unreachable(where: str, error: Exception) -> ModelError:
    """The error for a server that does not answer."""
    what = f"no server answers: {type(error).__name__}: {clip(str(error), 160)}".rstrip(": ")
    return ModelError(what, where=where, todo="start the server, or check host, port and network")
