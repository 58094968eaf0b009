"""Memory off or on, base or distilled weights: the four cells, what each of the two does, and whether they add up.

A cell is the share of held-out tasks that the first attempt solves, because nobody says right or wrong to what serves;
its interval is over tasks and seeds (`verbal.evaluate.interval`), and effects are differences of the same tasks and
seeds. With y(memory, weights):

    memory      = ((y(on, base) - y(off, base)) + (y(on, distilled) - y(off, distilled))) / 2
    weights     = ((y(off, distilled) - y(off, base)) + (y(on, distilled) - y(on, base))) / 2
    interaction = (y(on, distilled) - y(off, distilled)) - (y(on, base) - y(off, base))

An interaction below zero says that what memory gives, the weights give already (or that they read it worse). Beside the
cells stand the controls, with as many attempts as the memory arm: retry-only and shuffled memory. The arms and their
names are those of `verbal demo`, so on its store and under its run nothing is attempted again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from verbal.contracts import Memory
from verbal.errors import STOPS, ConfigError, StoreError
from verbal.evaluate import ARMS, MIN_SEEDS, Scores, compare, evaluate_arm, interval, joined
from verbal.study import Study, open_pinned, plain_usage, tasks_of
from verbal.types import Task

if TYPE_CHECKING:
    from verbal.versions import Policy

CELLS = {
    ("base", "off"): "retry", ("base", "on"): "memory",
    ("distilled", "off"): "distilled", ("distilled", "on"): "distilled+memory",
}  # fmt: skip
"""(weights, memory) -> the arm whose first attempts are the cell."""
TRAINED = {"distilled": "none", "distilled+memory": "memory"}
"""Arms of the trained weights -> which reflections they see."""
Matrix = Sequence[Sequence[float]]
"""Scores or differences. Shape: [seeds][tasks]."""


def square(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Cells, main effects, interaction and simple effects, each with mean, low and high as a share of 1.

    Args:
        scores: By arm: `retry`, `memory`, `distilled`, `distilled+memory`, of the same tasks and seeds.

    Raises:
        ConfigError: an arm is missing, or was scored on other tasks or another number of seeds.
    """
    if missing := [arm for arm in CELLS.values() if arm not in scores]:
        raise ConfigError(f"there is no arm {missing[0]!r}", where="square", todo="score all four cells")
    shapes = {(scores[arm].tasks, len(scores[arm].first)) for arm in CELLS.values()}
    if len(shapes) > 1:
        todo = "score each cell on the same tasks and seeds"
        raise ConfigError("the four cells are not of the same tasks and seeds", where="square", todo=todo)
    first = {cell: scores[arm].first for cell, arm in CELLS.items()}
    cells = [
        {"weights": w, "memory": m, "arm": CELLS[w, m], **dataclasses.asdict(interval(values)),
         "per_seed": [sum(row) / len(row) for row in values if row]}
        for (w, m), values in first.items()
    ]  # fmt: skip
    (tasks, seeds) = shapes.pop()
    effects = [{"name": k, **dataclasses.asdict(interval(v))} for k, v in _effects(first).items()]
    return {"tasks": len(tasks), "seeds": seeds, "cells": cells, "effects": effects, "words": _words(effects, seeds)}


def _effects(first: Mapping[tuple[str, str], Matrix]) -> dict[str, list[list[float]]]:
    """Name -> the effect on each task with each seed."""
    a, b, c, d = (first[cell] for cell in CELLS)

    def of(weights: Sequence[float]) -> list[list[float]]:
        sides = zip(a, b, c, d, strict=True)
        return [
            [sum(w * y for w, y in zip(weights, ys, strict=True)) for ys in zip(*rows, strict=True)] for rows in sides
        ]

    return {
        "memory": of((-0.5, 0.5, -0.5, 0.5)),
        "weights": of((-0.5, -0.5, 0.5, 0.5)),
        "interaction": of((1, -1, -1, 1)),
        "memory, base weights": of((-1, 1, 0, 0)),
        "memory, distilled weights": of((0, 0, -1, 1)),
        "weights, memory off": of((-1, 0, 1, 0)),
        "weights, memory on": of((0, -1, 0, 1)),
        "weights alone - memory alone": of((0, -1, 1, 0)),
    }


def _words(effects: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """What may be said of the figure in a sentence or two."""
    known = {e["name"]: e for e in effects}

    def told(name: str) -> str:
        e = known[name]
        return f"{100 * e['mean']:+.1f} [{100 * e['low']:+.1f}, {100 * e['high']:+.1f}]"

    both = known["interaction"]
    how = (
        "together they give less than the sum of what each gives alone" if both["high"] < 0
        else "together they give more than the sum of what each gives alone" if both["low"] > 0
        else "whether they add up is not decided"
    )  # fmt: skip
    few = f" No claim is made from fewer than {MIN_SEEDS} seeds." if seeds < MIN_SEEDS else ""
    return f"Memory {told('memory')} points, weights {told('weights')}, interaction {told('interaction')}: {how}.{few}"


def plan(
    tasks: Sequence[Task],
    *,
    base: Policy,
    weights: Sequence[Policy],
    memories: Sequence[tuple[str, int]],
    seeds: int,
    rounds: int,
) -> dict[str, Any]:
    """The spec of a run that fills the figure (`verbal.study.perform`).

    Args:
        tasks: Held-out tasks.
        base: The weights as they were; no memory.
        weights: The trained ones: one for all seeds, or one for each.
        memories: (name, version), in the same way.
        seeds: Passes over the tasks.
        rounds: Attempts of a task at most, in every arm.

    Raises:
        ConfigError: the number of weights or memories is neither one nor that of the seeds.
    """
    for what, count in (("weights (--model)", len(weights)), ("memories (--memory)", len(memories))):
        if count not in (1, seeds):
            todo = "give one for all seeds, or one for each (--seeds)"
            raise ConfigError(f"{count} {what} for {seeds} seeds", where="two by two", todo=todo)
    return {
        "command": "two_by_two", "tasks": [t.id for t in tasks], "seeds": list(range(seeds)), "rounds": rounds,
        "base": base.plain(), "weights": [w.plain() for w in weights],
        "memories": {s: list(memories[s % len(memories)]) for s in range(seeds)},
    }  # fmt: skip


async def cross(study: Study, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Scores every arm as the spec says; gives the figure, the arms beside their controls, and what it cost."""
    from verbal.versions import Policy

    store, status = study.store, "failed"
    tasks, seeds = tasks_of(store, spec["tasks"]), [int(s) for s in spec["seeds"]]
    pinned = {int(s): (str(m[0]), int(m[1])) for s, m in spec["memories"].items()}
    base = Policy(**spec["base"])
    async with (
        study.open(spec, recipe=base.recipe(study.recipe)) as shop,
        AsyncExitStack() as stack,
    ):
        store.start_run(study.run, study.recipe.to_dict(), {**spec, **shop.info})
        memories: dict[int, Memory] = {}
        for seed, (name, version) in pinned.items():
            memories[seed] = open_pinned(shop, name, version)
            stack.callback(memories[seed].close)
        rounds, progress = int(spec["rounds"]), study.progress
        common: dict[str, Any] = {"run": study.run, "memories": memories, "rounds": rounds, "progress": progress}
        try:
            scores: dict[str, Scores] = {}
            for arm, hints in ARMS.items():
                _begin(study, arm, len(tasks) * len(seeds))
                scores[arm] = await evaluate_arm(shop, tasks, arm=arm, hints=hints, seeds=seeds, **common)
            parts: dict[str, list[Scores]] = {arm: [] for arm in TRAINED}
            for policy, own in _by_policy([Policy(**w) for w in spec["weights"]], seeds):
                # One after the other: weights can be large.
                async with study.open(spec, recipe=policy.recipe(study.recipe), beside=shop) as trained:
                    known = (store.run(study.run) or {"info": {}})["info"].get("models") or {}
                    store.set_info(study.run, {"models": {**known, **trained.info["models"]}})
                    for arm, hints in TRAINED.items():
                        _begin(study, arm, len(tasks) * len(own))
                        made = await evaluate_arm(trained, tasks, arm=arm, hints=hints, seeds=own, **common)
                        parts[arm].append(made)
            results = _results(study, spec, {**scores, **{arm: joined(arm, p) for arm, p in parts.items()}})
            status = "done"
        except STOPS:
            status = "stopped"
            raise
        finally:
            with contextlib.suppress(StoreError) if status != "done" else contextlib.nullcontext():
                store.finish_run(study.run, status, {"results": results} if status == "done" else None)
    return {**results, "usage": plain_usage(store.usage(study.run))}


def _begin(study: Study, arm: str, total: int) -> None:
    study.stage(arm)
    study.progress.update(total=total, done=0, solved=0)


def _by_policy(weights: Sequence[Policy], seeds: Sequence[int]) -> list[tuple[Policy, list[int]]]:
    """Each policy with its seeds, in the order of the seeds."""
    if len(weights) == 1:
        return [(weights[0], list(seeds))]
    return [(weights[i], [seed]) for i, seed in enumerate(seeds)]


def _results(study: Study, spec: Mapping[str, Any], scores: Mapping[str, Scores]) -> dict[str, Any]:
    """What pages, tables and the figure read."""
    from verbal.versions import Policy

    figure, seeds, count = square(scores), len(spec["seeds"]), len(spec["tasks"])
    weights = [Policy(**w).model for w in spec["weights"]]
    memories = list(dict.fromkeys(f"{m[0]}@{m[1]}" for m in spec["memories"].values()))
    notes = ["Cells are first attempts; right or wrong is told by the verdict critic, the same in every arm."]
    if seeds > 1 and len(weights) == 1:
        notes.append("One training: the intervals say nothing of other trainings. Give --model once for each seed.")
    if seeds > 1 and len(memories) == 1:
        notes.append("One memory: the intervals say nothing of other runs of learning.")
    split = ", ".join(sorted({t.split for t in tasks_of(study.store, spec["tasks"])}))
    compared = compare(scores)
    return {
        "title": "Memory and weights",
        "subtitle": f"{count} {split} tasks of {study.recipe.app.name}, {seeds} seeds, "
        f"at most {spec['rounds']} attempts a task in every arm",
        "model": Policy(**spec["base"]).model, "weights": weights, "memories": memories, "run": study.run, **compared,
        "two_by_two": figure, "notes": notes,
    }  # fmt: skip


__all__ = ["CELLS", "TRAINED", "cross", "plan", "square"]
