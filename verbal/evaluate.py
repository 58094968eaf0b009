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
from verbal.errors import TransientError
from verbal.gate import refuse_sealed
from verbal.loop.context import Context, query
from verbal.run import Progress, Workshop, make_context, run_batch
from verbal.types import Reflection, Task

ARMS = {"retry": "none", "shuffled": "shuffled", "memory": "memory"}
"""Arm -> which reflections it sees. `base` is the first attempt of `retry`."""
MIN_SEEDS = 3
"""Fewer repetitions than that make no claim."""
LABELS = {
    "base": ("base", "no memory, one attempt"),
    "retry": ("retry-only", "no memory, as many attempts as the memory arm, told right or wrong"),
    "shuffled": ("shuffled memory", "as many reflections, but those of other questions"),
    "memory": ("memory", "reflections retrieved for the question"),
    "distilled": ("distilled", "weights trained on the traces, no memory"),
    "distilled+memory": ("distilled+memory", "the trained weights, with the memory"),
}
"""Arm -> its label, and what it is in words."""


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
    unsealed: bool = False,
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
        unsealed: The store has noted that this version uses the sealed test tasks now.

    Raises:
        ConfigError: a task is of the sealed split `test`.
        TransientError: the model could not be reached for some tasks, which are not scored as if they were wrong.
    """
    table = workshop.recipe.loop
    progress = progress or Progress(total=len(tasks) * len(seeds))
    first, within, made, unscored = [], [], 0, 0
    if not unsealed:
        refuse_sealed(tasks)
    workshop.store.put_tasks(tasks)
    for seed in seeds:
        name = f"{arm}:{seed}"
        memory = (memories or {}).get(seed) if hints != "none" else None
        context = _scoring(workshop, tasks, run, name, seed, memory, rounds or table.rounds)
        if hints == "shuffled" and memory is not None:
            context.retrieve = Shuffled(context, memory, tasks).search
        parts = [tasks[at : at + table.batch] for at in range(0, len(tasks), table.batch)]
        if left := [i for part in parts for i in await run_batch(context, part, progress)]:
            what = f"{len(left)} tasks of arm {name} could not be finished, because the model could not be reached"
            raise TransientError(what, where=f"run {run}, such as {left[0]}", todo="the same command goes on with them")
        values = [_values(context, task) for task in tasks]
        first.append(tuple(float(v[0] == 1.0) if v else 0.0 for v in values))
        within.append(tuple(float(1.0 in v) for v in values))
        made += sum(map(len, values))
        unscored += sum(v is None for vs in values for v in vs)
    count = len(tasks) * len(seeds)
    return Scores(arm, tuple(t.id for t in tasks), tuple(first), tuple(within), made / count if count else 0, unscored)


async def attempt_values(
    workshop: Workshop, tasks: Sequence[Task], *, run: str, arm: str, seed: int, memory: Memory | None
) -> list[float | None]:
    """The value of the verdict critic on one attempt at each task, in [0, 1]; 0 for an attempt that failed.

    None where the critic could not score, or the model could not be reached.
    """
    context = _scoring(workshop, tasks, run, arm, seed, memory, 1)
    workshop.store.put_tasks(tasks)
    await run_batch(context, tasks, Progress())
    return [_value(context, task) for task in tasks]


def _scoring(
    workshop: Workshop, tasks: Sequence[Task], run: str, arm: str, seed: int, memory: Memory | None, rounds: int
) -> Context:
    """A context in which only the verdict critic speaks, nobody reflects and nothing is learned."""
    loop = dataclasses.replace(workshop.recipe.loop, graph="reflect", rounds=rounds, critique=False, reflect=False)
    recipe = dataclasses.replace(workshop.recipe, loop=loop)
    verdict = [c for c in workshop.critics if c.name == recipe.critics.verdict]
    return make_context(
        workshop, tasks, run=run, arm=arm, seed=seed, recipe=recipe, critics=verdict, memory=memory, learning=False
    )


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The shuffled-memory control: a task is shown what another task would be shown, in the same number."""

    context: Context
    memory: Memory
    tasks: Sequence[Task]

    async def search(self, task: Task) -> list[Reflection]:
        """As many reflections as the task's own search finds, from the searches of other tasks in seeded order."""
        k = self.context.recipe.memory.k
        own = await self.memory.search(query(task), k, exclude_tasks=[task.id], task=task.id)
        seen = {r.id for r in own}
        others = sorted((t for t in self.tasks if t.id != task.id), key=lambda t: self.context.draw(task.id, t.id))
        found: list[Reflection] = []
        for other in others:
            for item in await self.memory.search(query(other), k, exclude_tasks=[task.id], task=other.id):
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
    at_once = max(1, 2**20 // matrix.size)  # bounds the memory
    parts = (slice(at, at + at_once) for at in range(0, draws, at_once))
    means = [matrix[rows[p, :, None], columns[p, None, :]].reshape(-1, matrix.size).mean(axis=1) for p in parts]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(matrix.mean()), float(low), float(high))


def difference(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Interval:
    """The paired difference a - b (same seeds, same tasks) with its interval, as a share (1 = 100 points)."""
    pairs = zip(a, b, strict=True)
    return interval([[x - y for x, y in zip(xs, ys, strict=True)] for xs, ys in pairs])


def joined(arm: str, parts: Sequence[Scores]) -> Scores:
    """The scores of an arm whose seeds were scored one by one (each with its own weights), in that order."""
    return Scores(
        arm,
        parts[0].tasks,
        tuple(row for part in parts for row in part.first),
        tuple(row for part in parts for row in part.within),
        sum(part.attempts for part in parts) / len(parts),
        sum(part.unscored for part in parts),
    )


def spread(tasks: Sequence[Task], count: int) -> list[Task]:
    """`count` tasks evenly spread over the list, so that every kind is there; all where there are no more."""
    if count >= len(tasks):
        return list(tasks)
    return [tasks[i * len(tasks) // count] for i in range(count)]


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate that one of k samples is right, when c of n were.

    1 - C(n - c, k) / C(n, k). Source: Chen et al. 2021, arXiv 2107.03374, eq. 1.

    >>> round(pass_at_k(10, 3, 1), 2), pass_at_k(4, 0, 2), pass_at_k(4, 3, 2)
    (0.3, 0.0, 1.0)
    """
    if not 0 < k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@k needs 0 < k <= n and 0 <= c <= n, found n={n}, c={c}, k={k}")
    return 1.0 if n - c < k else 1.0 - math.comb(n - c, k) / math.comb(n, k)


def compare(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """The arms, their paired differences and what may be claimed, in the form that pages and tables read.

    Learning is claimed only when the memory arm beats retry-only (as many attempts), over three seeds or more: most
    published gains shrink against that control.

    Args:
        scores: By arm; `retry` is there (its first attempts are the arm `base`).
    """
    within = {"base": scores["retry"].first, **{name: s.within for name, s in scores.items()}}
    seeds, tasks = len(scores["retry"].first), len(scores["retry"].tasks)
    gains = {
        f"{a} - {'retry-only' if b == 'retry' else b}": difference(within[a], within[b])
        for a, b in (("memory", "retry"), ("memory", "shuffled"), ("memory", "base"), ("retry", "base"))
        if a in within and b in within
    }
    found: dict[str, Any] = {
        "seeds": list(range(seeds)),
        "arms": [arm_row(name, values, scores.get(name)) for name, values in within.items()],
        "differences": [{"name": k, **dataclasses.asdict(v)} for k, v in gains.items()],
    }
    if "memory" in scores:
        found["claim"], found["claim_holds"] = claim(gains["memory - retry-only"], seeds, tasks)
        made = round(sum(s.attempts for s in scores.values()) * seeds * tasks)
        if made and sum(s.unscored for s in scores.values()) >= made:
            told = f"the verdict critic gave no value on any of {made} attempts; name another (critics.verdict)"
            found["claim"], found["claim_holds"] = f"Nothing could be scored, so the shares say nothing: {told}", False
    return found


def claim(gain: Interval, seeds: int, tasks: int) -> tuple[str, bool]:
    """What may be said of memory against retry-only, and whether it is a claim of learning."""
    holds = gain.low > 0 and seeds >= MIN_SEEDS
    verb = "beats" if holds else "does not clearly beat"
    points = f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}] points"
    few = f" No claim is made from fewer than {MIN_SEEDS} seeds." if seeds < MIN_SEEDS else ""
    return f"Memory {verb} retry-only: {points} on {tasks} tasks, {seeds} seeds.{few}", holds


def arm_row(name: str, values: Sequence[Sequence[float]], scores: Scores | None) -> dict[str, Any]:
    """One arm for pages and tables: share solved with its interval, each seed, attempts per task, what it cost."""
    label, about = LABELS.get(name, (name, ""))
    return {
        "name": name,
        "label": label,
        "about": about,
        **dataclasses.asdict(interval(values)),
        "per_seed": [sum(v) / len(v) for v in values if v],
        "attempts": scores.attempts if scores else 1.0,
        "first": dataclasses.asdict(interval(scores.first)) if scores else None,
        "unscored": scores.unscored if scores else 0,
        "tasks": len(values[0]),
    }


def _value(context: Context, task: Task) -> float | None:
    group = context.store.group(context.run, task.id, context.arm)
    attempt = context.store.attempt(group.attempts[0]) if group else None
    return context.score(attempt) if attempt else None


def _values(context: Context, task: Task) -> list[float | None]:
    group = context.store.group(context.run, task.id, context.arm)
    ids = list(group.attempts) if group else []
    known = context.store.feedback(ids)
    return [context.verdict(known[i]) for i in ids]
