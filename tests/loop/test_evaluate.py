"""Arms, intervals and controls."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.errors import ConfigError, StoreError, TransientError
from verbal.evaluate import (
    ARMS,
    MIN_SEEDS,
    Interval,
    Scores,
    Shuffled,
    arm_row,
    attempt_values,
    claim,
    compare,
    difference,
    evaluate_arm,
    interval,
    pass_at_k,
)
from verbal.gate import gate
from verbal.run import learn, make_context
from verbal.types import MemoryOp, Reflection


async def test_memory_beats_the_controls_where_words_help(tiny):
    shop, model = tiny(None, "loop.batch=2")
    tasks = shop.app.tasks()
    await learn(shop, tasks[:3], run="r")
    asked = model.count("reflector")
    scores = {}
    for arm, hints in ARMS.items():
        scores[arm] = await evaluate_arm(
            shop, tasks[3:], run="e", arm=arm, seeds=[0, 1], hints=hints, memories={0: shop.memory, 1: shop.memory}
        )
    assert model.count("reflector") == asked
    assert interval(scores["memory"].first).mean == 1.0
    assert interval(scores["retry"].within).mean == 0.0 and scores["retry"].attempts == 2.0
    assert difference(scores["memory"].within, scores["retry"].within).low == 1.0
    found = compare(scores)
    rows = {row["name"]: row for row in found["arms"]}
    assert list(rows) == ["base", "retry", "shuffled", "memory"] and {r["tasks"] for r in rows.values()} == {3}
    assert rows["memory"]["per_seed"] == [1.0, 1.0] and rows["memory"]["first"]["mean"] == 1.0
    assert (rows["base"]["first"], rows["base"]["attempts"], rows["retry"]["attempts"]) == (None, 1.0, 2.0)
    assert found["seeds"] == [0, 1] and not found["claim_holds"], "two seeds make no claim, however large the gain"


async def test_a_memory_that_returns_nothing_gives_the_retry_arm(tiny):
    shop, _ = tiny()
    tasks = shop.app.tasks()
    memory = await evaluate_arm(shop, tasks, run="e", arm="m", seeds=[0], hints="memory", memories={0: shop.memory})
    retry = await evaluate_arm(shop, tasks, run="e", arm="r", seeds=[0])
    assert memory.within == retry.within and memory.first == retry.first


async def test_shuffled_memory_shows_as_many_but_other_reflections(tiny):
    shop, _ = tiny()
    tasks = shop.app.tasks()
    ops = [
        MemoryOp(op="ADD", item=Reflection(id="", text=f"number {i} is nice", when=f"number {i}")) for i in range(1, 7)
    ]
    await shop.memory.apply(ops)
    context = make_context(shop, tasks, run="e", arm="s", seed=0)
    for task in tasks:
        own = {r.id for r in await shop.memory.search(task.info["question"], 3, exclude_tasks=[task.id])}
        other = await Shuffled(context, shop.memory, tasks).search(task)
        assert not own & {r.id for r in other} and len(other) <= len(own)
        assert [r.id for r in other] == [r.id for r in await Shuffled(context, shop.memory, tasks).search(task)]


matrices = st.integers(1, 4).flatmap(
    lambda w: st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=w, max_size=w), min_size=1, max_size=4)
)


@given(matrices)
def test_interval_holds_the_mean_and_is_seeded(scores):
    found = interval(scores, draws=200)
    flat = [x for row in scores for x in row]
    assert found.mean == pytest.approx(sum(flat) / len(flat))
    assert found.low <= found.mean + 1e-9 and found.mean <= found.high + 1e-9 and 0 <= found.low <= found.high <= 1
    assert found == interval(scores, draws=200)
    same = difference(scores, scores)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_interval_of_nothing_is_not_a_number():
    assert math.isnan(interval([]).mean)


def test_pass_at_k_against_counting():
    from itertools import combinations

    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([1] * c + [0] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(2, 3, 1)


# what may be claimed --------------------------------------------------------------------------------------------------

TASKS = tuple(f"t{i}" for i in range(40))


def scored(arm, within, first=None, seeds=3):
    """Every seed solves as many tasks as `within` says, the first `first` of them at the first attempt."""
    rows = [tuple(float(i < n) for i in range(len(TASKS))) for n in (within, within if first is None else first)]
    return Scores(arm, TASKS, (rows[1],) * seeds, (rows[0],) * seeds, 1.5)


def test_memory_that_beats_base_but_not_retry_makes_no_claim():
    found = compare({"retry": scored("retry", 30, first=10), "memory": scored("memory", 30, first=28)})
    gains = {d["name"]: d for d in found["differences"]}
    assert gains["memory - base"]["low"] > 0.3 and gains["retry - base"]["low"] > 0.3
    assert gains["memory - retry-only"] == {"name": "memory - retry-only", "mean": 0.0, "low": 0.0, "high": 0.0}
    assert not found["claim_holds"] and "does not clearly beat retry-only" in found["claim"]
    assert "memory - shuffled" not in gains, "an arm that was not run is not compared"


@pytest.mark.parametrize(("seeds", "holds"), [(1, False), (2, False), (3, True), (5, True)])
def test_a_claim_needs_three_seeds(seeds, holds):
    assert MIN_SEEDS == 3
    found = compare({"retry": scored("retry", 10, seeds=seeds), "memory": scored("memory", 35, seeds=seeds)})
    assert found["claim_holds"] is holds
    assert ("No claim is made from fewer than 3 seeds" in found["claim"]) is not holds
    assert f"on {len(TASKS)} tasks, {seeds} seeds" in found["claim"]


def test_a_claim_needs_the_whole_interval_above_nought():
    for low, holds in ((0.001, True), (0.0, False), (-0.01, False)):
        words, found = claim(Interval(0.05, low, 0.1), 3, 40)
        assert found is holds and "+5.0 [" in words
    worse = compare({"retry": scored("retry", 30), "memory": scored("memory", 10)})
    assert not worse["claim_holds"] and "-50.0" in worse["claim"]


def test_without_a_memory_arm_nothing_is_claimed():
    found = compare({"retry": scored("retry", 30, first=10)})
    assert "claim" not in found and [r["name"] for r in found["arms"]] == ["base", "retry"]
    assert [d["name"] for d in found["differences"]] == ["retry - base"]


@settings(max_examples=10)
@given(st.lists(st.integers(0, 1), min_size=40, max_size=40), st.lists(st.integers(0, 1), min_size=40, max_size=40))
def test_the_claim_is_about_the_paired_difference(old, new):
    """What the arms solve besides each other, their own intervals, has no say in it."""
    a, b = (tuple(map(float, xs)) for xs in (old, new))
    scores = {n: Scores(n, TASKS, (xs,) * 3, (xs,) * 3, 1.0) for n, xs in (("retry", a), ("memory", b))}
    gain = difference(scores["memory"].within, scores["retry"].within)
    assert compare(scores)["claim_holds"] is (gain.low > 0)


def test_a_row_of_an_arm_is_in_shares_with_its_name_in_words():
    row = arm_row("retry", ((1.0, 0.0), (1.0, 1.0)), scored("retry", 3))
    assert (row["label"], row["mean"], row["per_seed"], row["tasks"]) == ("retry-only", 0.75, [0.5, 1.0], 2)
    assert row["about"].startswith("no memory, as many attempts") and row["unscored"] == 0
    own = arm_row("mine", ((1.0,),), None)
    assert (own["label"], own["about"], own["attempts"]) == ("mine", "", 1.0)


# who may be scored ----------------------------------------------------------------------------------------------------


async def test_sealed_tasks_are_scored_only_when_the_store_has_noted_it(tiny):
    shop, model = tiny()
    sealed = [t.replace(split="test") for t in shop.app.tasks()]
    mixed = [*shop.app.tasks()[:5], sealed[5]]

    class Policy:
        name = "policy"

        async def scores(self, tasks):
            raise AssertionError("the gate attempted a sealed task")

    for tasks in (sealed, mixed):
        with pytest.raises(ConfigError, match=r"t\d.* sealed split 'test'"):
            await evaluate_arm(shop, tasks, run="e", arm="retry", seeds=[0])
        with pytest.raises(ConfigError, match="sealed split 'test'"):
            await learn(shop, tasks, run="r")
        with pytest.raises(ConfigError, match="sealed split 'test'"):
            await gate(Policy(), Policy(), tasks)
        with pytest.raises(ConfigError, match="sealed split 'test'"):
            await gate(Policy(), Policy(), shop.app.tasks(), guard=tasks)
    assert model.asked == [] and shop.store.attempts() == [] and shop.store.tasks() == {} and shop.store.runs() == []
    scores = await evaluate_arm(shop, sealed, run="e", arm="retry", seeds=[0], unsealed=True)
    assert len(scores.tasks) == 6 and model.count("reflector") == model.count("critic") == 0
    assert shop.memory.history() == [], "what was seen of the sealed tasks teaches nothing"


async def test_attempt_values_are_one_attempt_each_failed_is_nought_and_unscored_is_none(tiny, tiny_model):
    shop, model = tiny(tiny_model(guess=lambda number, *_: f"ANSWER: {2 * number if number < 3 else 0}"))
    tasks = shop.app.tasks()
    tasks[5] = tasks[5].replace(gold=None)

    class Fails:
        name = model.name

        async def generate(self, messages, n, sampling):
            if re.search("number 5", messages[-1].content):
                raise KeyError("broken adapter")
            return await model.generate(messages, n, sampling)

    from verbal.models import ModelCalls

    calls = ModelCalls(Fails(), price_in=0.0, price_out=0.0)
    shop.roles = calls.for_role
    values = await attempt_values(shop, tasks, run="g", arm="old", seed=0, memory=None)
    assert values == [1.0, 1.0, 0.0, 0.0, 0.0, None], "a failure is an answer, no gold is no score"
    assert model.count("solver") == 5 and len(shop.store.attempts("g", arm="old")) == 6
    assert await attempt_values(shop, tasks, run="g", arm="old", seed=0, memory=None) == values
    assert model.count("solver") == 5, "kept attempts are not made again"


async def test_attempt_values_show_the_memory_to_the_policy(tiny):
    shop, _ = tiny()
    tasks = shop.app.tasks()
    lesson = Reflection(id="", text="zorp means double", when="zorp of number")
    await shop.memory.apply([MemoryOp(op="ADD", item=lesson)])
    assert await attempt_values(shop, tasks, run="g", arm="new", seed=0, memory=shop.memory) == [1.0] * 6
    assert await attempt_values(shop, tasks, run="g", arm="old", seed=0, memory=None) == [0.0] * 6


async def test_an_unreachable_model_is_no_score_and_is_asked_again_later(tiny):
    shop, model = tiny()

    class Gone:
        name = model.name
        gone = True

        async def generate(self, messages, n, sampling):
            if self.gone and "number 2" in messages[-1].content:
                raise TransientError("gone")
            return await model.generate(messages, n, sampling)

    gone = Gone()
    shop.roles = lambda role: gone
    values = await attempt_values(shop, shop.app.tasks(), run="g", arm="old", seed=0, memory=None)
    assert values == [0.0, None, 0.0, 0.0, 0.0, 0.0]
    gone.gone = False
    assert await attempt_values(shop, shop.app.tasks(), run="g", arm="old", seed=0, memory=None) == [0.0] * 6
    assert model.count("solver") == 6


async def test_a_store_that_breaks_stops_an_evaluation(tiny, monkeypatch):
    shop, _ = tiny()

    def full(*_):
        raise StoreError("database or disk is full")

    monkeypatch.setattr(shop.store, "put_attempt", full)
    with pytest.raises(StoreError, match="full"):
        await evaluate_arm(shop, shop.app.tasks(), run="e", arm="retry", seeds=[0])
    monkeypatch.undo()
    assert shop.store.attempts("e") == []
    scores = await evaluate_arm(shop, shop.app.tasks(), run="e", arm="retry", seeds=[0])
    assert scores.attempts == 2.0 and scores.unscored == 0


async def test_where_nothing_could_be_scored_nothing_is_said_of_learning(tiny):
    shop, _ = tiny()
    tasks = [t.replace(gold=None) for t in shop.app.tasks()]
    scores = {
        arm: await evaluate_arm(shop, tasks, run="e", arm=arm, seeds=[0, 1, 2], hints=hints, memories={0: shop.memory})
        for arm, hints in (("retry", "none"), ("memory", "memory"))
    }
    found = compare(scores)
    assert not found["claim_holds"] and "gave no value on any of 72 attempts" in found["claim"]
