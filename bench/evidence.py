"""The figures of the evidence in one file, read from what the other benches wrote: bench/results/evidence.json.

    .venv/bin/python bench/evidence.py

Run it last: gate.py (error rates, power), ledger.py (overshoot), replay.py (equality), crash.py (kills, storm),
runner.py (throughput; needs `pip install -e '.[bench]'` for DSPy). A figure whose bench was not run is null, with the
reason beside it. Shares are fractions of 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

SOURCES = {
    "gate": ("false_accept", "fdr", "power_10pts_200", "tasks_ratio"),
    "ledger": ("ledger_overshoot",),
    "replay": ("replay_equal", "replay_network_calls"),
    "crash": ("kills", "lost", "duplicated", "paid_twice", "storm_unexplained"),
    "runner": ("runner_vs_asyncio_50ms", "runner_vs_langgraph_0ms", "runner_vs_dspy"),
}
"""Bench -> its figures here."""
NAMES = {"ledger_overshoot": "overshoot"}
"""Figures that their bench calls otherwise."""
GOALS = {
    "false_accept": ("<=", 0.05), "fdr": ("<=", 0.10), "power_10pts_200": (">=", 0.8), "tasks_ratio": ("<=", 0.7),
    "ledger_overshoot": ("<=", 0), "replay_equal": (">=", 1), "replay_network_calls": ("<=", 0), "kills": (">=", 50),
    "lost": ("<=", 0), "duplicated": ("<=", 0), "paid_twice": ("<=", 0), "storm_unexplained": ("<=", 0),
    "runner_vs_asyncio_50ms": (">=", 0.9), "runner_vs_langgraph_0ms": ("<=", 2.0), "runner_vs_dspy": (">=", 1.0),
}  # fmt: skip
"""What each figure should be."""


def main() -> None:
    """Collects, writes and prints."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for bench, keys in SOURCES.items():
        path = RESULTS / f"{bench}.json"
        made = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for key in keys:
            found[key] = made.get(NAMES.get(key, key))
            if found[key] is None:
                why = made.get("missing") or {}
                missing[key] = str(why.get(key) or f"bench/{bench}.py was not run, or did not measure it")
    missed = {k: v for k, v in found.items() if v is not None and not met(k, v)}
    found |= {"goals_missed": missed, "missing": missing}
    (RESULTS / "evidence.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def met(key: str, value: float) -> bool:
    """Whether a figure is what it should be."""
    sign, goal = GOALS[key]
    return value <= goal if sign == "<=" else value >= goal


if __name__ == "__main__":
    main()
