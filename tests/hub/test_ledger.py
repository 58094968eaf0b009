"""Every cent and token: reserved before it is spent, settled after, never over a limit, never forgotten."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verbal.testing
from verbal.contracts import Reply, Sampling
from verbal.errors import BudgetError, ConfigError, RefusedError, StoreError, TransientError
from verbal.ledger import Ledger, Limits, Reservation, owner
from verbal.models import ModelCalls, Retry
from verbal.models.scripted import ScriptedModel
from verbal.recipe import CriticsTable, LimitsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.run import Summary, learn, open_ledger, open_workshop
from verbal.store import Store
from verbal.testing import TinyApp, tiny_reply
from verbal.types import Message, Usage

ROOT = Path(__file__).resolve().parents[2]
ASK = [Message(role="user", content="hello")]
CRITIC = f"{verbal.testing.__file__}:TinyCritic"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "v.db") as opened:
        yield opened


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


# limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "worst", "said"),
    [
        (Limits(max_calls=2), used(), r"the limit of 2 calls is reached \(2 made\)"),
        (Limits(max_tokens=25), used(tokens=10), r"the tokens to 30, over the limit of 25 \(20 used\)"),
        (Limits(max_cost=0.25), used(cost=0.125), r"the cost to \$0\.3750, over the limit of \$0\.2500 \(\$0\.2500"),
    ],
)
async def test_the_call_that_could_exceed_a_limit_is_not_allowed(limits: Limits, worst: Usage, said: str) -> None:
    ledger = Ledger(limits)
    for _ in range(2):
        ledger.settle(await ledger.reserve(worst), worst)
    with pytest.raises(BudgetError, match=said) as caught:
        await ledger.reserve(worst, where="model a/b")
    assert caught.value.where == "model a/b" and "nothing done so far is lost" in caught.value.todo
    with pytest.raises(BudgetError, match=said):
        ledger.require(worst)
    assert ledger.spent == worst + worst, "what was refused is not counted"


async def test_without_limits_everything_is_allowed_and_counted() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.settle(await ledger.reserve(used(tokens=10**9, cost=None)), used(tokens=7, cost=0.5))
    ledger.charge("trainer", "sft", Usage(seconds=3600, cost=2.0))
    assert (ledger.spent.calls, ledger.spent.tokens, ledger.spent.cost, ledger.spent.seconds) == (3, 21, 3.5, 3600)


async def test_a_limit_of_nothing_allows_nothing() -> None:
    for limits in (Limits(max_calls=0), Limits(max_tokens=0), Limits(max_cost=0.0), Limits(max_seconds=0.0)):
        with pytest.raises(BudgetError):
            await Ledger(limits).reserve(used(tokens=1, cost=1e-12))


async def test_a_free_call_needs_no_money() -> None:
    ledger = Ledger(Limits(max_cost=0.0))
    ledger.settle(await ledger.reserve(used(tokens=10, cost=0.0)), used(tokens=10, cost=0.0))
    assert ledger.spent.calls == 1


async def test_a_call_of_unknown_price_is_refused_where_money_is_limited() -> None:
    ledger = Ledger(Limits(max_cost=1.0))
    for ask in (ledger.reserve(used(cost=None), where="model a/b"), None):
        with pytest.raises(ConfigError, match="price of this model is not known") as caught:
            await ask if ask else ledger.require(used(cost=None), where="model a/b")
        assert caught.value.where == "model a/b" and "--prices FILE" in caught.value.todo
        assert "model.price_in" in caught.value.todo
    assert ledger.spent == Usage()
    with pytest.raises(ConfigError, match="what was spent before is not known"):
        Ledger(Limits(max_cost=1.0), spent=used(cost=None))


async def test_what_fits_once_others_have_settled_waits_for_them() -> None:
    ledger = Ledger(Limits(max_tokens=10))
    first = await ledger.reserve(used(tokens=8))
    waiting = [asyncio.ensure_future(ledger.reserve(used(tokens=t))) for t in (9, 2, 5)]
    await asyncio.sleep(0)
    # 2 fits beside the first; 9 and 5 do not, but nothing that was spent stands in their way.
    assert [w.done() for w in waiting] == [False, True, False]
    with pytest.raises(BudgetError):
        await ledger.reserve(used(tokens=11))
    ledger.settle(first, used(tokens=1))
    await asyncio.sleep(0)
    assert [w.done() for w in waiting] == [False, True, True], "the one that fits goes first, whoever came first"
    ledger.settle(waiting[1].result(), used(tokens=1))
    ledger.settle(waiting[2].result(), used(tokens=0))
    with pytest.raises(BudgetError, match="tokens to 11"):
        await waiting[0]
    assert ledger.spent.tokens == 2


async def test_a_waiter_that_is_cancelled_holds_up_nobody() -> None:
    ledger = Ledger(Limits(max_tokens=10))
    first = await ledger.reserve(used(tokens=10))
    gone, stays = (asyncio.ensure_future(ledger.reserve(used(tokens=6))) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    ledger.settle(first, used(tokens=0))
    assert (await stays).worst.tokens == 6 and gone.cancelled()
    assert ledger.spent.tokens == 0


async def test_time_runs_by_the_clock_that_was_given_from_when_it_began(store: Store) -> None:
    now = [100.0]
    ledger = Ledger(Limits(max_seconds=60), clock=lambda: now[0])
    early = Ledger(Limits(max_seconds=60), clock=lambda: now[0], began=50.0)
    assert (ledger.seconds, early.seconds) == (0.0, 50.0)
    now[0] = 110.0
    with pytest.raises(BudgetError, match=r"the limit of 60 s is reached \(60 s\)"):
        early.require(used())
    held = await ledger.reserve(used())
    now[0] = 161.0
    with pytest.raises(BudgetError, match="60 s"):
        await ledger.reserve(used())
    ledger.settle(held, used())
    recipe = Recipe(limits=LimitsTable(max_minutes=1.0))
    open_ledger(recipe, store, "r").require(used())
    with pytest.raises(BudgetError, match="60 s"):
        open_ledger(recipe, store, "r", began=time.monotonic() - 61).require(used())


STEPS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40), st.integers(0, 64), st.integers(0, 7)), max_size=40)


async def interleave(ledger: Ledger, steps: Sequence[tuple[int, int, int, int]], unit: float) -> list[Usage]:
    """Reserves and settles in the order that `steps` say; gives the worst cases of what was refused."""
    under_way: list[asyncio.Task[Reservation]] = []
    refused: list[Usage] = []

    def check() -> None:
        limits, spent = ledger.limits, ledger.spent
        assert limits.max_calls is None or spent.calls <= limits.max_calls
        assert limits.max_tokens is None or spent.tokens <= limits.max_tokens
        assert limits.max_cost is None or (spent.cost is not None and spent.cost <= limits.max_cost)

    async def close(at: int, share: int) -> None:
        granted = [t for t in under_way if t.done()]
        if not granted:
            return
        task = granted[at % len(granted)]
        under_way.remove(task)
        try:
            worst = (await task).worst
        except BudgetError:
            return
        assert worst.cost is not None
        part = [worst, worst.replace(prompt_tokens=worst.prompt_tokens // 2, cost=worst.cost / 2)][share % 2]
        ledger.settle(task.result(), part)
        check()

    async def reserve(worst: Usage) -> Reservation:
        try:
            return await ledger.reserve(worst)
        except BudgetError:
            # At this moment, whatever comes later: what is left is less than this one call can use.
            limits, spent = ledger.limits, ledger.spent
            assert (
                (limits.max_calls is not None and limits.max_calls - spent.calls < worst.calls)
                or (limits.max_tokens is not None and limits.max_tokens - spent.tokens < worst.tokens)
                or (limits.max_cost is not None and limits.max_cost - spent.cost <= worst.cost)
            )
            refused.append(worst)
            raise

    for kind, tokens, cents, at in steps:
        if kind < 7:
            under_way.append(asyncio.ensure_future(reserve(used(tokens=tokens, cost=cents * unit))))
        else:
            await close(at, kind)
        await asyncio.sleep(0)
    for _ in range(2 * len(steps)):
        await close(0, 0)
        await asyncio.sleep(0)
    assert not under_way, "a call that may be made is made in the end"
    check()
    return refused


LIMITS = st.builds(
    Limits,
    max_calls=st.none() | st.integers(0, 12),
    max_tokens=st.none() | st.integers(0, 200),
    max_cost=st.none() | st.integers(0, 300).map(lambda n: n / 1024),
)


@given(STEPS, LIMITS)
@settings(max_examples=300)
async def test_no_interleaving_exceeds_a_limit_or_leaves_more_than_one_call(steps: Any, limits: Limits) -> None:
    await interleave(Ledger(limits), steps, 1 / 1024)


@given(STEPS, st.integers(0, 300))
async def test_tenths_and_cents_exceed_a_limit_no_more_than_others(steps: Any, limit: int) -> None:
    await interleave(Ledger(Limits(max_cost=limit / 100)), steps, 0.01)


@pytest.mark.xfail(reason="costs are added as floats, in another order than they were reserved", raises=AssertionError)
@given(st.lists(st.integers(1, 99), min_size=3, max_size=6), st.randoms(use_true_random=False))
async def test_the_dust_of_floats_never_exceeds_a_limit(cents: list[int], random: Any) -> None:
    costs = [c / 100 for c in cents]
    ledger = Ledger(Limits(max_cost=sum(costs)))
    held = []
    for cost in costs:
        try:
            held.append(await asyncio.wait_for(ledger.reserve(used(cost=cost)), 0.001))
        except (BudgetError, TimeoutError):  # dust may also stand in the way: then one call less is made
            continue
    random.shuffle(held)
    for reservation in held:
        ledger.settle(reservation, reservation.worst)
    assert ledger.limits.max_cost is not None and ledger.spent.cost is not None
    assert ledger.spent.cost <= ledger.limits.max_cost


@pytest.mark.xfail(reason="0.1 + 0.2 + 0.3 is more than 0.3 + 0.2 + 0.1", raises=AssertionError)
async def test_three_costs_that_fit_in_one_order_fit_in_every_order() -> None:
    ledger = Ledger(Limits(max_cost=0.6))
    held = [await ledger.reserve(used(cost=c)) for c in (0.3, 0.2, 0.1)]
    for reservation in reversed(held):
        ledger.settle(reservation, reservation.worst)
    assert ledger.spent.cost is not None and ledger.spent.cost <= 0.6


async def test_dust_of_calls_that_are_over_is_no_debt() -> None:
    """After a thousand calls of a tenth that came and went nothing is held, so the whole limit is free."""
    ledger = Ledger(Limits(max_cost=0.3))
    for _ in range(1000):
        held = [await ledger.reserve(used(cost=c)) for c in (0.1, 0.1)]
        for reservation in held:
            ledger.settle(reservation, used(cost=0.0))
    ledger.settle(await ledger.reserve(used(cost=0.3)), used(cost=0.3))
    assert ledger.spent.cost == 0.3


@pytest.mark.parametrize("limits", [Limits(max_calls=40), Limits(max_tokens=9000), Limits(max_cost=0.009)])
async def test_many_callers_at_once_stay_under_the_limit(limits: Limits, store: Store) -> None:
    async def answer(messages: Sequence[Message], index: int, seed: int | None) -> str:
        for _ in range((seed or 0) % 5):
            await asyncio.sleep(0)
        return "w " * ((seed or 0) % 90 + 1)

    ledger = Ledger(limits, store=store, run="r")
    calls = ModelCalls(ScriptedModel(answer), ledger=ledger, price_in=1.0, price_out=1.0, concurrency=64)

    async def caller(number: int) -> int:
        for made in range(1000):
            try:
                await calls.generate(ASK, 1, Sampling(max_tokens=90, seed=1000 * number + made))
            except BudgetError:
                return made
        raise AssertionError("the limit stops everyone")

    made = sum(await asyncio.gather(*(caller(i) for i in range(64))))
    worst = calls.worst(ASK, 1, Sampling(max_tokens=90))
    spent = ledger.spent
    assert spent.calls == made == store.usage("r")["solver"].calls and spent.tokens == store.usage("r")["solver"].tokens
    assert spent.cost == pytest.approx(store.usage("r")["solver"].cost)
    assert limits.max_calls is None or spent.calls == limits.max_calls
    assert limits.max_tokens is None or limits.max_tokens - worst.tokens < spent.tokens <= limits.max_tokens
    assert limits.max_cost is None or limits.max_cost - (worst.cost or 0) < (spent.cost or 0) <= limits.max_cost
    assert store.open_calls("r") == []


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


@pytest.mark.xfail(reason="a reservation outlives the store's refusal to write it down", raises=AssertionError)
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
)
def test_whose_call_may_still_come_back(name: str, closed: bool, store: Store) -> None:
    store.open_call("c", "r", "solver", "m", used(tokens=5), name)
    ledger = Ledger(store=store, run="r")
    assert ledger.interrupted == closed and len(store.open_calls("r")) == (not closed)
    assert ledger.spent == used(tokens=5), "either way it is counted"


# charges, roles, runs -------------------------------------------------------------------------------------------------


def test_a_charge_is_one_row_whatever_it_is_for(store: Store) -> None:
    ledger = Ledger(store=store, run="r")
    ledger.charge("embedder", "http/e", Usage(calls=1, prompt_tokens=30, cost=0.25))
    ledger.charge("trainer", "sft", Usage(seconds=60.0, cost=0.5))
    ledger.charge("trainer", "sft", Usage(seconds=60.0, cost=0.5))
    assert store.usage("r")["trainer"] == Usage(seconds=120.0, cost=1.0)
    assert store.usage("r")["embedder"].prompt_tokens == 30
    assert ledger.spent == Ledger(store=store, run="r").spent == Usage(
        calls=1, prompt_tokens=30, cost=1.25, seconds=120.0
    )  # fmt: skip


def test_a_charge_that_is_repeated_in_the_store_counts_once(store: Store) -> None:
    for _ in range(3):
        Ledger(store=store, run="r").charge("trainer", "sft", Usage(cost=1.0), call="r/step/1")
    assert store.usage("r") == {"trainer": Usage(cost=1.0)}


@pytest.mark.xfail(reason="charge adds to what was spent whether or not the store knew the call", raises=AssertionError)
def test_a_charge_that_is_repeated_counts_once_in_the_process_too(store: Store) -> None:
    ledger = Ledger(Limits(max_cost=1.5), store=store, run="r")
    ledger.charge("trainer", "sft", Usage(cost=1.0), call="r/step/1")
    ledger.charge("trainer", "sft", Usage(cost=1.0), call="r/step/1")
    assert ledger.spent.cost == 1.0


def test_training_stops_before_the_step_that_could_exceed_the_limit(store: Store) -> None:
    ledger = Ledger(Limits(max_cost=1.0), store=store, run="r")
    ledger.require(Usage(seconds=1800, cost=0.9))
    assert ledger.spent == Usage(), "looking sets nothing aside"
    ledger.charge("trainer", "sft", Usage(seconds=1800, cost=0.9))
    with pytest.raises(BudgetError, match=r"could bring the cost to \$1\.1000") as caught:
        ledger.require(Usage(cost=0.2), where="training, step 3 of 9")
    assert caught.value.where == "training, step 3 of 9" and caught.value.todo


async def test_what_is_under_way_counts_for_a_look_too() -> None:
    ledger = Ledger(Limits(max_tokens=10))
    held = await ledger.reserve(used(tokens=6))
    with pytest.raises(BudgetError):
        ledger.require(used(tokens=5))
    ledger.settle(held, used(tokens=1))
    ledger.require(used(tokens=5))


async def test_roles_are_counted_apart_and_add_up(store: Store) -> None:
    ledger = Ledger(store=store, run="r")
    calls = ModelCalls(ScriptedModel(["one two"]), ledger=ledger)
    for role, times in (("solver", 3), ("critic", 2), ("reflector", 1)):
        for _ in range(times):
            await calls.for_role(role).generate(ASK, 1, Sampling())
    found = store.usage("r")
    assert {role: u.calls for role, u in found.items()} == {"solver": 3, "critic": 2, "reflector": 1}
    assert sum(found.values(), Usage()).tokens == ledger.spent.tokens == 6 * 3


def test_sibling_runs_count_against_one_limit_and_are_not_each_others(store: Store) -> None:
    recipe = Recipe(limits=LimitsTable(max_calls=10, max_cost=1.0, max_tokens=100))
    for run, calls in (("a", 3), ("a:1", 4)):
        store.put_call(f"{run}/x", run, "solver", "m", used(calls, tokens=10, cost=0.25))
    ledger = open_ledger(recipe, store, "a:eval", others=["a", "a:1", "never-begun"])
    assert ledger.limits == Limits(max_calls=10, max_cost=1.0, max_tokens=100)
    assert (ledger.spent.calls, ledger.spent.tokens, ledger.spent.cost) == (7, 20, 0.5)
    ledger.require(used(3))
    with pytest.raises(BudgetError, match=r"10 calls is reached \(7 made\)"):
        ledger.require(used(4))
    assert open_ledger(recipe, store, "a", others=["a:1"]).spent == ledger.spent
    assert open_ledger(recipe, store, "b").spent == Usage()
    assert store.usage("a:eval") == {}, "what others spent is not written down again"


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
        assert {role: u.calls for role, u in found.usage.items()} == {r: u.calls for r, u in whole.usage.items()}


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
