"""Runs repeat bit for bit with no model behind them; what was tampered with or is missing is told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorded_world import World, edit

from verbal.errors import DataError, ReplayMiss, UnknownName
from verbal.gate import Rule
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.replay import known_run, replay, run_digest, sections
from verbal.store import Store
from verbal.study import Study, perform
from verbal.types import MemoryOp, Reflection
from verbal.versions import adopt, declare, make_policy


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def no_sockets(monkeypatch):
    """Whoever opens a connection fails."""

    def refuse(*_):
        raise AssertionError("a replay opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


async def test_learning_scoring_and_a_gate_repeat_without_a_model(world, no_sockets):
    await world.learn()
    await world.score()
    decision = await world.judge()
    world.close_models()
    for run, kinds in (
        ("run", {"attempts", "feedback", "steps", "groups", "memory"}),
        ("eval", {"attempts", "feedback", "groups", "results"}),
        ("gate-1", {"attempts", "feedback", "groups", "results"}),
    ):
        before = world.path.read_bytes()
        made = await replay(world.store, run)
        assert made["equal"] and made["first_difference"] == "", made
        assert made["model_calls"] == 0 < made["replies"]
        assert made["digest"] == made["recorded_digest"] == run_digest(world.store, run)
        assert {k for k, v in made["sections"].items() if v["records"]} == kinds
        assert all(v["equal"] for v in made["sections"].values())
        assert world.path.read_bytes() == before, "the recording is not touched"
        json.dumps(made)
    assert decision["id"] == "gate-1"
    results = {k: v for line in sections(world.store, "gate-1")["results"] for k, v in json.loads(line).items()}
    assert results["wealth"] == decision["wealth"] and "cost" not in results


async def test_a_gate_with_a_guard_and_a_memory_on_both_sides_repeats(world):
    await world.learn()
    name, spec = declare(
        world.store, world.recipe, make_policy(world.store, world.recipe.model.name, "run"), world.app.tasks("dev"),
        [], rule=Rule(), seeds=1, budget=None,
    )  # fmt: skip
    adopt(world.store, name, spec, {"verdict": "accept"})
    memory = make_part("memory", "exact", store=world.store, name="run")
    await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text="the code of nothing is 3"))])
    memory.close()
    await world.judge("run", guard=world.app.tasks("train"))
    world.close_models()
    made = await replay(world.store, "gate-2")
    assert made["equal"], made["first_difference"]


async def test_a_run_that_learned_into_a_memory_of_others_repeats(world):
    await world.learn("first", memory="shared")
    await world.learn("second", memory="shared")
    await world.learn("third", memory="shared")
    world.close_models()
    for run in ("first", "second", "third"):
        assert (await replay(world.store, run))["equal"], run


async def test_a_finished_run_that_is_resumed_later_still_repeats(world):
    await world.learn("first", memory="shared")
    await world.learn("second", memory="shared")
    await world.learn("first", memory="shared")
    assert (await replay(world.store, "first"))["equal"]


@pytest.mark.parametrize("graph", ["reflect", "group", "self_play"])
async def test_the_demo_with_its_own_model_and_index_repeats(tmp_path, no_sockets, graph):
    """Weights, a vector index, workers with a database: what a user's first run is made of."""
    sets = ["loop.questions=3", "loop.samples=3", "loop.batch=2", f"app.options.cache={str(tmp_path)!r}"]
    recipe = load_recipe(graph, sets)
    with Store(tmp_path / "v.db") as store:
        tasks = make_part("apps", "text2sql", cache=tmp_path).tasks("train")[:3]
        store.put_tasks(tasks)
        spec = {"command": "learn", "arm": "learn", "tasks": [t.id for t in tasks], "memory": {"name": "run"}}
        await perform(Study(store=store, recipe=recipe, run="run"), spec)
        made = await replay(store, "run")
        assert made["equal"], made["first_difference"]
        assert made["model_calls"] == 0 < made["replies"]
        assert recipe.memory.name == "chroma" and sum(u.calls for u in store.usage("run").values()) > 0


async def test_a_refused_call_repeats_as_the_same_failure(tmp_path):
    world = World(tmp_path, {"anchor": "117", "basket": "211", "refuse me": "305"})
    await world.learn()
    assert any("RefusedError" in (a.error or "") for a in world.store.attempts("run"))
    world.close_models()
    made = await replay(world.store, "run")
    assert made["equal"], made["first_difference"]
    world.store.close()


def learning_process(world, run, *, latency):
    """The world in a process of its own, learning."""
    command = [sys.executable, str(Path(__file__).with_name("recorded_world.py")), str(world.folder), run]
    with (world.folder / f"{run}.err").open("wb") as said:
        return subprocess.Popen(command, env={**os.environ, "LATENCY": str(latency)}, stderr=said)


async def test_a_run_that_was_killed_and_resumed_repeats(world):
    process = learning_process(world, "run", latency=0.1)
    deadline = time.monotonic() + 60
    while len(world.store.attempts("run")) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert world.store.run("run")["status"] == "running"
    with pytest.raises(DataError, match="'run' is running, not done") as error:
        await replay(world.store, "run")
    assert "--resume" in error.value.todo
    await world.learn()
    world.close_models()
    made = await replay(world.store, "run")
    assert made["equal"], made["first_difference"]


async def test_what_two_processes_recorded_side_by_side_repeats(world):
    runs = [learning_process(world, f"run-{i}", latency=0.02) for i in range(2)]
    ended = [p.wait(120) for p in runs]
    assert ended == [0, 0], [(world.folder / f"run-{i}.err").read_text() for i in range(2)]
    world.close_models()
    made = [await replay(world.store, f"run-{i}") for i in range(2)]
    assert all(m["equal"] for m in made), [m["first_difference"] for m in made]
    assert len({m["digest"] for m in made}) == 2, "ids carry the name of the run"


# what is not equal ----------------------------------------------------------------------------------------------------

TAMPER = {
    "attempt": (
        "UPDATE attempts SET record = replace(record, 'I guess', 'I know') WHERE run = 'run'",
        "attempts: replayed",
    ),
    "feedback": ("UPDATE feedback SET record = replace(record, 'wrong: ', 'worse: ')", "feedback: replayed"),
    "later step": ("UPDATE later_steps SET record = replace(record, 'is wrong', 'is bad')", "steps: replayed"),
    "memory": ("UPDATE ops SET record = replace(record, 'the code of', 'a code of')", "memory: replayed"),
}


@pytest.mark.parametrize("what", TAMPER)
async def test_a_record_that_was_tampered_with_is_told(world, what):
    await world.learn()
    sql, told = TAMPER[what]
    edit(world.path, sql)
    made = await replay(world.store, "run")
    assert not made["equal"] and made["first_difference"].startswith(told), made["first_difference"]
    assert made["digest"] != made["recorded_digest"]
    assert [k for k, v in made["sections"].items() if not v["equal"]] == [told.split(":")[0]]


async def test_a_record_that_is_gone_is_told(world):
    await world.learn()
    edit(world.path, "DELETE FROM groups WHERE task = 'train-anchor'")
    made = await replay(world.store, "run")
    assert (
        made["first_difference"] == "groups: 8 replayed, 7 recorded" or "groups: replayed" in made["first_difference"]
    )
    assert not made["equal"]


async def test_a_reply_that_was_tampered_with_is_told(world):
    await world.learn()
    edit(world.path, "UPDATE replies SET reply = replace(reply, 'the code in the answer is wrong', 'all is fine')")
    made = await replay(world.store, "run")
    assert not made["equal"] and "all is fine" in made["first_difference"]
    # A reply that decides what is asked next leads to a question that was never recorded.
    edit(world.path, "UPDATE replies SET reply = replace(reply, 'the code of anchor', 'a code of anchor')")
    with pytest.raises(ReplayMiss) as error:
        await replay(world.store, "run")
    assert "content differs" in error.value.what


async def test_a_score_that_was_tampered_with_is_told(world):
    await world.learn()
    await world.score()
    edit(world.path, "UPDATE runs SET info = replace(info, '\"mean\": 1.0', '\"mean\": 0.5') WHERE id = 'eval'")
    made = await replay(world.store, "eval")
    assert not made["equal"] and made["first_difference"].startswith("results: replayed")


async def test_a_prompt_that_was_changed_asks_what_was_never_recorded(world):
    await world.learn()
    edit(
        world.path, "UPDATE tasks SET record = replace(record, 'What is the code', 'Which is the code') WHERE id = ?",
        "train-anchor",
    )  # fmt: skip
    with pytest.raises(ReplayMiss, match=r"messages\[0\].content differs: recorded .* asked"):
        await replay(world.store, "run")


async def test_a_reply_that_is_missing_names_the_field(world):
    await world.learn()
    db = sqlite3.connect(world.path)
    key = db.execute("SELECT key FROM replies WHERE request LIKE '%reflector%' ORDER BY key").fetchone()[0]
    db.close()
    edit(world.path, "DELETE FROM replies WHERE key = ?", key)
    with pytest.raises(ReplayMiss, match="this call was never recorded; ") as error:
        await replay(world.store, "run")
    assert re.search(r"(content|seed) differs: recorded .* asked ", error.value.what)
    assert error.value.where.startswith("run 'run', scripted/function, sample 0")
    edit(world.path, "DELETE FROM replies")
    with pytest.raises(ReplayMiss, match="no call to scripted/function was recorded"):
        await replay(world.store, "run")


async def test_a_changed_recipe_is_another_run(world):
    await world.learn()
    edit(world.path, "UPDATE runs SET recipe = replace(recipe, '\"rounds\": 2', '\"rounds\": 1')")
    with pytest.raises(ReplayMiss, match="never recorded"):  # the lessons were verified by attempts that are not made
        await replay(world.store, "run")


async def test_what_cannot_be_repeated_is_refused(world):
    with pytest.raises(UnknownName, match="'nobody'"):
        await replay(world.store, "nobody")
    world.store.start_run("ask", world.recipe.to_dict(), {"command": "ask", "tasks": []})
    world.store.finish_run("ask", "done")
    with pytest.raises(DataError, match=r"'ask'.*not repeated on its own"):
        await replay(world.store, "ask")
    world.store.start_run("half", world.recipe.to_dict(), {"command": "learn"})
    world.store.finish_run("half", "incomplete")
    with pytest.raises(DataError, match="'half' is incomplete, not done"):
        await replay(world.store, "half")
    assert known_run(world.store, "half")["status"] == "incomplete"
