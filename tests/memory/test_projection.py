"""What a memory derives from its log, and when: searches beside writes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from verbal.memory.chroma import ChromaMemory
from verbal.store import Store
from verbal.types import MemoryOp, Reflection


async def test_a_search_waits_for_a_write_without_stopping_the_loop(tmp_path: Path) -> None:
    store = Store(tmp_path / "v.db")
    memory, held, free, waited = ChromaMemory(store), threading.Event(), threading.Event(), list[bool]()
    await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text=f"word{i} means {i}")) for i in range(9)])

    def write() -> None:
        with memory._lock:
            held.set()
            waited.append(free.wait(20))

    writer = threading.Thread(target=write)
    writer.start()
    held.wait()
    search = asyncio.create_task(memory.search("what is word3?", 5))
    await asyncio.sleep(0)  # the search begins, and finds the memory busy
    assert not search.done()
    free.set()
    assert [r.id for r in await search] == ["r4"]
    writer.join()
    assert waited == [True], "the loop went on meanwhile"
    memory.close()
    store.close()
