"""How good is it: arms on the same tasks, intervals over tasks and seeds, paired differences, the cost.

The controls run beside every learning claim: `base` (no memory, one attempt), `retry` (no memory, the same number of
attempts), `shuffled` (as many reflections, but those of other tasks). The verdict critic may be an oracle; every arm
is told right or wrong by the same critic, so `retry` is as strong as equal attempts make it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verbal.contracts import Memory
from verbal.loop.context import Context, query
from verbal.run import Progress, Workshop, make_context, run_batch
from verbal.types import Reflection, Task

ARMS = {"retry": "none", "shuffled": "shuffled", "memory": "memory"}
"""Arm -> which reflections it sees. `base` is the first attempt of `retry`."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """What one arm scored: `first[seed][task]` of first attempts, `within[seed][task]` of all attempts together."""

    arm: str
    tasks: tuple[str, ...]
    first: tuple[tuple[float, ...], ...]
    within: tuple[tuple[float, ...], ...]
    attempts: float
    """Mean number of attempts made on a task."""
    unscored: int = 0
    """Attempts the verdict critic could not score; they count as not solved."""


async def evaluate_arm(
    workshop: Workshop,
    tasks: Sequence[Task],
    *,
    run: str,
    arm: str,
    seeds: Sequence[int],
    hints: str = "none",
    memories: Mapping[int, Memory] | None = None,
    rounds: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """The scores of one arm; nobody reflects and nothing is learned.

    Args:
        workshop: Open parts; its model answers.
        tasks: The tasks, the same for every arm.
        run: Id of the run; finished episodes of it are not made again.
        arm: Name of the arm.
        seeds: One pass over the tasks for each.
        hints: `none`, `memory` or `shuffled`.
        memories: The memory each seed reads (`memory`, `shuffled`).
        rounds: Attempts per task at most; the recipe's when not given.
        progress: Told of every finished task.
    """
    table = workshop.recipe.loop
    loop = dataclasses.replace(table, graph="reflect", rounds=rounds or table.rounds, critique=False, reflect=False)
    recipe = dataclasses.replace(workshop.recipe, loop=loop)
    verdict = [c for c in workshop.critics if c.name == recipe.critics.verdict]
    progress = progress or Progress(total=len(tasks) * len(seeds))
    first, within, made, unscored = [], [], 0, 0
    workshop.store.put_tasks(tasks)
    for seed in seeds:
        name = f"{arm}:{seed}"
        memory = (memories or {}).get(seed) if hints != "none" else None
        context = make_context(
            workshop, tasks, run=run, arm=name, seed=seed, recipe=recipe, critics=verdict, memory=memory, learning=False
        )
        if hints == "shuffled" and memory is not None:
            context.retrieve = Shuffled(context, memory, tasks).search
        for at in range(0, len(tasks), table.batch):
            await run_batch(context, tasks[at : at + table.batch], progress)
        values = [_values(context, task) for task in tasks]
        first.append(tuple(float(v[0] == 1.0) if v else 0.0 for v in values))
        within.append(tuple(float(1.0 in v) for v in values))
        made += sum(map(len, values))
        unscored += sum(v is None for vs in values for v in vs)
    count = len(tasks) * len(seeds)
    return Scores(arm, tuple(t.id for t in tasks), tuple(first), tuple(within), made / count if count else 0, unscored)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The shuffled-memory control: a task is shown what another task would be shown, in the same number."""

    context: Context
    memory: Memory
    tasks: Sequence[Task]

    async def search(self, task: Task) -> list[Reflection]:
        """As many reflections as the task's own search finds, from the searches of other tasks in seeded order."""
        k = self.context.recipe.memory.k
        own = await self.memory.search(query(task), k, exclude_tasks=[task.id])
        seen = {r.id for r in own}
        others = sorted((t for t in self.tasks if t.id != task.id), key=lambda t: self.context.draw(task.id, t.id))
        found: list[Reflection] = []
        for other in others:
            for item in await self.memory.search(query(other), k, exclude_tasks=[task.id]):
                if item.id not in seen and len(found) < len(own):
                    seen.add(item.id)
                    found.append(item)
            if len(found) == len(own):
                break
        return found


def interval(scores: Sequence[Sequence[float]], *, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean of `scores[seed][task]` with a 95 % percentile bootstrap interval; seeds and tasks are both resampled.

    Range: scores in [0, 1] or differences in [-1, 1]. With one seed only tasks are resampled.
    """
    import numpy as np

    matrix = np.asarray(scores, dtype=float)
    if matrix.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    random = np.random.default_rng(seed)
    rows = random.integers(0, matrix.shape[0], (draws, matrix.shape[0]))
    columns = random.integers(0, matrix.shape[1], (draws, matrix.shape[1]))
    means = np.array([matrix[np.ix_(r, c)].mean() for r, c in zip(rows, columns, strict=True)])
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(matrix.mean()), float(low), float(high))


def difference(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Interval:
    """The paired difference a - b (same seeds, same tasks) with its interval, as a share (1 = 100 points)."""
    pairs = zip(a, b, strict=True)
    return interval([[x - y for x, y in zip(xs, ys, strict=True)] for xs, ys in pairs])


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate that one of k samples is right, when c of n were.

    1 - C(n - c, k) / C(n, k). Source: Chen et al. 2021, arXiv 2107.03374, eq. 1.

    >>> round(pass_at_k(10, 3, 1), 2), pass_at_k(4, 0, 2), pass_at_k(4, 3, 2)
    (0.3, 0.0, 1.0)
    """
    if not 0 < k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@k needs 0 < k <= n and 0 <= c <= n, found n={n}, c={c}, k={k}")
    return 1.0 if n - c < k else 1.0 - math.comb(n - c, k) / math.comb(n, k)


def table(arms: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """Per arm: first attempts and all attempts as mean, low, high (fractions of 1), attempts per task, unscored."""
    return {
        s.arm: {
            "first": dataclasses.asdict(interval(s.first)),
            "within": dataclasses.asdict(interval(s.within)),
            "attempts": s.attempts,
            "unscored": s.unscored,
            "seeds": len(s.first),
            "tasks": len(s.tasks),
        }
        for s in arms
    }


def _values(context: Context, task: Task) -> list[float | None]:
    group = context.store.group(context.run, task.id, context.arm)
    ids = list(group.attempts) if group else []
    known = context.store.feedback(ids)
    return [context.verdict(known[i]) for i in ids]
