"""What the ledger wrote down: ahead of a call, after a kill, and when a larger budget lets a run go on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import verbal.testing
from verbal.contracts import Reply, Sampling
from verbal.errors import BudgetError, RefusedError, StoreError, TransientError
from verbal.ledger import Ledger, Limits, _began, owner
from verbal.models import ModelCalls, Retry
from verbal.models.scripted import ScriptedModel
from verbal.recipe import CriticsTable, LimitsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.run import Summary, learn, open_workshop
from verbal.store import Store
from verbal.testing import TinyApp, tiny_reply
from verbal.types import Message, Usage

ROOT = Path(__file__).resolve().parents[2]
ASK = [Message(role="user", content="hello")]
CRITIC = f"{verbal.testing.__file__}:TinyCritic"


def used(calls: int = 1, tokens: int = 0, cost: float | None = 0.0) -> Usage:
    return Usage(calls=calls, prompt_tokens=tokens, cost=cost)


class Waits:
    """A model that answers when it is let go, and says what the store knew of the call while it was under way."""

    name = "test/waits"

    def __init__(self, store: Store | None = None, run: str = "r") -> None:
        self.go, self.under_way = asyncio.Event(), asyncio.Event()
        self.store, self.run, self.calls = store, run, 0
        self.seen: list[list[dict[str, Any]]] = []

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        self.calls += 1
        if self.store is not None:
            self.seen.append(self.store.open_calls(self.run))
        self.under_way.set()
        await self.go.wait()
        return [Reply(text="done", usage=Usage(calls=1, prompt_tokens=2, completion_tokens=3, cost=None))] * n

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        for piece in ("a", "b"):
            self.under_way.set()
            yield piece
            await self.go.wait()

    async def check(self) -> str:
        return "ok"

    async def aclose(self) -> None:
        return None


# written ahead --------------------------------------------------------------------------------------------------------


async def test_a_call_is_in_the_store_while_it_is_under_way_and_not_after(store: Store) -> None:
    model = Waits(store)
    calls = ModelCalls(model, role="critic", ledger=Ledger(store=store, run="r"), price_in=1.0, price_out=2.0)
    task = asyncio.ensure_future(calls.generate(ASK, 2, Sampling(max_tokens=10)))
    await model.under_way.wait()
    ((row,),) = model.seen
    assert (row["run"], row["role"], row["model"], row["owner"]) == ("r", "critic", "test/waits", owner())
    assert row["worst"] == calls.worst(ASK, 2, Sampling(max_tokens=10)) and row["worst"].completion_tokens == 20
    assert store.usage("r") == {}
    model.go.set()
    await task
    assert store.open_calls() == [] and store.usage("r")["critic"].tokens == 10
    assert calls.ledger.spent == store.usage("r")["critic"]


async def test_a_stream_is_written_ahead_too(store: Store) -> None:
    model = Waits(store)
    calls = ModelCalls(model, ledger=Ledger(store=store, run="r"), price_in=1.0, price_out=2.0)
    stream = calls.stream(ASK, Sampling(max_tokens=10))
    assert await anext(stream) == "a" and len(store.open_calls("r")) == 1
    model.go.set()
    assert [p async for p in stream] == ["b"] and store.open_calls("r") == []


async def test_a_call_that_was_never_sent_leaves_no_row(store: Store) -> None:
    calls = ModelCalls(Waits(store), ledger=Ledger(Limits(max_calls=0), store=store, run="r"))
    with pytest.raises(BudgetError):
        await calls.generate(ASK, 1, Sampling())
    assert store.open_calls() == [] and store.usage() == {}


@pytest.mark.parametrize("how", ["timeout", "cancelled", "stream"])
async def test_a_call_that_nobody_waits_for_is_charged_at_its_worst(how: str, store: Store) -> None:
    model = Waits(store)
    ledger = Ledger(store=store, run="r")
    timeout = 0.01 if how == "timeout" else None
    calls = ModelCalls(
        model, ledger=ledger, timeout=timeout, retry=Retry(attempts=3, first=0.0), price_in=1.0, price_out=2.0
    )
    sampling = Sampling(max_tokens=50)
    worst = calls.worst(ASK, 1, sampling)
    if how == "timeout":
        with pytest.raises(TransientError, match="no answer within"):
            await calls.generate(ASK, 1, sampling)
    elif how == "cancelled":
        task = asyncio.ensure_future(calls.generate(ASK, 1, sampling))
        await model.under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        stream: Any = calls.stream(ASK, sampling)
        await anext(stream)
        await stream.aclose()
    tries = 3 if how == "timeout" else 1
    assert (ledger.spent.calls, ledger.spent.tokens) == (tries, tries * worst.tokens)
    assert ledger.spent.cost == pytest.approx(tries * (worst.cost or 0.0)) and store.open_calls() == []
    kept = store.usage("r")["solver"]
    assert (kept.calls, kept.tokens) == (ledger.spent.calls, ledger.spent.tokens), "a resumed run knows it too"


async def test_a_call_that_the_provider_refused_is_one_call_and_no_tokens(store: Store) -> None:
    ledger = Ledger(Limits(max_cost=1.0), store=store, run="r")
    with pytest.raises(RefusedError):
        await ModelCalls(ScriptedModel([{"error": "refused"}]), ledger=ledger).generate(ASK, 1, Sampling())
    assert ledger.spent == store.usage("r")["solver"] == Usage(calls=1) and store.open_calls() == []


async def test_a_store_that_cannot_write_ahead_leaves_nothing_set_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(Limits(max_calls=1), store=store, run="r")
    calls = ModelCalls(ScriptedModel(["x"]), ledger=ledger)

    def full(*_: Any) -> None:
        raise StoreError("database or disk is full")

    monkeypatch.setattr(store, "open_call", full)
    with pytest.raises(StoreError):
        await calls.generate(ASK, 1, Sampling())
    monkeypatch.undo()
    later = asyncio.ensure_future(calls.generate(ASK, 1, Sampling()))
    for _ in range(20):
        await asyncio.sleep(0)
    done = later.done()
    later.cancel()
    assert done, "the call waits for ever for one that was never sent"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=12), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
async def test_whenever_callers_give_up_ledger_and_store_agree(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, int]], limited: bool
) -> None:
    """Each caller is cancelled after so many turns of the event loop, while its call takes so many."""

    async def answer(messages: Sequence[Message], index: int, seed: int | None) -> str:
        for _ in range(seed or 0):
            await asyncio.sleep(0)
        return "one two three"

    with Store(tmp_path_factory.mktemp("cancel") / "v.db") as store:
        ledger = Ledger(Limits(max_tokens=2000 if limited else None), store=store, run="r")
        calls = ModelCalls(ScriptedModel(answer), ledger=ledger, price_in=1.0, price_out=2.0, concurrency=4)
        tasks = [
            asyncio.ensure_future(calls.generate(ASK, 1, Sampling(max_tokens=300, seed=turns))) for turns, _ in plan
        ]
        for turn in range(45):
            await asyncio.sleep(0)
            for task, (_, last) in zip(tasks, plan, strict=True):
                if last == turn:
                    task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(d, list | asyncio.CancelledError | BudgetError) for d in done)
        kept = sum(store.usage("r").values(), Usage())
        assert store.open_calls() == [] and calls.concurrency.active == 0
        assert (kept.calls, kept.tokens) == (ledger.spent.calls, ledger.spent.tokens)
        assert kept.cost == pytest.approx(ledger.spent.cost)
        assert kept.calls >= sum(isinstance(d, list) for d in done)
        if limited:
            assert ledger.spent.tokens <= 2000
        # Nothing is left set aside: the whole rest can be had.
        rest = Usage(calls=1, prompt_tokens=2000 - ledger.spent.tokens, cost=0.0) if limited else used()
        ledger.require(rest)


# killed ---------------------------------------------------------------------------------------------------------------


def under_way(path: Path, run: str) -> subprocess.Popen[str]:
    """A process of this file in the middle of a call."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    process = subprocess.Popen(
        [sys.executable, __file__, str(path), run], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == "under way\n"
    return process


def test_a_call_cut_off_by_a_kill_is_counted_at_its_worst_by_the_next_ledger(tmp_path: Path) -> None:
    path = tmp_path / "v.db"
    with Store(path) as store:
        process = under_way(path, "r")
        try:
            (row,) = store.open_calls("r")
            other = Ledger(store=store, run="other")
            living = Ledger(store=store, run="r")
            # The call of a process that lives is counted at its worst, and is its own to close.
            assert (living.spent, living.interrupted) == (row["worst"], 0)
            assert (other.spent, other.interrupted) == (Usage(), 0)
            assert store.open_calls("r") == [row] and store.usage("r") == {}
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        assert store.open_calls("r") == [row], "what was under way is known"
        after = Ledger(Limits(max_calls=2), store=store, run="r")
        assert after.interrupted == 1 and after.spent.calls == 1 and after.spent.tokens == row["worst"].tokens
        assert after.spent.cost == row["worst"].cost and after.spent.cost is not None and after.spent.cost > 0
        assert store.open_calls("r") == [] and store.usage("r") == {"solver": row["worst"]}
        again = Ledger(store=store, run="r")
        assert (again.spent, again.interrupted) == (after.spent, 0), "counted once"
        after.require(used())
        with pytest.raises(BudgetError, match=r"2 calls is reached \(1 made\)"):
            after.require(used(calls=2))


def test_a_kill_is_noted_with_the_call(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "v.db"
    process = under_way(path, "r")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with Store(path) as store:
        assert Ledger(store=store, run="r").interrupted == 1
    db = sqlite3.connect(path)
    ((why,),) = db.execute("SELECT error FROM calls").fetchall()
    db.close()
    assert why.startswith("interrupted: the process died before the reply came")


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("another-host/1/mark", False),
        ("no process at all", False),
        (f"{owner().split('/')[0]}/999999999/mark", True),
        (f"{owner().split('/')[0]}/{os.getpid()}/an-earlier-process-of-this-number", True),
        (owner(), False),
    ],
    ids=["another host", "no name of a process", "a process that is gone", "an earlier one of this number", "this one"],
)
def test_whose_call_may_still_come_back(name: str, closed: bool, store: Store) -> None:
    store.open_call("c", "r", "solver", "m", used(tokens=5), name)
    ledger = Ledger(store=store, run="r")
    assert ledger.interrupted == closed and len(store.open_calls("r")) == (not closed)
    assert ledger.spent == used(tokens=5), "either way it is counted"


# a budget that stops a run, and a larger one that lets it go on -------------------------------------------------------


def plan(**limits: Any) -> Recipe:
    return Recipe(
        model=ModelTable(retry_first=0.001, price_in=1.0, price_out=2.0, max_tokens=64),
        loop=LoopTable(rounds=2, batch=4),
        critics=CriticsTable(names=(CRITIC,), verdict=CRITIC),
        memory=MemoryTable(name="exact", k=2),
        limits=LimitsTable(**limits),
    )


async def learned(store: Store, model: ScriptedModel, **limits: Any) -> Summary | BudgetError:
    async with (
        asyncio.timeout(120),
        open_workshop(plan(**limits), store, run="run", model=model, app=TinyApp()) as shop,
    ):
        try:
            return await learn(shop, shop.app.tasks("train"), run="run")
        except BudgetError as error:
            return error
        finally:
            spent = shop.ledger.spent
            for name, value in (("calls", spent.calls), ("tokens", spent.tokens), ("cost", spent.cost)):
                assert limits.get(f"max_{name}") is None or value <= limits[f"max_{name}"]


def paid(summary: Summary) -> dict[str, int]:
    """Calls by role, without roles that made none."""
    return {role: u.calls for role, u in summary.usage.items() if u.calls}


def kept(store: Store) -> list[str]:
    attempts = [a.replace(usage=a.usage.replace(seconds=0.0)) for a in store.attempts("run")]
    return [*sorted(a.to_json() for a in attempts), *(op.to_json() for _, op in store.ops("run"))]


@pytest.mark.parametrize(
    ("name", "first", "step"), [("max_calls", 1, 3), ("max_tokens", 200, 250), ("max_cost", 3e-4, 3e-4)]
)
async def test_a_run_its_budget_stopped_goes_on_under_a_larger_one(
    name: str, first: float, step: float, tmp_path: Path
) -> None:
    with Store(tmp_path / "free.db") as store:
        free = ScriptedModel(tiny_reply)
        whole = await learned(store, free)
        assert isinstance(whole, Summary) and whole.solved == 8
        wanted = kept(store)
    with Store(tmp_path / "v.db") as store:
        model, limit, stops = ScriptedModel(tiny_reply), first, 0
        while isinstance(found := await learned(store, model, **{name: limit}), BudgetError):
            assert "raise the limit and resume" in found.todo and store.runs()[0]["status"] == "stopped"
            stops, limit = stops + 1, limit + step
        assert stops > 2 and store.runs()[0]["status"] == "done"
        assert store.runs()[0]["recipe"]["limits"][name] == limit, "the newer limits are kept"
        assert kept(store) == wanted
        assert model.calls == free.calls, "nothing was paid twice"
        assert paid(found) == paid(whole)


async def test_a_resume_under_the_same_limit_stops_again_and_spends_nothing(store: Store) -> None:
    model = ScriptedModel(tiny_reply)
    for _ in range(3):
        found = await learned(store, model, max_calls=5)
        assert isinstance(found, BudgetError) and model.calls == 5


def main() -> None:
    """A process that dies in the middle of a call."""
    path, run = sys.argv[1:]

    class Hangs(Waits):
        async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
            print("under way", flush=True)
            await asyncio.sleep(3600)
            raise AssertionError

    with Store(path) as store:
        calls = ModelCalls(Hangs(), ledger=Ledger(store=store, run=run), price_in=1.0, price_out=2.0, timeout=None)
        asyncio.run(calls.generate(ASK, 1, Sampling(max_tokens=100)))


if __name__ == "__main__":
    main()


def test_a_living_process_that_took_over_a_number_is_not_the_owner(store: Store) -> None:
    """Another process, alive, under the number of one that is gone: only when it began tells them apart."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        host, began = owner().split("/")[0], _began(other.pid)
        store.open_call("its own", "r", "solver", "m", used(), f"{host}/{other.pid}/{began}.mark")
        store.open_call("of one before", "r", "solver", "m", used(), f"{host}/{other.pid}/{began}0.mark")
        assert Ledger(store=store, run="r").interrupted == 1
        assert [c["call"] for c in store.open_calls("r")] == ["its own"]
        other.communicate()
