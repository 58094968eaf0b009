"""Plain checks of an answer that need no gold: it runs, gives rows, and their shape fits the question's words.

This is a weak judge by design: it finds answers that cannot be right, and never claims that one is right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from verbal.contracts import CriticContext, Observation
from verbal.types import Attempt, Feedback, StopReason, Task

RUNS = 0.4
"""Value of an answer that runs and fails every other check."""

_NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip
_COUNT = re.compile(
    r"^\s*(how many|count\b|(what is|what's|find|show|give|tell me)( me)? the (total )?number of)", re.I
)
_EACH = re.compile(r"\b(each|every|per|by|and|list|show|give|name)\b", re.I)
_AMOUNT = re.compile(r"\b(average|mean|total|sum)\b", re.I)
_TOP = re.compile(r"\b(?:top|the|first|last) (\d+|" + "|".join(_NUMBERS) + r")\b", re.I)
_WIDE = 12


class SelfCheck:
    """Value 0 when the answer does not run; from 0.4 up to 1 by the share of the checks that it passes."""

    name = "self_check"
    oracle: ClassVar[bool] = False

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt; None for an attempt that ended without an answer or cannot be run here."""
        return [await self._one(task, attempt, context) for attempt in group]

    async def _one(self, task: Task, attempt: Attempt, context: CriticContext) -> Feedback:
        if not attempt.answer.strip():
            if attempt.stop in (StopReason.ERROR, StopReason.BUDGET):
                reason = f"the attempt ended without an answer: {attempt.error or attempt.stop.value}"
                return Feedback(attempt=attempt.id, critic=self.name, reason=reason)
            return self._failed(attempt, "there is no query")
        seen = context.observations.get(attempt.id)
        if seen is None or "rows" not in seen.info:
            if context.execute is None:
                return Feedback(attempt=attempt.id, critic=self.name, reason="the attempt was not observed")
            seen = await context.execute(task, attempt.answer)
        if seen.info.get("error"):
            return self._failed(attempt, f"the query fails: {seen.info['error']}")
        checks = shape_checks(str(task.info.get("question", "")), seen)
        failed = [text for passed, text in checks.values() if not passed]
        value = RUNS + (1 - RUNS) * (1 - len(failed) / len(checks))
        text = "; ".join(failed) if failed else "the query runs and its result has a plausible shape"
        parts = {"runs": 1.0, **{name: float(passed) for name, (passed, _) in checks.items()}}
        return Feedback(attempt=attempt.id, critic=self.name, value=value, text=text, parts=parts)

    def _failed(self, attempt: Attempt, text: str) -> Feedback:
        return Feedback(attempt=attempt.id, critic=self.name, value=0.0, text=text, parts={"runs": 0.0})


def shape_checks(question: str, seen: Observation) -> dict[str, tuple[bool, str]]:
    """Each check that applies: whether it passed, and what is odd when it did not."""
    columns: Sequence[str] = seen.info.get("columns", ())
    rows: Sequence[Sequence[Any]] = seen.info.get("rows", ())
    cells = [value for row in rows for value in row]
    checks = {
        "rows": (bool(rows), "the result is empty"),
        "values": (not cells or any(value is not None for value in cells), "every cell is NULL"),
        "columns": (
            len(set(columns)) == len(columns) <= _WIDE,
            "the result has columns of the same name, or very many",
        ),
        "whole": (not seen.info.get("truncated"), "the result is longer than what is fetched"),
    }
    if _COUNT.search(question) and not _EACH.search(question[12:]):
        number = len(rows) == 1 and len(columns) == 1 and isinstance(rows[0][0], int | float)
        checks["count"] = (number, "the question asks how many, and the result is not one number")
    if _AMOUNT.search(question):
        numeric = not rows or any(isinstance(value, int | float) for value in cells)
        checks["number"] = (numeric, "the question asks for an amount, and no column is a number")
    if match := _TOP.search(question):
        wanted = _NUMBERS.get(match[1].lower()) or int(match[1])
        checks["top"] = (len(rows) <= wanted, f"the question asks for {wanted}, and the result has more rows")
    return checks


__all__ = ["SelfCheck", "RUNS", "shape_checks"]  # noqa: RUF022  (the part comes first)
