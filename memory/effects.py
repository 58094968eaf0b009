"""What a reflection does to outcomes, read from the lots that decided whether it was shown.

Each trial gives an unbiased difference, however the chances were chosen:

    d = (y - b) * (z / p - (1 - z) / (1 - p)),    b = (1 - p) * m_shown + p * m_withheld

with outcome y, z = 1 for shown, its chance p, and the baseline b made of the mean outcomes of *earlier* trials, each
shrunk to one half. Since b does not depend on the coin, the mean of d over both sides of it is the effect. At p = 1/2
and b = 1/2, d is +1 or -1 for a right or wrong answer: twice the variance of a paired difference, for half of the
attempts. The running b makes it smaller where outcomes vary little: at 85 % right without and 95 % with it, 0.61 of
such items are proven in 200 trials, and 0.27 with b = 1/2.

Claims are bet on (`verbal.betting`): each d is divided by its largest possible size, known before the coin is tossed,
so that the bets need not know how p and b change. Trials at chance 1 are no experiment and are left out.

Sources: Robins, Rotnitzky and Zhao (1994), augmented inverse propensity weighting; Waudby-Smith and Ramdas (2023),
bets; Shin, Ramdas and Rinaldo (2022), E-detectors, for the alarm. The share stakes are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from verbal.betting import Bets
from verbal.contracts import Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

STAKES = (0.06, 0.15, 0.5, 0.9)
"""Shares of the wealth the gambler may put on a trial; weighed at first as `verbal.betting.PRIOR`."""
BELIEF, VARIANCE = 5.0, 0.5
"""Trials that the first belief about the size of d is worth, and that belief: the mean of its square."""
SHRINK = 4.0
"""Trials that the first belief about a mean outcome, one half, is worth."""
_NEAR = 1e-9
Claim: TypeAlias = Literal["better", "worse", "small", "open"]
"""What trials say of an item, see `Verdict`."""
_CLAIMS: tuple[Claim, ...] = ("better", "worse", "small")


class Effect(NamedTuple):
    """How much better outcomes are with an item than without, in shares of an outcome (0.1 is ten points)."""

    mean: float
    """Unbiased for chances that were fixed beforehand. It can leave [-1, 1] when the trials are few."""
    low: float
    high: float
    """Cover the effect at all times at once with 1 - alpha; unlike the mean they allow for looking and stopping."""
    shown: int
    withheld: int
    mean_shown: float | None
    """Mean outcome where it was shown; None before the first."""
    mean_withheld: float | None

    def __str__(self) -> str:
        means = ["–" if m is None else f"{m:.2f}" for m in (self.mean_shown, self.mean_withheld)]
        ends = f"[{100 * self.low:+.0f}, {100 * self.high:+.0f}]"
        told = f"shown {self.shown} times: {means[0]}, withheld {self.withheld} times: {means[1]}"
        return f"effect {100 * max(-1.0, min(1.0, self.mean)):+.0f} {ends} points ({told})"


class Verdict(NamedTuple):
    """The claim that was proven first."""

    claim: Claim
    """Above 0, below 0, below the least effect of worth; `open`: none of these in as many trials as there may be."""
    trials: int
    """Trials until then."""
    wealth: float
    """Of the bet on the claim; for `open` of the bet that it is better."""


class ShareBets(Bets):
    """Bets whose stakes are fixed shares of the wealth (STAKES) rather than Kelly bets on gains of 2 to 24 points.

    Single attempts differ by a whole point up or down, and a lesson that names what a task asks for is worth 50 points
    and more. Measured at an even coin with a horizon of 200, 45 % right without it (share proven, median trials; in
    brackets with the stakes of `Bets`): +20 points 0.78, 145 (0.82, 128); +30 points 0.99, 64 (0.99, 72); +50 points
    1.00, 24 (1.00, 29); 0 to 95 % right 7 (9). The end game towards the horizon is the same.
    """

    def _stakes(self, room: Array) -> tuple[Array, Array]:
        stakes: Array = np.broadcast_to(STAKES, self._shares.shape)
        stake: Array = (self._shares * stakes).sum(-1)
        if self.horizon is not None and self.count < self.horizon:
            size = (self.squares + BELIEF * VARIANCE) / (self.count + BELIEF)
            wanted = np.maximum(self.log_target - self.log_wealth, 0.0)
            last = np.sqrt(2 * wanted / (size * (self.horizon - self.count)))
            stake = np.maximum(stake, np.minimum(last, STAKES[-1]))
        return stakes, stake


def lots(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that were an experiment: those at a chance below 1."""
    return [t for t in trials if t.chance < 1]


def differences(rows: Sequence[Sequence[Trial]]) -> tuple[Array, Array]:
    """The d of each trial and the largest size it could have had, both (rows, longest row); 0 past a row's end.

    Args:
        rows: Experiments of several items, oldest first; chances below 1.
    """
    shape = (len(rows), max((len(r) for r in rows), default=0))
    shown, outcome, known = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    chance = np.full(shape, 0.5)
    for i, row in enumerate(rows):
        if row:
            told = np.array([t[:3] for t in row], dtype=float)
            shown[i, : len(row)], chance[i, : len(row)], outcome[i, : len(row)] = told.T
            known[i, : len(row)] = 1.0
    withheld = known - shown
    with_it, without = (_means_before(arm, outcome) for arm in (shown, withheld))
    b = (1 - chance) * with_it + chance * without
    d = (outcome - b) * (shown / chance - withheld / (1 - chance))
    return d, np.maximum(b, 1 - b) / np.minimum(chance, 1 - chance)


def _means_before(arm: Array, outcome: Array) -> Array:
    """Mean outcome of an arm before each trial, shrunk to one half."""
    count = np.cumsum(arm, axis=1) - arm
    total = np.cumsum(arm * outcome, axis=1) - arm * outcome
    means: Array = (total + SHRINK / 2) / (count + SHRINK)
    return means


def effect(trials: Sequence[Trial], *, alpha: float = 0.05, step: float = 0.01) -> Effect:
    """The effect of an item with an interval, from all its trials at a chance below 1.

    The mean weighs each trial by p (1 - p), which undoes the spread that inverse chances give to d.

    >>> right, wrong = Trial(True, 0.5, 1.0), Trial(False, 0.5, 0.0)
    >>> str(effect([right, wrong] * 10))
    'effect +100 [+52, +100] points (shown 10 times: 1.00, withheld 10 times: 0.00)'

    Args:
        trials: Of one item, oldest first.
        alpha: Chance that the interval ever misses.
        step: Distance of the values tried as ends; rounded outwards.
    """
    row = lots(trials)
    means = []
    for side in (True, False):
        outcomes = [t.outcome for t in row if t.shown == side]
        means.append((len(outcomes), math.fsum(outcomes) / len(outcomes) if outcomes else None))
    (shown, mean_shown), (withheld, mean_withheld) = means
    if not row:
        return Effect(0.0, -1.0, 1.0, 0, 0, None, None)
    d, size = differences([row])
    weights = np.array([t.chance * (1 - t.chance) for t in row])
    mean = float((weights * d[0]).sum() / weights.sum())
    low, high = _interval(d[0], size[0], alpha, step)
    return Effect(mean, low, high, shown, withheld, mean_shown, mean_withheld)


def _interval(d: Array, size: Array, alpha: float, step: float) -> tuple[float, float]:
    """Ends of the effects that no bet has refuted, as in `ConfidenceSequence`, for d of changing size."""
    grid = np.linspace(-1, 1, round(2 / step) + 1)
    bets, bar = ShareBets(np.zeros((2, len(grid)))), math.log(2 / alpha)
    low, high = -1.0, 1.0
    for gain, most in zip(d, size, strict=True):
        room = most + np.abs(grid)
        # Row 0 bets that the effect is above a value, row 1 that it is below: that minus the effect is above minus it.
        out = bets.add(np.stack([(gain - grid) / room, (-gain - grid) / room])) >= bar
        ends = [float(grid[max(int(k) - 1, 0)]) for k in np.argmin(out, axis=1)]
        now = round(max(low, ends[0]), 9), round(min(high, 0.0 - ends[1]), 9)
        if now[0] <= now[1]:  # else the interval has missed, chance alpha: what it last said stands
            low, high = now
    return low, high


def verdicts(
    rows: Sequence[Sequence[Trial]], *, alpha: float = 0.05, worth: float = 0.05, horizon: int = 200
) -> list[Verdict | None]:
    """For each item the claim that its trials have proven first, or None while there is none.

    Three bets run side by side on each item: it is better than nothing, worse than nothing, less than `worth` better.
    Each is won by chance with at most `alpha`, however often one looks. They get bolder towards the horizon, where the
    trial ends. What is not proven by then is `open`, and so is what has a mean below `worth` once half of the trials
    are over: it could hardly be proven with the other half, and somebody else waits for the slot. Ending early can only
    make false claims rarer.

    Args:
        rows: Experiments of each item, oldest first, chances below 1; those after the horizon do not count.
        alpha: Chance that a claim which is wrong is taken for proven.
        worth: The least effect that is worth a place in the memory.
        horizon: Most trials, fixed beforehand.
    """
    rows = [row[:horizon] for row in rows]
    d, size = differences(rows)
    going = np.arange(d.shape[1]) < np.array([len(row) for row in rows])[:, None]
    small = np.where(going, (worth - d) / (size + abs(worth)), 0.0)
    gains = np.moveaxis(np.stack([d / size, -d / size, small]), (2, 1), (0, 1))  # (trials, items, claims)
    bets = ShareBets(np.zeros((len(rows), 3)), horizon=horizon, target=1 / alpha)
    counts = np.arange(1, d.shape[1] + 1)
    hopeless = (np.cumsum(d, axis=1) / counts < worth) & (2 * counts >= horizon) | (counts == horizon)
    found: list[Verdict | None] = [None] * len(rows)
    bar = math.log(1 / alpha) - _NEAR
    for t in range(len(gains)):
        log = bets.add(gains[t])
        won = log >= bar
        for i in np.flatnonzero((won.any(axis=1) | hopeless[:, t]) & going[:, t]):
            k = int(np.argmax(won[i]))
            claim = _CLAIMS[k] if won[i, k] else "open"
            found[i] = found[i] or Verdict(claim, t + 1, math.exp(log[i, k]))
    return found


def loudness(before: Sequence[Trial], after: Sequence[Trial]) -> tuple[float, float] | None:
    """How loudly an item's later outcomes say that it has stopped helping, and the level they were compared with.

    The level lies half-way between what outcomes were with it and without it before. The alarm is a Shiryaev-Roberts
    sum of bets that outcomes are below it now, begun anew at every trial: while they are not, it takes K trials at
    least on average until it reaches K. An alarm is no proof: tasks may have become harder.

    Args:
        before: Trials that made it believed.
        after: Trials since; only those that it was shown in count.

    Returns:
        None where the trials before do not show that it helped.
    """
    sides = [[t.outcome for t in lots(before) if t.shown == side] for side in (True, False)]
    with_it, without = ((math.fsum(s) + SHRINK / 2) / (len(s) + SHRINK) for s in sides)
    level = (with_it + without) / 2
    if not all(sides) or level - without < _NEAR:
        return None
    stake = min((level - without) / (level * (1 - level)), STAKES[-1] / (1 - level))
    heard = 0.0
    for trial in after:
        if trial.shown and trial.chance < 1:  # what a caller reports of itself is no experiment
            heard = (heard + 1) * (1 + stake * (level - trial.outcome))
    return heard, level


__all__ = ["Effect", "ShareBets", "Verdict", "differences", "effect", "lots", "loudness", "verdicts"]
