"""A folder in which something was learned, and a training method of a user's own that needs no torch.

`Counting` trains the embedded model by copying it, a step at a time: it writes a state to resume from, can be slow, can
fill the disk, and can break the seal. All that `verbal distill` promises of a method can be seen on it in a second.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from verbal.learning import run_learn

METHOD = '''
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from verbal.contracts import Example
from verbal.errors import TrainError
from verbal.models.embedded.model import SHIPPED
from verbal.trainers import checkpoint
from verbal.trainers.examples import Rows
from verbal.trainers.rows import Selection, sft


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Counts its steps and copies the weights.

    Source: nobody's paper.
    """

    name: ClassVar[str] = "counting"
    steps: int = 4
    pause: float = 0.0
    waits: str = ""
    disk: str = ""
    sealed: bool = False
    breaks_at: int = 0
    learning_rate: float = 0.1

    def examples(self, store, *, run=None):
        if self.sealed:
            test = next(t for t in store.tasks().values() if t.split == "test")
            row = sft(store, Selection(run=run)).rows[0]
            return [Example(columns=row.columns, attempts=row.attempts), type(row)(**{**vars_of(row), "task": test.id})]
        return Rows(sft(store, Selection(run=run)))

    def train(self, examples, model, out, *, seed=0, recipe=None, on_progress=None, resume=False):
        folder, state = Path(out), Path(out) / "resume" / "state.json"
        first = json.loads(state.read_text()) if resume and state.is_file() else 0
        state.parent.mkdir(parents=True, exist_ok=True)
        for step in range(first + 1, self.steps + 1):
            if step == self.breaks_at:
                raise TrainError(f"the loss became nan at step {step}")
            time.sleep(self.pause)
            state.write_text(json.dumps(step))
            while self.waits and step > 3 and Path(self.waits).exists():
                time.sleep(0.02)
            on_progress(step, self.steps, {"loss": 1 / step, "reward": 0.5, "tokens_per_second": 1200.0})
        if self.disk:
            with open(self.disk, "w") as file:
                file.write("x" * 100)
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(SHIPPED / name, folder)
        papers = checkpoint.describe(examples, method=self.name, kind="embedded", base=model, seed=seed)
        made = checkpoint.write(folder, {**papers, "steps": self.steps, "first_step": first + 1, "options": {}})
        shutil.rmtree(folder / "resume")
        return made


def vars_of(row):
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
'''

RECIPE = """
name = "counting"
[memory]
name = ""
[trainer]
name = "./method.py:Counting"
"""

ASKS = ["How many cities are there?", "Show the names of all cities.", "Show the countries of all cities."]
SQL = ["SELECT COUNT(*) FROM city", "SELECT name FROM city", "SELECT country FROM city"]


def make_world(folder: Path) -> dict[str, str]:
    """Writes database, questions, scripted model, method and recipe into a folder; gives the app's options."""
    db = sqlite3.connect(folder / "towns.sqlite")
    db.execute("CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, country TEXT)")
    db.executemany("INSERT INTO city VALUES (?, ?, ?)", [(1, "Vienna", "A"), (2, "Linz", "A"), (3, "Bern", "S")])
    db.commit()
    db.close()
    splits = ("train", "train", "dev", "test")
    asks = [*zip(ASKS, SQL, splits, strict=False), ("How many countries are there?", SQL[0], "test")]
    lines = [{"id": f"q{i}", "question": q, "sql": s, "split": p} for i, (q, s, p) in enumerate(asks, 1)]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [{"match": "How many cities", "reply": f"```sql\n{SQL[0]}\n```"}, {"reply": f"```sql\n{SQL[1]}\n```"}]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "method.py").write_text(METHOD)
    (folder / "counting.toml").write_text(RECIPE)
    return {"db": str(folder / "towns.sqlite"), "questions": str(folder / "q.jsonl")}


def learn(folder: Path, app: dict[str, str], *, run: str = "run", limit: int | None = None) -> Path:
    """Lets the scripted model answer the train questions rightly, without a memory; gives the store."""
    options: dict[str, Any] = {"recipe": "reflect", "model": f"scripted:{folder / 'm.jsonl'}", "app": app}
    options["overrides"] = ['memory.name=""']
    run_learn(
        options, str(folder / "v.db"), run=run, memory=run, split="train", limit=limit, seeds=1, evaluate_on="",
        resume=False, dry_run=False, quiet=True,
    )  # fmt: skip
    return folder / "v.db"
