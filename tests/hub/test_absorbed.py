"""What weights have absorbed is found by withholding it: alone, all together, in as few passes as tasks allow."""

from __future__ import annotations

import asyncio

import pytest
from absorbing import APP, CODES, CRITIC, WAYS, WayApp, knows, lesson

from verbal.absorbed import Absorption, Claim, Without, passes, retire_absorbed, take_back, weigh
from verbal.errors import ConfigError, StoreError
from verbal.parts import make_part
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.run import open_workshop
from verbal.store import Store
from verbal.testing import ScriptedModel
from verbal.types import MemoryOp, Reflection

RECIPE = Recipe(
    app=AppTable(name=APP),
    model=ModelTable(cache="off"),  # other weights under the same name are other weights
    loop=LoopTable(rounds=1, batch=8),
    critics=CriticsTable(names=(CRITIC,), verdict=CRITIC),
    memory=MemoryTable(name="exact", k=2),
)
TASKS = [f"t{n}" for n in range(8)]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as opened:
        yield opened


def remember(store, *texts, name="m", **fields):
    memory = make_part("memory", "exact", store=store, name=name)
    asyncio.run(memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text=t, **fields)) for t in texts]))
    memory.close()


def look(store, reply, *, claim=None, seeds=(0,), split="dev", run="run", recipe=RECIPE):
    """What is found under a model, by id, and the model."""
    model = ScriptedModel(reply)

    async def work():
        async with open_workshop(recipe, store, run=run, model=model, memory_name="m") as shop:
            version = store.memories()["m"]
            judged = Absorption(
                shop=shop, name="m", version=version, run=run, seeds=seeds, claim=claim or Claim(least=3)
            )
            return await judged.judge(await judged.found(WayApp().tasks(split)))

    return {f.items[0]: f for f in asyncio.run(work())}, model


# the evidence -----------------------------------------------------------------------------------------------------


def scored(values):
    return {t: [v] for t, v in zip(TASKS, values, strict=False)}


@pytest.mark.parametrize(
    ("with_it", "without", "verdict"),
    [
        ([1] * 8, [1] * 8, "absorbed"),
        ([0] * 8, [1] * 8, "absorbed"),
        ([1] * 8, [0] * 8, "needed"),
        ([1] * 8, [1] * 7 + [0], "needed"),  # 12 points on these tasks, and 2 may be lost
        ([1] * 4 + [0] * 4, [1] * 4 + [0] * 4, "need_more"),  # four that neither solves say nothing
        ([0] * 8, [0] * 8, "need_more"),
        ([1] * 7 + [None], [1] * 8, "need_more"),
    ],
)
def test_the_verdict_is_read_from_paired_outcomes(with_it, without, verdict):
    found = weigh(["r1"], TASKS, scored(with_it), scored(without), Claim())
    assert found.verdict == verdict and found.reason
    assert found.unsolved + len(found.trial.used) + len(found.trial.left_out) == 8
    plain = found.plain()
    assert plain["wealth"] <= 1e300 and plain["gain"]["low"] <= plain["gain"]["high"]


def test_seeds_are_means_and_a_missing_one_leaves_the_task_out():
    shown = {t: [1.0, 1.0] for t in TASKS}
    found = weigh(["r1"], TASKS, shown, {t: [1.0, 0.0] for t in TASKS}, Claim())
    assert found.verdict == "needed" and (found.shown, found.withheld) == (1.0, 0.5)
    found = weigh(["r1"], TASKS, shown, {t: [1.0, None] if t == "t0" else [1.0, 1.0] for t in TASKS}, Claim())
    assert found.trial.left_out == ["t0"]


def test_a_claim_about_new_tasks_takes_many():
    claim = Claim(finite=False, margin=0.1)
    few = weigh(["r1"], TASKS, scored([1] * 8), scored([1] * 8), claim)
    assert few.verdict == "need_more" and "wealth" in few.reason
    ids = [f"t{n}" for n in range(60)]
    every = {t: [1.0] for t in ids}
    assert weigh(["r1"], ids, every, every, claim).verdict == "absorbed"
    assert weigh(["r1"], ids, every, every, claim, needed=1e9).verdict == "need_more"
    assert weigh(["r1"], ids, every, {t: [0.0] for t in ids}, claim).verdict == "needed"


@pytest.mark.parametrize("wrong", [{"margin": 2.0}, {"alpha": 0.0}, {"least": 0}, {"left_out": -1.0}])
def test_a_claim_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Claim(**wrong)


def test_items_that_share_no_task_are_withheld_in_one_pass():
    found = {"a": {"1", "2"}, "b": {"2", "3"}, "c": {"3"}, "d": {"4"}}
    made = passes(found)
    assert sorted(i for part in made for i in part) == ["a", "b", "c", "d"] and len(made) == 2
    for part in made:
        assert sum(len(found[i]) for i in part) == len(set().union(*(found[i] for i in part)))


# under models -----------------------------------------------------------------------------------------------------


def test_what_the_weights_know_goes_and_what_they_never_learned_stays(store):
    remember(store, *map(lesson, CODES))
    found, model = look(store, knows("anchor"))
    assert {i: f.verdict for i, f in found.items()} == {"r1": "absorbed", "r2": "needed", "r3": "needed"}
    assert (found["r1"].shown, found["r1"].withheld, found["r2"].withheld) == (1.0, 1.0, 0.0)
    assert model.calls <= 2 * 3 * WAYS  # each question with and without, and no more for what is withheld together
    none, _ = look(store, knows(), run="base")
    assert {f.verdict for f in none.values()} == {"needed"}
    every, _ = look(store, knows(*CODES), run="all")
    assert {f.verdict for f in every.values()} == {"absorbed"}


def test_weights_that_fail_either_way_have_absorbed_nothing(store):
    remember(store, *map(lesson, CODES))
    found, _ = look(store, knows("anchor", "basket", wrong=["candle"]))
    assert [f.verdict for f in found.values()] == ["absorbed", "absorbed", "need_more"]
    assert found["r3"].unsolved == WAYS and "solved by neither" in found["r3"].reason


def test_of_two_that_say_the_same_one_stays(store):
    remember(store, lesson("anchor"), lesson("anchor", "remember that "))
    found, _ = look(store, knows())
    assert [f.verdict for f in found.values()] == ["needed", "absorbed"]
    assert "not together with r2" in found["r1"].reason


def test_only_active_items_are_looked_at_and_sealed_tasks_never(store):
    remember(store, lesson("anchor"))
    remember(store, lesson("basket"), status="quarantined")
    found, _ = look(store, knows("anchor", "basket"))
    assert set(found) == {"r1"}
    with pytest.raises(ConfigError, match="sealed"):
        look(store, knows(), split="test")


def test_a_look_that_was_made_asks_nothing_again(store):
    remember(store, *map(lesson, CODES))
    first, _ = look(store, knows("anchor"))
    again, model = look(store, knows("anchor"))
    assert model.calls == 0 and {i: f.plain() for i, f in first.items()} == {i: f.plain() for i, f in again.items()}


# the log ----------------------------------------------------------------------------------------------------------


def test_retirements_are_seen_and_nothing_is_written(store):
    remember(store, *map(lesson, CODES))
    version = store.memories()["m"]
    over = Without(store, "m", version, ["r2"])
    memory = make_part("memory", "exact", store=over, name="m", version=version + 1)
    found = asyncio.run(memory.search("Which secret belongs to basket?", 3))
    assert [r.id for r in found if "basket" in r.text] == []
    with pytest.raises(StoreError, match="frozen"):
        asyncio.run(memory.apply([MemoryOp(op="RETIRE", reflection="r1", author="user")]))
    memory.close()
    assert store.memories()["m"] == version and over.ops("other") == []


def test_what_is_absorbed_is_retired_with_its_evidence_and_comes_back(store):
    remember(store, *map(lesson, CODES))
    before = store.memories()["m"]
    findings, _ = look(store, knows("anchor", "basket"))
    gone, version = retire_absorbed(store, "m", before, list(findings.values()), model="checkpoint x", run="run")
    assert gone == ["r1", "r2"] and version == before + 2
    (_, op), _ = store.ops("m", after=before)
    assert op.author == "absorbed" and op.reason.startswith("absorbed by checkpoint x: ") and "6 tasks" in op.reason
    assert retire_absorbed(store, "m", before, list(findings.values()), model="checkpoint x", run="run") == (
        [],
        version,
    )
    assert asyncio.run(take_back(store, "m", "checkpoint y")) == {}
    assert asyncio.run(take_back(store, "m", "checkpoint x")) == {"r1": "r4", "r2": "r5"}
    assert asyncio.run(take_back(store, "m")) == {}
    memory = make_part("memory", "exact", store=store, name="m")
    (found,) = asyncio.run(memory.search("Which secret belongs to anchor?", 1))
    memory.close()
    assert (found.id, found.text, found.status) == ("r4", lesson("anchor"), "active")


def test_an_item_that_changed_since_it_was_judged_is_left_alone(store):
    remember(store, *map(lesson, CODES))
    before = store.memories()["m"]
    findings, _ = look(store, knows("anchor", "basket"))
    memory = make_part("memory", "exact", store=store, name="m")
    new = Reflection(id="r1", text="the code of anchor is 118")
    asyncio.run(memory.apply([MemoryOp(op="UPDATE", reflection="r1", item=new, author="user")]))
    memory.close()
    gone, _ = retire_absorbed(store, "m", before, list(findings.values()), model="checkpoint x", run="run")
    assert gone == ["r2"]
