"""Examples for a prompt (DAIL-SQL's selection): how like the gold query is what is shown, and what finding it costs.

For each dev question 5 train examples are taken: drawn at random (the bound below), by the question alone, by question
and the embedded model's greedy query, and by question and the gold query (the bound above; never done in a run).
Likeness is the Jaccard similarity of query skeletons, of the best and of all 5. No gold of dev is in any example.

    python bench/examples.py --data DIR [--limit 543]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from verbal.contracts import Sampling
from verbal.errors import ModelError
from verbal.models import open_model
from verbal.parts import load_function, make_part
from verbal.types import Task

OUT = Path(__file__).parent / "results" / "examples.json"
SHOTS = 5
skeleton = load_function("apps", "text2sql.examples", "skeleton")
overlap = load_function("apps", "text2sql.examples", "overlap")


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("VERBAL_DATA"), help="the folder that holds spider/")
    parser.add_argument("--limit", type=int, default=None, help="dev questions at most")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "spider").is_dir():
        print("skipped: no data (give --data DIR, the folder that holds spider/)")
        return
    found = asyncio.run(measure(Path(options.data).resolve() / "spider", options.limit))
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


async def measure(data: Path, limit: int | None) -> dict[str, Any]:
    """Likeness and milliseconds of each way to select."""
    app = make_part(
        "apps", "text2sql", questions=str(data / "dev.jsonl"), workers=1, examples=SHOTS,
        examples_from=str(data / "train.jsonl"),
    )  # fmt: skip
    tasks = app.tasks("dev")[:limit]
    began = time.perf_counter()
    await app.preflight()
    built = time.perf_counter() - began

    lines = (data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    train = [row["query"] for row in map(json.loads, lines)]
    rng = random.Random(0)
    drafts = await preliminary(app, tasks)
    ways: dict[str, Callable[[Task], Sequence[str]]] = {
        "random": lambda task: rng.sample(train, SHOTS),
        "question": lambda task: [shot.sql for shot in app.examples(task)],
        "question_and_draft": lambda task: [shot.sql for shot in app.examples(task, drafts.get(task.id))],
        "question_and_gold": lambda task: [shot.sql for shot in app.examples(task, task.gold)],
    }
    arms = {name: scored(tasks, way) for name, way in ways.items()}
    await app.aclose()
    low, high = arms["random"]["best"], arms["question_and_gold"]["best"]
    return {
        "questions": len(tasks),
        "train": len(train),
        "index_s": round(built, 1),
        "drafts": len(drafts),
        "arms": arms,
        "ratio_to_random": round(arms["question_and_draft"]["best"] / low, 2),
        "ratio_to_bound": round(arms["question_and_draft"]["best"] / high, 2),
    }


async def preliminary(app: Any, tasks: Sequence[Task]) -> dict[str, str]:
    """The embedded model's greedy query for each task it can read."""
    model, found = open_model("embedded"), {}
    for task in tasks:
        try:
            (reply,) = await model.generate(app.messages("solver", task.replace(gold=None)), 1, Sampling(seed=0))
        except ModelError:
            continue
        if sql := app.parse("solver", reply.text):
            found[task.id] = sql
    await model.aclose()
    return found


def scored(tasks: Sequence[Task], way: Callable[[Task], Sequence[str]]) -> dict[str, float]:
    """Mean likeness of the best and of all examples, and milliseconds for one question."""
    began = time.perf_counter()
    chosen = [way(task) for task in tasks]
    each = (time.perf_counter() - began) / len(tasks)
    likeness = [
        [overlap(skeleton(t.gold), skeleton(sql)) for sql in sqls] for t, sqls in zip(tasks, chosen, strict=True)
    ]
    return {
        "best": round(fmean(map(max, likeness)), 3),
        "all": round(fmean(map(fmean, likeness)), 3),
        "ms": round(each * 1e3, 1),
    }


if __name__ == "__main__":
    main()
