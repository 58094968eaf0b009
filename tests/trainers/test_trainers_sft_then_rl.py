"""SFT, then a group method from those weights: one checkpoint, both phases told, resumed in either."""

import dataclasses
import os

import pytest

from verbal.contracts import Method
from verbal.errors import ConfigError, DataError, TrainError
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.store import Store
from verbal.testing import TinyApp
from verbal.trainers import checkpoint
from verbal.trainers.grpo import GRPO
from verbal.trainers.relift import ReLIFT
from verbal.trainers.sft import SFT
from verbal.trainers.sft_then_rl import SFTThenRL

from .attempt_stores import fenced, filled, make_attempt, make_task
from .group_runs import CODES, chat_model, recipe

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

IMITATE = {"epochs": 12, "batch": 4, "learning_rate": 1e-2, "device": "cpu"}
ATTEMPT = {"group": 4, "tasks": 2, "learning_rate": 1e-2, "max_tokens": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def examples(tmp_path):
    """Right answers to four tasks to imitate, and the tasks to attempt."""
    app = TinyApp(CODES)
    with Store(tmp_path / "tasks.db") as store:
        store.put_tasks(app.tasks("train"))
        rows = GRPO().examples(store)
    asked = {t.id: [{"role": m.role, "content": m.content} for m in app.messages("solver", t)] for t in app.tasks()}
    imitated = [
        of(row, "sft", prompt=asked[row.task], completion=[{"role": "assistant", "content": CODES[row.task[6:]]}])
        for row in rows
    ]
    return [*imitated, *(of(row, "rl", prompt=row.columns["prompt"]) for row in rows)]


def of(row, phase, **columns):
    return dataclasses.replace(row, columns={**columns, "phase": phase})


def method(**options):
    rl = {**ATTEMPT, "steps": 5, "save_steps": 2, **options}
    return SFTThenRL(sft_options={**IMITATE, "save_steps": 4}, rl_options=rl)


def flat(folder):
    from safetensors.torch import load_file

    return load_file(f"{folder}/model.safetensors")


def timeless(curve):
    return [{k: v for k, v in p.items() if k not in ("tokens_per_second", "generated")} for p in curve]


def test_both_phases_make_one_checkpoint(tiny, examples, tmp_path, capfd):
    seen, made = [], method()
    assert isinstance(made, Method)
    papers = made.train(
        examples, tiny, str(tmp_path / "out"), seed=1, recipe=recipe(), on_progress=lambda *s: seen.append(s)
    )
    assert capfd.readouterr() == ("", "")
    assert checkpoint.read(tmp_path / "out") == papers
    assert (papers["method"], papers["base"], papers["rows"], papers["steps"]) == ("sft_then_rl", tiny, 8, 17)
    first, second = papers["phases"]
    assert (first["method"], first["steps"], second["method"], second["steps"]) == ("sft", 12, "grpo", 5)
    assert first["options"]["epochs"] == 12 and first["loss_last"] < first["loss_first"]
    assert [s[:2] for s in seen] == [(i, 17) for i in range(1, 18)]
    assert "reward" not in seen[11][2] and "reward" in seen[12][2]
    assert [p["step"] for p in papers["curve"]] == [float(i) for i in range(1, 18)]
    assert {"rollouts.db", "model.safetensors", "verbal.json"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert not (tmp_path / "out" / "resume").exists()


def test_the_second_phase_starts_from_the_weights_of_the_first(tiny, examples, tmp_path):
    SFT(**IMITATE).train(examples[:4], tiny, str(tmp_path / "sft"), seed=1)
    still = method(steps=1, learning_rate=1e-12, weight_decay=0.0)
    still.train(examples, tiny, str(tmp_path / "both"), seed=1, recipe=recipe())
    before, imitated, after = flat(tiny), flat(tmp_path / "sft"), flat(tmp_path / "both")
    assert all(torch.allclose(imitated[k], after[k], atol=1e-8) for k in after)
    assert not any(torch.allclose(before[k], after[k], atol=1e-3) for k in after if "proj" in k)


def test_it_goes_on_in_either_phase_bit_for_bit(tiny, examples, tmp_path):
    whole = method().train(examples, tiny, str(tmp_path / "whole"), seed=3, recipe=recipe())
    for at, first in ((6, 5), (16, 15)):
        folder = tmp_path / f"cut-{at}"

        def kill(done, total, figures, at=at):
            if done == at:
                raise KeyboardInterrupt

        def go_on(made, folder=folder, **options):
            return made.train(examples, tiny, str(folder), seed=3, recipe=recipe(), **options)

        with pytest.raises(KeyboardInterrupt):
            go_on(method(), on_progress=kill)
        with pytest.raises(DataError, match="no finished weights"):
            checkpoint.read(folder)
        with pytest.raises(TrainError, match="other rows or options"):
            go_on(SFTThenRL(sft_options=IMITATE, rl_options=ATTEMPT), resume=True)
        seen = []
        again = go_on(method(), resume=True, on_progress=lambda *s, seen=seen: seen.append(s[0]))
        assert (seen[0], seen[-1]) == (first, 17)
        assert timeless(again["curve"]) == timeless(whole["curve"])
        one, other = flat(tmp_path / "whole"), flat(folder)
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_any_group_method_can_follow(tiny, examples, tmp_path):
    shown = [{"role": "assistant", "content": "3"}]
    rows = [
        of(r, "rl", prompt=r.columns["prompt"], demonstration=shown) if i > 3 else r for i, r in enumerate(examples)
    ]
    made = SFTThenRL(rl="relift", sft_options=IMITATE | {"epochs": 1}, rl_options={**ATTEMPT, "steps": 2, "buffer": 1})
    papers = made.train(rows, tiny, str(tmp_path / "out"), recipe=recipe({w: "70707" for w in CODES}))
    assert papers["phases"][1]["supervised_steps"] == 2


def test_what_is_refused_before_torch(tiny, examples, tmp_path):
    for options, what in (
        ({"rl": "sft"}, "attempts nothing itself"),
        ({"rl_options": {"grup": 4}}, "grup"),
        ({"sft_options": {"epoch": 4}}, "epoch"),
        ({"rl_options": {"group": 1}}, "group is 1"),
        ({"rows": "gold"}, "rows is 'gold'"),
    ):
        with pytest.raises(ConfigError, match=what):
            make_part("trainers", "sft_then_rl", **options)
    with pytest.raises(TrainError, match="no rows to imitate"):
        method().train(examples[4:], tiny, str(tmp_path / "out"), recipe=recipe())
    with pytest.raises(TrainError, match="grpo has no rows"):
        method().train(examples[:4], tiny, str(tmp_path / "out"), recipe=recipe())
    assert not (tmp_path / "out").exists()


def test_rows_are_right_answers_and_tasks(tmp_path):
    tasks = [make_task("t1"), make_task("t2")]
    tries = [
        (make_attempt(tasks[0], 0, "SELECT 1"), 0.0),
        (make_attempt(tasks[0], 1, "SELECT 2", hints={"h": "look"}), 1.0),
        (make_attempt(tasks[1], 0, "SELECT 3"), 1.0),
    ]
    store = filled(tmp_path, tasks, tries)
    rows = SFTThenRL().examples(store, run="r")
    assert [(r.task, r.columns["phase"]) for r in rows] == [("t1", "sft"), ("t2", "sft"), ("t1", "rl"), ("t2", "rl")]
    assert rows[0].columns["completion"] == [{"role": "assistant", "content": fenced("SELECT 2")}]
    rows = SFTThenRL(rows="demonstrations", rl="relift").examples(store, run="r")
    assert [(r.task, r.columns["phase"]) for r in rows] == [("t1", "sft"), ("t1", "rl"), ("t2", "rl")]
    assert "demonstration" in rows[1].columns


def test_the_recipe_makes_it():
    table = load_recipe("sft_then_rl").trainer
    made = make_part("trainers", table.name, **table.options)
    assert [phase.name for phase in made.phases()] == ["sft", "grpo"]
    assert isinstance(SFTThenRL(rl="relift").phases()[1], ReLIFT)
