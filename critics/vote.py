"""Self-consistency by execution: how many siblings of an attempt got the same result.

Source: Wang et al. 2022 (arXiv 2203.11171), votes over results instead of final texts.
Differs: an answer that fails gets 0 and an empty result at most half its share, so that it wins only unopposed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from verbal.contracts import CriticContext, Observation
from verbal.types import Attempt, Feedback, Task


class Vote:
    """Value in [0, 1]: the share of the group whose result is the same, rows in any order."""

    name = "vote"
    oracle: ClassVar[bool] = False

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt; None for an attempt that was not observed."""
        prints = [_fingerprint(context.observations.get(a.id)) for a in group]
        counts = Counter(p for p in prints if p is not None)
        return [
            self._feedback(a, p, counts, context.observations.get(a.id)) for a, p in zip(group, prints, strict=True)
        ]

    def _feedback(
        self, attempt: Attempt, print_: str | None, counts: Counter[str], seen: Observation | None
    ) -> Feedback:
        if seen is None:
            return Feedback(attempt=attempt.id, critic=self.name, reason="the attempt was not observed")
        if print_ is None:
            return Feedback(attempt=attempt.id, critic=self.name, value=0.0, text="the answer does not run")
        share = counts[print_] / (sum(counts.values()) or 1)
        text = f"{counts[print_]} of {sum(counts.values())} answers that run give this result"
        value = share if seen.info.get("row_count", 1) else share / 2
        return Feedback(attempt=attempt.id, critic=self.name, value=value, text=text)


def _fingerprint(seen: Observation | None) -> str | None:
    if seen is None or seen.info.get("error") or "rows" not in seen.info:
        return None
    return repr((len(seen.info.get("columns", ())), sorted(map(repr, seen.info["rows"]))))


__all__ = ["Vote"]
