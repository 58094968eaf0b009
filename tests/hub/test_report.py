"""The page of a run: its structure, its numbers, what hostile data cannot do, how it is written."""

from __future__ import annotations

import copy
import math
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import Reader

from verbal.errors import DataError, StoreError
from verbal.report import MAX_BYTES, page, write_report

RESULTS: dict[str, Any] = {
    "title": "Learning about a shop",
    "subtitle": "Sixty new questions",
    "model": "scripted",
    "run": "sample",
    "seeds": [0, 1, 2],
    "claim": "Memory beats retry-only by 41.2 points [33.0, 49.1]",
    "claim_holds": True,
    "arms": [
        {
            "name": "retry",
            "label": "Retry only",
            "about": "no memory",
            "mean": 0.302,
            "low": 0.24,
            "high": 0.37,
            "per_seed": [0.317, 0.283, 0.306],
            "attempts": 2.614,
            "tasks": 60,
        },
        {
            "name": "memory",
            "label": "With memory",
            "about": "lessons found",
            "mean": 0.714,
            "low": 0.642,
            "high": 0.781,
            "per_seed": [0.7, 0.733, 0.709],
            "attempts": 1.62,
            "tasks": 60,
        },
    ],
    "differences": [
        {"name": "memory - retry-only", "mean": 0.412, "low": 0.33, "high": 0.491},
        {"name": "shuffled - retry-only", "mean": -0.014, "low": -0.06, "high": 0.03},
        {"name": "tired - retry-only", "mean": -0.2, "low": -0.3, "high": -0.1},
    ],
    "by_kind": [{"kind": "with a business term", "arms": {"retry": 0.12, "memory": 0.74}, "tasks": 42}],
    "gates": [
        {
            "id": "g1",
            "at": "2026-03-04T11:20:31+00:00",
            "candidate": "14 lessons",
            "incumbent": "no memory",
            "verdict": "accept",
            "reason": "The wealth reached 61.3.",
            "margin": 0.02,
            "alpha": 0.05,
            "threshold": 60.0,
            "proposal": 2,
            "accepted_before": 1,
            "dev_uses": 3,
            "tasks": 80,
            "used": 4,
            "left_out": 1,
            "gain": {"mean": 0.182, "low": 0.041, "high": 0.31},
            "wealth": [1.4, 0.8, 20.0, 61.3],
            "guard": {"name": "old tasks", "tasks": 40, "mean": 0.0, "low": -0.01, "high": 0.02, "margin": 0.03},
            "cost": {"calls": 8, "cost": 0.2},
        }
    ],
    "versions": [
        {"number": 1, "at": "2026-03-04", "action": "promote", "policy": "p", "evidence": "g1", "active": True}
    ],
    "sealed": [{"version": 1, "at": "2026-03-05", "run": "r", "mean": 0.66, "low": 0.6, "high": 0.72, "tasks": 120}],
    "curve": [{"tasks": 8 * i, "share": 0.1 * i, "lessons": 3 * i} for i in range(1, 9)],
    "lessons": [
        {
            "id": "r1",
            "text": "Active means ordered lately",
            "question": "Who is active?",
            "status": "active",
            "shown": 41,
        }
    ],
    "examples": [
        {
            "question": "How many active customers?",
            "before": {"sql": "SELECT 1 FROM a WHERE b < 'x'", "ok": False, "result": "0"},
            "after": {"sql": "SELECT COUNT(*) FROM a", "ok": True, "result": "128"},
            "hints": ["Active means ordered lately"],
        }
    ],
    "cost_gain": [{"name": "memory", "cost": 0.1, "tokens": 90, "calls": 9, "gain": 0.4, "low": 0.3, "high": 0.5}],
    "usage": {
        "solver": {"calls": 1412, "prompt_tokens": 412003, "completion_tokens": 20114, "cost": 0.25, "seconds": 41.2},
        "reflector": {"calls": 57, "prompt_tokens": 21003, "completion_tokens": 1604, "cost": None, "seconds": 2.9},
    },
    "timing": [{"stage": "learn", "seconds": 21.9}, {"stage": "evaluate", "seconds": 33.1}],
    "notes": ["Gold answers decide."],
    "command": "verbal demo --seeds 3",
}
SECTIONS = [k for k in RESULTS if k not in ("title", "subtitle", "model", "run", "seeds", "claim", "claim_holds")]
HOSTILE = "</title></style></svg></pre><script>alert(1)</script><img src=x onerror='a()'>\""
HOSTILE += " onload=\"b() ' & \x1b[31m\u202e\x00"


def read(results: dict[str, Any]) -> Reader:
    reader = Reader()
    reader.feed(page(results))
    reader.close()
    assert reader.open == []
    return reader


def test_the_whole_page_has_its_sections_and_numbers() -> None:
    reader = read(RESULTS)
    words = reader.words()
    assert [a["id"] for a in reader.all("section")] == SECTIONS
    assert len(reader.all("h1")) == 1 and len(reader.all("h2")) == len(SECTIONS)
    for text in (
        "The claim holds", RESULTS["claim"], "71.4 %", "[64.2, 78.1]", "70.0, 73.3, 70.9", "2.61",
        "+41.2", "[+33.0, +49.1]",
        "−1.4", "74 %", "41 times", "1,412", "1,469", "433,006", "no price known", "$0.25", "0:41", "21.9 s", "55.0 s",
        "Gold answers decide.", "verbal demo --seeds 3", "0, 1, 2", "128", "✗ wrong", "✓ right",
    ):  # fmt: skip
        assert text in words, text


def test_differences_are_told_in_words_not_by_colour_alone() -> None:
    words = read({"title": "t", "differences": RESULTS["differences"]}).words(within="small")
    assert words.index("above zero") < words.index("cannot be told from zero") < words.index("below zero")


def test_a_claim_that_does_not_hold_says_so() -> None:
    words = read({**RESULTS, "claim_holds": False}).words()
    assert "The claim is not shown" in words and "The claim holds" not in words
    assert "claim" not in read({"title": "t", "claim_holds": True}).words()


def test_the_page_needs_nothing_from_elsewhere() -> None:
    reader = read(RESULTS)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in reader.tags}
    assert all((a.get("href") or "").startswith("#") for a in reader.all("a"))
    ids = {attrs["id"] for _, attrs in reader.tags if "id" in attrs}
    assert {(a["href"] or "")[1:] for a in reader.all("a")} <= ids
    assert not re.search(r"url\(|@import|https?:|//", files("verbal").joinpath("report.css").read_text("utf-8"))
    policy = next(a for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (policy["content"] or "")


def test_it_can_be_read_without_seeing_it() -> None:
    reader = read(RESULTS)
    assert reader.all("html")[0]["lang"] == "en"
    assert len(reader.all("caption")) == len(reader.all("table")) == 6
    assert all(a.get("scope") in ("col", "row") for a in reader.all("th"))
    for attrs in reader.all("svg"):
        nested = "preserveaspectratio" in attrs
        assert nested or attrs.get("aria-hidden") == "true" or attrs.get("aria-label") or attrs.get("class") == "track"
    labels = [a.get("aria-label") or "" for a in reader.all("svg")]
    assert "With memory: 71.4 % solved, interval [64.2, 78.1], seeds 70.0, 73.3, 70.9" in labels
    ids = {attrs["id"] for _, attrs in reader.tags if "id" in attrs}
    assert all(a["aria-labelledby"] in ids for a in reader.all("section"))


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_contrast_in_light_and_dark() -> None:
    css = files("verbal").joinpath("report.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 2 and "prefers-color-scheme: dark" in css
    grounds = {"ink": ("paper", "card", "faint", "claim", "open"), "soft": ("paper", "card"), "open-ink": ("open",)}
    grounds |= dict.fromkeys(("control", "weights", "bad", "good"), ("card",))
    grounds |= {"memory": ("card", "claim", "faint"), "both": ("card", "faint")}
    for block in blocks:
        colors = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for name, behind in grounds.items():
            for ground in behind:
                a, b = sorted((_luminance(colors[name]), _luminance(colors[ground])))
                assert (b + 0.05) / (a + 0.05) >= 4.5, (name, ground, colors[name], colors[ground])


@pytest.mark.parametrize("name", SECTIONS)
def test_any_section_may_be_missing_or_alone(name: str) -> None:
    missing = read({k: v for k, v in RESULTS.items() if k != name})
    assert name not in [a["id"] for a in missing.all("section")]
    alone = read({"title": "t", name: RESULTS[name]})
    assert [a["id"] for a in alone.all("section")] == [name]
    assert read({"title": "t", name: type(RESULTS[name])()}).all("section") == []


def _poison(value: Any) -> Any:
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [_poison(v) for v in value]
    return {k: _poison(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_hostile_strings_stay_text() -> None:
    clean, reader = read(RESULTS), read(_poison(RESULTS))
    tags = {tag for tag, _ in reader.tags}
    assert tags <= {tag for tag, _ in clean.tags}
    assert not [a for _, attrs in reader.tags for a in attrs if a.startswith("on")]
    assert "alert(1)" in reader.words()
    text = page(_poison(RESULTS))
    assert not {"\x1b", "\x00", "\u202e"} & set(text) and "␛[31m" in text


def test_hostile_names_of_arms_roles_and_kinds_stay_text() -> None:
    results = {
        "title": "t",
        "by_kind": [{"kind": "k", "arms": {HOSTILE: 0.5}, "tasks": 1}],
        "usage": {HOSTILE: RESULTS["usage"]["solver"]},
        "arms": [{"name": HOSTILE, "mean": 0.5}],
    }
    assert not {"script", "img"} & {tag for tag, _ in read(results).tags}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.floats() | st.none(), st.floats(0, 1), st.integers(0, 10**9))
def test_any_text_and_number_makes_a_sound_page(text: str, mean: float | None, end: float, count: int) -> None:
    results = {
        "title": text or "t",
        "arms": [{"name": text, "label": text, "mean": mean, "low": end, "high": end, "per_seed": [mean, end]}],
        "differences": [{"name": text, "mean": mean, "low": -end, "high": end}],
        "curve": [{"tasks": count, "share": end, "lessons": count}],
        "lessons": [{"id": text, "text": text, "shown": count}],
        "examples": [{"question": text, "before": {"sql": text, "ok": True, "result": text}}],
    }
    reader = read(results)
    assert len(reader.all("h2")) == 5
    for attrs in reader.all("circle") + reader.all("rect") + reader.all("line"):
        for value in attrs.values():
            assert "nan" not in (value or "") and "inf" not in (value or "")


def test_unknown_numbers_are_a_dash_not_a_zero() -> None:
    words = read({"title": "t", "arms": [{"name": "base", "mean": math.nan, "per_seed": [None]}]}).words()
    assert "–" in words and "0.0 %" not in words


def test_marks_stand_where_the_numbers_are() -> None:
    reader = read({"title": "t", "arms": [RESULTS["arms"][1]]})
    mean = next(a for a in reader.all("circle") if a.get("class") == "mean")
    assert mean["cx"] == "71.40%"
    assert [a["cx"] for a in reader.all("circle") if a.get("class") == "seed"] == ["70.00%", "73.30%", "70.90%"]
    whisker = next(a for a in reader.all("line") if (a["x1"], a["x2"]) == ("64.20%", "78.10%"))
    assert whisker["y1"] == whisker["y2"] == "50%"


def test_zero_is_on_the_axis_of_differences_even_when_all_are_above() -> None:
    reader = read({"title": "t", "differences": RESULTS["differences"][:1]})
    assert "0" in reader.words(within="text").split()
    assert any(a.get("class") == "zero" for a in reader.all("line"))


def test_one_point_and_many_points_make_a_curve() -> None:
    one = read({"title": "t", "curve": [{"tasks": 8, "share": 0.5}]})
    assert len(one.all("polyline")) == 1
    many = read({"title": "t", "curve": [{"tasks": i, "share": 0.5, "lessons": i} for i in range(1, 5000)]})
    points = (many.all("polyline")[0]["points"] or "").split()
    assert len(points) <= 201 and points[-1].startswith("100.00,")


def test_a_huge_run_is_cut_and_says_so() -> None:
    results = copy.deepcopy(RESULTS)
    results["lessons"] = [{"id": f"r{i}", "text": "'&<>\"" * 800, "question": "é" * 3000} for i in range(3000)]
    results["examples"] = [
        {
            **RESULTS["examples"][0],
            "before": {"sql": "'<'" * 9000, "ok": False, "result": "&" * 9000},
            "hints": ["&" * 999] * 99,
        }
    ] * 400
    results["arms"] = RESULTS["arms"] * 400
    results["by_kind"] = [{"kind": "<" * 999, "arms": {f"a{i}": 0.5 for i in range(300)}, "tasks": 1}] * 300
    text = page(results)
    assert len(text.encode()) < MAX_BYTES
    words = read(results).words()
    assert "more lessons are not shown" in words and "more examples are not shown" in words and "…" in words


def test_a_page_of_a_usual_run_is_small() -> None:
    assert len(page(RESULTS).encode()) < 60_000


@pytest.mark.parametrize(
    ("results", "word"),
    [
        ({}, "'title'"),
        ({"title": "t", "arms": [{"name": "a", "mean": "much"}]}, "'arms'"),
        ({"title": "t", "arms": 3}, "'arms'"),
        ({"title": "t", "usage": {"solver": {"cents": 3}}}, "'usage'"),
        ({"title": "t", "timing": [{"stage": "x"}]}, "'timing'"),
        ({"title": "t", "curve": [{"share": 0.5}]}, "'curve'"),
    ],
)
def test_results_of_the_wrong_kind_are_refused_by_name(results: dict[str, Any], word: str) -> None:
    with pytest.raises(DataError) as caught:
        page(results)
    assert word in caught.value.what


def test_it_is_written_whole(tmp_path: Path) -> None:
    path = write_report(RESULTS, tmp_path / "new" / "deep" / "report.html")
    assert path.read_text("utf-8") == page(RESULTS)
    write_report({"title": "second"}, str(path))
    assert "second" in path.read_text("utf-8")
    assert os.listdir(path.parent) == ["report.html"]


def test_a_path_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "report.html", tmp_path, Path("/proc/none/report.html")):
        with pytest.raises(StoreError) as caught:
            write_report(RESULTS, path)
        assert caught.value.where == str(path) and caught.value.todo
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_an_older_page_survives_results_that_cannot_be_shown(tmp_path: Path) -> None:
    path = write_report({"title": "first"}, tmp_path / "r.html")
    with pytest.raises(DataError):
        write_report({"title": "t", "arms": 3}, path)
    assert "first" in path.read_text("utf-8")
