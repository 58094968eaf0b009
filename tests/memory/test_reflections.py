"""The memory over store, index and embedder: policies, freezing, other writers, plain indexes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from verbal.errors import ConfigError, ModelError, StoreError, UnknownName
from verbal.memory.exact import ExactIndex, ExactMemory
from verbal.memory.hashing import HashingEmbedder
from verbal.memory.reflections import ReflectionMemory
from verbal.store import Store
from verbal.store_memory import as_bytes
from verbal.types import MemoryOp, Reflection, Task


def add(text: str, task: str | None = None, id: str = "") -> MemoryOp:
    return MemoryOp(op="ADD", item=Reflection(id=id, text=text, task=task))


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "v.db") as store:
        yield store


async def test_last_gives_the_newest_first(store: Store) -> None:
    memory = ExactMemory(store, policy="last")
    await memory.apply([add(f"plan {i}", task=f"t{i % 2}") for i in range(1, 6)])
    assert [r.id for r in await memory.search("anything", 3)] == ["r5", "r4", "r3"]
    await memory.apply([MemoryOp(op="RETIRE", reflection="r5"), MemoryOp(op="TAG", reflection="r1", tag="shown")])
    assert [r.id for r in await memory.search("", 3)] == ["r4", "r3", "r2"]
    assert [r.id for r in await memory.search("", 9, exclude_tasks=["t0"])] == ["r3", "r1"]


async def test_last_of_the_same_task_as_in_reflexion(store: Store) -> None:
    memory = ExactMemory(store, policy="last", scope="task")
    await memory.apply([add(f"plan {i}", task=f"t{i % 2}") for i in range(1, 12)])
    assert [r.id for r in await memory.search("", 3, task="t1")] == ["r11", "r9", "r7"], "the last 3 of 6"
    assert await memory.search("", 3, task="t7") == []
    assert await memory.search("", 3, task="t1", exclude_tasks=["t1"]) == []
    with pytest.raises(ConfigError, match="not told the task"):
        await memory.search("", 3)


async def test_the_token_cap_holds(store: Store) -> None:
    memory = ExactMemory(store, token_cap=30)
    await memory.apply([add("vip rule " + c * n) for c, n in zip("abcd", (40, 400, 40, 40), strict=True)])
    assert [r.id for r in await memory.search("vip rule", 9)] == ["r1", "r3"]


async def test_without_the_filter_everything_near_is_shown(store: Store) -> None:
    memory = ExactMemory(store, min_overlap=0)
    await memory.apply([add("vip means tier = 3", "t1"), add("late order means due"), add("churn means gone", "t2")])
    found = [r.id for r in await memory.search("who is vip", 9)]
    assert found[0] == "r1" and sorted(found) == ["r1", "r2", "r3"]
    assert [r.id for r in await memory.search("nothing of it", 9, exclude_tasks=["t1", "t2"])] == ["r2"]


async def test_a_frozen_memory_stays_as_it_was(store: Store) -> None:
    memory = ExactMemory(store)
    version = await memory.apply([add("vip means tier = 3")])
    await memory.apply([MemoryOp(op="RETIRE", reflection="r1"), add("vip means tier = 4")])
    frozen = ExactMemory(store, version=version)
    assert [r.text for r in await frozen.search("vip", 3)] == ["vip means tier = 3"]
    assert [r.text for r in await memory.search("vip", 3)] == ["vip means tier = 4"]
    assert len(frozen.history()) == version == frozen.version
    with pytest.raises(StoreError, match="frozen at version"):
        await frozen.apply([add("x")])


async def test_another_writer_of_the_same_store_is_seen(store: Store) -> None:
    one, other = ExactMemory(store), ExactMemory(store)
    await one.apply([add("vip means tier = 3")])
    assert [r.id for r in await other.search("vip", 3)] == ["r1"]
    await other.apply([add("late order means due"), MemoryOp(op="RETIRE", reflection="r1")])
    assert one.version < other.version
    assert await one.search("vip", 3) == []
    assert (await one.refresh(), one.items()) == (other.version, other.items())


async def test_an_id_of_ones_own_makes_a_repeat_harmless(store: Store) -> None:
    memory = ExactMemory(store)
    for _ in range(2):
        await memory.apply([add("vip means tier = 3", id="run/1/t1")])
    assert list(memory.items()) == ["run/1/t1"]
    assert memory.history()[-1].reason == "ADD: the id 'run/1/t1' is taken"


async def test_no_operations_are_no_version(store: Store) -> None:
    memory = ExactMemory(store)
    assert await memory.apply([]) == 0
    assert store.memories() == {}


async def test_the_embedder_is_recorded_and_another_one_is_refused(store: Store) -> None:
    small = ExactMemory(store, embedder=HashingEmbedder(16))
    version = await small.apply([add("vip means tier = 3"), add("late order means due"), add("old means gone")])
    assert small.history()[0].reason == "embedder hashing-16"
    with pytest.raises(StoreError, match="made with the embedder 'hashing-16', not with 'hashing-384'"):
        ExactMemory(store)
    await small.apply([MemoryOp(op="RETIRE", reflection="r3")])
    large = ExactMemory(store, reembed=True)
    assert {r.id for r in await large.search("vip orders that are late", 3)} == {"r1", "r2"}
    assert large.verify() == [] and large.history()[-1].reason == "embedder hashing-384"
    kept = [(v.version, v.embedder, len(v.vector)) for v in store.vectors("main")]
    assert kept == [*((v, "hashing-16", 64) for v in (2, 3, 4)), *((v, "hashing-384", 1536) for v in (2, 3))]
    await large.apply([add("churn means gone")])
    for work in (small.search("churn", 3), small.apply([add("x")]), small.search("churn", 3)):
        with pytest.raises(StoreError, match="made with the embedder 'hashing-384', not with 'hashing-16'"):
            await work
    for embedder in ("hashing/16", "hashing"):  # an earlier version can be opened as it was, and as it is now
        frozen = ExactMemory(store, version=version, embedder=embedder)
        assert [r.id for r in await frozen.search("what is vip", 3)] == ["r1"] and frozen.verify() == []
    with pytest.raises(StoreError, match="frozen at version"):
        frozen.rebuild("hashing/32")


class Table:
    """An embedder that gives what it is told to."""

    name, dimension = "table", 2

    def __init__(self, **rows: object) -> None:
        self.rows = rows

    def embed(self, texts: Sequence[str]) -> list[object]:
        return [self.rows.get(text.split()[0], (1.0, 0.0)) for text in texts]


async def test_the_same_embedder_of_another_dimension_is_refused(store: Store) -> None:
    memory = ExactMemory(store, embedder=Table())  # type: ignore[arg-type]
    await memory.apply([add("vip means tier = 3")])
    other = Table(vip=(1.0, 0.0, 0.0))
    other.dimension = 3
    with pytest.raises(StoreError, match="made with 'table' of 2 numbers, not of 3") as told:
        ExactMemory(store, embedder=other)  # type: ignore[arg-type]
    assert "verbal memory rebuild main --embedder SPEC" in told.value.todo


BAD = {
    "nan": (float("nan"), 0.0), "inf": (0.0, float("inf")), "large": (1e39, 0.0), "zero": (0.0, 0.0),
    "short": (1.0,), "long": (1.0, 0.0, 0.0), "text": ("a", "b"), "none": None,
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
async def test_a_vector_that_is_none_is_refused_before_anything_is_logged(store: Store, bad: str) -> None:
    memory = ExactMemory(store, embedder=Table(bad=BAD[bad]))  # type: ignore[arg-type]
    await memory.apply([add("good words"), add("other good words")])
    history = memory.history()
    with pytest.raises(ModelError, match="embedder 'table'"):
        await memory.apply([add("good again"), add("bad words")])
    assert memory.history() == history and len(store.vectors("main")) == 2
    assert len(await memory.search("words", 5)) == 2


async def test_a_vector_too_few_is_refused(store: Store) -> None:
    class Short(Table):
        def embed(self, texts: Sequence[str]) -> list[object]:
            return super().embed(texts)[1:]

    with pytest.raises(ModelError, match="1 vectors came for 2 texts"):
        await ExactMemory(store, embedder=Short()).apply([add("one"), add("two")])  # type: ignore[arg-type]
    assert store.memories() == {}


async def test_rebuild_with_an_embedder_that_fails_changes_nothing(store: Store) -> None:
    memory = ExactMemory(store)
    await memory.apply([add("vip means tier = 3"), add("bad order means due")])
    history = memory.history()
    with pytest.raises(ModelError):
        memory.rebuild(Table(bad=BAD["nan"]))  # type: ignore[arg-type]
    assert memory.history() == history and memory.embedder == "hashing-384"
    assert [r.id for r in await memory.search("vip", 3)] == ["r1"] and memory.verify() == []


async def test_what_is_on_trial_is_embedded_anew_too(store: Store) -> None:
    memory = ExactMemory(store, quarantine=True)
    await memory.apply([add("vip means tier = 3"), add("vip order means due"), add("late order means due")])
    await memory.apply([MemoryOp(op="TAG", reflection="r1", tag="active", author="credit")])
    memory.rebuild("hashing/32")
    for opened in (memory, ExactMemory(store, embedder="hashing/32")):
        assert [r.id for r in await opened.search("what is vip", 3)] == ["r1"]
        found = await opened.search("how many vip orders are late?", 3, status="quarantined")
        assert {r.id for r in found} == {"r2", "r3"}
        assert opened.verify() == []
    assert {v.version: len(v.vector) // 4 for v in store.vectors("main", "hashing-32")} == {2: 32, 3: 32, 4: 32}


async def test_the_log_holds_no_vectors_and_the_store_holds_each_once(store: Store) -> None:
    memory = ExactMemory(store)
    await memory.apply([add("vip means tier = 3"), add("late order means due"), add("vip again")])
    await memory.apply([MemoryOp(op="UPDATE", reflection="r1", item=Reflection(id="r1", text="vip means tier = 4"))])
    await memory.apply([add("again", id="r1")])
    assert all(op.item is None or op.item.embedding == () for op in memory.history())
    assert all(item.embedding == () for item in memory.items().values())
    stored = {v.version: v.vector for v in store.vectors("main", "hashing-384")}
    assert list(stored) == [2, 3, 4, 5], "none for the operation that counted as NOOP"
    assert stored[5] == as_bytes(HashingEmbedder().embed(["vip means tier = 4"])[0])


async def test_a_store_whose_operations_hold_their_vectors_still_opens(store: Store) -> None:
    texts = ["vip means tier = 3", "late order means due"]
    vectors = dict(zip(["late order means due", "vip means tier = 3"], [(1.0, 0.0), (0.0, 1.0)], strict=True))
    items = [Reflection(id=f"r{i}", text=t, embedding=vectors[t]) for i, t in enumerate(texts, 1)]
    ops = [MemoryOp(op="ADD", reflection=item.id, item=item) for item in items]
    store.log_ops("main", [MemoryOp(op="NOOP", reason="embedder table", author="memory"), *ops])

    class Silent(Table):
        def embed(self, texts: Sequence[str]) -> list[object]:
            assert texts == ["what is vip?"], "what is kept is not made again"
            return [(0.0, 1.0)]

    memory = ExactMemory(store, embedder=Silent(), min_overlap=0)  # type: ignore[arg-type]
    assert memory.verify() == []
    assert [r.id for r in await memory.search("what is vip?", 2)] == ["r1", "r2"]
    assert all(item.embedding == () for item in memory.items().values())
    assert store.logged_vectors("main") == {i + 1: as_bytes(item.embedding) for i, item in enumerate(items, 1)}


async def test_items_without_vectors_are_embedded_for_this_process(store: Store) -> None:
    store.log_ops("main", [add("vip means tier = 3", id="a"), add("late order means due", id="b")])
    memory = ExactMemory(store)
    assert [r.id for r in await memory.search("vip", 2)] == ["a"] and memory.verify() == []
    assert store.vectors("main") == []


async def test_a_writer_that_was_overtaken_embeds_no_text_twice(store: Store) -> None:
    class Racing(HashingEmbedder):
        seen: ClassVar[list[str]] = []

        def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
            self.seen.extend(texts)
            if len(self.seen) == 1:
                store.log_ops("main", [add("someone was faster")])
            return super().embed(texts)

    memory = ExactMemory(store, embedder=Racing())
    await memory.apply([add("vip means tier = 3")])
    assert Racing.seen == ["vip means tier = 3", "someone was faster"]
    assert {r.id: r.text for r in memory.items().values()} == {"r1": "someone was faster", "r2": "vip means tier = 3"}
    assert memory.verify() == []


def test_wrong_names_are_told(store: Store) -> None:
    for options in ({"policy": "similr"}, {"scope": "taks"}, {"embedder": "hashin"}):
        with pytest.raises(UnknownName, match="did you mean"):
            ExactMemory(store, **options)


class ForgetfulIndex:
    """An index that keeps the contract, but fails or loses what it is told to."""

    def __init__(self) -> None:
        self.inner, self.fail, self.lose = ExactIndex(), 0, set[str]()

    def _count(self) -> None:
        if self.fail:
            self.fail -= 1
            raise StoreError("the disk is full")

    def put(self, ids: Sequence[str], vectors: Sequence[Sequence[float]]) -> None:
        self._count()
        kept = [(i, v) for i, v in zip(ids, vectors, strict=True) if i not in self.lose]
        self.inner.put([i for i, _ in kept], [v for _, v in kept])

    def drop(self, ids: Sequence[str]) -> None:
        self.inner.drop(ids)

    def nearest(self, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        self._count()
        return self.inner.nearest(vector, k)

    def close(self) -> None:
        self.inner.close()


async def test_an_index_that_fails_loses_nothing(store: Store) -> None:
    index = ForgetfulIndex()
    memory = ReflectionMemory(store, index, min_coverage=0.0)
    await memory.apply([add("vip means tier = 3"), add("vip guest means tier = 4")])
    index.fail = 1
    version = await memory.apply([add("vip club means tier = 5")])
    assert version == len(memory.history()), "the operation is logged although the index failed"
    assert {r.id for r in await memory.search("vip", 3)} == {"r1", "r2", "r3"}
    index.fail = 1
    assert {r.id for r in await memory.search("vip", 3)} == {"r1", "r2", "r3"}, "filled again from the log"
    index.fail = 5
    with pytest.raises(StoreError, match="disk is full"):
        await memory.search("vip", 3)
    index.fail = 0
    assert {r.id for r in await memory.search("vip", 3)} == {"r1", "r2", "r3"}
    assert memory.verify() == []
    memory.close()


async def test_verify_names_what_is_lost(store: Store) -> None:
    index = ForgetfulIndex()
    index.lose = {"r2"}
    memory = ReflectionMemory(store, index)
    await memory.apply([add("vip means tier = 3"), add("late order means due"), add("late order means due")])
    assert memory.verify() == ["r2"], "also though r3 has the same words"
    index.lose = set()
    memory.rebuild()
    assert memory.verify() == []


async def test_words_of_a_sealed_task_never_get_in(tmp_path: Path) -> None:
    with Store(tmp_path / "sealed.db") as store:
        task = Task(id="t1", kind="x", messages=(), gold="secret", split="test")
        store.put_tasks([task, task.replace(id="t2", split="dev")])
        memory = ExactMemory(store, name="m")
        ops = [MemoryOp(op="ADD", item=Reflection(id="", text=f"from {t}", task=t)) for t in ("t1", "t2")]
        await memory.apply(ops)
        assert [i.text for i in memory.items().values()] == ["from t2"]
        assert any(op.op == "NOOP" and "sealed" in op.reason for op in memory.history())
        memory.close()


async def test_an_embedder_may_embed_what_is_asked_in_its_own_way(tmp_path: Path) -> None:
    asked: list[str] = []

    class Two(HashingEmbedder):
        def embed_query(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
            asked.extend(texts)
            return self.embed(texts)

    with Store(tmp_path / "v.db") as store:
        memory = ExactMemory(store, embedder=Two(), policy="nearest")
        await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text="alpha beta"))])
        assert [r.id for r in await memory.search("beta gamma", 3)] == ["r1"]
        memory.close()
    assert asked == ["beta gamma"]
