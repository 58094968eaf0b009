"""Credit: from scores of attempts to one weight per token, as a chain of four stages.

    place -> propagate -> baseline -> modulate

Pure functions of torch tensors; no TRL. Axes: B rows (attempts), T tokens, S spans. A mask is 1 on the tokens that the
policy wrote (`Step.author`), 0 elsewhere; every weight is 0 where the mask is. `groups` gives each row the number of
the group (task) it is compared in. A score of NaN is one that could not be given: its row leaves the means, weight 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Credit",
    "after_pivot",
    "amplified",
    "at_end",
    "at_spans",
    "boosted",
    "group_mean",
    "leave_one_out",
    "returns_to_go",
    "shares",
    "task_relative",
    "without_constant_groups",
]  # fmt: skip

_STD = 1e-4
"""Added to a group's standard deviation, as TRL does."""


# place: (scores, mask) -> rewards (B, T) ------------------------------------------------------------------------------


def at_end(scores: Tensor, mask: Tensor) -> Tensor:
    """Each row's score (B) on its last policy token; a row without one gets nothing. Sums to `scores` over T."""
    mask = mask.bool()
    steps = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, steps, -1).amax(dim=1)
    placed = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
    rows = last >= 0
    placed[rows, last[rows]] = scores[rows]
    return placed


def at_spans(ends: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Each span's value on its last token; spans that end on the same token add up.

    Source: Fine-grained RLHF (arXiv 2306.01693). Differs: the released code overwrites where two spans end together.

    Args:
        ends: (B, S) token index of each span's end; negative for none.
        values: (B, S).
        mask: (B, T).
    """
    placed = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    placed.scatter_add_(1, ends.clamp_min(0), torch.where(ends >= 0, values, torch.zeros_like(values)))
    return placed * mask


def shares(scores: Tensor, attributions: Tensor, *, scale: float = 3.0) -> Tensor:
    """An episode's score spread over its utterances by a judge: attribution / scale x score, (B, S).

    An attribution of -1 is a reward of -1. Source: Sotopia-RL (arXiv 2508.03905).
    """
    spread = attributions / scale * scores[:, None]
    return torch.where(attributions == -1, torch.full_like(spread, -1.0), spread)


# propagate: rewards (B, T) -> returns (B, T) --------------------------------------------------------------------------


def returns_to_go(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0, turns: Tensor | None = None) -> Tensor:
    """What still comes after each token, discounted by `gamma` from turn to turn (from token to token without turns).

    Args:
        rewards: (B, T).
        mask: (B, T).
        gamma: In [0, 1]. 1 is the plain sum of what is left.
        turns: (B, T) number of each token's turn, not falling; a turn's tokens share its return.
    """
    if turns is None:
        turns = torch.arange(rewards.shape[1], device=rewards.device).expand_as(rewards)
    found = torch.zeros_like(rewards)
    later = torch.zeros(rewards.shape[0], dtype=rewards.dtype, device=rewards.device)
    for t in range(rewards.shape[1] - 1, -1, -1):
        gap = (turns[:, t + 1] - turns[:, t]).clamp_min(0) if t + 1 < rewards.shape[1] else torch.zeros_like(later)
        later = rewards[:, t] + gamma ** gap.to(rewards.dtype) * later
        found[:, t] = later
    first = torch.ones_like(turns, dtype=torch.bool)
    first[:, 1:] = turns[:, 1:] != turns[:, :-1]
    start = torch.where(first, torch.arange(turns.shape[1], device=turns.device), 0).cummax(dim=1).values
    return found.gather(1, start) * mask


# baseline: scores (B), groups (B) -> centred weights (B) --------------------------------------------------------------


def group_mean(scores: Tensor, groups: Tensor, *, std: bool = False) -> Tensor:
    """Score minus the mean of its group, divided by the sample deviation + 1e-4 with `std`; NaN rows get 0.

    Source: GRPO (arXiv 2402.03300); without `std` Dr. GRPO (arXiv 2503.20783). Groups of one or of equal scores are 0.
    """
    live, counts, means = _group_means(scores, groups)
    centred = torch.where(live, scores - means, torch.zeros_like(scores))
    if not std:
        return centred
    squares = _sums(centred**2, groups)
    deviation = (squares / (counts - 1).clamp_min(1)).sqrt()
    return centred / (deviation + _STD)


def leave_one_out(scores: Tensor, groups: Tensor) -> Tensor:
    """Score minus the mean of the others of its group: n / (n - 1) times the distance from the mean; 0 when alone.

    Source: RLOO (arXiv 2402.14740).
    """
    live, counts, means = _group_means(scores, groups)
    centred = torch.where(live, scores - means, torch.zeros_like(scores))
    return centred * counts / (counts - 1).clamp_min(1)


def task_relative(scores: Tensor, roles: Tensor, lengths: Tensor) -> Tensor:
    """Scores whitened among the rows of the same role, each counted once for every token: (R - m) / sqrt(v + 1e-8).

    Source: Multi-Agent Evolve (arXiv 2510.23595), task-relative REINFORCE++; v with n / (n - 1) over tokens.

    Args:
        scores: (B).
        roles: (B) number of each row's role.
        lengths: (B) response tokens of each row.
    """
    weights = lengths.to(scores.dtype)
    tokens = _sums(weights, roles)
    mean = _sums(scores * weights, roles) / tokens
    variance = _sums((scores - mean) ** 2 * weights, roles) / (tokens - 1).clamp_min(1)
    return (scores - mean) / (variance + 1e-8).sqrt()


def _group_means(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    live = ~scores.isnan()
    counts = _sums(live.to(scores.dtype), groups)
    means = _sums(scores.nan_to_num(0.0), groups) / counts.clamp_min(1)
    return live, counts, means


def _sums(values: Tensor, groups: Tensor) -> Tensor:
    """The sum over its group, for each row."""
    _, place = groups.unique(return_inverse=True)
    sums = torch.zeros(int(place.max()) + 1 if len(place) else 0, dtype=values.dtype, device=values.device)
    return sums.scatter_add_(0, place, values)[place]


# modulate: weights -> weights -----------------------------------------------------------------------------------------


def after_pivot(mask: Tensor, pivots: Tensor, turns: Tensor) -> Tensor:
    """The mask without the turns before each row's pivot: what two attempts share earns nothing.

    Source: R3L (arXiv 2601.03715), pivotal credit.

    Args:
        mask: (B, T).
        pivots: (B) first turn that counts; 0 changes nothing.
        turns: (B, T) number of each token's turn.
    """
    return mask * (turns >= pivots[:, None]).to(mask.dtype)


def amplified(
    scores: Tensor, groups: Tensor, *, alpha: float = 3.0, full: float = 1.0, reward: float | None = 1.0
) -> Tensor:
    """Distances from the group's mean, those above it times `alpha`; a perfect score weighs `reward` whatever the mean.

    Source: R3L (arXiv 2601.03715), positive amplification; the released code gives 1 to a perfect row, the authors'
    correction `alpha`. `reward=None` leaves the rule out; alpha 1 without it is REINFORCE with a mean baseline.
    A group of one has mean 0.
    """
    live, counts, means = _group_means(scores, groups)
    distance = torch.where(live, scores - torch.where(counts > 1, means, torch.zeros_like(means)), 0.0)
    weights = torch.where(distance >= 0, alpha * distance, distance)
    if reward is not None:
        weights = torch.where(live & (scores >= full), torch.full_like(weights, reward), weights)
    return weights


def boosted(weights: Tensor, planning: Tensor, *, alpha: float = 0.2) -> Tensor:
    """A + alpha |A| on planning tokens (B, T). Source: HICRA (arXiv 2509.03646)."""
    return torch.where(planning.bool(), weights + alpha * weights.abs(), weights)


def without_constant_groups(scores: Tensor, groups: Tensor) -> Tensor:
    """Which rows (B) are of a group whose scores differ: the others teach nothing.

    Source: DAPO's dynamic sampling (arXiv 2503.14476).
    """
    live, _, means = _group_means(scores, groups)
    off = torch.where(live, (scores - means).abs(), torch.zeros_like(scores))
    return live & (_sums((off > 1e-9).to(scores.dtype), groups) > 0)


# the chain ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credit:
    """One member per stage; gives (B, T) weights that are 0 wherever the mask is."""

    baseline: Callable[[Tensor, Tensor], Tensor] = group_mean
    modulate: Sequence[Callable[[Tensor], Tensor]] = ()

    def weights(self, scores: Tensor, groups: Tensor, mask: Tensor) -> Tensor:
        """Weights of every policy token.

        Args:
            scores: (B), NaN where an attempt could not be scored.
            groups: (B).
            mask: (B, T), 1 on policy tokens.
        """
        found = self.baseline(scores, groups)[:, None].expand(mask.shape)
        for stage in self.modulate:
            found = stage(found)
        return found * mask
