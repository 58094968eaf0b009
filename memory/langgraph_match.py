"""What a LangGraph store matches: values against filters, namespaces against conditions. No I/O, no state.

The meaning is that of LangGraph's `InMemoryStore`, but for one thing: where a value cannot be compared (a field that is
missing, a word against a number) it does not match, while `InMemoryStore` raises in the middle of a search. Words that
are no numbers compare as text, so that ISO dates have an order.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from langgraph.store.base import MatchCondition

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def fits(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether a stored value passes a filter: field -> value, nested fields, or operators such as `{"$gt": 3}`.

    Raises:
        ValueError: an operator that LangGraph does not know.
    """
    return all(_same(value.get(field), asked) for field, asked in (wanted or {}).items())


def matches(namespace: tuple[str, ...], conditions: Iterable[MatchCondition]) -> bool:
    """Whether a namespace meets every condition (prefix or suffix; `*` is any one label).

    Raises:
        ValueError: a kind of match that LangGraph does not know.
    """
    return all(_meets(namespace, condition) for condition in conditions)


def _meets(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if condition.match_type not in ("prefix", "suffix"):
        raise ValueError(f"Unsupported match type: {condition.match_type}")
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(asked in ("*", label) for label, asked in zip(part, path, strict=True))


def _same(value: Any, asked: Any) -> bool:
    if isinstance(asked, Mapping):
        if any(name.startswith("$") for name in asked):
            return all(_holds(value, name, operand) for name, operand in asked.items())
        return isinstance(value, Mapping) and all(_same(value.get(name), part) for name, part in asked.items())
    if isinstance(asked, list | tuple):
        return isinstance(value, list) and len(value) == len(asked) and all(map(_same, value, asked))
    return bool(value == asked)


def _holds(value: Any, name: str, operand: Any) -> bool:
    if name in ("$eq", "$ne"):
        return bool(value == operand) is (name == "$eq")
    if name not in _ORDERS:
        raise ValueError(f"Unsupported operator: {name}")
    try:
        return _ORDERS[name](float(value), float(operand))
    except (TypeError, ValueError, OverflowError):
        both = isinstance(value, str) and isinstance(operand, str)
        return both and _ORDERS[name](value, operand)
