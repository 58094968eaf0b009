"""Curves of a run: how much more attempts solve, and how much is solved while learning, with intervals.

Read from groups and verdicts alone, so that a run under way has its curves too. Intervals are those of
`verbal.evaluate`: bootstrap over tasks, and over seeds where there are several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from verbal.evaluate import LABELS, interval
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Feedback

MOST_POINTS = 24
"""Points of a learning curve at most; batches are joined until they are no more."""
FEWEST_TASKS = 8
"""Tasks that a point of a learning curve stands for at least, where there are so many."""
DRAWS = 500
"""Bootstrap draws for each point."""

_SCORES = ("eval", "two_by_two", "distill")
Verdicts = dict[str, dict[str, dict[str, list[float | None]]]]
"""Arm -> seed -> task -> the verdict on each attempt, in order."""


def verdicts(store: Store, run: str, critic: str = "") -> Verdicts:
    """What a critic, that of the verdict when none is named, said of the attempts of a run's finished episodes."""
    found: Verdicts = {}
    groups = store.groups(run)
    feedback = store.feedback([i for g in groups for i in g.attempts])
    name = critic or verdict_critic(store.run(run), feedback)
    for group in groups:
        if not group.attempts:
            continue
        full, _, rest = group.attempts[0].removeprefix(f"{run}/").partition("/")
        arm, _, seed = full.partition(":")
        task = rest.rpartition("/")[0]
        values = [next((f.value for f in feedback[i] if f.critic == name), None) for i in group.attempts]
        found.setdefault(arm, {}).setdefault(seed, {})[task] = values
    return found


def verdict_critic(run: Mapping[str, Any] | None, feedback: Mapping[str, Sequence[Feedback]]) -> str:
    """The name under which the critic that decides in a run has given this feedback.

    The recipe of a run that scores names a user's critic by its file; there nobody else speaks.
    """
    name = str(((run["recipe"] if run else {}).get("critics") or {}).get("verdict", ""))
    if ":" in name:
        said = {f.critic for given in feedback.values() for f in given if f.source != "user"}
        if name not in said and len(said) == 1:
            return said.pop()
    return name


def attempt_curves(store: Store, run: str, given: Verdicts | None = None) -> list[dict[str, Any]]:
    """Share solved within so many attempts, by arm: `arm`, `label`, `points` of `x y low high`.

    Every arm may make as many attempts as the longest episode of the run made; one that ended solved stays solved. A
    run of single attempts has no curve. Of seeds under way only the tasks that all of them finished are counted.
    """
    found, arms = list[dict[str, Any]](), verdicts(store, run) if given is None else given
    most = max((len(v) for seeds in arms.values() for by_task in seeds.values() for v in by_task.values()), default=0)
    for arm, seeds in arms.items():
        tasks = sorted(set.intersection(*(set(by_task) for by_task in seeds.values())))
        if most < 2 or not tasks:
            continue
        points = []
        for k in range(1, most + 1):
            rows = [[float(1.0 in by_task[t][:k]) for t in tasks] for by_task in seeds.values()]
            points.append(_point(k, rows))
        found.append({"arm": arm, "label": LABELS.get(arm, (arm, ""))[0], "points": points})
    order = list(LABELS)
    return sorted(found, key=lambda c: (order.index(c["arm"]) if c["arm"] in order else len(order), c["arm"]))


def learning_curves(store: Store, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Share solved while tasks were worked through, of runs that are the seeds of one: by first attempts, and by all.

    x is the tasks worked through, passes counted one after the other. Each seed has an order of its own.
    """
    rows = [row for run in runs if (row := _in_order(store, run))]
    if not rows:
        return []
    # A seed that is under way comes in when it is as far as the others, so that a curve never gets shorter.
    length = max(map(len, rows))
    rows = [row for row in rows if len(row) == length]
    size = max(FEWEST_TASKS, -(-length // MOST_POINTS))
    batch = int((store.run(runs[0]) or {"recipe": {}})["recipe"].get("loop", {}).get("batch") or 1)
    size = -(-size // batch) * batch if batch <= size else size
    curves = []
    retried = any(len(v) > 1 for row in rows for v in row)
    for arm, label in (("first", "first attempt"), ("within", "after retries"))[: 2 if retried else 1]:
        points = []
        # What is left at the end joins the last point, unless it is half of one.
        ends = [*range(size, length - size // 2, size), length]
        for at, end in zip([0, *ends], ends, strict=False):
            part = [[_right(v, first=arm == "first") for v in row[at:end]] for row in rows]
            points.append(_point(end, part))
        curves.append({"arm": arm, "label": label, "points": points})
    return curves


def lesson_counts(store: Store, run: str) -> list[dict[str, Any]]:
    """How many lessons a learning run knew after each batch: `x` tasks worked through, `active`, `quarantined`."""
    known = store.run(run)
    memory = (known["info"].get("memory") or {}) if known else {}
    tasks = len(known["info"].get("tasks") or ()) if known else 0
    if known is None or not memory.get("name"):
        return []
    loop = known["recipe"].get("loop", {})
    batch, state = int(loop.get("batch") or 1), load_function("memory", "log", "LogState")()
    found, start = [], f"batch {run}/"
    for _, op in store.ops(memory["name"]):
        state.apply(op)
        if op.op == "NOOP" and op.author == "run" and op.reason.startswith(start) and op.reason.endswith(" curated"):
            arm, _, at = op.reason.removeprefix(start).removesuffix(" curated").rpartition("/")
            epoch = int(arm.partition("@")[2] or 1)
            counts = {s: sum(r.status == s for r in state.items.values()) for s in ("active", "quarantined")}
            found.append({"x": (epoch - 1) * tasks + min(int(at) + batch, tasks), **counts})
    return found


def run_curves(store: Store, run: str) -> dict[str, Any]:
    """The curves of a run and the runs that belong to it: `attempts`, `learning`, `lessons` (what there is)."""
    known = store.run(run)
    if known is None:
        return {}
    parts = [r for i in known["info"].get("parts", ()) if (r := store.run(i))]
    learned = [r["id"] for r in (known, *parts) if r["info"].get("command") == "learn"]
    scored = [r["id"] for r in (known, *parts) if r["info"].get("command") in _SCORES]
    found: dict[str, Any] = {
        "attempts": [c for i in scored for c in attempt_curves(store, i)],
        "learning": learning_curves(store, learned) if learned else [],
        "lessons": lesson_counts(store, learned[0]) if learned else [],
    }
    return {k: v for k, v in found.items() if v}


def _in_order(store: Store, run: str) -> list[list[float | None]]:
    """Verdicts on the attempts of each task in the order of the run, up to the first task that is not finished."""
    known = store.run(run)
    if known is None:
        return []
    arm, ids, made = known["info"].get("arm", "learn"), known["info"].get("tasks") or (), verdicts(store, run)
    rows: list[list[float | None]] = []
    for epoch in range(int(known["recipe"].get("loop", {}).get("epochs") or 1)):
        by_task: Mapping[str, list[float | None]] = made.get(f"{arm}@{epoch + 1}" if epoch else arm, {}).get("", {})
        for task in ids:
            if task not in by_task:
                return rows
            rows.append(by_task[task])
    return rows


def _right(values: Sequence[float | None], *, first: bool) -> float:
    return float(1.0 in (values[:1] if first else values))


def _point(x: int, rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    made = _interval(tuple(map(tuple, rows)))
    return {"x": x, "y": made[0], "low": made[1], "high": made[2]}


@lru_cache(maxsize=4096)
def _interval(rows: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    """Kept, for a page that is asked for again and again (a run under way) asks for the same points."""
    made = dataclasses.astuple(interval(rows, draws=DRAWS))
    return float(made[0]), float(made[1]), float(made[2])


__all__ = ["Verdicts", "attempt_curves", "learning_curves", "lesson_counts", "run_curves", "verdict_critic", "verdicts"]
