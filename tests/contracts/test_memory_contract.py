"""Every part found in the memory room keeps its contract: memories, indexes, embedders, curators."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Curator, Embedder, Index, Memory
from verbal.errors import StoreError
from verbal.memory.log import replay
from verbal.models.scripted import ScriptedModel
from verbal.parts import load_part, make_part, part_names
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

MEMORIES = ("chroma", "exact")
EMBEDDERS = ("hashing",)
OTHERS = {"ace", "chroma_embedder", "credit", "endpoint", "expel", "sentences"}
"""Parts that have tests of their own: they need a server, a package or outcomes, or follow a paper's own rules."""
CURATORS: dict[str, Callable[[], Any]] = {
    "curator": lambda: make_part("memory", "curator"),
    "append": lambda: make_part("memory", "append"),
    "tree": lambda: make_part("memory", "tree", model=None),
    "llm_curator": lambda: make_part("memory", "llm_curator", model=ScriptedModel(_curate)),
}
SUPPORT = {
    "asking", "audit", "bm25", "budget", "candidates", "chroma_collection", "chroma_server", "condense",
    "duplicates", "effects", "embedders", "junk", "langgraph_entries", "langgraph_index", "langgraph_match",
    "langgraph_reflections", "langgraph_store", "leaks", "log", "matrix", "playbooks", "policies", "projection",
    "quarantine", "reflections", "relation", "retrieval", "screening", "shelf", "skills", "transcripts", "transfer",
    "vectors", "words",
}  # fmt: skip
"""Files of the room that are no parts."""


def _curate(messages: Any, index: int, seed: int | None) -> str:
    text = messages[0].content
    lessons = [json.loads(x) for x in text.split("## Lessons\n")[1].split("\n\n## Answer")[0].splitlines()]
    rows = [{"lesson": x["lesson"], "op": "ADD", "text": x.get("text") or "-", "reason": "new"} for x in lessons]
    return json.dumps({"operations": rows})


def add(text: str, task: str | None = None, **fields: Any) -> MemoryOp:
    return MemoryOp(op="ADD", item=Reflection(id="", text=text, task=task, **fields), author="test")


def test_every_file_of_the_room_is_a_known_part_or_known_to_be_none() -> None:
    parts = {*MEMORIES, *EMBEDDERS, *CURATORS, *OTHERS}
    assert set(part_names("memory")) == parts | SUPPORT
    assert all(isinstance(load_part("memory", name), type) for name in parts)


# memories -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=MEMORIES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "v.db") as store:
        yield store


@pytest.fixture
def memory(kind: str, store: Store):
    memory = make_part("memory", kind, store=store)
    yield memory
    memory.close()


def test_it_is_a_memory(memory: Memory) -> None:
    assert isinstance(memory, Memory)


async def test_an_empty_memory_finds_nothing(memory: Memory) -> None:
    assert await memory.search("anything", 3) == []
    assert memory.history() == [] and memory.at(0) == {}
    with pytest.raises(StoreError, match="no version 1"):
        memory.at(1)


async def test_what_was_added_is_found_best_first(memory: Memory, store: Store) -> None:
    texts = ["active customer means status = 'A'", "late order means shipped > due", "revenue means price * quantity"]
    version = await memory.apply([add(t, f"t{i}") for i, t in enumerate(texts)])
    assert version == len(memory.history())
    found = await memory.search("How many active customers have a late order?", 5)
    assert {r.text for r in found} == set(texts[:2])
    assert [r.text for r in await memory.search("total revenue by month", 1)] == [texts[2]]
    assert [r.id for r in memory.at(version).values()] == ["r1", "r2", "r3"]
    vectors = [struct.unpack(f"<{len(v.vector) // 4}f", v.vector) for v in store.vectors("main")]
    assert len(vectors) == 3 and all(math.isclose(math.hypot(*v), 1.0, abs_tol=1e-4) for v in vectors)


async def test_at_most_k_and_ties_by_id(memory: Memory) -> None:
    # The same words to be found by; a boundary is not one of them, so none says what another says.
    await memory.apply([add("vip means tier gold", boundary=f"b{i}") for i in range(9)])
    for k in (0, 1, 4, 9, 50):
        found = [r.id for r in await memory.search("who is vip", k)]
        assert found == [f"r{i}" for i in range(1, 10)][:k]
    assert await memory.search("who is vip", -1) == []


async def test_retired_items_are_never_found_but_stay_in_history(memory: Memory) -> None:
    before = await memory.apply([add("vip means tier = 3"), add("vip guest means level = 9")])
    await memory.apply([MemoryOp(op="RETIRE", reflection="r1", reason="wrong")])
    assert [r.id for r in await memory.search("vip", 5)] == ["r2"]
    assert memory.at(before)["r1"].status == "active"
    assert memory.at(before + 1)["r1"].status == "retired"
    await memory.apply([add("vip means tier = 4")])
    assert list(memory.at(before + 2)) == ["r1", "r2", "r3"], "ids are never reused"


async def test_invalid_operations_are_logged_as_noop(memory: Memory) -> None:
    start = await memory.apply([add("a rule about dates")])
    bad = [
        MemoryOp(op="UPDATE", reflection="r99", item=Reflection(id="r99", text="x")),
        MemoryOp(op="ADD"),
        add("  "),
        add("again").replace(reflection="r1"),
        MemoryOp(op="RETIRE", reflection="nobody"),
        MemoryOp(op="MERGE", reflection="r1", item=Reflection(id="r1", text="x"), others=("r1",)),
        MemoryOp(op="TAG", reflection="r1"),
        MemoryOp(op="VALUE", reflection="r1", delta=math.inf),
    ]
    assert await memory.apply(bad) == start + len(bad)
    logged = memory.history()[start:]
    assert [op.op for op in logged] == ["NOOP"] * len(bad)
    assert all(op.reason.startswith(f"{b.op}: ") for op, b in zip(logged, bad, strict=True))
    assert memory.at(start) == memory.at(start + len(bad))


async def test_any_version_is_the_replay_of_a_prefix(memory: Memory) -> None:
    await memory.apply([add("first rule", "t1"), add("second rule", "t2")])
    await memory.apply([MemoryOp(op="UPDATE", reflection="r1", item=Reflection(id="r1", text="first rule, better"))])
    await memory.apply([MemoryOp(op="TAG", reflection="r2", tag="helped"), MemoryOp(op="RETIRE", reflection="r1")])
    history = memory.history()
    for version in range(len(history) + 1):
        assert memory.at(version) == replay(history[:version])


async def test_it_persists(kind: str, store: Store) -> None:
    first = make_part("memory", kind, store=store, name="kept")
    await first.apply([add(f"word{i} means column{i}", f"t{i % 3}") for i in range(30)])
    await first.apply([MemoryOp(op="RETIRE", reflection="r4")])
    questions = [f"what is word{i}?" for i in range(30)]
    found = [await first.search(q, 3, exclude_tasks=["t1"]) for q in questions]
    history = first.history()
    first.close()
    again = make_part("memory", kind, store=store, name="kept")
    assert [await again.search(q, 3, exclude_tasks=["t1"]) for q in questions] == found
    assert again.history() == history
    again.close()


TEXTS = [
    "größte Straße means ß = 'ẞ'",
    "顧客 means 客户表",
    "عميل means status = 'A'",
    "🦜 means parrot = 1",
    "e\u0301cole means school",
    "a\x00b means c",
    "quote ' \" \\ means {{x}}",
]


@pytest.mark.parametrize("text", TEXTS)
async def test_unicode(memory: Memory, text: str) -> None:
    await memory.apply([add(text), add("other means thing")])
    found = memory.at(len(memory.history()))["r1"]
    assert found.text == text
    if any(c.isalnum() for c in text.split(" means ")[0]):
        assert [r.text for r in await memory.search(text.split(" means ")[0], 3)] == [text]


async def test_two_memories_of_one_store_are_apart(kind: str, store: Store) -> None:
    one, other = (make_part("memory", kind, store=store, name=n) for n in ("run/1", "run/2"))
    await one.apply([add("vip means tier = 3")])
    assert await other.search("vip", 3) == []
    assert store.memories() == {"run/1": len(one.history())}
    one.close()
    other.close()


async def test_concurrent_tasks_lose_nothing(memory: Memory) -> None:
    await asyncio.gather(*(memory.apply([add(f"word{i} means column{i}")]) for i in range(20)))
    found = memory.at(len(memory.history()))
    assert sorted(r.text for r in found.values()) == sorted(f"word{i} means column{i}" for i in range(20))
    assert len(await memory.search(" ".join(f"word{i}" for i in range(20)), 50)) == 20


def test_closing_twice_is_harmless(memory: Memory) -> None:
    memory.close()
    memory.close()


@settings(max_examples=25)
@given(
    tasks=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6),
    updates=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["a", "b", "c"])), max_size=3),
    merges=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=2),
    hidden=st.sets(st.sampled_from(["a", "b", "c"])),
)
@pytest.mark.parametrize("policy", ["similar", "recent", "all", "value", "diverse", "pareto", "source_task"])
def test_words_of_a_hidden_task_are_never_shown(
    policy: str, tasks: Any, updates: Any, merges: Any, hidden: Any
) -> None:
    """Leave one task out holds through updates and merges: a word is marked with the task it comes from."""

    async def check(store: Store) -> None:
        options = {"value": {"delta": -1.0}, "source_task": {"tasks": 9}}.get(policy, {})
        memory = make_part("memory", "exact", store=store, policy=policy, policy_options=options, token_cap=None)
        said = {f"r{i}": f"vip rule from{t}x" for i, t in enumerate(tasks, 1)}
        ops = [add(said[f"r{i}"], t) for i, t in enumerate(tasks, 1)]
        for number, task in updates:
            said[i] = f"{said.get(i := f'r{number}', '')} from{task}x"
            ops.append(MemoryOp(op="UPDATE", reflection=i, item=Reflection(id=i, text=said[i], task=task)))
        for number, other in merges:
            i, o = f"r{number}", f"r{other}"
            text = f"{said.get(i, '')} {said.get(o, '')}"
            ops.append(MemoryOp(op="MERGE", reflection=i, item=Reflection(id=i, text=text), others=(o,)))
            said[i] = text
        await memory.apply(ops)
        shown = await memory.search("vip rule", 50, exclude_tasks=sorted(hidden))
        assert not [r.text for r in shown if any(f"from{t}x" in r.text for t in hidden)]
        everything = await memory.search("vip rule", 50)
        assert {r.text for r in everything} == {r.text for r in memory.items().values() if r.status == "active"}

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "v.db") as store:
        asyncio.run(check(store))


_WRITER = """
import asyncio, sys
from verbal.parts import make_part
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

async def main():
    with Store(sys.argv[1]) as store:
        memory = make_part("memory", "exact", store=store)
        for i in range(40):
            item = Reflection(id="", text=f"{sys.argv[2]}word{i} means {i}", task=sys.argv[2])
            await memory.apply([MemoryOp(op="ADD", item=item), MemoryOp(op="TAG", reflection="r1", tag="shown")])

asyncio.run(main())
"""


async def test_two_processes_write_one_memory(tmp_path: Path, root: Path) -> None:
    path, env = str(tmp_path / "v.db"), {**os.environ, "PYTHONPATH": str(root)}
    Store(path).close()
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, path, who], env=env) for who in ("left", "right")]
    with Store(path) as store:
        reader = make_part("memory", "exact", store=store)
        while any(w.poll() is None for w in writers):
            await reader.refresh()
        assert [w.returncode for w in writers] == [0, 0]
        items = reader.at(await reader.refresh())
        assert sorted(items, key=lambda i: int(i[1:])) == [f"r{i}" for i in range(1, 81)]
        assert {r.text for r in items.values()} == {
            f"{w}word{i} means {i}" for w in ("left", "right") for i in range(40)
        }
        assert items["r1"].counters.shown == 80, "no operation of either writer was lost"
        assert [r.text for r in await reader.search("rightword7", 3)] == ["rightword7 means 7"]
        assert reader.verify() == []


# indexes --------------------------------------------------------------------------------------------------------------


def _index(name: str, folder: Path) -> Index:
    module = importlib.import_module(f"verbal.memory.{name}")
    made = getattr(module, f"{name.capitalize()}Index")
    index: Index = made(folder) if name == "chroma" else made()
    return index


@pytest.fixture
def index(kind: str, tmp_path: Path):
    index = _index(kind, tmp_path / "index")
    yield index
    index.close()


def test_it_is_an_index(index: Index) -> None:
    assert isinstance(index, Index)
    assert index.nearest([1.0, 0.0], 3) == []
    index.drop(["nobody"])


def test_nearest_first_by_cosine(index: Index) -> None:
    index.put(["a", "b", "c"], [[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    assert index.nearest([1.0, 0.0], 3) == [("a", 1.0), ("b", 0.6), ("c", -1.0)]
    assert index.nearest([1.0, 0.0], 1) == [("a", 1.0)]
    assert index.nearest([1.0, 0.0], 0) == []


def test_put_replaces_and_drop_forgets(index: Index) -> None:
    index.put(["a", "b", "c"], [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    index.put(["a", "a"], [[0.0, 1.0], [0.0, -1.0]])
    index.drop(["c", "nobody"])
    assert index.nearest([0.0, 1.0], 9) == [("b", 1.0), ("a", -1.0)]
    index.put(["c"], [[1.0, 0.0]])
    assert [i for i, _ in index.nearest([1.0, 0.0], 9)] == ["c", "a", "b"]


def test_index_ties_go_by_id(index: Index) -> None:
    index.put([f"i{n:02}" for n in reversed(range(30))], [[1.0, 0.0]] * 30)
    assert [i for i, _ in index.nearest([1.0, 0.0], 5)] == ["i00", "i01", "i02", "i03", "i04"]


def test_an_index_refuses_what_cannot_be_right(index: Index) -> None:
    index.put(["a"], [[1.0, 0.0]])
    for wrong in (lambda: index.put(["b"], [[1.0]]), lambda: index.nearest([1.0], 1), lambda: index.put(["b"], [])):
        with pytest.raises(StoreError):
            wrong()
    assert index.nearest([1.0, 0.0], 5) == [("a", 1.0)]


# embedders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDERS)
@settings(max_examples=60)
@given(texts=st.lists(st.text(max_size=40), max_size=4))
def test_an_embedder_gives_unit_vectors_one_per_text(name: str, texts: list[str]) -> None:
    embedder: Embedder = make_part("memory", name)
    assert isinstance(embedder, Embedder) and embedder.name
    vectors = embedder.embed(texts)
    assert [len(v) for v in vectors] == [embedder.dimension] * len(texts)
    assert all(math.isclose(math.hypot(*v), 1.0, abs_tol=1e-4) for v in vectors)
    assert vectors == [embedder.embed([t])[0] for t in texts], "a text's vector does not depend on its neighbours"


# curators -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURATORS)
async def test_a_curator_proposes_and_the_memory_can_apply(name: str, store: Store) -> None:
    curator: Curator = CURATORS[name]()
    assert isinstance(curator, Curator)
    assert await curator.propose([], []) == []
    lessons = [
        Reflection(id=f"new:{i}", text=t, task=f"t{i}", attempts=(f"a{i}",))
        for i, t in enumerate(["vip means tier = 3", "late order means shipped > due", "Größe means height", "."])
    ]
    memory = make_part("memory", "exact", store=store)
    for _ in range(2):
        known = [r for r in memory.items().values() if r.status != "retired"]
        ops = await curator.propose(lessons, known)
        assert len(ops) == len(lessons)
        assert {op.op for op in ops} <= {"ADD", "UPDATE", "RETIRE", "NOOP"}
        assert all(op.author and op.reason for op in ops), "an operation says who proposed it and why"
        await memory.apply(ops)
        assert not [op for op in memory.history() if op.op == "NOOP" and op.reason.startswith(("ADD:", "UPDATE:"))]
    assert {"r1", "r2", "r3"} <= set(memory.items())
    gone = Reflection(id="r1", text="vip means tier = 3", status="retired", when="the user asked")
    ops = await curator.propose([gone], list(memory.items().values()))
    assert [(op.op, op.reflection, op.reason) for op in ops] == [("RETIRE", "r1", "the user asked")]
