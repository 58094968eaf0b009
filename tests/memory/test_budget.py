"""Who goes when a memory is over its budget."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Trial
from verbal.memory.budget import RESERVE, over_budget
from verbal.memory.log import LogState
from verbal.memory.retrieval import tokens
from verbal.types import MemoryOp, Reflection


def item(id, status="active", text="some words", **fields):
    return Reflection(id=id, text=text, status=status, **fields)


def trials(gain, count=20, version=1):
    """Trials in which an item made this difference."""
    return [Trial(n % 2 == 0, 0.5, 0.5 + gain / 2 if n % 2 == 0 else 0.5 - gain / 2, version + n) for n in range(count)]


def gone(items, seen=None, **caps):
    return [op.reflection for op in over_budget(items, seen or {}, **caps)]


def test_within_budget_nothing_goes():
    assert over_budget([item("a"), item("b")], {}, items_cap=2, tokens_cap=1000) == []
    assert over_budget([item("a"), item("b")], {}) == []


def test_the_least_gain_goes_first_and_says_why():
    items = [item("harms"), item("helps"), item("untried"), item("helps little")]
    seen = {"harms": trials(-0.5), "helps": trials(0.6), "helps little": trials(0.1)}
    assert gone(items, seen, items_cap=3) == ["harms"]
    assert gone(items, seen, items_cap=1) == ["harms", "untried", "helps little"]
    (op,) = over_budget(items, seen, items_cap=3)
    assert (op.op, op.author) == ("RETIRE", "budget")
    assert op.reason.startswith("over budget, scope family keeps 3 items: active, ") and "offered 20 times" in op.reason


def test_a_long_item_has_to_gain_more():
    items = [item("long", text="word " * 200), item("short")]
    same = {"long": trials(0.5), "short": trials(0.5)}
    assert gone(items, same, items_cap=1) == ["long"]
    assert gone(items, same, tokens_cap=100) == ["long"]


def test_what_is_offered_more_often_gains_more():
    items = [item("seldom"), item("often")]
    seen = {"seldom": trials(0.5, 20), "often": trials(0.5, 200)}
    seen["seldom"][-1] = seen["seldom"][-1]._replace(version=200)
    assert gone(items, seen, items_cap=1) == ["seldom"]


def test_the_oldest_goes_on_ties():
    assert gone([item("first"), item("second"), item("third")], items_cap=1) == ["first", "second"]


def test_what_is_on_trial_goes_before_what_is_believed_but_keeps_a_tenth():
    items = [*(item(f"a{i}") for i in range(20)), *(item(f"q{i}", "quarantined") for i in range(5))]
    seen = {f"q{i}": trials(0.1 * i) for i in range(5)} | {f"a{i}": trials(-0.5) for i in range(20)}
    assert gone(items, seen, items_cap=20) == ["q0", "q1", "q2", "a0", "a1"]


def test_scopes_have_budgets_of_their_own():
    items = [item(f"{scope}{i}", scope=scope) for scope in ("task", "family", "global") for i in range(2)]
    assert gone(items, items_cap=1) == ["task0", "family0", "global0"]
    assert gone([*items, item("old", "retired")], items_cap=2) == []


def test_trials_at_an_even_coin_say_more_than_those_at_nine_in_ten():
    sure, vague = trials(0.3), [t._replace(chance=0.9) for t in trials(0.3)]
    assert gone([item("sure"), item("vague")], {"sure": sure, "vague": vague}, items_cap=1) == ["vague"]


ITEMS = st.lists(
    st.tuples(st.sampled_from(["active", "quarantined", "retired"]), st.sampled_from(["task", "family", "global"]),
              st.integers(1, 40), st.floats(-1, 1), st.integers(0, 12)),
    max_size=30,
)  # fmt: skip


@given(made=ITEMS, items_cap=st.none() | st.integers(1, 12), tokens_cap=st.none() | st.integers(1, 300))
@settings(max_examples=60)
def test_budgets_are_kept_and_no_more_goes_than_must(made, items_cap, tokens_cap):
    items = [item(f"r{i}", s, text="word " * n, scope=scope) for i, (s, scope, n, _, _) in enumerate(made)]
    seen = {f"r{i}": trials(gain, count) for i, (*_, gain, count) in enumerate(made)}
    ops = over_budget(items, seen, items_cap=items_cap, tokens_cap=tokens_cap)
    ids = [op.reflection for op in ops]
    assert ops == over_budget(items, seen, items_cap=items_cap, tokens_cap=tokens_cap) and len(set(ids)) == len(ids)
    for scope in ("task", "family", "global"):
        held = [i for i in items if i.scope == scope and i.status != "retired"]
        kept = [i for i in held if i.id not in ids]

        def fits(some):
            return (items_cap is None or len(some) <= items_cap) and (
                tokens_cap is None or sum(map(tokens, some)) <= tokens_cap
            )

        assert fits(kept)
        if went := [i for i in held if i.id in ids]:
            last = max(went, key=lambda i: ids.index(i.id))
            assert not fits([*kept, last])
        if any(i.status == "active" for i in held if i.id in ids) and items_cap:
            waiting = [i for i in kept if i.status == "quarantined"]
            assert len(waiting) <= RESERVE * items_cap or tokens_cap is not None


def test_the_log_takes_what_the_budget_says():
    state = LogState()
    for i in range(4):
        state.apply(MemoryOp(op="ADD", item=item("", text=f"lesson {i}")))
    for op in over_budget(state.items.values(), state.trials, items_cap=3):
        assert state.apply(op).op == "RETIRE"
    assert [i for i, r in state.items.items() if r.status == "retired"] == ["r1"]
