"""The effect of an item from lots: unbiased, honest bets, an interval, an alarm."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Trial
from verbal.memory.effects import ShareBets, differences, effect, lots, loudness, verdicts

SHARES = st.floats(0, 1)
CHANCES = st.sampled_from([0.1, 0.5, 0.9]) | st.floats(0.02, 0.98)
TASKS = st.lists(st.tuples(CHANCES, SHARES, SHARES), min_size=1, max_size=5)
"""Chance, outcome if shown, outcome if withheld."""


def paths(tasks):
    """Every way the coins can fall: its probability and the trials seen."""
    for coins in itertools.product([True, False], repeat=len(tasks)):
        chance = math.prod(p if z else 1 - p for z, (p, _, _) in zip(coins, tasks, strict=True))
        yield chance, [Trial(z, p, y1 if z else y0) for z, (p, y1, y0) in zip(coins, tasks, strict=True)]


def tried(rng, base, gain, count, chance=0.5):
    shown = rng.random(count) < chance
    right = rng.random(count) < np.where(shown, base + gain, base)
    return [Trial(bool(z), chance, float(y)) for z, y in zip(shown, right, strict=True)]


@given(tasks=TASKS)
@settings(max_examples=25)
def test_the_difference_is_unbiased_over_all_ways_the_coins_can_fall(tasks):
    mean = np.zeros(len(tasks))
    for chance, trials in paths(tasks):
        d, size = differences([trials])
        assert np.all(np.abs(d) <= size * (1 + 1e-12))
        mean += chance * d[0]
    assert mean == pytest.approx([y1 - y0 for _, y1, y0 in tasks], abs=1e-9)


@given(tasks=TASKS, worth=st.floats(0, 0.5))
@settings(max_examples=25)
def test_no_bet_wins_on_average_when_its_claim_is_wrong(tasks, worth):
    least = [(p, min(y1, y0), max(y1, y0)) for p, y1, y0 in tasks]
    for horizon in (None, len(tasks)):
        won = np.zeros(3)
        for i, world in enumerate((least, [(p, b, a) for p, a, b in least], [(p, 1.0, 1 - worth) for p, *_ in least])):
            for chance, trials in paths(world):
                d, size = differences([trials])
                gains = (d / size, -d / size, (worth - d) / (size + worth))[i][0]
                bets = ShareBets(np.zeros(()), horizon=horizon)
                for gain in gains:
                    bets.add(gain)
                won[i] += chance * math.exp(float(bets.log_wealth))
        assert np.all(won <= 1 + 1e-9)


def test_at_an_even_coin_the_first_difference_is_one_up_or_down():
    d, _ = differences([[Trial(z, 0.5, y)] for z in (True, False) for y in (0.0, 1.0)])
    assert d[:, 0].tolist() == [-1, 1, 1, -1]


def test_a_chance_of_one_is_no_experiment():
    trials = [Trial(True, 1.0, 0.0)] * 50
    assert lots(trials) == []
    seen = effect(trials)
    assert (seen.mean, seen.low, seen.high, seen.shown, seen.mean_shown) == (0.0, -1.0, 1.0, 0, None)
    assert verdicts([lots(trials), []]) == [None, None]


def test_the_mean_effect_is_unbiased_at_changing_chances():
    rng, means = np.random.default_rng(1), []
    for _ in range(1500):
        trials = tried(rng, 0.4, 0.3, 10) + tried(rng, 0.4, 0.3, 30, chance=0.9)
        d, _ = differences([trials])
        weights = np.array([t.chance * (1 - t.chance) for t in trials])
        means.append(float((weights * d[0]).sum() / weights.sum()))
    assert effect(trials).mean == pytest.approx(means[-1])
    assert abs(np.mean(means) - 0.3) < 4 * np.std(means) / math.sqrt(len(means))


def test_the_interval_covers_at_all_times_and_closes():
    rng, missed, widths = np.random.default_rng(2), 0, []
    for _ in range(40):
        seen = effect(tried(rng, 0.45, 0.3, 80))
        missed += not seen.low <= 0.3 <= seen.high  # it only shrinks, so the last one misses if any did
        widths.append(seen.high - seen.low)
    assert missed <= 5 and 0.3 < np.mean(widths) < 0.8


def test_the_words_of_an_effect():
    trials = [Trial(True, 0.5, 1.0), Trial(False, 0.5, 0.25)] * 20
    assert str(effect(trials)).startswith("effect +7")
    assert str(effect(trials)).endswith("points (shown 20 times: 1.00, withheld 20 times: 0.25)")
    assert "withheld 0 times: –" in str(effect(trials[:1]))


def test_claims_are_wrong_as_rarely_as_promised_and_right_ones_are_found():
    rng, runs = np.random.default_rng(3), 800
    share = {}
    for base, gain in ((0.5, 0.0), (0.8, 0.0), (0.45, 0.4), (0.5, -0.4), (0.4, 0.05)):
        found = verdicts([tried(rng, base, gain, 120) for _ in range(runs)], horizon=120)
        share[base, gain] = {c: sum(v.claim == c for v in found if v) / runs for c in ("better", "worse", "small")}
    slack = 3 * math.sqrt(0.05 * 0.95 / runs)
    for base in (0.5, 0.8):
        assert share[base, 0.0]["better"] <= 0.05 + slack and share[base, 0.0]["worse"] <= 0.05 + slack
    assert share[0.4, 0.05]["small"] <= 0.05 + slack
    assert share[0.45, 0.4]["better"] > 0.98
    assert share[0.5, -0.4]["worse"] + share[0.5, -0.4]["small"] > 0.85 and share[0.5, -0.4]["better"] == 0


def test_a_lesson_that_is_always_right_is_proven_in_seven_trials():
    (found,) = verdicts([[Trial(True, 0.5, 1.0), Trial(False, 0.5, 0.0)] * 10])
    assert found is not None and (found.claim, found.trials) == ("better", 7) and found.wealth >= 20


def test_what_is_not_proven_ends_at_half_of_the_horizon_or_at_its_end():
    useless = [Trial(z, 0.5, y) for z in (True, False) for y in (0.0, 1.0)] * 10
    (found,) = verdicts([useless], horizon=20)
    assert found is not None and found.claim == "open" and 10 <= found.trials < 20
    assert verdicts([useless[:9]], horizon=20) == [None]
    some = [Trial(True, 0.5, 1.0), Trial(True, 0.5, 0.4), Trial(False, 0.5, 0.5), Trial(False, 0.5, 0.7)] * 5
    (found,) = verdicts([some], horizon=20)
    assert found is not None and (found.claim, found.trials) == ("open", 20)
    assert verdicts([[*some, *[Trial(True, 0.5, 1.0)] * 90]], horizon=20) == [found], "nothing counts after the horizon"


@given(lengths=st.lists(st.integers(0, 30), max_size=5), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_a_verdict_does_not_depend_on_the_items_beside_it(lengths, seed):
    rng = np.random.default_rng(seed)
    rows = [tried(rng, 0.2, 0.6, n) for n in lengths]
    assert verdicts(rows, horizon=30) == [verdicts([row], horizon=30)[0] for row in rows]


def test_the_alarm_is_silent_while_all_is_well_and_loud_when_it_turns():
    rng = np.random.default_rng(4)
    before = tried(rng, 0.4, 0.4, 40)
    well = [loudness(before, tried(rng, 0.4, 0.4, 300, chance=0.9)) for _ in range(100)]
    bad = [loudness(before, tried(rng, 0.4, -0.2, 120, chance=0.9)) for _ in range(100)]
    assert all(x is not None for x in well + bad)
    assert sum(x[0] >= 500 for x in well if x) <= 2
    assert sum(x[0] >= 500 for x in bad if x) >= 95
    assert loudness([], tried(rng, 0.5, 0, 9)) is None
    assert loudness([Trial(True, 0.5, 0.0), Trial(False, 0.5, 1.0)], []) is None, "it did not help before"
    assert loudness(before, []) == (0.0, well[0][1] if well[0] else 0)
