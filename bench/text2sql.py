"""The figures of Text-to-SQL in one file, read from what the other benches wrote: bench/results/text2sql.json.

    .venv/bin/python bench/text2sql.py

Run it last: guard.py, evaluator.py, reward.py, executor.py, suite_making.py, transpile.py, ask.py, spider_dev.py (each
with `--data DIR`). A figure whose bench was not run is null, with the reason beside it. Shares are fractions of 1,
times milliseconds, rates per second; a ratio says how many times the peer's rate ours is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

FIGURES = {
    "gold_queries": "guard",
    "gold_refused": "guard",
    "attacks": "guard",
    "writes": "guard",
    "evaluator_pairs": "evaluator",
    "evaluator_disagreements": "evaluator",
    "pairs_per_s": "reward",
    "pairs_ratio_official": "reward",
    "suite_questions_per_s": "reward",
    "suite_ratio_official": "reward",
    "kill_p95_ms": "executor",
    "made_suite_recall": "suite_making",
    "duckdb_same_rows": "transpile",
    "postgres_same_rows": "transpile",
    "ask_p50_ms": "ask",
}
"""Figure -> its bench; the key is the same there."""
GOALS: dict[str, tuple[str, float]] = {
    "gold_refused": ("<=", 0), "writes": ("<=", 0), "attacks": (">=", 150), "evaluator_pairs": (">=", 20_000),
    "pairs_per_s": (">=", 1_000), "suite_questions_per_s": (">=", 200), "kill_p95_ms": ("<=", 500),
    "duckdb_same_rows": (">=", 0.9), "ask_p50_ms": ("<=", 30),
}  # fmt: skip
"""What the issue asks for."""


def main() -> None:
    """Collects, writes and prints."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for key, bench in FIGURES.items():
        made = _read(bench)
        found[key] = made.get(key)
        if found[key] is None:
            why = (made.get("missing") or {}).get(key)
            missing[key] = str(why or f"the bench of results/{bench}.json was not run, or did not measure it")
    arms = _read("spider_dev").get("arms") or {}
    found["spider_dev"] = {arm: made["ex"][0] if made.get("ex") else None for arm, made in arms.items()} or None
    missing |= {f"spider_dev.{arm}": made["reason"] for arm, made in arms.items() if made.get("reason")}
    missed = {k: found[k] for k in GOALS if found[k] is not None and not _met(k, found[k])}
    found |= {"goals_missed": missed, "missing": missing}
    (RESULTS / "text2sql.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for key, value in found.items():
        goal = f"  (goal {' '.join(map(str, GOALS[key]))})" if key in GOALS else ""
        print(f"{key:26} {value}{goal}")


def _read(bench: str) -> dict[str, Any]:
    file = RESULTS / f"{bench}.json"
    made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return made


def _met(key: str, value: float) -> bool:
    sign, goal = GOALS[key]
    return value <= goal if sign == "<=" else value >= goal


if __name__ == "__main__":
    main()
