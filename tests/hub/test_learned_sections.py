"""The sections of a page that show curves, changes, attempts, sessions and trainings; pages of real runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import Reader
from told_world import told_world

from verbal.errors import DataError
from verbal.report import MAX_BYTES, page
from verbal.run_results import run_report_file, run_results

HOSTILE = "</title></style></svg></pre><script>alert(1)</script><img src=x onerror='a()'>\" ' & \x1b[31m\u202e\x00"
POINTS = [{"x": x, "y": 0.2 * x, "low": 0.1 * x, "high": 0.25 * x} for x in (1, 2, 3)]
CHANGE = {
    "change": "added",
    "id": "r1",
    "text": "active means K2",
    "status": "active",
    "shown": 3,
    "helped": 2,
    "when": "asked",
    "boundary": "not in logs",
    "why": "seen again",
    "before": "",
}
RESULTS: dict[str, Any] = {
    "attempt_curves": [
        {"arm": "retry", "label": "retry-only", "points": POINTS},
        {"arm": "shuffled", "label": "shuffled", "points": POINTS},
        {"arm": "memory", "label": "memory", "points": [{**p, "y": p["y"] + 0.1} for p in POINTS]},
    ],
    "training": {
        "checkpoint": "c1",
        "base": "embedded",
        "rows": 1234,
        "step": 9,
        "steps": 90,
        "curve": [{"step": i, "loss": 3 - 0.1 * i} for i in range(9)],
    },
    "turns": [
        {
            "question": "how many?",
            "status": "answered",
            "sql": True,
            "answer": "SELECT 1 FROM a",
            "result": "1 row",
            "said": [{"who": "up", "text": "right"}],
        }
    ],
    "learning_curves": [
        {"arm": "first", "label": "first attempt", "points": [{"x": 8, "y": 0.5, "low": 0.3, "high": 0.7}]}
    ],
    "lesson_counts": [{"x": 8, "active": 1, "quarantined": 2}, {"x": 16, "active": 3, "quarantined": 1}],
    "changes": [
        {
            "memory": "run",
            "from": 0,
            "to": 9,
            "counts": {"added": 1, "reworded": 1, "retired": 1},
            "items": [
                CHANGE,
                {**CHANGE, "change": "reworded", "before": "it was so"},
                {**CHANGE, "change": "retired", "text": "gone"},
            ],
        }
    ],
    "instructive": [
        {
            "kind": "transferred",
            "about": "a new task",
            "question": "How many active?",
            "said": [{"who": "critique", "text": "look at status"}],
            "before": {"attempt": "a", "answer": "SELECT 1", "ok": False, "result": "1"},
            "after": {"attempt": "b", "answer": "SELECT 2", "ok": True, "result": "2", "question": "And in Rome?"},
            "lesson": {"id": "r1", "text": "active means K2", "status": "active", "helped": 4},
        }
    ],
}
SECTIONS = [k for k in RESULTS if k != "lesson_counts"]


def read(results: dict[str, Any]) -> Reader:
    reader = Reader()
    reader.feed(page({"title": "t", **results}))
    reader.close()
    assert reader.open == []
    return reader


def test_the_sections_and_what_they_say() -> None:
    reader = read(RESULTS)
    words = reader.words()
    assert [a["id"] for a in reader.all("section")] == SECTIONS
    for text in (
        "retry-only", "shuffled", "60.0 %", "[30.0, 75.0]", "lessons believed", "1,234", "Loss", "how many?", "right",
        "added, believed", "put in other words", "it was so", "gone", "Not for: not in logs", "shown 3 times, helped 2",
        "look at status", "And in Rome?", "helped 4", "a new task",
        "version 0 to 9: 1 added, 1 put in other words, 1 retired",
    ):  # fmt: skip
        assert text in words, text
    labels = [a.get("aria-label") or "" for a in reader.all("svg")]
    assert any("retry-only from 20 % to 60 %" in label for label in labels)
    assert any(label.startswith("Lessons: 3 believed and 1 on trial") for label in labels)
    kinds = [a.get("class") or "" for a in reader.all("g")]
    assert {"c-control", "c-control dashed", "c-memory"} <= set(kinds), "lines of one colour are told apart"


def _poison(value: Any) -> Any:
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [_poison(v) for v in value]
    return {k: _poison(v) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_may_be_alone_and_hostile(name: str) -> None:
    more = {"lesson_counts": RESULTS["lesson_counts"]} if name == "learning_curves" else {}
    alone = read({name: RESULTS[name], **more})
    assert [a["id"] for a in alone.all("section")] == [name]
    bad = read(_poison({name: RESULTS[name]}) | more)
    assert {tag for tag, _ in bad.tags} <= {tag for tag, _ in alone.tags} | {"del", "i", "b"}
    assert not [a for _, attrs in bad.tags for a in attrs if a.startswith("on")]
    assert not {"\x1b", "\x00", "\u202e"} & set(page({"title": "t", **_poison({name: RESULTS[name]})}))


@settings(max_examples=40, deadline=None)
@given(
    st.text(max_size=40), st.lists(st.tuples(st.floats(0, 1e6), st.floats() | st.none(), st.floats(0, 1)), max_size=8)
)
def test_any_curve_makes_a_sound_page(text: str, points: list[tuple[float, float | None, float]]) -> None:
    curve = {"arm": text, "label": text, "points": [{"x": x, "y": y, "low": e, "high": e} for x, y, e in points]}
    results = {
        "attempt_curves": [curve],
        "learning_curves": [curve, curve],
        "turns": [{"question": text, "answer": text}],
    }
    for attrs in (reader := read(results)).all("circle") + reader.all("line") + reader.all("polyline"):
        assert not any("nan" in (v or "") or "inf" in (v or "") for v in attrs.values())


def test_a_huge_run_fits_and_says_what_it_leaves_out() -> None:
    results = copy.deepcopy(RESULTS)
    results["changes"] = [{**RESULTS["changes"][0], "items": [{**CHANGE, "text": "<&>" * 900}] * 250}] * 12
    results["instructive"] = RESULTS["instructive"] * 250
    results["turns"] = [{"question": "é" * 3000, "answer": "'<'" * 3000}] * 250
    results["attempt_curves"] = [{**RESULTS["attempt_curves"][0], "points": POINTS * 99}] * 250
    text = page({"title": "t", **results})
    assert len(text.encode()) < MAX_BYTES
    for noun in ("lessons", "earlier turns", "attempts", "arms"):
        assert f"more {noun} are not shown" in text, noun


def test_pages_of_every_kind_of_run(tmp_path: Path) -> None:
    world = told_world(tmp_path)
    store = world.store
    found = {r["id"]: run_results(store, r) for r in store.runs()}
    assert {"attempt_curves", "learning_curves", "changes", "instructive", "gates", "usage"} <= set(found["run"])
    assert "lessons" not in found["run"], "they are among the changes"
    for name, results in found.items():
        reader = read(results)
        regions = [a.get("aria-label") for a in reader.all("div") if a.get("role") == "region"]
        assert len(set(regions)) == len(regions), "a reader of the screen can tell the tables apart"
        assert len(reader.all("section")) >= (1 if name == "gate-1" else 3), name
    turn = {"attempt": "chat-1a2b3/chat:1/x/0.0", "status": "answered", "offers": {"run": {}}}
    turn["corrections"] = [{"kind": "words", "words": "shorter, please", "memory": "run"}]
    store.start_run("chat-1a2b3", {"name": "chat"}, {"command": "chat", "user": "ann", "turns": [turn]})
    attempt = store.attempts("run")[0].replace(id="chat-1a2b3/chat:1/x/0.0", run="chat-1a2b3", task="train-anchor")
    store.put_attempt(attempt)
    words = read(run_results(store, store.run("chat-1a2b3") or {})).words()
    assert "What was asked" in words and "What is the code of anchor?" in words and attempt.answer in words
    assert "shorter, please" in words and "answered" in words
    store.start_run(
        "distill-c1", {}, {"command": "distill", "checkpoint": "c1", "base": "b", "rows": 5, "step": [3, 9]}
    )
    words = read(run_results(store, store.run("distill-c1") or {})).words()
    assert "The training" in words and "step 3 steps 9" in words
    scores = {"before": {"mean": 0.1, "low": 0.0, "high": 0.2}, "after": {"mean": 0.6, "low": 0.4, "high": 0.8},
              "gain": {"mean": 0.5, "low": 0.3, "high": 0.7}, "tasks": 8}  # fmt: skip
    store.put_checkpoint("c1", "weights", {"scores": scores, "curve": [{"step": 1, "loss": 2}, {"step": 2, "loss": 1}]})
    words = read(run_results(store, store.run("distill-c1") or {})).words()
    assert "before training" in words and "60.0 %" in words and "+50.0" in words and "Loss" in words


def test_a_results_file_that_is_none(tmp_path: Path) -> None:
    for text in (None, "{", "[]"):
        path = tmp_path / "r.json"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        with pytest.raises(DataError, match="results"):
            run_report_file(path, None, quiet=True)
