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
BUDGET = 16_000
"""Tokens that a group method may generate, those of critics, reflectors and refinements among them."""
GROUP = {"max_generated": BUDGET, "steps": 400, "group": 4, "tasks": 8, "max_tokens": 64, "entropy": 0.0,
         "learning_rate": 7e-4, "patience": 100}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {"steps": 80, "batch": 16, "learning_rate": 6e-3, "likelihood": 2.0, "beta": 1.0},
    "kto": {
        "steps": 130,
        "batch": 16,
        "learning_rate": 9e-3,
        "beta": 0.1,
        "desirable_weight": 1.0,
        "undesirable_weight": 0.1,
        "loss": "apo_zero_unpaired",
    },
    "grpo": GROUP,
    "critique_grpo": {**GROUP, "tries": 1},
    "critique_grpo.unshaped": {**GROUP, "tries": 1, "gamma": 0.0},
    "r3l": {**GROUP, "trigger": "reward"},
    "relift": {**GROUP, "group": 2, "tasks": 24, "buffer": 24, "learning_rate": 1e-3},
    "sft_then_rl": {"rl_options": {**GROUP, "tasks": 6, "learning_rate": 1e-3}},
    "retroformer": {"steps": 26, "tasks": 6, "group": 8, "temperature": 1.5, "max_tokens": 48, "learning_rate": 2e-3},
}
"""Options of each method; everything else is the method's default. What follows a dot names a variant."""
VERSUS = (("critique_grpo", "grpo"), ("critique_grpo.unshaped", "grpo"), ("r3l", "grpo"), ("sft_then_rl", "relift"),
          ("sft_then_rl", "sft"))  # fmt: skip
WARM = ("grpo", "critique_grpo", "critique_grpo.unshaped", "r3l")
"""Methods that begin at weights of a short SFT: the shipped ones fail nine train questions of ten in every sample."""


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


def warm(work: Path, seed: int) -> dict[str, Any]:
    """The weights that group methods begin with: four passes of SFT."""
    from verbal.parts import make_part
    from verbal.store import Store

    method = make_part("trainers", "sft", epochs=4.0)
    with Store(work / f"learn-{seed}.db") as store:
        papers = method.train(method.examples(store, run="learn"), "embedded", str(work / f"warm-{seed}"), seed=seed)
    return {"steps": papers["steps"], "rows": papers["rows"]}


def train(work: Path, name: str, seed: int) -> dict[str, Any]:
    """One method, scored before and after."""
    from verbal.parts import make_part
    from verbal.recipe import load_recipe
    from verbal.store import Store

    recipe = load_recipe(name.partition(".")[0])
    method = make_part("trainers", recipe.trainer.name, **{**recipe.trainer.options, **METHODS[name]})
    out, start = work / f"{name}-{seed}", f"embedded:{work / f'warm-{seed}'}" if name in WARM else "embedded"
    with Store(work / f"learn-{seed}.db") as store:
        rows = method.examples(store, run="learn")
    began = time.process_time()
    papers = method.train(rows, start, str(out), seed=seed, recipe=recipe)
    found = {k: papers.get(k) for k in ("steps", "rows", "generated", "reward_first", "reward_last", "curve")}
    found["seconds"] = round(time.process_time() - began, 1)
    if name == "retroformer":
        return {**found, **retries(work, out, seed)}
    return {**found, "before": score(work, start), "after": score(work, f"embedded:{out}")}


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
    from retroformer import within_two

    found = within_two(["embedded", f"embedded:{out}"], temperature=1.0, samples=4)
    trained = found.pop(f"embedded:{out}")
    return {"before": found.pop("embedded"), "after": trained, **found}


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


def difference_points(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """How many points `after` of one method lies above that of another, same seeds and questions."""
    from verbal.evaluate import difference

    if any("after" not in j for j in (*a, *b)):
        return None
    found = difference([j["after"] for j in a], [j["after"] for j in b])
    return {k: round(100 * v, 1) for k, v in dataclasses.asdict(found).items()}


KILLED = {"steps": 6, "tasks": 4, "max_tokens": 64, "save_steps": 2, "patience": 100, "learning_rate": 2e-3}


def resumed(work: Path) -> dict[str, Any]:
    """Whether a GRPO training that was killed (-9) after its fourth step and resumed is the one that was left alone."""
    import hashlib

    found: dict[str, Any] = {}
    for name in ("whole", "cut"):
        command = [sys.executable, __file__, "--work", str(work), "--job", name]
        environment = {**os.environ, **ONE_THREAD}
        done = subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL)
        if name == "cut":
            found["killed_by"] = -done.returncode
            done = subprocess.run([*command, "--resume"], env=environment, check=False, stderr=subprocess.DEVNULL)
        papers = json.loads((work / name / "verbal.json").read_text())
        found[name] = {
            "weights": hashlib.sha256((work / name / "model.safetensors").read_bytes()).hexdigest(),
            "curve": [{k: v for k, v in p.items() if k != "tokens_per_second"} for p in papers["curve"]],
        }
    found["equal"] = found["whole"] == found["cut"] and found["killed_by"] == 9
    return found


def killed_training(work: Path, name: str, resume: bool) -> None:
    """The training of `resumed`; `cut` kills its own process, as a machine that goes down would."""
    from verbal.parts import make_part
    from verbal.recipe import load_recipe
    from verbal.store import Store

    def watch(done: int, total: int, figures: Mapping[str, float]) -> None:
        if name == "cut" and not resume and done == 5:
            os.kill(os.getpid(), 9)

    method = make_part("trainers", "grpo", **KILLED)
    with Store(work / "learn-0.db") as store:
        rows = method.examples(store, run="learn")
    recipe = load_recipe("grpo")
    method.train(rows, "embedded", str(work / name), recipe=recipe, on_progress=watch, resume=resume)


GOLDEN = {
    "losses and credit": ["credit", "losses"], "grpo": ["group"], "critique_grpo": ["critique_grpo", "losses"],
    "r3l": ["r3l"],
    "relift": ["relift"], "sft_then_rl": ["sft_then_rl"], "retroformer": ["retroformer"], "mae": ["mae"],
    "c3po": ["c3po"], "dpo": ["pairs"], "kto": ["pairs"], "sdft": ["self_distillation"], "sdpo": ["self_distillation"],
    "cot_rl": ["cot_rl"], "sft": ["sft", "slots"],
}  # fmt: skip
"""Method -> files of its tests, `tests/trainers/test_trainers_NAME.py`."""


def tests_of_methods() -> dict[str, int]:
    """Method -> number of its tests; those hold the checks and golden values of its specification."""
    root = Path(__file__).resolve().parent.parent
    names = sorted({n for files in GOLDEN.values() for n in files})
    paths = [f"tests/trainers/test_trainers_{n}.py" for n in names]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *paths]
    text = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    counts = {
        n: sum(line.startswith(f"tests/trainers/test_trainers_{n}.py::") for line in text.splitlines()) for n in names
    }
    return {method: sum(counts[n] for n in files) for method, files in GOLDEN.items()} | {"all": sum(counts.values())}


def kept(name: str) -> dict[str, Any]:
    """Figures of another bench."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--job", default="")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    if args.job in ("whole", "cut"):
        killed_training(args.work, args.job, args.resume)
        return
    if args.job:
        prepared = {"learn": learn, "warm": warm}.get(args.job)
        made = prepared(args.work, args.seeds[0]) if prepared else train(args.work, args.job, args.seeds[0])
        (args.work / f"{args.job}-{args.seeds[0]}.json").write_text(json.dumps(made))
        return
    work = args.work or Path(tempfile.mkdtemp(prefix="bench-trainers-"))
    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        words = list(pool.map(lambda seed: job(work, "learn", seed), args.seeds))
        list(pool.map(lambda seed: job(work, "warm", seed), args.seeds if {*WARM} & {*args.only} else []))
        wanted = [(name, seed) for name in args.only for seed in args.seeds]
        made = dict(zip(wanted, pool.map(lambda w: job(work, *w), wanted), strict=True))
    jobs = {name: [made[name, seed] for seed in args.seeds] for name in args.only}
    methods = {name: summary(several) for name, several in jobs.items()}
    for name, row in methods.items():
        print(name, {k: v for k, v in row.items() if k != "curves"})
    if set(args.only) == set(METHODS):
        (RESULTS / "trainers.json").write_text(json.dumps(figures(work, words, jobs, methods), indent=1) + "\n")


def figures(work: Path, words: Any, jobs: Mapping[str, Any], methods: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that `bench/results/trainers.json` holds."""
    versus = {f"{a}_minus_{b}_points": difference_points(jobs[a], jobs[b]) for a, b in VERSUS}
    swap, again = kept("serve_swap"), resumed(work)
    return {
        "golden_values": tests_of_methods(),
        "methods": methods,
        **versus,
        "two_by_two": kept("two_by_two").get("two_by_two"),
        "resume_equal": again["equal"],
        "resume": {"killed_by": again["killed_by"], "weights": [again[n]["weights"] for n in ("whole", "cut")]},
        "swap_requests": swap.get("swap_requests"),
        "swap_failed": swap.get("swap_failed"),
        "swap_added_p95_ms": swap.get("swap_added_p95_ms"),
        "gpu": None,
        "gpu_reason": "no GPU was at hand",
        "lines_per_method": kept("trainer_lines").get("lines_per_method"),
        "budget": BUDGET,
        "words": words,
        "options": METHODS,
    }


if __name__ == "__main__":
    main()
