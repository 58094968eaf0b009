"""The Chroma index: one owner a folder, rebuilt from the log whenever it is missing, damaged, old or foreign."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from verbal.errors import StoreError
from verbal.memory.chroma import ChromaIndex, ChromaMemory
from verbal.memory.exact import ExactMemory
from verbal.memory.hashing import HashingEmbedder
from verbal.memory.reflections import ReflectionMemory
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

QUESTIONS = [f"what about word{i} and thing{i % 7}?" for i in range(12)]


def ops(count: int, start: int = 0) -> list[MemoryOp]:
    items = [f"word{i} thing{i % 7} means column{i} = {i}" for i in range(start, start + count)]
    return [MemoryOp(op="ADD", item=Reflection(id="", text=t, task=f"t{i % 5}")) for i, t in enumerate(items)]


def chroma(store: Store, name: str = "main", **options: Any) -> ChromaMemory:
    return ChromaMemory(store, name, min_coverage=0.0, **options)


async def answers(memory: ReflectionMemory) -> list[list[str]]:
    return [[r.id for r in await memory.search(q, 5, exclude_tasks=["t3"])] for q in QUESTIONS]


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "v.db") as store:
        yield store


@pytest.fixture
def filled(store: Store) -> list[list[str]]:
    """A closed memory of 150 items (more than Chroma keeps unindexed), some retired; what it answers."""

    async def fill() -> list[list[str]]:
        memory = chroma(store)
        await memory.apply(ops(150))
        await memory.apply([MemoryOp(op="RETIRE", reflection=f"r{i}") for i in range(5, 20)])
        found = await answers(memory)
        memory.close()
        return found

    found = asyncio.run(fill())
    assert sum(map(len, found)) >= len(QUESTIONS)
    return found


def folder(store: Store) -> Path:
    return store.path.parent / "v.memory" / "main"


def files(path: Path) -> Path:
    (found,) = path.glob("chroma-*")
    return found


async def reopened(store: Store, expected: list[list[str]]) -> None:
    memory = chroma(store)
    assert await answers(memory) == expected
    assert memory.verify() == []
    memory.close()


def delete_folder(path: Path) -> None:
    shutil.rmtree(path)


def delete_state(path: Path) -> None:
    (path / "state.json").unlink()


def cut_state(path: Path) -> None:
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text[: len(text) // 2])


def delete_chroma(path: Path) -> None:
    shutil.rmtree(files(path))


def spoil_chroma(path: Path) -> None:
    (files(path) / "chroma.sqlite3").write_bytes(b"this is no database" * 100)


def other_version(path: Path) -> None:
    state = json.loads((path / "state.json").read_text())
    state["holds"]["version"] -= 3
    (path / "state.json").write_text(json.dumps(state))


def lose_vectors(path: Path) -> None:
    index = ChromaIndex(path)
    index.drop([f"r{i}" for i in range(30, 60)])
    index.close()


def flip_state(path: Path) -> None:
    flip(path / "state.json")


def flip_database(path: Path) -> None:
    flip(files(path) / "chroma.sqlite3")


def flip(path: Path) -> None:
    """Inverts a few bytes all over a file."""
    data = bytearray(path.read_bytes())
    for part in range(1, 10):
        data[len(data) * part // 10] ^= 0xFF
    path.write_bytes(data)


DAMAGES = [
    flip_state,
    flip_database,
    delete_folder,
    delete_state,
    cut_state,
    delete_chroma,
    spoil_chroma,
    other_version,
    lose_vectors,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_whatever_happens_to_the_folder_search_is_the_same(store: Store, damage, filled) -> None:
    damage(folder(store))
    await reopened(store, filled)
    await reopened(store, filled)


VECTORS = ["data_level0.bin", "header.bin", "index_metadata.pickle", "length.bin", "link_lists.bin"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """A folder with a store of 1,100 items, of which Chroma has written files of vectors; what it answers."""
    path = tmp_path_factory.mktemp("large")

    async def fill() -> list[list[str]]:
        with Store(path / "v.db") as store:
            memory = chroma(store)
            lot = random.Random(0)
            texts = [" ".join(f"word{lot.randrange(400)}" for _ in range(8)) for _ in range(1100)]
            await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text=t)) for t in texts])
            found = await answers(memory)
            memory.close()
            assert sorted(p.name for p in files(folder(store)).glob("*/*")) == VECTORS
            return found

    return path, asyncio.run(fill())


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("damage", [flip, Path.unlink])
async def test_any_file_of_vectors_may_be_spoilt(tmp_path: Path, large, name: str, damage) -> None:
    path, expected = large
    shutil.copytree(path, tmp_path / "copy")
    with Store(tmp_path / "copy" / "v.db") as store:
        (broken,) = files(folder(store)).glob(f"*/{name}")
        damage(broken)
        await reopened(store, expected)
        assert not broken.exists(), "it was made anew elsewhere"


async def test_what_is_sound_is_not_made_anew(tmp_path: Path, large) -> None:
    path, expected = large
    shutil.copytree(path, tmp_path / "copy")
    with Store(tmp_path / "copy" / "v.db") as store:
        before = files(folder(store))
        await reopened(store, expected)
        state = json.loads((before.parent / "state.json").read_text())
        del state["database"]  # as after a process that was killed
        (before.parent / "state.json").write_text(json.dumps(state))
        await reopened(store, expected)
        assert files(folder(store)) == before


_OTHER = """
import asyncio, sys
from verbal.memory.exact import ExactMemory
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

async def main():
    memory = ExactMemory(Store(sys.argv[1]))
    for line in sys.stdin:
        item = Reflection(id="", text=line.strip())
        print(await memory.apply([MemoryOp(op="RETIRE", reflection="r1"), MemoryOp(op="ADD", item=item)]), flush=True)

asyncio.run(main())
"""


async def test_what_another_process_writes_is_found(store: Store, filled, root: Path) -> None:
    memory = chroma(store)
    env = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", _OTHER, str(store.path)]
    with subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        for i in (700, 701):
            other.stdin.write(f"word{i} means column{i}\n")
            other.stdin.flush()
            version = int(other.stdout.readline())
            assert [r.text for r in await memory.search(f"word{i}", 3)] == [f"word{i} means column{i}"]
            assert memory.version == version
            await memory.apply(ops(1, start=i + 100))
        other.stdin.close()
    assert "r1" not in {i for found in await answers(memory) for i in found}
    assert memory.verify() == []
    assert await answers(memory) == await answers(ExactMemory(store, min_coverage=0.0))
    memory.close()


async def test_it_finds_what_exact_search_finds(store: Store, filled) -> None:
    assert await answers(ExactMemory(store, min_coverage=0.0)) == filled


async def test_an_index_of_another_store_is_not_believed(store: Store, tmp_path: Path, filled) -> None:
    with Store(tmp_path / "other.db") as other:
        memory = chroma(other, folder=tmp_path / "v.memory")
        assert await memory.search(QUESTIONS[0], 5) == []
        memory.close()
    await reopened(store, filled)


async def test_the_folder_may_vanish_while_it_is_open(store: Store, filled) -> None:
    memory = chroma(store)
    shutil.rmtree(files(folder(store)))
    version = await memory.apply(ops(1, start=500))
    assert version == len(memory.history()), "the log has it"
    assert [r.text for r in await memory.search("word500", 3)] == ["word500 thing3 means column500 = 500"]
    assert await answers(memory) == await answers(ExactMemory(store, min_coverage=0.0))
    assert memory.verify() == []
    memory.close()


async def test_another_embedder_is_refused_until_the_memory_is_embedded_anew(store: Store, filled) -> None:
    small = HashingEmbedder(64)
    with pytest.raises(StoreError, match="made with the embedder 'hashing-384', not with 'hashing-64'") as told:
        chroma(store, embedder=small)
    assert "verbal memory rebuild main --embedder SPEC" in told.value.todo
    memory = chroma(store, embedder=small, reembed=True)
    assert memory.verify() == [] and memory.embedder == "hashing-64"
    assert memory.history()[-1].reason == "embedder hashing-64"
    await memory.apply(ops(1, start=600))
    assert [r.id for r in await memory.search("word600", 3)] == ["r151"]
    assert {len(v.vector) for v in store.vectors("main", "hashing-64")} == {4 * 64}
    memory.rebuild("hashing")
    assert memory.verify() == []
    assert await answers(memory) == filled
    memory.close()
    await reopened(store, filled)


async def test_rebuild_on_request(store: Store, filled) -> None:
    memory = chroma(store)
    memory.rebuild()
    assert await answers(memory) == filled and memory.verify() == []
    memory.close()


async def test_what_the_index_lost_is_named(store: Store, filled) -> None:
    memory = chroma(store)
    memory._index.drop(["r1", "r40"])
    assert memory.verify() == ["r1", "r40"]
    memory.close()


_HOLDER = """
import sys, time
from verbal.memory.chroma import ChromaIndex
index = ChromaIndex(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_owner_is_refused_and_told_who_has_it(tmp_path: Path, root: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(root)}
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "ix")], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=f"process {holder.pid}"):
            ChromaIndex(tmp_path / "ix")
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    ChromaIndex(tmp_path / "ix").close()


def test_one_process_opens_a_folder_once(store: Store) -> None:
    memory = chroma(store)
    with pytest.raises(StoreError, match="open in this process"):
        chroma(store)
    memory.close()
    chroma(store).close()


async def test_a_closed_index_says_so(tmp_path: Path) -> None:
    index = ChromaIndex(tmp_path)
    index.close()
    with pytest.raises(StoreError, match="closed"):
        index.nearest([1.0], 1)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        ChromaIndex(tmp_path / "file" / "ix")


@pytest.mark.parametrize("name", ["main", "run/1", "../up", "", "ä b", "..", "a.b"])
async def test_any_name_stays_inside_its_folder(store: Store, tmp_path: Path, name: str) -> None:
    memory = chroma(store, name, folder=tmp_path / "deep" / "er")
    memory.close()
    made = [p.parent for p in tmp_path.rglob("lock")]
    assert [p.parent for p in made] == [tmp_path / "deep" / "er"] and made[0].name not in ("", ".", "..")


_WRITER = """
import asyncio, sys
from verbal.memory.chroma import ChromaMemory
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

async def main():
    memory = ChromaMemory(Store(sys.argv[1]))
    start = memory.version
    for i in range(100000):
        items = [f"word{start + i}x{j} means column{i} = {j}" for j in range(4)]
        ops = [MemoryOp(op="ADD", item=Reflection(id="", text=t)) for t in items]
        ops.append(MemoryOp(op="RETIRE", reflection=f"r{1 + i}"))
        print(await memory.apply(ops), flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 12])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, root: Path, acknowledged: int) -> None:
    path, env = tmp_path / "v.db", {**os.environ, "PYTHONPATH": str(root)}
    last = 0
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, path], env=env, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(acknowledged):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
        writer.wait()
        writer.stdout.close()
    with Store(path) as store:
        memory = ChromaMemory(store)
        assert len(memory.history()) >= last
        assert [op.op for op in memory.history()].count("NOOP") <= 1 + 2 * acknowledged, "only repeated retirements"
        items = memory.items()
        assert memory.verify() == []
        texts = [r.text for r in items.values() if r.status == "active"][-40:]
        found = [[r.id for r in await memory.search(t, 3)] for t in texts]
        memory.close()
        exact = ExactMemory(store)
        assert exact.items() == items
        assert [[r.id for r in await exact.search(t, 3)] for t in texts] == found
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
