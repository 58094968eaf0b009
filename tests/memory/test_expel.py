"""ExpeL's rules: what votes do to a list, and the same through the memory's log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError, RefusedError
from verbal.memory.expel import FULL, ExpelCurator, Rule, Vote, read_votes, update_rules
from verbal.memory.log import LogState
from verbal.models.scripted import ScriptedModel
from verbal.testing import temporary_memory
from verbal.types import MemoryOp, Reflection

START = [Rule("Use search first.", 2), Rule("Check units.", 1), Rule("Bad rule.", 2)]

GOLDEN = [
    ("AGREE 1: Use search first.", False, [("Use search first.", 3), ("Bad rule.", 2), ("Check units.", 1)]),
    ("REMOVE 2: Check units.", False, [("Use search first.", 2), ("Bad rule.", 2)]),
    ("REMOVE 3: Bad rule.", False, [("Use search first.", 2), ("Check units.", 1), ("Bad rule.", 1)]),
    ("REMOVE 3: Bad rule.", True, [("Use search first.", 2), ("Check units.", 1)]),
    ("EDIT 2: Check all units.", False, [("Use search first.", 2), ("Check all units.", 2), ("Bad rule.", 2)]),
    ("EDIT 2: Use search first.", False, [("Use search first.", 3), ("Bad rule.", 2), ("Check units.", 1)]),
    ("ADD: Use search first.", False, [("Use search first.", 2), ("Bad rule.", 2), ("Check units.", 1)]),
    ("AGREE 1: Something unknown.", False, [("Use search first.", 2), ("Bad rule.", 2), ("Check units.", 1)]),
]


@pytest.mark.parametrize(("reply", "full", "after"), GOLDEN)
def test_golden_values_of_the_operations(reply: str, full: bool, after: list[tuple[str, int]]) -> None:
    assert [(r.text, r.count) for r in update_rules(START, read_votes(reply), full=full)] == after


@pytest.mark.parametrize(("reply", "full", "after"), GOLDEN)
async def test_golden_values_through_the_log_of_a_memory(reply: str, full: bool, after: list[tuple[str, int]]) -> None:
    filler = [Rule(f"Filler number {i} of many.", 9) for i in range(22)] if full else []
    rules = [*START, *filler]
    async with temporary_memory() as memory:
        items = [Reflection(id=f"r{i}", text=r.text, value=float(r.count)) for i, r in enumerate(rules, 1)]
        await memory.apply([MemoryOp(op="ADD", item=item) for item in items])
        # The model sees the rules by count, so it gives the numbers of that list.
        order = sorted(rules, key=lambda r: -r.count)
        vote = read_votes(reply)[0]
        number = f" {1 + [r.text for r in order].index(START[vote.number - 1].text)}" if vote.number else ""
        model = ScriptedModel([f"{vote.op}{number}: {vote.text}"])
        known = [r for r in memory.preview().items.values() if r.status != "retired"]
        await memory.apply(await ExpelCurator(model).propose([Reflection(id="new", text="x")], known))
        left = [r for r in memory.preview().items.values() if r.status == "active" and not r.text.startswith("Filler")]
        assert {(r.text, r.value) for r in left} == {(text, float(count)) for text, count in after}
        assert len([r for r in memory.preview().items.values() if r.text.startswith("Filler")]) == len(filler)


def test_votes_apply_in_their_order_and_four_are_read() -> None:
    first = "ADD: New one.\nEDIT 1: Search before all.\n"
    reply = f"{first}AGREE 1: Use search first.\nREMOVE 1: Use search first.\nADD: Fifth."
    votes = read_votes(reply)
    assert [v.op for v in votes] == ["ADD", "EDIT", "AGREE", "REMOVE"]
    # 2 - 1 + 1 + 1: the rule is deleted only after all votes, and the words of EDIT are the last.
    assert update_rules(START[:1], votes) == [Rule("Search before all.", 3), Rule("New one.", 2)]


def test_the_parser_drops_what_is_cut_or_speaks_of_votes() -> None:
    text = (
        "Thoughts.\nADD: Ends well.\nADD: cut off\nADD:\nADD: I would ADD this.\n- **AGREE 2: Check units.\nKEEP 1: No."
    )
    assert read_votes(text) == [Vote("ADD", "Ends well."), Vote("AGREE", "Check units.", 2)]


def test_a_text_that_holds_several_rules_means_the_numbered_or_the_longest() -> None:
    rules = [Rule("units", 2), Rule("Check units.", 2)]
    assert [r.count for r in update_rules(rules, [Vote("AGREE", "Check units.")])] == [3, 2]
    assert update_rules(rules, [Vote("AGREE", "Check units.", 1)])[0] == Rule("units", 3)


def test_in_a_full_list_one_remove_deletes_a_rule_of_three() -> None:
    rules = [Rule("Three.", 3), Rule("Four.", 4)]
    votes = [Vote("REMOVE", "Three."), Vote("REMOVE", "Four.")]
    assert update_rules(rules, votes, full=True) == [Rule("Four.", 1)]
    assert [r.count for r in update_rules(rules, votes)] == [3, 2]


def test_an_edit_of_no_rule_is_nothing() -> None:
    assert update_rules(START, [Vote("EDIT", "New.", n) for n in (None, 0, 4)]) == sorted(START, key=lambda r: -r.count)


@given(
    st.lists(
        st.tuples(st.sampled_from(["A.", "Ab.", "B.", "C d."]), st.integers(1, 9)), max_size=6, unique_by=lambda r: r[0]
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["ADD", "AGREE", "EDIT", "REMOVE"]),
            st.sampled_from(["A.", "Ab.", "B.", "New.", "See C d."]),
            st.none() | st.integers(-1, 8),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_any_votes_leave_positive_counts_in_order(rules, votes, full: bool) -> None:  # type: ignore[no-untyped-def]
    before, given_votes = [Rule(*r) for r in rules], [Vote(*v) for v in votes]
    after = update_rules(before, given_votes, full=full)
    assert all(r.count > 0 for r in after)
    assert [r.count for r in after] == sorted((r.count for r in after), reverse=True)
    assert sum(r.count for r in after) <= sum(r.count for r in before) + 2 * len(votes)
    assert update_rules(before, []) == sorted(before, key=lambda r: -r.count)


def lesson(text: str, n: int = 0) -> Reflection:
    return Reflection(id=f"new:{n}", text=text, task=f"t{n}", attempts=(f"a{n}",))


async def run(state: LogState, lessons: Sequence[Reflection], curator: ExpelCurator) -> list[MemoryOp]:
    known = [r for r in state.items.values() if r.status != "retired"]
    return [state.apply(op) for op in await curator.propose(lessons, known)]


async def test_without_a_model_lessons_vote_by_their_words() -> None:
    state, curator = LogState(), ExpelCurator()
    await run(state, [lesson("vip means tier = 3", 1)], curator)
    assert (state.items["r1"].text, state.items["r1"].value, state.items["r1"].kind) == (
        "vip means tier = 3.",
        2,
        "rule",
    )
    await run(state, [lesson("VIP means tier = 3", 2)], curator)
    assert state.items["r1"].value == 3
    # A contradiction takes a vote from a rule that others spoke for, and replaces one that nobody did.
    await run(state, [lesson("vip means tier = 4", 3)], curator)
    assert (state.items["r1"].text, state.items["r1"].value) == ("vip means tier = 3.", 2)
    await run(state, [lesson("vip means tier = 4", 4)], curator)
    assert (state.items["r1"].text, state.items["r1"].value) == ("vip means tier = 4.", 3)
    assert state.items["r1"].task == "t4" and "a4" in state.items["r1"].attempts
    await run(
        state, [lesson("late order means shipped > due", 5), lesson("late order means shipped > due", 6)], curator
    )
    assert (state.items["r2"].text, state.items["r2"].value) == ("late order means shipped > due.", 3)


async def test_somebody_who_asks_to_forget_is_obeyed_at_once() -> None:
    state = LogState()
    state.apply(MemoryOp(op="ADD", item=Reflection(id="r1", text="vip means tier = 3.", value=9.0)))
    await run(state, [Reflection(id="r1", text="", status="retired")], ExpelCurator(ScriptedModel(["NONE"])))
    assert state.items["r1"].status == "retired"


async def test_no_more_than_the_budget_is_kept() -> None:
    state, curator = LogState(), ExpelCurator(most=3)
    subjects = [f"{word}s" for word in ("apple", "bear", "cloud", "door", "eagle", "field", "grape", "house", "jacket")]
    for n, subject in enumerate(subjects):
        await run(state, [lesson(f"{subject} are sorted by weight", n)], curator)
    active = [r for r in state.items.values() if r.status == "active"]
    assert len(active) == 3 + FULL
    assert [r.id for r in active] == [f"r{i}" for i in range(len(subjects) - 7, len(subjects) + 1)]  # the oldest went


async def test_a_model_votes_and_later_calls_see_what_earlier_ones_did() -> None:
    asked: list[str] = []

    def answer(messages, index, seed):  # type: ignore[no-untyped-def]
        asked.append(messages[0].content)
        return ["ADD: Quote names.", "AGREE 1: Quote names.", "nothing to say"][min(len(asked), 3) - 1]

    state = LogState()
    ops = await run(
        state, [lesson("one", 1), lesson("two", 2), lesson("three", 3)], ExpelCurator(ScriptedModel(answer))
    )
    assert "1. Quote names." in asked[1]
    assert (state.items["r1"].text, state.items["r1"].value, state.items["r1"].task) == ("Quote names.", 3, "t1")
    # The third could not be read three times: nothing changes, and the log says why.
    assert len(asked) == 5 and [op.op for op in ops] == ["NOOP", "ADD"] and "3 tries" in ops[0].reason


async def test_the_prompt_asks_to_remove_when_the_list_is_full() -> None:
    asked: list[str] = []

    def answer(messages, index, seed):  # type: ignore[no-untyped-def]
        asked.append(messages[0].content)
        return "NONE"

    for count in (1, 2):
        known = [Reflection(id=f"r{i}", text=f"Rule {i}.") for i in range(count)]
        assert await ExpelCurator(ScriptedModel(answer), most=2).propose([lesson("x")], known) == []
    assert ["The list is full" in text for text in asked] == [False, True]


async def test_a_failed_call_proposes_nothing_and_bad_options_are_refused() -> None:
    with pytest.raises(RefusedError):
        await ExpelCurator(ScriptedModel([{"error": "refused"}])).propose([lesson("x")], [])
    with pytest.raises(ConfigError, match="most"):
        ExpelCurator(most=0)
