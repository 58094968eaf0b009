"""The LangGraph store over restarts, kills, several writers, and a disk that is full."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import PutOp

from verbal.errors import StoreError
from verbal.memory.langgraph_store import VerbalStore
from verbal.store import Store


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "v.db") as store:
        yield store


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


class Racing(Store):
    """Another writer is always a moment faster, once."""

    before: Callable[[], None] | None = None

    def log_ops(self, *args: Any, **options: Any) -> int:
        """As it is, after somebody else's."""
        if (faster := self.before) is not None:
            self.before = None
            faster()
        return super().log_ops(*args, **options)


def test_a_faster_writer_is_read_before_the_write_is_made_again(tmp_path: Path) -> None:
    with Racing(tmp_path / "v.db") as base, VerbalStore(tmp_path / "v.db") as other:
        store = VerbalStore(base)
        base.before = lambda: other.put(("t",), "k", {"by": "other"})
        store.put(("t",), "k", {"by": "mine"})
        base.before = lambda: other.delete(("t",), "k")
        store.put(("t",), "k", {"by": "mine again"})
        assert other.get(("t",), "k").value == {"by": "mine again"}  # type: ignore[union-attr]
        base.before = lambda: other.delete(("t",), "k")
        store.delete(("t",), "k")
        assert other.get(("t",), "k") is None and store.get(("t",), "k") is None
        ops = [op.op for _, op in base.ops("langgraph")]
        assert ops == ["ADD", "UPDATE", "RETIRE", "ADD", "RETIRE"], "an update became a second generation"


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
