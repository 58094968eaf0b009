"""Language models by name, and the one owner of retry, limits and cost around them.

`open_model("anthropic/claude-...")` gives a raw adapter: one attempt a call. `ModelCalls(model)` is what runs use:
it retries, adapts the concurrency, counts and stops at hard limits. Importing this package loads no model library;
each file without a leading underscore is one part (`verbal.parts`).
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verbal.contracts import Model
from verbal.errors import ConfigError

if TYPE_CHECKING:
    from verbal.models._calls import CallRecord, ModelCalls
    from verbal.models._faults import OverloadedError, redact
    from verbal.models._prices import Price, find_price
    from verbal.models._retry import Retry

_HOMES = {
    "CallRecord": "_calls", "ModelCalls": "_calls", "Retry": "_retry",
    "OverloadedError": "_faults", "redact": "_faults", "Price": "_prices", "find_price": "_prices",
}  # fmt: skip

FORMS = (
    "embedded", "embedded:WEIGHTS", "hf:FOLDER", "scripted:FILE.jsonl", "rules:APP", "openai/MODEL", "anthropic/MODEL",
    "http/MODEL@http://HOST:PORT/v1", "litellm/PROVIDER/MODEL", "PROVIDER/MODEL", "./FILE.py:CLASS",
)  # fmt: skip
"""The ways to name a model; `PROVIDER/MODEL` goes to litellm."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the name of a model says."""

    part: str
    """Name of the part, or `FILE.py:CLASS`."""
    config: dict[str, str]
    """What the part's constructor is given."""
    room: str = "models"
    """Where the part is; what needs torch is in `trainers`."""


def parse_model(spec: str) -> ModelSpec:
    """What `spec` names; nothing is opened or imported.

    Raises:
        ConfigError: it is none of `FORMS`.
    """
    text = spec.strip()
    head, _, rest = text.partition("/")
    if re.fullmatch(r".+\.py:\w+", text):
        return ModelSpec(text, {})
    if text == "embedded":
        return ModelSpec("embedded", {})
    if match := re.fullmatch(r"embedded:(.+)", text):
        return ModelSpec("embedded", {"path": match.group(1)})
    if match := re.fullmatch(r"hf:(.+)", text):
        return ModelSpec("local", {"path": match.group(1)}, room="trainers")
    if match := re.fullmatch(r"rules:(\w+)", text):
        return ModelSpec("rules", {"app": match.group(1)})
    if match := re.fullmatch(r"scripted:(.+)", text):
        return ModelSpec("scripted", {"file": match.group(1)})
    if match := re.fullmatch(r"http/(.+?)@(https?://\S+)", text):
        return ModelSpec("http", {"model": match.group(1), "url": match.group(2)})
    if re.search(r"\s|@https?://", text) or not re.fullmatch(r"[A-Za-z][\w.-]*", head) or not rest.strip("/"):
        raise _not_a_model(spec)
    if head in ("openai", "anthropic"):
        return ModelSpec(head, {"model": rest})
    if head in ("http", "https", "embedded", "scripted") or (head == "litellm" and "/" not in rest.strip("/")):
        raise _not_a_model(spec)
    return ModelSpec("litellm", {"model": rest if head == "litellm" else text})


def open_model(spec: str, **options: Any) -> Model:
    """The model that `spec` names (see `FORMS`), opened lazily: no connection before the first call.

    Credentials come from environment variables only: OPENAI_API_KEY, ANTHROPIC_API_KEY, VERBAL_HTTP_KEY, or what
    litellm reads for the provider.

    Args:
        spec: Name of the model.
        options: Passed to the adapter, such as `timeout` (seconds) or `extra` (more fields of the request).

    Raises:
        ConfigError: no such form or option. MissingExtra: its library is not installed.
    """
    from verbal.parts import make_part

    found = parse_model(spec)
    model: Model = make_part(found.room, found.part, where=f"model {spec!r}", **found.config, **options)
    return model


def _not_a_model(spec: str) -> ConfigError:
    from verbal.models._faults import clip

    return ConfigError(f"not the name of a model: {clip(spec, 120)!r}", todo=f"write one of: {', '.join(FORMS)}")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "FORMS", "CallRecord", "ModelCalls", "ModelSpec", "OverloadedError", "Price", "Retry", "find_price", "open_model",
    "parse_model", "redact",
]  # fmt: skip
