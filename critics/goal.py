"""Whether a conversation reached its goal: what the environment observed, no opinion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from verbal.contracts import CriticContext
from verbal.types import Attempt, Feedback, StopReason, Task


class Goal:
    """Value 1 where the environment says that the goal was reached (`Observation.info["reached"]`), 0 where not.

    None for an attempt that broke off, and where the environment does not say.
    """

    name = "goal"
    oracle: ClassVar[bool] = False

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order."""
        return [await self._one(task, attempt, context) for attempt in group]

    async def _one(self, task: Task, attempt: Attempt, context: CriticContext) -> Feedback:
        if attempt.stop in (StopReason.ERROR, StopReason.BUDGET, StopReason.TIMEOUT):
            reason = f"the attempt broke off: {(attempt.error or attempt.stop.value).splitlines()[0]}"
            return Feedback(attempt=attempt.id, critic=self.name, reason=reason)
        seen = context.observations.get(attempt.id)
        if seen is None and context.execute is not None:
            seen = await context.execute(task, attempt.answer)
        if seen is not None and "reached" in seen.info:
            reached = bool(seen.info["reached"])
            return Feedback(attempt=attempt.id, critic=self.name, value=float(reached), text=seen.text)
        if not attempt.answer.strip():
            return Feedback(attempt=attempt.id, critic=self.name, value=0.0, text="nothing was said")
        reason = "the environment does not say whether a goal was reached"
        return Feedback(attempt=attempt.id, critic=self.name, reason=reason)


__all__ = ["Goal"]
