"""What a token costs. Read from the table that ships inside the litellm package, as a file: litellm is not imported.

A price that is not known is None and is never guessed; a model on this machine costs nothing.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from verbal.contracts import Model
from verbal.errors import ConfigError

_TABLE = "model_prices_and_context_window_backup.json"
_FREE = ("embedded", "scripted")
_PRICE_FORM = 'write ["provider/model"] and below it prompt = 1.2 and completion = 4.8 (US dollars per million tokens)'


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    prompt: float
    completion: float
    above: tuple[tuple[int, float, float], ...] = field(default=())
    """(prompt tokens, prompt price, completion price) for prompts longer than that, shortest first."""

    def rates(self, prompt_tokens: int) -> tuple[float, float]:
        """US dollars per million prompt and completion tokens of a call with that prompt."""
        found = (self.prompt, self.completion)
        for threshold, prompt, completion in self.above:
            found = (prompt, completion) if prompt_tokens > threshold else found
        return found

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for one call. A provider's discount for cached prompts is not counted: this is an upper bound."""
        prompt, completion = self.rates(prompt_tokens)
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6


def read_prices(path: str | Path) -> dict[str, Price]:
    """The prices of a file, `["provider/model"] prompt = 1.2, completion = 4.8` (US dollars per million tokens).

    Raises:
        ConfigError: the file cannot be read, or a price is no number from 0.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the prices cannot be read: {error}", where=str(path), todo=_PRICE_FORM) from error
    found = {}
    for name, row in table.items():
        known = isinstance(row, dict) and set(row) == {"prompt", "completion"}
        if not known or not all(type(v) in (int, float) and 0 <= v < math.inf for v in row.values()):
            raise ConfigError(f"not a price of {name!r}: {row!r}", where=str(path), todo=_PRICE_FORM)
        found[name] = Price(prompt=float(row["prompt"]), completion=float(row["completion"]))
    return found


def price_of(model: Model) -> Price | None:
    """The price of a model: 0 on this machine, the table's otherwise, None when it is not known."""
    if model.name.split("/")[0] in _FREE or getattr(model, "local", False):
        return Price(prompt=0.0, completion=0.0)
    return find_price(model.name)


def find_price(name: str) -> Price | None:
    """The price the table has for `provider/model` (`litellm/provider/model` too), or None."""
    provider, _, model = name.removeprefix("litellm/").partition("/")
    table = _read_table()
    for key in (f"{provider}/{model}", model):
        if key in table and table[key][0] == provider:
            return table[key][1]
    return None


@cache
def _read_table() -> dict[str, tuple[str, Price]]:
    """Name -> (provider, price) of every chat model; empty when litellm is not installed."""
    spec = importlib.util.find_spec("litellm")
    path = Path(spec.origin).parent / _TABLE if spec and spec.origin else None
    if path is None or not path.is_file():
        return {}
    table: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found = {}
    for name, row in table.items():
        prices = row.get("input_cost_per_token"), row.get("output_cost_per_token")
        if row.get("mode") in ("chat", "responses", "completion") and all(isinstance(p, int | float) for p in prices):
            found[name] = (str(row.get("litellm_provider")), _read_price(row))
    return found


def _read_price(row: Mapping[str, Any]) -> Price:
    million = 1e6
    prompt, completion = row["input_cost_per_token"] * million, row["output_cost_per_token"] * million
    above = []
    for key, value in row.items():
        match = re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", key)
        if match and isinstance(value, int | float):
            longer = row.get(f"output_cost_per_token_above_{match.group(1)}k_tokens")
            longer = longer if isinstance(longer, int | float) else row["output_cost_per_token"]
            above.append((int(match.group(1)) * 1000, value * million, longer * million))
    return Price(prompt=prompt, completion=completion, above=tuple(sorted(above)))
