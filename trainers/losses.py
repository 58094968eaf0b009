"""Losses as pure functions of log-probabilities; no TRL, no model.

Axes: B rows, T tokens. `logps` are log-probabilities of the taken tokens under the policy that is trained, `old` those
under the policy that sampled them, `mask` is 1 on tokens that count. All give a scalar to be minimised, unless they say
otherwise. Sums over no token are 0, never NaN.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["Aggregate", "aggregate", "c3po", "clipped", "contrastive_pairs", "critique_grpo", "dpo", "nll", "shaped",
           "shaped_slope"]  # fmt: skip

Aggregate = Literal["sequence", "token", "length"]
"""How token losses become one number: mean of sequence means (GRPO), mean over all tokens (DAPO), or sum over tokens
divided by rows x a fixed length (Dr. GRPO)."""


def aggregate(losses: Tensor, mask: Tensor, how: Aggregate = "length", *, length: int | None = None) -> Tensor:
    """One number of token losses (B, T).

    Args:
        losses: (B, T).
        mask: (B, T).
        how: See `Aggregate`.
        length: The fixed length of `length`; T when not given.
    """
    masked = losses * mask
    if how == "token":
        return masked.sum() / mask.sum().clamp_min(1)
    if how == "sequence":
        return (masked.sum(1) / mask.sum(1).clamp_min(1)).mean()
    return masked.sum() / (mask.shape[0] * (length or mask.shape[1]))


def clipped(
    logps: Tensor, old: Tensor, weights: Tensor, *, low: float | None = 0.2, high: float | None = None
) -> Tensor:
    """Token losses (B, T) of the clipped surrogate: -min(r A, clip(r, 1 - low, 1 + high) A), r = pi / pi_old.

    Source: PPO (arXiv 1707.06347, eq. 7). `low=None`: no clip. `high=None`: as `low`.
    """
    ratio = (logps - old).exp()
    plain = ratio * weights
    if low is None:
        return -plain
    return -torch.minimum(plain, ratio.clamp(1 - low, 1 + (low if high is None else high)) * weights)


def shaped(p: Tensor, gamma: float = 0.1) -> Tensor:
    """f(p) = p / (p + gamma), the bounded weight of a refined token. Source: Critique-GRPO (arXiv 2506.03106)."""
    return p / (p + gamma)


def shaped_slope(p: Tensor, gamma: float = 0.1) -> Tensor:
    """Psi(p) = gamma p / (p + gamma)^2, the gradient of f for log p: at most 1/4, at p = gamma."""
    return gamma * p / (p + gamma) ** 2


def critique_grpo(
    logps: Tensor, old: Tensor, weights: Tensor, refined: Tensor, *, gamma: float = 0.1, clip: float | None = None
) -> Tensor:
    """Token losses (B, T): -A f(p) on refined rows, -A r on the others.

    Source: Critique-GRPO (arXiv 2506.03106, eq. 2 to 4). Differs as its code does: refined rows are never clipped,
    because the clip would take the gradient of exactly the unlikely wrong tokens.

    Args:
        logps: (B, T) under the bare prompt, also for refined rows.
        old: (B, T); unused on refined rows, where it may be NaN.
        weights: (B, T) advantages.
        refined: (B) true on rows that were written with a critique in sight.
        gamma: Of the shaping; a large one removes it (gamma x f(p) -> p). 0: not shaped, a refined token counts like
            one that was just sampled (gradient A grad log p): for refinements so unlikely that f leaves none.
        clip: Of the other rows; None as published.
    """
    rows = refined.bool()[:, None]
    safe = torch.where(rows | old.isnan(), logps.detach(), old)
    bounded = shaped(logps.exp(), gamma) if gamma else (logps - logps.detach()).exp()
    return torch.where(rows, -weights * bounded, clipped(logps, safe, weights, low=clip))


def nll(logps: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood per target token over the whole batch (not a mean of means)."""
    return -(logps * mask).sum() / mask.sum().clamp_min(1)


def contrastive_pairs(scores: Tensor, logps: Tensor, reference: Tensor, groups: Tensor, *, b: float) -> Tensor:
    """CoPG: squared differences of regularised rewards over the pairs of each group, mean over groups of two and more.

    R_b(y) = R(y) - b (log pi(y) - log pi_ref(y)); loss of k rows = sum over pairs (R_b(y_i) - R_b(y_j))^2 / (k - 1).
    Needs no importance weight, so stored attempts will do. Source: Contrastive Policy Gradient (arXiv 2406.19185).

    Args:
        scores: (B).
        logps: (B) summed over policy tokens.
        reference: (B) the same under the reference.
        groups: (B).
        b: Strength of the regularisation, above 0.
    """
    value = scores - b * (logps - reference.detach())
    found = []
    for group in groups.unique():
        own = value[groups == group]
        if len(own) > 1:
            gaps = own[:, None] - own[None, :]
            found.append((gaps.triu(1) ** 2).sum() / (len(own) - 1))
    return torch.stack(found).mean() if found else (logps * 0).sum()


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """-log sigma(beta (log-ratio of chosen - log-ratio of rejected)), mean over rows (B) of summed log-probabilities.

    Source: DPO (arXiv 2305.18290, eq. 7).
    """
    margin = (chosen - ref_chosen.detach()) - (rejected - ref_rejected.detach())
    return -logsigmoid(beta * margin).mean()


def c3po(in_scope: Tensor, general: Tensor, near: Tensor, *, soft: float = 0.2, hard: float = 0.1) -> Tensor:
    """L_DPO(in scope) + soft x L_SFT(out of scope) + hard x L_SFT(near scope), of three losses already reduced.

    Source: RLVF / C3PO (arXiv 2402.10893, eq. 5).
    """
    return in_scope + soft * general + hard * near
