"""Critique-GRPO: who is written again, what the second try reads, which row joins the group."""

import os

import pytest

from verbal.errors import ConfigError
from verbal.store import Store
from verbal.testing import TinyApp
from verbal.trainers.critique_grpo import CritiqueGRPO

from .group_runs import CODES, chat_model, recipe, rollouts

os.environ["HF_HUB_OFFLINE"] = "1"
pytest.importorskip("torch")
pytest.importorskip("trl")


def heeds(messages, index, seed):
    """Knows nothing, but reads what it is told."""
    _, told, rest = messages[-1].content.partition("The right answer is: ")
    return rest.split("<")[0] if told else f"{40 + index}"


def sampled(tmp_path, reply, tasks=("train-anchor", "train-basket"), **options):
    method = CritiqueGRPO(group=4, tasks=2, **options)
    with rollouts(tmp_path, reply, tasks=tasks) as made:
        return made, made.run(method.sample(made, list(made.tasks), 0))


@pytest.mark.parametrize("trigger", ["all_wrong", "wrong_only", "always"])
def test_one_refined_row_joins_a_group_that_failed(tmp_path, trigger):
    made, groups = sampled(tmp_path, heeds, critique="answer", trigger=trigger)
    for group in groups:
        assert [row.kind for row in group] == ["initial"] * 3 + ["refined"]
        assert [row.reward for row in group] == [0.0, 0.0, 0.0, 1.0]
        assert len({tuple(row.tokens.prompt) for row in group}) == 1, "all stand under the bare prompt"
        words = set(made.weights.answer_ids([], "The right answer is:"))
        assert not words & {*group[-1].tokens.prompt, *group[-1].tokens.completion} - {1}
        assert group[-1].tokens.logprobs is None


def test_a_group_with_a_right_answer_gets_one_answer_more(tmp_path):
    def luck(messages, index, seed):
        return "3" if "anchor" in messages[-1].content and index == 1 else heeds(messages, index, seed)

    _, (anchor, basket) = sampled(tmp_path, luck, critique="answer")
    assert [row.kind for row in anchor] == ["initial"] * 4
    assert [row.kind for row in basket] == ["initial"] * 3 + ["refined"]


def test_a_refinement_that_speaks_of_the_critique_is_dropped(tmp_path):
    def echoes(messages, index, seed):
        said = heeds(messages, index, seed)
        return f"as the critique says {said}" if "The right" in messages[-1].content else said

    _, groups = sampled(tmp_path, echoes, critique="answer")
    assert [[row.kind for row in group] for group in groups] == [["initial"] * 4] * 2


def test_words_that_give_the_answer_away_are_not_shown(tmp_path):
    heard = []

    def reply(messages, index, seed):
        text = messages[-1].content
        if "# Role: reflector" in text:
            return "the code of anchor is 3"
        heard.extend([text] if "<hint" in text else [])
        return heeds(messages, index, seed)

    sampled(tmp_path, reply, ["train-anchor"], critique="words")
    assert heard
    assert all("wrong: 4" in text and "code of anchor is" not in text for text in heard)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("indicative", "The answer is correct.", "The answer is incorrect."),
        (
            "answer",
            "The answer is correct. The right answer is: 3",
            "The answer is incorrect. The right answer is: 3",
        ),
        ("words", "The answer is correct. The right answer is: 3", "The answer is incorrect."),
    ],
)
def test_the_three_kinds_of_critique(tmp_path, kind, right, wrong):
    def reply(messages, index, seed):
        return "none" if "# Role: reflector" in messages[-1].content else "3" if index == 0 else "4"

    with rollouts(tmp_path, reply, tasks=["train-anchor"]) as made:
        (group,) = made.run(made.groups(0, ["train-anchor"], 2))
        method, context = CritiqueGRPO(critique=kind), made.context(0)
        assert [m.value for m in group] == [1.0, 0.0]
        assert [r.text for r in made.run(method.words(made, context, group[0]))] == [right]
        told = [r.text for r in made.run(method.words(made, context, group[1]))]
        assert told[-1] == wrong or told == ["wrong: 4"]


def test_which_refinement_is_taken():
    from verbal.trainers.rollouts import Made

    made = [Made(None, value) for value in (0.0, 1.0, 0.0, 1.0)]
    assert CritiqueGRPO().select(made) is made[1]
    made = [Made(None, value) for value in (0.2, 0.7, 0.0, None)]
    assert CritiqueGRPO().select(made) is made[1]
    assert CritiqueGRPO().select([]) is None


def test_critique_grpo_trains_a_chat_model_end_to_end(tmp_path):
    method = CritiqueGRPO(
        group=4, tasks=4, max_tokens=2, device="cpu", steps=12, critique="indicative", trigger="wrong_only"
    )
    with Store(tmp_path / "tasks.db") as store:
        store.put_tasks(TinyApp(CODES).tasks("train"))
        examples = method.examples(store)
    model = chat_model(tmp_path / "chat")
    papers = method.train(examples, model, str(tmp_path / "out"), seed=1, recipe=recipe())
    assert papers["steps"] == 12
    with Store(tmp_path / "out" / "rollouts.db") as store:
        assert any(a.round == 1 for a in store.attempts("rollouts"))


@pytest.mark.parametrize("option", [{"beta": 0.1}, {"loss": "bnpo"}, {"clip_high": 0.3}])
def test_options_that_its_own_loss_lacks_are_refused(option):
    with pytest.raises(ConfigError, match="its own loss has none of these"):
        CritiqueGRPO(**option)
