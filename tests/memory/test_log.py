"""A memory is a pure function of its op log."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.memory.log import LogState, embedder_op, replay
from verbal.types import Counters, MemoryOp, Reflection

IDS = st.sampled_from(["", "r1", "r2", "r3", "r7", "rx", "r01"])
ITEMS = st.builds(
    Reflection,
    id=IDS,
    text=st.sampled_from(["", " ", "a rule", "another", "größer"]),
    task=st.sampled_from([None, "t1", "t2"]),
    status=st.sampled_from(["active", "quarantined", "retired"]),
    attempts=st.sampled_from([(), ("a1",), ("a1", "a2")]),
)
OPS = st.lists(
    st.builds(
        MemoryOp,
        op=st.sampled_from(["ADD", "ADD", "ADD", "UPDATE", "MERGE", "RETIRE", "TAG", "VALUE", "NOOP"]),
        reflection=IDS,
        item=st.none() | ITEMS,
        others=st.sampled_from([(), ("r1",), ("r2", "r3"), ("r2", "nobody")]),
        tag=st.sampled_from(["", "shown", "helped", "harmed"]),
        delta=st.sampled_from([0.0, 0.5, -1.0, float("inf"), float("nan")]),
    ),
    max_size=25,
)


def counted(ops: list[MemoryOp]) -> tuple[LogState, list[MemoryOp]]:
    state = LogState()
    return state, [state.apply(op) for op in ops]


@given(ops=OPS)
def test_replay_is_deterministic_and_a_log_of_what_counted_gives_the_same(ops: list[MemoryOp]) -> None:
    state, logged = counted(ops)
    assert replay(ops) == replay(ops) == state.items == replay(logged)
    again = [MemoryOp.from_json(op.to_json()) for op in logged if op.delta == op.delta]
    assert len(again) < len(logged) or replay(again) == state.items


@given(ops=OPS, cut=st.integers(0, 25))
def test_a_prefix_is_an_earlier_version(ops: list[MemoryOp], cut: int) -> None:
    state, _ = counted(ops[:cut])
    before = dict(state.items)
    for op in ops[cut:]:
        state.apply(op)
    assert state.items == replay(ops) and before == replay(ops[:cut])
    assert state.version == len(ops)
    assert list(before) == [i for i in state.items if i in before], "items are never forgotten, order is kept"


@given(ops=OPS)
def test_no_operation_breaks_the_rules(ops: list[MemoryOp]) -> None:
    state = LogState()
    for op in ops:
        before, by_task = dict(state.items), {t: set(ids) for t, ids in state.by_task.items()}
        logged = state.apply(op)
        changed = {i for i in state.items if state.items[i] != before.get(i)}
        assert (logged.op == "NOOP") == (not changed), (op, logged)
        if logged.op == "NOOP":
            assert by_task == state.by_task and (op.op == "NOOP" or logged.reason.startswith(op.op))
        assert all(state.items[i].version == state.version for i in changed)
        assert all(item.text.strip() and item.id == i for i, item in state.items.items())
        for i in changed & set(before):
            assert before[i].status != "retired" or logged.op in ("TAG", "VALUE"), "what is retired stays retired"
        if logged.op == "ADD":
            assert set(state.items) - set(before) == {logged.reflection}
    assert all(r.status != "retired" for r in state.active().values())


@given(ops=OPS)
def test_ids_are_never_reused(ops: list[MemoryOp]) -> None:
    state, seen = LogState(), set()
    for op in ops:
        logged = state.apply(op)
        if logged.op == "ADD":
            assert logged.reflection not in seen
            seen.add(logged.reflection)
        assert state.next_id() not in seen


def test_numbers_go_on_after_the_highest() -> None:
    state, _ = counted([add("one"), add("two", id="r9"), add("three"), MemoryOp(op="RETIRE", reflection="r10")])
    assert list(state.items) == ["r1", "r9", "r10"] and state.next_id() == "r11"
    state.apply(add("x", id="mine"))
    assert state.next_id() == "r11"


def test_update_keeps_what_only_outcomes_may_change() -> None:
    state, _ = counted(
        [add("old", task="t1", attempts=("a1",)), *(MemoryOp(op="TAG", reflection="r1", tag="helped") for _ in "abc")]
    )
    state.apply(MemoryOp(op="VALUE", reflection="r1", delta=0.25))
    state.apply(MemoryOp(op="VALUE", reflection="r1", delta=0.5))
    new = Reflection(id="zzz", text="new", attempts=("a2",), counters=Counters(harmed=9), value=7.0)
    state.apply(MemoryOp(op="UPDATE", reflection="r1", item=new))
    assert state.items["r1"] == Reflection(
        id="r1", text="new", task="t1", attempts=("a2",), counters=Counters(helped=3), value=0.75, version=7
    )


def test_a_task_stays_a_source_until_the_words_are_gone_with_the_item() -> None:
    state, _ = counted([add("a", task="t1"), add("b", task="t2"), add("c", task="t3")])
    state.apply(MemoryOp(op="UPDATE", reflection="r1", item=Reflection(id="r1", text="a", task="t9")))
    assert state.by_task == {"t1": {"r1"}, "t2": {"r2"}, "t3": {"r3"}}, "the same words from t9 add no source"
    state.apply(MemoryOp(op="UPDATE", reflection="r1", item=Reflection(id="r1", text="a, better", task="t9")))
    state.apply(MemoryOp(op="MERGE", reflection="r3", item=Reflection(id="r3", text="a and c"), others=("r1",)))
    assert {t for t, ids in state.by_task.items() if "r3" in ids} == {"t1", "t3", "t9"}
    assert {i: r.status for i, r in state.items.items()} == {"r1": "retired", "r2": "active", "r3": "active"}


def test_a_trial_changes_nothing() -> None:
    state, _ = counted([add("a", task="t1")])
    before = (state.version, dict(state.items), {t: set(i) for t, i in state.by_task.items()})
    trial = state.trial()
    assert trial.apply(add("b", task="t1")).reflection == "r2"
    assert trial.apply(MemoryOp(op="RETIRE", reflection="r1")).op == "RETIRE"
    assert (state.version, state.items, state.by_task) == before and state.next_id() == "r2"


def test_the_embedder_of_each_item_is_known() -> None:
    state, _ = counted([add("a"), embedder_op("small"), add("b"), embedder_op("large"), add("c")])
    assert state.embedded_by == {"r1": "", "r2": "small", "r3": "large"}


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (dict(op="ADD"), "ADD: no item"),
        (dict(op="ADD", reflection="r1", item=Reflection(id="", text="x")), "ADD: the id 'r1' is taken"),
        (dict(op="UPDATE", reflection="r9", item=Reflection(id="", text="x")), "UPDATE: unknown id 'r9'"),
        (dict(op="MERGE", reflection="r1", item=Reflection(id="", text="x")), "MERGE: cannot merge nothing into 'r1'"),
        (dict(op="TAG", reflection="r1"), "TAG: no tag"),
        (dict(op="VALUE", reflection="r1", delta=float("nan")), "VALUE: delta nan is not a number"),
        (dict(op="RETIRE", reflection="r2"), "RETIRE: 'r2' is retired"),
        (dict(op="RETIRE"), "RETIRE: unknown id ''"),
    ],
)
def test_what_is_wrong_is_said(op: dict[str, Any], reason: str) -> None:
    state, _ = counted([add("a"), add("b"), MemoryOp(op="RETIRE", reflection="r2")])
    logged = state.apply(MemoryOp(**op, author="somebody"))
    assert (logged.op, logged.reason, logged.author) == ("NOOP", reason, "somebody")


def add(text: str, id: str = "", **fields: Any) -> MemoryOp:
    return MemoryOp(op="ADD", item=dataclasses.replace(Reflection(id=id, text=text), **fields))


TRIED = st.lists(
    st.builds(
        MemoryOp,
        op=st.sampled_from(["ADD", "UPDATE", "MERGE", "RETIRE", "TAG", "VALUE"]),
        reflection=IDS,
        item=st.none() | ITEMS,
        others=st.sampled_from([(), ("r1",), ("r2", "r3")]),
        tag=st.sampled_from(["shown", "withheld", "helped", "active", "quarantined"]),
        delta=st.sampled_from([0.0, 0.5]),
        outcome=st.sampled_from([None, 0.0, 1.0]),
        chance=st.sampled_from([0.5, 1.0]),
        attempt=st.sampled_from(["", "a1", "a2"]),
    ),
    max_size=25,
)


@given(before=TRIED, after=TRIED)
def test_a_trial_counts_as_the_state_would_and_leaves_it(before: list[MemoryOp], after: list[MemoryOp]) -> None:
    state, _ = counted(before)
    told = (state.version, dict(state.items), {i: list(t) for i, t in state.trials.items() if t}, dict(state.since))
    trial, copy = state.trial(), state.copy()
    logged = [trial.apply(op) for op in after]
    assert [copy.apply(op) for op in after] == logged
    assert told == (state.version, state.items, {i: t for i, t in state.trials.items() if t}, state.since)
    assert [state.apply(op) for op in after] == logged
    for other in (trial, copy):
        assert (dict(other.items), dict(other.since)) == (state.items, state.since)
        assert list(other.items) == list(state.items), "the order is kept"
        assert {i: t for i, t in other.trials.items() if t} == {i: t for i, t in state.trials.items() if t}


def test_vectors_stay_out_of_the_state() -> None:
    state, logged = counted([add("a", embedding=(1.0, 0.0)), add("b")])
    assert all(item.embedding == () for item in state.items.values())
    assert all(op.item is not None and op.item.embedding == () for op in logged)
    state.apply(MemoryOp(op="UPDATE", reflection="r1", item=Reflection(id="r1", text="c")))
    assert state.written == {"r1": 3, "r2": 2}


def test_an_item_of_an_unknown_kind_is_never_written():
    state = LogState()
    op = state.apply(MemoryOp(op="ADD", item=Reflection(id="", text="x", kind="poem")))
    assert op.op == "NOOP" and "unknown kind 'poem'" in op.reason and state.items == {}


def test_a_trial_is_taken_back_and_may_count_anew() -> None:
    state = LogState()
    state.apply(MemoryOp(op="ADD", item=Reflection(id="r1", text="words")))
    right = MemoryOp(op="VALUE", reflection="r1", tag="shown", outcome=1.0, delta=0.3, attempt="a", chance=0.5)
    back = MemoryOp(op="VALUE", reflection="r1", delta=-0.3, attempt="a")
    for _ in range(3):
        state.apply(right)
        assert state.items["r1"].counters.helped == len(state.trials["r1"]) == 1
        layer = state.trial()
        layer.apply(back)
        assert layer.apply(right.replace(outcome=0.0)).op == "VALUE" and layer.items["r1"].counters.harmed == 1
        assert layer.apply(right).op == "NOOP" and state.items["r1"].counters.harmed == 0
        state.apply(back)
        assert (state.trials["r1"], state.items["r1"].counters.shown, state.items["r1"].value) == ([], 0, 0.0)
        state.apply(back.replace(delta=0.0))
        assert state.items["r1"].counters.shown == 0, "nothing is taken back twice"
    state.apply(right)
    state.apply(MemoryOp(op="UPDATE", reflection="r1", item=Reflection(id="r1", text="other words")))
    state.apply(back)
    assert not state.trials.get("r1") and state.items["r1"].counters.shown == 0
