"""The gate on sides whose scores are written down: what it says, when it stops, what it writes into the evidence."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.betting import Bet, ConfidenceSequence, threshold
from verbal.errors import BudgetError, ConfigError
from verbal.gate import MOST, Rule, gate
from verbal.types import Task


def tasks(count, split="dev", name="t"):
    return [Task(id=f"{name}{i}", kind="tiny", messages=(), split=split) for i in range(count)]


class Table:
    """A side whose scores stand in a table, or come from a function of the task's number."""

    def __init__(self, scores, name="side"):
        self.name, self._scores, self.seen = name, scores, []

    async def scores(self, tasks):
        self.seen += [t.id for t in tasks]
        found = [self._scores(t.id) if callable(self._scores) else self._scores for t in tasks]
        return [s if isinstance(s, list) else [s] for s in found]


def number(id):
    return int("".join(c for c in id if c.isdigit()))


WRONG, RIGHT = Table(0.0), Table(1.0)
NEVER = Rule(alpha=1e-30, fdr=1e-30, batch=7)
"""A rule under which no small number of tasks decides."""


async def test_a_real_gain_is_accepted_before_the_tasks_end():
    told = []
    made = await gate(Table(0.0), Table(1.0), tasks(200), on_task=lambda used, wealth: told.append((used, wealth)))
    assert made.verdict == "accept"
    used = made.evidence["used"]
    assert used < 30 and made.evidence["gains"] == [1.0] * used
    assert told == list(zip(range(1, used + 1), made.evidence["wealth"], strict=True))
    assert made.evidence["wealth"][-1] >= made.evidence["threshold"] > made.evidence["wealth"][-2], "it stops at once"
    assert made.reason.startswith("it is better: +100.0 [")


async def test_harm_is_rejected_and_named():
    made = await gate(Table(1.0), Table(0.0), tasks(200))
    assert made.verdict == "reject" and "and rather does harm: -100.0 [" in made.reason
    assert made.evidence["used"] < 30 and made.evidence["guard"] is None
    asked = await gate(Table(1.0), Table(0.0), tasks(200), rule=Rule(margin=-0.1, worth=-0.1))
    assert asked.verdict == "reject" and asked.reason.startswith("it does harm: -100.0")


async def test_ties_say_that_nothing_is_worth_finding_and_never_accept():
    made = await gate(RIGHT, Table(1.0), tasks(400))
    assert made.verdict == "reject" and "worth finding: +0.0" in made.reason
    assert set(made.evidence["gains"]) == {0.0} and made.evidence["used"] < 400
    few = await gate(RIGHT, Table(1.0), tasks(10))
    assert few.verdict == "need_more" and few.evidence["wealth"] == [1.0] * 10


async def test_a_small_gain_on_many_tasks_is_not_worth_it_and_a_larger_margin_asks_more():
    small = Table(lambda id: float(number(id) % 100 == 0))
    made = await gate(WRONG, small, tasks(800))
    assert made.verdict == "reject" and "5 points that would be worth finding" in made.reason
    half = Table(lambda id: float(number(id) % 2))
    assert (await gate(WRONG, half, tasks(200))).verdict == "accept"
    assert (await gate(WRONG, half, tasks(200), rule=Rule(margin=0.7))).verdict == "reject"


async def test_when_the_tasks_end_first_more_are_needed():
    made = await gate(WRONG, Table(1.0), tasks(3))
    assert made.verdict == "need_more" and made.reason.startswith("the tasks do not decide: +100.0")
    assert made.evidence["used"] == 3 and made.evidence["wealth"][-1] < made.evidence["threshold"]


async def test_a_budget_of_tasks_is_kept():
    side = Table(1.0)
    made = await gate(WRONG, side, tasks(100), 4)
    assert made.verdict == "need_more" and len(side.seen) == 4 == made.evidence["tasks"]


@pytest.mark.parametrize("left_out", ["incumbent", "candidate", "one of three samples"])
async def test_a_task_without_a_score_on_either_side_is_left_out_and_counted(left_out):
    def none(id):
        lost = None if number(id) % 20 == 0 else 1.0
        return [1.0, lost, 1.0] if left_out == "one of three samples" else [lost] * 3

    plain = Table([1.0, 0.5, 1.0])
    sides = (Table(none), plain) if left_out == "incumbent" else (plain, Table(none))
    made = await gate(*sides, tasks(60), rule=NEVER)
    evidence = made.evidence
    assert sorted(evidence["left_out_ids"]) == ["t0", "t20", "t40"] and evidence["left_out"] == 3
    assert evidence["used"] == len(evidence["gains"]) == len(evidence["order"]) == len(evidence["wealth"]) == 57
    assert not set(evidence["order"]) & set(evidence["left_out_ids"])
    assert [abs(gain) for gain in evidence["gains"]] == [pytest.approx(1 / 6)] * 57


async def test_more_than_a_tenth_left_out_is_a_reject_with_the_reason():
    exactly = Table(lambda id: None if number(id) % 10 == 0 else 1.0)
    made = await gate(WRONG, exactly, tasks(50), rule=NEVER)
    assert made.verdict == "need_more" and made.evidence["left_out"] == 5, "a tenth is borne"
    more = Table(lambda id: None if number(id) % 10 == 0 or id == "t1" else 1.0)
    made = await gate(WRONG, more, tasks(50), rule=NEVER)
    assert made.verdict == "reject" and made.reason == "6 of 50 tasks have no difference, more than 10 %"
    # Not even the evidence of the others lets it in.
    most = Table(lambda id: None if number(id) % 2 else 1.0)
    assert (await gate(WRONG, most, tasks(50))).verdict == "reject"


async def test_a_side_that_answers_with_other_samples_is_left_out():
    made = await gate(Table([0.0, 0.0]), Table([1.0]), tasks(40))
    assert made.verdict == "reject" and made.evidence["used"] == 0 and made.evidence["gain"]["mean"] is None
    json.dumps(made.plain(), allow_nan=False)
    empty = await gate(Table([[]][0]), Table([[]][0]), tasks(5))
    assert empty.verdict == "reject" and empty.evidence["left_out"] == 1, "it stops when a tenth is exceeded"


class Broke(Table):
    """A side whose money ends after some tasks."""

    def __init__(self, scores, after):
        super().__init__(scores)
        self._after = after

    async def scores(self, tasks):
        if len(self.seen) >= self._after:
            raise BudgetError("2.00 US dollars are spent", todo="raise --max-cost")
        return await super().scores(tasks)


@pytest.mark.parametrize("side", ["incumbent", "candidate"])
async def test_a_budget_that_ends_inside_a_side_adopts_nothing(side):
    sides = (Broke(0.0, 4), Table(0.5)) if side == "incumbent" else (Table(0.0), Broke(0.5, 4))
    made = await gate(*sides, tasks(50), rule=Rule(batch=2))
    assert made.verdict == "need_more" and made.reason == "the budget ended first: 2.00 US dollars are spent"
    assert made.evidence["used"] == 4, "what was seen is kept"


async def test_a_budget_that_ends_in_the_guard_adopts_nothing():
    guard = tasks(40, name="g")
    made = await gate(Table(0.0), Broke(1.0, 10), tasks(20), guard=guard, rule=Rule(batch=2))
    assert made.verdict == "need_more" and "budget" in made.reason and made.evidence["guard"] is None


async def test_sealed_and_missing_tasks_are_refused_before_a_side_is_asked():
    side = Table(1.0)
    with pytest.raises(ConfigError, match="'t0' is of the sealed split"):
        await gate(side, side, tasks(3, "test"))
    with pytest.raises(ConfigError, match="'g0' is of the sealed split"):
        await gate(side, side, tasks(3), guard=tasks(3, "test", "g"))
    with pytest.raises(ConfigError, match="no task"):
        await gate(side, side, [])
    assert side.seen == []


async def test_a_task_given_twice_is_refused():
    side = Table(1.0)
    with pytest.raises(ConfigError, match="'t1' twice"):
        await gate(side, side, [*tasks(3), tasks(2)[1]])
    assert side.seen == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("margin", 2.0), ("margin", math.nan), ("guard_margin", -1.5), ("worth", 7.0), ("alpha", 0.0), ("alpha", 1.0),
        ("fdr", -0.1), ("left_out", 1.1), ("batch", 0),
    ],
)  # fmt: skip
def test_a_rule_that_no_bet_can_follow_is_refused_when_it_is_made(field, value):
    with pytest.raises(ConfigError, match=f"out of range: {field} "):
        Rule(**{field: value})


async def test_the_order_comes_from_the_seed_and_not_from_results():
    a = await gate(WRONG, Table(0.5), tasks(60), rule=NEVER, seed=3)
    b = await gate(RIGHT, Table(lambda id: float(number(id) % 3 > 0)), tasks(60), rule=NEVER, seed=3)
    other = await gate(WRONG, Table(0.5), tasks(60), rule=NEVER, seed=4)
    assert a.evidence["order"] == b.evidence["order"] != other.evidence["order"]
    assert sorted(a.evidence["order"]) == sorted(other.evidence["order"]) != a.evidence["order"]
    # How many are attempted side by side changes nothing.
    side = await gate(WRONG, Table(0.5), tasks(60), rule=dataclasses.replace(NEVER, batch=60), seed=3)
    assert side.evidence["order"] == a.evidence["order"] and side.evidence["wealth"] == a.evidence["wealth"]


async def test_what_was_declared_stands_in_the_evidence():
    rule = Rule(margin=0.1, alpha=0.01, fdr=0.2, worth=0.2, guard_margin=0.05)
    made = await gate(
        Table(0.0, "old"), Table(1.0, "new"), tasks(100), rule=rule, seed=5, proposal=4, accepted_before=2
    )
    declared = {"candidate": "new", "incumbent": "old", "margin": 0.1, "alpha": 0.01, "fdr": 0.2, "worth": 0.2}
    declared |= {"guard_margin": 0.05, "seed": 5, "proposal": 4, "accepted_before": 2, "finite": False, "tasks": 100}
    assert declared.items() <= made.evidence.items()
    assert made.evidence["threshold"] == threshold(4, 2, alpha=0.2, single=0.01)
    assert {"verdict": "accept", "reason": made.reason} | made.evidence == made.plain()


async def test_more_proposals_need_more_and_accepted_ones_give_back():
    needed = [
        (await gate(WRONG, Table(1.0), tasks(1), proposal=t, accepted_before=a)).evidence["threshold"]
        for t, a in ((1, 0), (2, 0), (10, 0), (100, 0), (100, 1), (100, 40), (100, 99))
    ]
    assert needed[:4] == sorted(needed[:4]) and len(set(needed[:4])) == 4
    assert needed[3:] == sorted(needed[3:], reverse=True) and needed[-1] >= 20
    # The hundredth proposal of a stream in which nothing was accepted is not a lucky one.
    half = Table(lambda id: float(number(id) % 2))
    first = await gate(WRONG, half, tasks(500), proposal=1)
    late = await gate(WRONG, half, tasks(500), proposal=100)
    assert first.evidence["used"] < late.evidence["used"]


# the guard ------------------------------------------------------------------------------------------------------------

BETTER = (lambda id: float(id[0] == "g"), lambda id: 1.0)
"""The incumbent is right on the guard only, the candidate everywhere."""


async def test_identical_outcomes_pass_the_guard():
    made = await gate(Table(BETTER[0]), Table(BETTER[1]), tasks(60), guard=tasks(30, name="g"))
    guard = made.evidence["guard"]
    assert made.verdict == "accept" and guard["passed"] and guard["verdict"] == "accept"
    assert set(guard["gains"]) == {0.0} and guard["margin"] == -0.02
    assert not set(guard["order"]) & set(made.evidence["order"])


async def test_a_loss_on_the_guard_rejects_although_the_gain_is_there():
    lost = Table(lambda id: 0.0 if id[0] == "g" and number(id) % 3 == 0 else 1.0)
    made = await gate(Table(BETTER[0]), lost, tasks(60), guard=tasks(60, name="g"))
    assert made.verdict == "reject" and not made.evidence["guard"]["passed"]
    assert made.reason.startswith("it is better: ") and "loses more than 2 points" in made.reason
    assert (await gate(Table(BETTER[0]), lost, tasks(60))).verdict == "accept", "without a guard it is let in"


async def test_a_loss_within_the_margin_passes():
    one = Table(lambda id: float(id != "g7"))
    made = await gate(Table(BETTER[0]), one, tasks(60), guard=tasks(100, name="g"))
    assert made.verdict == "accept", made.reason
    tight = await gate(Table(BETTER[0]), one, tasks(60), guard=tasks(100, name="g"), rule=Rule(guard_margin=0.0))
    assert tight.verdict != "accept"


async def test_guard_tasks_without_a_score_are_a_reject():
    none = Table(lambda id: None if id[0] == "g" and number(id) % 4 == 0 else 1.0)
    made = await gate(Table(BETTER[0]), none, tasks(60), guard=tasks(40, name="g"))
    assert made.verdict == "reject" and "guard tasks have no difference" in made.reason
    one = Table(lambda id: None if id == "g1" else 1.0)
    made = await gate(Table(BETTER[0]), one, tasks(60), guard=tasks(60, name="g"))
    assert made.verdict == "accept", "it can cost 1 task of 60, and 2 points may be lost"
    made = await gate(Table(BETTER[0]), one, tasks(60), guard=tasks(40, name="g"))
    assert made.verdict == "need_more" and "do not show that at most 2 are lost" in made.reason


async def test_the_guard_is_not_attempted_for_what_does_not_help():
    side = Table(0.0)
    await gate(WRONG, side, tasks(300), guard=tasks(5, name="g"))
    assert side.seen and not any(id[0] == "g" for id in side.seen)


# the evidence is enough -----------------------------------------------------------------------------------------------


def by_hand(evidence):
    """Wealth after each task, and the interval, from nothing but the declared numbers and the differences."""
    population = evidence["tasks"] if evidence["finite"] else None
    bet = Bet(evidence["margin"], population=population, horizon=evidence["tasks"], target=evidence["threshold"])
    interval = ConfidenceSequence(evidence["alpha"], population=population)
    ends = (-1.0, 1.0)
    for gain in evidence["gains"]:
        bet.add(gain)
        ends = interval.add(gain)
    return [min(w, MOST) for w in bet.history], ends


outcomes = st.sampled_from([0.0, 0.5, 1.0, None])


@settings(max_examples=40)
@given(
    st.lists(st.tuples(outcomes, outcomes), min_size=1, max_size=40),
    st.sampled_from([-0.05, 0.0, 0.1]),
    st.booleans(),
    st.integers(0, 3),
)
async def test_the_decision_can_be_checked_by_hand_from_its_json(scores, margin, finite, seed):
    sides = [Table(lambda id, at=at: scores[number(id)][at]) for at in (0, 1)]
    made = await gate(*sides, tasks(len(scores)), rule=Rule(margin=margin, finite=finite, batch=4), seed=seed)
    text = json.dumps(made.plain(), allow_nan=False)
    plain = json.loads(text)
    assert plain == made.plain()
    wealth, ends = by_hand(plain)
    assert wealth == plain["wealth"] and ends == (plain["gain"]["low"], plain["gain"]["high"])
    for id, gain in zip(plain["order"], plain["gains"], strict=True):
        assert gain == scores[number(id)][1] - scores[number(id)][0]
    assert all(None in scores[number(id)] for id in plain["left_out_ids"])
    assert (plain["verdict"] == "accept") == (
        plain["left_out"] <= len(scores) / 10 and max(wealth, default=0.0) >= plain["threshold"]
    )


async def test_a_finite_set_that_is_seen_whole_is_decided_and_its_wealth_is_a_number():
    made = await gate(WRONG, Table(lambda id: float(id == "t1")), tasks(12), rule=Rule(finite=True))
    assert made.verdict == "accept" and made.evidence["wealth"][-1] == MOST < math.inf
    json.dumps(made.plain(), allow_nan=False)


triples = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3)


@settings(max_examples=40)
@given(st.lists(st.tuples(triples, triples), min_size=1, max_size=30), st.permutations(range(3)))
async def test_the_order_of_samples_does_not_matter(scores, order):
    def sides(turn):
        return [Table(lambda id, at=at: [scores[number(id)][at][i] for i in turn]) for at in (0, 1)]

    plain, turned = [await gate(*sides(turn), tasks(len(scores))) for turn in (range(3), order)]
    assert (plain.verdict, plain.evidence["order"]) == (turned.verdict, turned.evidence["order"])
    assert plain.evidence["gains"] == pytest.approx(turned.evidence["gains"])


async def test_what_is_not_better_is_accepted_at_most_as_often_as_was_declared():
    accepted = 0
    for run in range(500):
        draw = random.Random(run)
        old, new = ({f"t{i}": float(draw.random() < 0.5) for i in range(20)} for _ in range(2))
        # The threshold of the test by itself: alpha 5 %.
        rule = Rule(alpha=0.05, fdr=0.999, batch=20)
        made = await gate(Table(old.get), Table(new.get), tasks(20), rule=rule, seed=run)
        accepted += made.verdict == "accept"
    assert accepted <= 500 * 0.05 + 10
