"""Self-made checks that are wrong end in 'rejected', not in a drop.

Reflexion's own logs have the case: with tests the model wrote itself, GPT-4 fell from 80.1 to 77.1 % on MBPP, because
too many wrong programs passed them. Here the check of the learning run approves wrong codes and 'corrects' right ones.
By that check everything got better; the gate, with the true critic on held-out tasks, lets nothing in.
"""

from __future__ import annotations

import re
from typing import ClassVar

import pytest

import verbal.testing
from verbal.evaluate import ARMS, compare, evaluate_arm
from verbal.gate import Rule
from verbal.parts import make_part
from verbal.recipe import CriticsTable, LoopTable, MemoryTable, Recipe
from verbal.run import learn, open_workshop
from verbal.store import Store
from verbal.study import Study, perform
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import Feedback
from verbal.versions import active, adopt, declare, make_policy, rollback

CODES = {f"word{i:02}": str(500 + i) for i in range(60)}
TRUE = f"{verbal.testing.__file__}:TinyCritic"


def wrong(code: str) -> str:
    """What the self-made check takes for the code."""
    return str(int(code) + 300)


class WrongCheck:
    """The self-made check: right where the code is 300 too high, and it says so when asked for a correction."""

    name = "wrong_check"
    oracle: ClassVar[bool] = False

    async def evaluate(self, task, group, context):
        word = task.id.partition("-")[2]
        return [self._one(a, word, wrong(CODES[word])) for a in group]

    def _one(self, attempt, word, code):
        passed = attempt.answer == code
        told = "" if passed else f"the code of {word} is {code}"
        return Feedback(attempt=attempt.id, critic=self.name, value=float(passed), correction=told, source="self")


def recipe(critic: str) -> Recipe:
    return Recipe(
        loop=LoopTable(rounds=2, batch=16, critique=False),
        critics=CriticsTable(names=(critic,), verdict=critic),
        memory=MemoryTable(name="exact", k=1, quarantine=False, withhold=0.0),
    )


def knowing(words: list[str]) -> ScriptedModel:
    """The tiny model, which knows the codes of some words by itself; but it believes a hint more."""

    def reply(messages, index, seed):
        text = messages[-1].content
        head, _, question = text.partition("## Question\n")
        asked = next((w for w in words if w in question), None)
        told = asked is not None and re.search(rf"the code of {asked} is", head)
        solver = "# Role: solver" in text
        return f"The code is {CODES[asked]}." if solver and asked and not told else tiny_reply(messages, index, seed)

    return ScriptedModel(reply, name="knowing")


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as made:
        yield made


async def learned_from_wrong_checks(store: Store, model: ScriptedModel) -> tuple[float, dict[str, dict]]:
    """Learns from the wrong check; gives the share it then calls solved, and what its own scoring would claim."""
    app = TinyApp(CODES)
    async with open_workshop(recipe(f"{__file__}:WrongCheck"), store, run="learned", model=model, app=app) as shop:
        summary = await learn(shop, app.tasks("train"), run="learned")
        scores = {
            arm: await evaluate_arm(
                shop, app.tasks("dev"), run="own-scoring", arm=arm, seeds=[0, 1, 2], hints=hints,
                memories={s: shop.memory for s in range(3)},
            )
            for arm, hints in ARMS.items()
        }  # fmt: skip
    return summary.solved / summary.tasks, compare(scores)


async def judged_by_the_truth(store: Store, model: ScriptedModel):
    """The gate with the true critic, on the held-out questions."""
    app, true = TinyApp(CODES), recipe(TRUE)
    candidate = make_policy(store, true.model.name, "learned")
    name, spec = declare(store, true, candidate, app.tasks("dev"), [], rule=Rule(), seeds=1, budget=None)
    decision = await perform(Study(store=store, recipe=true, run=name, model=model, app=app), spec)
    return decision, adopt(store, name, spec, decision)


async def test_what_a_wrong_check_taught_is_rejected_and_what_serves_stays(store):
    known = list(CODES)[:48]  # the solver knows 80 % by itself, as GPT-4 did on MBPP
    model = knowing(known)
    solved, own = await learned_from_wrong_checks(store, model)
    # By its own check learning went from nothing to everything, and even beat the controls: any rule that trusts it
    # would adopt the memory.
    assert solved == 1.0
    means = {a["name"]: a["mean"] for a in own["arms"]}
    assert (means["base"], means["retry"], means["memory"]) == (0.0, 0.0, 1.0)
    assert own["claim_holds"] and "beats retry-only" in own["claim"]
    lessons = {i.text for i in _items(store)}
    assert f"the code of word00 is {wrong(CODES['word00'])}" in lessons and len(lessons) == 60

    decision, number = await judged_by_the_truth(store, model)
    assert decision["verdict"] == "reject" and number is None
    assert "does harm" in decision["reason"] and decision["gain"]["mean"] < -0.5 and decision["used"] < 30
    assert active(store) is None and store.versions() == []
    assert [p["status"] for p in store.proposals()] == ["reject"]


async def test_a_memory_that_serves_is_not_displaced_by_what_a_wrong_check_taught(store):
    model = knowing([])
    # What serves was learned from the truth, and passed the gate.
    app, true = TinyApp(CODES), recipe(TRUE)
    async with open_workshop(true, store, run="honest", model=model, app=app) as shop:
        assert (await learn(shop, app.tasks("train"), run="honest")).solved == 60
    candidate = make_policy(store, true.model.name, "honest")
    name, spec = declare(store, true, candidate, app.tasks("dev"), [], rule=Rule(), seeds=1, budget=None)
    decision = await perform(Study(store=store, recipe=true, run=name, model=model, app=app), spec)
    assert adopt(store, name, spec, decision) == 2
    before = active(store)
    await learned_from_wrong_checks(store, model)
    decision, number = await judged_by_the_truth(store, model)
    assert (decision["verdict"], number) == ("reject", None) and "does harm" in decision["reason"]
    assert active(store) == before and before[1].memory == "honest"
    # Had somebody forced it in, the way back is one step.
    store.add_version({"action": "promote", "policy": spec["candidate"] | {"memory": "learned"}, "evidence": ""})
    rollback(store, 2)
    assert active(store)[1] == before[1]


async def test_a_wrong_check_that_only_changes_wrong_answers_gains_nothing_and_is_not_adopted(store):
    model = knowing([])  # it knows no code, so the wrong lessons replace wrong guesses
    solved, own = await learned_from_wrong_checks(store, model)
    assert solved == 1.0 and own["claim_holds"]
    decision, number = await judged_by_the_truth(store, model)
    assert number is None and set(decision["gains"]) == {0.0} and decision["wealth"][-1] == 1.0
    assert decision["verdict"] == "need_more" or "worth finding" in decision["reason"]


def _items(store: Store):
    memory = make_part("memory", "exact", store=store, name="learned", version=store.memories()["learned"])
    try:
        return [i for i in memory.at(len(memory.history())).values() if i.status == "active"]
    finally:
        memory.close()
