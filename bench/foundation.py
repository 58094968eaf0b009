"""The foundation's figures in one file, read from what the other benches wrote: bench/results/foundation.json.

    .venv/bin/python bench/foundation.py

Run it last: clone.py (demo, tests, coverage), embedded.py (accuracy), house.py (start-up), crash.py (kills). A figure
whose bench was not run is null, with the reason beside it. Shares are fractions of 1, differences are in points.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    """Collects, writes and prints."""
    demo, missing = read("demo"), {}
    arms = {a["name"]: a for a in demo.get("arms", ())}
    gains = {d["name"]: d for d in demo.get("differences", ())}
    embedded, clone, house, crash = (read(n) for n in ("embedded", "clone", "house", "crash"))
    found: dict[str, Any] = {
        "demo_seconds": clone.get("demo_seconds"),
        "test_seconds": clone.get("test_seconds"),
        "help_ms": house.get("help_ms"),
        "memory_minus_retry_points": points(gains, "memory - retry-only", "mean"),
        "memory_minus_retry_ci_low": points(gains, "memory - retry-only", "low"),
        "distilled_minus_base_points": points(gains, "distilled - base", "mean"),
        "distilled_minus_base_ci_low": points(gains, "distilled - base", "low"),
        **{key: at(embedded, *path) for key, path in EMBEDDED.items()},
        "kills": crash.get("kills"),
        "lost": crash.get("lost"),
        "duplicated": crash.get("duplicated"),
        "coverage": clone.get("coverage"),
    }
    for key, value in found.items():
        if value is None:
            missing[key] = "its bench was not run, or did not measure it"
    found["arms"] = {name: {k: arm[k] for k in ("mean", "low", "high")} for name, arm in arms.items()}
    found["missing"] = missing
    (RESULTS / "foundation.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


EMBEDDED = {
    "embedded_accuracy": ("synthetic", "held_out", "all"),
    "embedded_hint_accuracy": ("synthetic", "hints", "hint", "all"),
    "embedded_nohint_accuracy": ("synthetic", "hints", "no_hint", "all"),
    "embedded_distractor_accuracy": ("synthetic", "hints", "two_distractors", "all"),
    "embedded_spider_dev": ("spider_dev", "strict"),
}
"""Key -> where it stands in embedded.json."""


def at(tree: Any, *path: str) -> Any:
    """The value at a path of keys, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def read(name: str) -> dict[str, Any]:
    """What a bench wrote, or nothing."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def points(gains: dict[str, Any], name: str, key: str) -> float | None:
    """A difference in points."""
    return round(100 * gains[name][key], 2) if name in gains else None


if __name__ == "__main__":
    main()
