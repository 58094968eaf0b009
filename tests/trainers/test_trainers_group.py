"""Group methods on rollouts of our own loop: what the trainer is given, what it learns, how it goes on after a kill."""

import os

import pytest

from verbal.contracts import Method
from verbal.errors import ConfigError, TrainError
from verbal.parts import make_part
from verbal.store import Store
from verbal.testing import TinyApp, temporary_memory
from verbal.trainers import checkpoint
from verbal.trainers.critique_grpo import CritiqueGRPO
from verbal.trainers.grpo import GRPO

from .group_runs import CODES, chat_model, recipe, rollouts

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

FAST = {"group": 8, "tasks": 4, "learning_rate": 1e-2, "max_tokens": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def examples(tmp_path):
    with Store(tmp_path / "tasks.db") as store:
        store.put_tasks(TinyApp(CODES).tasks("train"))
        return GRPO().examples(store)


def flat(folder):
    from safetensors.torch import load_file

    return load_file(f"{folder}/model.safetensors")


def test_learns_codes_from_verdicts_alone(tiny, examples, tmp_path, capfd):
    method, seen = GRPO(**FAST, steps=40), []
    assert isinstance(method, Method)
    papers = method.train(
        examples, tiny, str(tmp_path / "out"), seed=1, recipe=recipe(), on_progress=lambda *s: seen.append(s)
    )
    assert capfd.readouterr() == ("", "")
    assert papers["reward_first"] < 0.1 < 0.2 < papers["reward_last"]
    assert [s[:2] for s in seen] == [(i, 40) for i in range(1, 41)]
    assert {"loss", "reward", "entropy", "tokens_per_second"} <= set(seen[0][2])
    assert len(papers["curve"]) == papers["steps"] == 40
    assert 0 < papers["generated"] <= 40 * 8 * 4 * 2
    assert checkpoint.read(tmp_path / "out")["method"] == "grpo"
    with Store(tmp_path / "out" / "rollouts.db") as store:
        attempts = store.attempts("rollouts")
        assert len(attempts) == 40 * 8 * 4
        assert all(len(a.steps[0].token_ids) == len(a.steps[0].logprobs) for a in attempts)


@pytest.mark.parametrize("options", [{"save_steps": 2}, {"save_steps": 3, "passes": 2}])
def test_goes_on_after_a_kill_bit_for_bit(tiny, examples, tmp_path, options):
    method = GRPO(**FAST, steps=6, **options)
    whole = method.train(examples, tiny, str(tmp_path / "whole"), seed=3, recipe=recipe())

    def kill(done, total, figures):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=recipe(), on_progress=kill)
    again = method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=recipe(), resume=True)
    timeless = [{k: v for k, v in p.items() if k not in ("tokens_per_second",)} for p in whole["curve"]]
    assert [{k: p[k] for k in timeless[0]} for p in again["curve"]] == timeless
    one, other = flat(tmp_path / "whole"), flat(tmp_path / "cut")
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_checkpoint_of_other_options_is_not_resumed(tiny, examples, tmp_path):
    def kill(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GRPO(**FAST, steps=4, save_steps=1).train(
            examples, tiny, str(tmp_path / "out"), recipe=recipe(), on_progress=kill
        )
    with pytest.raises(TrainError, match="belongs to a run with other rows or options"):
        CritiqueGRPO(**FAST, steps=4, save_steps=1).train(
            examples, tiny, str(tmp_path / "out"), recipe=recipe(), resume=True
        )


def test_equal_rewards_are_refused_early(tiny, examples, tmp_path):
    never = {word: "70707" for word in CODES}
    with pytest.raises(TrainError, match="equal within every group of the first 3 generations"):
        GRPO(**FAST, steps=9, patience=3).train(examples, tiny, str(tmp_path / "out"), recipe=recipe(never))


def test_the_tokens_that_may_be_generated_end_it(tiny, examples, tmp_path):
    papers = GRPO(**FAST, steps=30, max_generated=200).train(examples, tiny, str(tmp_path / "out"), recipe=recipe())
    assert 1 <= papers["steps"] < 10
    assert 200 <= papers["generated"] < 200 + 8 * 4 * 2


def test_lora_trains_and_is_merged(tiny, examples, tmp_path):
    papers = GRPO(**FAST, steps=2, lora_rank=4).train(examples, tiny, str(tmp_path / "out"), recipe=recipe())
    before, after = flat(tiny), flat(tmp_path / "out")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert papers["options"]["lora_rank"] == 4


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"group": 1}, "group is 1"),
        ({"steps": 0}, "steps is 0"),
        ({"micro_batch": 7}, "micro_batch 7 does not divide"),
        ({"grup": 8}, "grup"),
    ],
)
def test_bad_options_are_named(options, what):
    with pytest.raises(ConfigError, match=what):
        make_part("trainers", "grpo", **options)


def test_tasks_the_app_does_not_have_are_refused(tiny, examples, tmp_path):
    with pytest.raises(TrainError, match=r"cannot be attempted, such as 'train-basket'"):
        GRPO(**FAST).train(examples, tiny, str(tmp_path / "out"), recipe=recipe({"anchor": "3"}))


# rollouts ------------------------------------------------------------------------------------------------------------


def guess(messages, index, seed):
    return f"{((seed or 0) + index) % 7}"


def test_groups_are_the_same_whenever_a_step_is_run(tmp_path):
    with rollouts(tmp_path / "a", guess) as one, rollouts(tmp_path / "b", guess) as other:
        first = one.run(one.groups(4, ["train-anchor"], 6))
        assert [m.attempt.answer for m in first[0]] == [
            m.attempt.answer for m in other.run(other.groups(4, ["train-anchor"], 6))[0]
        ]
        assert [m.attempt.id for m in one.run(one.groups(4, ["train-anchor"], 6))[0]] == [
            m.attempt.id for m in first[0]
        ]
        assert len({m.attempt.answer for m in first[0]}) > 1
        assert [m.attempt.answer for m in one.run(one.groups(5, ["train-anchor"], 6))[0]] != [
            m.attempt.answer for m in first[0]
        ]
        assert {m.value for m in first[0]} <= {0.0, 1.0}


async def lessons(path):
    async with temporary_memory(["the code of anchor is 3"], store=Store(path), name="known", quarantine=False):
        pass


def test_prompts_of_rollouts_can_show_a_memory(tmp_path):
    import asyncio

    asyncio.run(lessons(tmp_path / "m.db"))
    with rollouts(tmp_path / "r", guess, tasks=["train-anchor"], memory=f"{tmp_path / 'm.db'}#known") as made:
        (group,) = made.run(made.groups(0, ["train-anchor"], 2))
        assert "the code of anchor is 3" in group[0].attempt.steps[0].prompt[-1].content
        assert made.row(group[0]).tokens.prompt == made.weights.prompt_ids(
            [{"content": m.content} for m in group[0].attempt.steps[0].prompt]
        )


def test_a_loss_that_is_no_number_keeps_its_rows(tiny, examples, tmp_path, monkeypatch):
    import json

    from verbal.trainers.group import GroupTrainer

    def broken(self, model, inputs):
        return (model(inputs["completion_ids"]).logits * float("nan")).sum()

    monkeypatch.setattr(GroupTrainer, "_compute_loss", broken)
    with pytest.raises(TrainError, match="the loss became nan at step 1 of 3") as failed:
        GRPO(**FAST, steps=3).train(examples, tiny, str(tmp_path / "out"), recipe=recipe())
    kept = json.loads((tmp_path / "out" / "offending_batch.json").read_text())
    assert "offending_batch.json" in failed.value.where
    assert len(kept["rows"]) == 32
    assert "What is the code of" in kept["rows"][0]["prompt_text"]


def test_memory_that_is_out_says_what_to_lower(tiny, examples, tmp_path, monkeypatch):
    from verbal.trainers.group import GroupTrainer

    def full(self, model, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(GroupTrainer, "_compute_loss", full)
    with pytest.raises(TrainError, match="memory ran out") as failed:
        GRPO(**FAST, steps=3).train(examples, tiny, str(tmp_path / "out"), recipe=recipe())
    assert "lower max_tokens to 1" in failed.value.todo
    assert "gradient_checkpointing" in failed.value.todo


def test_a_state_before_the_first_checkpoint_keeps_what_was_paid(tiny, examples, tmp_path):
    method = GRPO(**FAST, steps=4)
    whole = method.train(examples, tiny, str(tmp_path / "whole"), seed=3, recipe=recipe())

    def kill(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=recipe(), on_progress=kill)
    with Store(tmp_path / "cut" / "rollouts.db") as store:
        paid = sum(used.calls for used in store.usage("rollouts").values())
    again = method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=recipe(), resume=True)
    with Store(tmp_path / "cut" / "rollouts.db") as store:
        assert sum(used.calls for used in store.usage("rollouts").values()) == 2 * paid, "two steps of four were paid"
    assert again["generated"] == whole["generated"]
    assert [p["generated"] for p in again["curve"]] == [p["generated"] for p in whole["curve"]]


def test_a_training_that_has_learned_may_go_on_with_equal_rewards(tiny, examples, tmp_path):
    from types import SimpleNamespace

    from verbal.trainers.group import Batch, Watch

    def batch(*scores):
        values = torch.tensor(scores)
        return Batch(values, torch.zeros(len(scores)), torch.ones(len(scores), 1), ("initial",) * len(scores),
                     torch.zeros(len(scores)))  # fmt: skip

    trainer = SimpleNamespace(method=GRPO(patience=2), rollouts=SimpleNamespace(generated=7))
    first = Watch(trainer, None)
    first.saw(batch(0.0, 1.0))
    again = Watch(trainer, None)
    again.load(first.state())
    for _ in range(5):
        again.saw(batch(1.0, 1.0))
    fresh = Watch(trainer, None)
    with pytest.raises(TrainError, match="equal within every group of the first 2"):
        for _ in range(2):
            fresh.saw(batch(1.0, 1.0, float("nan")))  # a row without a score is no difference


def test_groups_without_a_row_are_filled_by_those_of_other_tasks():
    from verbal.trainers.group import _filled
    from verbal.trainers.rollouts import Sampled
    from verbal.trainers.weights import Tokens

    row = Sampled(Tokens([1], [2, 3], [1, 1], None), 1.0)
    rows = _filled([[], [row]], 2, ["a", "b"])
    assert [r.kind for r in rows] == ["filler", "filler", "initial", "filler"]
    assert all(r.tokens.mask == [0] and r.reward is None for r in rows if r.kind == "filler")
    with pytest.raises(TrainError, match="no attempt at 2 tasks has a reply"):
        _filled([[], []], 2, ["a", "b"])


def test_papers_of_rewards_name_the_gold_that_decided_them(tiny, examples, tmp_path):
    papers = GRPO(**FAST, steps=1).train(examples, tiny, str(tmp_path / "out"), recipe=recipe())
    assert papers["oracle_rows"] == papers["rows"] == 4
    assert papers["models"] == [tiny]
    assert papers["critics"][0].endswith(":TinyCritic")


def test_several_turns_and_cut_replies_are_not_moved_under_another_prompt(tmp_path):
    from verbal.trainers.rollouts import Made
    from verbal.types import StopReason

    with rollouts(tmp_path, guess, tasks=["train-anchor"]) as made:
        (group,) = made.run(made.groups(0, ["train-anchor"], 1))
        attempt = group[0].attempt
        prompt, messages = made.row(group[0]).tokens.prompt, attempt.steps[0].prompt
        assert made.moved(prompt, messages, group[0], "refined") is not None
        for other in (attempt.replace(steps=attempt.steps * 2), attempt.replace(stop=StopReason.LENGTH)):
            assert made.moved(prompt, messages, Made(other, 1.0), "refined") is None


def test_limits_may_be_raised_when_a_training_goes_on(tiny, examples, tmp_path):
    import dataclasses

    from verbal.recipe import LimitsTable

    def kill(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    method = GRPO(**FAST, steps=3, save_steps=1)
    with pytest.raises(KeyboardInterrupt):
        method.train(examples, tiny, str(tmp_path / "out"), recipe=recipe(), on_progress=kill)
    more = dataclasses.replace(recipe(), limits=LimitsTable(max_calls=10_000))
    assert method.train(examples, tiny, str(tmp_path / "out"), recipe=more, resume=True)["steps"] == 3
