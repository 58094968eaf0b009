"""Self-consistency by execution: how many siblings of an attempt got the same result.

Source: Wang et al. 2022 (arXiv 2203.11171), votes over results instead of final texts.
Differs: an answer that fails gets 0 and an empty result at most half its share, so that it wins only unopposed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from verbal.contracts import CriticContext, Observation
from verbal.errors import UnknownName
from verbal.types import Attempt, Feedback, Task

from .candidates import fingerprint

WEIGHTS = ("", "confidence")
"""How votes may be weighted."""


class Vote:
    """Value in [0, 1]: the share of the votes of the group whose result is the same, rows and columns in any order.

    Args:
        weights: `confidence` weighs each vote by exp(mean log-probability of the tokens the policy wrote), the
            length-normalised weight of the paper (recipe key `model.logprobs` asks for them); the plain vote, which
            the text then says, where an answer that runs has none. Empty: every vote is 1.
    """

    name = "vote"
    oracle: ClassVar[bool] = False

    def __init__(self, *, weights: str = "") -> None:
        if weights not in WEIGHTS:
            raise UnknownName.of("weights", weights, WEIGHTS, where="critic vote")
        self._weights = weights

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt; None for an attempt that was not observed."""
        seen = [context.observations.get(a.id) for a in group]
        prints = [fingerprint(s) for s in seen]
        votes, why = self._votes([a for a, p in zip(group, prints, strict=True) if p is not None])
        shares: defaultdict[str, float] = defaultdict(float)
        for attempt, p in zip(group, prints, strict=True):
            if p is not None:
                shares[p] += votes[attempt.id]
        total, counts = sum(shares.values()) or 1.0, Counter(p for p in prints if p is not None)
        return [
            self._feedback(a, s, p, shares[p] / total if p else 0.0, counts, votes.get(a.id), why)
            for a, s, p in zip(group, seen, prints, strict=True)
        ]

    def settled(self, seen: Sequence[Observation], left: int) -> bool:
        """Whether `left` more answers cannot change which result has the highest value, whatever they give.

        Args:
            seen: What the answers so far gave.
            left: Answers that are still to come.
        """
        if self._weights:
            return False
        prints = [(fingerprint(s), 1.0 if s.info.get("row_count", 1) else 0.5) for s in seen]
        worth: defaultdict[str, float] = defaultdict(float)
        for p, weight in prints:
            if p is not None:
                worth[p] += weight
        ranked = [*sorted(worth.values(), reverse=True), 0.0, 0.0]
        return ranked[0] > ranked[1] + left

    def _votes(self, running: Sequence[Attempt]) -> tuple[dict[str, float], str]:
        """The weight of each vote by attempt id, and what to say of the weighing."""
        plain = {a.id: 1.0 for a in running}
        if not self._weights:
            return plain, ""
        found = {a.id: confidence(a) for a in running}
        missing = sum(w is None for w in found.values())
        if missing:
            why = f"; votes count alike: the model gave no log-probabilities for {missing} of {len(found)}"
            return plain, why
        return {i: w for i, w in found.items() if w is not None}, "; votes weighed by the model's confidence"

    def _feedback(
        self,
        attempt: Attempt,
        seen: Observation | None,
        print_: str | None,
        share: float,
        counts: Counter[str],
        weight: float | None,
        why: str,
    ) -> Feedback:
        if seen is None:
            return Feedback(attempt=attempt.id, critic=self.name, reason="the attempt was not observed")
        if print_ is None:
            return Feedback(attempt=attempt.id, critic=self.name, value=0.0, text="the answer does not run")
        text = f"{counts[print_]} of {counts.total()} answers that run give this result{why}"
        value = share if seen.info.get("row_count", 1) else share / 2
        parts = {"votes": float(counts[print_]), **({"weight": weight or 0.0} if self._weights else {})}
        return Feedback(attempt=attempt.id, critic=self.name, value=value, text=text, parts=parts)


def confidence(attempt: Attempt) -> float | None:
    """exp(mean log-probability) of the tokens that the policy wrote, in [0, 1]; None where the model gave none."""
    own = [step.logprobs for step in attempt.steps if step.author == "policy"]
    if not own or any(not given for given in own):
        return None
    return math.exp(min(0.0, fmean(p for given in own for p in given or ())))


__all__ = ["Vote"]
