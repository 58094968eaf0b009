"""Does credit by outcome find the lessons that help? Worlds with known helpful, useless and harmful items.

The worlds and the loop are those of `credit_world.py`: nothing but outcomes tells the items apart, log and credit are
the real ones. A few worlds run once more on a real memory in a store, which searches by words and vectors.

Arms, on the same tasks: no memory; similarity only (every item believed, the three most similar shown: what a memory
without credit does); credit while learning, trials and withholding included; credit as it would serve (believed items,
no lots); an oracle that believes the helpful ones only. Outcomes of arms are chances of success, not draws.

Headlines, fixed before measuring: shares over all items of a kind in all worlds at the end of a run, Wilson intervals
at 95 %; `false_active`: useless or harmful items that were believed at any time; outcomes are means over the last
quarter of the tasks, differences paired by world, 95 % intervals over worlds. The numbers of `OutcomeCredit` were
chosen on worlds 0 to 29; the bench runs on others. Writes bench/results/credit.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from credit_world import KINDS, WITHHOLD, Course, K, Real, Simulated, World, make_world, run
from numpy.random import Generator

from verbal.contracts import Trial
from verbal.memory.budget import over_budget
from verbal.memory.credit import OutcomeCredit
from verbal.memory.effects import effect, verdicts
from verbal.memory.log import LogState, replay
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

CELLS = ((0.45, 0.0), (0.8, 0.0), (0.1, 0.0), (0.45, 0.1), (0.45, 0.2), (0.45, 0.3), (0.45, 0.5), (0.75, 0.2),
         (0.45, -0.2), (0.45, -0.4))  # fmt: skip
"""Chance of success without an item, and its effect."""
FIRST = 1000
"""The first world."""

# figures --------------------------------------------------------------------------------------------------------------


def wilson(hits: int, count: int) -> list[float]:
    """The share and its 95 % interval."""
    if not count:
        return [math.nan, 0.0, 1.0]
    p, z = hits / count, 1.96
    middle, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return [round(x, 4) for x in (p, (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count))]


def mean_of(values: Sequence[float]) -> list[float]:
    """The mean over worlds and its 95 % interval."""
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    middle = float(np.mean(values))
    return [round(x, 4) for x in (middle, middle - half, middle + half)]


def shares(worlds: Sequence[World], courses: Sequence[Course]) -> dict[str, Any]:
    """What became of the items of each kind."""
    ends: dict[str, dict[str, int]] = {k: {"active": 0, "quarantined": 0, "retired": 0} for k in set(KINDS)}
    ever = dict.fromkeys(ends, 0)
    took: dict[str, list[int]] = {k: [] for k in ends}
    for world, course in zip(worlds, courses, strict=True):
        for name, kind in world.kinds.items():
            ends[kind][course.state.items[name].status] += 1
            ever[kind] += name in course.ever_active
            took[kind] += [course.decided[name]] if name in course.decided else []
    count = {k: sum(v.values()) for k, v in ends.items()}
    false = ever["useless"] + ever["harmful"]
    return {
        "helpful_active_share": wilson(ends["helpful"]["active"], count["helpful"]),
        "false_retired_share": wilson(ends["helpful"]["retired"], count["helpful"]),
        "harmful_retired_share": wilson(ends["harmful"]["retired"], count["harmful"]),
        "useless_retired_share": wilson(ends["useless"]["retired"], count["useless"]),
        "false_active_share_of_activated": wilson(false, sum(ever.values())),
        "false_active_share_of_useless_and_harmful": wilson(false, count["useless"] + count["harmful"]),
        "useless_ever_active_share": wilson(ever["useless"], count["useless"]),
        "harmful_ever_active_share": wilson(ever["harmful"], count["harmful"]),
        "undecided_share": {k: round(v["quarantined"] / count[k], 4) for k, v in sorted(ends.items())},
        "median_trials_to_decide": {k: median(v) for k, v in sorted(took.items()) if v},
        "items": dict(sorted(count.items())),
    }


def curves(world: World, lab: Simulated, course: Course) -> dict[str, list[float]]:
    """Chance of success on each task, by arm."""
    arms: dict[str, list[float]] = {"none": [], "similarity": [], "learning": course.learning, "served": course.served}
    arms["oracle"] = []
    for task in range(len(world.tasks)):
        ranked = lab.ranked(task)
        arms["none"].append(world.chance(task, []))
        arms["similarity"].append(world.chance(task, ranked[:K]))
        arms["oracle"].append(world.chance(task, [i for i in ranked if world.kinds[i] == "helpful"][:K]))
    return arms


async def tasks_of_families(options: argparse.Namespace, credit: OutcomeCredit) -> dict[str, Any]:
    """Many simulated worlds."""
    worlds, courses, ends, by_tenth = [], [], [], []
    for seed in range(FIRST, FIRST + options.seeds):
        world = make_world(seed, options.tasks)
        lab = Simulated(world, seed)
        course = await run(world, lab, credit, seed, options.batch)
        arms = curves(world, lab, course)
        by_tenth.append({a: [float(np.mean(part)) for part in np.array_split(v, 10)] for a, v in arms.items()})
        ends.append({a: float(np.mean(v[-len(v) // 4 :])) for a, v in arms.items()})
        worlds.append(world)
        courses.append(course)
    told = {arm: mean_of([e[arm] for e in ends]) for arm in ends[0]}
    for arm, other in (("served", "similarity"), ("served", "none"), ("learning", "similarity"), ("oracle", "served")):
        told[f"{arm} minus {other}"] = mean_of([e[arm] - e[other] for e in ends])
    curve = {a: [round(float(np.mean([c[a][i] for c in by_tenth])), 4) for i in range(10)] for a in by_tenth[0]}
    whole = {a: round(float(np.mean(v)), 4) for a, v in curve.items()}
    return {**shares(worlds, courses), "outcome_last_quarter": told, "outcome_by_tenth": curve, "outcome_all": whole}


async def on_a_real_memory(options: argparse.Namespace, credit: OutcomeCredit) -> dict[str, Any]:
    """A few worlds in a store, beside the same worlds simulated."""
    worlds, courses, twins, same = [], [], [], True
    began = time.perf_counter()
    for seed in range(FIRST, FIRST + options.real):
        world = make_world(seed, options.tasks)
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "v.db") as store:
            lab = Real(world, store)
            course = await run(world, lab, credit, seed, options.batch)
            same &= replay(lab.memory.history()) == dict(lab.memory.items())
            lab.memory.close()
        worlds.append(world)
        courses.append(course)
        twins.append(await run(world, Simulated(world, seed), credit, seed, options.batch))
    return {
        "worlds": options.real,
        "seconds": round(time.perf_counter() - began, 1),
        "log_replays_to_the_same_items": same,
        "real": shares(worlds, courses),
        "simulated": shares(worlds, twins),
    }


def lonely(
    credit: OutcomeCredit, rng: Generator, base: float, before: float, after: float, turn: int, most: int
) -> Any:
    """One helpful item: offers until active; it turns after `turn` more: offers until demoted, retired."""
    state = LogState()
    state.apply(MemoryOp(op="ADD", item=Reflection(id="r1", text="a lesson", status="quarantined")))
    events, gain, turned, offers = {}, before, None, 0
    while offers < most and state.items["r1"].status != "retired":
        if "active" in events and turned is None and offers - events["active"] >= turn:
            gain, turned = after, offers
        p = 1 - WITHHOLD if state.items["r1"].status == "active" else 0.5
        shown = ["r1"] if rng.random() < p else []
        outcome = float(rng.random() < base + (gain if shown else 0.0))
        for op in credit.observe(f"a{offers}", {"r1": p}, shown, outcome, state):
            state.apply(op)
        offers += 1
        for op in credit.settle(state) if offers % 8 == 0 else ():
            state.apply(op)
            if op.tag == "quarantined":
                events.setdefault("demoted" if turned is not None else "demoted early", offers - (turned or 0))
            elif op.tag == "active":
                events.setdefault("active", offers)
            elif turned is not None:
                events.setdefault("retired", offers - turned)
    return events


def drift(seeds: int, credit: OutcomeCredit) -> dict[str, Any]:
    """An item that turns harmful after 200 offers as an active one, and one that stays as it is; batches of 8."""
    turned, stayed = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 3])
        base, gain = float(rng.uniform(0.4, 0.5)), float(rng.uniform(0.2, 0.5))
        turned.append(lonely(credit, rng, base, gain, -float(rng.uniform(0.2, 0.4)), 200, 1200))
        stayed.append(lonely(credit, rng, base, gain, gain, 10**9, 1200))
    was = [e for e in turned if "active" in e and "demoted early" not in e]
    demoted = sorted(e["demoted"] for e in was if "demoted" in e)
    retired = sorted(e["retired"] for e in was if "retired" in e)
    kept = [e for e in stayed if "active" in e]
    return {
        "turned": len(was),
        "demoted_share": wilson(len(demoted), len(was)),
        "offers_until_demoted": {"median": median(demoted), "p90": demoted[int(0.9 * len(demoted))]},
        "retired_share": wilson(len(retired), len(was)),
        "offers_until_retired": {"median": median(retired), "p90": retired[int(0.9 * len(retired))]},
        "false_demotion_share_in_1000_offers": wilson(sum("demoted early" in e for e in kept), len(kept)),
    }


def coins(rng: Generator, runs: int, trials: int, base: float, gain: float) -> list[list[Trial]]:
    """Trials at an even coin."""
    shown = rng.random((runs, trials)) < 0.5
    right = rng.random((runs, trials)) < np.where(shown, base + gain, base)
    return [
        [Trial(bool(z), 0.5, float(y)) for z, y in zip(a, b, strict=True)] for a, b in zip(shown, right, strict=True)
    ]


def alone(runs: int, credit: OutcomeCredit) -> dict[str, Any]:
    """One item at an even coin: errors and power of the verdict, the interval's coverage, the demo's item."""
    rng, cells = np.random.default_rng(4), {}
    rules = {"alpha": credit.alpha, "worth": credit.worth, "horizon": credit.horizon}
    for base, gain in CELLS:
        found = [v for v in verdicts(coins(rng, runs, credit.horizon, base, gain), **rules) if v]
        cells[f"{base:g} {gain:+g}"] = {
            **{c: round(sum(v.claim == c for v in found) / runs, 4) for c in ("better", "worse", "small", "open")},
            "median_trials": median(v.trials for v in found),
        }
    demo = coins(rng, runs, 14, 0.0, 0.95)
    active = sorted(v.trials if v and v.claim == "better" else 99 for v in verdicts(demo, **rules))
    right = [Trial(True, 0.5, 1.0), Trial(False, 0.5, 0.0)] * 7
    seen = [effect(row) for row in coins(rng, runs // 10, 60, 0.45, 0.3)]
    return {
        "runs": runs,
        "verdicts": cells,
        "false_active": wilson(round(sum(cells[c]["better"] * runs for c in list(cells)[:3])), 3 * runs),
        "demo_item": {
            "offers_until_active_when_always_right": verdicts([right], **rules)[0].trials,  # type: ignore[union-attr]
            "median": median(active),
            "p90": active[int(0.9 * runs)],
            "active_within_8": wilson(sum(t <= 8 for t in active), runs),
            "active_within_14": wilson(sum(t <= 14 for t in active), runs),
        },
        "interval_coverage": wilson(sum(e.low <= 0.3 <= e.high for e in seen), len(seen)),
    }


def cost(credit: OutcomeCredit) -> dict[str, Any]:
    """CPU milliseconds, best of five: settle with 10,000 items, 100 of them tried 50 times; a budget exceeded."""
    rng, state = np.random.default_rng(5), LogState()
    text = "an item of some twenty words, as lessons are, with a number in it so that no two of them say the same: "
    for i in range(10_000):
        state.apply(MemoryOp(op="ADD", item=Reflection(id="", text=text + str(i), status="quarantined")))
    for i, row in enumerate(coins(rng, 100, 50, 0.45, 0.1)):
        for j, t in enumerate(row):
            for op in credit.observe(
                f"a{i}/{j}", {f"r{i + 1}": 0.5}, [f"r{i + 1}"] if t.shown else [], t.outcome, state
            ):
                state.apply(op)
    times: dict[str, float] = {}
    roomy = credit
    for name in ("first", "nothing new"):
        tried = []
        for _ in range(5):
            made = OutcomeCredit(items=20_000, tokens=2_000_000) if name == "first" else roomy
            began = time.process_time()
            decided = len(made.settle(state))
            tried.append(time.process_time() - began)
        times[f"settle, {name}"] = round(1000 * min(tried), 1)
        roomy = made
    began = time.process_time()
    gone = over_budget(state.items.values(), state.trials, items_cap=9_000, tokens_cap=None)
    times["over_budget, 1,000 of 10,000 go"] = round(1000 * (time.process_time() - began), 1)
    return {**times, "decided": decided, "evicted": len(gone)}


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--real", type=int, default=3, help="worlds on a real memory")
    parser.add_argument("--horizon", type=int, default=OutcomeCredit.horizon)
    parser.add_argument("--worth", type=float, default=OutcomeCredit.worth)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "credit.json")
    options = parser.parse_args()
    began = time.perf_counter()
    credit = OutcomeCredit(horizon=options.horizon, worth=options.worth)
    result = {
        "worlds": asyncio.run(tasks_of_families(options, credit)),
        "real_memory": asyncio.run(on_a_real_memory(options, credit)) if options.real else None,
        "drift": drift(options.seeds, credit),
        "one_item": alone(4000, credit),
        "cost_ms": cost(credit),
        "seeds": options.seeds, "tasks": options.tasks, "batch": options.batch,
        "options": {k: getattr(credit, k) for k in ("rate", "alpha", "worth", "horizon", "alarm")},
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time(), 1),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
