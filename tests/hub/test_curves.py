"""Curves of a run, what it changed in its memory, and its most instructive attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_world import World
from told_world import told_world

from verbal.curves import MOST_POINTS, attempt_curves, learning_curves, run_curves, verdicts
from verbal.instructive import KINDS, instructive
from verbal.memory_changes import changes, run_changes
from verbal.parts import make_part
from verbal.store import Store
from verbal.types import Attempt, Feedback, Group, MemoryOp, Reflection


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return told_world(tmp_path_factory.mktemp("told"))


def test_the_curves_of_a_run(world: World) -> None:
    found = run_curves(world.store, "run")
    arms = {c["arm"]: c for c in found["attempts"]}
    assert list(arms) == ["retry", "shuffled", "memory"] and arms["memory"]["label"] == "memory"
    assert [p["x"] for p in arms["retry"]["points"]] == [1, 2]
    assert {p["y"] for p in arms["retry"]["points"]} == {0.0} and {p["y"] for p in arms["memory"]["points"]} == {1.0}
    assert [c["arm"] for c in found["learning"]] == ["first", "within"]
    (point,) = found["learning"][1]["points"]
    assert (point["x"], point["y"], point["low"], point["high"]) == (8, 1.0, 1.0, 1.0)
    assert found["lessons"] == [{"x": x, "active": x, "quarantined": 0} for x in (3, 6, 8)]
    assert run_curves(world.store, "nobody") == {} and run_curves(world.store, "gate-1") == {}


def put(store: Store, run: str, arm: str, task: str, values: list[float | None]) -> None:
    ids = tuple(f"{run}/{arm}/{task}/{i}.0" for i in range(len(values)))
    for name, value in zip(ids, values, strict=True):
        store.put_attempt(
            Attempt(id=name, run=run, task=task, arm=arm), [Feedback(attempt=name, critic="v", value=value, reason="-")]
        )
    store.put_group(run, Group(task=task, attempts=ids, chosen=ids[-1]), key=arm)


@given(
    st.lists(
        st.lists(st.sampled_from([1.0, 0.0, None]), min_size=1, max_size=4), min_size=1, max_size=6
    ),
    st.integers(1, 3),
)  # fmt: skip
def test_more_attempts_never_solve_less(episodes: list[list[float | None]], seeds: int) -> None:
    given = {"retry": {str(s): {f"t{i}": values for i, values in enumerate(episodes)} for s in range(seeds)}}
    curves = attempt_curves(None, "run", given)  # type: ignore[arg-type]
    most = max(map(len, episodes))
    assert len(curves) == (most > 1)
    for curve in curves:
        ys = [p["y"] for p in curve["points"]]
        assert (
            len(ys) == most
            and ys == sorted(ys)
            and all(0 <= p["low"] <= p["y"] <= p["high"] <= 1 for p in curve["points"])
        )
        assert ys[0] == pytest.approx(sum(v[0] == 1.0 for v in episodes) / len(episodes))
        assert ys[-1] == pytest.approx(sum(1.0 in v for v in episodes) / len(episodes))


def test_a_run_under_way_has_curves_of_what_is_finished(store: Store) -> None:
    recipe = {"critics": {"verdict": "v"}, "loop": {"batch": 8, "epochs": 2}}
    tasks = [f"t{i}" for i in range(400)]
    for run in ("run", "run:1"):
        store.start_run(run, recipe, {"command": "learn", "arm": "learn", "tasks": tasks})
    assert learning_curves(store, ["run", "run:1"]) == []
    for task in tasks[:20]:
        put(store, "run", "learn", task, [0.0, 1.0])
    put(store, "run:1", "learn", "t0", [1.0])
    put(store, "run", "learn", "t300", [1.0])  # out of order: not in the curve yet
    first, within = learning_curves(store, ["run", "run:1"])
    assert [p["x"] for p in first["points"]] == [8, 16, 20] or [p["x"] for p in first["points"]] == [8, 20]
    assert {p["y"] for p in first["points"]} == {0.0} and {p["y"] for p in within["points"]} == {1.0}
    for arm in ("learn", "learn@2"):
        for task in tasks:
            if store.group("run", task, arm) is None:
                put(store, "run", arm, task, [1.0])
    (only,) = (c for c in learning_curves(store, ["run"]) if c["arm"] == "first")
    assert only["points"][-1]["x"] == 800 and len(only["points"]) <= MOST_POINTS + 1
    assert set(verdicts(store, "run")) == {"learn", "learn@2"}


async def test_what_became_of_each_item(store: Store) -> None:
    memory = make_part("memory", "exact", store=store, name="m", quarantine=False)

    def add(name: str, **more: object) -> MemoryOp:
        return MemoryOp(op="ADD", item=Reflection(id=name, text=f"words of {name}", **more), reason="new")

    await memory.apply([add("old"), add("gone"), add("same"), add("trial", status="quarantined")])
    begin = memory.version
    await memory.apply([
        add("fresh"), add("brief"), MemoryOp(op="RETIRE", reflection="brief", reason="a mistake"),
        MemoryOp(op="UPDATE", reflection="old", item=Reflection(id="old", text="better words"), reason="clearer"),
        MemoryOp(op="RETIRE", reflection="gone", reason="harmed"),
        MemoryOp(op="TAG", reflection="trial", tag="active", reason="it helps"),
        MemoryOp(op="TAG", reflection="same", tag="shown", reason="seen"),
    ])  # fmt: skip
    found = {i["id"]: i for i in changes(store, "m", begin, memory.version)}
    assert {k: v["change"] for k, v in found.items()} == {
        "fresh": "added", "old": "reworded", "trial": "believed", "gone": "retired", "brief": "retired",
    }  # fmt: skip
    assert (found["old"]["before"], found["old"]["text"], found["old"]["why"]) == (
        "words of old",
        "better words",
        "clearer",
    )
    assert found["gone"]["why"] == "harmed" and changes(store, "m", memory.version, memory.version) == []
    assert [i["id"] for i in changes(store, "m", 0, begin)] == ["old", "gone", "same", "trial"]
    memory.close()


def test_the_changes_of_a_run_and_of_a_session(world: World) -> None:
    first, second = run_changes(world.store, "run")
    assert (first["memory"], second["memory"], first["from"]) == ("run", "run:1", 0)
    assert first["counts"]["added"] == 8 and first["items"][0]["text"].startswith("the code of")
    store = world.store
    store.start_run("ask-later", {}, {"command": "ask", "answers": [{"memory": "run"}]})
    store.finish_run("ask-later", "done")
    assert run_changes(store, "ask-later") == [] == run_changes(store, "nobody")


def test_the_most_instructive_attempts(world: World) -> None:
    found = instructive(world.store, "run")
    assert [f["kind"] for f in found] == ["transferred"] * 3 and found == instructive(world.store, "run")
    one = found[0]
    word = one["lesson"]["text"].split()[3]
    assert one["about"] == KINDS["transferred"] and word in one["question"] and word in one["after"]["question"]
    assert not one["before"]["ok"] and one["after"]["ok"] and one["after"]["attempt"].startswith("run:eval/memory:")
    assert len({f["lesson"]["text"] for f in found}) == len({f["before"]["attempt"] for f in found}) == 3
    assert len(instructive(world.store, "run", 1)) == 1 and instructive(world.store, "nobody") == []
    (alone,) = instructive(world.store, "run:1", 1)
    assert (
        alone["kind"] == "retried" and alone["after"]["attempt"].endswith("/1.0") and "question" not in alone["after"]
    )
