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

Test = Callable[[Any], bool]
"""Whether a value passes."""

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def filtering(wanted: Mapping[str, Any] | None) -> Test:
    """Tells whether a stored value passes a filter: field -> value, nested fields, or operators such as `{"$gt": 3}`.

    Raises:
        ValueError: an operator that LangGraph does not know.
    """
    tests = [(field, _test(asked)) for field, asked in (wanted or {}).items()]
    if len(tests) == 1:  # the usual case, and asked of every value
        ((field, test),) = tests
        return lambda value: test(value.get(field))
    return lambda value: all(test(value.get(field)) for field, test in tests)


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


def _test(asked: Any) -> Test:
    if isinstance(asked, Mapping):
        if any(name.startswith("$") for name in asked):
            tests = [_comparing(name, operand) for name, operand in asked.items()]
            return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)
        inner = filtering(asked)
        return lambda value: isinstance(value, dict) and inner(value)
    if isinstance(asked, list | tuple):
        parts = [_test(part) for part in asked]
        return lambda value: (
            isinstance(value, list)
            and len(value) == len(parts)
            and all(test(part) for test, part in zip(parts, value, strict=True))
        )
    return lambda value: bool(value == asked)


def _comparing(name: str, operand: Any) -> Test:
    if name == "$eq":
        return lambda value: bool(value == operand)
    if name == "$ne":
        return lambda value: bool(value != operand)
    if name not in _ORDERS:
        raise ValueError(f"Unsupported operator: {name}")
    order, number = _ORDERS[name], _number(operand)

    def holds(value: Any) -> bool:
        if number is not None and (own := _number(value)) is not None:
            return order(own, number)
        return isinstance(value, str) and isinstance(operand, str) and order(value, operand)

    return holds


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
