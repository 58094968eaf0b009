"""Evidence by betting: is a mean above a margin, with errors controlled however often one looks and whenever one stops.

A gambler bets against "the mean gain is at most the margin". Under that claim no bet wins on average, so the wealth is
a supermartingale that starts at 1 and reaches K with a chance of at most 1/K (Ville): wealth 20 is evidence at 5 %. All
is in words of paired differences d in [-1, 1], candidate minus incumbent on the same task, tasks in random order.

Without `population` the tasks are draws and the claim is about new tasks. With it they are a fixed set drawn without
replacement and the claim is about its own mean: once all are seen the answer is known, and a set of luckily good tasks
passes. Gain needs the first form, a regression suite the second.

Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (2023), for the bets, the
confidence sequence and sampling without replacement; Xu and Ramdas, Online multiple testing with e-values (2024), for
e-LOND. The mixture over effects and the end game are ours; any stake fixed before d is seen keeps the guarantee.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verbal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array: TypeAlias = NDArray[np.float64]

EFFECTS = (0.02, 0.06, 0.12, 0.24)
"""The gains over the margin the gambler thinks possible."""
PRIOR = (0.1, 0.3, 0.4, 0.2)
"""Share of the first wealth on each of EFFECTS; sums to 1."""
VARIANCE, STRENGTH = 0.2, 10.0
"""The variance of d believed before any is seen, and how many observations that belief is worth."""
CAP = 0.9
"""The largest share of the wealth one task can lose."""
ROUNDING = 1e-9
"""What sums of floats may be off by, before a claim about a finite set is called impossible."""


class Bets:
    """Log wealth of many bets side by side, one per margin: each against "the mean is at most the margin".

    The stake on d - margin is the Kelly bet effect / (variance + effect^2), averaged over EFFECTS, each weighed by what
    betting on it alone has won; the variance is the running one, shrunk to VARIANCE. That is a mixture of wealths, so
    it loses a constant to the best of them. With `horizon` the stake is at least sqrt(2 log(target / wealth) /
    (variance * tasks left)), the one that reaches the target by the horizon on the smallest sum of gains: an end game
    that risks what unspent wealth is no use for. Measured at +10 points, twelve kinds of outcome, 5 %, up to 200 tasks
    (bench/gate.py; power, mean tasks): with horizon 0.94, 80; without 0.89, 83; mixture over ten fixed stakes 0.89, 88;
    aGRAPA told to expect 10 points 0.86, 86; ONS 0.87, 110.

    Args:
        margin: The margins. Range: [-1, 1].
        population: Size of the finite set the tasks are drawn from without replacement; None for draws.
        horizon: Tasks there will be at most.
        target: The wealth wanted by the horizon; same shape as the margins or a scalar.
    """

    def __init__(
        self,
        margin: ArrayLike,
        *,
        population: int | None = None,
        horizon: int | None = None,
        target: ArrayLike = 20.0,
    ) -> None:
        self.margin: Array = np.asarray(margin, dtype=float)
        self.population, self.horizon = population, horizon
        wanted: Array = np.asarray(target, dtype=float)
        if not np.all(np.abs(self.margin) <= 1):
            raise ConfigError(f"margin {margin!r}", where="Bets", todo="give differences of scores, from -1 to 1")
        if not (np.all(wanted >= 1) and np.all(np.isfinite(wanted))):
            raise ConfigError(f"target {target!r}", where="Bets", todo="give a wealth of at least 1")
        for name, count in (("population", population), ("horizon", horizon)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} {count}", where="Bets", todo="give a number of tasks, or None")
        self.log_target: Array = np.log(wanted)
        self.count = 0
        self.total: Array = np.zeros(())
        self.squares: Array = np.zeros(())
        self.log_wealth: Array = np.zeros(self.margin.shape)
        self._shares: Array = np.broadcast_to(PRIOR, (*self.margin.shape, len(PRIOR)))

    def add(self, gain: ArrayLike) -> Array:
        """The log wealth after one more task; +inf once the claim bet against cannot be true any more.

        Args:
            gain: The difference d of each bet, or one for all. Range: [-1, 1].

        Raises:
            DataError: d is not a number in [-1, 1].
            ConfigError: There are more observations than the population has tasks.
        """
        d = checked(gain)
        if self.count == self.population:
            raise ConfigError(
                f"observation {self.count + 1} of a population of {self.population}",
                where="Bets.add",
                todo="give each task of the set once",
            )
        margin = self._margin()
        stakes, stake = self._stakes(1 + margin)
        won = d - margin
        shares = self._shares * (1 + stakes * won[..., None])
        self._shares = shares / shares.sum(-1, keepdims=True)
        self.log_wealth = self.log_wealth + np.log1p(stake * won)
        self.count += 1
        self.total, self.squares = self.total + d, self.squares + d * d
        if self.population is not None:
            # The rest can be as bad as -1 each: if even so the sum exceeds the claimed one, the claim is wrong.
            least = self.total - (self.population - self.count)
            impossible = least > self.population * self.margin + ROUNDING * self.population
            self.log_wealth = np.where(impossible, np.inf, self.log_wealth)
        return self.log_wealth

    def _margin(self) -> Array:
        """The largest mean of the next d under the claim: the margin, or what the set has left of it; at least -1."""
        if self.population is None:
            return self.margin
        left = self.population - self.count
        rest = (self.population * self.margin - self.total) / left
        least: Array = np.maximum(rest, -1.0)
        return least

    def _stakes(self, room: Array) -> tuple[Array, Array]:
        """The stake of each effect and the one of the bet, from what was seen before; none can lose more than CAP."""
        seen = self.count + STRENGTH
        variance = (self.squares + STRENGTH * VARIANCE) / seen - (self.total / seen) ** 2
        limit = CAP / np.maximum(room, ROUNDING)
        effects = np.array(EFFECTS)
        stakes = np.minimum(effects / (variance[..., None] + effects**2), limit[..., None])
        stake: Array = (self._shares * stakes).sum(-1)
        if self.horizon is not None and self.count < self.horizon:
            wanted = np.maximum(self.log_target - self.log_wealth, 0.0)
            last = np.sqrt(2 * wanted / (variance * (self.horizon - self.count)))
            stake = np.maximum(stake, np.minimum(last, limit))
        return stakes, stake


def checked(gain: ArrayLike) -> Array:
    """The differences as floats, put into [-1, 1] where rounding left it.

    Raises:
        DataError: One is not a number in [-1, 1].
    """
    d = np.asarray(gain, dtype=float)
    if not np.all(np.abs(d) <= 1 + ROUNDING):
        raise DataError(
            f"difference {gain!r} of two scores",
            where="betting",
            todo="give scores in [0, 1]; leave out unscored tasks",
        )
    clipped: Array = np.clip(d, -1.0, 1.0)
    return clipped


class Bet:
    """The evidence that the mean gain is above a margin, or, with `below`, that it is under it.

    Stop whenever the wealth is K: that happens with a chance of at most 1/K if the mean is on the other side of the
    margin or on it. A margin of -0.02 asks whether nothing was lost (non-inferiority); `below` is the opposite bet, for
    stopping early: under 0 it finds harm, under the smallest gain of worth it finds futility.

    >>> bet = Bet()
    >>> [round(bet.add(d), 3) for d in (1, 0, 1)]
    [1.502, 1.502, 2.2]
    >>> sure = Bet(-0.02, population=3)
    >>> [round(sure.add(0), 3) for _ in range(3)]
    [1.01, 1.026, inf]

    Args:
        margin: What the mean is compared with. Range: [-1, 1].
        below: Whether evidence is sought that the mean is below the margin.
        population: Size of the fixed set the tasks are all of; None when they stand for others.
        horizon: Tasks there will be at most, known before the first; bets get bolder towards it.
        target: The wealth that will be enough, see `threshold`.
    """

    def __init__(
        self,
        margin: float = 0.0,
        *,
        below: bool = False,
        population: int | None = None,
        horizon: int | None = None,
        target: float = 20.0,
    ) -> None:
        self.margin, self.below = margin, below
        self._sign = -1.0 if below else 1.0
        self._bets = Bets(self._sign * margin, population=population, horizon=horizon, target=target)
        self.history: list[float] = []
        """The wealth after each task."""

    def add(self, gain: float) -> float:
        """The wealth after one more task with this difference."""
        log = float(self._bets.add(self._sign * checked(gain)))
        self.history.append(math.exp(min(log, 700.0)) if log < math.inf else log)
        return self.wealth

    @property
    def wealth(self) -> float:
        """The evidence so far. Range: (0, inf]; 1 before the first task."""
        return self.history[-1] if self.history else 1.0


class ConfidenceSequence:
    """An interval for the mean gain that is right at all times at once: it covers with 1 - alpha however one stops.

    A value is left out as soon as a bet against "the mean is at most it", or one against "at least it", has 2/alpha.
    Values are looked at on a grid; the interval is rounded outwards to it and only ever shrinks.

    >>> sequence = ConfidenceSequence()
    >>> for _ in range(50):
    ...     low, high = sequence.add(0.5)
    >>> low, high
    (0.37, 0.575)

    Args:
        alpha: Chance that the interval ever misses the mean.
        population: As for `Bet`; the interval closes on the mean of the set when all of it is seen.
        step: Distance of the grid's values.
    """

    def __init__(self, alpha: float = 0.05, *, population: int | None = None, step: float = 0.005) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha {alpha}", where="ConfidenceSequence", todo="give a chance between 0 and 1")
        self._grid: Array = np.linspace(-1, 1, round(2 / step) + 1)
        # Row 0 bets on the gain, row 1 on the loss: the upper end is the lower end of the mirrored differences.
        self._bets = Bets(np.stack([self._grid, self._grid]), population=population)
        self._bar = math.log(2 / alpha)
        self.low, self.high = -1.0, 1.0

    def add(self, gain: float) -> tuple[float, float]:
        """Both ends after one more task with this difference."""
        d = checked(gain)
        out = self._bets.add(np.stack([d, -d])[:, None]) >= self._bar
        kept = np.argmin(out, axis=1)  # the first value that stands: what is easier to bet against lies before it
        ends = [float(self._grid[max(k - 1, 0)]) for k in kept]
        if (population := self._bets.population) is not None:
            left = population - self._bets.count
            least = (self._bets.total[:, 0] - left) / population
            ends = [max(end, float(bound)) for end, bound in zip(ends, least, strict=True)]
        low, high = round(max(self.low, ends[0]), 12), round(min(self.high, 0.0 - ends[1]), 12)
        if low <= high:  # else the sequence has missed, chance alpha: what it last said stands
            self.low, self.high = low, high
        return self.low, self.high


def level(t: int, accepted_before: int, alpha: float = 0.10) -> float:
    """The level of the t-th test of a stream, so that on average a share of at most alpha of what is accepted is false.

    e-LOND: alpha * gamma_t * (accepted_before + 1), with gamma_t = FLAT / ((t + FLAT - 1)(t + FLAT)), which sums to 1.
    It holds for tests that depend on each other, as long as each one's wealth is 1 at most on average under its null.

    >>> round(level(1, 0), 5), round(level(50, 10), 5)
    (0.00625, 0.00397)

    Args:
        t: Place in the stream, from 1.
        accepted_before: How many of the t - 1 tests before were accepted.
        alpha: The false discovery rate kept.
    """
    if not (t >= 1 and 0 <= accepted_before < t and 0 < alpha < 1):
        raise ConfigError(
            f"test {t} after {accepted_before} accepted at alpha {alpha}",
            where="level",
            todo="count tests from 1; fewer than t can have been accepted; alpha is between 0 and 1",
        )
    return alpha * FLAT / ((t + FLAT - 1) * (t + FLAT)) * (accepted_before + 1)


FLAT = 15
"""About how many tests of a stream get nearly the same level. In streams of 100 with one in five true, 15 to 60 find as
many (bench/gate.py); the smallest of them makes the first tests easiest, and most streams are short."""


def threshold(t: int, accepted_before: int, *, alpha: float = 0.10, single: float = 0.05) -> float:
    """The wealth the t-th test needs: 1/level for the stream, and never less than 1/single for the test by itself.

    >>> round(threshold(1, 0)), round(threshold(60, 15)), round(threshold(60, 50))
    (160, 231, 73)
    """
    if not 0 < single < 1:
        raise ConfigError(f"single {single}", where="threshold", todo="give a chance between 0 and 1")
    return max(1 / single, 1 / level(t, accepted_before, alpha))
