"""The embedded model on Spider dev: zero-shot, K samples with each selector, retry, memory. Honest however low.

Every selector picks among the same K samples (one draw, replayed from the cache). `first` is the first sample,
`oracle` is right when any of them is. `retry` and `memory` are arms of `verbal learn` on Spider train, whose databases
are others than dev's, with shuffled memory beside them. The suite share counts only databases that have an official
suite. No question of Spider was in the model's training.

    python bench/spider_dev.py --data DIR [--samples 5] [--limit 543] [--train 200] [--seeds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verbal.evaluate import interval
from verbal.parts import make_part
from verbal.recipe import Recipe, load_recipe
from verbal.run import learn, open_workshop
from verbal.store import Store
from verbal.types import Task

HERE = Path(__file__).parent
SELECTORS: dict[str, tuple[str, ...]] = {
    "majority": ("loop.wave=0",),
    "confidence": (),
    "paverl": ("critics.options.group.passes=5",),
    "paverl_preview": ("critics.options.group.passes=5",),
    "tournament": (),
    "chess": (),
}
"""Recipe -> what is set otherwise for two cores."""


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("VERBAL_DATA"), help="the folder that holds spider/, suites/")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--limit", type=int, default=None, help="dev questions at most")
    parser.add_argument("--train", type=int, default=200, help="train questions that the memory learns on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "spider_dev.json")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "spider").is_dir():
        print("skipped: no data (give --data DIR, the folder that holds spider/)")
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(options.data).resolve()
        found = asyncio.run(measure(data, Path(folder), options))
        found["arms"] |= learned(data, Path(folder), options)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found["arms"], indent=2))


async def measure(data: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Every arm, on the same questions."""
    app = make_part("apps", "text2sql", questions=str(data / "spider" / "dev.jsonl"), workers=2)
    try:
        tasks = [with_suite(task, data) for task in app.tasks("dev")][: options.limit]
        arms: dict[str, Any] = {}
        with Store(folder / "spider.db") as store:
            for name in SELECTORS:
                arms |= await selected(name, app, store, tasks, options.samples)
                print(name, json.dumps(arms[name]), flush=True)
    finally:
        await app.aclose()
    return {"model": "embedded", "questions": len(tasks), "samples": options.samples, "arms": arms}


def with_suite(task: Task, data: Path) -> Task:
    """The task with the official states of its database, where there are some."""
    states = sorted((data / "suites" / Path(task.info["db"]).stem).glob("*.sqlite"))
    return task.replace(info={**task.info, "states": [str(p) for p in states]})


async def selected(name: str, app: Any, store: Store, tasks: Sequence[Task], samples: int) -> dict[str, Any]:
    """What one selector chose; with the first selector also the greedy answer, the first sample and the oracle."""
    began = time.perf_counter()
    try:
        recipe = load_recipe(name, [f"loop.samples={samples}", *SELECTORS[name], 'model.name="embedded"'])
        async with open_workshop(_closed(recipe), store, run=name, app=app) as shop:
            await learn(shop, tasks, run=name)
    except Exception as error:  # an arm that cannot run is part of the table
        return {name: {"ex": None, "suite": None, "reason": f"{type(error).__name__}: {error}"}}
    groups = {g.task: g for g in store.groups(name)}
    made = {task.id: [store.attempt(i) for i in groups[task.id].attempts] for task in tasks if task.id in groups}
    chosen = {task: store.attempt(group.chosen or "") for task, group in groups.items()}
    seconds = round(time.perf_counter() - began, 1)
    calls = sum(u.calls for u in store.usage(name).values())
    found = {name: {**await scored(app, tasks, {t: a.answer for t, a in chosen.items() if a}), "calls": calls}}
    found[name]["seconds"] = seconds
    if name == next(iter(SELECTORS)):
        first = {task: attempts[0].answer for task, attempts in made.items() if attempts and attempts[0]}
        found["first_sample"] = await scored(app, tasks, first)
        found[f"oracle_{samples}"] = await oracle(app, tasks, made)
    return found


def _closed(recipe: Recipe) -> Recipe:
    """The recipe without a memory and without anybody who reflects."""
    from dataclasses import replace

    loop = replace(recipe.loop, reflect=False, critique=False)
    return replace(recipe, memory=replace(recipe.memory, name=""), loop=loop)


async def scored(app: Any, tasks: Sequence[Task], answers: dict[str, str]) -> dict[str, Any]:
    """Execution match on the one database, and on the suite where there is one."""
    one = [await right(app, task, answers.get(task.id, ""), suite=False) for task in tasks]
    several = [await right(app, t, answers.get(t.id, ""), suite=True) for t in tasks if t.info["states"]]
    return {"ex": mean(one), "suite": mean(several), "suite_questions": len(several)}


async def oracle(app: Any, tasks: Sequence[Task], made: dict[str, list[Any]]) -> dict[str, Any]:
    """Right when any sample is."""
    one, several = [], []
    for task in tasks:
        answers = list(dict.fromkeys(a.answer for a in made.get(task.id, []) if a and a.answer))
        one.append(any([await right(app, task, a, suite=False) for a in answers]))
        if task.info["states"]:
            several.append(any([await right(app, task, a, suite=True) for a in answers]))
    return {"ex": mean(one), "suite": mean(several), "suite_questions": len(several)}


async def right(app: Any, task: Task, answer: str, *, suite: bool) -> bool:
    """Whether an answer gives what gold gives."""
    if not answer:
        return False
    asked = task if suite else task.replace(info={**task.info, "states": []})
    return bool((await app.match(asked, [answer]))[0].right)


def mean(values: Sequence[bool]) -> list[float] | None:
    """Share with its 95 % interval; None of nothing."""
    if not values:
        return None
    found = interval([[float(v) for v in values]])
    return [round(x, 4) for x in (found.mean, found.low, found.high)]


def learned(data: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The four arms of `verbal learn`: lessons of train databases, scored on dev."""
    from verbal.learning import run_learn

    lines = (data / "spider" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    step = max(1, len(lines) // options.train)
    dev = (data / "spider" / "dev.jsonl").read_text(encoding="utf-8").splitlines()[: options.limit]
    both = folder / "both.jsonl"
    rows = [(line, "train") for line in lines[::step][: options.train]] + [(line, "dev") for line in dev]
    keys = ("id", "question", "query", "db_id")
    base = data / "spider" / "database"
    both.write_text("".join(_line(json.loads(line), split, keys, base) for line, split in rows), encoding="utf-8")
    app = {"questions": str(both), "db": str(base)}
    made = run_learn(
        {"recipe": "reflect", "model": "embedded", "app": app, "overrides": ["loop.critique=false"]},
        str(folder / "learn.db"), run="memory", memory="memory", split="train", limit=None, seeds=options.seeds,
        evaluate_on="dev", resume=False, dry_run=False, quiet=True,
    )  # fmt: skip
    arms: dict[str, Any] = {
        {"base": "zero_shot", "shuffled": "shuffled_memory"}.get(a["name"], a["name"]): {
            "ex": [round(a[k], 4) for k in ("mean", "low", "high")],
            "attempts": round(a["attempts"], 2),
        }
        for a in made["arms"]
    }
    arms["memory"]["claim"] = made.get("claim", "")
    arms["memory"]["lessons"] = len(made.get("lessons", []))
    return arms


def _line(row: dict[str, Any], split: str, keys: Sequence[str], base: Path) -> str:
    kept = {k: row[k] for k in keys if k != "db_id"} | {"split": split}
    return json.dumps({**kept, "db": str(base / row["db_id"] / f"{row['db_id']}.sqlite")}) + "\n"


if __name__ == "__main__":
    main()
