"""The mathematics of the evidence gate: false accepts, false discoveries in streams, power, tasks used.

Two agents answer the same tasks. A task has a latent difficulty; each side's chance (or partial credit) is a logistic
function of it and of something of its own; a score is the mean of k samples, binary or beta distributed. The spread of
the difficulties is calibrated so that the scores of both sides correlate as wanted. Every decision is made by
`verbal.betting.Bets`, many runs side by side (a test shows it equal to `Bet`).

The gate here: accept at wealth >= `threshold`; stop for futility when the opposite bet has 20 against "the gain is at
least 5 points"; at most 200 (or 50, 500) tasks, which is also the horizon of the bets.

Headlines, fixed before measuring: `false_accept` is the mean over all null cells, `power_10pts_200` and `tasks_ratio`
the means over the twelve cells of binary and graded outcomes, k 1 and 3, correlation 0.3 to 0.8, at wealth 20 and 200
tasks; `tasks_ratio` divides by the tasks that a one-sided sign-flip test at 0.05 needs for the power the gate had
(taken as 0.99 where the gate had more, which is against the gate). Writes bench/results/gate.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.random import Generator

from verbal.betting import Bets, ConfidenceSequence, threshold

BASE, WORTH, WIDEST = 0.5, 0.05, 12.0
GRID = np.array([NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])


@dataclass(frozen=True)
class Cell:
    """One kind of outcome."""

    kind: str
    k: int
    rho: float

    @property
    def shared(self) -> float:
        """The share of the latent spread both sides have in common."""
        return 1 - (1 - self.rho) ** 2 / 4


CELLS = [Cell(kind, k, rho) for kind in ("binary", "graded") for k in (1, 3) for rho in (0.3, 0.5, 0.8)]
SKEWS = {"many small gains, few large losses": (0.1, -0.9), "many small losses, few large gains": (-0.1, 0.9)}


# outcomes ---------------------------------------------------------------------------------------------------------


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


@cache
def ability(mean: float, spread: float) -> float:
    """The shift at which the mean chance over difficulties of this spread is `mean`."""
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if logistic(middle + spread * GRID).mean() < mean else (low, middle)
    return middle


def scores(
    rng: Generator, cell: Cell, spread: float, gain: np.ndarray, tasks: int, old: Generator | None = None
) -> list[np.ndarray]:
    """Scores of incumbent and candidate, each (runs, tasks); `old` draws the tasks and what the incumbent does."""
    shape = (len(gain), tasks)
    common, sides = (old or rng).standard_normal(shape), []
    for mean, side in ((np.full(len(gain), BASE), old or rng), (BASE + gain, rng)):
        shift = np.array([ability(round(m, 6), spread) for m in mean])[:, None]
        own = side.standard_normal(shape)
        p = logistic(shift + spread * (math.sqrt(cell.shared) * common + math.sqrt(1 - cell.shared) * own))
        if cell.kind == "binary":
            sides.append(side.binomial(cell.k, p) / cell.k)
        else:
            p = np.clip(p, 1e-3, 1 - 1e-3)
            sides.append(np.mean([side.beta(2 * p, 2 * (1 - p)) for _ in range(cell.k)], axis=0))
    return sides


@cache
def calibrated(cell: Cell) -> tuple[float, float]:
    """The spread of difficulties for the wanted correlation at +10 points (at most WIDEST), and the one achieved."""

    def correlation(spread: float) -> float:
        a, b = scores(np.random.default_rng(1), cell, spread, np.array([0.1]), 40_000)
        return float(np.corrcoef(a[0], b[0])[0, 1])

    low, high = 0.05, WIDEST
    for _ in range(18):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if correlation(middle) < cell.rho else (low, middle)
    return high, correlation(high)


def differences(
    rng: Generator, cell: Cell, gain: float | np.ndarray, runs: int, tasks: int, old: Generator | None = None
) -> np.ndarray:
    """Paired differences, (runs, tasks), in random order."""
    gains = np.broadcast_to(np.asarray(gain, dtype=float), (runs,))
    incumbent, candidate = scores(rng, cell, calibrated(cell)[0], gains, tasks, old)
    return rng.permuted(candidate - incumbent, axis=1) if old else candidate - incumbent


def balanced(rng: Generator, d: np.ndarray) -> np.ndarray:
    """Finite sets of as many tasks whose mean is exactly 0, in random order: half the differences and their mirror."""
    half = d[:, : d.shape[1] // 2]
    return rng.permuted(np.concatenate([half, -half], axis=1), axis=1)


# decisions --------------------------------------------------------------------------------------------------------


def gate(
    d: np.ndarray,
    *,
    margin: float = 0.0,
    finite: bool = False,
    futility: bool = True,
    wealth: float | np.ndarray = 20.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each run accepts, and the tasks it used."""
    runs, tasks = d.shape
    population = tasks if finite else None
    margins, target = np.full(runs, margin), np.broadcast_to(np.asarray(wealth, dtype=float), (runs,))
    bets = Bets(margins, population=population, horizon=tasks, target=target)
    against = Bets(-margins - WORTH, population=population, horizon=tasks)
    accepted, used = np.zeros(runs, dtype=bool), np.full(runs, tasks)
    running = np.ones(runs, dtype=bool)
    bar = np.log(target) - 1e-12
    for t in range(tasks):
        won = running & (bets.add(d[:, t]) >= bar)
        lost = running & (against.add(-d[:, t]) >= math.log(20)) if futility else np.zeros(runs, dtype=bool)
        accepted |= won
        used[won | lost] = np.minimum(used[won | lost], t + 1)
        running &= ~(won | lost)
        if not running.any():
            break
    return accepted, used


def sign_flip(d: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Whether the one-sided sign-flip test at 0.05 rejects in each run; flips are (draws, tasks at least)."""
    null = d.astype(np.float32) @ flips[:, : d.shape[1]].T.astype(np.float32)
    beyond = (null >= d.sum(1, keepdims=True) - 1e-4).sum(1)
    return (1 + beyond) / (1 + len(flips)) <= 0.05


def tasks_needed(d: np.ndarray, power: float, flips: np.ndarray) -> int:
    """The fewest tasks at which the sign-flip test rejects in a share `power` of the runs, by bisection."""
    low, high = 4, d.shape[1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sign_flip(d[:, :middle], flips).mean() >= power else (middle, high)
    return high


def coins(seed: int, tasks: int, draws: int = 999) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1, 1], dtype=np.int8), (draws, tasks))


def wilson(hits: float, runs: int) -> list[float]:
    """The 95 % interval of a share."""
    z, p = 1.959964, hits / runs
    middle, half = p + z * z / (2 * runs), z * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs * runs))
    return [round((middle - half) / (1 + z * z / runs), 5), round((middle + half) / (1 + z * z / runs), 5)]


# measurements -----------------------------------------------------------------------------------------------------


def measure(job: tuple[Cell, int, int]) -> dict[str, Any]:
    """Everything about one kind of outcome."""
    cell, runs, seed = job
    rng = np.random.default_rng([seed, CELLS.index(cell)])
    null = differences(rng, cell, 0.0, runs, 500)
    false = {}
    for n in (50, 200, 500):
        false[f"new tasks, {n}"] = float(gate(null[:, :n], futility=False)[0].mean())
        false[f"finite set, {n}"] = float(gate(balanced(rng, null[:, :n]), finite=True, futility=False)[0].mean())
    lucky = gate(null[:, :100], finite=True, futility=False)[0].mean()
    d = differences(rng, cell, 0.1, runs, 800)
    flips = coins(seed, 800)
    result: dict[str, Any] = {
        "kind": cell.kind,
        "k": cell.k,
        "rho": cell.rho,
        "rho_achieved": round(calibrated(cell)[1], 3),
        "variance": round(float(d.var()), 4),
        "ties": round(float((np.abs(d) < 1e-9).mean()), 3),
        "false_accept": false,
        "finite_form_on_draws_100": round(float(lucky), 4),
        "tasks_null_200": round(float(gate(null[:, :200])[1].mean()), 1),
        "power_5pts_200": float(gate(differences(rng, cell, 0.05, runs, 200))[0].mean()),
        "sign_flip_power_10pts_200": float(sign_flip(d[:, :200], flips).mean()),
    }
    for n in (200, 500):
        accepted, used = gate(d[:, :n])
        power = float(accepted.mean())
        needed = tasks_needed(d, min(power, 0.99), flips)
        result |= {
            f"power_10pts_{n}": power,
            f"tasks_10pts_{n}": round(float(used.mean()), 1),
            f"sign_flip_tasks_{n}": needed,
            f"tasks_ratio_{n}": round(float(used.mean()) / needed, 4),
        }
    return result | {"strategies": strategies(d[:, :200]), "guard": guard(rng, cell, runs)} | coverage(d[:100, :200])


def guard(rng: Generator, cell: Cell, runs: int) -> dict[str, float]:
    """Shares of guard sets of 100 tasks that pass "no more than 2 points were lost", finite form."""
    base = differences(rng, cell, 0.0, runs, 100)
    worse = differences(rng, cell, -0.1, runs, 100)
    margins = {"mean exactly 0": -0.02, "mean exactly at the margin": 0.0}
    shares = {name: gate(balanced(rng, base), margin=m, finite=True, futility=False) for name, m in margins.items()}
    shares["10 points lost"] = gate(worse, margin=-0.02, finite=True, futility=False)
    tasks = round(float(shares["mean exactly 0"][1].mean()), 1)
    return {name: float(accepted.mean()) for name, (accepted, _) in shares.items()} | {"tasks": tasks}


def coverage(d: np.ndarray) -> dict[str, float]:
    """Share of confidence sequences that hold the mean at all times, and their width after the last task."""
    held, width = 0, 0.0
    for row in d:
        sequence = ConfidenceSequence()
        for gain in row:
            sequence.add(gain)
        held += sequence.low <= 0.1 <= sequence.high
        width += (sequence.high - sequence.low) / len(d)
    return {"coverage_200": held / len(d), "width_200": round(width, 4)}


def strategies(d: np.ndarray) -> dict[str, list[float]]:
    """Other bets on the same differences: power and mean tasks at wealth 20."""
    runs, tasks = d.shape
    fixed = np.linspace(0.05, 0.95, 10)
    shares, newton, curvature = np.full((runs, 10), 0.1), np.full(runs, 0.3), np.ones(runs)
    mixture, log = Bets(np.zeros(runs)), {name: np.zeros(runs) for name in ("fixed stakes", "aGRAPA", "ONS")}
    paths: dict[str, list[np.ndarray]] = {name: [] for name in ("effects", *log)}
    for t in range(tasks):
        x, seen = d[:, t], t + 10
        mean = (mixture.total + 10 * 0.1) / seen
        variance = (mixture.squares + 10 * (0.15 + 0.01)) / seen - mean**2
        grapa = np.clip(mean / (variance + mean**2), 0, 0.9)
        log["fixed stakes"] = log["fixed stakes"] + np.log1p((shares @ fixed) * x)
        log["aGRAPA"] = log["aGRAPA"] + np.log1p(grapa * x)
        log["ONS"] = log["ONS"] + np.log1p(newton * x)
        shares = shares * (1 + fixed * x[:, None])
        shares = shares / shares.sum(1, keepdims=True)
        slope = x / (1 + newton * x)
        curvature = curvature + slope**2
        newton = np.clip(newton + 2 / (2 - math.log(3)) * slope / curvature, 0, 0.5)
        for name, value in {"effects": mixture.add(x), **log}.items():
            paths[name].append(value)
    found = {}
    for name, path in paths.items():
        hit = np.stack(path) >= math.log(20)
        used = np.where(hit.any(0), hit.argmax(0) + 1, tasks)
        found[name] = [round(float(hit.any(0).mean()), 4), round(float(used.mean()), 1)]
    return found


def skewed(runs: int, seed: int) -> list[dict[str, Any]]:
    """False accepts where the mean is 0 but gains and losses are not alike."""
    rng, found = np.random.default_rng([seed, 99]), []
    for name, (often, seldom) in SKEWS.items():
        false = {}
        for n in (50, 200, 500):
            draws = np.where(rng.random((runs, n)) < 0.9, often, seldom)
            sets = rng.permuted(np.tile(np.repeat([often, seldom], [9 * n // 10, n // 10]), (runs, 1)), axis=1)
            false[f"new tasks, {n}"] = float(gate(draws, futility=False)[0].mean())
            false[f"finite set, {n}"] = float(gate(sets, finite=True, futility=False)[0].mean())
        found.append({"kind": name, "false_accept": false})
    return found


def streams(count: int, seed: int, reused: bool, tests: int = 100, tasks: int = 200) -> dict[str, Any]:
    """Streams of proposals, four in five without effect: what the gate and two other rules accept.

    Tasks are new for each proposal, or `reused`: a stream has one set of them and one set of the incumbent's answers.
    """
    rng, flips = np.random.default_rng([seed, 100]), coins(seed, tasks)
    rules = ("gate", "naive", "sign_flip")
    accepted, false = ({rule: np.zeros(count, dtype=int) for rule in rules} for _ in range(2))
    by_gain: dict[float, list[int]] = {g: [0, 0] for g in (0.05, 0.1, 0.15, 0.2)}
    used = 0.0
    for t in range(1, tests + 1):
        real = rng.random(count) < 0.2
        gain = np.where(real, rng.choice(list(by_gain), count), 0.0)
        d = np.empty((count, tasks))
        for i, cell in enumerate(CELLS):  # a stream keeps to one kind of outcome
            own = gain[i :: len(CELLS)]
            old = np.random.default_rng([seed, 101, i]) if reused else None
            d[i :: len(CELLS)] = differences(rng, cell, own, len(own), tasks, old)
        wealth = np.array([threshold(t, int(before)) for before in accepted["gate"]])
        taken, tasks_used = gate(d, wealth=wealth)
        used += float(tasks_used.mean()) / tests
        for rule, won in zip(rules, (taken, d.mean(1) > 1e-9, sign_flip(d, flips)), strict=True):
            accepted[rule] += won
            false[rule] += won & ~real
        for g, counts in by_gain.items():
            counts[0] += int(taken[gain == g].sum())
            counts[1] += int((gain == g).sum())
    result: dict[str, Any] = {"streams": count, "tasks_each": round(used, 1)}
    trues = sum(n for _, n in by_gain.values())
    for rule in rules:
        share = false[rule] / np.maximum(accepted[rule], 1)
        result[rule] = {
            "fdr": round(float(share.mean()), 4),
            "fdr_half_width": round(1.96 * float(share.std()) / math.sqrt(count), 4),
            "power": round(float((accepted[rule] - false[rule]).sum()) / trues, 4),
            "false_accept": round(float(false[rule].sum()) / (tests * count - trues), 4),
        }
    return result | {"power_by_gain": {str(g): round(a / n, 4) for g, (a, n) in by_gain.items()}}


def summary(
    cells: list[dict[str, Any]], skews: list[dict[str, Any]], stream: dict[str, Any], runs: int
) -> dict[str, Any]:
    """The headlines."""

    def mean(key: str, **only: Any) -> float:
        return round(float(np.mean([c[key] for c in cells if all(c[n] == v for n, v in only.items())])), 4)

    nulls = [c["false_accept"] for c in [*cells, *skews]]
    rates = [rate for null in nulls for rate in null.values()]
    names = cells[0]["strategies"]
    return {
        "false_accept": round(float(np.mean(rates)), 5),
        # Sizes and forms share draws, so only runs and kinds of outcome count as independent.
        "false_accept_ci": wilson(float(np.mean(rates)) * runs * len(nulls), runs * len(nulls)),
        "false_accept_by_form": {n: round(float(np.mean([null[n] for null in nulls])), 5) for n in nulls[0]},
        "false_accept_worst": round(max(rates), 5),
        "false_accept_worst_ci": wilson(max(rates) * runs, runs),
        "fdr": stream["gate"]["fdr"],
        "fdr_half_width": stream["gate"]["fdr_half_width"],
        "fdr_naive": stream["naive"]["fdr"],
        "fdr_sign_flip": stream["sign_flip"]["fdr"],
        "false_accept_naive": stream["naive"]["false_accept"],
        "power_10pts_200": mean("power_10pts_200"),
        "power_10pts_200_k3": mean("power_10pts_200", k=3),
        "power_10pts_200_worst": round(min(c["power_10pts_200"] for c in cells), 4),
        "power_10pts_200_sign_flip": mean("sign_flip_power_10pts_200"),
        "tasks_ratio": mean("tasks_ratio_200"),
        "tasks_ratio_k3": mean("tasks_ratio_200", k=3),
        "tasks_ratio_worst": max(c["tasks_ratio_200"] for c in cells),
        "tasks_ratio_500": mean("tasks_ratio_500"),
        "tasks_ratio_to_200": round(mean("tasks_10pts_200") / 200, 4),
        "tasks_ratio_to_200_null": round(mean("tasks_null_200") / 200, 4),
        "stream_power": stream["gate"]["power"],
        "finite_form_on_draws_100": mean("finite_form_on_draws_100"),
        "coverage_200": mean("coverage_200"),
        "strategies": {s: np.mean([c["strategies"][s] for c in cells], axis=0).round(4).tolist() for s in names},
    }


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000, help="runs a cell")
    parser.add_argument("--streams", type=int, default=480, help="streams of 100 proposals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gate.json")
    options = parser.parse_args()
    began = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        stream_jobs = [pool.submit(streams, options.streams, options.seed, reused) for reused in (False, True)]
        skew_job = pool.submit(skewed, options.runs, options.seed)
        cells = list(pool.map(measure, [(cell, options.runs, options.seed) for cell in CELLS]))
        stream, reused = (job.result() for job in stream_jobs)
        skews = skew_job.result()
    result = summary(cells, skews, stream, options.runs)
    result |= {"fdr_reused": reused["gate"]["fdr"], "stream_power_reused": reused["gate"]["power"]}
    result |= {"seconds": round(time.perf_counter() - began, 1), "runs": options.runs, "seed": options.seed}
    result |= {"stream": stream, "stream_reused": reused, "cells": [*cells, *skews]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
