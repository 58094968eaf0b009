"""Credit: what outcomes make of values and standings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Credit
from verbal.errors import ConfigError
from verbal.memory.credit import OutcomeCredit
from verbal.memory.exact import ExactMemory
from verbal.memory.log import LogState, replay
from verbal.parts import make_part
from verbal.store import Store
from verbal.types import MemoryOp, Reflection


class Lab:
    """A log and its credit; `step` is one attempt."""

    def __init__(self, *items: Reflection, seed: int = 0, **options: object) -> None:
        self.state, self.credit, self.rng = LogState(), OutcomeCredit(**options), random.Random(seed)
        self.settled: list[MemoryOp] = []
        self.count = 0
        for item in items:
            self.state.apply(MemoryOp(op="ADD", item=item))

    def status(self, id: str) -> str:
        return self.state.items[id].status

    def step(self, offered: dict[str, float], shown: list[str], outcome: float) -> list[MemoryOp]:
        self.count += 1
        ops = self.credit.observe(f"a{self.count}", offered, shown, outcome, self.state)
        for op in ops:
            assert self.state.apply(op) == op
        return ops

    def settle(self) -> list[MemoryOp]:
        ops = self.credit.settle(self.state)
        assert ops == OutcomeCredit(**_options(self.credit)).settle(self.state), (
            "nothing is remembered but what is known"
        )
        for op in ops:
            assert self.state.apply(op) == op, "the log takes each of them as it is"
        self.settled += ops
        return ops

    def live(self, chance_of_success, rounds, until=lambda lab: False, batch=4):
        """Attempts with a lot for each item that is not retired."""
        for n in range(rounds):
            offered = {i: {"active": 0.9, "quarantined": 0.5}[r.status] for i, r in self.state.items.items()
                       if r.status != "retired"}  # fmt: skip
            shown = [i for i, p in offered.items() if self.rng.random() < p]
            self.step(offered, shown, float(self.rng.random() < chance_of_success(shown)))
            if n % batch == 0:
                self.settle()
            if until(self):
                return self
        self.settle()
        return self


def _options(credit):
    return {k: v for k, v in vars(credit).items() if not k.startswith("_")}


def item(status="quarantined", text="a lesson", **fields):
    return Reflection(id="", text=text, status=status, **fields)


# values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "values"),
    [((1, 1, 1), (0.30, 0.51, 0.657)), ((0, 0), (-0.30, -0.51)), ((1, 1, 0), (0.30, 0.51, 0.057)),
     ((0.5, 1), (0.0, 0.3)), ((0,) * 5, (-0.3, -0.51, -0.657, -0.7599, -0.83193))],
)  # fmt: skip
def test_the_golden_values_of_memrl(outcomes, values):
    lab, seen = Lab(item()), []
    for outcome in outcomes:
        lab.step({"r1": 0.5}, ["r1"], outcome)
        seen.append(lab.state.items["r1"].value)
    assert seen == pytest.approx(values)


def test_only_what_was_shown_changes_its_value():
    lab = Lab(item(), item(), item("active"))
    ops = lab.step({"r1": 0.5, "r3": 0.9}, ["r3"], 1.0)
    assert [(op.reflection, op.tag, op.chance, op.outcome, op.delta, op.attempt, op.author) for op in ops] == [
        ("r1", "withheld", 0.5, 1.0, 0.0, "a1", "credit"),
        ("r3", "shown", 0.9, 1.0, 0.3, "a1", "credit"),
    ]
    assert [r.value for r in lab.state.items.values()] == [None, None, 0.3]
    assert [len(lab.state.trials.get(i, ())) for i in ("r1", "r2", "r3")] == [1, 0, 1]


def test_what_is_unknown_or_retired_gets_nothing():
    lab = Lab(item(), item("active"))
    lab.state.apply(MemoryOp(op="RETIRE", reflection="r2"))
    assert [op.reflection for op in lab.step({"r1": 0.5, "r2": 0.9, "r9": 0.5}, ["r2"], 1.0)] == ["r1"]


# standings ------------------------------------------------------------------------------------------------------------


def test_a_lesson_that_is_always_right_is_believed_after_seven_trials():
    lab = Lab(item())
    for n in range(20):
        lab.step({"r1": 0.5}, ["r1"] if n % 2 else [], float(n % 2))
        if lab.settle():
            break
    assert n + 1 == 7 and lab.status("r1") == "active"
    (op,) = lab.settled
    assert (op.op, op.tag, op.author) == ("TAG", "active", "credit")
    assert op.reason.startswith("better than without: effect +100 [") and op.reason.endswith("of 20 after 7 trials")
    assert "(shown 3 times: 1.00, withheld 4 times: 0.00)" in op.reason


def test_a_harmful_lesson_is_retired_and_never_believed():
    for seed in range(5):
        lab = Lab(item(), seed=seed).live(lambda shown: 0.2 if shown else 0.7, 200)
        assert lab.status("r1") == "retired" and len(lab.settled) == 1
        assert "harm" in lab.settled[0].reason and "effect -" in lab.settled[0].reason


def test_a_useless_lesson_is_retired_within_the_horizon():
    ends = [Lab(item(), seed=s, horizon=60).live(lambda shown: 0.5, 70) for s in range(20)]
    assert sum(lab.status("r1") == "retired" for lab in ends) >= 17
    assert all("no use shown" in lab.settled[-1].reason for lab in ends if lab.status("r1") == "retired")


def test_trials_before_the_last_change_of_standing_do_not_count():
    lab = Lab(item())
    for n in range(6):
        lab.step({"r1": 0.5}, ["r1"] if n % 2 else [], float(n % 2))
    lab.state.apply(MemoryOp(op="TAG", reflection="r1", tag="active", author="user"))
    lab.state.apply(MemoryOp(op="TAG", reflection="r1", tag="quarantined", author="user"))
    lab.step({"r1": 0.5}, ["r1"], 1.0)
    assert lab.settle() == []


def test_a_believed_lesson_that_turns_bad_is_tried_again_and_retired():
    lab = Lab(item()).live(lambda shown: 0.9 if shown else 0.3, 100, lambda lab: lab.status("r1") == "active")
    lab.live(lambda shown: 0.9 if shown else 0.3, 300)
    assert [op.tag for op in lab.settled] == ["active"], "while it helps it stays"
    lab.live(lambda shown: 0.1 if shown else 0.5, 60, lambda lab: lab.status("r1") == "quarantined")
    assert lab.settled[-1].tag == "quarantined" and "turned bad" in lab.settled[-1].reason
    lab.live(lambda shown: 0.1 if shown else 0.5, 200)
    assert [op.op for op in lab.settled] == ["TAG", "TAG", "RETIRE"] and lab.status("r1") == "retired"


def test_a_false_alarm_is_undone():
    lab = Lab(item()).live(lambda shown: 0.9 if shown else 0.2, 100, lambda lab: lab.status("r1") == "active")
    lab.live(lambda shown: 0.0, 40, lambda lab: lab.status("r1") == "quarantined")  # the tasks are hard for a while
    assert lab.status("r1") == "quarantined"
    lab.live(lambda shown: 0.9 if shown else 0.2, 100, lambda lab: lab.status("r1") == "active")
    assert lab.status("r1") == "active"


def test_what_is_believed_without_trials_is_retired_when_it_is_proven_harmful():
    lab = Lab(item("active")).live(lambda shown: 0.2 if shown else 0.9, 400)
    assert lab.status("r1") == "retired" and "harm" in lab.settled[-1].reason
    assert lab.settled[0].op == "RETIRE" or lab.settled[0].tag == "quarantined"
    lab = Lab(item("active")).live(lambda shown: 0.7 if shown else 0.5, 400)
    assert lab.status("r1") == "active" and lab.settled == []


def test_outcomes_that_were_no_experiment_move_no_standing():
    lab = Lab(item("quarantined"), item("active"))
    for n in range(200):
        lab.step({"r1": 1.0, "r2": 1.0}, ["r1", "r2"], float(n % 2 == 0))
    assert lab.settle() == []
    lab = Lab(item()).live(lambda shown: 0.9 if shown else 0.2, 100, lambda lab: lab.status("r1") == "active")
    for _ in range(100):
        lab.step({"r1": 1.0}, ["r1"], 0.0)
    assert lab.settle() == []


# rivals ---------------------------------------------------------------------------------------------------------------


def duel(lab, new, old, most=200):
    """A coin decides which of r1 and its rival r2 is shown."""
    for _ in range(most):
        if lab.status("r2") != "quarantined":
            break
        shown = lab.rng.choice(["r1", "r2"])
        lab.step({"r1": 0.5, "r2": 0.5}, [shown], float(lab.rng.random() < (new if shown == "r2" else old)))
        lab.settle()
    return lab


def test_a_rival_that_does_better_takes_the_place():
    lab = duel(Lab(item("active"), item(rival="r1")), new=0.9, old=0.3)
    assert (lab.status("r1"), lab.status("r2")) == ("retired", "active")
    first, second = lab.settled
    assert {first.reflection, second.reflection} == {"r1", "r2"}
    reasons = {op.reflection: op.reason for op in lab.settled}
    assert reasons["r1"].startswith("superseded by r2: effect +") and reasons["r2"].startswith("better than r1: ")


def test_a_rival_that_does_worse_is_retired_and_nothing_else_happens():
    lab = duel(Lab(item("active"), item(rival="r1")), new=0.2, old=0.8)
    assert (lab.status("r1"), lab.status("r2")) == ("active", "retired") and len(lab.settled) == 1


def test_the_rival_of_what_is_retired_is_an_item_like_others():
    lab = Lab(item("active"), item(rival="r1"))
    lab.state.apply(MemoryOp(op="RETIRE", reflection="r1"))
    lab.live(lambda shown: 0.9 if shown else 0.2, 100, lambda lab: lab.status("r2") == "active")
    assert [op.reflection for op in lab.settled] == ["r2"] and "better than without" in lab.settled[0].reason


def test_both_on_trial_and_both_proven_the_rival_wins():
    lab = Lab(item(), item(rival="r1"))
    for n in range(12):
        right = float(n % 2)
        lab.step({"r1": 0.5, "r2": 0.5}, ["r1", "r2"] if n % 2 else [], right)
    lab.settle()
    assert (lab.status("r1"), lab.status("r2")) == ("retired", "active")


# budget, patience, options --------------------------------------------------------------------------------------------


def test_the_budget_is_kept_and_says_who_went():
    lab = Lab(*(item(text=f"lesson {i}") for i in range(5)), items=3)
    assert [(op.op, op.reflection, op.author) for op in lab.settle()] == [
        ("RETIRE", "r1", "budget"),
        ("RETIRE", "r2", "budget"),
    ]
    assert lab.settle() == []
    assert len(Lab(*(item(text=f"lesson {i}") for i in range(5)), tokens=16).settle()) == 2
    assert Lab(*(item(text=f"lesson {i}") for i in range(600)), items=0, tokens=0).settle() == []


def test_what_is_not_offered_for_long_is_retired_when_patience_says_so():
    lab = Lab(item(), item(), item("active"), patience=10)
    for _ in range(9):
        lab.step({"r2": 0.5}, [], 1.0)
    assert [(op.reflection, op.reason) for op in lab.settle()] == [("r1", "not offered in 10 operations")]
    assert Lab(item(), item()).settle() == []


@pytest.mark.parametrize(
    ("options", "told"),
    [(dict(rate=0.0), "rate 0 "), (dict(alpha=1.0), "alpha 1 "), (dict(worth=-0.1), "worth -0.1"),
     (dict(horizon=0), "horizon 0"), (dict(alarm=1.0), "alarm 1 "), (dict(items=-1, tokens=-5), "items -1"),
     (dict(rate=float("nan")), "rate nan")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        OutcomeCredit(**options)


def test_it_is_the_part_credit():
    made = make_part("memory", "credit", alpha=0.1)
    assert isinstance(made, Credit) and made == OutcomeCredit(alpha=0.1)


# all together ---------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), gains=st.lists(st.floats(-0.4, 0.4), min_size=1, max_size=4))
@settings(max_examples=6)
def test_a_log_with_credit_is_a_pure_function_of_itself(seed, gains):
    items = [item(rival="r1" if i == 2 else "", text=f"lesson {i}") for i in range(len(gains))]

    def chance(shown):
        return min(0.95, max(0.05, 0.5 + sum(gains[int(i[1:]) - 1] for i in shown)))

    first, second = (Lab(*items, seed=seed, horizon=40, alarm=20.0).live(chance, 150) for _ in range(2))
    assert first.settled == second.settled and first.state.items == second.state.items
    assert first.settle() == []


async def test_on_a_memory_in_a_store(tmp_path):
    credit, rng = OutcomeCredit(), random.Random(1)
    with Store(tmp_path / "v.db") as store:
        memory = ExactMemory(store, quarantine=True)
        await memory.apply([MemoryOp(op="ADD", item=item(text="vip means tier = 3")),
                            MemoryOp(op="ADD", item=item(text="vip means tier = 9"))])  # fmt: skip
        for n in range(240):
            (found,) = (await memory.search("who is vip", 1, status="quarantined")) or [None]
            if found is None:
                break
            shown = [found.id] if rng.random() < 0.5 else []
            right = rng.random() < ((0.9 if found.id == "r1" else 0.05) if shown else 0.4)
            ops = credit.observe(f"a{n}", {found.id: 0.5}, shown, float(right), memory.preview())
            ops += credit.settle(memory.preview(ops))
            await memory.apply(ops)
        assert {i: r.status for i, r in memory.items().items()} == {"r1": "active", "r2": "retired"}
        assert [r.id for r in await memory.search("who is vip", 3)] == ["r1"]
        assert {i: r.status for i, r in replay(memory.history()).items()} == {"r1": "active", "r2": "retired"}
        memory.close()
