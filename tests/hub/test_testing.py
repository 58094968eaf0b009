"""The tiny app, critic, store and memory; and one whole run on them: learn in words on train, prove it on dev."""

from __future__ import annotations

import dataclasses
import doctest
from collections.abc import Sequence
from typing import Any

import pytest

import verbal.testing
from verbal.contracts import App, Critic, CriticContext, Environment, Memory, Reply
from verbal.evaluate import difference, evaluate_arm
from verbal.parts import make_part
from verbal.recipe import CriticsTable, LoopTable, MemoryTable, Recipe
from verbal.run import Progress, Workshop, learn
from verbal.store import Store
from verbal.testing import (
    ScriptedModel,
    TinyApp,
    TinyCritic,
    TinyEnvironment,
    temporary_memory,
    temporary_store,
    tiny_reply,
)
from verbal.types import Attempt, Reflection, StopReason, Task

SEEDS = (1, 2)


def test_the_parts_fit_their_contracts() -> None:
    app = TinyApp()
    assert isinstance(app, App)
    assert isinstance(app.environment(), Environment)
    assert isinstance(TinyCritic(), Critic)


def test_the_example_in_its_docstring_runs() -> None:
    assert doctest.testmod(verbal.testing).failed == 0


async def test_an_environment_is_used_once_and_closed() -> None:
    app = TinyApp({"fox": "417"})
    (task,) = app.tasks("dev")
    environment = app.environment()
    messages = await environment.start(task, hints=[Reflection(id="r1", text="a hint")], tried=["12"])
    assert '<hint id="r1">a hint</hint>' in messages[0].content
    assert "12\n## Question" in messages[0].content
    assert "417" not in messages[0].content, "gold is never shown to a policy"
    assert app.opened == 1
    seen = await environment.step(Reply(text="It is 417."))
    assert (seen.done, seen.answer, seen.stop) == (True, "417", StopReason.ANSWERED)
    assert (await environment.step(Reply(text="no idea"))).stop is StopReason.MALFORMED
    with pytest.raises(RuntimeError, match="used once"):
        await environment.start(task)
    await environment.aclose()
    await environment.aclose()
    assert app.opened == 0
    with pytest.raises(RuntimeError, match="start the environment"):
        await TinyEnvironment(app).step(Reply(text="1"))


async def test_the_gold_scores_one_and_an_empty_answer_does_not() -> None:
    app, critic = TinyApp(), TinyCritic()
    assert await app.preflight() == len(app.tasks()) == 24
    for task in app.tasks("dev"):
        group = [Attempt(id=a, run="r", task=task.id, answer=a) for a in (task.gold or "", "")]
        good, empty = await critic.evaluate(task, group, CriticContext())
        assert (good.value, good.correction, good.oracle) == (1.0, "", True)
        assert (empty.value, empty.text) == (0.0, "wrong: no answer")
    unknown = app.task("What is the code of love?", id="x")
    (none,) = await critic.evaluate(unknown, [Attempt(id="a", run="r", task="x")], CriticContext())
    assert (none.value, none.reason) == (None, "the task has no gold")


async def test_a_code_that_is_no_number_is_found_before_the_run() -> None:
    with pytest.raises(ValueError, match="the code 'red' is not a number"):
        await TinyApp({"fox": "red"}).preflight()


def test_the_rules_guess_below_every_code_and_follow_hints() -> None:
    app = TinyApp()
    assert all(int(code) >= 100 for code in app.codes.values())
    task = app.tasks("dev")[0]
    guesses = {tiny_reply(app.messages("solver", task), i, 7) for i in range(5)}
    assert len(guesses) > 1
    assert all(int(app.parse("solver", g)) < 100 for g in guesses)
    hint = Reflection(id="r1", text=f"the code of anchor is {app.codes['anchor']}")
    assert app.parse("solver", tiny_reply(app.messages("solver", task, hints=[hint]), 0, None)) == task.gold


async def test_a_temporary_memory_holds_its_lessons_and_goes_away() -> None:
    async with temporary_memory(["the code of anchor is 117", "the code of basket is 200"]) as memory:
        assert isinstance(memory, Memory)
        (found,) = await memory.search("code of anchor", 1)
        assert found.text == "the code of anchor is 117"
        assert [op.op for op in memory.history() if op.op != "NOOP"] == ["ADD", "ADD"]
    with temporary_store() as store:
        path = store.path
        async with temporary_memory(["x means y"], store=store, name="mine"):
            pass
        assert "mine" in store.memories(), "a store that was given stays open"
    assert not path.exists()


class Forgetful:
    """A memory that finds nothing: the guard below must notice it."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    async def search(self, query: str, k: int, **_: Any) -> list[Reflection]:
        """Nothing."""
        return []


def workshop(store: Store, memory: Any, model: ScriptedModel | None = None) -> Workshop:
    """The tiny app in the real loop."""
    model = model or ScriptedModel(tiny_reply)
    return Workshop(
        recipe=Recipe(
            loop=LoopTable(rounds=2, batch=3),
            critics=CriticsTable(names=("tiny",), verdict="tiny"),
            memory=MemoryTable(name="exact", k=2),
        ),
        store=store,
        app=TinyApp(),
        roles=lambda role: model,
        critics=[TinyCritic()],
        memory=memory,
        curator=make_part("memory", "curator"),
        progress=Progress(),
    )


async def solved(shop: Workshop, memory: Any, arm: str, hints: str) -> tuple[tuple[float, ...], ...]:
    """First attempts right, by seed and dev task."""
    scores = await evaluate_arm(
        shop,
        shop.app.tasks("dev"),
        run="eval",
        arm=arm,
        seeds=SEEDS,
        hints=hints,
        memories=dict.fromkeys(SEEDS, memory),
    )
    return scores.first


async def test_reflections_of_train_help_on_dev_and_a_forgetful_memory_is_caught() -> None:
    with temporary_store() as store:
        async with temporary_memory(store=store, name="main") as memory:
            shop = workshop(store, memory)
            summary = await learn(shop, shop.app.tasks("train"), run="learn")
            assert (summary.tasks, summary.solved, summary.unfinished) == (8, 8, ()), "the retry knows the correction"
            retry = await solved(shop, memory, "retry", "none")
            learned = await solved(shop, memory, "memory", "memory")
            shuffled = await solved(shop, memory, "shuffled", "shuffled")
            forgetful = await solved(shop, Forgetful(memory), "forgetful", "memory")
            assert difference(learned, retry).low > 0.9
            assert difference(learned, shuffled).low > 0.9
            assert difference(forgetful, retry).high == 0.0
            assert len(memory.at(len(memory.history()))) == 8
            assert shop.app.opened == 0
            steps = dev_steps(store, shop.app.tasks("dev"))
            assert len(steps) == 2 * 8 * len(SEEDS)
            assert all(t.gold not in s.prompt[0].content for t, s in steps)


def dev_steps(store: Store, tasks: Sequence[Task]) -> list[tuple[Task, Any]]:
    """Every step of an attempt made without hints, with its task."""
    named = {t.id: t for t in tasks}
    return [(named[a.task], s) for a in store.attempts("eval") if a.arm.startswith("retry") for s in a.steps]


async def test_the_same_seed_gives_the_same_run() -> None:
    runs = []
    for _ in range(2):
        with temporary_store() as store:
            async with temporary_memory(store=store, name="main") as memory:
                shop = workshop(store, memory)
                await learn(shop, shop.app.tasks("train"), run="learn")
                attempts = sorted(store.attempts(), key=lambda a: a.id)
                kept = [a.replace(usage=a.usage.replace(seconds=0.0)) for a in attempts]
                items = memory.at(len(memory.history())).values()
                runs.append((kept, sorted((r.text, r.task or "") for r in items)))
    assert runs[0] == runs[1]


async def test_a_finished_run_makes_no_call_again() -> None:
    with temporary_store() as store:
        async with temporary_memory(store=store, name="main") as memory:
            model = ScriptedModel(tiny_reply)
            shop = workshop(store, memory, model)
            await learn(shop, shop.app.tasks("train"), run="learn")
            calls, version = model.calls, memory.history()
            again = dataclasses.replace(shop, progress=Progress())
            await learn(again, shop.app.tasks("train"), run="learn")
            assert model.calls == calls
            assert memory.history() == version
            assert again.progress.kept == 8
