"""The LangGraph store's values: the op log, lives, values of every kind."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import PutOp

from verbal.errors import ConfigError, DataError
from verbal.memory.langgraph_entries import Entries, is_entry, plain
from verbal.memory.langgraph_store import VerbalStore
from verbal.store import Store
from verbal.types import MemoryOp, Reflection


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "v.db") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


# the op log -----------------------------------------------------------------------------------------------------------


def test_puts_and_deletes_are_operations_and_ids_are_never_reused(base: Store) -> None:
    store = VerbalStore(base)
    for value in ({"n": 1}, {"n": 2}):
        store.put(("users", "1"), "k", value)
    store.delete(("users", "1"), "k")
    store.delete(("users", "1"), "k")
    store.put(("users", "1"), "k", {"n": 3})
    store.put(("users",), "1", {"n": 4})
    ops = [op for _, op in base.ops("langgraph")]
    assert [op.op for op in ops] == ["ADD", "UPDATE", "RETIRE", "ADD", "ADD"]
    first, other = ops[0].reflection, ops[4].reflection
    assert first.endswith(".1") and [op.reflection for op in ops[:3]] == [first] * 3
    assert ops[3].reflection == first.removesuffix(".1") + ".2" and other.endswith(".1")
    assert first.split(".")[0] != other.split(".")[0], "namespace and key are told apart"
    assert {op.author for op in ops} == {"langgraph"}
    assert all(op.item.status == "quarantined" for op in ops if op.item), "an app's data is no lesson of ours"
    assert json.loads(ops[0].item.title) == ["users", "1", "k"]  # type: ignore[union-attr]
    assert json.loads(ops[3].item.text)["value"] == {"n": 3}  # type: ignore[union-attr]


def test_the_same_puts_give_the_same_log_on_every_machine(tmp_path: Path, clock: Clock) -> None:
    logs = []
    for name in ("one", "two"):
        with Store(tmp_path / name / "v.db") as base:
            store = VerbalStore(base, clock=clock)
            store.put(("a", "é\ud800"), "k\x00", {"text": "half a pair \udc00", "n": [1, 2.5]})
            store.delete(("a", "é\ud800"), "k\x00")
            store.put(("a", "é\ud800"), "k\x00", {"text": "again"})
            assert store.get(("a", "é\ud800"), "k\x00").value == {"text": "again"}  # type: ignore[union-attr]
            logs.append([op.to_json() for _, op in base.ops("langgraph")])
    assert logs[0] == logs[1] and len(logs[0]) == 3


def test_a_key_keeps_the_time_of_its_first_put(base: Store, clock: Clock) -> None:
    store = VerbalStore(base, clock=clock)
    start = clock.now
    store.put(("a",), "k", {"n": 1})
    clock.pass_by(5)
    store.put(("a",), "k", {"n": 2})
    for reader in (store, VerbalStore(base)):
        item = reader.get(("a",), "k")
        assert item is not None
        assert (item.created_at, item.updated_at) == (start, start + timedelta(minutes=5))
    store.delete(("a",), "k")
    store.put(("a",), "k", {"n": 3})
    assert store.get(("a",), "k").created_at == clock.now  # type: ignore[union-attr]


def test_a_person_who_writes_in_the_log_is_heard(base: Store) -> None:
    store = VerbalStore(base)
    store.put(("a",), "k", {"n": 1})
    store.put(("a",), "moved", {"n": 2})
    (_, first), (_, second) = base.ops("langgraph")
    assert first.item is not None and second.item is not None
    moved = second.item.replace(title='["b", "c", "k"]')
    base.log_ops(
        "langgraph",
        [
            MemoryOp(op="UPDATE", reflection=second.reflection, item=moved, author="user"),
            MemoryOp(op="RETIRE", reflection=first.reflection, author="user"),
            MemoryOp(op="ADD", item=Reflection(id="", text="a lesson, no value"), author="user"),
            MemoryOp(op="ADD", item=Reflection(id="", title="[]", text="{}"), author="user"),
            MemoryOp(op="ADD", item=Reflection(id="", title='["a", "k"]', text='{"value": {}}'), author="user"),
            MemoryOp(op="ADD", item=Reflection(id="", title="[", text="{"), author="user"),
        ],
    )
    assert [(i.namespace, i.key, i.value) for i in store.search(())] == [(("b", "c"), "k", {"n": 2})]
    assert [i.key for i in store.search((), query="n 2")] == ["k"]
    lesson = second.item.replace(title="no path")
    base.log_ops("langgraph", [MemoryOp(op="UPDATE", reflection=second.reflection, item=lesson, author="user")])
    assert store.search(()) == [] and store.search((), query="n 2") == []


def test_what_an_app_put_is_not_shown_as_a_lesson(base: Store) -> None:
    store = VerbalStore(base)
    store.put(("a",), "k", {"text": "vip means tier = 3"})
    log = Entries()
    for _, op in base.ops("langgraph"):
        log.apply(op)
    assert log.log.active() == {}
    (item,) = log.log.items.values()
    assert is_entry(item)
    base.log_ops("langgraph", [MemoryOp(op="TAG", reflection=item.id, tag="active", author="user")])
    store.put(("a",), "k", {"text": "vip means tier = 4"})
    for _, op in base.ops("langgraph", after=1):
        log.apply(op)
    assert list(log.log.active()) == [item.id], "a person asked for it, and a later put does not undo that"


def test_a_memory_of_reflections_is_left_alone(base: Store, tmp_path: Path) -> None:
    base.log_ops("lessons", [MemoryOp(op="ADD", item=Reflection(id="", text="vip means tier = 3"))])
    with pytest.raises(ConfigError, match="holds reflections"):
        VerbalStore(base, "lessons")
    with pytest.raises(ConfigError, match="values and reflections"):
        VerbalStore(base, "main")
    assert base.memories() == {"lessons": 1}
    other = VerbalStore(base, "app2")
    other.put(("a",), "k", {"n": 1})
    assert VerbalStore(base).search(()) == []


# lives ----------------------------------------------------------------------------------------------------------------


def test_what_has_expired_is_swept(base: Store, clock: Clock) -> None:
    store = VerbalStore(base, ttl={"default_ttl": 10, "refresh_on_read": False}, clock=clock)
    store.put(("t",), "default", {"n": 1})
    store.put(("t",), "short", {"n": 2}, ttl=1)
    store.put(("t",), "ever", {"n": 3}, ttl=None)
    clock.pass_by(1)
    assert store.get(("t",), "short") is not None, "as LangGraph has it, unless `omit_expired`"
    assert store.sweep_ttl() == 1 and store.sweep_ttl() == 0
    assert [i.key for i in store.search(("t",))] == ["default", "ever"]
    clock.pass_by(9)
    assert VerbalStore(base, clock=clock).sweep_ttl() == 1, "another process, which was told of no lives"
    assert [i.key for i in store.search(("t",))] == ["ever"] and store.list_namespaces() == [("t",)]
    assert [op.reason for _, op in base.ops("langgraph") if op.op == "RETIRE"] == ["expired"] * 2
    clock.pass_by(1e8)
    assert store.sweep_ttl() == 0


def test_a_read_prolongs_a_life_and_a_restart_remembers(base: Store, clock: Clock) -> None:
    store = VerbalStore(base, ttl={"default_ttl": 10}, clock=clock)
    for key in ("got", "found", "left", "not_prolonged"):
        store.put(("t", key), key, {"n": 1})
    clock.pass_by(8)
    assert store.get(("t", "got"), "got") is not None
    assert [i.key for i in store.search(("t", "found"))] == ["found"]
    assert store.get(("t", "not_prolonged"), "not_prolonged", refresh_ttl=False) is not None
    clock.pass_by(8)
    again = VerbalStore(base, ttl={"default_ttl": 10}, clock=clock)
    assert again.sweep_ttl() == 2
    assert [i.key for i in again.search((), refresh_ttl=False)] == ["got", "found"]
    clock.pass_by(2)
    assert again.sweep_ttl() == 2


async def test_a_read_prolongs_in_the_async_forms_too(base: Store, clock: Clock) -> None:
    store = VerbalStore(base, ttl={"default_ttl": 10}, clock=clock)
    await store.aput(("t",), "k", {"n": 1})
    await store.aput(("t",), "short", {"n": 1}, ttl=1.5)
    clock.pass_by(9)
    assert await store.aget(("t",), "k") is not None
    clock.pass_by(9)
    assert store.sweep_ttl() == 1 and await store.aget(("t",), "k") is not None


def test_many_reads_write_little(base: Store, clock: Clock) -> None:
    store = VerbalStore(base, ttl={"default_ttl": 100}, clock=clock)
    store.put(("t",), "k", {"n": 1})
    for _ in range(1000):
        clock.pass_by(0.01)
        assert store.get(("t",), "k") is not None
    assert base.memories()["langgraph"] <= 1 + 10, "once in a hundredth of the life"
    clock.pass_by(98.9)
    assert VerbalStore(base, clock=clock).sweep_ttl() == 0, "of which at most that hundredth is lost"
    clock.pass_by(1.2)
    assert store.sweep_ttl() == 1


def test_expired_values_can_be_hidden(base: Store, clock: Clock) -> None:
    store = VerbalStore(base, ttl={"default_ttl": 5, "omit_expired": True}, clock=clock)
    store.put(("gone",), "e", {"text": "zebra"})
    store.put(("page",), "a", {"text": "zebra"}, ttl=None)
    store.put(("page",), "x", {"text": "zebra"})
    store.put(("page",), "b", {"text": "zebra"}, ttl=None)
    clock.pass_by(5)
    assert store.get(("gone",), "e") is None and store.search(("gone",)) == []
    assert [i.key for i in store.search(("page",), limit=2)] == ["a", "b"]
    assert [i.key for i in store.search(("page",), query="zebra", limit=2)] == ["a", "b"]
    assert store.list_namespaces() == [("page",)]
    assert base.memories()["langgraph"] == 4, "no read brought one back to life"
    born = clock.now
    store.put(("gone",), "e", {"text": "new"})
    assert store.get(("gone",), "e").created_at == born  # type: ignore[union-attr]


def test_a_call_sweeps_when_it_is_time(base: Store, clock: Clock) -> None:
    store = VerbalStore(base, ttl={"default_ttl": 3, "sweep_interval_minutes": 5}, clock=clock)
    store.put(("t",), "k", {"n": 1})
    clock.pass_by(4)
    assert store.get(("t",), "k", refresh_ttl=False) is not None
    clock.pass_by(1)
    assert store.get(("t",), "k", refresh_ttl=False) is None
    assert [op.op for _, op in base.ops("langgraph")] == ["ADD", "RETIRE"]


@pytest.mark.parametrize("ttl", [math.nan, math.inf, 1e12, "soon"])
def test_a_life_that_is_no_time_is_refused(base: Store, ttl: Any) -> None:
    store = VerbalStore(base)
    with pytest.raises(DataError, match="minutes"):
        store.put(("t",), "k", {}, ttl=ttl)
    with pytest.raises(DataError, match="minutes"):
        VerbalStore(base, ttl={"default_ttl": ttl})
    assert base.memories() == {}


# values ---------------------------------------------------------------------------------------------------------------


class Word(StrEnum):
    RED = "red"


def test_values_come_back_as_json_has_them(base: Store) -> None:
    store = VerbalStore(base)
    value = {"pair": (1, 2), "word": Word.RED, "big": 2**200, "small": -1.5e-300, "yes": True}
    store.put(("t",), "k", value)
    for reader in (store, VerbalStore(base)):
        got = reader.get(("t",), "k")
        assert got is not None
        assert got.value == {"pair": [1, 2], "word": "red", "big": 2**200, "small": -1.5e-300, "yes": True}
        assert type(got.value["word"]) is str and got.value["yes"] is True


def test_what_is_got_is_a_copy(base: Store) -> None:
    store = VerbalStore(base)
    mine = {"list": [1, {"deep": "a"}]}
    store.put(("t",), "k", mine)
    mine["list"].append(2)
    for read in (lambda: store.get(("t",), "k"), lambda: store.search(("t",))[0]):
        item = read()
        assert item is not None and item.value == {"list": [1, {"deep": "a"}]}
        item.value["list"][1]["deep"] = "changed"
        item.value["more"] = 1


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"at": datetime(2026, 1, 1)}, "value['at']"),
        ({"a": [1, {"b": {3}}]}, "value['a'][1]['b']"),
        ({"a": {1: "x"}}, "a key of value['a']"),
        ({"a": math.nan}, "value['a']"),
        ({"a": b"bytes"}, "value['a']"),
        ({"a": object}, "value['a']"),
        ({"n": 2**20000}, "value['n']"),
        (["no dict"], "value"),
        ("text", "value"),
    ],
)
async def test_what_is_no_json_is_refused_before_anything_is_written(base: Store, value: Any, where: str) -> None:
    store = VerbalStore(base)
    with pytest.raises(DataError, match="no JSON form") as caught:
        store.put(("t",), "k", value)
    assert caught.value.where == where and caught.value.todo
    with pytest.raises(DataError, match="no JSON form"):
        await store.abatch([PutOp(("t",), "fine", {"n": 1}), PutOp(("t",), "k", value)])
    assert base.memories() == {} and store.search(()) == []


def test_a_value_that_holds_itself_or_is_too_deep_is_refused(base: Store) -> None:
    loop: dict[str, Any] = {}
    loop["me"] = loop
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    for value in (loop, {"deep": deep}):
        with pytest.raises(DataError, match="no JSON form"):
            VerbalStore(base).put(("t",), "k", value)
    fine: Any = 1
    for _ in range(150):
        fine = {"x": fine}
    VerbalStore(base).put(("t",), "k", fine)
    assert VerbalStore(base).search((), query="x")[0].value == fine


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4))
def test_any_json_and_any_key_come_back(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: dict[str, Any]
) -> None:
    with Store(tmp_path_factory.mktemp("json") / "v.db") as base:
        VerbalStore(base).put(("t",), key, value)
        store = VerbalStore(base)
        got = store.get(("t",), key)
        assert got is not None and got.value == value == plain(value) and got.key == key
        assert store.search((), query="x")[0].value == value


def test_a_value_of_100_kb(base: Store) -> None:
    store = VerbalStore(base)
    text = "Zoë says: order 漢字 late. " * 4000
    store.put(("t",), "large", {"text": text, "parts": [{"n": i} for i in range(2000)]})
    store.put(("t",), "small", {"text": "zebra"})
    assert len(text.encode()) > 100_000
    for reader in (store, VerbalStore(base)):
        item = reader.get(("t",), "large")
        assert item is not None and item.value["text"] == text and item.value["parts"][1999] == {"n": 1999}
        assert reader.search(("t",), query="order late")[0].key == "large"
