"""What a run will use, said before it begins: compared with what it then used."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import verbal.testing
from verbal.contracts import Sampling
from verbal.errors import ConfigError
from verbal.estimate import Estimate, check_budget, estimate
from verbal.evaluate import ARMS, evaluate_arm
from verbal.recipe import CriticsTable, LimitsTable, LoopTable, MemoryTable, ModelTable, Recipe, load_recipe
from verbal.run import Workshop, learn, open_workshop
from verbal.store import Store
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import Message, Usage

CRITIC = f"{verbal.testing.__file__}:TinyCritic"


def recipe(*, loop: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **limits: Any) -> Recipe:
    return Recipe(
        model=ModelTable(**{"price_in": 1.0, "price_out": 2.0, "max_tokens": 64, **(model or {})}),
        loop=LoopTable(**{"rounds": 2, "batch": 4, **(loop or {})}),
        critics=CriticsTable(names=(CRITIC,), verdict=CRITIC),
        memory=MemoryTable(name="exact", k=2),
        limits=LimitsTable(**limits),
    )


@asynccontextmanager
async def opened(
    store: Store, plan: Recipe | None = None, *, run: str = "run", model: Any = None
) -> AsyncIterator[tuple[Workshop, ScriptedModel]]:
    model = model or ScriptedModel(tiny_reply)
    async with open_workshop(plan or recipe(), store, run=run, model=model, app=TinyApp()) as shop:
        yield shop, model


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "v.db") as made:
        yield made


def used(store: Store, *runs: str) -> Usage:
    return sum((u for run in runs for u in store.usage(run).values()), Usage())


@pytest.mark.parametrize(
    "loop",
    [{}, {"rounds": 3}, {"critique": False}, {"reflect": False}, {"rounds": 1, "critique": False, "reflect": False}],
)
async def test_a_run_of_learning_and_scoring_lies_within_its_estimate(loop: dict[str, Any], store: Store) -> None:
    async with opened(store, recipe(loop=loop)) as (shop, model):
        train, dev = shop.app.tasks("train"), shop.app.tasks("dev")
        learning = await estimate(shop, train, passes={"learn": 1})
        scoring = await estimate(shop, dev, passes={"score": len(ARMS)})
        assert model.calls == 0 and store.usage() == {}, "an estimate calls nothing"
        await learn(shop, train, run="run")
        made = model.calls
        assert learning.calls_low <= made <= learning.calls_high
        assert used(store, "run").calls == made
        memories = {0: shop.memory} if shop.memory else {}
        for arm, hints in ARMS.items():
            await evaluate_arm(shop, dev, run="run", arm=arm, seeds=[0], hints=hints, memories=memories)
        # Arms that ask the same share a recorded reply, so a pass may pay for less than it asks.
        asked = made + sum(len(shop.store.attempts("run", arm=f"{arm}:0")) for arm in ARMS)
        both = learning.plus(scoring)
        assert both.calls_low <= asked <= both.calls_high
        spent = used(store, "run").cost or 0.0
        assert 0 < spent <= both.cost_high and both.cost_low < both.cost_high


async def test_a_group_lies_within_its_estimate(store: Store) -> None:
    async with opened(store, recipe(loop={"graph": "group", "samples": 8})) as (shop, model):
        tasks = shop.app.tasks("train")
        expected = await estimate(shop, tasks, passes={"learn": 1})
        await learn(shop, tasks, run="run")
        assert expected.calls_low <= model.calls <= expected.calls_high


async def test_earlier_calls_narrow_the_range(store: Store) -> None:
    async with opened(store) as (shop, _):
        tasks = shop.app.tasks("train")
        blind = await estimate(shop, tasks, passes={"learn": 1})
        await learn(shop, tasks, run="run")
        actual = used(store, "run").cost or 0.0
        known = await estimate(shop, tasks, passes={"learn": 1})
        assert (blind.calls_low, blind.calls_high) == (known.calls_low, known.calls_high)
        assert known.cost_high - known.cost_low < blind.cost_high - blind.cost_low
        assert known.cost_low <= actual <= known.cost_high
        assert known.minutes_high < blind.minutes_high
    other = ScriptedModel(tiny_reply, name="other")
    async with opened(store, run="other", model=other) as (shop, _):
        again = await estimate(shop, tasks, passes={"learn": 1})
        assert (again.cost_low, again.cost_high) == (blind.cost_low, blind.cost_high), "another model is not known"


async def test_prompts_are_built_as_the_run_builds_them_and_closed(store: Store) -> None:
    async with opened(store) as (shop, model):
        app: Any = shop.app
        seen = []
        start = verbal.testing.TinyEnvironment.start

        async def watched(self: Any, task: Any, **fields: Any) -> list[Message]:
            seen.append(task)
            return await start(self, task, **fields)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verbal.testing.TinyEnvironment, "start", watched)
            made = await estimate(shop, shop.app.tasks("train"), passes={"learn": 1})
        assert len(seen) == 8 and all(t.gold is None for t in seen) and app.opened == 0
        solver = shop.roles("solver")
        cases = [
            solver.worst(app.messages("solver", t), 1, Sampling(max_tokens=64))  # type: ignore[attr-defined]
            for t in shop.app.tasks("train")
        ]
        assert made.worst_call == max(cases, key=lambda u: u.tokens)
        assert model.calls == 0


async def test_passes_and_tasks_multiply(store: Store) -> None:
    async with opened(store) as (shop, _):
        tasks = shop.app.tasks("train")
        one = await estimate(shop, tasks[:4], passes={"learn": 1})
        assert (one.tasks, one.calls_low, one.calls_high) == (4, 4, 4 * 2 * 3)
        three = await estimate(shop, tasks, passes={"learn": 3})
        assert (three.calls_low, three.calls_high) == (6 * one.calls_low, 6 * one.calls_high)
        score = await estimate(shop, tasks, passes={"score": 2})
        assert (score.calls_low, score.calls_high) == (16, 32)
        both = three.plus(score)
        assert both.tasks == 8 and both.calls_high == three.calls_high + 32
        assert both.cost_high == pytest.approx(three.cost_high + score.cost_high)
        assert "worst_call" not in both.plain() and both.plain()["calls_low"] == both.calls_low


async def test_a_free_model_costs_nothing_and_is_quick(store: Store) -> None:
    async with opened(store, recipe(model={"price_in": None, "price_out": None})) as (shop, _):
        free = await estimate(shop, shop.app.tasks("train"), passes={"learn": 1})
    async with opened(store, run="paid") as (shop, _):
        paid = await estimate(shop, shop.app.tasks("train"), passes={"learn": 1})
    assert free.cost_low == free.cost_high == 0.0 and free.minutes_high < paid.minutes_high
    assert free.worst_call.cost == 0.0 and 0 < paid.cost_low < paid.cost_high


# what a budget buys ---------------------------------------------------------------------------------------------------


async def checked(store: Store, passes: dict[str, int] | None = None, **limits: Any) -> tuple[str, Estimate]:
    async with opened(store, recipe(**limits)) as (shop, model):
        made = await estimate(shop, shop.app.tasks("train"), passes=passes or {"learn": 1})
        try:
            return check_budget(shop, made), made
        finally:
            assert model.calls == 0


@pytest.mark.parametrize(
    ("name", "limit", "flag"),
    [("max_cost", 1e-6, "--max-cost"), ("max_tokens", 20, "--max-tokens"), ("max_calls", 0, "--max-calls")],
)
async def test_a_budget_too_small_for_one_task_is_refused_before_any_call(
    name: str, limit: float, flag: str, store: Store
) -> None:
    with pytest.raises(ConfigError, match=r"the budget is too small for one task: .* left, .* needed") as caught:
        await checked(store, **{name: limit})
    error = caught.value
    assert f"limits.{name} = {limit:g}" in error.where and "spent" in error.where
    assert error.todo.startswith(f"give at least {flag} ")
    assert store.usage() == {} and store.runs() == []
    enough = float(error.todo.split()[-1])
    await checked(store, **{name: enough if name == "max_cost" else int(enough)})


async def test_what_was_spent_before_counts(store: Store) -> None:
    words, _ = await checked(store, max_calls=10)
    assert words
    store.put_call("before", "run", "solver", "m", Usage(calls=10))
    with pytest.raises(ConfigError, match="0 calls left, 1 calls needed") as caught:
        await checked(store, max_calls=10)
    assert "10 calls spent" in caught.value.where and caught.value.todo == "give at least --max-calls 12"


async def test_a_budget_says_how_many_tasks_it_buys(store: Store) -> None:
    words, made = await checked(store, max_calls=24)
    assert made.calls_high == 48 and made.calls_low == 8
    assert words == "of 8 tasks, max-calls buys about 4 to 8 tasks"
    words, made = await checked(store, max_cost=made.cost_high / 2, max_calls=12)
    assert words == "of 8 tasks, max-cost buys about 4 to 8 tasks; max-calls buys about 2 to 8 tasks"
    assert (await checked(store))[0] == (await checked(store, max_calls=10**6, max_cost=1e3, max_tokens=10**9))[0] == ""


async def test_what_a_budget_buys_is_about_what_it_then_buys(store: Store) -> None:
    from verbal.errors import BudgetError

    words, _ = await checked(store, max_calls=12)
    assert words == "of 8 tasks, max-calls buys about 2 to 8 tasks"
    async with opened(store, recipe(max_calls=12, loop={"batch": 1})) as (shop, model):
        with pytest.raises(BudgetError):
            await learn(shop, shop.app.tasks("train"), run="run")
        assert 2 <= len(store.groups("run")) <= 8 and model.calls == 12


@pytest.mark.parametrize("limit", [1, 5, 24, 48, 49])
async def test_more_money_never_buys_less(limit: int, store: Store) -> None:
    def bought(words: str) -> Sequence[int]:
        found = [int(w) for w in words.split() if w.isdigit()]
        return found[1:] if words else (8, 8)

    now, _ = await checked(store, max_calls=limit)
    more, _ = await checked(store, max_calls=limit + 1)
    assert tuple(bought(now)) <= tuple(bought(more))


def test_an_estimate_is_plain_data() -> None:
    made = Estimate(
        tasks=1, calls_low=1, calls_high=2, cost_low=0.0, cost_high=0.5, minutes_low=0.0, minutes_high=1.0,
        worst_call=Usage(calls=1, prompt_tokens=9, cost=0.1),
    )  # fmt: skip
    dear = dataclasses.replace(made, worst_call=Usage(calls=1, prompt_tokens=1, cost=0.2))
    assert made.plus(dear).worst_call == dear.plus(made).worst_call == dear.worst_call
    assert set(made.plain()) == {f.name for f in dataclasses.fields(Estimate)} - {"worst_call"}


async def test_the_embedded_model_on_real_questions_lies_within_its_estimate(store: Store) -> None:
    plan = load_recipe("reflect", ["memory.name='exact'", "loop.batch=4"])
    async with open_workshop(plan, store, run="run") as shop:
        train, dev = shop.app.tasks("train")[:4], shop.app.tasks("dev")[:2]
        learning = await estimate(shop, train, passes={"learn": 1})
        both = learning.plus(await estimate(shop, dev, passes={"score": 2}))
        await learn(shop, train, run="run")
        made = used(store, "run").calls
        assert learning.calls_low <= made <= learning.calls_high
        for arm, memories in (("retry", None), ("memory", {0: shop.memory})):
            hints = "memory" if memories else "none"
            await evaluate_arm(shop, dev, run="run", arm=arm, seeds=[0], hints=hints, memories=memories)  # type: ignore[arg-type]
        asked = made + sum(len(store.attempts("run", arm=f"{arm}:0")) for arm in ("retry", "memory"))
        assert both.calls_low <= asked <= both.calls_high
        assert both.cost_high == 0.0 == used(store, "run").cost


async def test_a_judge_that_decides_is_asked_in_every_pass(store: Store) -> None:
    plan = dataclasses.replace(recipe(), critics=CriticsTable(names=("judge",), verdict="judge"))

    def reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
        return tiny_reply(messages, index, seed) if "# Role: " in messages[-1].content else "grade: 3"

    async with opened(store, plan, model=ScriptedModel(reply)) as (shop, model):
        tasks = shop.app.tasks("dev")
        expected = await estimate(shop, tasks, passes={"score": 1})
        await evaluate_arm(shop, tasks, run="run", arm="retry", seeds=[0])
        assert model.calls == 4 * len(tasks) == expected.calls_high, "two attempts, each of them judged"


async def test_a_provider_without_n_is_asked_once_a_sample(store: Store) -> None:
    class OneByOne(ScriptedModel):
        one_per_call = True

    model = OneByOne(tiny_reply)
    async with opened(store, recipe(loop={"graph": "group", "samples": 3}), model=model) as (shop, _):
        expected = await estimate(shop, shop.app.tasks("train"), passes={"learn": 1})
        await learn(shop, shop.app.tasks("train"), run="run")
        assert model.calls == 3 * 8 == expected.calls_low == expected.calls_high


async def test_a_listwise_judge_lies_within_its_estimate(store: Store) -> None:
    def reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
        known = messages[-1].content
        return tiny_reply(messages, index, seed) if "# Role: " in known else "0.5 " * known.count("<candidate")

    plan = recipe(loop={"graph": "group", "samples": 2})
    plan = dataclasses.replace(plan, critics=CriticsTable(names=(CRITIC, "group"), verdict=CRITIC))
    async with opened(store, plan, model=ScriptedModel(reply)) as (shop, model):
        expected = await estimate(shop, shop.app.tasks("train"), passes={"learn": 1})
        await learn(shop, shop.app.tasks("train"), run="run")
        assert expected.calls_low <= model.calls <= expected.calls_high
