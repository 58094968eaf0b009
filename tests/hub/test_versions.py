"""From a proposal to what serves, and back: written down before it is paid for, counted once, adopted or left alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading

import pytest

import verbal.testing
from verbal.betting import threshold
from verbal.errors import ConfigError, DataError, RefusedError, StoreError
from verbal.evaluate import attempt_values
from verbal.gate import Rule
from verbal.parts import load_function, make_part
from verbal.recipe import AppTable, CriticsTable, LimitsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.store import Store
from verbal.study import Study, perform
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import MemoryOp, Reflection
from verbal.versions import Policy, active, adopt, decide, declare, make_policy, rollback, tasks_digest

TINY = verbal.testing.__file__
WORDS = [f"word{i:02}" for i in range(24)]
CODES = {w: str(100 + i) for i, w in enumerate(WORDS)}
RECIPE = Recipe(
    app=AppTable(name=f"{TINY}:TinyApp", options={"codes": CODES}),
    loop=LoopTable(rounds=2, batch=8),
    model=ModelTable(name="scripted:m.jsonl"),
    critics=CriticsTable(names=(f"{TINY}:TinyCritic",), verdict=f"{TINY}:TinyCritic"),
    memory=MemoryTable(name="exact", k=2),
)
LOOSE = Rule(batch=4)


class World:
    """A store with a memory that knows every code (`good`) and one that knows none (`bad`)."""

    def __init__(self, store):
        self.store, self.app, self.model = store, TinyApp(CODES), ScriptedModel(tiny_reply)
        self.dev = self.app.tasks("dev")

    async def remember(self, name, *lessons):
        memory = make_part("memory", "exact", store=self.store, name=name)
        await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text=t, when=t)) for t in lessons])
        memory.close()

    def candidate(self, memory="good"):
        return make_policy(self.store, RECIPE.model.name, memory)

    def declare(self, candidate, *, tasks=None, guard=(), rule=LOOSE, seeds=1, budget=None):
        tasks = self.dev if tasks is None else tasks
        return declare(self.store, RECIPE, candidate, tasks, guard, rule=rule, seeds=seeds, budget=budget)

    def study(self, run, model=None, recipe=RECIPE):
        return Study(store=self.store, recipe=recipe, run=run, model=model or self.model, app=self.app)

    async def promote(self, candidate, model=None, **options):
        name, spec = self.declare(candidate, **options)
        decision = await perform(self.study(name, model), spec)
        return adopt(self.store, name, spec, decision), decision


@pytest.fixture
async def world(tmp_path):
    with Store(tmp_path / "v.db") as store:
        made = World(store)
        await made.remember("good", *(f"the code of {w} is {c}" for w, c in CODES.items()))
        await made.remember("bad", "the code of nothing is 7")
        yield made


# proposals ------------------------------------------------------------------------------------------------------------


async def test_a_proposal_stands_in_the_store_before_the_first_call(world):
    seen = []

    def look(messages, index, seed):
        seen.append([(p["id"], p["status"], p["spec"]["proposal"]) for p in world.store.proposals()])
        return tiny_reply(messages, index, seed)

    number, decision = await world.promote(world.candidate(), ScriptedModel(look))
    assert seen[0] == [("gate-1", "declared", 1)]
    assert decision["verdict"] == "accept" and number == 2
    assert [p["status"] for p in world.store.proposals()] == ["accept"]
    kept = world.store.proposal("gate-1")["decision"]
    assert kept["wealth"] == decision["wealth"] and kept["id"] == "gate-1"


async def test_the_first_adoption_writes_down_what_served_before(world):
    await world.promote(world.candidate())
    start, promoted = world.store.versions()
    assert (start["number"], start["action"], start["evidence"]) == (1, "start", "")
    assert (promoted["number"], promoted["action"], promoted["evidence"]) == (2, "promote", "gate-1")
    assert Policy(**start["policy"]) == make_policy(world.store, RECIPE.model.name)
    record, policy = active(world.store)
    assert record["number"] == 2 and policy == world.candidate()
    with pytest.raises(ConfigError, match="serves already"):
        world.declare(world.candidate())


async def test_what_is_not_accepted_changes_nothing(world):
    await world.promote(world.candidate())
    before = world.store.versions()
    number, decision = await world.promote(world.candidate("bad"))
    assert (number, decision["verdict"]) == (None, "reject") and world.store.versions() == before
    number, decision = await world.promote(make_policy(world.store, RECIPE.model.name), budget=2)
    assert (number, decision["verdict"]) == (None, "need_more") and world.store.versions() == before


async def test_an_equal_unfinished_proposal_goes_on_and_another_one_is_counted(world):
    first, spec = world.declare(world.candidate())
    assert world.declare(world.candidate()) == (first, json.loads(json.dumps(spec)))
    assert world.declare(world.candidate(), rule=Rule(margin=0.1))[1]["proposal"] == 2
    assert world.declare(world.candidate(), seeds=2)[1]["proposal"] == 3
    assert world.declare(world.candidate("bad"))[1]["proposal"] == 4
    assert world.declare(world.candidate())[0] == first
    assert len(world.store.proposals()) == 4


async def test_a_decided_proposal_made_again_is_a_new_look_and_counted(world):
    few = world.dev[:3]
    _, decision = await world.promote(world.candidate(), tasks=few)
    assert decision["verdict"] == "need_more" and decision["dev_uses"] == 1
    _, again = await world.promote(world.candidate(), tasks=few)
    assert (again["proposal"], again["dev_uses"]) == (2, 2) and again["threshold"] > decision["threshold"]
    _, other = await world.promote(world.candidate("bad"), tasks=world.dev[:4])
    assert (other["proposal"], other["dev_uses"]) == (3, 1), "another set of tasks"
    assert tasks_digest(few) == tasks_digest(few[::-1]) == decision["dev_set"] != other["dev_set"]


async def test_the_hundredth_proposal_needs_more_and_accepted_ones_give_back(world):
    for i in range(99):
        status = "accept" if i < 7 else "reject"
        world.store.put_proposal(f"old-{i}", status, {"spec": {"dev_set": "none"}})
    _, spec = world.declare(world.candidate())
    assert (spec["proposal"], spec["accepted_before"]) == (100, 7)
    decision = await perform(world.study("gate-100"), spec)
    assert decision["threshold"] == threshold(100, 7) > threshold(100, 50) and decision["id"] == "gate-100"


async def test_two_processes_that_propose_at_once_get_two_numbers(world):
    path, specs = world.store.path, []
    start = threading.Barrier(2)

    def propose(memory):
        with Store(path) as store:
            candidate = make_policy(store, RECIPE.model.name, memory)
            start.wait()
            specs.append(
                declare(store, RECIPE, candidate, world.dev, [], rule=LOOSE, seeds=1, budget=None)[1]["proposal"]
            )

    threads = [threading.Thread(target=propose, args=[m]) for m in ("good", "bad")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(specs) == [1, 2]
    assert {p["spec"]["candidate"]["memory"] for p in world.store.proposals()} == {"good", "bad"}


async def test_sealed_tasks_are_refused_before_anything_is_counted(world):
    sealed = world.app.tasks("test")
    for options in ({"tasks": sealed}, {"guard": sealed}):
        with pytest.raises(ConfigError, match="sealed"):
            world.declare(world.candidate(), **options)
    assert world.store.proposals() == [] and world.model.calls == 0


class Dead(BaseException):
    """The process, at once: nothing catches it."""


async def test_a_gate_that_broke_goes_on_under_its_number_and_repeats_no_call(world):
    name, spec = world.declare(world.candidate(), seeds=2)
    calls = []

    def dies(messages, index, seed):
        if len(calls) == 9:
            raise Dead
        calls.append((messages[-1].content, seed))
        return tiny_reply(messages, index, seed)

    with pytest.raises(Dead):
        await perform(world.study(name, ScriptedModel(dies, name="m")), spec)
    assert world.store.run(name)["status"] == "failed" and world.store.proposal(name)["status"] == "declared"

    def lives(messages, index, seed):
        calls.append((messages[-1].content, seed))
        return tiny_reply(messages, index, seed)

    again, spec_again = world.declare(world.candidate(), seeds=2)
    assert (again, spec_again["proposal"]) == (name, 1) and len(world.store.proposals()) == 1
    decision = await perform(world.study(name, ScriptedModel(lives, name="m")), spec_again)
    assert decision["verdict"] == "accept" and len(calls) == len(set(calls))


async def test_a_budget_that_ends_leaves_the_proposal_open_and_a_larger_one_ends_it(world):
    name, spec = world.declare(world.candidate())
    poor = dataclasses.replace(RECIPE, limits=LimitsTable(max_calls=10))
    decision = await perform(world.study(name, recipe=poor), spec)
    assert decision["verdict"] == "need_more" and decision["reason"].startswith("the budget ended first")
    assert world.store.run(name)["status"] == "stopped" and world.model.calls <= 10
    paid = world.model.calls
    decision = await perform(world.study(name), spec)
    assert decision["verdict"] == "accept" and world.model.calls > paid
    assert len(world.store.attempts(name)) == world.model.calls, "each attempt is one call, none was made twice"
    assert decision["cost"]["solver"]["calls"] == world.model.calls, "the ledger has all of both lives"


async def test_a_concurrent_adoption_in_between_is_refused(world):
    name, spec = world.declare(world.candidate())
    decision = await perform(world.study(name), spec)
    assert decision["verdict"] == "accept"
    await world.remember("third", *(f"the code of {w} is {c}" for w, c in CODES.items()))
    assert (await world.promote(world.candidate("third")))[0] == 2
    with pytest.raises(StoreError, match="log of versions is at 2"):
        adopt(world.store, name, spec, decision)
    assert [v["policy"]["memory"] for v in world.store.versions()] == ["", "third"]
    assert world.store.proposal(name)["status"] == "declared", "it was never decided against what serves now"
    other, spec = world.declare(world.candidate())
    assert other != name and spec["incumbent"]["memory"] == "third"


# what a score is ------------------------------------------------------------------------------------------------------


async def test_a_failed_attempt_scores_0_and_one_that_cannot_be_judged_is_none(world):
    def breaks(messages, index, seed):
        if "word01" in messages[-1].content:
            raise RefusedError("no")
        return "no number" if "word02" in messages[-1].content else tiny_reply(messages, index, seed)

    known = [t.replace(gold=None) if t.id == "dev-word03" else t for t in world.dev[:5]]
    async with world.study("x", ScriptedModel(breaks)).open({}) as shop:
        memory = make_part("memory", "exact", store=world.store, name="good")
        values = await attempt_values(shop, known, run="x", arm="a:0", seed=0, memory=memory)
        memory.close()
    assert values == [1.0, 0.0, 0.0, None, 1.0]


async def test_first_attempts_only_nobody_is_told_right_or_wrong(world):
    _, decision = await world.promote(world.candidate(), seeds=3)
    attempts = world.store.attempts("gate-1")
    assert {a.round for a in attempts} == {0} and {a.arm.split(":")[0] for a in attempts} == {"incumbent", "candidate"}
    assert {a.arm.split(":")[1] for a in attempts} == {"0", "1", "2"}
    assert not any("## Right" in m.content for a in attempts for s in a.steps for m in s.prompt)
    assert decision["cost"].keys() == {"solver"}


# the way back ---------------------------------------------------------------------------------------------------------


async def adopted(world, *memories):
    """Adopts one memory after the other without asking."""
    for memory in memories:
        name, spec = world.declare(world.candidate(memory))
        adopt(world.store, name, spec, {"verdict": "accept", "reason": "test"})


async def test_rollback_restores_the_exact_policy_and_only_adds(world):
    await adopted(world, "good", "bad")
    log = world.store.versions()
    made = rollback(world.store)
    assert made["number"] == 4 and made["of"] == 2 and made["action"] == "rollback" and made["evidence"] == "gate-1"
    assert world.store.versions()[:3] == log
    assert active(world.store)[1] == Policy(**log[1]["policy"]) == world.candidate("good")
    await world.remember("good", "the code of later is 9")
    assert active(world.store)[1].version < world.store.memories()["good"], "what is learned later does not serve"
    assert rollback(world.store, 1)["policy"] == log[0]["policy"]
    assert active(world.store)[1] == make_policy(world.store, RECIPE.model.name)


async def test_rollback_to_nowhere_says_what_there_is(world):
    with pytest.raises(ConfigError, match="no earlier version"):
        rollback(world.store)
    await adopted(world, "good")
    with pytest.raises(ConfigError, match="no version 9") as error:
        rollback(world.store, 9)
    assert "1, 2" in error.value.todo
    rollback(world.store)
    assert active(world.store)[1].memory == ""


def checkpoint(store, folder, name="tuned", weights=b"weights"):
    """Weights with their papers, registered: as a training leaves them."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    load_function("trainers", "checkpoint", "write")(folder, {"kind": "embedded", "method": "sft", "base": "x"})
    load_function("trainers", "checkpoint", "register")(store, name, folder)


DAMAGE = {
    "weights changed": lambda folder, store: (folder / "model.safetensors").write_bytes(b"other"),
    "weights gone": lambda folder, store: shutil.rmtree(folder),
    "trained again": lambda folder, store: checkpoint(store, folder, "another", b"other"),
    "registered again": lambda folder, store: checkpoint(store, folder, "tuned", b"other"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_weights_that_are_not_those_adopted_neither_serve_nor_come_back(world, tmp_path, damage):
    folder = tmp_path / "weights"
    checkpoint(world.store, folder)
    policy = make_policy(world.store, "checkpoint:tuned", "good")
    assert policy.opens == f"embedded:{folder}" and policy.weights.keys() == {"model.safetensors"}
    name, spec = world.declare(policy)
    adopt(world.store, name, spec, {"verdict": "accept"})
    assert active(world.store)[1] == policy
    kept = shutil.copytree(folder, tmp_path / "kept")
    DAMAGE[damage](folder, world.store)
    with pytest.raises(DataError, match="version 2 is not what was adopted"):
        active(world.store)
    assert rollback(world.store)["number"] == 3
    before = world.store.versions()
    with pytest.raises(DataError, match=r"version 2 .* is not there any more as it was"):
        rollback(world.store, 2)
    assert world.store.versions() == before and active(world.store)[1].model == RECIPE.model.name
    if damage != "registered again":
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)
        assert rollback(world.store, 2)["policy"]["weights"] == policy.weights


@pytest.mark.parametrize("damage", ["changed", "one gone", "one more", "all gone"])
async def test_prompts_that_are_not_those_adopted_neither_serve_nor_come_back(world, tmp_path, damage):
    folder = tmp_path / "prompts"
    folder.mkdir()
    for role in ("solver", "critic"):
        (folder / f"{role}.md").write_text(f"You are the {role}.")
    policy = make_policy(world.store, RECIPE.model.name, "", str(folder))
    assert policy.hashes.keys() == {"solver.md", "critic.md"} and f"prompts of {folder}" in policy.words()
    assert policy.recipe(RECIPE).app.options["prompts"] == str(folder)
    name, spec = world.declare(policy)
    adopt(world.store, name, spec, {"verdict": "accept"})
    assert active(world.store)[1] == policy
    {
        "changed": lambda: (folder / "solver.md").write_text("You are somebody else."),
        "one gone": lambda: (folder / "critic.md").unlink(),
        "one more": lambda: (folder / "judge.md").write_text("x"),
        "all gone": lambda: shutil.rmtree(folder),
    }[damage]()
    with pytest.raises(DataError, match="version 2 is not what was adopted"):
        active(world.store)
    rollback(world.store)
    before = world.store.versions()
    with pytest.raises(DataError, match="not there any more"):
        rollback(world.store, 2)
    assert world.store.versions() == before


async def test_two_rollbacks_at_once_do_not_both_count(world, tmp_path, monkeypatch):
    await adopted(world, "good", "bad")
    with Store(world.store.path) as other:
        add = Store.add_version

        def slow(self, record, expect=None):
            monkeypatch.setattr(Store, "add_version", add)
            rollback(other, 1)  # another process, between reading the log and writing to it
            return add(self, record, expect)

        monkeypatch.setattr(Store, "add_version", slow)
        with pytest.raises(StoreError, match="log of versions is at 4"):
            rollback(world.store)
    assert [v["action"] for v in world.store.versions()] == ["start", "promote", "promote", "rollback"]


def test_policies_are_checked_when_they_are_named(tmp_path):
    with Store(tmp_path / "v.db") as store:
        with pytest.raises(ConfigError, match="no memory 'nobody'"):
            make_policy(store, "m", "nobody")
        store.log_ops("m", [MemoryOp(op="NOOP"), MemoryOp(op="NOOP")])
        assert make_policy(store, "m", "m").version == 2 and make_policy(store, "m", "m@1").version == 1
        for wrong in ("m@3", "m@x", "m@-1"):
            with pytest.raises(ConfigError, match="no version"):
                make_policy(store, "m", wrong)
        with pytest.raises(ConfigError, match="no prompts in"):
            make_policy(store, "m", prompts=str(tmp_path / "none"))
        policy = make_policy(store, "m", "m@1")
        assert Policy(**json.loads(json.dumps(policy.plain()))) == policy
        assert policy.words() == "m, memory m at version 1" and make_policy(store, "m").words() == "m, no memory"


async def test_decide_needs_tasks_that_are_known(world):
    _, spec = world.declare(world.candidate())
    with pytest.raises(DataError, match="not in the store"):
        await decide(world.study("gate-1"), {**spec, "tasks": ["nowhere"]})
