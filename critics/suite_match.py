"""Suite match: is the answer right on every state of the task's database.

On one state a wrong query may give the right rows by accident: about one in ten answers that match Spider's own
databases fail its test suites. The states are `task.info["states"]` (the official ones, or made ones: `states.py` of
the Text-to-SQL app); they are compared where the rows are (`context.match`). Without states this is execution match.
The words name the first difference and the state, never a gold cell. Zhong, Yu and Klein 2020, arXiv 2010.02840.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from verbal.contracts import CriticContext, Match
from verbal.types import Attempt, Feedback, StopReason, Task


class SuiteMatch:
    """Value 1 when the result is right on every state, else 0; None when that cannot be said."""

    name = "suite_match"
    oracle: ClassVar[bool] = True

    def __init__(self, *, show_gold: bool = False) -> None:
        """Opens nothing.

        Args:
            show_gold: Whether a wrong answer is told the gold query (as `correction`); never that of a test task.
        """
        self._show_gold = show_gold

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt; `parts["states"]` is how many states were compared until the verdict."""
        reasons = [self._cannot(task, attempt, context) for attempt in group]
        asked = [a for a, reason in zip(group, reasons, strict=True) if not reason and a.answer.strip()]
        found: dict[str, Match] = {}
        if asked and context.match is not None:
            verdicts = await context.match(task, [attempt.answer for attempt in asked])
            found = {attempt.id: verdict for attempt, verdict in zip(asked, verdicts, strict=True)}
        none = Match(False, "there is no query", 0)
        return [self._one(task, a, r, found.get(a.id, none)) for a, r in zip(group, reasons, strict=True)]

    def _cannot(self, task: Task, attempt: Attempt, context: CriticContext) -> str:
        if attempt.stop in (StopReason.ERROR, StopReason.BUDGET) and not attempt.answer:
            return f"the attempt ended without an answer: {attempt.error or attempt.stop.value}"
        if not task.gold or not task.gold.strip():
            return "the task has no gold answer"
        if context.match is None:
            return "answers cannot be compared here (no match in the context)"
        return ""

    def _one(self, task: Task, attempt: Attempt, reason: str, verdict: Match) -> Feedback:
        if not reason and verdict.right is None:
            reason = verdict.text or "the comparison gave no verdict"
        if reason:
            return Feedback(attempt=attempt.id, critic=self.name, reason=reason, source="gold", oracle=True)
        shown = self._show_gold and not verdict.right and task.split != "test"
        return Feedback(
            attempt=attempt.id,
            critic=self.name,
            value=float(bool(verdict.right)),
            text=verdict.text,
            correction=(task.gold or "") if shown else "",
            parts={**{k: float(v) for k, v in verdict.parts.items()}, "states": float(verdict.states)},
            source="gold",
            oracle=True,
        )


__all__ = ["SuiteMatch"]
