"""How much of the demo's terms the embedded model learns by distillation, against seconds of training on one core.

Rows are the gold answers of the demo's train questions (what traces give once every train question was solved), or
the traces of a run (`--store FILE --run RUN`). Scored on dev questions, one greedy answer each: with a private term
(without hint and with the right one), without a term, and on held-out synthetic databases (what was forgotten).

    python bench/distill.py --weights FOLDER --epochs 2 4 8 --seeds 0 1
"""

from __future__ import annotations

import argparse
import importlib
import json
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from verbal.contracts import Example
from verbal.models.embedded.codec import Answer, Unsupported, encode
from verbal.models.embedded.decode import Decoder
from verbal.models.embedded.evaluate import accuracy, held_out, run, same_rows
from verbal.models.embedded.fields import Fields
from verbal.models.embedded.forward import Network
from verbal.models.embedded.read import read_prompt
from verbal.parts import make_part
from verbal.store import Store
from verbal.trainers.sft import SFT
from verbal.types import Reflection, Task


class Score:
    """Scores weights on the demo's dev questions and on held-out synthetic ones."""

    def __init__(self, synthetic: int) -> None:
        self.app = make_part("apps", "text2sql")
        self.tasks = self.app.tasks("dev")
        self.cases = held_out(synthetic) if synthetic else []
        terms = importlib.import_module("verbal.apps.text2sql.demo").TERMS
        self.hints = {t.id: [Reflection(id=p, text=terms[p].hint) for p in t.info["terms"]] for t in self.tasks}
        self.gold: dict[str, Any] = {}
        for task in self.tasks:
            with closing(sqlite3.connect(task.info["db"])) as db:
                self.gold[task.id] = run(db, task.gold or "")

    def of(self, folder: str) -> dict[str, float]:
        """Accuracy by kind of question."""
        decoder = Decoder(Network(folder))

        def solve(fields: Fields, k: int = 1, temperature: float = 0.0) -> list[Answer]:
            try:
                samples = decoder.answers(encode(fields), k, temperature)
            except Unsupported:
                return [Answer()] * k
            return [sample.answer or Answer() for sample in samples]

        marks: dict[str, list[bool]] = {}
        for task in self.tasks:
            for name, hints in (("no hint", []), ("hint", self.hints[task.id])):
                if name == "no hint" or hints:
                    key = f"terms, {name}" if task.info["terms"] else "plain"
                    marks.setdefault(key, []).append(self._right(task, solve, hints))
                    if name == "no hint":
                        marks.setdefault("all, no hint", []).append(marks[key][-1])
        found = {name: sum(values) / len(values) for name, values in marks.items()}
        if self.cases:
            found["synthetic"] = accuracy(solve, self.cases)["all"]
        return found

    def _right(self, task: Task, solve: Any, hints: list[Reflection]) -> bool:
        messages = self.app.messages("solver", task, hints=hints)
        answer = solve(read_prompt([(m.role, m.content) for m in messages]))[0]
        ordered = "ORDER BY" in (task.gold or "").upper()
        with closing(sqlite3.connect(task.info["db"])) as db:
            return same_rows(run(db, answer.sql), self.gold[task.id], ordered)


def gold_rows(app: Any) -> list[Example]:
    rows = []
    for task in app.tasks("train"):
        prompt = [{"role": m.role, "content": m.content} for m in task.messages]
        completion = [{"role": "assistant", "content": f"```sql\n{task.gold}\n```"}]
        rows.append(Example(columns={"prompt": prompt, "completion": completion}, attempts=(task.id,)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--epochs", type=float, nargs="+", default=[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[0])
    parser.add_argument("--rehearsal", type=float, nargs="+", default=[0.125])
    parser.add_argument("--blend", type=float, default=0)
    parser.add_argument("--rows", type=int, default=0, help="at most so many train rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--synthetic", type=int, default=100)
    parser.add_argument("--store")
    parser.add_argument("--run")
    parser.add_argument("--out", default="bench/results/distill.json")
    args = parser.parse_args()
    from verbal.trainers.slots import folder_of

    base = args.weights if args.weights.startswith("embedded") else f"embedded:{args.weights}"
    score = Score(args.synthetic)
    if args.store:
        with Store(args.store) as store:
            rows = SFT().examples(store, run=args.run)
    else:
        rows = gold_rows(score.app)
    if args.rows:
        rows = Random(0).sample(rows, args.rows)
    results: list[dict[str, Any]] = [{"epochs": 0, "seconds": 0.0, **score.of(str(folder_of(base)))}]
    print(json.dumps(results[0]), flush=True)
    grid = [
        (r, b, h, e, s) for r in args.rates for b in args.batches for h in args.rehearsal for e in args.epochs
        for s in args.seeds
    ]  # fmt: skip
    for rate, batch, rehearsal, epochs, seed in grid:
        method = SFT(
            epochs=epochs or None,
            learning_rate=rate or None,
            batch=batch or None,
            rehearsal=rehearsal,
            blend=args.blend or None,
        )
        with tempfile.TemporaryDirectory() as folder:
            began, core = time.perf_counter(), time.process_time()
            papers = method.train(rows, base, folder, seed=seed)
            times = {"seconds": time.perf_counter() - began, "core_seconds": time.process_time() - core}
            figures = {k: papers[k] for k in ("rows", "steps", "tokens", "loss_first", "loss_last")}
            setting = {
                "epochs": papers["epochs"],
                "rate": rate,
                "batch": batch,
                "rehearsal": rehearsal,
                "blend": args.blend,
                "seed": seed,
            }
            results.append({**setting, **times, **figures, **score.of(folder)})
        shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in results[-1].items()}
        print(json.dumps(shown), flush=True)
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
