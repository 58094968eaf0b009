"""Every in-context method on the demo's questions with the embedded model: four arms, three seeds, one table.

Each recipe learns on train questions (`verbal learn`, once for each seed) and is scored on dev questions: base,
retry-only with as many attempts, shuffled memory, memory. What a method cannot do here is part of the table: the
embedded model follows no free instructions, so methods whose gain comes from an LLM's own words (ACE's tags, ExpeL's
edits, GEPA's prompts) run on words compared by code, and Self-Refine has no memory at all.

    python bench/methods.py [--methods expel ace] [--train 259] [--seeds 3] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
METHODS = ("reflect", "reflexion", "self_refine", "expel", "tf_grpo", "ace", "reasoningbank", "matts", "memrl")
ARMS = ("base", "retry", "shuffled", "memory")


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--train", type=int, default=259, help="train questions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="methods side by side")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "methods.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        made = pool.map(lambda name: run(name, Path(folder), options.train, options.seeds), options.methods)
        methods = dict(zip(options.methods, made, strict=True))
    found = {"train": options.train, "seeds": options.seeds, "model": "embedded", "methods": methods}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(methods))


def run(name: str, folder: Path, train: int, seeds: int) -> dict[str, Any]:
    """One method: learns and scores in a process of its own, in a store of its own."""
    began = time.perf_counter()
    command = [
        sys.executable, "-m", "verbal.cli", "learn", "--recipe", name, "--store", str(folder / f"{name}.db"), "--run",
        name, "--limit", str(train), "--seeds", str(seeds), "--json", "--set", "loop.critique=false",
    ]  # fmt: skip
    if name == "self_refine":
        command[-1] = "loop.critique=true"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = round(time.perf_counter() - began, 1)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-3:], "seconds": seconds}
    made = json.loads(done.stdout)
    arms = {a["name"]: [round(a[k], 4) for k in ("mean", "low", "high")] for a in made.get("arms", [])}
    statuses = [x["status"] for x in made.get("lessons", [])]
    return {
        **{arm: arms.get(arm) for arm in ARMS},
        "gain_over_retry": next(
            ([round(d[k], 4) for k in ("mean", "low", "high")] for d in made.get("differences", [])
             if d["name"] == "memory - retry-only"), None,
        ),
        "claim": made.get("claim", ""),
        "attempts": {a["name"]: round(a["attempts"], 2) for a in made.get("arms", [])},
        "lessons": {s: statuses.count(s) for s in sorted(set(statuses))},
        "solved_while_learning": [x["solved"] for x in made.get("learned", [])],
        "seconds": seconds,
    }  # fmt: skip


def table(methods: dict[str, dict[str, Any]]) -> str:
    """The arms as Markdown, in per cent."""
    lines = [
        "| method | base | retry-only | shuffled | memory | memory - retry-only |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, made in methods.items():
        cells = [f"{100 * made[a][0]:.1f}" if made.get(a) else "–" for a in ARMS]
        gain = made.get("gain_over_retry")
        told = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * g for g in gain)) if gain else str(made.get("error", "–"))
        lines.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
