"""What no retrieval policy may show, whatever it prefers: scopes, bounds, rivals, sources, sizes."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from verbal.memory.exact import ExactMemory
from verbal.memory.log import said
from verbal.memory.policies import POLICIES
from verbal.memory.retrieval import tokens
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

ASKED = ["similar", "value", "diverse", "pareto", "source_task"]
"""Policies that go by the query."""


def add(text: str, id: str = "", **fields: Any) -> MemoryOp:
    return MemoryOp(op="ADD", item=Reflection(id=id, text=text, **fields))


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "v.db") as store:
        yield store


async def ids(memory: ExactMemory, query: str, k: int = 9, **options: Any) -> list[str]:
    return [r.id for r in await memory.search(query, k, **options)]


# scopes, boundaries, rivals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", sorted(POLICIES))
async def test_scopes(store: Store, policy: str) -> None:
    options = {"policy": policy, "policy_options": {"tasks": 9} if policy == "source_task" else {}}
    own = ExactMemory(store, **options)
    await own.apply(
        [
            add("vip rule one", task="t1", scope="task"),
            add("vip rule two", task="t2", scope="task"),
            add("vip rule three", task="t2", scope="family"),
            add("vip rule four", task="t3", scope="global"),
        ]
    )
    assert set(await ids(own, "vip rule")) == {"r3", "r4"}
    assert set(await ids(own, "vip rule", task="t1")) == {"r1", "r3", "r4"}
    assert set(await ids(own, "vip rule", task="t1", exclude_tasks=["t1"])) == {"r3", "r4"}
    narrow = ExactMemory(store, scope="task", **options)
    assert set(await ids(narrow, "vip rule", task="t2")) == {"r2", "r3", "r4"}
    assert set(await ids(narrow, "vip rule", task="t7")) == {"r4"}


@pytest.mark.parametrize("policy", ["recent", "all", "similar"])
async def test_an_item_stays_within_its_bounds(store: Store, policy: str) -> None:
    memory = ExactMemory(store, policy=policy, min_overlap=0)
    await memory.apply([add("greet with the first name", boundary="mails to my boss")])
    assert await ids(memory, "write a mail to my boss") == []
    assert await ids(memory, "write to my friend") == ["r1"]
    assert await ids(memory, "write a mail to my friend") == ["r1"], "near its bounds is not out of them"


async def test_what_lies_behind_items_out_of_bounds_is_still_found(store: Store) -> None:
    memory = ExactMemory(store)
    await memory.apply([add(f"vip rule {i}", boundary="gold members") for i in range(300)])
    await memory.apply([add("a vip is somebody of whom there is nothing else to be told but this long sentence")])
    assert await ids(memory, "vip rule of gold members") == ["r301"]
    assert len(await ids(memory, "vip rule")) == 9


@pytest.mark.parametrize("policy", sorted(POLICIES))
async def test_neither_rivals_nor_the_same_words_stand_side_by_side(store: Store, policy: str) -> None:
    memory = ExactMemory(store, policy=policy, policy_options={"tasks": 9} if policy == "source_task" else {})
    await memory.apply(
        [
            add("vip rule one"),
            add("vip rule two", rival="r1"),
            add("vip rule three", rival="r1"),
            add("vip rule four"),
            add("vip rule four"),
        ]
    )
    found = await ids(memory, "vip rule")
    assert len(found) == 2 and len({"r1", "r2", "r3"} & set(found)) == 1 and len({"r4", "r5"} & set(found)) == 1


# any policy -----------------------------------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from(["vip", "late", "order", "tier", "gold", "due", "mail", "boss"]), min_size=1, max_size=5
).map(" ".join)
ITEMS = st.lists(
    st.builds(
        dict,
        text=WORDS,
        when=st.one_of(st.just(""), WORDS),
        boundary=st.one_of(st.just(""), WORDS),
        task=st.sampled_from([None, "t1", "t2", "t3"]),
        scope=st.sampled_from(["task", "family", "global"]),
        status=st.sampled_from(["active", "quarantined"]),
        rival=st.sampled_from(["", "r1", "r2", "r3"]),
    ),
    max_size=12,
)


# Shrinking opens some thousand memories.
@settings(max_examples=10, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    items=ITEMS,
    query=st.one_of(WORDS, st.text(max_size=8)),
    k=st.integers(0, 6),
    cap=st.sampled_from([None, 0, 12, 30]),
    hidden=st.sets(st.sampled_from(["t1", "t2"])),
    status=st.sampled_from(["active", "quarantined"]),
    overlap=st.sampled_from([0, 1]),
    order=st.randoms(use_true_random=False),
)
def test_what_no_policy_may_show(
    items: list[dict[str, Any]],
    query: str,
    k: int,
    cap: int | None,
    hidden: set[str],
    status: Any,
    overlap: int,
    order: Any,
) -> None:
    ops = [add(id=f"r{i}", **fields) for i, fields in enumerate(items, 1)]
    shuffled = ops.copy()
    order.shuffle(shuffled)

    async def check(store: Store) -> None:
        await ExactMemory(store, "one").apply(ops)
        await ExactMemory(store, "other").apply(shuffled)
        for policy in POLICIES:
            options = {"policy": policy, "token_cap": cap, "min_overlap": overlap}
            one = ExactMemory(store, "one", **options)
            asked = {"exclude_tasks": sorted(hidden), "status": status, "task": "t3"}
            found = await one.search(query, k, **asked)
            assert len(found) <= k and (cap is None or sum(map(tokens, found)) <= cap)
            assert not [r for r in found if r.status != status or r.task in hidden]
            assert not [r for r in found if r.scope == "task" and r.task != "t3"]
            assert len({said(r) for r in found}) == len(found)
            assert not [r for r in found if r.rival != r.id and r.rival in {other.id for other in found}]
            assert found == await one.search(query, k, **asked)
            if policy in ASKED:  # the others go by age
                other = ExactMemory(store, "other", **options)
                assert [r.id for r in found] == [r.id for r in await other.search(query, k, **asked)], policy

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "v.db") as store:
        asyncio.run(check(store))


@pytest.mark.parametrize("policy", sorted(POLICIES))
async def test_many_items_large_k_and_odd_queries(store: Store, policy: str) -> None:
    memory = ExactMemory(store, policy=policy, token_cap=500)
    if not memory.items():
        await memory.apply(
            [add(f"vip rule {i} of {i % 7}", task=f"t{i % 50}", when=f"vip {i % 50}") for i in range(1500)]
        )
    for query in ("vip rule 7", "", "\0\ud800 vip", "vip " * 5000, "词语 vip"):
        for k in (1, 40, 10_000):
            found = await memory.search(query, k, exclude_tasks=["t3"])
            assert len(found) <= k and sum(map(tokens, found)) <= 500 and not [r for r in found if r.task == "t3"]
    assert await memory.search("vip rule 7", 5)
