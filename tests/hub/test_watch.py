"""`verbal watch`: what is known of a run under way and over, what is drawn of it, when it ends."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_world import World
from rich.console import Console
from told_world import told_world

from verbal import watch
from verbal.errors import DataError, UnknownName
from verbal.store import Store
from verbal.watch import Watched, line, run_watch, view, wilson


def drawn(seen: dict[str, Any], **more: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=110, highlight=False, markup=False).print(view(seen, **more))
    return out.getvalue()


def test_a_run_that_is_over(tmp_path: Path) -> None:
    world = told_world(tmp_path)
    seen = run_watch(str(tmp_path / "v.db"), "run", quiet=True)
    assert seen["ended"] and seen["status"] == "done"
    phases = {p["run"]: p for p in seen["phases"]}
    assert [(p["done"], p["total"], p["solved"]) for p in phases.values()] == [(8, 8, 8), (8, 8, 8), (48, 48, 16)]
    assert [(a["arm"], a["solved"]) for a in phases["run:eval"]["arms"]] == [
        ("retry", 0),
        ("shuffled", 0),
        ("memory", 16),
    ]
    assert phases["run"]["share"][1] == pytest.approx(wilson(8, 8)[1]) and seen["usage"]["solver"]["calls"] > 0
    assert seen["lessons"][0]["text"].startswith("the code of") and len(seen["lessons"]) == watch.NEWEST
    assert seen["failures"][0]["question"].startswith("Please tell") and seen["failures"][0]["why"]
    told = drawn(seen)
    for text in ("run:eval", "48/48", "memory", "100 % solved", "Newest lessons", "Newest failures", "solver"):
        assert text in told, text
    gate = Watched(world.store, "gate-1").snapshot()
    assert gate["ended"] and gate["phases"][0]["total"] >= gate["phases"][0]["done"] > 0
    assert "run:eval 48/48" in line(seen)


def test_it_ends_when_the_run_of_another_process_ends(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.store.start_run("early", world.recipe.to_dict(), {"command": "learn", "tasks": [], "parts": ["early:eval"]})
    looks = 0

    def learn() -> None:
        other = World(tmp_path)
        asyncio.run(other.learn("run"))
        other.store.close()

    worker = threading.Thread(target=learn)

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        worker.join(0.05)
        assert worker.is_alive() or looks < 400, "it goes on after the end"

    worker.start()
    while world.store.run("run") is None:
        worker.join(0.02)
        assert worker.is_alive()
    seen = run_watch(str(tmp_path / "v.db"), "run", quiet=False, sleep=sleep)
    worker.join()
    assert seen["ended"] and seen["phases"][0]["done"] == 8
    # between two parts of a run none is under way, and it is not over
    world.store.finish_run("early", "done")
    assert not Watched(world.store, "early").snapshot()["ended"]
    world.store.set_info("early", {"study": {}})
    assert Watched(world.store, "early").snapshot()["ended"]
    world.store.start_run("early:eval", {}, {"command": "eval"})
    assert not Watched(world.store, "early").snapshot()["ended"]
    world.store.finish_run("early:eval", "stopped")
    assert Watched(world.store, "early").snapshot()["ended"]


def test_a_run_without_anything_and_hostile_words(store: Store) -> None:
    store.start_run("bare\x1b[31m", {}, {"command": "learn"})
    seen = Watched(store, "bare\x1b[31m").snapshot()
    assert not seen["ended"] and seen["lessons"] == [] == seen["failures"]
    seen["lessons"] = [{"text": "[bold]\x1b[31m\nred", "when": "\u202e", "id": "r1", "memory": "m"}]
    told = drawn(seen, idle=watch.QUIET)
    assert "\x1b[31m" not in told and "[bold]␛[31m" in told and "is its process still there?" in told
    assert "\x1b" not in line(seen) or "bare" in line(seen)


def test_bad_input(tmp_path: Path, store: Store) -> None:
    with pytest.raises(DataError, match="no store"):
        run_watch(str(tmp_path / "none.db"), "run", quiet=True)
    with pytest.raises(UnknownName, match="nobody"):
        run_watch(str(tmp_path / "v.db"), "nobody", quiet=True)


@given(st.integers(1, 10**6), st.data())
def test_the_interval_holds_the_share(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count))
    share, low, high = wilson(right, count)
    assert 0.0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1.0


def test_the_verb_looks_once(tmp_path: Path, command: Any) -> None:
    told_world(tmp_path).store.close()
    code, made, _ = command("watch", "run", "--store", tmp_path / "v.db", "--json")
    assert code == 0 and made["ended"] and made["run"] == "run"
    code, out, _ = command("watch", "gate-1", "--once", "--store", tmp_path / "v.db")
    assert code == 0 and "gate-1" in out
