"""Records: JSON both ways for every one, strict on what they read, lenient only towards a newer schema."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import DataError
from verbal.records import SCHEMA_VERSION
from verbal.types import (
    Attempt,
    Counters,
    Feedback,
    Group,
    MemoryOp,
    Message,
    Reflection,
    Step,
    StopReason,
    Task,
    ToolCall,
    Usage,
)

RECORDS = [ToolCall, Message, Usage, Task, Step, Attempt, Feedback, Group, Counters, Reflection, MemoryOp]
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*[values(a) for a in args])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*[values(a) for a in args])
    if origin is dict:
        return st.dictionaries(st.text(max_size=6), _JSON if args[1] is Any else values(args[1]), max_size=2)
    if hint is float:
        return st.floats(allow_nan=False)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return records(hint)
    return {str: st.text(max_size=12), int: st.integers(), bool: st.booleans(), type(None): st.none()}.get(
        hint, st.from_type(hint)
    )


def records(record: type[Any]) -> st.SearchStrategy[Any]:
    """Any instance of a record."""
    hints = typing.get_type_hints(record)
    return st.builds(record, **{f.name: values(hints[f.name]) for f in dataclasses.fields(record)})


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_every_record_survives_json(record: type[Any]) -> None:
    @given(records(record))
    def survives(one: Any) -> None:
        text = one.to_json()
        assert "\n" not in text
        assert record.from_json(text) == one
        assert record.from_json(text).to_json() == text
        assert record.from_dict(one.to_dict()) == one
        assert one.to_dict()["v"] == SCHEMA_VERSION

    survives()


def test_the_list_of_records_is_complete() -> None:
    import verbal.types as module

    own = [v for v in vars(module).values() if getattr(v, "__module__", "") == module.__name__]
    public = {v for v in own if dataclasses.is_dataclass(v)}
    assert public == set(RECORDS)


@given(records(Step))
def test_equal_records_give_equal_text(step: Step) -> None:
    assert Step.from_json(step.to_json()).to_json() == step.replace(text=step.text).to_json()


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_an_unknown_field_is_an_error_that_names_it(record: type[Any]) -> None:
    @given(records(record))
    def refused(one: Any) -> None:
        with pytest.raises(DataError, match="has no field 'surprise'") as caught:
            record.from_dict({**one.to_dict(), "surprise": 1})
        assert dataclasses.fields(record)[0].name in caught.value.todo
        newer = {**one.to_dict(), "surprise": 1, "v": SCHEMA_VERSION + 1}
        assert record.from_dict(newer) == one

    refused()


@pytest.mark.parametrize(
    ("record", "data", "said"),
    [
        (Message, {"role": "wizard", "content": "x"}, "'wizard' is not one of"),
        (Message, {"role": "user"}, "content"),
        (Message, {"role": "user", "content": 7}, "expected str, found 7"),
        (Task, {"id": "a", "kind": "k", "messages": "hello"}, "expected a list"),
        (Task, {"id": "a", "kind": "k", "messages": [], "split": "holdout"}, "'holdout'"),
        (Attempt, {"id": "a", "run": "r", "task": "t", "stop": "bored"}, "bored"),
        (Attempt, {"id": "a", "run": "r", "task": "t", "sample": "1"}, "expected int"),
        (Feedback, {"attempt": "a", "critic": "c", "value": "high"}, "expected float"),
    ],
)
def test_a_wrong_value_is_an_error_that_shows_it(record: type[Any], data: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"not a {record.__name__}") as caught:
        record.from_dict(data)
    assert said in caught.value.what
    assert caught.value.where


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[1]", "found list"), ("null", "found NoneType")])
def test_text_that_is_no_record(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Task.from_json(text)


def test_an_integer_reads_as_a_float_where_a_float_is_meant() -> None:
    value = Feedback.from_dict({"attempt": "a", "critic": "c", "value": 1}).value
    assert isinstance(value, float)
    assert value == 1.0


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Counters().shown = 3  # type: ignore[misc]


def test_usage_adds_up_and_an_unknown_price_stays_unknown() -> None:
    one = Usage(calls=1, prompt_tokens=10, completion_tokens=5, cost=0.25, seconds=1.0)
    assert one + one == Usage(calls=2, prompt_tokens=20, completion_tokens=10, cost=0.5, seconds=2.0)
    assert (one + one.replace(cost=None)).cost is None
    assert one.tokens == 15


def test_stop_reasons_are_plain_text_in_json() -> None:
    attempt = Attempt(id="a", run="r", task="t", stop=StopReason.STEP_LIMIT)
    assert json.loads(attempt.to_json())["stop"] == "step_limit"
    assert Attempt.from_json(attempt.to_json()).stop is StopReason.STEP_LIMIT
