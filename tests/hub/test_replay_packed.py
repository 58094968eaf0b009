"""A packed run: one file that repeats by itself, on another machine, without what nobody should see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_world import World, edit

from verbal.errors import ConfigError, ReplayMiss
from verbal.recipe import AppTable, Recipe
from verbal.replay import STEPS, pack, replay, run_digest
from verbal.store import Store


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


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
    assert card["models"] == world.store.run("run")["info"]["models"] and list(card["models"]) == [
        world.recipe.model.name
    ]
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
