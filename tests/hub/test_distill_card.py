"""The model card, its curves and the recipe in it; what the papers beside weights change, and what the gate records."""

from __future__ import annotations

import io
import json
import os
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from verbal.cache import folder_digest
from verbal.distill_meter import CHARGE_EVERY, Meter
from verbal.distill_plan import RunsOf, make_method, training_recipe
from verbal.errors import BudgetError, ConfigError, StoreError, UnknownName
from verbal.ledger import Ledger, Limits
from verbal.model_card import card, curves, decision_papers, recipe_toml, thinned, write_card
from verbal.recipe import load_recipe, parse_recipe, recipe_names
from verbal.screen import Screen
from verbal.types import Attempt, Group, Task
from verbal.versions import Policy, adopt, declare, make_policy

PAPERS = {
    "name": "mine", "kind": "huggingface", "method": "sft", "base": "Qwen/Qwen2.5-0.5B-Instruct", "seed": 3,
    "rows": 1200, "tasks": 300, "oracle_rows": 900, "rows_sha256": "ab" * 32,
    "runs": ["run", "run:1"], "attempts": ["a", "b"],
    "licences": ["CC-BY-4.0"], "models": ["openai/gpt-5-mini"], "critics": ["sql_result"], "origins": {"sampled": 1200},
    "filtered": {"split dev": 7}, "steps": 40, "versions": {"verbal": "0.1.0", "trl": "1.16.0", "peft": ""},
    "scores": {
        "split": "dev", "app": "text2sql", "tasks": 50, "before": {"mean": 0.2, "low": 0.1, "high": 0.3},
        "after": {"mean": 0.5, "low": 0.4, "high": 0.6}, "gain": {"mean": 0.3, "low": 0.2, "high": 0.4},
    },
    "usage": {"trainer": {"seconds": 75.0, "cost": 0.25}},
    "curve": [{"step": i, "loss": 2 / i, "reward": i / 40, "kl": None} for i in range(1, 41)],
}  # fmt: skip


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_the_same_after_its_card(name):
    recipe = load_recipe(name)
    assert parse_recipe(recipe_toml(recipe.to_dict())).to_dict() == recipe.to_dict()


def test_toml_keeps_odd_values():
    odd = {
        "name": 'a"b\\c\n\x7f\x01 ü', "limits": {"max_cost": 1e-07, "max_tokens": None},
        "app": {"options": {"a key": [1, 2.5, True, "x"], "none": None, "in": {"y": [], "z": {}}}},
    }  # fmt: skip
    read = parse_recipe(recipe_toml(odd))
    assert read.name == odd["name"] and read.limits.max_cost == 1e-07
    assert read.app.options == {"a key": [1, 2.5, True, "x"], "in": {"y": [], "z": {}}}


def test_the_card_tells_what_the_papers_say(tmp_path):
    papers = {**PAPERS, "recipe": load_recipe("sft").to_dict(), "about": {"method": "It imitates.", "source": "A 2026"}}
    text = write_card(tmp_path, papers).read_text()
    head = text.split("---")[1]
    assert 'base_model: "Qwen/Qwen2.5-0.5B-Instruct"' in head and "library_name: transformers" in head
    assert 'tags: ["verbal", "trl", "sft"]' in head
    for words in (
        "1,200 rows", "300 tasks", "ab" * 32, "`run`, `run:1`", "CC-BY-4.0", "openai/gpt-5-mini", "split dev: 7",
        "A 2026", "20.0 % [10.0, 30.0]", "**+30.0** [+20.0, +40.0]", "Not asked yet", "1:15, $0.25", "## Recipe",
        "| trl | 1.16.0 |", "![curves of the training](curves.svg)", "| 40 | 0.05 | 1 |", "900",
    ):  # fmt: skip
        assert words in text, words
    assert "peft" not in text and parse_recipe(text.split("```toml\n")[1].split("```")[0]).name == "sft"
    drawn = ElementTree.parse(tmp_path / "curves.svg").getroot()
    names = [t.text for t in drawn.iter() if t.get("class") == "name"]
    assert names == ["loss", "reward"], "no panel for what has no figures"


def test_a_card_of_little_is_a_card_and_text_of_data_is_shown_not_obeyed():
    assert (
        "# trained weights" in card({})
        and "Not measured" in card({})
        and curves([]) == curves([{"step": 1, "loss": 2}]) == ""
    )
    nasty = "x | `y` <script>\n# no\x1b[31m"
    text = card({**PAPERS, "runs": [nasty], "gates": [{"id": "g", "verdict": "odd", "reason": nasty, "gain": None}]})
    assert "<script>" not in text and "\x1b" not in text and "\n# no" not in text and "**odd**" in text
    assert curves([{"step": i, "loss": float("nan") if i == 2 else 1.0} for i in range(4)]).count("<polyline") == 1


def test_a_card_that_cannot_be_written_leaves_the_old_one(tmp_path):
    old = write_card(tmp_path, {})
    text = old.read_text()
    (tmp_path / "README.md.part").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="No space left on device"):
        write_card(tmp_path, PAPERS)
    assert old.read_text() == text


def test_curves_are_thinned_and_decisions_shortened():
    curve = [{"step": i} for i in range(1000)]
    assert len(thinned(curve)) == 200 and thinned(curve)[0] == {"step": 0} and thinned(curve)[-1] == {"step": 999}
    long = {"id": "gate-1", "verdict": "reject", "gains": [0.1] * 500, "guard": {"passed": False, "order": [1] * 500}}
    assert decision_papers(long) == {"id": "gate-1", "verdict": "reject", "guard": {"passed": False}}


def test_papers_that_grow_change_no_fingerprint_and_weights_do(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    (tmp_path / "README.md").write_text("of a hub")
    plain = folder_digest(tmp_path)
    (tmp_path / "README.md").write_text("other")
    assert folder_digest(tmp_path) != plain, "without papers of ours every file counts"
    (tmp_path / "verbal.json").write_text("{}")
    first = folder_digest(tmp_path)
    for name in ("verbal.json", "README.md", "curves.svg", "rollouts.db"):
        (tmp_path / name).write_text("more")
    assert folder_digest(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert folder_digest(tmp_path) != first


def test_a_candidate_may_have_to_beat_more_than_what_serves_and_the_way_back_is_what_served(store):
    recipe, task = load_recipe("sft"), Task(id="t", kind="text2sql", messages=(), split="dev")
    base, better = make_policy(store, "embedded"), Policy(model="embedded", memory="run", version=0)
    candidate = Policy(model="embedded:w")
    from verbal.gate import Rule

    name, spec = declare(store, recipe, candidate, [task], [], rule=Rule(), seeds=1, budget=None, incumbent=better)
    assert spec["incumbent"] == better.plain() and spec["served"] == base.plain()
    assert declare(store, recipe, candidate, [task], [], rule=Rule(), seeds=1, budget=None, incumbent=better)[0] == name
    other, plain = declare(store, recipe, candidate, [task], [], rule=Rule(), seeds=1, budget=None)
    assert other != name and plain["incumbent"] == base.plain() and "served" not in plain
    for policy in (base, better):
        with pytest.raises(ConfigError, match="serves already"):
            declare(store, recipe, policy, [task], [], rule=Rule(), seeds=1, budget=None, incumbent=better)
    assert adopt(store, name, spec, {"verdict": "accept", "reason": ""}) == 2
    assert [Policy(**v["policy"]) for v in store.versions()] == [base, candidate]


def test_a_view_of_some_runs_holds_theirs_and_the_sealed_tasks(store):
    tasks = [Task(id=f"t{i}", kind="k", messages=(), split="test" if i == 3 else "train") for i in range(4)]
    store.put_tasks(tasks)
    for run, task in (("a", "t0"), ("b", "t1"), ("c", "t2")):
        attempt = Attempt(id=f"{run}/x", run=run, task=task)
        store.put_attempt(attempt)
        store.put_group(run, Group(task=task, attempts=(attempt.id,)))
    view = RunsOf(store, ["a", "b"])
    assert [a.run for a in view.attempts()] == ["a", "b"] and view.attempts("c") == []
    assert [g.task for g in view.groups()] == ["t0", "t1"] and [g.task for g in view.groups("b")] == ["t1"]
    assert view.groups("c") == [] and set(view.tasks()) == {"t0", "t1", "t3"} and view.where == store.where


def test_a_method_alone_is_a_recipe(store):
    options = {"recipe": "", "model": "", "app": {}, "overrides": ["trainer.options.epochs=1", "seed=4"]}
    recipe = training_recipe(options, store, method="sft", seed=None)
    assert (recipe.name, recipe.trainer.name, recipe.trainer.options, recipe.seed) == ("sft", "sft", {"epochs": 1}, 4)
    assert training_recipe(options, store, method="", seed=5).trainer.options == {"save_steps": 25, "epochs": 1}
    assert training_recipe(options, store, method="", seed=5).seed == 5


def test_seconds_are_charged_as_they_pass_and_the_next_step_is_looked_at(store):
    store.start_run("distill-x", {}, {})
    now, shown = [0.0], []
    ledger = Ledger(Limits(max_cost=0.05), store=store, run="distill-x")
    meter = Meter(
        ledger, "sft", 3600 / 1000, lambda p: shown.append((p.done, p.total, p.note, p.unit)), now=lambda: now[0]
    )
    with pytest.raises(BudgetError, match=r"limit of \$0.0500"), meter:
        for step in range(1, 101):
            now[0] += 1.0
            meter.step(step, 100, {"loss": 1.25, "kl": 0.01, "tokens_per_second": 1234.5, "odd": 2})
            if step == CHARGE_EVERY:
                assert store.usage("distill-x")["trainer"].seconds == CHARGE_EVERY
    assert shown[0] == (1, 100, "loss 1.25, KL 0.01, 1,234 tokens/s, odd 2", "steps")
    assert len(shown) == 50, "the step that could have cost more than 5 cents was not begun"
    assert store.usage("distill-x")["trainer"].cost == pytest.approx(0.05)
    assert store.run("distill-x")["info"]["step"] == [50, 100]
    assert json.loads(json.dumps(meter.curve))[0] == {
        "step": 1,
        "loss": 1.25,
        "kl": 0.01,
        "tokens_per_second": 1234.5,
        "odd": 2,
    }
    assert os.path.exists(store.path)


@pytest.mark.parametrize("name", [n for n in recipe_names() if load_recipe(n).trainer.name])
def test_every_training_recipe_makes_its_method(name):
    method = make_method(load_recipe(name))
    assert method.name and callable(method.examples) and callable(method.train)
    with pytest.raises(UnknownName, match="unknown trainer option 'no_such_option'"):
        make_method(load_recipe(name, ["trainer.options.no_such_option=1"]))


def test_a_plain_line_counts_steps_and_tells_the_cost_so_far(store):
    store.start_run("distill-x", {}, {})
    out, err, now = (Console(file=io.StringIO(), width=200), Console(file=io.StringIO(), width=200), [0.0])
    with Screen("verbal distill", out=out, err=err, now=lambda: now[0]) as screen:
        screen.stage("training")
        ledger = Ledger(store=store, run="distill-x")
        meter = Meter(ledger, "grpo", 36.0, screen.show, at=20, now=lambda: now[0])
        for step in range(21, 25):
            now[0] += 6.0
            meter.step(step, 60, {"loss": -1.25e-5, "reward": 0.4375, "entropy": 0.31, "kl": 0.004})
    lines = err.file.getvalue().splitlines()
    assert "training: 22/60 steps, $0.12, loss -1.25e-05, reward 0.438, entropy 0.31, KL 0.004, 0:12 elapsed" in lines
    assert lines[-1] == "training: done, $0.24, 0:24"
