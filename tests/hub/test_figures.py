"""The figures of a run: specifications that are complete, and the files that are drawn of them."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told_world import told_world

from verbal.errors import MissingExtra, StoreError
from verbal.figure_files import drawn, write_figures
from verbal.figures import GATES, SCHEMA, figures
from verbal.run_results import run_results

POINTS = [{"x": x, "y": 0.2 * x, "low": 0.1 * x, "high": 0.25 * x} for x in (1, 2, 3)]
RESULTS: dict[str, Any] = {
    "arms": [
        {"name": "memory", "label": "memory", "mean": 0.7, "low": 0.6, "high": 0.8},
        {"name": "retry", "mean": None},
    ],
    "differences": [{"name": "memory - retry-only", "mean": -0.4, "low": -0.5, "high": -0.3}],
    "attempt_curves": [{"arm": a, "label": a, "points": POINTS} for a in ("retry", "shuffled", "memory")],
    "learning_curves": [{"arm": "first", "label": "first attempt", "points": POINTS}],
    "lesson_counts": [{"x": 8, "active": 1, "quarantined": 2}],
    "two_by_two": {"cells": [{"weights": "base", "memory": "on", "mean": 0.5, "low": 0.4, "high": 0.6}]},
    "cost_gain": [{"name": "memory", "cost": 0.1, "tokens": 9, "gain": 0.4, "low": 0.3, "high": 0.5}] * 2,
    "usage": {"solver": {"calls": 3, "prompt_tokens": 10, "completion_tokens": 5, "cost": 0.2}},
    "training": {"curve": [{"step": i, "loss": 3 - i} for i in range(3)]},
    "gates": [
        {"id": f"gate-{i}", "candidate": "c", "verdict": "accept", "threshold": 160.0, "wealth": [1.0, 9.0, 1e308]}
        for i in range(9)
    ],
}
NAMES = {"arms", "differences", "attempts", "learning", "lessons", "two_by_two", "cost_gain", "cost", "training"}


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, float) else []


def test_each_plot_is_a_specification_with_its_data() -> None:
    found = figures(RESULTS)
    assert set(found) == NAMES | {f"gate-{i}" for i in range(9 - GATES, 9)}
    for name, spec in found.items():
        assert spec["$schema"] == SCHEMA and spec["data"]["values"], name
        assert "url" not in json.dumps({k: v for k, v in spec.items() if k != "$schema"})
        json.dumps(spec, allow_nan=False)
    assert found["arms"]["data"]["values"] == [
        {"name": "memory", "mean": 0.7, "low": 0.6, "high": 0.8, "color": "#0b7a75"}
    ]
    assert found["differences"]["data"]["values"][0]["color"] == "#b3382c", "it does harm"
    assert [r["label"] for r in found["cost_gain"]["data"]["values"]] == ["memory, memory", ""]
    assert [r["wealth"] for r in found["gate-8"]["data"]["values"]] == [1.0, 1.0, 9.0], "what has no end is left out"
    assert figures({}) == {} and figures({"arms": [], "usage": {}, "gates": [{"id": "g", "wealth": []}]}) == {}
    assert list(figures({"curve": [{"tasks": 8, "share": 0.5}]})) == ["learning"], "of verbal demo"


@given(
    st.text(max_size=20),
    st.lists(st.tuples(st.floats(), st.floats() | st.none(), st.floats()), min_size=1, max_size=4),
)
def test_any_numbers_make_json_without_nan(text: str, points: list[tuple[float, float | None, float]]) -> None:
    curve = {"arm": text, "label": text, "points": [{"x": x, "y": y, "low": e, "high": e} for x, y, e in points]}
    results = {
        "attempt_curves": [curve], "arms": [{"name": text, "mean": y, "low": e} for _, y, e in points],
        "differences": [{"name": text, "mean": y, "low": e, "high": e} for _, y, e in points],
        "gates": [{"id": text, "wealth": [y for _, y, _ in points], "threshold": points[0][0]}],
        "cost_gain": [{"name": text, "cost": x, "tokens": x, "gain": y} for x, y, _ in points],
    }  # fmt: skip
    for name, spec in figures(results).items():
        json.dumps(spec, allow_nan=False)
        assert name.replace("-", "").replace("_", "").isalnum() and name == name.lower(), "it is the name of a file"


def test_files_of_a_run(tmp_path: Path) -> None:
    world = told_world(tmp_path)
    results = {**RESULTS, **run_results(world.store, world.store.run("run") or {})}
    results["arms"][0]["label"] = "</text><script>alert(1)</script>"
    found = write_figures(results, tmp_path / "figures")
    assert {p.name.split(".")[0] for p in found} == NAMES | {"gate-1"} and len(found) == 3 * (len(NAMES) + 1)
    for path in found:
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24])[0] > 1000
        elif path.suffix == ".svg":
            root = ElementTree.fromstring(data)
            assert root.tag.endswith("svg") and not [e for e in root.iter() if e.tag.endswith("script")]
        else:
            assert json.loads(data)["$schema"] == SCHEMA
    assert figures(results)["arms"] == json.loads((tmp_path / "figures" / "arms.vl.json").read_text("utf-8"))
    outside = {**figures(results)["arms"], "data": {"url": f"file://{tmp_path}/v.db"}}
    svg, _ = drawn(outside)
    assert "memory" not in svg, "nothing is loaded, whatever a specification names"
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write the figures"):
        write_figures(RESULTS, tmp_path / "file" / "figures")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtra, match=r"verbal\[plot\]"):
        write_figures(RESULTS, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
