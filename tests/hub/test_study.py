"""A study does what its spec says, goes on with it, and refuses to take another one's records for an answer."""

from __future__ import annotations

import dataclasses
import json

import pytest

import verbal.testing
from verbal.errors import BudgetError, ConfigError, DataError
from verbal.parts import make_part
from verbal.recipe import AppTable, CriticsTable, LimitsTable, LoopTable, MemoryTable, Recipe
from verbal.store import Store
from verbal.study import Study, items, open_pinned, perform, plain_usage, tasks_of
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import MemoryOp, Reflection, Usage

TINY = verbal.testing.__file__
RECIPE = Recipe(
    app=AppTable(name=f"{TINY}:TinyApp"),
    loop=LoopTable(rounds=2, batch=3),
    critics=CriticsTable(names=(f"{TINY}:TinyCritic",), verdict=f"{TINY}:TinyCritic"),
    memory=MemoryTable(name="exact", k=2),
)


class World:
    """A store with the tasks of the tiny app, and the tiny model, which counts its calls."""

    def __init__(self, store):
        self.store, self.app, self.model = store, TinyApp(), ScriptedModel(tiny_reply)
        store.put_tasks([*self.app.tasks("train"), *self.app.tasks("dev")])

    async def remember(self, name, *lessons):
        memory = make_part("memory", "exact", store=self.store, name=name)
        await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text=t)) for t in lessons])
        memory.close()

    def codes(self, *words):
        return [f"the code of {w} is {self.app.codes[w]}" for w in words or self.app.codes]

    async def learn(self, run="run", tasks=None, memory=None, recipe=RECIPE, **more):
        ids = [t.id for t in self.app.tasks("train")[:tasks]]
        spec = {"command": "learn", "arm": "learn", "tasks": ids, "memory": {"name": memory or run}, **more}
        return await perform(self.study(run, recipe), spec)

    async def score(self, run="eval", memory="", seeds=1, tasks=None, version=None, **more):
        ids = [t.id for t in self.app.tasks("dev")[:tasks]]
        found = self.store.memories().get(memory, 0) if version is None else version
        memories = {s: [memory, found] for s in range(seeds)} if memory else {}
        spec = {"command": "eval", "tasks": ids, "seeds": list(range(seeds)), "memories": memories, **more}
        made = await perform(self.study(run), spec)
        return {a["name"]: a["mean"] for a in made["arms"]}

    def study(self, run, recipe=RECIPE):
        return Study(store=self.store, recipe=recipe, run=run, model=self.model, app=self.app)


@pytest.fixture
def world(tmp_path):
    with Store(tmp_path / "v.db") as store:
        yield World(store)


async def test_learning_gives_its_lessons_and_what_it_used(world):
    made = await world.learn()
    assert (made["run"], made["tasks"], made["solved"]) == ("run", 8, 8)
    assert sorted(x["text"] for x in made["lessons"]) == sorted(world.codes())
    assert made["usage"]["solver"]["calls"] == 16 and made["usage"]["reflector"]["calls"] == 8
    assert "embedding" not in made["lessons"][0]
    json.dumps(made)
    info = world.store.run("run")["info"]
    assert info["command"] == "learn" and info["memory"] == {"name": "run", "from": 0}
    assert info["memory_to"] == world.store.memories()["run"]
    again = world.model.calls
    assert await world.learn() == made and world.model.calls == again


async def test_the_same_learning_under_another_name_asks_nothing_again(world):
    await world.learn("a")
    calls = world.model.calls
    await world.learn("b")
    assert world.model.calls == calls


async def test_scoring_compares_the_arms_and_prices_the_gain(world):
    await world.remember("good", *world.codes())
    made = await perform(
        world.study("eval"),
        {
            "command": "eval",
            "tasks": [t.id for t in world.app.tasks("dev")],
            "seeds": [0, 1, 2],
            "memories": {s: ["good", world.store.memories()["good"]] for s in range(3)},
        },
    )
    assert {a["name"]: a["mean"] for a in made["arms"]} == {"base": 0, "retry": 0, "shuffled": 0, "memory": 1}
    assert made["claim_holds"] and "beats retry-only" in made["claim"]
    rows = {r["arm"]: r for r in made["cost_gain"]}
    assert rows["memory"]["gain"] == 1.0 and rows["memory"]["calls"] == 24 < rows["retry"]["calls"] == 48
    assert made["title"].endswith("8 dev tasks") and made["run"] == "eval"
    assert world.store.run("eval")["info"]["results"] == json.loads(json.dumps(made))


async def test_without_a_memory_only_retry_is_scored_and_nothing_is_claimed(world):
    assert await world.score() == {"base": 0.0, "retry": 0.0}
    assert "claim" not in world.store.run("eval")["info"]["results"]


async def test_a_memory_is_read_as_it_was_and_never_written(world):
    await world.remember("m", *world.codes("anchor"))
    early = world.store.memories()["m"]
    await world.remember("m", *world.codes("basket", "candle"))
    late = world.store.memories()["m"]
    assert (await world.score("old", "m", version=early))["memory"] == 1 / 8
    assert (await world.score("new", "m"))["memory"] == 3 / 8
    assert world.store.memories()["m"] == late > early


async def test_another_memory_under_the_same_run_is_refused_and_costs_nothing(world):
    """The attempts that are kept were made with the first memory: they would have been given as the second's."""
    await world.remember("good", *world.codes())
    await world.remember("bad", "the code of nothing is 5")
    assert (await world.score(memory="good"))["memory"] == 1.0
    calls, before = world.model.calls, world.store.run("eval")
    with pytest.raises(ConfigError, match=r"memories: .*good.* now .*bad") as error:
        await world.score(memory="bad")
    assert "--run" in error.value.todo
    with pytest.raises(ConfigError, match="memories"):
        await world.score()
    assert world.model.calls == calls and world.store.run("eval") == before
    assert (await world.score("other", memory="bad"))["memory"] == 0.0


async def test_a_memory_that_has_grown_is_another_one(world):
    await world.remember("m", *world.codes("anchor"))
    await world.score(memory="m")
    await world.remember("m", *world.codes("basket"))
    with pytest.raises(ConfigError, match="memories"):
        await world.score(memory="m")


@pytest.mark.parametrize(
    ("first", "then", "differs"),
    [({"tasks": 4}, {"tasks": 5}, "tasks"), ({"seeds": 3}, {"seeds": 2}, "seeds"), ({}, {"rounds": 1}, "rounds")],
)
async def test_other_tasks_fewer_seeds_other_rounds_are_refused(world, first, then, differs):
    await world.score(**first)
    with pytest.raises(ConfigError, match=f"begun for something else .{differs}: "):
        await world.score(**then)


async def test_a_learning_run_does_not_go_on_with_other_tasks_or_another_memory(world):
    await world.learn(tasks=3)
    with pytest.raises(ConfigError, match="tasks: "):
        await world.learn(tasks=4)
    with pytest.raises(ConfigError, match="memory: "):
        await world.learn(tasks=3, memory="other")
    with pytest.raises(ConfigError, match="command"):
        await world.score("run")


async def test_more_seeds_go_on_and_pay_for_the_new_ones_only(world):
    await world.remember("m", *world.codes())
    await world.score(memory="m", seeds=1)
    calls = world.model.calls
    assert (await world.score(memory="m", seeds=2))["memory"] == 1.0
    info = world.store.run("eval")["info"]
    assert info["seeds"] == [0, 1] and set(info["memories"]) == {"0", "1"}
    assert len(world.store.attempts("eval", arm="memory:0")) == len(world.store.attempts("eval", arm="memory:1")) == 8
    assert 0 < world.model.calls - calls <= calls


async def test_a_budget_stops_it_and_a_larger_one_finishes_it(world):
    small = dataclasses.replace(RECIPE, limits=LimitsTable(max_calls=5))
    with pytest.raises(BudgetError):
        await world.learn(recipe=small)
    assert world.store.run("run")["status"] == "stopped"
    made = await world.learn()
    assert made["solved"] == 8 and world.store.run("run")["status"] == "done"
    assert world.model.calls == 32, "8 tasks: two attempts, a critique and a lesson each, none asked twice"


async def test_what_is_not_known_is_told(world):
    with pytest.raises(DataError, match=r"'ask'.*not repeated"):
        await perform(world.study("x"), {"command": "ask"})
    with pytest.raises(DataError, match="'nowhere' is not in the store"):
        await perform(world.study("x"), {"command": "learn", "tasks": ["nowhere"], "memory": {"name": ""}})
    assert world.store.run("x") is None and world.model.calls == 0
    wanted = ["dev-basket", "dev-anchor"]
    assert [t.id for t in tasks_of(world.store, wanted)] == wanted


async def test_items_are_what_is_not_retired(world):
    await world.remember("m", *world.codes("anchor"))
    early = world.store.memories()["m"]
    await world.remember("m", *world.codes("basket"))
    async with world.study("x").open({}) as shop:
        assert shop.memory is None, "no memory was asked for"
        memory = open_pinned(shop, "m", world.store.memories()["m"])
        assert len(items(memory)) == 2
        memory.close()
        memory = open_pinned(shop, "m", early)
        assert [r.text for r in items(memory)] == world.codes("anchor")
        memory.close()
    assert items(None) == []


def test_usage_is_plain():
    used = plain_usage({"solver": Usage(calls=2, prompt_tokens=3, completion_tokens=4, cost=0.5, seconds=1.0)})
    assert "v" not in used["solver"] and Usage(**json.loads(json.dumps(used))["solver"]).cost == 0.5
