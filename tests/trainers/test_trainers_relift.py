"""ReLIFT: which questions are hard, when demonstrations are imitated, and that it goes on after a kill bit for bit."""

import copy
import dataclasses
import itertools
import os
from types import SimpleNamespace

import pytest

from verbal.errors import ConfigError, TrainError
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.store import Store
from verbal.testing import TinyApp
from verbal.trainers.grpo import GRPO
from verbal.trainers.relift import ReLIFT

from .attempt_stores import fenced, filled, make_attempt, make_task
from .group_runs import CODES, chat_model, recipe

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

FAST = {"group": 4, "tasks": 2, "learning_rate": 1e-2, "max_tokens": 2, "device": "cpu"}
NEVER = {word: "70707" for word in CODES}
"""Codes that two tokens cannot say: every question is hard."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def examples(tmp_path):
    """Four tasks, three of them with a demonstration."""
    with Store(tmp_path / "tasks.db") as store:
        store.put_tasks(TinyApp(CODES).tasks("train"))
        rows = GRPO().examples(store)
    return [shown(row, CODES[row.task.removeprefix("train-")]) if "dagger" not in row.task else row for row in rows]


def shown(row, text):
    said = [{"role": "assistant", "content": text}]
    return dataclasses.replace(row, columns={**row.columns, "demonstration": said})


class Held(ReLIFT):
    """ReLIFT that lets a test see its trainer and what makes its supervised steps."""

    def callbacks(self, trainer):
        made = super().callbacks(trainer)
        SEEN.trainer, SEEN.lift = trainer, made[0]
        return made


SEEN = SimpleNamespace()


def held(tiny, examples, tmp_path, codes=CODES, on_progress=None, **options):
    """The papers of a run that `SEEN` shows afterwards."""
    method = Held(**FAST | options)
    return method.train(examples, tiny, str(tmp_path / "out"), recipe=recipe(codes), on_progress=on_progress)


def flat(folder):
    from safetensors.torch import load_file

    return load_file(f"{folder}/model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# which questions are hard, and when they are learned ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "hard"),
    [([0] * 8, True), ([0] * 7 + [1], False), ([1] * 8, False), ([-1] * 8, False), ([0.5] * 8, False), ([], False)],
)
def test_a_question_is_hard_when_its_whole_group_failed(rewards, hard):
    assert ReLIFT().is_hard(rewards) is hard
    assert ReLIFT(fail=0.5).is_hard([0.5, 0.0]) is True


def test_a_hard_question_waits_once_and_leaves_when_solved(tiny, examples, tmp_path):
    from verbal.trainers.group import Batch

    held(tiny, examples, tmp_path, steps=1, buffer=128)
    lift = SEEN.lift
    lift.memory["buffer"], lift.memory["hard_questions"] = [], []

    def batch(*groups):
        scores = torch.tensor([r for _, rewards in groups for r in rewards])
        tasks = tuple(task for task, rewards in groups for _ in rewards)
        numbers = torch.arange(len(groups)).repeat_interleave(len(groups[0][1]))
        ones = torch.ones(len(tasks), 1)
        return Batch(scores, numbers, ones, ("initial",) * len(tasks), torch.zeros(len(tasks)), tasks=tasks)

    none, nan = [0.0] * 4, float("nan")
    assert lift.note(batch(("train-anchor", none), ("train-basket", [0.0, 0.0, 0.0, 1.0])), 1) == 1
    assert lift.memory["buffer"] == ["train-anchor"]
    assert lift.note(batch(("train-anchor", none), ("train-candle", [0.0, nan, 0.0, nan])), 2) == 2
    assert lift.memory["buffer"] == ["train-anchor", "train-candle"]
    before = lift.memory["without_demonstration"]
    assert lift.note(batch(("train-dagger", none), ("train-basket", [nan] * 4)), 3) == 1
    assert (len(lift.memory["buffer"]), lift.memory["without_demonstration"]) == (2, before + 1)
    assert lift.note(batch(("train-anchor", [0.0, 1.0, 1.0, 1.0])), 4) == 0
    assert (lift.memory["buffer"], lift.memory["solved_meanwhile"]) == (["train-candle"], 1)
    assert lift.memory["hard_questions"] == [
        ["train-anchor", 1], ["train-anchor", 2], ["train-candle", 2], ["train-dagger", 3],
    ]  # fmt: skip


def test_a_full_buffer_makes_one_step_and_the_oldest_leave(tiny, examples, tmp_path):
    held(tiny, examples, tmp_path, steps=1, buffer=128, sft_micro_batch=64)
    lift = SEEN.lift
    row = lift.shown["train-anchor"]
    lift.shown = {f"q{i}": row for i in range(300)}
    for waiting, left, steps in ((150, 22, 1), (300, 172, 2), (127, 127, 2), (0, 0, 2)):
        lift.memory["buffer"] = [f"q{i}" for i in range(waiting)]
        lift.on_step_end(None, SimpleNamespace(global_step=2), None)
        assert lift.memory["buffer"] == [f"q{i}" for i in range(waiting - left, waiting)]
        assert lift.memory["supervised_steps"] == steps
    assert lift.memory["supervised_rows"] == 256


# what a supervised step does ------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_target_tokens():
    from verbal.trainers.lift import Shown, padded, supervised

    ids, _seen, mask = padded([Shown([4, 4], [1, 2])], 0)
    logits = torch.full((1, 4, 5), -30.0)
    for place, token, p in ((1, 1, 0.5), (2, 2, 0.25)):
        logits[0, place] = torch.tensor([(1 - p) / 4] * 5).log()
        logits[0, place, token] = torch.tensor(p).log()
    logits.requires_grad_()
    loss, plain = supervised(logits, ids, mask, 2, 0.0)
    assert float(loss.detach()) == pytest.approx(1.039721, abs=1e-6) == plain
    loss.backward()
    assert logits.grad[0, [0, 3]].abs().sum() == 0 < logits.grad[0, 1].abs().sum()
    bonus = plain - float(supervised(logits, ids, mask, 2, 0.1)[0].detach())
    assert 0 < bonus < 0.1 * 1.61


def test_micro_batches_are_normalised_by_all_tokens():
    from verbal.trainers.lift import supervised

    def part(tokens, loss):
        p = torch.tensor(loss).neg().exp()
        logits = torch.stack([p, (1 - p) / 2, (1 - p) / 2]).log().expand(1, tokens + 1, 3)
        mask = torch.ones(1, tokens + 1, dtype=torch.long)
        return supervised(logits, torch.zeros(1, tokens + 1, dtype=torch.long), mask, 4, 0.0)[1]

    assert part(1, 2.0) + part(3, 1.0) == pytest.approx(1.25)  # a mean of means would be 1.5


def test_a_demonstration_counts_up_to_the_token_that_ends_it():
    from verbal.trainers.lift import Shown, padded

    ids, seen, mask = padded([Shown([], [5, 6, 7, 8, 9, 1])], 0, 8)
    assert mask.tolist() == seen.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]
    assert ids.tolist() == [[5, 6, 7, 8, 9, 1, 0, 0]]


def test_a_group_that_failed_gives_no_gradient(tiny, examples, tmp_path):
    papers = held(tiny, examples, tmp_path, NEVER, steps=2, buffer=128, entropy=0.0, weight_decay=0.0)
    assert same(flat(tiny), flat(tmp_path / "out"))
    assert papers["hard_questions"] and papers["supervised_steps"] == 0


def test_what_is_imitated_becomes_likelier_and_moments_stay_apart(tiny, examples, tmp_path):
    moments = []

    def look(done, total, figures):
        state = SEEN.lift.optimizer.state_dict()["state"]
        moments.append((SEEN.lift.memory["supervised_steps"], copy.deepcopy(state)))

    papers = held(tiny, examples, tmp_path, NEVER, look, steps=6, buffer=3)
    assert 0 < papers["supervised_steps"] < 5
    for (steps, before), (later, after) in itertools.pairwise(moments):
        assert (steps == later) is same_state(before, after)
    lift, trainer = SEEN.lift, SEEN.trainer
    rows = {task: row for task, row in lift.shown.items()}
    ours = copy.deepcopy(trainer.optimizer.state_dict()["state"])
    lift.optimizer.param_groups[0]["lr"] = 1e-4
    lift.optimizer.state.clear()
    before = {task: likelihood(trainer.model, row) for task, row in rows.items()}
    lift.memory["buffer"] = list(rows)
    lift.learn()
    assert all(likelihood(trainer.model, row) > before[task] for task, row in rows.items())
    assert same_state(ours, trainer.optimizer.state_dict()["state"])


def same_state(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(one[i][k]), torch.as_tensor(other[i][k])) for i in one for k in one[i]
    )


def likelihood(network, row):
    from verbal.trainers.lift import padded

    ids, _, mask = padded([row], 0)
    with torch.no_grad():
        logps = network(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return float((logps * mask[:, 1:]).sum())


# whole runs -----------------------------------------------------------------------------------------------------------


def timeless(papers):
    return [{k: v for k, v in p.items() if k not in ("tokens_per_second", "generated")} for p in papers["curve"]]


def test_without_a_buffer_it_is_grpo_bit_for_bit(tiny, examples, tmp_path):
    plain = GRPO(**FAST, steps=3).train(examples, tiny, str(tmp_path / "grpo"), seed=2, recipe=recipe())
    off = ReLIFT(**FAST, steps=3, buffer=-1).train(examples, tiny, str(tmp_path / "off"), seed=2, recipe=recipe())
    assert timeless(plain) == timeless(off)
    assert same(flat(tmp_path / "grpo"), flat(tmp_path / "off"))
    assert not same(flat(tmp_path / "grpo"), flat(tiny))


def test_it_goes_on_after_a_kill_bit_for_bit(tiny, examples, tmp_path):
    method, waiting = ReLIFT(**FAST, steps=7, buffer=3, save_steps=1), []
    whole = method.train(
        examples, tiny, str(tmp_path / "whole"), seed=3, recipe=recipe(),
        on_progress=lambda done, total, figures: waiting.append(figures["buffered"]),
    )  # fmt: skip
    passes = [i for i, point in enumerate(whole["curve"], 1) if "sft_loss" in point]
    at = next(i for i in range(passes[0], 6) if waiting[i - 1] > 0)

    def kill(done, total, figures):
        if done == at + 1:  # what was saved last is the step before, with questions in the buffer
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=recipe(), on_progress=kill)
    kept = torch.load(tmp_path / "cut" / "resume" / f"checkpoint-{at}" / "method.pt", weights_only=True)["memory"]
    assert kept["lift"]["buffer"] and kept["optimizer"]["state"]
    again = method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=recipe(), resume=True)
    assert timeless(again) == timeless(whole) and len(passes) > 1
    assert same(flat(tmp_path / "whole"), flat(tmp_path / "cut"))
    assert again["hard_questions"] == whole["hard_questions"]
    assert again["supervised_rows"] == whole["supervised_rows"] == 3 * len(passes)


def test_long_demonstrations_are_left_out_and_counted(tiny, examples, tmp_path):
    long = [shown(row, "3 3 3") if "anchor" in row.task else row for row in examples]
    papers = held(tiny, long, tmp_path, steps=1, buffer=2)
    assert (papers["demonstrations"], papers["demonstrations_left_out"]) == (2, {"too long": 1})
    with pytest.raises(TrainError, match=r"no demonstration can be learned from \(too long: 4\)"):
        held(tiny, [shown(row, "3 3 3") for row in examples], tmp_path, steps=1)


def test_a_demonstration_of_another_kind_than_a_group_is_refused_before_torch(tiny, examples, tmp_path):
    bare = [dataclasses.replace(row, columns={"prompt": row.columns["prompt"]}) for row in examples]
    with pytest.raises(TrainError, match="none of 4 tasks has a demonstration"):
        ReLIFT().train(bare, tiny, str(tmp_path / "out"), recipe=recipe())
    assert not (tmp_path / "out").exists()


def test_rows_filled_on_the_left_share_their_beginning(tiny):
    from verbal.trainers.prefix import sharing
    from verbal.trainers.weights import open_weights

    network = open_weights(tiny).network
    start, ends = [5 + i % 20 for i in range(40)], [[7], [8, 9, 10], [11, 12]]
    ids = torch.tensor([[0] * (3 - len(end)) + start + end + [3, 1] for end in ends])
    seen = torch.tensor([[0] * (3 - len(end)) + [1] * (42 + len(end)) for end in ends])

    def run():
        network.zero_grad()
        logits = network(input_ids=ids, attention_mask=seen, use_cache=False).logits[seen.bool()]
        logits.log_softmax(-1)[:, 3].sum().backward()
        return logits, network.model.layers[0].self_attn.k_proj.weight.grad.clone()

    plain = run()
    with sharing(network):
        shared = run()
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(plain, shared, strict=True))


# rows -----------------------------------------------------------------------------------------------------------------


def test_rows_carry_tasks_and_where_there_is_one_a_demonstration(tmp_path):
    tasks = [make_task("t1"), make_task("t2"), make_task("t3", split="test"), make_task("t4")]
    tries = [
        (make_attempt(tasks[0], 0, "SELECT 1"), 0.0),
        (make_attempt(tasks[0], 1, "SELECT 2", hints={"h": "look"}), 1.0),
        (make_attempt(tasks[1], 0, "SELECT 1"), 0.0),
        (make_attempt(tasks[3], 0, "SELECT 4", hints={"h": "look"}), 1.0),
    ]
    store = filled(tmp_path, tasks, tries)
    one, two, three = ReLIFT().examples(store, run="r")
    assert three.columns["demonstration"] == [{"role": "assistant", "content": fenced("SELECT 4")}]
    assert one.columns["demonstration"] == [{"role": "assistant", "content": fenced("SELECT 2")}]
    assert "look" not in str(one.columns) and set(two.columns) == {"prompt"}
    assert (one.task, one.origin, one.attempts) == ("t1", "refined", ("r/main/t1/0.0", "r/main/t1/1.0"))
    assert [row.columns for row in ReLIFT(buffer=-1).examples(store)] == [row.columns for row in GRPO().examples(store)]


def test_no_demonstration_at_all_is_refused_with_what_to_do(tmp_path):
    store = filled(tmp_path, [make_task()], [(make_attempt(make_task(), 0, "SELECT 1"), 0.0)])
    with pytest.raises(TrainError, match=r"no demonstration: .*none has a right answer after words") as error:
        ReLIFT().examples(store)
    assert "sft_then_rl" in error.value.todo


def test_the_recipe_makes_it():
    table = load_recipe("relift").trainer
    assert make_part("trainers", table.name, **table.options) == ReLIFT(buffer=16)
    with pytest.raises(ConfigError, match="buffer is 0"):
        ReLIFT(buffer=0)
