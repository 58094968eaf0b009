"""Multi-Agent Evolve: rewards of three roles, weights within a role, what the buffers keep and who sees it when."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from verbal.contracts import Method
from verbal.errors import ConfigError
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.store import Store
from verbal.testing import TinyApp
from verbal.trainers.mae import MAE, judge_format, near, proposer_reward, role_weights, solver_format

from .group_runs import CODES, chat_model
from .role_parts import AskingApp
from .role_runs import TellingWeights, opened, world

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

TASKS = ["train-anchor", "train-basket", "train-candle"]


# pure ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quality", "rate", "form", "published", "peak"),
    [
        (0.8, 0.4, 1.0, 0.8, 0.92),
        (0.6, 0.1, 1.0, 0.5333, 0.5333),
        (0.7, 1.0, 1.0, 0.5667, 0.5667),
        (0.9, 0.0, 1.0, 0.9667, 0.6333),
        (0.9, 0.5, 0.0, 0.0, 0.0),
    ],
)
def test_what_a_proposal_earns(quality, rate, form, published, peak):
    """Section 10; a question that nobody answers earns most as published, and no difficulty at the peak at 1/2."""
    parts = {"quality": quality, "solve_rate": rate, "format": form}
    assert proposer_reward(parts, "wrongness") == pytest.approx(published, abs=1e-4)
    assert proposer_reward(parts) == pytest.approx(peak, abs=1e-4)
    assert proposer_reward(parts, again=True) == pytest.approx(form / 3 if form else 0.0)


def test_formats_are_told_from_the_completion_alone():
    app = AskingApp(CODES)
    assert [judge_format(app, t) for t in ("0.8", "0.8\n0.9", "fine", "")] == [1.0, 0.5, 0.0, 0.0]
    fence = "```\n5\n```"
    assert [solver_format(app, t) for t in ("5", fence, fence + "\n" + fence, "five")] == [1.0, 1.0, 0.5, 0.0]


def test_nearly_the_same_question_is_the_same():
    known = [{"question": "How many customers from Berlin are there?"}]
    assert near("how many CUSTOMERS from Berlin, are there", known, 1.0)
    assert not near("How many customers from Porto are there?", known, 0.9)
    assert near("How many customers from Porto are there?", known, 0.7)
    assert not near("", known, 0.9) and not near("anything", [], 0.9)


def batch(scores, kinds, lengths):
    from verbal.trainers.group import Batch

    mask = torch.zeros(len(scores), max(lengths))
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1
    return Batch(
        scores=torch.tensor(scores), groups=torch.zeros(len(scores)), mask=mask, kinds=tuple(kinds),
        pivots=torch.zeros(len(scores)),
    )  # fmt: skip


def test_weights_are_whitened_among_the_tokens_of_a_role():
    nan = float("nan")
    found = role_weights(
        batch([1.0, 0.0, 0.5, nan, nan], ["solver", "solver", "judge", "judge", "filler"], [2, 4, 3, 1, 1])
    )
    assert torch.allclose(found, torch.tensor([1.29099, -0.6455, 0.0, 0.0, 0.0]), atol=1e-4)
    more = role_weights(
        batch([1.0, 0.0, 0.8, 0.3, nan], ["solver", "solver", "judge", "judge", "filler"], [2, 4, 3, 1, 1])
    )
    assert torch.allclose(more[:2], found[:2]), "the rewards of other roles do not matter"
    even = role_weights(batch([1.3, 0.3, 1.3, 0.3], ["proposer"] * 4, [1] * 4))
    assert torch.allclose(even, torch.tensor([0.866, -0.866, 0.866, -0.866]), atol=1e-3)


# rollouts ------------------------------------------------------------------------------------------------------------


class Player:
    """Plays all roles: each proposal asks for a new number, but for the questions it is told to repeat."""

    def __init__(self, quality="0.9", repeat=()):
        self.quality, self.repeat, self.proposed = quality, list(repeat), 0

    def __call__(self, messages, index, seed):
        text = messages[-1].content
        role = re.search(r"# Role: (\w+)", text)[1]
        if role == "proposer":
            self.proposed += 1
            asked = self.repeat.pop(0) if self.repeat else f"question number {self.proposed} of {seed}"
            return f"QUESTION: {asked}\n```\n{self.proposed}\n```"
        if role == "judge":
            return self.quality
        told = re.search(r"number (\d+) of", text)
        return told[1] if told and (seed or 0) % 2 else "0"


def played(folder, player, steps, mute=(), tasks=TASKS, **options):
    method = MAE(solves=2, **options)
    weights = TellingWeights(player, mute)
    with opened(folder, world("Never", "AskingApp", CODES), weights, tasks) as rollouts:
        groups, heard = [], []
        for step in range(steps):
            before = len(weights.heard)
            rollouts.notes.clear()
            groups.append(rollouts.run(method.sample(rollouts, tasks, step)))
            heard.append(weights.heard[before:])
        return rollouts, groups, heard


def asked_of(heard, role):
    return [prompt for prompt, _ in heard if f"# Role: {role}" in prompt]


def test_a_step_has_a_row_of_each_role_and_solvers_see_old_questions_only(tmp_path):
    rollouts, groups, heard = played(tmp_path, Player(), 3)
    kinds = [sorted(row.kind for group in step for row in group) for step in groups]
    assert kinds[0] == ["proposer"] * 3 + ["solver"] * 3, "nothing is there to be judged yet"
    assert kinds[1] == kinds[2] == ["judge"] * 3 + ["proposer"] * 3 + ["solver"] * 3
    assert all(1 <= len(group) <= 3 for step in groups for group in step)
    with Store(tmp_path / "rollouts.db") as store:
        made = store.attempts("rollouts")
        for step in range(3):
            solved = [a.task for a in made if a.arm == f"solve-{step}"]
            assert len(solved) == 3
            assert not any(f"propose-{later}" in task for task in solved for later in range(step, 3))
        assert all(a.steps[0].token_ids for a in made if a.arm.endswith(":proposer"))
    memory = rollouts.memory
    assert len(memory["questions"]) == len(TASKS) + 9
    assert len(memory["pairs"]) == 9
    assert {p["step"] for p in memory["pairs"]} == {0, 1, 2}
    assert all(p["id"] and p["answer"] and p["reward"] is not None for p in memory["pairs"])
    judged = asked_of(heard[2], "judge")
    assert len(judged) == 3 * 3, "one grade for each proposal, one for each answer, one that is trained"
    assert rollouts.notes["kept"] == 3.0 and rollouts.notes["reward_judge"] == 1.0


def test_rewards_of_proposer_and_solver(tmp_path):
    _, [[*groups]], _ = played(tmp_path, Player(), 1)
    rows = [row for group in groups for row in group]
    assert {round(r.reward, 4) for r in rows if r.kind == "solver"} == {0.95}, "grade 0.9 and one answer"
    allowed = {round((0.9 + 4 * s * (1 - s) + 1) / 3, 4) for s in (0.0, 0.5, 1.0)}
    assert {round(r.reward, 4) for r in rows if r.kind == "proposer"} <= allowed


def test_what_is_bad_or_asked_before_is_not_kept(tmp_path):
    rollouts, _, _ = played(tmp_path / "bad", Player(quality="0.6"), 2)
    assert [q["id"] for q in rollouts.memory["questions"]] == TASKS
    again = ["What is the code of anchor now?", "What is the code, of anchor", "something else entirely"]
    rollouts, [[*groups]], _ = played(tmp_path / "again", Player(repeat=again), 1, near=0.8)
    kept = [q for q in rollouts.memory["questions"] if q["id"] not in TASKS]
    assert [q["question"] for q in kept] == ["something else entirely"]
    earned = sorted(round(r.reward, 3) for g in groups for r in g if r.kind == "proposer")
    assert earned[:2] == [0.333, 0.333]


def test_buffers_drop_the_oldest(tmp_path):
    rollouts, _, _ = played(tmp_path, Player(), 2, buffer=4)
    assert len(rollouts.memory["questions"]) == len(rollouts.memory["pairs"]) == 4
    assert [q["step"] for q in rollouts.memory["questions"]] == [0, 1, 1, 1]


def test_a_role_without_tokens_is_left_out_and_counted(tmp_path):
    rollouts, groups, _ = played(tmp_path, Player(), 2, mute=("judge",))
    assert {row.kind for step in groups for group in step for row in group} == {"proposer", "solver"}
    assert rollouts.counts["judge replies without tokens or grade"] == 3
    assert rollouts.counts["proposer rows"] == 6


def test_a_judge_that_is_another_model_is_not_trained(tmp_path):
    plan = world("Never", "AskingApp", CODES)
    judge = f"scripted:{tmp_path / 'judge.jsonl'}"
    (tmp_path / "judge.jsonl").write_text('{"reply": "0.9"}\n')
    plan = dataclasses.replace(plan, model=dataclasses.replace(plan.model, roles={"judge": judge}))
    weights = TellingWeights(Player())
    with opened(tmp_path / "r", plan, weights, TASKS) as rollouts:
        for step in range(2):
            groups = rollouts.run(MAE(solves=2).sample(rollouts, TASKS, step))
    assert {row.kind for group in groups for row in group} == {"proposer", "solver"}
    assert not asked_of(weights.heard, "judge")


def test_the_proposers_own_answer_can_grade(tmp_path):
    _, groups, heard = played(tmp_path, Player(), 3, grader="reference")
    rewards = {round(row.reward, 3) for group in groups[2] for row in group if row.kind == "solver"}
    assert rewards <= {0.5, 0.95, 1.0} and rewards != {0.95}
    assert len(asked_of(heard[2], "judge")) < 9


# training ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("chat"))


def test_training_goes_on_after_a_kill_with_its_buffers(tiny, tmp_path):
    from safetensors.torch import load_file

    with Store(tmp_path / "tasks.db") as store:
        store.put_tasks(TinyApp(CODES).tasks("train"))
        rows = MAE().examples(store)
    method = MAE(tasks=4, steps=4, solves=1, save_steps=1, learning_rate=1e-2, max_tokens=3, device="cpu")
    assert isinstance(method, Method) and isinstance(make_part("trainers", "mae"), Method)
    plan = world("Never", "AskingApp", CODES)
    whole = method.train(rows, tiny, str(tmp_path / "whole"), seed=1, recipe=plan)

    def kill(done, total, figures):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(rows, tiny, str(tmp_path / "cut"), seed=1, recipe=plan, on_progress=kill)
    again = method.train(rows, tiny, str(tmp_path / "cut"), seed=1, recipe=plan, resume=True)
    untimed = ("tokens_per_second", "generated")
    assert [{k: v for k, v in p.items() if k not in untimed} for p in again["curve"]] == [
        {k: v for k, v in p.items() if k not in untimed} for p in whole["curve"]
    ]
    assert {k: again[k] for k in ("questions", "pairs", "counts")} == {
        k: whole[k] for k in ("questions", "pairs", "counts")
    }
    one, other = (load_file(Path(tmp_path / name / "model.safetensors")) for name in ("whole", "cut"))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert whole["counts"]["solver rows"] > 0 and whole["questions"] >= 4


@pytest.mark.parametrize("options", [{"group": 4}, {"solves": 0}, {"near": 0.0}, {"buffer": 0}])
def test_bad_options_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        make_part("trainers", "mae", **options)


def test_its_recipe_names_parts_that_exist():
    assert "trainers mae " in "\n".join(load_recipe("mae").resolve())
