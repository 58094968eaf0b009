"""Every cent and token: reserved before it is spent, settled after, never over a limit, never forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verbal.testing
from verbal.contracts import Sampling
from verbal.errors import BudgetError, ConfigError
from verbal.ledger import Ledger, Limits, Reservation
from verbal.models import ModelCalls
from verbal.models.scripted import ScriptedModel
from verbal.recipe import LimitsTable, Recipe
from verbal.run import open_ledger
from verbal.store import Store
from verbal.types import Message, Usage

ROOT = Path(__file__).resolve().parents[2]
ASK = [Message(role="user", content="hello")]
CRITIC = f"{verbal.testing.__file__}:TinyCritic"


def used(calls: int = 1, tokens: int = 0, cost: float | None = 0.0) -> Usage:
    return Usage(calls=calls, prompt_tokens=tokens, cost=cost)


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
