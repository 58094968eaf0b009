"""`verbal distill` without torch: the plan, what is refused, and a training of a user's own method from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import distill_world
import pytest

from verbal.errors import StoreError
from verbal.store import Store
from verbal.types import Task

WORDS = ("name", "path", "card", "run", "resumed", "papers", "scores", "before", "after", "usage", "gate")
PLAN = (
    "recipe", "method", "base", "seed", "runs", "filtered", "rows", "tasks", "oracle_rows", "rows_sha256", "licences",
    "origins", "models", "critics", "estimate",
)  # fmt: skip
HERE = ("--store", "v.db", "--json")
COUNT = ("distill", "--recipe", "counting.toml", *HERE)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with what was learned in it, in which commands run."""
    monkeypatch.chdir(tmp_path)
    distill_world.learn(tmp_path, distill_world.make_world(tmp_path))
    return tmp_path


def test_a_dry_run_tells_everything_and_loads_no_torch(world):
    code = (
        "import sys; sys.argv = ['verbal', 'distill', '--store', 'v.db', '--from', 'run', '--dry-run', '--json'];"
        "from verbal.cli import app; app(standalone_mode=False);"
        "print('torch' in sys.modules, 'trl' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.split() == ["False"] * 3, done.stderr
    made = json.loads(done.stdout)
    assert set(made) == {*PLAN, "dry_run", "path"}
    assert (made["method"], made["base"], made["rows"], made["runs"]) == ("sft", "embedded", 2, ["run"])
    assert made["recipe"]["app"]["options"]["db"].endswith("towns.sqlite"), "that of the run"
    assert len(made["rows_sha256"]) == 64 and made["estimate"]["parameters"] > 1e6
    with Store("v.db") as store:
        assert [r["id"] for r in store.runs()] == ["run"] and store.checkpoints() == []
    assert not (world / "weights").exists()


WRONG = [
    (("--recipe", "stf"), "did you mean 'sft'"),
    (("--recipe", "reflect"), "names no trainer"),
    (("--recipe", "sft", "--method", "sft"), "give one"),
    (("--method", "sfd"), "did you mean 'sft'"),
    (("--set", "lop.rounds=2"), "did you mean 'loop'"),
    (("--set", "trainer.optoins.epochs=1"), "did you mean 'trainer.options'"),
    (("--set", "epochs=1"), "trainer.options.epochs=1"),
    (("--set", "trainer.options.epoch=1"), "did you mean 'epochs'"),
    (("--set", "trainer.options.lr=1"), "did you mean 'learning_rate'"),
    (("--set", 'trainer.options.epochs="many"'), "must be float, found 'many'"),
    (("--set", 'trainer.options.precision="f16"'), "must be one of 'auto', 'float32', 'bfloat16'"),
    (("--set", "trainer.options.epochs=-1"), "epochs is -1"),
    (("--set", 'critics.names=["sql_rezult"]', "--set", 'critics.verdict="sql_rezult"'), "did you mean"),
    (("--model", "scripted:m.jsonl"), "no weights here"),
    (("--model", "openai/gpt-5-mini"), "hf:ORG/MODEL"),
    (("--model", "checkpoint:gone"), "unknown checkpoint"),
    (("--from", "rum"), "did you mean 'run'"),
    (("--from", "run", "--from-export", "rows"), "give one"),
    (("--name", "no/name"), "cannot name a checkpoint"),
    (("--eval", "test"), "sealed"),
    (("--eval", "dev2"), "did you mean 'dev'"),
    (("--gate", "--guard", "gone.jsonl"), "gone.jsonl"),
]  # fmt: skip


def test_wrong_settings_are_told_before_anything_is_begun(world, command):
    for arguments, words in WRONG:
        code, _, err = command("distill", *HERE, *arguments)
        assert code == 2 and words in err, (arguments, err)
    with Store("v.db") as store:
        assert [r["id"] for r in store.runs()] == ["run"] and not Path("weights").exists()


def test_runs_that_can_teach_nothing_are_refused_with_the_reason(world, command):
    with Store("v.db") as store:
        store.start_run("empty", store.run("run")["recipe"])
        store.put_tasks([Task(id="q4", kind="text2sql", messages=(), split="test")])
    code, _, err = command("distill", *HERE, "--from", "empty")
    assert code == 1 and "run 'empty' holds no attempt" in err
    code, _, err = command("distill", *HERE, "--method", "kto")
    assert code == 1 and "all 2 labels are right" in err, err
    code, _, err = command("distill", *HERE, "--set", 'trainer.options.splits=["test"]')
    assert code == 1 and "sealed" in err
    code, _, err = command(*COUNT, "--set", "trainer.options.sealed=true")
    assert code == 1 and "1 test tasks" in err and "sealed" in err, err
    with Store(world / "bare.db"):
        pass
    code, _, err = command("distill", "--store", "bare.db", "--json")
    assert code == 1 and "the store holds no attempt" in err


def test_rows_come_from_one_run_from_several_or_from_all(world, command):
    app = {"db": str(world / "towns.sqlite"), "questions": str(world / "q.jsonl")}
    distill_world.learn(world, app, run="one", limit=1)
    found = {}
    for names in ((), ("one",), ("run", "one"), ("run",)):
        code, made, err = command("distill", *HERE, "--dry-run", *(a for n in names for a in ("--from", n)))
        assert code == 0, err
        found[names] = (made["tasks"], made["runs"], made["rows_sha256"])
    assert found["one",][:2] == (1, ["one"]) and found["run",][:2] == (2, ["run"])
    assert found["run", "one"] == found[()] and found[()][:2] == (2, ["one", "run"])
    code, _, _ = command("export", "rows", "--store", "v.db", "--run", "run")
    assert code == 0


def test_a_method_of_ones_own_goes_through_to_a_registered_checkpoint_with_its_card(world, command):
    code, made, err = command(*COUNT, "--name", "mine", "--gpu-price", "3600", "--set", "trainer.options.pause=0.02")
    assert code == 0, err
    assert set(made) == {*PLAN, *WORDS} and made["gate"] is None and not made["resumed"]
    assert made["scores"]["tasks"] == 1 and made["before"] == made["after"] == made["scores"]["after"]["mean"]
    assert made["usage"]["trainer"]["cost"] >= 0.08, "four steps of a fiftieth of a second at a dollar a second"
    papers = json.loads((world / "weights/mine/verbal.json").read_text())
    assert papers == made["papers"] and papers["name"] == "mine" and papers["rows_sha256"] == made["rows_sha256"]
    assert [p["loss"] for p in papers["curve"]] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert papers["about"] == {
        "method": "Counts its steps and copies the weights.",
        "source": "nobody's paper.",
        "recipe": "",
    }
    text = Path(made["card"]).read_text()
    for words in (
        made["rows_sha256"],
        "nobody's paper",
        "gold answer decided",
        "## Recipe",
        "Not asked yet",
    ):
        assert words in text
    with Store("v.db") as store:
        assert store.checkpoint("mine")["info"] == papers and store.run("distill-mine")["status"] == "done"
    for again, words in (((), "'mine' exists"), (("--out", "elsewhere"), "'mine' exists")):
        code, _, err = command(*COUNT, "--name", "mine", *again)
        assert code == 2 and words in err and "choose another --name" in err
    code, again, err = command(
        *COUNT, "--name", "mine", "--resume", "--gpu-price", "3600", "--set", "trainer.options.pause=0.02"
    )
    assert code == 0 and again["resumed"] and again["scores"] == made["scores"], "nothing is left to do"


def test_the_gates_decision_is_kept_with_the_weights(world, command):
    code, made, err = command(*COUNT, "--name", "mine", "--gate", "--guard", "none", "--samples", "1")
    assert code == 1, "not accepted: the weights are a copy"
    assert made["gate"]["verdict"] == "need_more", made["gate"]["reason"]
    papers = json.loads(Path("weights/mine/verbal.json").read_text())
    assert [g["id"] for g in papers["gates"]] == ["gate-1"] and papers["gates"][0]["verdict"] == "need_more"
    assert "gate-1 | **needs more**" in Path(made["card"]).read_text()
    code, again, _ = command(*COUNT, "--name", "mine", "--gate", "--guard", "none", "--samples", "1", "--resume")
    assert code == 1 and again["gate"]["id"] == "gate-1", "it is not asked twice"
    here = ("--db", "towns.sqlite", "--questions", "q.jsonl", "--guard", "none", "--seeds", "1", *HERE)
    code, told, err = command("promote", "--model", "checkpoint:mine", "--recipe", "counting.toml", *here)
    assert code == 1 and told["verdict"] == "need_more", err
    with Store("v.db") as store:
        info = store.checkpoint("mine")["info"]
        assert [g["id"] for g in info["gates"]] == ["gate-1", "gate-2"] and store.versions() == []
    assert "gate-2" in Path(made["card"]).read_text()


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    code = "from verbal.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path, text: str) -> None:
    for _ in range(1200):
        if path.is_file() and path.read_text() == text:
            return
        time.sleep(0.05)
    pytest.fail(f"{path} never said {text}")


def test_a_killed_training_goes_on_where_it_was(world, command):
    slow = (*COUNT, "--name", "mine", "--eval", "", "--set", 'trainer.options.waits="wait"')
    state = world / "weights/mine/resume/state.json"
    (world / "wait").touch()
    process = start(*slow)
    wait_for(state, "4")
    code, _, err = command(*slow, "--resume")
    assert code == 1 and "goes on in another process" in err, err
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    code, _, err = command(*slow)
    assert code == 2 and "'mine' did not finish" in err and "--resume" in err, err
    code, _, err = command(*slow, "--resume", "--set", "trainer.options.learning_rate=0.2")
    assert code == 2 and "trainer.options.learning_rate: None then, 0.2 now" in err and "another recipe" in err
    code, _, err = command(*slow, "--resume", "--seed", "7")
    assert code == 2 and "the seed: 0 then, 7 now" in err
    code, _, err = command(*slow, "--resume", "--set", "limits.max_minutes=9", "--set", "trainer.options.sealed=false")
    assert code == 2, "sealed was not said before, and a recipe says all or nothing"
    with Store("v.db") as store:
        assert store.checkpoints() == [] and store.run("distill-mine")["status"] == "running"
    (world / "wait").unlink()
    code, made, err = command(*slow, "--resume", "--max-minutes", "9")
    assert code == 0 and made["resumed"] and made["papers"]["first_step"] == 5, err


def test_a_limit_stops_it_and_a_higher_one_goes_on(world, command):
    dear = (*COUNT, "--name", "mine", "--eval", "", "--gpu-price", "36000", "--set", "trainer.options.pause=0.05")
    code, _, err = command(*dear, "--max-cost", "1")
    assert code == 1 and "limit of $1.0000" in err, err
    with Store("v.db") as store:
        assert store.checkpoints() == [] and store.run("distill-mine")["status"] == "stopped"
        spent = store.usage("distill-mine")["trainer"].cost
    assert 0 < spent < 2
    app = {"db": str(world / "towns.sqlite"), "questions": str(world / "q.jsonl")}
    distill_world.learn(world, app, run="more")
    code, _, err = command(*dear, "--max-cost", "100", "--resume")
    assert code == 2 and "the rows: 2 then, 2 now, of other content" in err and "--from" in err, err
    code, made, err = command(*dear, "--max-cost", "100", "--resume", "--from", "run")
    assert code == 0 and made["papers"]["first_step"] > 1, err
    assert made["usage"]["trainer"]["cost"] > spent, "what was spent before the stop is in it"


def test_a_full_disk_registers_nothing_and_the_same_command_goes_on(world, command):
    (world / "weights/mine").mkdir(parents=True)
    full = (*COUNT, "--name", "mine", "--eval", "", "--set")
    os.symlink("/dev/full", world / "sink")
    code, _, err = command(*full, 'trainer.options.disk="sink"')
    assert code == 1 and "cannot be written: No space left on device" in err and "--resume" in err, err
    with Store("v.db") as store:
        assert store.checkpoints() == [] and store.run("distill-mine")["status"] == "stopped"
    (world / "sink").unlink()
    code, made, err = command(*full, 'trainer.options.disk="sink"', "--resume")
    assert code == 0 and made["papers"]["first_step"] == 5, err


def test_what_broke_may_be_begun_anew_with_other_options(world, command):
    broken = (*COUNT, "--name", "mine", "--eval", "", "--set", "trainer.options.breaks_at=3")
    code, _, err = command(*broken)
    assert code == 1 and "nan at step 3" in err
    code, made, err = command(*COUNT, "--name", "mine", "--eval", "")
    assert code == 0 and not made["resumed"] and made["run"] == "distill-mine.2", err


def test_a_folder_in_use_is_left_alone(world, command):
    (world / "file").write_text("x")
    for name, content in (("photos", "cat.png"), ("weights-of-others", "verbal.json")):
        (world / name).mkdir()
        (world / name / content).write_text("mine")
    (world / "half/resume").mkdir(parents=True)
    for out, words in (
        ("file", "is a file"), ("photos", "holds files"), ("weights-of-others", "holds finished weights"),
        ("half", "holds an unfinished training"),
    ):  # fmt: skip
        code, _, err = command(*COUNT, "--out", out)
        assert code == 1 and words in err and "--out" in err, err
    assert (world / "photos/cat.png").read_text() == "mine"


def test_a_missing_package_names_its_extra(world, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    code, _, err = command("distill", *HERE)
    assert code == 2 and "pip install 'verbal[train]'" in err
    with Store("v.db") as store:
        assert [r["id"] for r in store.runs()] == ["run"]


def test_a_disk_too_small_for_the_weights_is_told_before_training(world):
    from verbal.distill_plan import require_packages
    from verbal.recipe import load_recipe

    with pytest.raises(StoreError, match="the weights alone take"):
        require_packages(load_recipe("counting.toml"), world / "a/b/c", {"parameters": 10**15})
