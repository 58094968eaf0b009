"""`verbal memory absorbed`: priced before, told after, retired only when that is asked for, and taken back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import absorbing
import pytest
from absorbing import APP, CODES, CRITIC, lesson

from verbal.parts import make_part
from verbal.store import Store
from verbal.types import Attempt, MemoryOp, Reflection, StopReason
from verbal.versions import Policy

HERE = ("--store", "v.db", "--recipe", "ways.toml")
LOOK = ("memory", "absorbed", "m", "--model", f"{absorbing.__file__}:KnowsAnchor", *HERE)


@pytest.fixture
def world(tmp_path, monkeypatch, command):
    """A store whose memory knows every code, and a command to run in its folder."""
    monkeypatch.chdir(tmp_path)
    Path("ways.toml").write_text(
        f'[app]\nname = "{APP}"\n[critics]\nnames = ["{CRITIC}"]\nverdict = "{CRITIC}"\n'
        '[memory]\nname = "exact"\n[loop]\nbatch = 8\n'
    )
    with Store("v.db") as store:
        memory = make_part("memory", "exact", store=store, name="m")
        ops = [MemoryOp(op="ADD", item=Reflection(id="", text=lesson(w)), author="user") for w in CODES]
        asyncio.run(memory.apply(ops))
        memory.close()
    return command


def items():
    with Store("v.db") as store:
        return store.memories()["m"], [op.reflection for _, op in store.ops("m") if op.op == "RETIRE"]


def test_it_is_priced_before_and_nothing_is_called(world):
    code, made, err = world(*LOOK, "--dry-run", "--json")
    assert code == 0, err
    assert [(i["id"], i["tasks"]) for i in made["items"]] == [("r1", 8), ("r2", 8), ("r3", 8)]
    assert made["estimate"]["calls_low"] == 2 * 24 * 3 and made["estimate"]["calls_high"] == 3 * 24 * 3
    with Store("v.db") as store:
        assert store.runs() == [] and store.usage() == {}


def test_it_judges_and_only_apply_retires(world):
    before, _ = items()
    code, made, err = world(*LOOK, "--seeds", "1", "--json")
    assert code == 0, err
    assert [i["verdict"] for i in made["items"]] == ["absorbed", "needed", "needed"]
    row = made["items"][0]
    assert row["used"] == 8 and row["gain"]["mean"] == 0 and row["shown"] == row["withheld"] == 1.0
    assert row["text"] == lesson("anchor") and made["retired"] == [] and items() == (before, [])
    assert made["usage"]["solver"]["calls"] > 0
    with Store("v.db") as store:
        run = store.run(made["run"])
        assert run["status"] == "done" and len(run["info"]["absorbed"]) == 3
        assert set(store.usage(made["run"])) == {"solver"}
        assert {a.task.partition("-")[0] for a in store.attempts(made["run"])} <= {
            f"{split}{way}" for split in ("train", "dev") for way in range(6)
        }
    code, made, err = world(*LOOK, "--seeds", "1", "--apply", "--json")
    assert code == 0 and made["retired"] == ["r1"] and made["version"] == before + 1, err
    assert items() == (before + 1, ["r1"]) and made["judged_at"] == before
    assert any(f"--memory m@{before + 1}" in line for line in made["told"])
    code, made, err = world("memory", "absorbed", "m", "--undo", "--store", "v.db", "--json")
    assert code == 0 and made["back"] == {"r1": "r4"}, err


def test_what_the_gate_adopted_goes_on_serving(world):
    before, _ = items()
    with Store("v.db") as store:
        policy = Policy(model="embedded", memory="m", version=before)
        store.add_version({"action": "start", "policy": policy.plain(), "evidence": ""}, expect=0)
    code, out, err = world(*LOOK, "--seeds", "1", "--apply")
    assert code == 0, err
    out = " ".join(out.split())
    assert f"version 1 goes on serving embedded, memory m at version {before}, as it was adopted" in out
    assert "1 absorbed, 2 still needed, 0 need more" in out and "verbal promote --memory" in out
    with Store("v.db") as store:
        assert store.versions()[-1]["policy"]["version"] == before


def test_a_smaller_memory_is_promoted_when_it_loses_nothing(world):
    before, _ = items()
    model = LOOK[4]
    with Store("v.db") as store:
        store.add_version(
            {"action": "start", "policy": Policy(model=model, memory="m", version=before).plain(), "evidence": ""},
            expect=0,
        )
    code, made, err = world(*LOOK, "--seeds", "1", "--apply", "--json")
    assert code == 0, err
    advice = made["told"][-1]
    assert f"verbal promote --memory m@{before + 1} --margin -2 --finite" in advice
    options = ("--memory", f"m@{before + 1}", "--margin", "-2", "--finite", "--guard", "none", "--seeds", "1")
    code, made, err = world("promote", *options, *HERE, "--json")
    assert code == 0 and made["verdict"] == "accept", err
    with Store("v.db") as store:
        assert store.versions()[-1]["policy"]["version"] == before + 1
    # A memory that lost what the weights do not know is another matter.
    assert world("memory", "forget", "m", "r2", "--store", "v.db", "--json")[0] == 0
    options = ("--memory", "m", "--margin", "-2", "--finite", "--guard", "none", "--seeds", "1")
    code, made, err = world("promote", *options, *HERE, "--json")
    assert code == 1 and made["verdict"] == "reject", err


def test_tasks_the_weights_were_trained_on_are_left_out(world, monkeypatch):
    with Store("v.db") as store:
        tasks = [f"dev{n}-{w}" for n in range(5) for w in CODES]
        for task in tasks:
            store.put_attempt(Attempt(id=f"a/{task}", run="a", task=task, model="x", stop=StopReason.ANSWERED))
        store.put_checkpoint("c", "nowhere", {"attempts": [f"a/{t}" for t in tasks]})
    # The weights themselves are beside the point here: the papers decide which tasks are left.
    name = f"{absorbing.__file__}:KnowsAnchor"
    monkeypatch.setattr("verbal.verbs.resolve_checkpoint", lambda store, model: name)
    seen = ("memory", "absorbed", "m", "--model", "checkpoint:c", *HERE, "--json")
    code, made, err = world(*seen, "--seeds", "1")
    assert code == 0, err
    assert made["trained_on"] == 15 and [i["tasks"] for i in made["items"]] == [3, 3, 3]
    assert {i["verdict"] for i in made["items"]} == {"need_more"} and "at least 5" in made["items"][0]["reason"]
    code, made, err = world(*seen, "--seeds", "1", "--trained", "--apply")
    assert code == 0 and made["trained_on"] == 0 and made["retired"] == ["r1"], err
    with Store("v.db") as store:
        assert store.ops("m")[-1][1].reason.startswith("absorbed by checkpoint c: ")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--split", "test"), 2, "sealed"),
        (("--only", "r9"), 2, "r9"),
        (("--margin", "300"), 2, "margin"),
        (("--max-calls", "0"), 2, "budget"),
    ],
)
def test_bad_input_is_refused_before_a_call(world, options, code, words):
    found, _, err = world(*LOOK, *options, "--json")
    assert found == code and words in err, err
    with Store("v.db") as store:
        assert store.usage() == {}


def test_an_unknown_memory_is_told(world):
    code, _, err = world("memory", "absorbed", "n", *HERE, "--json")
    assert code == 2 and "n" in err


def test_a_budget_that_ends_keeps_what_was_done_and_goes_on(world):
    code, _, err = world(*LOOK, "--seeds", "1", "--max-calls", "10", "--json")
    assert code == 1 and items()[1] == [], err
    with Store("v.db") as store:
        assert [r["status"] for r in store.runs()] == ["stopped"]
    code, made, err = world(*LOOK, "--seeds", "1", "--max-calls", "100", "--json")
    assert code == 0 and made["absorbed"] == 1, err
    with Store("v.db") as store:
        assert [r["status"] for r in store.runs()] == ["done"]
