"""PaVeRL-SQL's CoT-RL by recipe: partial match as reward, schedule and KL, stage 2 from the best weights."""

import dataclasses
import json
import os
import sqlite3
from contextlib import closing

import pytest

from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.store import Store
from verbal.testing import TinyApp
from verbal.trainers.grpo import GRPO

from .group_runs import CODES, TEMPLATE, chat_model, recipe

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

SAID = {
    "SELECT id, name FROM emp": 1.0,
    "SELECT id FROM emp ORDER BY id": 0.5,
    "SELECT 1 WHERE 1 = 2 LIMIT 5": 0.05,
    "SELECT nothing FROM emp": 0.0,
    "DELETE FROM emp WHERE id = 1": 0.0,
}
"""Queries and a tenth of their reward, as in tests/apps/test_text2sql_cot_rl.py."""
SMALL = {"tasks": 2, "micro_batch": None, "learning_rate": 2e-2, "max_tokens": 2, "device": "cpu", "validate": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A database and a file of questions about it."""
    folder = tmp_path_factory.mktemp("world")
    with closing(sqlite3.connect(folder / "emp.sqlite")) as made:
        made.execute("CREATE TABLE emp (id INTEGER, name TEXT, dept TEXT)")
        made.executemany("INSERT INTO emp VALUES (?, ?, ?)", [(1, "Ann", "A"), (2, "Bob", "A"), (3, "Cid", "B")])
        made.commit()
    asked = [("Who works here?", "train"), ("List all of them.", "train"), ("Which people are there?", "dev")]
    lines = [{"question": q, "sql": "SELECT id, name FROM emp", "split": split} for q, split in asked]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A random Llama whose tokens are whole answers, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("speaker")
    words = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>", *(f"```sql\n{sql}\n```" for sql in SAID)]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=1024, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def staged(name, world, **options):
    """The recipe of a stage over that world, and its method with other options."""
    plan = load_recipe(name)
    places = {"db": str(world / "emp.sqlite"), "questions": str(world / "questions.jsonl"), "workers": 1}
    plan = dataclasses.replace(plan, app=dataclasses.replace(plan.app, options=places))
    return plan, make_part("trainers", plan.trainer.name, **plan.trainer.options | SMALL | options)


def examples_of(world, folder):
    app = make_part("apps", "text2sql", db=str(world / "emp.sqlite"), questions=str(world / "questions.jsonl"))
    with Store(folder / "tasks.db") as store:
        store.put_tasks(app.tasks("train"))
        return GRPO().examples(store)


def flat(folder):
    from safetensors.torch import load_file

    return load_file(f"{folder}/model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_two_stages_learn_from_partial_match(speaker, world, tmp_path):
    examples = examples_of(world, tmp_path)
    plan, method = staged("cot_rl", world, steps=12, save_steps=4)
    papers = method.train(examples, speaker, str(tmp_path / "one"), recipe=plan)
    assert papers["reward_first"] + 0.1 < papers["reward_last"]
    with Store(tmp_path / "one" / "rollouts.db") as store:
        made = {a.id: a.answer for a in store.attempts()}
        values = {(made[i], f.value) for i, notes in store.feedback(made).items() for f in notes}
    assert {f for f in values if f[0] in SAID} <= set(SAID.items())
    assert {1.0, 0.5, 0.05, 0.0} <= {value for _, value in values}
    assert [step for step, _ in papers["validated"]] == [4, 8, 12]
    best = max(value for _, value in papers["validated"])
    assert papers["best_value"] == best
    assert papers["best_step"] == next(step for step, value in papers["validated"] if value == best)
    assert {"kl", "reward"} <= set(papers["curve"][-1])

    plan, method = staged("cot_rl_2", world, steps=1, learning_rate=1e-9)
    again = method.train(examples, str(tmp_path / "one"), str(tmp_path / "two"), recipe=plan)
    assert again["base"] == str(tmp_path / "one") and again["best_value"] == best


def test_the_recipes_say_what_the_paper_does():
    first, second = (load_recipe(name) for name in ("cot_rl", "cot_rl_2"))
    assert first.critics == second.critics and first.critics.verdict == "partial_match"
    one, two = (make_part("trainers", r.trainer.name, **r.trainer.options) for r in (first, second))
    assert (one.group, one.temperature, one.beta, one.clip, one.scale, one.loss) == (
        10,
        0.8,
        0.04,
        0.2,
        "group",
        "bnpo",
    )
    assert (one.kl_correction, one.entropy, one.max_tokens, one.learning_rate) == (False, 0.0, 2048, 1e-6)
    assert two.learning_rate < one.learning_rate
    assert dataclasses.replace(two, learning_rate=one.learning_rate) == one


def test_schedule_and_kl_reach_trl(tmp_path):
    from verbal.trainers.learn import config_of
    from verbal.trainers.weights import open_weights

    options = load_recipe("cot_rl").trainer.options
    weights = open_weights(chat_model(tmp_path / "chat"))
    config = config_of(GRPO(**options), weights, tmp_path / "state", 40, seed=0, half=False)
    assert (config.lr_scheduler_type.value, config.lr_scheduler_kwargs) == ("cosine_with_min_lr", {"min_lr_rate": 0.1})
    assert (config.use_bias_correction_kl, config.beta, config.num_generations) == (False, 0.04, 10)
    assert GRPO().kl_correction is True

    from transformers import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = get_scheduler(
        config.lr_scheduler_type, optimizer, 0, 10, scheduler_specific_kwargs=config.lr_scheduler_kwargs
    )
    rates = []
    for _ in range(10):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates[-1] == pytest.approx(0.1) and sorted(rates, reverse=True) == rates


def test_the_first_of_equal_weights_is_kept_and_found_again_after_a_kill(tmp_path):
    tiny = chat_model(tmp_path / "chat")
    with Store(tmp_path / "tasks.db") as store:
        store.put_tasks(TinyApp(CODES).tasks("train"))
        examples = GRPO().examples(store)
    plan = recipe({word: "70707" for word in CODES})  # nothing is ever right, so all weights are equally good
    fast = {"group": 2, "tasks": 2, "learning_rate": 1e-2, "max_tokens": 2, "device": "cpu"}

    def train(name, steps, on_progress=None, resume=False, **options):
        method = GRPO(**fast, steps=steps, **options)
        folder = str(tmp_path / name)
        return method.train(examples, tiny, folder, recipe=plan, on_progress=on_progress, resume=resume)

    train("two", 2)
    papers = train("best", 5, validate=3, save_steps=2)
    assert (papers["best_step"], papers["validated"]) == (2, [[2, 0.0], [4, 0.0], [5, 0.0]])
    assert same(flat(tmp_path / "two"), flat(tmp_path / "best"))

    def kill(done, total, figures):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("cut", 5, kill, validate=3, save_steps=2)
    assert train("cut", 5, resume=True, validate=3, save_steps=2)["validated"] == papers["validated"]
    assert same(flat(tmp_path / "two"), flat(tmp_path / "cut"))
