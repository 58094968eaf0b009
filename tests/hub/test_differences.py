"""Where two runs part: the first step, what was shown, what was learned, what it scored."""

from __future__ import annotations

import dataclasses

import pytest

import verbal.testing
from verbal.differences import LONG, diff_items, diff_runs, first_step
from verbal.errors import UnknownName
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, Recipe
from verbal.store import Store
from verbal.study import Study, perform
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import Attempt, Feedback, Group, Message, Reflection, Step, StopReason

TINY = verbal.testing.__file__
RECIPE = Recipe(
    app=AppTable(name=f"{TINY}:TinyApp"),
    loop=LoopTable(rounds=2, batch=3),
    critics=CriticsTable(names=(f"{TINY}:TinyCritic",), verdict=f"{TINY}:TinyCritic"),
    memory=MemoryTable(name="exact", k=2, quarantine=False, withhold=0.0),
)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as made:
        yield made


@pytest.fixture
def other(tmp_path):
    with Store(tmp_path / "other.db") as made:
        yield made


async def learned(store, run, *, reply=tiny_reply, recipe=RECIPE, memory=None):
    app = TinyApp()
    tasks = app.tasks("train")
    store.put_tasks(tasks)
    study = Study(store=store, recipe=recipe, run=run, model=ScriptedModel(reply, name=reply.__name__), app=app)
    spec = {"command": "learn", "arm": "learn", "tasks": [t.id for t in tasks], "memory": {"name": memory or run}}
    return await perform(study, spec)


async def scored(store, run, memory, reply=tiny_reply):
    app = TinyApp()
    tasks = app.tasks("dev")
    store.put_tasks(tasks)
    study = Study(store=store, recipe=RECIPE, run=run, model=ScriptedModel(reply, name=reply.__name__), app=app)
    memories = {0: [memory, store.memories()[memory]]}
    return await perform(study, {"command": "eval", "tasks": [t.id for t in tasks], "seeds": [0], "memories": memories})


def kept(store, run, *steps, task="t", answer="1", stop=StopReason.ANSWERED, error=None, **more):
    """An attempt put into the store by hand."""
    if store.run(run) is None:
        store.start_run(run, {"critics": {"verdict": "gold"}})
    attempt = Attempt(
        id=f"{run}/{task}/{more.get('round', 0)}.{more.get('sample', 0)}", run=run, task=task, arm="learn",
        steps=steps, answer=answer, stop=stop, error=error, **more,
    )  # fmt: skip
    store.put_attempt(attempt)
    return attempt


def step(text="said", prompt="asked", observation="seen", shown=()):
    return Step(
        author="policy", text=text, observation=observation, shown=shown, prompt=(Message(role="user", content=prompt),)
    )


async def test_equal_runs_say_so_in_one_store_and_in_two(store, other):
    await learned(store, "a")
    await learned(store, "b")
    await learned(other, "a")
    made = diff_runs(store, "a", store, "b")
    assert made["equal"] and made["rows"] == [] and (made["left"], made["right"]) == ("a", "b")
    assert diff_runs(store, "a", other, "a")["equal"] and diff_runs(store, "a", store, "a")["equal"]
    made = diff_runs(store, "a", store, "a")
    assert made["digests"][0] == made["digests"][1]


async def test_an_unknown_run_names_the_known_ones(store, other):
    await learned(store, "a")
    with pytest.raises(UnknownName, match="'c'") as error:
        diff_runs(store, "a", store, "c")
    assert "known: a" in error.value.todo
    with pytest.raises(UnknownName):
        diff_runs(store, "a", other, "a")


async def test_another_reply_is_found_at_its_attempt_and_step(store):
    def worse(messages, index, seed):
        text = tiny_reply(messages, index, seed)
        return text.replace("The code is", "I know:") if "candle" in messages[-1].content else text

    await learned(store, "a")
    await learned(store, "b", reply=worse)
    made = diff_runs(store, "a", store, "b")
    assert not made["equal"]
    assert made["rows"] == [made["rows"][0]], "only the words of one reply differ: memory and scores are the same"
    row = made["rows"][0]
    assert row["what"] == "attempt learn/train-candle/1/0, step 0: reply"
    assert row["left"].startswith("The code is ") and row["right"].startswith("I know: ")


@pytest.mark.parametrize(
    ("field", "left", "right"),
    [
        ("reflections shown", {"shown": ("r1",)}, {"shown": ("r1", "r2")}),
        ("prompt", {"prompt": "who"}, {"prompt": "what"}),
        ("reply", {"text": "yes"}, {"text": "no"}),
        ("observation", {"observation": "1 row"}, {"observation": "2 rows"}),
    ],
)
def test_the_field_that_differs_is_named(store, field, left, right):
    kept(store, "a", step(), step(**left))
    kept(store, "b", step(), step(**right))
    found = first_step(store, "a", store, "b")
    words = {**left, **right}
    assert found["what"] == f"attempt learn/t/0/0, step 1: {field}" and found["left"] != found["right"]
    assert len(words) == 1


def test_what_caused_it_is_named_before_what_followed(store):
    kept(store, "a", step(shown=("r1",), prompt="with r1", text="yes", observation="1"))
    kept(store, "b", step(shown=(), prompt="without", text="no", observation="0"))
    assert first_step(store, "a", store, "b") == {
        "what": "attempt learn/t/0/0, step 0: reflections shown", "left": "r1", "right": "",
    }  # fmt: skip


def test_the_first_in_the_order_of_the_left_run_counts(store):
    for task, text in (("t2", "x"), ("t1", "y")):
        kept(store, "a", step(text=text), task=task)
    for task, text in (("t1", "not y"), ("t2", "not x")):
        kept(store, "b", step(text=text), task=task)
    assert first_step(store, "a", store, "b")["what"] == "attempt learn/t2/0/0, step 0: reply"
    assert first_step(store, "b", store, "a")["what"] == "attempt learn/t1/0/0, step 0: reply"


def test_an_attempt_or_a_step_that_only_one_made(store):
    kept(store, "a", step(), step(text="more"))
    kept(store, "b", step())
    found = first_step(store, "a", store, "b")
    assert found == {"what": "attempt learn/t/0/0, step 1: step", "left": "more", "right": ""}
    kept(store, "c", step(), step(text="more"))
    kept(store, "c", step(), round=1)
    found = first_step(store, "a", store, "c")
    assert found == {"what": "attempt learn/t/1/0", "left": "not made", "right": "made"}
    assert first_step(store, "c", store, "a") == {"what": "attempt learn/t/1/0", "left": "made", "right": "not made"}


def test_another_outcome_of_the_same_steps(store):
    kept(store, "a", step(), answer="1")
    kept(store, "b", step(), answer="", stop=StopReason.ERROR, error="EnvironmentFault: it broke")
    found = first_step(store, "a", store, "b")
    assert found["what"] == "attempt learn/t/0/0: outcome" and "it broke" in found["right"]


def test_proposals_of_a_self_play_are_twins_though_their_tasks_are_named_after_the_run(store):
    kept(store, "a", step(), task="a/learn/p1")
    kept(store, "b", step(), task="b/learn/p1")
    assert first_step(store, "a", store, "b") is None


def test_long_texts_are_cut_from_a_little_before_they_part(store):
    kept(store, "a", step(text="x" * 500 + "LEFT" + "y" * 500))
    kept(store, "b", step(text="x" * 500 + "RIGHT" + "y" * 500))
    found = first_step(store, "a", store, "b")
    for side, word in (("left", "LEFT"), ("right", "RIGHT")):
        assert found[side].startswith("...xxx") and word in found[side] and len(found[side]) == LONG + 3


def test_other_verdicts_on_the_same_answers_are_told(store):
    for run, value in (("a", 1.0), ("b", 0.0)):
        attempt = kept(store, run, step())
        store.put_feedback([Feedback(attempt=attempt.id, critic="gold", value=value, oracle=True)])
        store.put_group(run, Group(task="t", attempts=(attempt.id,), chosen=attempt.id))
    made = diff_runs(store, "a", store, "b")
    assert not made["equal"]
    assert {"what": "score of tasks solved", "left": "100.0 %", "right": "0.0 %"} in made["rows"]


def test_verdicts_that_differ_and_cancel_out_are_told(store):
    """Both runs solve one task of two, but not the same one."""
    for run, values in (("a", (1.0, 0.0)), ("b", (0.0, 1.0))):
        for task, value in zip(("t1", "t2"), values, strict=True):
            attempt = kept(store, run, step(), task=task)
            store.put_feedback([Feedback(attempt=attempt.id, critic="gold", value=value, oracle=True)])
            store.put_group(run, Group(task=task, attempts=(attempt.id,), chosen=attempt.id))
    made = diff_runs(store, "a", store, "b")
    assert not made["equal"]
    assert made["rows"] == [{"what": "attempt learn/t1/0/0: verdict of gold", "left": "1.0", "right": "0.0"}]


async def test_memories_are_compared_item_by_item_as_the_runs_left_them(store):
    def other(messages, index, seed):
        return tiny_reply(messages, index, seed).replace("the code of basket is", "remember that the code of basket is")

    await learned(store, "a")
    await learned(store, "b", reply=other)
    rows = {r["what"]: r for r in diff_runs(store, "a", store, "b")["rows"]}
    (memory,) = (r for what, r in rows.items() if what.startswith("memory "))
    assert memory["left"].startswith("the code of basket") and memory["right"].startswith("remember that")
    assert memory["left"].endswith("(active)")
    # What was learned later into the same memory is not the run's.
    await learned(store, "c", memory="a")
    assert diff_runs(store, "a", store, "a")["equal"]


def test_items_of_one_side_only_and_in_another_state():
    def item(id, text="x", status="active"):
        return Reflection(id=id, text=text, status=status)

    left = {"r1": item("r1"), "r2": item("r2"), "r10": item("r10", "ten")}
    right = {"r1": item("r1"), "r2": item("r2", status="retired")}
    assert diff_items(left, right) == [
        {"what": "memory r2", "left": "x (active)", "right": "x (retired)"},
        {"what": "memory r10", "left": "ten (active)", "right": ""},
    ]
    assert diff_items(left, left) == [] == diff_items({}, {})


async def test_other_numbers_in_the_recipe_are_told_first(store):
    await learned(store, "a")
    changed = dataclasses.replace(RECIPE, seed=3, loop=dataclasses.replace(RECIPE.loop, rounds=1))
    await learned(store, "b", recipe=changed)
    rows = diff_runs(store, "a", store, "b")["rows"]
    assert rows[:2] == [
        {"what": "recipe loop.rounds", "left": "2", "right": "1"}, {"what": "recipe seed", "left": "0", "right": "3"},
    ]  # fmt: skip
    assert rows[2]["what"].startswith("attempt ") and rows[-1]["what"] == "score of tasks solved"


async def test_scores_of_the_arms_are_compared(store):
    await learned(store, "good")

    def knows_one_less(messages, index, seed):
        text = tiny_reply(messages, index, seed)
        return "I forgot" if "candle" in messages[-1].content and text.startswith("The code") else text

    await scored(store, "a", "good")
    await scored(store, "b", "good", knows_one_less)
    await scored(store, "c", "good")
    assert diff_runs(store, "a", store, "c")["equal"]
    rows = diff_runs(store, "a", store, "b")["rows"]
    assert {"what": "score of memory", "left": "100.0 %", "right": "87.5 %"} in rows
    assert not any("score of retry" in r["what"] for r in rows)
    rows = diff_runs(store, "a", store, "good")["rows"]
    assert {"what": "score of memory", "left": "100.0 %", "right": "not scored"} in rows
