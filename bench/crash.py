"""Nothing is lost, nothing is paid twice, nothing stays unexplained: a run killed 50 times, and a run in a storm.

Crash: `verbal learn` on 1,000 tasks (solver, critic and reflector) is killed with SIGKILL at random moments and resumed
until it is done, then compared record by record with the run that nobody disturbed. The scripted model itself writes
down every reply it hands over, so a call made twice is seen whatever the store says; a repeat is excused only when its
reply was not recorded yet and the store shows the call as under way at the kill. Storm: the tiny app with faults of all
kinds in every fifth call; each task ends with an answer or with an error in three parts. Writes
bench/results/crash.json.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import verbal.testing
from verbal.errors import STOPS
from verbal.evaluate import evaluate_arm
from verbal.recipe import CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.run import Progress, learn, open_workshop
from verbal.store import Store
from verbal.testing import ChaosModel, ScriptedModel, TinyApp, tiny_reply
from verbal.types import Attempt, Task

MODEL = r'''
import hashlib, json, os, re
from verbal.cache import fingerprint_of, requests_of
from verbal.models.scripted import ScriptedModel

def answer(messages, *_):
    text = messages[-1].content
    n = int(re.search(r"## Question\nWhat is the name of number (\d+)", text)[1])
    right = f"```sql\nSELECT name FROM thing WHERE id = {n}\n```"
    if text.startswith("# Role: reflector"):
        return f"HINT: number {n} means id = {n}"
    if text.startswith("# Role: critic"):
        return f"VERDICT: wrong\nCLAUSES: where\n{right}"
    wrong = n % 3 == 0 and "## Tried\nnone" in text
    return right.replace(f"= {n}", "= 0") if wrong else right

class Counting(ScriptedModel):
    """Writes one line for each reply, at the moment it hands it over: what was asked, and the key of its recording."""

    def __init__(self):
        super().__init__(answer, latency=0.002)
        self._log = os.open(os.environ["CALLS"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def generate(self, messages, n, sampling):
        replies = await super().generate(messages, n, sampling)
        asked = json.dumps([[m.to_dict() for m in messages], n, repr(sampling)], sort_keys=True)
        (request,) = requests_of(self.name, fingerprint_of(self), messages, n, sampling)
        os.write(self._log, f"{hashlib.sha256(asked.encode()).hexdigest()} {request.key}\n".encode())
        return replies
'''
RUN = "bench"
WORDS = 300


def main() -> None:
    """Runs both benches and writes their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--words", type=int, default=WORDS, help="words of the storm; each is a train and a dev task")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "crash.json")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = crash(Path(folder), options.tasks, options.kills)
    result |= asyncio.run(storm(options.words))
    result["seconds"] = round(time.perf_counter() - began, 1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


# crash ----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Kill:
    """What the store and the model's own log said right after one kill."""

    logged: int
    """Bytes of the model's log."""
    recorded: set[str]
    """Keys of the replies that the store holds."""
    under_way: dict[str, str]
    """Calls that the store shows as under way and that no earlier kill cut off: id -> role."""


@dataclass(slots=True)
class Killed:
    """How the killing went."""

    kills: list[Kill] = field(default_factory=list)
    seconds: float = 0.0


def crash(folder: Path, tasks: int, kills: int) -> dict[str, Any]:
    """One uninterrupted run and one killed run of the same tasks, compared record by record."""
    prepare(folder, tasks)
    began = time.perf_counter()
    subprocess.run(command(folder, "whole"), env=environment(folder, "whole"), check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - began
    killed = kill_and_resume(folder, tasks, kills)
    return {
        "tasks": tasks,
        "kills": len(killed.kills),
        **compare(folder),
        **account(folder, killed.kills),
        "seconds_uninterrupted": round(whole, 1),
        "seconds_with_kills": round(killed.seconds, 1),
    }


def kill_and_resume(folder: Path, tasks: int, kills: int) -> Killed:
    """Starts the run again and again, and kills it at random moments until it has been killed often enough."""
    rng, found, began = random.Random(0), Killed(), time.perf_counter()
    (folder / "killed").mkdir()
    log = folder / "killed" / "calls"
    log.touch()
    # Two calls a task on average: one, and three more for each third task. Some are left for when the killing is over.
    share = 3 * tasks * len(_line()) // max(kills, 1)
    while True:
        process = subprocess.Popen(
            command(folder, "killed"), env=environment(folder, "killed"), stdout=subprocess.DEVNULL
        )
        # Most kills come while calls are under way, some while the run starts or is being resumed.
        until = log.stat().st_size + rng.randint(1, share)
        early = time.perf_counter() + rng.uniform(0.3, 4.0) if rng.random() < 0.1 else None
        while process.poll() is None and (len(found.kills) >= kills or log.stat().st_size < until):
            if early is not None and len(found.kills) < kills and time.perf_counter() > early:
                break
            time.sleep(0.0005)
        if process.poll() is None:
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            process.wait()
            found.kills.append(look(folder, {call for kill in found.kills for call in kill.under_way}))
            continue
        if process.returncode:
            raise SystemExit(f"the run failed with exit code {process.returncode}")
        break
    found.seconds = time.perf_counter() - began
    return found


def _line() -> str:
    return f"{'0' * 64} {'0' * 32}\n"


def look(folder: Path, before: set[str]) -> Kill:
    """The state after a kill; `before` are calls cut off by earlier kills, which no life has closed yet."""
    with Store(folder / "killed" / "v.db") as store:
        recorded = {key for key, _ in store.used_replies(RUN)}
        under_way = {row["call"]: row["role"] for row in store.open_calls(RUN) if row["call"] not in before}
    return Kill((folder / "killed" / "calls").stat().st_size, recorded, under_way)


def account(folder: Path, kills: Sequence[Kill]) -> dict[str, Any]:
    """Which calls were made again, and whether each is excused by a kill and stands in the ledger."""
    whole = (folder / "whole" / "calls").read_text(encoding="utf-8").split("\n")[:-1]
    text = (folder / "killed" / "calls").read_bytes()
    ends = [0, *(k.logged for k in kills), len(text)]
    lives = [text[a:b].decode().split("\n")[:-1] for a, b in itertools.pairwise(ends)]
    made = Counter(line.split()[0] for life in lives for line in life)
    repeats = sum(n - 1 for n in made.values())
    paid_twice = unrecorded = 0
    for at, kill in enumerate(kills):
        # Recorded before this kill and yet asked again after it: nothing excuses that.
        later = Counter(line.split()[1] for life in lives[at + 1 :] for line in life)
        new = kill.recorded - (kills[at - 1].recorded if at else set())
        paid_twice += sum(later[key] for key in new)
        handed = {line.split()[1] for line in lives[at]} - kill.recorded
        unrecorded += len(handed)
        paid_twice += max(0, len(handed) - len(kill.under_way))
    in_flight = sum(len(k.under_way) for k in kills)
    with Store(folder / "killed" / "v.db") as store:
        ledger = {role: usage.calls for role, usage in store.usage(RUN).items()}
        left = len(store.open_calls(RUN))
    return {
        "calls": len(whole),
        "calls_with_kills": sum(made.values()),
        "missing_calls": sum(not made[line.split()[0]] for line in whole),
        "repeated_calls": repeats,
        "repeated_excused": unrecorded,
        "paid_twice": paid_twice,
        "in_flight": in_flight,
        "in_flight_by_role": dict(Counter(role for k in kills for role in k.under_way.values())),
        "ledger_calls": ledger,
        # Each call once, and each one that a kill cut off once more, at its worst case.
        "ledger_missing": len(whole) + in_flight - sum(ledger.values()),
        "reservations_left": left,
    }


def compare(folder: Path) -> dict[str, Any]:
    """What the killed run lost and doubled, against the uninterrupted one."""
    with Store(folder / "whole" / "v.db") as whole, Store(folder / "killed" / "v.db") as killed:
        want, got = records(whole), records(killed)
        texts = [o.item.text for _, o in killed.ops(RUN) if o.op == "ADD" and o.item]
        ids = [a.id for a in killed.attempts(RUN)]
        digests = [digest(store) for store in (whole, killed)]
        assert [r["id"] for r in whole.runs()] == [RUN], "the calls of other runs would be counted as this one's"
    return {
        "records": len(want),
        "lost": sum(got.get(k) != v for k, v in want.items()),
        "duplicated": len(got.keys() - want.keys()) + len(ids) - len(set(ids)) + len(texts) - len(set(texts)),
        "attempts": len(ids),
        "lessons": len(texts),
        "digests_equal": None if None in digests else digests[0] == digests[1],
    }


def records(store: Store) -> dict[str, str]:
    """Every record of the run by its key; only the seconds that calls took are left out."""
    found = {}
    attempts = store.attempts(RUN)
    for attempt in attempts:
        found[f"attempt {attempt.id}"] = attempt.replace(usage=attempt.usage.replace(seconds=0.0)).to_json()
        for key in ("critique", "reflect"):
            if step := store.step(attempt.id, key):
                found[f"step {attempt.id} {key}"] = step.to_json()
    for feedback in store.feedback([a.id for a in attempts]).values():
        found |= {f"feedback {f.attempt} {f.critic} {f.scope}": f.to_json() for f in feedback}
    found |= {f"group {g.task}": g.to_json() for g in store.groups(RUN)}
    return found | {f"op {version}": op.to_json() for version, op in store.ops(RUN)}


def digest(store: Store) -> str | None:
    """The run's digest, where this version of verbal has one."""
    if importlib.util.find_spec("verbal.replay") is None:
        return None
    from verbal.replay import run_digest

    return str(run_digest(store, RUN))


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
        "--store", str(folder / name / "v.db"), "--run", RUN, "--resume", "--json",
        "--seeds", "1", "--eval", "", "--set", "loop.critique=true", "--set", 'memory.name="exact"',
    ]  # fmt: skip


def environment(folder: Path, name: str) -> dict[str, str]:
    """The environment of a run, with the file in which its model counts."""
    (folder / name).mkdir(exist_ok=True)
    return {**os.environ, "CALLS": str(folder / name / "calls"), "OMP_NUM_THREADS": "1"}


# storm ----------------------------------------------------------------------------------------------------------------


async def storm(words: int, rate: float = 0.2, seed: int = 0) -> dict[str, Any]:
    """Learning and one evaluation of the tiny app, with faults of every kind in a share of the calls."""
    app = TinyApp({f"word{i:04}": str(100 + 7 * i % 900) for i in range(words)})
    model = ChaosModel(ScriptedModel(tiny_reply), rate=rate, seed=seed, slow=0.05, retry_after=0.02)
    critic = f"{verbal.testing.__file__}:TinyCritic"
    recipe = Recipe(
        model=ModelTable(timeout=0.5, retry_first=0.005, retries=6, concurrency=16),
        loop=LoopTable(rounds=2, batch=16),
        critics=CriticsTable(names=(critic,), verdict=critic),
        memory=MemoryTable(name="exact", k=2),
    )
    began, stops, crashes, kinds = time.perf_counter(), list[str](), list[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "v.db") as store:
        # What cannot be reached is tried again by resuming; a hang would show as this limit.
        for _ in range(5):
            unfinished: Sequence[str] = ()
            try:
                async with (
                    asyncio.timeout(900),
                    open_workshop(recipe, store, run="storm", model=model, app=app) as shop,
                ):
                    unfinished = (await learn(shop, app.tasks("train"), run="storm")).unfinished
                    await evaluate_arm(
                        shop, app.tasks("dev"), run="storm-dev", arm="memory", seeds=(0,), hints="memory",
                        memories={0: shop.memory} if shop.memory else None, progress=Progress(),
                    )  # fmt: skip
            except STOPS as error:  # told in three parts, and resumed
                (stops if error.where and error.todo else crashes).append(f"{type(error).__name__}: {error}")
                continue
            except Exception as error:
                crashes.append(f"{type(error).__name__}: {error}")
                continue
            if not unfinished:
                break
        for run, arm, split in (("storm", "learn", "train"), ("storm-dev", "memory:0", "dev")):
            kinds.update(end_of(store, run, arm, task) for task in app.tasks(split))
        silent = sum(not a.answer and not a.error for a in store.attempts())
        calls = sum(u.calls for run in ("storm", "storm-dev") for u in store.usage(run).values())
    return {
        "storm_tasks": kinds.total(),
        "storm_finished": kinds["finished"],
        "storm_explained": kinds["explained"],
        "storm_unexplained": kinds.total() - kinds["finished"] - kinds["explained"] + len(crashes),
        "storm_ends": dict(kinds),
        "storm_attempts_without_answer_or_error": silent,
        "storm_stops": stops,
        "storm_crashes": crashes,
        "storm_environments_open": app.opened,
        "storm_calls": calls,
        "storm_faults": dict(sorted(model.injected.items())),
        "storm_seconds": round(time.perf_counter() - began, 1),
    }


def end_of(store: Store, run: str, arm: str, task: Task) -> str:
    """How a task ended: `finished`, `explained`, or what is wrong."""
    group = store.group(run, task.id, arm)
    chosen: Attempt | None = store.attempt(group.chosen) if group is not None and group.chosen else None
    if chosen is None:
        return "missing"
    if chosen.error is not None:
        whole = "\n  where: " in chosen.error and "\n  to do: " in chosen.error
        return "explained" if whole else f"half explained: {chosen.error}"
    return "finished" if chosen.answer else f"no answer and no error ({chosen.stop})"


if __name__ == "__main__":
    main()
