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

import verbal.testing
from verbal.errors import ConfigError, DataError, ReplayMiss, UnknownName
from verbal.gate import Rule
from verbal.parts import make_part
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.replay import STEPS, known_run, pack, replay, run_digest, sections
from verbal.store import Store
from verbal.study import Study, perform
from verbal.testing import TinyApp
from verbal.types import MemoryOp, Reflection
from verbal.versions import adopt, declare, make_policy

TINY = verbal.testing.__file__
MODEL = """
import os
from pathlib import Path
from verbal.errors import RefusedError
from verbal.testing import ScriptedModel, tiny_reply

class Model(ScriptedModel):
    '''The tiny model; while the file `closed` is there nobody may as much as open it.'''

    def __init__(self):
        if (Path(__file__).parent / "closed").exists():
            raise AssertionError("a replay opened a model")
        super().__init__(tiny_reply, latency=float(os.environ.get("LATENCY", "0")))

    async def generate(self, messages, n, sampling):
        if (Path(__file__).parent / "closed").exists():
            raise AssertionError("a replay called a model")
        if "refuse me" in messages[-1].content:
            raise RefusedError("I do not talk about that")
        return await super().generate(messages, n, sampling)
"""


class World:
    """A store, the tiny app and a model in a file of its own."""

    def __init__(self, folder, codes=None):
        self.folder, self.path = folder, folder / "v.db"
        (folder / "model.py").write_text(MODEL)
        self.store = Store(self.path)
        self.app = TinyApp(codes)
        options = {"codes": codes} if codes else {}
        self.recipe = Recipe(
            app=AppTable(name=f"{TINY}:TinyApp", options=options),
            model=ModelTable(name=f"{folder / 'model.py'}:Model"),
            loop=LoopTable(rounds=2, batch=3),
            critics=CriticsTable(names=(f"{TINY}:TinyCritic",), verdict=f"{TINY}:TinyCritic"),
            memory=MemoryTable(name="exact", k=2),
        )
        self.store.put_tasks([*self.app.tasks("train"), *self.app.tasks("dev")])

    def study(self, run):
        return Study(store=self.store, recipe=self.recipe, run=run)

    async def learn(self, run="run", **more):
        ids = [t.id for t in self.app.tasks("train")]
        spec = {"command": "learn", "arm": "learn", "tasks": ids, "memory": {"name": more.pop("memory", run)}, **more}
        return await perform(self.study(run), spec)

    async def score(self, run="eval", memory="run", seeds=(0, 1)):
        ids = [t.id for t in self.app.tasks("dev")]
        memories = {s: [memory, self.store.memories()[memory]] for s in seeds}
        return await perform(
            self.study(run), {"command": "eval", "tasks": ids, "seeds": list(seeds), "memories": memories}
        )

    async def judge(self, memory="run", guard=()):
        candidate = make_policy(self.store, self.recipe.model.name, memory)
        dev = self.app.tasks("dev")
        name, spec = declare(self.store, self.recipe, candidate, dev, guard, rule=Rule(batch=3), seeds=2, budget=None)
        decision = await perform(self.study(name), spec)
        adopt(self.store, name, spec, decision)
        return decision

    def close_models(self):
        (self.folder / "closed").touch()


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


def edit(path, sql, *values):
    """Changes a store behind its back."""
    db = sqlite3.connect(path)
    assert db.execute(sql, values).rowcount > 0
    db.commit()
    db.close()


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


@pytest.mark.xfail(reason="run.learn notes `memory_to` again when a finished run is resumed", raises=AssertionError)
async def test_a_finished_run_that_is_resumed_later_still_repeats(world):
    await world.learn("first", memory="shared")
    await world.learn("second", memory="shared")
    await world.learn("first", memory="shared")
    assert (await replay(world.store, "first"))["equal"]


async def test_a_refused_call_repeats_as_the_same_failure(tmp_path):
    world = World(tmp_path, {"anchor": "117", "basket": "211", "refuse me": "305"})
    await world.learn()
    assert any("RefusedError" in (a.error or "") for a in world.store.attempts("run"))
    world.close_models()
    made = await replay(world.store, "run")
    assert made["equal"], made["first_difference"]
    world.store.close()


def learning_process(world, run, *, latency):
    """The world of this file in a process of its own, learning."""
    script = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom test_replay import World\n"
        "asyncio.run(World(Path(sys.argv[2])).learn(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(world.folder), run]
    return subprocess.Popen(command, env={**os.environ, "LATENCY": str(latency)}, stderr=subprocess.DEVNULL)


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
    assert [p.wait(120) for p in runs] == [0, 0]
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


# packed ---------------------------------------------------------------------------------------------------------------

AGAIN = """
import asyncio, json, socket, sys

def refuse(*_):
    raise AssertionError("a replay opened a connection")

socket.socket.connect = socket.socket.connect_ex = refuse
from verbal.replay import replay
from verbal.store import Store

with Store(sys.argv[1]) as store:
    made = [asyncio.run(replay(store, run)) for run in sys.argv[2:]]
print(json.dumps(made))
"""


def replayed_elsewhere(file, folder, *runs):
    """The replays in a fresh process, in another folder."""
    command = [sys.executable, "-c", AGAIN, str(file), *runs]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_packed_run_repeats_from_its_file_alone(world, tmp_path):
    await world.learn(parts=["eval", "never begun"])
    await world.score()
    digests = {run: run_digest(world.store, run) for run in ("run", "eval")}
    away = tmp_path / "away"
    away.mkdir()
    card = pack(world.store, "run", away / "packed.db")
    assert card["runs"] == digests and card["redacted"] == 0 and card["run"] == "run"
    assert card["models"] == {world.recipe.model.name: ["scripted/function", ""]}
    text = (away / "packed.md").read_text()
    for said in ("# Recorded run run", *digests.values(), "verbal replay run --store packed.db", "scripted/function"):
        assert said in text
    assert '"rounds": 2' in text and sorted(f.name for f in away.iterdir()) == ["packed.db", "packed.md"]
    world.store.close()
    world.path.unlink()
    world.close_models()
    made = replayed_elsewhere(away / "packed.db", away, "run", "eval")
    assert all(m["equal"] and m["model_calls"] == 0 for m in made), made
    assert [m["digest"] for m in made] == list(digests.values())
    with Store(away / "packed.db") as store, pytest.raises(ConfigError, match="exists"):
        pack(store, "run", away / "packed.db")


async def test_a_packed_gate_repeats_and_so_does_a_pack_of_a_pack(world, tmp_path):
    await world.learn()
    await world.judge()
    pack(world.store, "gate-1", tmp_path / "one.db")
    with Store(tmp_path / "one.db") as store:
        pack(store, "gate-1", tmp_path / "two.db")
    digest = run_digest(world.store, "gate-1")
    world.close_models()
    (made,) = replayed_elsewhere(tmp_path / "two.db", tmp_path, "gate-1")
    assert made["equal"] and made["digest"] == digest


async def test_a_packed_part_of_a_shared_memory_repeats(world, tmp_path):
    await world.learn("first", memory="shared")
    await world.learn("second", memory="shared")
    pack(world.store, "second", tmp_path / "p.db")
    world.close_models()
    (made,) = replayed_elsewhere(tmp_path / "p.db", tmp_path, "second")
    assert made["equal"], made["first_difference"]


SECRETS = ("sk-canary0123456789abcdef", "canaryvalue31415")


async def test_secrets_are_cut_out_of_a_packed_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_API_KEY", SECRETS[1])
    world = World(tmp_path, {"anchor": "117", f"basket, key {SECRETS[0]}": "211"})
    # A secret in every kind of text: a question, a reply, feedback, a step, a memory, a recipe.
    await world.learn()
    edit(
        world.path, "UPDATE replies SET reply = replace(reply, 'the code in the answer is wrong', ?)",
        f'see \\"https://x.example/?api_key={SECRETS[1]}\\" or {SECRETS[1]}\\nand Bearer {SECRETS[0]}\\n.',
    )  # fmt: skip
    edit(world.path, "UPDATE later_steps SET record = replace(record, 'is wrong', ?)", f"is {SECRETS[0]}")
    edit(world.path, "UPDATE feedback SET record = replace(record, 'wrong', ?)", f"wrong {SECRETS[1]}")
    edit(world.path, "UPDATE ops SET record = replace(record, 'the code', ?)", f"{SECRETS[0]} the code")
    edit(world.path, 'UPDATE runs SET recipe = replace(recipe, \'"about": ""\', ?)', f'"about": "{SECRETS[0]}"')
    edit(world.path, "UPDATE runs SET info = replace(info, '}', ?)", f', "note": "{SECRETS[1]}"}}')
    stored = world.path.read_bytes() + Path(f"{world.path}-wal").read_bytes()
    assert all(s.encode() in stored for s in SECRETS)
    card = pack(world.store, "run", tmp_path / "p.db")
    world.store.close()
    assert card["redacted"] > 6
    packed = b"".join(f.read_bytes() for f in tmp_path.glob("p.*"))
    assert not any(s.encode() in packed for s in SECRETS)
    assert f"was cut: {card['redacted']}." in (tmp_path / "p.md").read_text()
    with Store(tmp_path / "p.db") as store:
        for row in store.replies("run"):
            json.loads(row["reply"]), json.loads(row["request"])
        # What was cut out of a prompt is not there any more to be asked again, and that is told.
        world.close_models()
        with pytest.raises(ReplayMiss):
            await replay(store, "run")


async def test_what_was_cut_out_of_replies_only_still_repeats(world, tmp_path):
    await world.learn()
    edit(
        world.path, "UPDATE replies SET reply = replace(reply, 'the code in the answer is wrong', ?)",
        f'it is \\"Bearer {SECRETS[0]}\\"',
    )  # fmt: skip
    edit(
        world.path, "UPDATE later_steps SET record = replace(record, 'the code in the answer is wrong', ?)",
        f'it is \\"Bearer {SECRETS[0]}\\"',
    )  # fmt: skip
    edit(
        world.path, "UPDATE feedback SET record = replace(record, 'the code in the answer is wrong', ?)",
        f'it is \\"Bearer {SECRETS[0]}\\"',
    )  # fmt: skip
    assert (await replay(world.store, "run"))["equal"]
    pack(world.store, "run", tmp_path / "p.db")
    with Store(tmp_path / "p.db") as store:
        made = await replay(store, "run")
        assert made["equal"], made["first_difference"]
        assert "[secret]" in store.step(store.attempts("run")[0].id, STEPS[0]).text


def test_the_card_names_the_data_with_its_digest(tmp_path):
    data = tmp_path / "shop.sqlite"
    data.write_bytes(b"data")
    with Store(tmp_path / "v.db") as store:
        recipe = Recipe(app=AppTable(options={"db": str(data), "seconds": 3})).to_dict()
        store.start_run("r", recipe, {"models": {"m": ["m", "f00"]}})
        store.finish_run("r", "done")
        card = pack(store, "r", tmp_path / "p.db")
    assert card["data"]["db"].startswith("shop.sqlite sha256 ") and card["models"] == {"m": ["m", "f00"]}
    assert "* db: shop.sqlite sha256 " in (tmp_path / "p.md").read_text()
