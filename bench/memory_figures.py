"""The figures of the memory in one file, read from what the other benches wrote: bench/results/memory.json.

    .venv/bin/python bench/memory_figures.py

Run it last: memory.py (search at scale, peers), credit.py (who is believed), poison.py (hostile lessons), scope.py
(over-generalisation), methods.py (the recipes), audit.py (junk). A figure whose bench was not run is null, with the
reason beside it. Shares are fractions of 1; methods: arm -> share solved, null where a method has no such arm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

FIGURES: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "p95_ms_100k": ("memory_search", ("p95_ms_100k",)),
    "recall10_100k": ("memory_search", ("recall10_100k",)),
    "vs_bare_chroma": ("memory_search", ("vs_bare_chroma",)),
    "vs_langgraph_store": ("memory_search", ("vs_langgraph_store",)),
    "vs_mem0": ("memory_search", ("vs_mem0",)),
    "harmful_retired_share": ("credit", ("worlds", "harmful_retired_share", 0)),
    "false_retired_share": ("credit", ("worlds", "false_retired_share", 0)),
    "false_active_share": ("credit", ("worlds", "false_active_share_of_activated", 0)),
    "poison_cases": ("poison", ("cases",)),
    "poison_escapes": ("poison", ("escapes",)),
    "overgeneralisation_with": ("scope", ("obedient", "overgeneralisation_with")),
    "overgeneralisation_without": ("scope", ("obedient", "overgeneralisation_without")),
    "methods": ("methods", ("methods",)),
}
"""Figure -> its bench, and where it stands in its results."""
GOALS = {
    "p95_ms_100k": ("<=", 5.0), "recall10_100k": (">=", 0.95), "vs_bare_chroma": ("<=", 1.3),
    "poison_cases": (">=", 50),
    "poison_escapes": ("<=", 0),
}  # fmt: skip
"""What the issue asks for."""
ARMS = ("base", "retry", "shuffled", "memory")


def main() -> None:
    """Collects, writes and prints."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for key, (bench, path) in FIGURES.items():
        file = RESULTS / f"{bench}.json"
        made = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        found[key] = _at(made, path)
        if found[key] is None:
            why = (made.get("missing") or {}).get(key)
            missing[key] = str(why or f"the bench of results/{bench}.json was not run, or did not measure it")
    if found["methods"]:
        found["methods"] = {
            name: {arm: made[arm][0] if made.get(arm) else None for arm in ARMS}
            for name, made in found["methods"].items()
        }
    missed = {k: found[k] for k in GOALS if found[k] is not None and not _met(k, found[k])}
    found |= {"goals_missed": missed, "missing": missing}
    (RESULTS / "memory.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def _at(made: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        try:
            made = made[part]
        except (KeyError, IndexError, TypeError):
            return None
    return made


def _met(key: str, value: float) -> bool:
    sign, goal = GOALS[key]
    return value <= goal if sign == "<=" else value >= goal


if __name__ == "__main__":
    main()
