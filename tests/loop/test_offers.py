"""Lots: the believed are now and then withheld, those on trial shown half of the time, rivals never together."""

from __future__ import annotations

import asyncio

import pytest

from verbal.loop.context import query
from verbal.loop.offers import TRIAL_CHANCE, offer
from verbal.parts import make_part
from verbal.run import learn, make_context
from verbal.types import MemoryOp, Reflection

RIGHT, WRONG = "zorp means double", "zorp means half"


def add(text, status="active", **fields):
    return MemoryOp(op="ADD", item=Reflection(id="", text=text, status=status, **fields), author="user")


async def offers(shop, ops, seeds=60, learning=True):
    await shop.memory.apply(ops)
    task = shop.app.tasks()[0]
    contexts = [make_context(shop, [task], run="r", arm="a", seed=s, learning=learning) for s in range(seeds)]
    return [await offer(c, task, query(task)) for c in contexts]


async def test_what_is_believed_is_withheld_about_as_often_as_the_recipe_says(tiny):
    shop, _ = tiny(None, "memory.withhold=0.25")
    made = await offers(shop, [add(RIGHT)], seeds=400)
    assert all(o.chances == {"r1": 0.75} for o in made)
    assert 0.68 < sum(bool(o.shown) for o in made) / 400 < 0.82


async def test_what_is_on_trial_has_one_slot_and_even_lots(tiny):
    shop, _ = tiny(None, "memory.withhold=0.0")
    made = await offers(shop, [add(RIGHT, "quarantined"), add("zorp of a number", "quarantined")], seeds=400)
    assert {len(o.chances) for o in made} == {1}
    assert set(made[0].chances.values()) == {TRIAL_CHANCE}
    assert 0.42 < sum(bool(o.shown) for o in made) / 400 < 0.58


async def test_the_same_seed_draws_the_same_lots(tiny):
    shop, _ = tiny(None, "memory.withhold=0.5")
    first, again = await offers(shop, [add(RIGHT)]), await offers(shop, [])
    assert [o.shown for o in first] == [o.shown for o in again]
    assert len({bool(o.shown) for o in first}) == 2


async def test_a_scoring_arm_draws_no_lots_and_sees_what_is_believed_only(tiny):
    shop, _ = tiny(None, "memory.withhold=0.5")
    made = await offers(shop, [add(RIGHT), add(WRONG, "quarantined")], learning=False)
    assert all([r.id for r in o.shown] == ["r1"] and o.chances == {} for o in made)


async def test_of_two_rivals_one_is_shown_by_one_lot(tiny):
    shop, _ = tiny()
    made = await offers(shop, [add(RIGHT), add(WRONG, "quarantined", rival="r1")], seeds=200)
    assert all(o.chances == {"r1": 0.5, "r2": 0.5} for o in made)
    assert all(len(o.shown) == 1 for o in made)
    assert 0.4 < sum(o.shown[0].id == "r2" for o in made) / 200 < 0.6


async def test_a_recipe_without_quarantine_has_no_trials(tiny):
    shop, _ = tiny(None, "memory.quarantine=false", "memory.withhold=0.0")
    made = await offers(shop, [add(RIGHT), add(WRONG, "quarantined")])
    assert all([r.id for r in o.shown] == ["r1"] and o.chances == {"r1": 1.0} for o in made)
    shop, _ = tiny(None, "memory.quarantine=false", 'memory.credit=""', file="w.db")
    assert all(o.chances == {} for o in await offers(shop, [add(RIGHT)])), "nobody reads the outcomes"


async def test_the_attempt_holds_what_was_offered_and_each_outcome_is_counted_once(tiny):
    shop, _ = tiny(None, "loop.batch=2", "loop.rounds=1", "memory.trials=1", numbers=8)
    shop.credit = make_part("memory", "credit")
    await shop.memory.apply([add(RIGHT, "quarantined")])
    await learn(shop, shop.app.tasks(), run="r")
    attempts = shop.store.attempts("r")
    assert all(a.steps[0].offered == {"r1": 0.5} for a in attempts)
    shown = [a for a in attempts if "r1" in a.steps[0].shown]
    counted = [op for op in shop.memory.history() if op.op == "VALUE"]
    assert sorted(op.attempt for op in counted) == sorted(a.id for a in attempts)
    assert {op.attempt for op in counted if op.tag == "shown"} == {a.id for a in shown}
    for op in counted:
        right = op.attempt in {a.id for a in shown}  # it is right exactly when it was told
        assert op.outcome == float(right) and op.chance == 0.5
    assert shop.memory.items()["r1"].counters.shown == len(shown)


async def test_a_lesson_that_helps_is_believed_after_some_trials_and_one_that_harms_is_retired(tiny):
    shop, _ = tiny(None, "loop.batch=4", "loop.rounds=1", numbers=60)
    shop.credit = make_part("memory", "credit")
    await shop.memory.apply([add(RIGHT, "quarantined")])
    await learn(shop, shop.app.tasks(), run="r")
    item = shop.memory.items()["r1"]
    assert item.status == "active" and item.value > 0.5
    why = next(op.reason for op in shop.memory.history() if op.tag == "active")
    assert "shown" in why


async def test_a_run_that_is_killed_and_resumed_counts_nothing_twice(tiny):
    whole, _ = tiny(None, "loop.batch=2", "loop.rounds=1", numbers=8)
    parts, _ = tiny(None, "loop.batch=2", "loop.rounds=1", numbers=8, file="parts.db")
    for shop in (whole, parts):
        shop.credit = make_part("memory", "credit")
        await shop.memory.apply([add(RIGHT, "quarantined")])
    await learn(whole, whole.app.tasks(), run="r")
    apply, calls = parts.memory.apply, 0

    async def killed(ops):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise asyncio.CancelledError
        return await apply(ops)

    parts.memory.apply = killed
    with pytest.raises(asyncio.CancelledError):
        await learn(parts, parts.app.tasks(), run="r")
    await learn(parts, parts.app.tasks(), run="r")
    assert [op.to_json() for op in parts.memory.history()] == [op.to_json() for op in whole.memory.history()]


async def test_samples_side_by_side_are_one_trial_with_their_mean(tiny):
    def half(number, sampling, i):
        return f"ANSWER: {2 * number}" if i % 2 else "ANSWER: -1"

    shop, _ = tiny(None, 'loop.graph="group"', "loop.samples=4", "loop.batch=2", numbers=4)
    model = shop.roles("solver")
    model.guess = half
    shop.credit = make_part("memory", "credit")
    await shop.memory.apply([add("zorp of a number is odd", "quarantined")])
    await learn(shop, shop.app.tasks(), run="r")
    counted = [op for op in shop.memory.history() if op.op == "VALUE"]
    assert len(counted) == 4 and {op.outcome for op in counted} == {0.5}


async def test_a_lesson_that_only_repeats_what_the_prompt_said_is_no_news(tiny):
    shop, model = tiny(None, "loop.batch=2", "loop.rounds=1", "loop.verify=false", "memory.withhold=0.0", numbers=4)
    shop.roles("reflector").lesson = "Zorp of a number  is odd."
    await shop.memory.apply([add("zorp of a number is odd")])
    await learn(shop, shop.app.tasks(), run="r")
    assert model.count("reflector") == 4
    assert list(shop.memory.items()) == ["r1"] and shop.memory.items()["r1"].attempts == ()
