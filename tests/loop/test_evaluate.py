"""Arms, intervals and controls."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.evaluate import ARMS, Shuffled, difference, evaluate_arm, interval, pass_at_k, table
from verbal.run import learn, make_context


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
    assert table(list(scores.values()))["memory"]["tasks"] == 3


async def test_a_memory_that_returns_nothing_gives_the_retry_arm(tiny):
    shop, _ = tiny()
    tasks = shop.app.tasks()
    memory = await evaluate_arm(shop, tasks, run="e", arm="m", seeds=[0], hints="memory", memories={0: shop.memory})
    retry = await evaluate_arm(shop, tasks, run="e", arm="r", seeds=[0])
    assert memory.within == retry.within and memory.first == retry.first


async def test_shuffled_memory_shows_as_many_but_other_reflections(tiny):
    from verbal.types import MemoryOp, Reflection

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
