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

from verbal.evaluate import interval
from verbal.store import Store

HERE = Path(__file__).parent
ARMS = ("base", "retry", "shuffled", "memory")
TOLD = (
    'critics.names=["sql_result","self_check","user"]', 'critics.verdict="sql_result"',
    "critics.options={user={simulated=true}}",
)  # fmt: skip
"""A person corrects, and gold decides: the embedded model can neither judge nor reflect without a right answer."""
METHODS: dict[str, tuple[str, ...]] = {
    "reflect": ("loop.epochs=2", "loop.batch=16", "loop.critique=false"),
    "reflexion": TOLD,
    "self_refine": ('critics.names=["sql_result","self_check"]', 'critics.verdict="self_check"'),
    "expel": ("loop.batch=16",),
    "tf_grpo": ("loop.epochs=1", "loop.batch=64"),
    "ace": ("loop.rounds=3", "loop.batch=16"),
    "reasoningbank": (*TOLD, "loop.batch=16"),
    "matts": (*TOLD[:2], TOLD[2], "loop.batch=16"),
    "memrl": (*TOLD, "loop.epochs=3", "loop.batch=16"),
    "gepa": (),
}
"""Recipe -> what is set otherwise for this model and for two cores."""
ALONE = ("reflexion", "self_refine")
"""Methods that keep nothing from task to task: they are run on the dev questions themselves."""


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
        work = {name: alone if name in ALONE else run for name in options.methods}
        made = pool.map(lambda name: work[name](name, Path(folder), options.train, options.seeds), options.methods)
        methods = dict(zip(options.methods, made, strict=True))
    found: dict[str, Any] = {"train": options.train, "seeds": options.seeds, "model": "embedded"}
    before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    if all(before.get(key) == value for key, value in found.items()):  # those that are not run again stay
        methods = {name: (before["methods"] | methods)[name] for name in METHODS if name in before["methods"] | methods}
    found["methods"] = methods
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(methods))


def run(name: str, folder: Path, train: int, seeds: int) -> dict[str, Any]:
    """One method: learns and scores in a process of its own, in a store of its own."""
    began = time.perf_counter()
    more = ("--limit", str(train), "--seeds", str(seeds), "--run", name)
    done = verbal(folder, "learn", name, *more)
    seconds = round(time.perf_counter() - began, 1)
    if done.returncode:
        return {"error": told(done.stderr), "set": list(METHODS[name]), "seconds": seconds}
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
        "set": list(METHODS[name]),
        "seconds": seconds,
    }  # fmt: skip


def alone(name: str, folder: Path, train: int, seeds: int) -> dict[str, Any]:
    """One method that keeps nothing: on dev questions, beside retry-only with as many attempts; gold scores both."""
    began = time.perf_counter()
    del train  # there is nothing to learn on
    gold = ("--set", 'critics.verdict="sql_result"')  # retry-only is told by gold, whatever the method believes
    done = verbal(folder, "eval", name, *gold, "--seeds", str(seeds), "--run", "retry")
    if done.returncode:
        return {"error": told(done.stderr), "set": list(METHODS[name])}
    arms = {a["name"]: [round(a[k], 4) for k in ("mean", "low", "high")] for a in json.loads(done.stdout)["arms"]}
    values: list[list[float]] = []
    for seed in range(seeds):
        more = ("--split", "dev", "--eval", "", "--seeds", "1", "--run", f"m{seed}", "--set", f"seed={seed}")
        done = verbal(folder, "learn", name, *more)
        if done.returncode:
            return {"error": told(done.stderr), "set": list(METHODS[name])}
        values.append(solved(folder / f"{name}.db", f"m{seed}"))
    mean = interval(values)
    return {
        **{arm: arms.get(arm) for arm in ARMS}, "shuffled": None,
        "memory": [round(x, 4) for x in (mean.mean, mean.low, mean.high)],
        "note": "the method on the dev questions themselves, beside retry-only with as many attempts",
        "set": list(METHODS[name]), "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def solved(path: Path, run: str) -> list[float]:
    """Whether the answer that a method chose is right by gold, task by task."""
    with Store(path) as store:
        chosen = [g.chosen or "" for g in sorted(store.groups(run), key=lambda g: g.task)]
        known = store.feedback(chosen)
        return [float(any(f.critic == "sql_result" and f.value == 1.0 for f in known[i])) for i in chosen]


def verbal(folder: Path, verb: str, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own."""
    sets = [part for item in METHODS[name] for part in ("--set", item)]
    command = [
        sys.executable,
        "-m",
        "verbal.cli",
        verb,
        "--recipe",
        name,
        "--store",
        str(folder / f"{name}.db"),
        "--json",
    ]
    return subprocess.run([*command, *sets, *more], cwd=folder, capture_output=True, text=True, check=False)


def told(stderr: str) -> list[str]:
    """The last lines of what a verb said."""
    return [line for line in stderr.strip().splitlines() if line.strip(" \u2500\u2502\u256d\u256e\u2570\u256f")][-4:]


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
