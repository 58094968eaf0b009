"""What a store promises of memories, kept by every database: vectors beside operations, written together or not."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import pytest

from verbal.errors import StoreError
from verbal.parts import make_part
from verbal.store import Store
from verbal.store_memory import StoredVector, as_bytes
from verbal.types import MemoryOp, Reflection, Task


@pytest.fixture
def store(store_url: str):
    with Store(store_url) as opened:
        yield opened


def row(version: int, embedder: str, *numbers: float) -> StoredVector:
    return StoredVector(version, embedder, as_bytes(numbers))


def test_vectors_are_kept_with_the_operations_or_not_at_all(store: Store) -> None:
    op = MemoryOp(op="ADD", item=Reflection(id="r1", text="x"))
    with pytest.raises(StoreError, match="not 7"):
        store.log_ops("m", [op], expect=7, vectors=[row(1, "e", 1.0)])
    assert store.vectors("m") == [] and store.ops("m") == [] and store.dimension("m", "e") == 0
    store.log_ops("m", [op, op], expect=0, vectors=[row(2, "e", 0.5, -1.5), row(1, "e", 1.0, 0.0)])
    store.log_ops("other", [op], vectors=[row(1, "e", 9.0)])
    assert store.vectors("m") == [row(1, "e", 1.0, 0.0), row(2, "e", 0.5, -1.5)]
    assert store.vectors("m")[1].vector == struct.pack("<2f", 0.5, -1.5)
    assert (store.dimension("m", "e"), store.dimension("other", "e"), store.dimension("m", "f")) == (2, 1, 0)
    with pytest.raises(RuntimeError), store.transaction():
        store.log_ops("m", [op], vectors=[row(3, "e", 1.0, 1.0)])
        raise RuntimeError
    assert store.memories() == {"m": 2, "other": 1} and len(store.vectors("m")) == 2


def test_vectors_are_narrowed_and_replaced(store: Store) -> None:
    op, count = MemoryOp(op="ADD", item=Reflection(id="", text="x")), 1203
    store.log_ops("m", [op] * count, vectors=[row(v, "e", v) for v in range(1, count + 1)])
    store.log_ops("m", [MemoryOp(op="NOOP")], vectors=[row(1, "d\x00 \ud800", 1.0, 2.0), row(2, "e", -2.0)])
    assert [v.version for v in store.vectors("m", "e")] == list(range(1, count + 1))
    assert store.vectors("m", versions=[2, 1, 2, 5000]) == [
        row(1, "d\x00 \ud800", 1.0, 2.0), row(1, "e", 1.0), row(2, "e", -2.0)
    ]  # fmt: skip
    assert [v.version for v in store.vectors("m", "e", after=1200, upto=1202)] == [1201, 1202]
    odd = range(1, count, 2)
    assert [v.version for v in store.vectors("m", "e", versions=odd)] == list(odd)
    assert store.vectors("m", versions=[]) == []


def test_the_vectors_of_a_log_are_those_of_the_embedder_of_their_time(store: Store) -> None:
    def add(**fields: object) -> MemoryOp:
        return MemoryOp(op="ADD", item=Reflection(id="", text="embedder x", **fields))  # type: ignore[arg-type]

    def change(name: str) -> MemoryOp:
        return MemoryOp(op="NOOP", reason=f"embedder {name}", author="memory")

    mine = MemoryOp(op="NOOP", reason="embedder of mine", author="user")
    store.log_ops("m", [change("a"), add(), add(embedding=(3.0,)), mine], vectors=[row(2, "a", 2.0)])
    store.log_ops("m", [change("b"), add()], vectors=[row(2, "b", -2.0), row(6, "b", 6.0)])
    assert store.logged_vectors("m") == {v: as_bytes([float(v)]) for v in (2, 3, 6)}
    assert store.logged_vectors("m", after=2) == {v: as_bytes([float(v)]) for v in (3, 6)}
    assert store.embedded_in_ops("m") == {3: as_bytes([3.0])}


async def test_a_memory_finds_by_the_vectors_that_the_store_keeps(store: Store) -> None:
    texts = [f"word{i} thing{i % 3} means column{i}" for i in range(40)]
    memory = make_part("memory", "exact", store=store, min_coverage=0.0)
    await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text=text)) for text in texts])
    found = [r.id for r in await memory.search("what is thing1 of word7?", 5)]
    assert found[0] == "r8" and len(found) == 5 and len(store.vectors("main")) == 40

    class Silent:
        name, dimension = "hashing-384", 384

        def embed(self, given: list[str]) -> object:
            assert given == ["what is thing1 of word7?"], "what is kept is not made again"
            return make_part("memory", "hashing").embed(given)

    again = make_part("memory", "exact", store=store, embedder=Silent(), min_coverage=0.0)
    assert [r.id for r in await again.search("what is thing1 of word7?", 5)] == found
    again.rebuild("hashing/64")
    assert again.verify() == [] and len(store.vectors("main", "hashing-64")) == 40
    with pytest.raises(StoreError, match="made with the embedder 'hashing-64', not with 'hashing-384'"):
        await memory.search("word1", 1)


def test_sealed_tasks_are_named(store: Store) -> None:
    tasks = [Task(id=f"t{i}", kind="x", messages=(), split="test" if i % 2 else "train") for i in range(1100)]
    store.put_tasks(tasks)
    assert store.sealed(["t1", "t2", "t7", "nobody"]) == {"t1", "t7"}
    assert store.sealed(t.id for t in tasks) == {t.id for t in tasks if t.split == "test"}
    assert store.sealed([]) == set()


def test_a_store_has_an_identity_of_its_own(store: Store, store_url: str, tmp_path: Path) -> None:
    with Store(store_url) as again, Store(tmp_path / "another.db") as other:
        assert store.identity == again.identity == store.identity != other.identity
        assert len(store.identity) == 32


def test_a_store_that_was_made_before_vectors_had_a_table(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with Store(path) as store:
        store.log_ops("m", [MemoryOp(op="ADD", item=Reflection(id="r1", text="x", embedding=(1.0, 0.0)))])
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE vectors")
    db.close()
    with Store(path) as store:
        assert store.vectors("m") == [] and store.embedded_in_ops("m") == {1: as_bytes([1.0, 0.0])}
        store.log_ops("m", [MemoryOp(op="NOOP")], vectors=[row(1, "e", 1.0)])
        assert store.vectors("m") == [row(1, "e", 1.0)]
