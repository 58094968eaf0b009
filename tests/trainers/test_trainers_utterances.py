"""Rows of utterances: what was said in its place, one reward, and what is no row."""

from __future__ import annotations

import pytest

from verbal.errors import TrainError
from verbal.recipe import load_recipe
from verbal.run import learn, open_workshop
from verbal.testing import temporary_store
from verbal.trainers.attempts import Selection
from verbal.trainers.rows import build
from verbal.types import Attempt, Feedback, Message, Step, Task


async def test_utterances_of_a_run_become_rows_with_one_reward_each() -> None:
    with temporary_store() as store:
        async with open_workshop(load_recipe("social"), store, run="r") as shop:
            await learn(shop, shop.app.tasks("train")[:6], run="r")
        built = build(store, "utterances", Selection(run="r"))
        said = [(a, i, s) for a in store.attempts("r") for i, s in enumerate(a.steps) if s.author == "policy"]
        rewards = [row.columns["reward"] for row in built.rows]
        assert len(built.rows) == len(said) and 0.0 <= min(rewards) < max(rewards) <= 10.0
        hidden = [t.info["hidden"]["secret"] for t in store.tasks().values()]
        for row in built.rows:
            prompt = row.columns["prompt"]
            assert "<hint" not in prompt[0]["content"], "the prompt is the task's own"
            assert not any(s in prompt[0]["content"] for s in hidden)
            roles = [m["role"] for m in prompt]
            assert roles == ["user", *["assistant", "user"] * (len(roles) // 2)] and row.critic == "utterances"
        first = next(r for r in built.rows if len(r.columns["prompt"]) > 1)
        assert first.columns["completion"][0]["content"] not in first.columns["prompt"][0]["content"]
        with pytest.raises(TrainError, match="no utterance has a reward of the critic 'nobody'"):
            build(store, "utterances", Selection(run="r", critic="nobody"))


def a_talk(store, *parts, split="train"):
    """A conversation whose utterances have these rewards by dimension, or none."""
    task = Task(id="t", kind="social", messages=(Message(role="user", content="Talk."),), split=split)
    steps = []
    for i in range(len(parts)):
        prompt = task.messages
        for step in steps:
            heard = Message(role="user", content=step.observation)
            prompt = (*prompt, Message(role="assistant", content=step.text), heard)
        steps.append(Step(author="policy", text=f"Line {i}.", observation=f"Heard {i}.", prompt=prompt))
    store.put_tasks([task])
    store.start_run("r", {})
    store.put_attempt(Attempt(id="a", run="r", task="t", steps=tuple(steps)))
    store.put_feedback(
        [
            Feedback(attempt="a", critic="utterances", scope=f"step:{i}", parts=p or {}, value=0.0 if p else None,
                     reason="" if p else "not readable", low=-3.0, high=10.0)
            for i, p in enumerate(parts)
        ]
    )  # fmt: skip


def test_golden_rewards_and_a_missing_one_is_no_zero() -> None:
    with temporary_store() as store:
        a_talk(
            store,
            {"goal": 8.0, "knowledge": 0.0},
            None,
            {"goal": -1.0, "knowledge": 5.0},
            {"goal": 3.5, "knowledge": 5.0},
        )
        built = build(store, "utterances", Selection(run="r"))
        assert [r.columns["reward"] for r in built.rows] == [5.0, 5.0, 7.5]
        assert built.filtered == {"utterances could not score": 1}
        assert built.rows[1].columns["prompt"][1:] == [
            {"role": "assistant", "content": "Line 0."}, {"role": "user", "content": "Heard 0."},
            {"role": "assistant", "content": "Line 1."}, {"role": "user", "content": "Heard 1."},
        ]  # fmt: skip
        assert built.rows[0].trace.off_policy == "text only: no token ids were recorded"


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([{"goal": 1.0}, {"goal": 1.0}], "no dimension tells two utterances apart"),
        ([{"goal": 1.0}, {"knowledge": 1.0}], "it is missing, not 0"),
    ],
)
def test_rewards_that_teach_nothing_are_refused(parts, why) -> None:
    with temporary_store() as store:
        a_talk(store, *parts)
        with pytest.raises(TrainError, match=why):
            build(store, "utterances", Selection(run="r"))


def test_held_out_conversations_are_no_rows() -> None:
    with temporary_store() as store:
        a_talk(store, {"goal": 1.0}, {"goal": 2.0}, split="dev")
        with pytest.raises(TrainError):
            build(store, "utterances", Selection(run="r"))


async def test_every_format_of_answers_takes_the_turns_of_a_conversation_in_their_place() -> None:
    with temporary_store() as store:
        async with open_workshop(load_recipe("social"), store, run="r") as shop:
            await learn(shop, shop.app.tasks("train")[:6], run="r")
        attempts = {a.id: a for a in store.attempts("r")}
        tasks = store.tasks()
        for format in ("sft", "kto", "reward"):
            built = build(store, format, Selection(run="r", critic="goal"))
            assert any(len(row.columns["prompt"]) > 1 for row in built.rows), format
            assert built.attempts <= len(attempts)
            for row in built.rows:
                own = [{"role": m.role, "content": m.content} for m in tasks[row.task].messages]
                said = row.columns["prompt"][len(own) :] + row.columns["completion"]
                assert row.columns["prompt"][: len(own)] == own
                talks = [s for i in row.attempts for s in attempts[i].steps if s.author == "policy"]
                assert [m["content"] for m in said if m["role"] == "assistant"][-1] in [s.text.strip() for s in talks]
                lines = "\n".join(attempts[row.attempts[0]].answer.splitlines())
                assert all(m["content"] in lines for m in said if m["role"] == "assistant")
        for row in build(store, "preference", Selection(run="r", critic="goal")).rows:
            assert row.columns["chosen"] != row.columns["rejected"]


def test_pairs_of_two_conversations_part_at_one_turn() -> None:
    with temporary_store() as store:
        task = Task(id="t", kind="social", messages=(Message(role="user", content="Talk."),), split="train")
        store.put_tasks([task])
        store.start_run("r", {})
        for name, second, value in (("a", "Good.", 1.0), ("b", "Bad.", 0.0)):
            steps = [Step(author="policy", text="Hello.", observation="Yes?"), Step(author="policy", text=second)]
            answer = f"ME: Hello.\nTHEM: Yes?\nME: {second}"
            store.put_attempt(Attempt(id=name, run="r", task="t", steps=tuple(steps), answer=answer))
            store.put_feedback([Feedback(attempt=name, critic="goal", value=value)])
        (row,) = build(store, "preference", Selection(run="r")).rows
        assert [m["content"] for m in row.columns["prompt"]] == ["Talk.", "Hello.", "Yes?"]
        assert (row.columns["chosen"][0]["content"], row.columns["rejected"][0]["content"]) == ("Good.", "Bad.")
        kto = {r.columns["completion"][0]["content"]: r for r in build(store, "kto", Selection(run="r")).rows}
        assert set(kto) == {"Good.", "Bad."}, "the turn that both have is neither right nor wrong"
        with pytest.raises(TrainError, match="what several turns came to"):
            build(store, "privileged", Selection(run="r"))
