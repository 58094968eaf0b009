"""ACE's playbook: golden values of the released code, and what ours adds to it: UPDATE, MERGE, a budget that holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError, RefusedError
from verbal.lessons import read_lessons, tag_ops
from verbal.memory.ace import (
    OPERATIONS,
    AceCurator,
    Playbook,
    bullet,
    near_groups,
    next_number,
    playbook,
    read_delta,
    section_slug,
    statistics,
)
from verbal.memory.log import LogState
from verbal.models.scripted import ScriptedModel
from verbal.testing import temporary_memory
from verbal.types import Counters, MemoryOp, Reflection

SEED = Reflection(id="si-00001", text="Read the schema first.", counters=Counters(helped=1))


def lesson(text: str, n: int = 0, **fields: Any) -> Reflection:
    return Reflection(id=f"new:{n}", text=text, task=f"t{n}", attempts=(f"a{n}",), **fields)


def delta(*rows: dict[str, Any]) -> str:
    return json.dumps({"reasoning": "because", "operations": rows})


GOLDEN = delta(
    {"type": "ADD", "section": "strategies & insights", "content": "Quote names."},
    {"type": "ADD", "section": "gossip", "content": "Ties are kept."},
    {"type": "DELETE", "id": "si-00001"},
)


async def run(state: LogState, curator: AceCurator, *lessons: Reflection) -> list[MemoryOp]:
    return [state.apply(op) for op in await curator.propose(lessons, list(state.items.values()))]


def memory(*items: Reflection) -> LogState:
    state = LogState()
    for item in items:
        state.apply(MemoryOp(op="ADD", item=item))
    return state


async def test_golden_values_of_ids_sections_and_counters() -> None:
    state = memory(SEED)
    ops = await run(state, AceCurator(ScriptedModel([GOLDEN])), lesson("quote names"))
    assert [(op.op, op.reflection) for op in ops] == [("ADD", "sai-00002"), ("ADD", "misc-00003"), ("NOOP", "")]
    assert next_number(state.items) == 4
    assert state.items["si-00001"].status == "active"  # DELETE is passed over, as in the released code
    for op in tag_ops(read_lessons("TAGS: si-00001 harmful, zz-00009 harmful"), cited=["si-00001", "zz-00009"]):
        state.apply(op)
    assert (state.items["si-00001"].counters.helped, state.items["si-00001"].counters.harmed) == (1, 1)
    assert set(state.items) == {"si-00001", "sai-00002", "misc-00003"}  # the unknown id is ignored
    shown = playbook(list(state.items.values()))
    assert shown == (
        "STRATEGIES & INSIGHTS:\n[sai-00002] helpful=0 harmful=0 :: Quote names.\n\n"
        "OTHERS:\n[si-00001] helpful=1 harmful=1 :: Read the schema first.\n"
        "[misc-00003] helpful=0 harmful=0 :: Ties are kept."
    )


async def test_golden_values_through_the_log_of_a_memory() -> None:
    async with temporary_memory() as kept:
        await kept.apply([MemoryOp(op="ADD", item=SEED)])
        curator = AceCurator(ScriptedModel([GOLDEN]))
        await kept.apply(await curator.propose([lesson("quote names")], list(kept.preview().items.values())))
        assert [i for i, r in kept.preview().items.items() if r.status == "active"] == [
            "si-00001", "sai-00002", "misc-00003"
        ]  # fmt: skip
        found = await kept.search("how are names quoted", 1)
        assert [bullet(r) for r in found] == ["[sai-00002] helpful=0 harmful=0 :: Quote names."]


def test_statistics_follow_the_released_thresholds() -> None:
    counts = [(6, 1), (6, 2), (5, 0), (1, 1), (0, 1), (0, 0), (2, 1)]
    items = [Reflection(id=f"r{i}", text="x", counters=Counters(helped=h, harmed=u)) for i, (h, u) in enumerate(counts)]
    assert statistics(items) == {"bullets": 7, "high performing": 1, "problematic": 2, "unused": 1}


def test_sections_are_known_in_any_spelling() -> None:
    names = ["Strategies & Insights", "strategies_and_insights", "sai", "COMMON MISTAKES TO AVOID", "no such"]
    assert [section_slug(n) for n in names] == ["sai", "sai", "sai", "err", "misc"]


@given(st.lists(st.sampled_from(["ADD", "DELETE"]), max_size=12), st.integers(0, 3))
def test_ids_are_unique_and_increase_for_ever(kinds: Sequence[str], seed: int) -> None:
    state, numbers = memory(), []
    for n, kind in enumerate(kinds):
        book = Playbook(list(state.items.values()), OPERATIONS)
        last = max((i for i in book.items), default="", key=lambda i: int(i.rpartition("-")[2]))
        row = {"type": "ADD", "section": "sai", "content": f"x{n}"} if kind == "ADD" else {"type": kind, "id": last}
        book.apply([row], [lesson("x")])
        counted = [state.apply(op) for op in book.ops]
        numbers += [int(op.reflection.rpartition("-")[2]) for op in counted if op.op == "ADD"]
        assert [op.op for op in counted] == (
            ["NOOP"] if kind == "DELETE" and not last else [kind.replace("DELETE", "RETIRE")]
        )
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    "reply",
    [
        "I add nothing", "[]", "{}", '{"operations": {}}', delta({"type": "SHOUT"}),
        delta({"type": "ADD", "content": "x"}),
        delta({"type": "UPDATE", "id": "a", "content": " "}), delta({"type": "MERGE", "ids": [], "content": "x"}),
        delta({"type": "MERGE", "ids": ["a", 3], "content": "x"}), '{"operations": ["ADD"]}', GOLDEN[:-2],
    ],
)  # fmt: skip
async def test_a_malformed_delta_changes_nothing_and_uses_no_number(reply: str) -> None:
    with pytest.raises(ValueError):
        read_delta(reply)
    state, model = memory(SEED), ScriptedModel([reply])
    ops = await run(state, AceCurator(model), lesson("quote names"))
    assert [op.op for op in ops] == ["NOOP"] and "3 tries" in ops[0].reason and model.calls == 3
    assert next_number(state.items) == 2 and list(state.items) == ["si-00001"]


async def test_update_merge_and_delete_work_where_they_are_allowed() -> None:
    items = [
        Reflection(id=f"sai-0000{i}", text=f"Rule {i}.", attempts=(f"b{i}",), counters=Counters(helped=i, harmed=1))
        for i in (1, 2, 3)
    ]
    state = memory(*items)
    reply = delta(
        {"type": "UPDATE", "id": "sai-00003", "content": "Better rule 3."},
        {"type": "MERGE", "ids": ["sai-00001", "sai-00002"], "content": "Rule 1 and 2."},
        {"type": "MERGE", "ids": ["sai-00002", "sai-00003"], "content": "gone already"},
        {"type": "DELETE", "id": "sai-00003"},
        {"type": "UPDATE", "id": "sai-00099", "content": "x"},
    )
    ops = await run(state, AceCurator(ScriptedModel([reply]), allowed=OPERATIONS), lesson("x", 7))
    assert [op.op for op in ops] == ["UPDATE", "MERGE", *["TAG"] * 3, "NOOP", "RETIRE", "NOOP"]
    first = state.items["sai-00001"]
    assert (first.text, first.counters.helped, first.counters.harmed) == ("Rule 1 and 2.", 3, 2)
    assert first.attempts == ("b1", "b2")
    assert [state.items[f"sai-0000{i}"].status for i in (1, 2, 3)] == ["active", "retired", "retired"]
    assert state.items["sai-00003"].text == "Better rule 3."
    assert next_number(state.items) == 4  # retired numbers are never given again


async def test_without_a_model_words_decide() -> None:
    state, curator = memory(SEED), AceCurator()
    said = [
        lesson("vip means tier = 3", 1), lesson("VIP means tier = 3", 2), lesson("vip means tier = 4", 3),
        lesson("never sum ids", 4, polarity="avoid"), lesson("use count(*)", 5, title="formulas & calculations"),
    ]  # fmt: skip
    ops = await run(state, curator, *said)
    assert [(op.op, op.reflection) for op in ops] == [
        ("ADD", "sai-00002"), ("NOOP", ""), ("UPDATE", "sai-00002"), ("ADD", "err-00003"), ("ADD", "calc-00004")
    ]  # fmt: skip
    assert (state.items["sai-00002"].text, state.items["sai-00002"].task) == ("vip means tier = 4", "t3")
    await run(state, curator, Reflection(id="err-00003", text="", status="retired"))
    assert state.items["err-00003"].status == "retired"


async def test_the_budget_holds_and_what_helped_least_goes_first_the_oldest_of_equals() -> None:
    counts = [(0, 0), (2, 1), (0, 2), (0, 0), (5, 0)]
    items = [
        Reflection(id=f"sai-{i:05d}", text="word " * 20, counters=Counters(helped=h, harmed=u))
        for i, (h, u) in enumerate(counts, 1)
    ]
    size = len(bullet(items[0])) // 4 + 1
    for keep, gone in ((4, [3]), (3, [3, 1]), (2, [3, 1, 4]), (1, [3, 1, 4, 2])):
        book = Playbook(items)
        book.evict(keep * size)
        assert [op.reflection for op in book.ops] == [f"sai-{i:05d}" for i in gone]
        assert {op.author for op in book.ops} == {"budget"}
    state = memory(*items)
    ops = await run(state, AceCurator(budget=3 * size), lesson("another", 1))
    assert [op.reflection for op in ops if op.op == "RETIRE"] == ["sai-00003", "sai-00001", "sai-00004"]
    assert state.items["sai-00006"].status == "active"


def test_near_vectors_join_the_first_they_are_near_to() -> None:
    edge = (0.9, (1 - 0.81) ** 0.5)
    assert near_groups([(1.0, 0.0), edge, (0.0, 1.0), (0.89, (1 - 0.89**2) ** 0.5)], 0.9) == [[0, 1], [2], [3]]
    assert near_groups([], 0.9) == []


async def test_near_bullets_are_merged_under_the_first_id() -> None:
    items = [
        Reflection(id="sai-00001", text="When dates are compared, compare them as text.", counters=Counters(helped=2)),
        Reflection(id="sai-00002", text="Count distinct customers.", counters=Counters(helped=1)),
        Reflection(id="sai-00003", text="When dates are compared, compare them as text!", counters=Counters(harmed=1)),
    ]
    state = memory(*items)
    model = ScriptedModel(
        [
            {"reply": delta(), "match": "Playbook"},
            {"reply": "HINT: Compare dates as text.", "match": "at most 1 lesson"},
        ]
    )
    await run(state, AceCurator(model, merge_at=0.9), lesson("x"))
    first = state.items["sai-00001"]
    assert (first.text, first.counters.helped, first.counters.harmed) == ("Compare dates as text.", 2, 1)
    assert state.items["sai-00003"].status == "retired" and state.items["sai-00002"].status == "active"


async def test_without_a_model_near_bullets_that_contradict_are_not_merged() -> None:
    texts = ["gold customer means tier = 3 and country = 'DE'", "gold customer means tier = 4 and country = 'DE'"]
    state = memory(*[Reflection(id=f"sai-0000{i}", text=t) for i, t in enumerate([*texts, texts[0] + " "], 1)])
    await run(state, AceCurator(merge_at=0.7), lesson("count orders once"))
    assert {i: r.status for i, r in state.items.items()} == {
        "sai-00001": "active", "sai-00002": "active", "sai-00003": "retired", "sai-00004": "active"
    }  # fmt: skip


async def test_a_failed_call_proposes_nothing_and_bad_options_are_refused() -> None:
    with pytest.raises(RefusedError):
        await AceCurator(ScriptedModel([{"error": "refused"}])).propose([lesson("x")], [])
    for options in ({"budget": 0}, {"merge_at": 2.0}, {"allowed": ("SHOUT",)}, {"tries": 0}):
        with pytest.raises(ConfigError):
            AceCurator(**options)  # type: ignore[arg-type]
