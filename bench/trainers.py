"""Every training method on the demo's tasks with the embedded model, on a CPU: before, after, and what it took.

Each seed begins with words: the agent learns on the train questions (recipe `reflect`, three attempts), and its traces
are what SFT, DPO, KTO, ReLIFT and SFT-then-RL read. Group methods sample for themselves; those that are compared stop
at the same number of generated tokens, critics and refinements counted. Scored on dev questions, one greedy answer
each, no memory. Two jobs run side by side, each on one core; finished jobs are kept in the work folder.

    python bench/trainers.py
    python bench/trainers.py --only grpo critique_grpo --seeds 0 --work FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
BUDGET = 40_000
"""Tokens that a group method may generate, those of critics, reflectors and refinements among them."""
GROUP = {"max_generated": BUDGET, "steps": 400, "tasks": 4, "max_tokens": 64, "entropy": 0.0, "learning_rate": 2e-3}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {},
    "kto": {},
    "grpo": GROUP,
    "critique_grpo": {**GROUP, "trigger": "wrong_only"},
    "r3l": GROUP,
    "relift": GROUP,
    "sft_then_rl": {},
    "retroformer": {},
}
"""Options of each method; everything else is the method's default."""


# one job, in a process of its own -------------------------------------------------------------------------------------


def learn(work: Path, seed: int) -> dict[str, Any]:
    """Traces of the agent's own learning in words, under the run `learn`."""
    from verbal.recipe import load_recipe
    from verbal.run import learn, open_workshop
    from verbal.store import Store

    sets = ["loop.rounds=3", "loop.critique=false", f"seed={seed}", "model.logprobs=true"]
    recipe = load_recipe("reflect", sets)
    began = time.perf_counter()

    async def run() -> Any:
        with Store(work / f"learn-{seed}.db") as store:
            async with open_workshop(recipe, store, run="learn") as shop:
                return await learn(shop, shop.app.tasks("train"), run="learn")

    made = asyncio.run(run())
    return {"tasks": made.tasks, "solved": made.solved, "seconds": round(time.perf_counter() - began, 1)}


def train(work: Path, name: str, seed: int) -> dict[str, Any]:
    """One method from the shipped weights, scored before and after."""
    from verbal.parts import make_part
    from verbal.recipe import load_recipe
    from verbal.store import Store

    recipe = load_recipe(name)
    method = make_part("trainers", recipe.trainer.name, **{**recipe.trainer.options, **METHODS[name]})
    out = work / f"{name}-{seed}"
    with Store(work / f"learn-{seed}.db") as store:
        rows = method.examples(store, run="learn")
    began = time.process_time()
    papers = method.train(rows, "embedded", str(out), seed=seed, recipe=recipe)
    found = {k: papers.get(k) for k in ("steps", "rows", "generated", "reward_first", "reward_last", "curve")}
    found["seconds"] = round(time.process_time() - began, 1)
    if name == "retroformer":
        return {**found, **retries(work, out, seed)}
    return {**found, "before": score(work, "embedded"), "after": score(work, f"embedded:{out}")}


def score(work: Path, model: str) -> list[float]:
    """1 or 0 for each dev question: one greedy answer, no memory."""
    from verbal.evaluate import evaluate_arm
    from verbal.recipe import load_recipe
    from verbal.run import open_workshop
    from verbal.store import Store

    recipe = load_recipe("reflect", ["memory.name=", "model.cache=off"])
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=model))

    async def run() -> Any:
        with tempfile.TemporaryDirectory(dir=work) as folder, Store(Path(folder) / "score.db") as store:
            async with open_workshop(recipe, store, run="score") as shop:
                tasks = shop.app.tasks("dev")
                return await evaluate_arm(shop, tasks, run="score", arm="score", seeds=[0], rounds=1)

    return list(asyncio.run(run()).first[0])


def retries(work: Path, out: Path, seed: int) -> dict[str, Any]:
    """Retroformer: dev questions solved within two attempts, with the reflector before and after, and without words."""
    raise NotImplementedError


# all of them ----------------------------------------------------------------------------------------------------------


def job(work: Path, name: str, seed: int) -> dict[str, Any]:
    """The result of a job: read when it is there, made in a new process otherwise."""
    kept = work / f"{name}-{seed}.json"
    if not kept.is_file():
        command = [sys.executable, __file__, "--work", str(work), "--job", name, "--seeds", str(seed)]
        with (work / f"{name}-{seed}.log").open("w") as log:
            done = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **ONE_THREAD}, check=False)
        if done.returncode:
            tail = (work / f"{name}-{seed}.log").read_text().strip().splitlines()[-1:]
            return {"error": tail[0] if tail else f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(kept.read_text())
    print(f"{name} {seed}: {line(found)}", flush=True)
    return found


ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}  # fmt: skip


def line(found: Mapping[str, Any]) -> str:
    """A job in a few words."""
    if "after" not in found:
        return ", ".join(f"{k} {v}" for k, v in found.items() if k != "curve")
    before, after = (statistics.fmean(found[k]) for k in ("before", "after"))
    told = f"{100 * before:.1f} -> {100 * after:.1f} in {found['seconds']} core-seconds"
    return f"{told}, {found['generated']} tokens generated" if found.get("generated") else told


def summary(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One method over its seeds: shares with the interval of `after`, the paired gain with its own."""
    from verbal.evaluate import difference, interval

    if failed := [j["error"] for j in jobs if "error" in j]:
        return {"before": None, "after": None, "ci_low": None, "ci_high": None, "seconds": None, "reason": failed[0]}
    before, after = [j["before"] for j in jobs], [j["after"] for j in jobs]
    share, gain = interval(after), difference(after, before)
    return {
        "before": interval(before).mean, "after": share.mean, "ci_low": share.low, "ci_high": share.high,
        "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high,
        "seconds": statistics.fmean(j["seconds"] for j in jobs),
        "generated": statistics.fmean(j["generated"] for j in jobs) if jobs[0].get("generated") else None,
        "steps": [j["steps"] for j in jobs], "seeds": len(jobs),
        "each": [statistics.fmean(a) for a in after],
        "curves": [thinned(j["curve"]) for j in jobs] if jobs[0].get("curve") else None,
    }  # fmt: skip


def thinned(curve: Sequence[Mapping[str, float]], points: int = 20) -> list[list[float]]:
    """At most so many points [tokens generated, mean reward since the point before]."""
    if "reward" not in curve[0]:
        return []
    size = max(1, len(curve) // points)
    parts = [curve[i : i + size] for i in range(0, len(curve), size)]
    return [[p[-1].get("generated", 0.0), round(statistics.fmean(x["reward"] for x in p), 4)] for p in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--job", default="")
    args = parser.parse_args()
    if args.job:
        made = learn(args.work, args.seeds[0]) if args.job == "learn" else train(args.work, args.job, args.seeds[0])
        (args.work / f"{args.job}-{args.seeds[0]}.json").write_text(json.dumps(made))
        return
    work = args.work or Path(tempfile.mkdtemp(prefix="bench-trainers-"))
    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        words = list(pool.map(lambda seed: job(work, "learn", seed), args.seeds))
        wanted = [(name, seed) for name in args.only for seed in args.seeds]
        made = dict(zip(wanted, pool.map(lambda w: job(work, *w), wanted), strict=True))
    found = {name: summary([made[name, seed] for seed in args.seeds]) for name in args.only}
    (RESULTS / "trainers_cpu.json").write_text(json.dumps({"budget": BUDGET, "words": words, "methods": found}, indent=1))
    for name, row in found.items():
        print(name, {k: v for k, v in row.items() if k != "curves"})


if __name__ == "__main__":
    main()
