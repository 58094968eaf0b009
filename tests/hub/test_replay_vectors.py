"""Vectors are part of what a run made: they repeat, they are handed on, and one that was changed is told."""

from __future__ import annotations

import json
import sqlite3
import struct
from contextlib import closing

import pytest
from recorded_world import World

from verbal.replay import pack, replay, run_digest
from verbal.store import Store


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


async def test_a_vector_that_was_changed_is_told(world):
    await world.learn()
    digest = run_digest(world.store, "run")
    (first, *_) = world.store.vectors("run")
    with closing(sqlite3.connect(world.path)) as db, db:
        changed = bytes([first.vector[0] ^ 1]) + first.vector[1:]
        db.execute("UPDATE vectors SET vector = ? WHERE memory = 'run' AND version = ?", (changed, first.version))
    made = await replay(world.store, "run")
    assert not made["equal"] and made["first_difference"].startswith("memory: replayed")
    assert [k for k, v in made["sections"].items() if not v["equal"]] == ["memory"]
    assert run_digest(world.store, "run") == made["recorded_digest"] != digest


async def test_a_log_whose_operations_hold_their_vectors_repeats_as_the_same(world):
    await world.learn()
    digest, vectors = run_digest(world.store, "run"), world.store.vectors("run")
    assert vectors
    with closing(sqlite3.connect(world.path)) as db, db:
        for version, _, vector in vectors:
            where = "WHERE memory = 'run' AND version = ?"
            ((text,),) = db.execute(f"SELECT record FROM ops {where}", (version,)).fetchall()
            record = json.loads(text)
            record["item"]["embedding"] = [round(x, 6) for x in struct.unpack(f"<{len(vector) // 4}f", vector)]
            text = json.dumps(record, sort_keys=True, separators=(",", ":"))
            db.execute(f"UPDATE ops SET record = ? {where}", (text, version))
        db.execute("DELETE FROM vectors")
    assert world.store.vectors("run") == [] and run_digest(world.store, "run") == digest
    made = await replay(world.store, "run")
    assert made["equal"] and made["digest"] == digest


async def test_vectors_are_packed_with_their_operations(world, tmp_path):
    await world.learn()
    pack(world.store, "run", tmp_path / "packed.db")
    with Store(tmp_path / "packed.db") as store:
        assert store.vectors("run") == world.store.vectors("run") != []
        assert [v for v, op in store.ops("run") if op.item is not None] == [v.version for v in store.vectors("run")]
