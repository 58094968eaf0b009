"""The LangGraph store over time: the op log, restarts, kills, several writers, lives, values of every kind."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langgraph.store.base import GetOp, PutOp
from langgraph.store.memory import InMemoryStore

from verbal.errors import ConfigError, DataError, StoreError, UnknownName
from verbal.memory.exact import ExactMemory
from verbal.memory.hashing import HashingEmbedder
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


# restarts and other writers -------------------------------------------------------------------------------------------


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with VerbalStore(tmp_path / "v.db") as store:
        store.put(("t",), "a", {"text": "zebra"}, index=["text"])
        store.put(("t",), "b", {"text": "zebra"}, index=False)
        store.put(("t",), "c", {"text": "piano"})
        store.put(("t",), "c", {"text": "piano and violin"})
        before = [i.dict() for i in store.search((), query="zebra")]
    with pytest.raises(StoreError):
        store.get(("t",), "a")
    with VerbalStore(str(tmp_path / "v.db")) as store:
        assert [i.dict() for i in store.search((), query="zebra")] == before
        assert [i["key"] for i in before] == ["a", "c", "b"] and before[2]["score"] is None


WRITER = """
import sys
from verbal.memory.langgraph_store import VerbalStore
path, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with VerbalStore(path) as store:
    for i in range(count):
        store.put(("w", who), f"k{i}", {"n": i, "text": "x" * 200})
        store.put(("shared",), "last", {"who": who, "n": i})
        print(i, flush=True)
"""


def writer(path: Path, who: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), who, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "v.db"
    with writer(path, "a", 100_000) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()  # what it had said before it died
    acknowledged = int([line for line in said if line.endswith("\n")][-1])
    with VerbalStore(path) as store:
        held = {i.key: i.value["n"] for i in store.search(("w", "a"), limit=1_000_000)}
        assert len(held) - 1 <= acknowledged + 1 and all(held[f"k{i}"] == i for i in range(acknowledged + 1))
        last = store.get(("shared",), "last")
        assert last is not None and last.value["n"] in (acknowledged, acknowledged + 1)
        store.put(("w", "a"), "after", {"n": -1})
        assert store.search(("w", "a"), query="n -1", limit=1)[0].key


def test_two_processes_write_one_store(tmp_path: Path) -> None:
    path = tmp_path / "v.db"
    with VerbalStore(path) as store:
        both = [writer(path, who, 40) for who in "ab"]
        for process in both:
            process.communicate(timeout=120)
            assert process.returncode == 0
        for who in "ab":
            assert [i.value["n"] for i in store.search(("w", who), limit=100)] == list(range(40))
        assert store.get(("shared",), "last").value["n"] == 39  # type: ignore[union-attr]
    with Store(path) as base:
        ops = [op for _, op in base.ops("langgraph")]
        assert sum(op.op == "ADD" for op in ops) == 81 and not [op for op in ops if op.op == "NOOP"]


def test_threads_and_two_stores_of_one_process(base: Store) -> None:
    stores = [VerbalStore(base), VerbalStore(base)]

    def work(i: int) -> None:
        store = stores[i % 2]
        for n in range(20):
            store.put(("t", str(i)), f"k{n % 5}", {"n": n, "text": f"word{n}"})
            store.put(("t",), "counter", {"by": i, "n": n})
            if n % 7 == 3:
                store.delete(("t", str(i)), f"k{n % 5}")
                assert store.search(("t",), query=f"word{n}", limit=3)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [[(i.namespace, i.key, i.value) for i in s.search((), limit=100)] for s in (*stores, VerbalStore(base))]
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == 4 * 4 + 1


def test_a_failing_store_loses_nothing_and_says_so(base: Store) -> None:
    store = VerbalStore(base)
    store.put(("a",), "k", {"n": 1})
    with base._database.write() as db:
        db.change(
            "CREATE TRIGGER full BEFORE INSERT ON ops BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END", ()
        )
    with pytest.raises(StoreError, match="disk is full"):
        store.batch([PutOp(("a",), "k", {"n": 2}), PutOp(("a",), "k2", {"n": 3})])
    assert [i.value for i in store.search(("a",))] == [{"n": 1}]
    with base._database.write() as db:
        db.change("DROP TRIGGER full", ())
    store.put(("a",), "k", {"n": 2})
    assert [i.value for i in store.search(("a",))] == [{"n": 2}]


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


@settings(max_examples=80, deadline=None)
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


# where InMemoryStore slips --------------------------------------------------------------------------------------------


def test_slips_of_langgraphs_own_that_are_not_ours(base: Store) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [list(v) for v in HashingEmbedder(64).embed(texts)]

    config: Any = {"dims": 64, "embed": embed, "fields": ["text"]}
    theirs, ours = InMemoryStore(index=config), VerbalStore(base, index=config)
    twice = [PutOp(("t",), "a", {"text": "zebra"}), PutOp(("t",), "b", {"text": "zebra"})]
    with pytest.raises(ValueError, match="Number of embeddings"):
        theirs.batch(twice)
    ours.batch(twice)
    assert [(i.key, i.score) for i in ours.search((), query="zebra")] == [("a", 1.0), ("b", 1.0)]
    for store in (theirs, ours):
        store.put(("t",), "a", {"text": "zebra"})
        store.put(("t",), "a", {"text": "secret"}, index=False)
    assert theirs.search((), query="zebra")[0].score == pytest.approx(1), "the vector of words that are gone"
    assert [(i.key, i.score) for i in ours.search((), query="zebra")] == [("b", 1.0), ("a", None)]
    with pytest.raises(TypeError):
        theirs.search((), filter={"missing": {"$gt": 1}})
    assert ours.search((), filter={"missing": {"$gt": 1}}) == [] == ours.search((), filter={"text": {"$gt": 1}})
    assert [i.key for i in ours.search((), filter={"text": {"$lt": "t"}})] == ["a"], "words compare as text"
    theirs.get(("never",), "k")
    assert ("never",) in theirs.list_namespaces() and ours.get(("never",), "k") is None
    assert ours.list_namespaces() == [("t",)]


def test_pages_of_a_search_by_meaning_never_overlap(base: Store) -> None:
    store = VerbalStore(base, index={"embed": "hashing", "fields": ["text"]})
    for i in range(23):
        store.put(("t", str(i % 3)), f"k{i:02d}", {"text": f"cat {i % 4}"} if i % 5 else {})
    pages = [store.search((), query="cat 2", limit=4, offset=o) for o in range(0, 24, 4)]
    assert [(i.key, i.score) for page in pages for i in page] == [
        (i.key, i.score) for i in store.search((), query="cat 2", limit=100)
    ]
    assert len({i.key for page in pages for i in page}) == 23


# embedders ------------------------------------------------------------------------------------------------------------


class Counting(Embeddings):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return [[float(len(t)), 3.0 * t.count("a"), 0.0] for t in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


async def test_any_embedder_of_langgraph_fits(base: Store) -> None:
    async def coroutine(texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return Counting().embed_documents(list(texts))

    counting = Counting()
    for name, embed in (("class", counting), ("coroutine", coroutine), ("function", Counting().embed_documents)):
        store = VerbalStore(base, name, index={"dims": 3, "embed": embed, "fields": ["text"]})
        await store.aput(("t",), "many", {"text": "aaaa"})
        await store.aput(("t",), "none", {"text": "bbbb"})
        await store.aput(("t",), "zero", {"text": ""})
        found = await store.asearch(("t",), query="aaa")
        assert [i.key for i in found] == ["many", "none", "zero"]
        assert found[0].score == pytest.approx(1, abs=1e-5) and found[2].score == 0.0
    assert store.embeddings is not None
    with pytest.raises(ValueError, match="async"):
        only = VerbalStore(base, "coroutine", index={"embed": coroutine, "fields": ["text"]})
        await asyncio.to_thread(only.search, ("t",), query="aaa")
    assert sorted(counting.texts) == ["", "aaa", "aaaa", "bbbb"], "each text once"


def test_vectors_are_made_once_and_when_they_are_needed(base: Store) -> None:
    counting = Counting()
    store = VerbalStore(base, index={"embed": counting, "fields": ["text"]})
    store.batch([PutOp(("t",), f"k{i}", {"text": "same words"}) for i in range(5)])
    store.batch([GetOp(("t",), "k1")])
    assert counting.texts == []
    for _ in range(3):
        assert len(store.search(("t",), query="same")) == 5
    assert counting.texts.count("same words") == 1
    store.put(("t",), "k1", {"text": "other"})
    store.search(("t",), query="same")
    assert counting.texts.count("same words") == 1 and counting.texts.count("other") == 1


def test_vectors_outlive_the_process_under_the_name_of_their_embedder(tmp_path: Path) -> None:
    path, counting = tmp_path / "v.db", Counting()

    def texts(**index: Any) -> list[str]:
        counting.texts.clear()
        with VerbalStore(path, index={"embed": counting, "fields": ["text"], **index}) as store:
            found = store.search(("t",), query="aa")
            assert {i.key: i.score is None for i in found} == {"a": False, "many": False, "none": True}
            best = max(i.score for i in found if i.score is not None)
            assert found[0].score == best and best > 0.9
        return sorted(counting.texts)

    with VerbalStore(path, index={"embed": counting, "fields": ["text"], "name": "counting-3"}) as store:
        store.put(("t",), "a", {"text": "a", "title": "b"})
        store.put(("t",), "many", {"text": "aab", "parts": ["xaa", "yaaa"]}, index=["parts[*]", "text"])
        store.put(("t",), "none", {"title": "b"}, index=["text"])
    every = ["a", "aa", "aab", "xaa", "yaaa"]
    assert texts(name="counting-3") == every
    assert texts(name="counting-3") == ["aa"], "kept"
    assert texts(name="counting-4") == every and texts() == every and texts() == every
    assert texts(name="counting-3", fields=["title"]) == ["aa", "aab", "b", "xaa", "yaaa"], "other fields"
    assert texts(name="counting-3") == ["aa"]
    with VerbalStore(path, index={"embed": counting, "fields": ["text"], "name": "counting-3"}) as store:
        store.put(("t",), "a", {"text": "aaa"})
    assert texts(name="counting-3") == ["aa", "aaa"] and texts(name="counting-3") == ["aa"]
    with Store(path) as base:
        bad = [row._replace(vector=row.vector[:-4]) for row in base.vectors("langgraph", "counting-3 of text")]
        base.log_ops("langgraph", [], vectors=bad)
    assert texts(name="counting-3") == ["aa", "aaa", "aab", "xaa", "yaaa"], "damaged ones are made again"


def test_wrong_embedders_are_refused(base: Store) -> None:
    with pytest.raises(UnknownName):
        VerbalStore(base, index={"embed": "hashin"})
    for embed in ("hashing", Counting()):
        store = VerbalStore(base, index={"embed": embed, "dims": 12})
        store.put(("t",), "k", {"n": 1})
        with pytest.raises(ConfigError, match="12 numbers were expected"):
            store.search((), query="x")
    assert store.get(("t",), "k") is not None
    own = VerbalStore(base, index={"embed": HashingEmbedder(32)})
    assert own.search((), query="n")[0].key == "k" and own.embeddings is None


def test_a_reflection_memory_beside_it_sees_none_of_it(base: Store) -> None:
    VerbalStore(base).put(("t",), "k", {"text": "vip means tier = 3"})
    memory = ExactMemory(base)
    try:
        assert asyncio.run(memory.search("who is vip", 5)) == []
    finally:
        memory.close()
