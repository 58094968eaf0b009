"""A 1,000-task run that is killed 20 times with SIGKILL and resumed: what was lost, doubled or paid twice.

The run is `verbal learn` with the reflect recipe on a small SQLite file; the scripted model answers wrongly, then is
corrected. A server is not needed: every call that was paid for is counted by the model itself in an append-only file.
Writes bench/results/resume.json: kills, lost, duplicated, repeated_calls, seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from verbal.store import Store

MODEL = r"""
import os, re
from verbal.models.scripted import ScriptedModel

def answer(messages, *_):
    with open(os.environ["CALLS"], "a") as file:
        file.write("x\n")
    text = messages[-1].content
    n = int(re.search(r"## Question\nWhat is the name of number (\d+)", text)[1])
    if text.startswith("# Role: reflector"):
        return f"HINT: number {n} means id = {n}"
    wrong = n % 3 == 0 and "## Tried\nnone" in text
    return f"```sql\nSELECT name FROM thing WHERE id = {0 if wrong else n}\n```"

class Counting(ScriptedModel):
    def __init__(self):
        super().__init__(answer)
"""


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "resume.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = bench(Path(folder), options.tasks, options.kills)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def bench(folder: Path, tasks: int, kills: int) -> dict[str, float]:
    """One uninterrupted run and one killed run of the same tasks, compared record by record."""
    prepare(folder, tasks)
    began = time.perf_counter()
    subprocess.run(command(folder, "whole"), env=environment(folder, "whole"), check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - began
    rng, done, killed_seconds = random.Random(0), 0, time.perf_counter()
    (folder / "killed").mkdir()
    counted = folder / "killed" / "calls"
    counted.touch()
    while True:
        process = subprocess.Popen(
            command(folder, "killed"), env=environment(folder, "killed"), stdout=subprocess.DEVNULL
        )
        # A kill comes after some more calls were paid for, and a little later, so that it hits every kind of moment.
        until = counted.stat().st_size + 2 * rng.randint(1, max(1, 3 * tasks // (2 * max(kills, 1))))
        while process.poll() is None and (done >= kills or counted.stat().st_size < until):
            time.sleep(0.001)
        if process.poll() is None:
            time.sleep(rng.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            continue
        if process.returncode:
            raise SystemExit(f"the run failed with exit code {process.returncode}")
        break
    return {
        "tasks": tasks,
        "kills": done,
        **compare(folder),
        "seconds_uninterrupted": round(whole, 1),
        "seconds_with_kills": round(time.perf_counter() - killed_seconds, 1),
    }


def compare(folder: Path) -> dict[str, int]:
    """What the killed run lost, doubled and paid twice, against the uninterrupted one."""
    with Store(folder / "whole" / "v.db") as whole, Store(folder / "killed" / "v.db") as killed:
        want = {a.id: a.answer for a in whole.attempts("bench")}
        made = [a.id for a in killed.attempts("bench")]
        got = {a.id: a.answer for a in killed.attempts("bench")}
        items = [[o.item.text for _, o in s.ops("bench") if o.op == "ADD" and o.item] for s in (whole, killed)]
        groups = [len(s.groups("bench")) for s in (whole, killed)]
    lost = sum(got.get(i) != answer for i, answer in want.items()) + max(groups[0] - groups[1], 0)
    lost += len(set(items[0]) - set(items[1]))
    doubled = len(made) - len(set(made)) + len(set(got) - set(want)) + len(items[1]) - len(set(items[1]))
    calls = [sum(1 for _ in (folder / name / "calls").open()) for name in ("whole", "killed")]
    return {
        "attempts": len(want),
        "lessons": len(items[0]),
        "lost": lost,
        "duplicated": doubled,
        "calls": calls[0],
        "repeated_calls": calls[1] - calls[0],
    }


def prepare(folder: Path, tasks: int) -> None:
    """The database, the questions and the model."""
    db = sqlite3.connect(folder / "things.sqlite")
    db.execute("CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT)")
    db.executemany("INSERT INTO thing VALUES (?, ?)", [(i, f"thing {i}") for i in range(1, tasks + 1)])
    db.commit()
    db.close()
    ask, sql = "What is the name of number {}?", "SELECT name FROM thing WHERE id = {}"
    numbers = range(1, tasks + 1)
    lines = [{"id": f"q{i:04}", "question": ask.format(i), "sql": sql.format(i), "split": "train"} for i in numbers]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")


def command(folder: Path, name: str) -> list[str]:
    """`verbal learn --resume` of one of the two runs."""
    return [
        sys.executable, "-m", "verbal.cli", "learn", "--db", str(folder / "things.sqlite"),
        "--questions", str(folder / "questions.jsonl"), "--model", f"{folder / 'model.py'}:Counting",
        "--store", str(folder / name / "v.db"), "--run", "bench", "--resume", "--json",
        "--set", "loop.critique=false", "--set", 'memory.name="exact"',
    ]  # fmt: skip


def environment(folder: Path, name: str) -> dict[str, str]:
    """The environment of a run, with the file in which its model counts."""
    (folder / name).mkdir(exist_ok=True)
    return {**os.environ, "CALLS": str(folder / name / "calls"), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
