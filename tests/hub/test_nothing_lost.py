"""Nothing is lost: a clock that jumps, a full disk, a model that never returns, two runs on one store.

Every test runs the tiny app through `verbal.run.learn` and compares what the store holds in the end with the run that
nobody disturbed. This file is also the program that the tests start as other processes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import verbal.testing
from verbal.contracts import Reply, Sampling
from verbal.errors import StoreError, TransientError
from verbal.evaluate import Scores, evaluate_arm
from verbal.recipe import CriticsTable, LimitsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.run import Summary, learn, open_workshop
from verbal.store import Store
from verbal.testing import ChaosModel, ScriptedModel, TinyApp, tiny_reply
from verbal.types import Message, StopReason

ROOT = Path(__file__).resolve().parents[2]
CRITIC = f"{verbal.testing.__file__}:TinyCritic"
CODES = {f"word{i:02}": str(100 + 7 * i) for i in range(24)}
YEAR = 365 * 86400.0


def recipe(*, model: dict[str, Any] | None = None, loop: dict[str, Any] | None = None, **tables: Any) -> Recipe:
    """The tiny app with fast retries."""
    return Recipe(
        model=ModelTable(**{"retry_first": 0.001, "timeout": 30.0, **(model or {})}),
        loop=LoopTable(**{"rounds": 2, "batch": 8, **(loop or {})}),
        critics=CriticsTable(names=(CRITIC,), verdict=CRITIC),
        memory=MemoryTable(name="exact", k=2, quarantine=False, withhold=0.0),
        **tables,
    )


async def learned(store: Store, *, run: str = "run", model: Any = None, plan: Recipe | None = None) -> Summary:
    """One run of learning on the tiny app; a run that hangs fails here."""
    model = model or ScriptedModel(tiny_reply)
    async with (
        asyncio.timeout(120),
        open_workshop(plan or recipe(), store, run=run, model=model, app=TinyApp(CODES)) as shop,
    ):
        return await learn(shop, shop.app.tasks("train"), run=run)


def kept(store: Store, run: str = "run") -> dict[str, Any]:
    """Everything a run left, without the name of the run and the seconds that calls took."""
    attempts = [a.replace(usage=a.usage.replace(seconds=0.0)) for a in store.attempts(run)]
    ids = [a.id for a in attempts]
    steps = {(i, key): s for i in ids for key in ("critique", "reflect") if (s := store.step(i, key))}
    found = {
        "attempts": sorted(a.to_json() for a in attempts),
        "feedback": [f.to_json() for fs in store.feedback(sorted(ids)).values() for f in fs],
        "steps": sorted(f"{i} {key} {s.to_json()}" for (i, key), s in steps.items()),
        "groups": [g.to_json() for g in store.groups(run)],
        "ops": [(version, op.to_json()) for version, op in store.ops(run)],
    }
    assert len(ids) == len(set(ids)) > len(CODES)

    def nameless(line: str) -> str:
        return re.sub(rf"(?<!\w){run}/", "RUN/", line).replace(f'"run":"{run}"', '"run":"RUN"')

    return {k: [nameless(str(line)) for line in v] for k, v in found.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run leaves on a quiet day."""
    with Store(tmp_path_factory.mktemp("quiet") / "v.db") as store:
        summary = asyncio.run(learned(store))
        assert (summary.tasks, summary.solved, summary.unfinished) == (len(CODES), len(CODES), ())
        return kept(store)


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Nothing is missing and nothing is there twice; says what is."""
    for kind, lines in wanted.items():
        assert sorted(set(lines) - set(found[kind])) == [], f"{kind} lost"
        assert sorted(set(found[kind]) - set(lines)) == [], f"{kind} too many"
        assert found[kind] == lines


def sound(path: Path) -> None:
    """The file is a database without a fault."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


# the clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_a_clock_that_jumps_changes_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    rng, now = random.Random(seed), time.time

    def jumps() -> float:
        return now() + rng.uniform(-30, 30) * YEAR

    monkeypatch.setattr(time, "time", jumps)
    with Store(tmp_path / "v.db") as store:
        # A limit of minutes runs by a clock that no date moves.
        await learned(store, plan=recipe(limits=LimitsTable(max_minutes=60.0, max_calls=10_000)))
        same(kept(store), undisturbed)
        order = [a.id for a in store.attempts("run")]
        assert [i for i in order if i.endswith("/0.0")][:8] == [f"run/learn/train-word{i:02}/0.0" for i in range(8)]
        for task in CODES:
            assert order.index(f"run/learn/train-{task}/0.0") < order.index(f"run/learn/train-{task}/1.0")
        (row,) = store.runs()
        assert row["status"] == "done"
        assert store.open_calls("run") == []


async def test_a_clock_that_jumps_between_a_stop_and_its_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    now = time.time
    with Store(tmp_path / "v.db") as store:
        for years in itertools.count():
            monkeypatch.setattr(time, "time", lambda years=years: now() + (-1) ** years * years * YEAR)
            try:
                await learned(store, model=Dies(after=15))
            except Killed:
                continue
            break
        assert years > 3
        same(kept(store), undisturbed)


class Killed(BaseException):
    """Stands for what nothing catches."""


class Dies(ScriptedModel):
    """A model that takes its process along after so many calls, as near as one process can come to that."""

    def __init__(self, after: int) -> None:
        super().__init__(tiny_reply)
        self._after = after

    async def generate(self, *args: Any) -> Any:
        if self.calls >= self._after:
            raise Killed
        return await super().generate(*args)


# the disk -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [60, 68, 75, 85, 95])
async def test_a_database_that_is_full_stops_the_run_and_it_goes_on_later(
    pages: int, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    path = tmp_path / "v.db"
    model = ScriptedModel(tiny_reply)
    with Store(path) as store:
        full: Any = store
        full._database._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError) as caught:
            await learned(store, model=model)
        assert "database or disk is full" in caught.value.what
        assert caught.value.where and "--resume" in caught.value.todo
    sound(path)
    before = model.calls
    with Store(path) as store:
        done = {a.id for a in store.attempts("run")}
        await learned(store, model=model)
        assert done <= {a.id for a in store.attempts("run")}
        same(kept(store), undisturbed)
        # What the full disk could not take stays reserved until another process finds its owner gone.
        accounted = sum(u.calls for u in store.usage("run").values()) + len(store.open_calls("run"))
        assert accounted >= model.calls, "every call is accounted for"
    assert model.calls - before < 3 * len(CODES) + 8


def program(path: Path, run: str, *limits: str) -> subprocess.Popen[str]:
    """This file as a process of its own, learning on a store."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    return subprocess.Popen(
        [sys.executable, __file__, str(path), run, *limits],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_files_that_may_not_grow_stop_the_run_and_it_goes_on_later(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """RLIMIT_FSIZE stops writes from below SQLite, in its journal as in its file."""
    path = tmp_path / "v.db"
    said, stopped = "", 0
    for size in (400_000, 700_000, 0):
        process = program(path, "run", str(size))
        out, err = process.communicate(timeout=120)
        assert err == "", err
        if size:
            assert out.startswith("StoreError: the store failed: ") and "where: " in out and "to do: " in out, out
            stopped += 1
            sound(path)
        said = out
    assert stopped == 2 and said.startswith("24 of 24")
    with Store(path) as store:
        same(kept(store), undisturbed)


# a model that never returns -------------------------------------------------------------------------------------------


async def test_a_model_that_sometimes_never_returns(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    model = ChaosModel(ScriptedModel(tiny_reply), rate=0.1, seed=1, kinds=("hang",))
    with Store(tmp_path / "v.db") as store:
        summary = await learned(store, model=model, plan=recipe(model={"timeout": 0.05}))
        assert model.injected["hang"] > 0
        assert (summary.solved, summary.unfinished) == (len(CODES), ())
        made = [line.replace("+chaos", "") for line in kept(store)["attempts"]]
        assert made == undisturbed["attempts"]
        lost = sum(u.calls for u in store.usage("run").values())
        assert lost == model.tries, "the calls that nobody answered are counted"


async def test_a_model_that_never_returns_is_told_and_the_run_goes_on_later(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    model = ScriptedModel(tiny_reply)
    plan = recipe(model={"timeout": 0.03, "retries": 2})
    with Store(tmp_path / "v.db") as store:
        gone = ChaosModel(model, rate=1.0, seed=0, kinds=("hang",))
        with pytest.raises(TransientError, match=r"no answer within 0\.03 s") as caught:
            await learned(store, model=gone, plan=plan)
        assert "try 2 of 2" in caught.value.where and caught.value.todo
        assert store.attempts("run") == [] and store.runs()[0]["status"] == "stopped"
        assert store.open_calls("run") == []
        await learned(store, model=model, plan=plan)
        same(kept(store), undisturbed)


class Deaf(ScriptedModel):
    """The tiny model, which never answers about one word."""

    def __init__(self, word: str) -> None:
        super().__init__(tiny_reply)
        self.word = word

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        if self.word and self.word in messages[-1].content:
            raise TransientError("the connection failed", where="deaf", todo="try again")
        return await super().generate(messages, n, sampling)


async def test_a_task_that_could_not_be_reached_is_no_wrong_answer(tmp_path: Path) -> None:
    """Silence is not failure: an evaluation says what it could not ask, and a later one goes on from there."""
    model, plan, app = Deaf(""), recipe(model={"retries": 2}), TinyApp(CODES)

    async def evaluated(store: Store) -> Scores | TransientError:
        async with open_workshop(plan, store, run="run", model=model, app=app) as shop:
            try:
                return await evaluate_arm(
                    shop, app.tasks("dev"), run="eval", arm="memory", seeds=(0,), hints="memory",
                    memories={0: shop.memory} if shop.memory else None,
                )  # fmt: skip
            except TransientError as error:
                return error

    with Store(tmp_path / "v.db") as store:
        await learned(store, model=model, plan=plan)
        model.word = "word07"
        found = await evaluated(store)
        assert isinstance(found, TransientError) or found.unscored > 0
        model.word = ""
        found = await evaluated(store)
        assert not isinstance(found, TransientError)
        assert found.first == ((1.0,) * len(CODES),)


async def test_an_attempt_over_its_time_is_kept_with_what_it_has(tmp_path: Path) -> None:
    model = ScriptedModel(tiny_reply, latency=60.0)
    plan = recipe(loop={"timeout": 0.05, "rounds": 1})
    with Store(tmp_path / "v.db") as store:
        summary = await learned(store, model=model, plan=plan)
        assert (summary.tasks, summary.solved, summary.unfinished) == (len(CODES), 0, ())
        attempts = store.attempts("run")
        assert len(attempts) == len(CODES)
        for attempt in attempts:
            assert attempt.stop is StopReason.TIMEOUT and attempt.answer == ""
            assert attempt.error is not None
            assert "the attempt took longer than 0.05 s\n  where: task " in attempt.error
            assert "\n  to do: raise loop.timeout" in attempt.error
        assert store.open_calls("run") == [], "a call that nobody waits for is closed, at its worst case"
        used = store.usage("run")["solver"]
        assert used.calls == len(CODES) and used.completion_tokens == 1024 * len(CODES)
        assert (await learned(store, model=model, plan=plan)).unfinished == ()
        assert model.calls == len(CODES), "a time-out is data: it is not tried again"


async def test_an_attempt_has_time_for_its_retries_too(tmp_path: Path) -> None:
    """The limit holds for the attempt as a whole: its calls, their waits and their retries."""
    model = ChaosModel(ScriptedModel(tiny_reply), rate=1.0, seed=0, kinds=("server_error",))
    plan = recipe(loop={"timeout": 0.1, "rounds": 1}, model={"retries": 10_000, "retry_first": 0.01})
    with Store(tmp_path / "v.db") as store:
        summary = await learned(store, model=model, plan=plan)
        assert summary.unfinished == ()
        assert {a.stop for a in store.attempts("run")} == {StopReason.TIMEOUT}


# two runs on one store ------------------------------------------------------------------------------------------------


def test_two_processes_on_one_store_do_not_disturb_each_other(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    path = tmp_path / "v.db"
    both = [program(path, name) for name in ("one", "two")]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("24 of 24"), out
    sound(path)
    with Store(path) as store:
        for name in ("one", "two"):
            same(kept(store, name), undisturbed)
            assert store.open_calls(name) == []
        assert [r["status"] for r in store.runs()] == ["done", "done"]
        assert sorted(store.memories()) == ["one", "two"]


def main() -> None:
    """Learns on a store under a limit on the size of files (bytes; 0 is none), and prints what came of it."""
    path, run, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        with Store(path) as store:
            summary = asyncio.run(learned(store, run=run))
        print(f"{summary.solved} of {summary.tasks}")
    except StoreError as error:
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
