"""Memory on and off, base and trained weights: cells, effects with intervals, controls, resumed and replayed."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import absorbing
import pytest
from absorbing import APP, CODES, CRITIC, lesson

from verbal.errors import ConfigError
from verbal.evaluate import Scores, difference, interval, joined, spread
from verbal.parts import make_part
from verbal.store import Store
from verbal.two_by_two import CELLS, square
from verbal.two_by_two_figure import effects_table, figure, square_table
from verbal.types import Attempt, MemoryOp, Reflection, StopReason

TASKS = ("t0", "t1", "t2", "t3")


def arm(name, *rows, tasks=TASKS):
    made = tuple(tuple(map(float, row)) for row in rows)
    return Scores(name, tasks, made, made, 1.0)


def four(off, on, trained, both):
    return {n: arm(n, *rows) for n, rows in zip(CELLS.values(), (off, on, trained, both), strict=True)}


GRID = four(
    [[0, 0, 0, 1], [0, 0, 1, 0]],
    [[1, 1, 0, 1], [1, 1, 1, 0]],
    [[1, 0, 0, 1], [1, 0, 0, 1]],
    [[1, 1, 0, 1], [1, 0, 0, 1]],
)


# the figures ------------------------------------------------------------------------------------------------------


def test_effects_are_differences_of_the_cells():
    made = square(GRID)
    mean = {(c["weights"], c["memory"]): c["mean"] for c in made["cells"]}
    effects = {e["name"]: e for e in made["effects"]}
    a, b, c, d = (mean[cell] for cell in CELLS)
    assert (a, b, c, d) == (0.25, 0.75, 0.5, 0.625)
    assert effects["memory"]["mean"] == pytest.approx(((b - a) + (d - c)) / 2)
    assert effects["weights"]["mean"] == pytest.approx(((c - a) + (d - b)) / 2)
    assert effects["interaction"]["mean"] == pytest.approx((d - c) - (b - a))
    assert effects["weights alone - memory alone"]["mean"] == pytest.approx(c - b)
    assert made["tasks"] == 4 and made["seeds"] == 2 and "fewer than 3 seeds" in made["words"]


def test_intervals_are_those_of_the_evaluation_paired_over_tasks_and_seeds():
    made = square(GRID)
    for cell in made["cells"]:
        found = interval(GRID[cell["arm"]].first)
        assert (cell["mean"], cell["low"], cell["high"]) == (found.mean, found.low, found.high)
    effects = {e["name"]: e for e in made["effects"]}
    paired = difference(GRID["memory"].first, GRID["retry"].first)
    for end in ("mean", "low", "high"):
        assert effects["memory, base weights"][end] == pytest.approx(getattr(paired, end))


def test_what_gives_the_same_twice_does_not_add_up():
    rows = [[0, 0, 0, 0]] * 3, [[1, 1, 1, 1]] * 3
    made = square(four(rows[0], rows[1], rows[1], rows[1]))
    assert {e["name"]: e["mean"] for e in made["effects"]}["interaction"] == -1.0
    assert "less than the sum" in made["words"] and "No claim" not in made["words"]
    assert "more than the sum" in square(four(rows[0], rows[0], rows[0], rows[1]))["words"]
    assert "not decided" in square(four(rows[0], rows[0], rows[1], rows[1]))["words"]


def test_cells_of_other_tasks_are_refused():
    with pytest.raises(ConfigError, match="distilled"):
        square({k: v for k, v in GRID.items() if k != "distilled"})
    with pytest.raises(ConfigError, match="same tasks"):
        square({**GRID, "memory": arm("memory", [1, 1, 1, 1], [1, 1, 1, 1], tasks=("a", "b", "c", "d"))})
    with pytest.raises(ConfigError, match="same tasks"):
        square({**GRID, "memory": arm("memory", [1, 1, 1, 1])})


def test_seeds_scored_one_by_one_are_one_arm():
    one, two = arm("x", [1, 0, 0, 0]), arm("x", [0, 1, 1, 1])
    both = joined("x", [one, two])
    assert both.first == (*one.first, *two.first) and both.tasks == TASKS and both.attempts == 1.0
    assert spread([1, 2, 3, 4, 5, 6], 3) == [1, 3, 5] and spread([1, 2], 9) == [1, 2]


def test_the_picture_stands_alone_and_holds_every_number():
    results = {"title": "A <b> & c", "subtitle": "s", "two_by_two": square(GRID), "arms": []}
    text = figure(results)
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "A <b> & c" in "".join(root.itertext())
    words = "".join(root.itertext())
    for cell in results["two_by_two"]["cells"]:
        assert (
            f"{100 * cell['mean']:.1f} %" in words and f"{100 * cell['low']:.1f} to {100 * cell['high']:.1f}" in words
        )
    assert "prefers-color-scheme: dark" in text
    assert "<script" not in text and "href" not in text and "url(" not in text and "@import" not in text
    assert square_table(results["two_by_two"]).row_count == 3 and effects_table(results["two_by_two"]).row_count == 3


# the command ------------------------------------------------------------------------------------------------------

HERE = ("--store", "v.db", "--recipe", "ways.toml")
DRAW = ("two-by-two", "--memory", "m", "--base", f"{absorbing.__file__}:KnowsNothing", *HERE)
MODEL = ("--model", f"{absorbing.__file__}:KnowsAnchor")


@pytest.fixture
def world(tmp_path, monkeypatch, command):
    """A store whose memory knows two of three codes, and a command to run in its folder."""
    monkeypatch.chdir(tmp_path)
    Path("ways.toml").write_text(
        f'[app]\nname = "{APP}"\n[critics]\nnames = ["{CRITIC}"]\nverdict = "{CRITIC}"\n'
        '[memory]\nname = "exact"\n[loop]\nbatch = 8\n'
    )
    with Store("v.db") as store:
        memory = make_part("memory", "exact", store=store, name="m")
        ops = [MemoryOp(op="ADD", item=Reflection(id="", text=lesson(w)), author="user") for w in ("anchor", "basket")]
        asyncio.run(memory.apply(ops))
        memory.close()
    return command


def test_one_command_scores_the_cells_and_their_controls_and_draws(world):
    code, made, err = world(*DRAW, *MODEL, "--limit", "9", "--json")
    assert code == 0, err
    cells = {(c["weights"], c["memory"]): c for c in made["two_by_two"]["cells"]}
    third = pytest.approx(1 / 3)
    assert [cells[c]["mean"] for c in CELLS] == [0.0, pytest.approx(2 / 3), third, pytest.approx(2 / 3)]
    assert cells["base", "on"]["low"] < 2 / 3 < cells["base", "on"]["high"] and made["two_by_two"]["seeds"] == 3
    arms = {a["name"]: a for a in made["arms"]}
    assert set(arms) == {"base", "retry", "shuffled", "memory", "distilled", "distilled+memory"}
    assert (arms["retry"]["mean"], arms["retry"]["attempts"]) == (0.0, 2.0)
    assert made["claim_holds"] and "One training" in " ".join(made["notes"])
    written = json.loads(Path(made["numbers"]).read_text())
    assert written["two_by_two"] == made["two_by_two"] and ET.parse(made["figure"]).getroot().tag.endswith("svg")
    code, out, err = world(*DRAW, *MODEL, "--limit", "9")
    assert code == 0 and "memory off" in out and "weights add" in out and "interaction" in out, err
    with Store("v.db") as store:
        assert store.run("two-by-two")["status"] == "done"
    code, found, err = world("replay", "two-by-two", "--store", "v.db", "--json")
    assert code == 0 and found["equal"] and found["runs"][0]["model_calls"] == 0, err
    code, _, err = world("report", "two-by-two", "--store", "v.db")
    assert code == 0, err


def test_weights_and_memories_may_be_one_for_each_seed(world):
    more = ("--model", f"{absorbing.__file__}:KnowsNothing", "--memory", "m@0")
    small = (*DRAW, *MODEL, *more, "--seeds", "2", "--limit", "6", "--json")
    code, made, err = world(*small, "--rounds", "1")
    assert code == 0, err
    cells = {(c["weights"], c["memory"]): c["per_seed"] for c in made["two_by_two"]["cells"]}
    third, two = pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert [cells[c] for c in CELLS] == [[0.0, 0.0], [two, 0.0], [third, 0.0], [two, 0.0]]
    assert not any("One" in note for note in made["notes"]) and not made["claim_holds"]
    code, _, err = world(*small, "--rounds", "2")
    assert code == 2 and "rounds" in err, "the same run is not another one"


def test_a_dry_run_calls_nothing(world):
    code, made, err = world(*DRAW, *MODEL, "--limit", "6", "--dry-run", "--json")
    assert code == 0 and made["tasks"] == 6 and made["estimate"]["calls_high"] == 6 * 3 * 5 * 2, err
    with Store("v.db") as store:
        assert store.runs() == [] and store.usage() == {}
    assert list(Path().glob("*.svg")) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*MODEL, "--split", "test"), "sealed"),
        ((), "no distilled weights"),
        ((*MODEL, *MODEL), "2 weights"),
        ((*MODEL, "--memory", "other"), "no memory 'other'"),
        ((*MODEL, "--out", "x.png"), ".svg"),
        ((*MODEL, "--max-calls", "0"), "budget"),
    ],
)
def test_bad_input_is_refused_before_a_call(world, options, words):
    code, _, err = world(*DRAW, *options, "--json")
    assert code == 2 and words in err, err
    with Store("v.db") as store:
        assert store.usage() == {}


def test_weights_are_not_judged_on_what_they_were_trained_on(world, monkeypatch):
    with Store("v.db") as store:
        for word in CODES:
            made = Attempt(id=f"a/{word}", run="a", task=f"dev0-{word}", model="x", stop=StopReason.ANSWERED)
            store.put_attempt(made)
        store.put_checkpoint("c", "nowhere", {"attempts": ["a/anchor"]})
    # Only the papers matter here, and there are no weights.
    monkeypatch.setattr("verbal.versions.read_checkpoint", lambda store, name: ("x", {"weights": {}}))
    code, _, err = world(*DRAW, "--model", "checkpoint:c", "--json")
    assert code == 2 and "was trained on 1 of" in err
