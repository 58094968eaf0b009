"""A Chroma server that several processes share: a real one on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from verbal.errors import ConfigError, StoreError
from verbal.memory.chroma import ChromaMemory, ChromaServerIndex
from verbal.memory.exact import ExactMemory
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

PROGRAM = Path(sys.executable).with_name("chroma")
QUESTIONS = [f"what is word{i} of thing{i % 7}?" for i in range(10)]


def ops(count: int, start: int = 0) -> list[MemoryOp]:
    texts = [f"word{i} thing{i % 7} means column{i} = {i}" for i in range(start, start + count)]
    return [MemoryOp(op="ADD", item=Reflection(id="", text=text)) for text in texts]


async def answers(memory: ChromaMemory | ExactMemory) -> list[list[str]]:
    return [[r.id for r in await memory.search(q, 5)] for q in QUESTIONS]


class Server:
    """`chroma run` on a free port of loopback, its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path | None = None) -> None:
        folder = folder or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(PROGRAM), "run", "--host", "127.0.0.1", "--port", str(self.port), "--path", str(folder)]
        env = {**os.environ, "ANONYMIZED_TELEMETRY": "False", "RAYON_NUM_THREADS": "1"}
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        for _ in range(300):
            if self._process.poll() is not None:
                break
            with socket.socket() as line:
                if line.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        said = (folder / "log").read_text(errors="replace")[-300:]
        self.stop()
        pytest.skip(f"`chroma run` does not start here: {said}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if not PROGRAM.is_file():
        pytest.skip("chromadb brought no program `chroma` here")
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "v.db") as store:
        yield store


def opened(store: Store, server: Server, name: str = "main") -> ChromaMemory:
    return ChromaMemory(store, name, server=server.url, min_coverage=0.0)


async def test_two_memories_of_one_server_see_each_other(store: Store, server: Server) -> None:
    one, other = opened(store, server), opened(store, server)
    await one.apply(ops(60))
    assert await answers(other) == await answers(one) == await answers(ExactMemory(store, min_coverage=0.0))
    await other.apply([MemoryOp(op="RETIRE", reflection="r1"), *ops(5, start=100)])
    assert await answers(one) == await answers(other) == await answers(ExactMemory(store, min_coverage=0.0))
    assert one.verify() == other.verify() == []
    assert "r1" not in {i for found in await answers(one) for i in found}
    one.close()
    other.close()
    again = opened(store, server)
    assert again._index.state() == again._held() and again.verify() == []  # type: ignore[attr-defined]
    again.close()


async def test_stores_and_memories_share_no_collection(store: Store, server: Server, tmp_path: Path) -> None:
    with Store(tmp_path / "other.db") as second:
        memories = [opened(store, server), opened(store, server, "side"), opened(second, server)]
        await memories[0].apply(ops(10))
        assert [len(await m.search("word1", 3)) for m in memories] == [1, 0, 0]
        assert len({m._index.collection for m in memories}) == 3  # type: ignore[attr-defined]
        for memory in memories:
            memory.close()


async def test_a_collection_that_is_deleted_is_filled_again(store: Store, server: Server) -> None:
    one, other = opened(store, server), opened(store, server)
    await one.apply(ops(60))
    expected = await answers(one)
    for _ in range(2):
        one._index._client.delete_collection(one._index.collection)  # type: ignore[attr-defined]
        assert await answers(other) == expected and other.verify() == []
        assert await answers(one) == expected and one.verify() == []
    one._index._client.delete_collection(one._index.collection)  # type: ignore[attr-defined]
    await one.apply(ops(1, start=500))
    assert [r.id for r in await other.search("word500", 3)] == ["r61"]
    assert one.verify() == other.verify() == []
    one.close()
    other.close()


async def test_a_server_that_lost_its_data_is_filled_again(store: Store, server: Server, tmp_path: Path) -> None:
    memory = opened(store, server)
    await memory.apply(ops(60))
    expected = await answers(memory)
    server.stop()
    with pytest.raises(StoreError, match="the Chroma index failed") as told:
        await memory.search(QUESTIONS[1], 3)
    assert "chroma run" in told.value.todo
    version = await memory.apply(ops(1, start=500))
    assert version == len(memory.history()), "the log has it"
    server.start(tmp_path / "another")
    assert [r.id for r in await memory.search("word500", 3)] == ["r61"]
    assert await answers(memory) == expected and memory.verify() == []
    memory.close()
    with pytest.raises(StoreError, match="closed"):
        memory._index.nearest([1.0], 1)


_WRITER = """
import asyncio, sys
from verbal.memory.chroma import ChromaMemory
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

async def main(path, url, start):
    memory = ChromaMemory(Store(path), server=url, min_coverage=0.0)
    for i in range(start, start + 30):
        item = Reflection(id=f"x{i}", text=f"word{i} thing{i % 7} means column{i} = {i}")
        await memory.apply([MemoryOp(op="ADD", item=item)])
        if i % 3 == 0:
            new = item.replace(text=f"word{i + 1000} thing{i % 7} means column{i} = {i}")
            await memory.apply([MemoryOp(op="UPDATE", reflection=f"x{i}", item=new)])
        if i % 5 == 0:
            await memory.apply([MemoryOp(op="RETIRE", reflection=f"x{i}")])
    memory.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_two_processes_write_into_one_collection(store: Store, server: Server, root: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", _WRITER, str(store.path), server.url]
    writers = [subprocess.Popen([*command, str(start)], env=env) for start in (0, 100)]
    reader = opened(store, server)
    while any(writer.poll() is None for writer in writers):
        await answers(reader)
    assert [writer.returncode for writer in writers] == [0, 0]
    exact = ExactMemory(store, min_coverage=0.0)
    assert await answers(reader) == await answers(exact)
    assert reader.verify() == [] and reader._index.count() == 48  # type: ignore[attr-defined]
    for i in (3, 102):
        assert [r.text.split()[0] for r in await reader.search(f"word{i + 1000}", 1)] == [f"word{i + 1000}"]
    reader.close()


def test_a_server_that_is_not_there_is_told(store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(StoreError, match="the Chroma index failed") as told:
        ChromaMemory(store, server=url)
    assert url in told.value.where and "chroma run" in told.value.todo


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:port", "http://x/path", "http://[x"])
def test_a_wrong_address_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="Chroma server"):
        ChromaServerIndex(url, "s", "m")


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="holds a password") as told:
        ChromaServerIndex("http://me:s3cret@localhost:8000", "s", "m")
    assert "s3cret" not in str(told.value)


def test_a_folder_and_a_server_are_one_too_many(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in a folder or on a server"):
        ChromaMemory(store, folder=tmp_path, server="http://localhost:8000")
