"""Betting: exact values, exact expectations by enumeration, both forms, intervals, streams, what is refused."""

from __future__ import annotations

import doctest
import importlib.util
import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal import betting
from verbal.betting import CAP, EFFECTS, PRIOR, Bet, Bets, ConfidenceSequence, level, threshold
from verbal.errors import ConfigError, DataError

WINDOWS = st.sampled_from([None, 3, 5, 9])
VALUES = st.lists(st.integers(-6, 6), min_size=2, max_size=3, unique=True).map(lambda xs: [x / 6 for x in xs])


def run(bet: Bet, gains) -> list[float]:
    return [bet.add(d) for d in gains]


def paths(values, length: int) -> np.ndarray:
    """Every sequence of this length, one a column."""
    return np.array(list(itertools.product(values, repeat=length))).T


def wealths(bets: Bets, columns: np.ndarray) -> np.ndarray:
    """Wealth after each row, all columns side by side."""
    return np.exp(np.stack([bets.add(row) for row in columns]))


def test_doctests():
    assert doctest.testmod(betting).failed == 0


# exact values -----------------------------------------------------------------------------------------------------


def test_first_stake_is_the_prior_mean_of_kelly_bets():
    kelly = [0.02 / 0.2004, 0.06 / 0.2036, 0.12 / 0.2144, 0.9]  # 0.24 / 0.2576 is over the cap
    stake = 0.1 * kelly[0] + 0.3 * kelly[1] + 0.4 * kelly[2] + 0.2 * kelly[3]
    assert run(Bet(), [1.0]) == [pytest.approx(1 + stake)]
    assert run(Bet(), [-0.5]) == [pytest.approx(1 - stake / 2)]
    assert run(Bet(-0.5), [0.0]) == [pytest.approx(1 + stake * 0.5 + 0.2 * 0.5 * (0.24 / 0.2576 - 0.9))]


def test_without_horizon_the_wealth_is_the_mixture_of_the_effects_wealths():
    gains, alone, total, squares = [0.5, -1, 0, 1 / 3, 1, -0.2], [1.0] * 4, 0.0, 0.0
    for t, d in enumerate(gains):
        variance = (squares + 2) / (t + 10) - (total / (t + 10)) ** 2
        alone = [
            w * (1 + min(e / (variance + e * e), CAP / 0.9) * (d + 0.1)) for w, e in zip(alone, EFFECTS, strict=True)
        ]
        total, squares = total + d, squares + d * d
    assert run(Bet(-0.1), gains)[-1] == pytest.approx(sum(p * w for p, w in zip(PRIOR, alone, strict=True)))
    assert sum(PRIOR) == pytest.approx(1)


def test_the_end_game_stakes_what_the_target_needs():
    last = math.sqrt(2 * math.log(20) / (0.2 * 40))  # 0.8654, more than the mixture's 0.502
    assert run(Bet(horizon=40), [1.0]) == [pytest.approx(1 + last)]
    then = math.sqrt(2 * math.log(20 / (1 + last)) / ((3 / 11 - 1 / 121) * 39))
    assert run(Bet(horizon=40), [1.0, -1.0])[-1] == pytest.approx((1 + last) * (1 - then))
    assert run(Bet(horizon=1), [1.0]) == [pytest.approx(1 + CAP)]
    assert run(Bet(horizon=4000), [1.0]) == run(Bet(), [1.0])
    after = Bet(horizon=2)
    run(after, [0.0] * 30)
    assert after.wealth == 1.0


def test_wealth_and_history():
    bet = Bet()
    assert (bet.wealth, bet.history) == (1.0, [])
    seen = run(bet, [1, -1, 0])
    assert bet.history == seen and bet.wealth == seen[-1]


def test_finite_set_margin_moves_by_what_is_left():
    bet = Bet(population=4)
    bet.add(1.0)  # the three others must have a mean of at most -1/3 for the set's to be at most 0
    before = bet.wealth
    assert bet.add(-1 / 3) == pytest.approx(before)


def test_a_claim_that_cannot_be_true_any_more_is_beaten():
    assert run(Bet(-0.5, population=3), [1, 1])[-1] == math.inf  # 2 - 1 > -1.5
    assert run(Bet(population=3), [1, 1])[-1] == math.inf
    assert run(Bet(population=4), [1, 1])[-1] < math.inf  # could still be 0
    assert run(Bet(population=4), [1, 1, -1, -1])[-1] < math.inf
    assert run(Bet(population=4), [1, 1, -1, -0.9])[-1] == math.inf
    assert run(Bet(-1, population=2), [-1, -1])[-1] == 1
    assert run(Bet(below=True, population=3), [-1, -1])[-1] == math.inf


def test_sums_of_thirds_do_not_beat_a_true_claim_by_rounding():
    random, thirds = np.random.default_rng(0), np.array([1, 2, 3, 1, -1, -2, -3, -1] * 25) / 3
    bets = Bets(np.zeros(300), population=200)
    logs = [bets.add(row) for row in random.permuted(np.tile(thirds, (300, 1)), axis=1).T]
    assert np.isfinite(logs).all()


# the guarantee ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(VALUES, st.lists(st.integers(1, 9), min_size=3, max_size=3), WINDOWS, st.sampled_from([0.0, 0.05, 0.3]))
def test_expected_wealth_is_at_most_one_for_draws(values, weights, horizon, slack):
    chance = np.array(weights[: len(values)]) / sum(weights[: len(values)])
    mean = float(np.dot(values, chance))
    if mean + slack > 1:
        slack = 0.0
    columns = paths(values, 6)
    share = paths(chance, 6).prod(0)
    found = wealths(Bets(np.full(columns.shape[1], mean + slack), horizon=horizon), columns)
    expected = found @ share
    if slack:
        assert (expected <= 1 + 1e-9).all()
    else:
        assert expected == pytest.approx(np.ones(6))
    for bar in (1.5, 2, 5):  # Ville
        assert share[(found >= bar).any(0)].sum() <= 1 / bar + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=6), WINDOWS, st.sampled_from([Fraction(0), Fraction(1, 12)]))
def test_wealth_is_a_martingale_over_the_orders_of_a_finite_set(sixths, horizon, slack):
    margin = min(Fraction(sum(sixths), 6 * len(sixths)) + slack, Fraction(1))
    orders = np.array(list(itertools.permutations(sixths))).T / 6
    bets = Bets(np.full(orders.shape[1], float(margin)), population=len(sixths), horizon=horizon)
    found = wealths(bets, orders)
    assert np.isfinite(found).all()
    if slack and margin * 6 * len(sixths) != sum(sixths):
        assert (found.mean(1) <= 1 + 1e-9).all()
    else:
        assert found.mean(1) == pytest.approx(np.ones(len(sixths)))
    assert ((found >= 3).any(0)).mean() <= 1 / 3 + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(-0.9, 0.9), st.sampled_from([None, 25]))
def test_the_opposite_bet_is_the_bet_on_mirrored_differences(gains, margin, population):
    one = run(Bet(margin, below=True, population=population), gains)
    assert one == run(Bet(-margin, population=population), [-d for d in gains])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.sampled_from([None, 20, 25]))
def test_a_lower_margin_is_easier(gains, population):
    bets = Bets(np.linspace(-1, 1, 41), population=population)
    for d in gains:
        logs = bets.add(d)
        assert all(a >= b - 1e-9 for a, b in itertools.pairwise(logs))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=8, max_size=8), min_size=1, max_size=4),
    st.sampled_from([None, 8, 12]),
    st.sampled_from([None, 6, 8]),
)
def test_bets_side_by_side_are_the_single_ones(rows, population, horizon):
    margins, targets = np.linspace(-0.1, 0.1, len(rows)), np.linspace(20, 500, len(rows))
    side = wealths(Bets(margins, population=population, horizon=horizon, target=targets), np.array(rows).T).T
    for row, margin, target, found in zip(rows, margins, targets, side, strict=True):
        bet = Bet(margin, population=population, horizon=horizon, target=target)
        assert run(bet, row) == pytest.approx(list(found))


# extremes ---------------------------------------------------------------------------------------------------------


def test_all_equal_all_won_all_lost():
    assert run(Bet(), [0] * 500) == [1.0] * 500
    won = run(Bet(), [1] * 2000)
    assert won[8] > 20 and won == sorted(won) and won[-1] > 1e300
    lost = run(Bet(), [-1] * 2000)
    assert lost == sorted(lost, reverse=True) and 0 <= lost[-1] < 1e-9
    harm = run(Bet(below=True), [-1] * 10)
    assert harm[8] > 20


@pytest.mark.parametrize("tasks", [1, 2, 20, 49, 50, 51, 100, 200])
def test_identical_outcomes_pass_the_guard(tasks):
    bet = Bet(-0.02, population=tasks, horizon=tasks)
    assert any(w >= 20 for w in run(bet, [0.0] * tasks))
    lost = Bet(-0.02, population=tasks, horizon=tasks)
    assert max(run(lost, [-0.02] * tasks)) <= 1 + 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.01, None])
def test_not_a_difference(bad):
    with pytest.raises(DataError, match="leave out unscored"):
        Bet().add(bad)
    with pytest.raises(DataError):
        ConfidenceSequence().add(bad)
    with pytest.raises(DataError):
        Bets([0.0, 0.0]).add([0.0, bad])


def test_rounding_over_one_is_forgiven():
    assert run(Bet(), [1 + 1e-12]) == run(Bet(), [1.0])


@pytest.mark.parametrize(
    "options",
    [
        {"margin": 1.5},
        {"margin": math.nan},
        {"population": 0},
        {"horizon": -1},
        {"target": 0.5},
        {"target": 0},
        {"target": -1},
        {"target": math.nan},
        {"target": math.inf},
    ],
)
def test_bad_options(options):
    with pytest.raises(ConfigError):
        Bet(**options)


def test_more_tasks_than_the_set_has():
    bet = Bet(population=1)
    bet.add(0.5)
    with pytest.raises(ConfigError, match="observation 2 of a population of 1"):
        bet.add(0.5)


# confidence sequence ----------------------------------------------------------------------------------------------


def test_interval_before_and_after_data():
    sequence = ConfidenceSequence()
    assert (sequence.low, sequence.high) == (-1.0, 1.0)
    ends = [sequence.add(d) for d in [0.0, 1.0] * 100]
    assert all(a[0] <= b[0] and b[1] <= a[1] for a, b in itertools.pairwise(ends))
    assert 0.3 < sequence.low < 0.5 < sequence.high < 0.7


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.sampled_from([None, 40]))
def test_interval_mirrors(gains, population):
    one, other = ConfidenceSequence(population=population), ConfidenceSequence(population=population)
    for d in gains:
        low, high = one.add(d)
        assert other.add(-d) == (-high, -low) and low <= high


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_interval_closes_on_a_finite_sets_mean(thirds):
    sequence, mean = ConfidenceSequence(population=len(thirds)), sum(thirds) / 3 / len(thirds)
    for d in thirds:
        sequence.add(d / 3)
    inside = sequence.low == sequence.high == pytest.approx(mean, abs=1e-9)
    assert inside or not (sequence.low <= mean <= sequence.high)  # the order may be one in twenty


@pytest.mark.parametrize("population", [None, 150])
def test_interval_covers_at_all_times(population):
    random, missed, runs = np.random.default_rng(3), 0, 40
    for _ in range(runs):
        gains = random.choice([-1.0, 0.0, 0.0, 1 / 3, 1.0], 150)
        mean = float(gains.mean()) if population else 1 / 15
        sequence = ConfidenceSequence(0.1, population=population)
        for d in gains:
            sequence.add(d)
        missed += not sequence.low - 1e-9 <= mean <= sequence.high + 1e-9
    assert missed <= 9  # 4 are allowed on average


def test_interval_that_missed_keeps_its_last_word():
    sequence = ConfidenceSequence()
    ends = [sequence.add(d) for d in [-1] * 100 + [1] * 900]
    assert all(low <= high for low, high in ends) and ends[-1][1] < 0


@pytest.mark.parametrize("alpha", [0, 1, -0.1, math.nan])
def test_interval_needs_a_chance(alpha):
    with pytest.raises(ConfigError):
        ConfidenceSequence(alpha)


# streams ----------------------------------------------------------------------------------------------------------


def test_levels_sum_to_alpha():
    total = sum(level(t, 0, 0.1) for t in range(1, 10_001))
    assert total == pytest.approx(0.1 * (1 - betting.FLAT / (10_000 + betting.FLAT)))
    assert level(1, 0) == pytest.approx(0.1 / (betting.FLAT + 1))
    assert level(7, 3, 0.2) == pytest.approx(8 * level(7, 0, 0.1))


def test_threshold_is_the_stricter_of_both():
    assert threshold(1, 0, alpha=0.99, single=0.001) == 1000
    assert threshold(3, 1) == 1 / level(3, 1)
    assert all(threshold(t, t - 1) >= 20 for t in range(1, 300))


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (5, -1)])
def test_place_in_the_stream(place):
    with pytest.raises(ConfigError, match="count tests from 1"):
        level(*place)


@pytest.mark.parametrize("share", [0, 1, math.nan])
def test_chances_of_a_stream(share):
    with pytest.raises(ConfigError):
        level(1, 0, share)
    with pytest.raises(ConfigError):
        threshold(1, 0, single=share)


def test_false_discoveries_in_a_stream_with_the_worst_evidence():
    """Null evidence that is 1/level or nothing, which no rule by thresholds can do worse on; one in five is true."""
    random, shares = np.random.default_rng(0), []
    for _ in range(400):
        accepted = false = 0
        for t in range(1, 61):
            true = random.random() < 0.2
            chance = 1 / threshold(t, accepted)
            won = true or random.random() < chance
            accepted, false = accepted + won, false + (won and not true)
        shares.append(false / max(accepted, 1))
    assert 0 < np.mean(shares) <= 0.1


# the bench's gate -------------------------------------------------------------------------------------------------


def test_the_bench_decides_as_single_bets_do(monkeypatch):
    path = Path(__file__).parents[2] / "bench" / "gate.py"
    spec = importlib.util.spec_from_file_location("bench_gate", path)
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "bench_gate", bench)
    spec.loader.exec_module(bench)
    random = np.random.default_rng(1)
    rows = random.choice([-1, 0, 0, 0, 1], (12, 60)) * 0.5 + np.repeat([0.0, 0.15, 0.3], 4)[:, None]
    accepted, used = bench.gate(rows, wealth=30.0)
    for row, taken, tasks in zip(rows, accepted, used, strict=True):
        gain, futile = Bet(horizon=60, target=30.0), Bet(0.05, below=True, horizon=60)
        for t, d in enumerate(row, 1):
            won, lost = gain.add(d) >= 30 - 1e-9, futile.add(d) >= 20
            if won or lost or t == 60:
                assert (won, t) == (taken, tasks)
                break
    assert len({*accepted.tolist()}) == 2 and len({*used.tolist()}) > 3
