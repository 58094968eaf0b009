"""Execution match: does the answer give the rows that the gold query gives, on the task's own database.

Rows are compared as a multiset, in order when the gold query orders them; columns may stand in any order and their
names do not matter; numbers agree within a small tolerance (`verbal/rows.py`). The words name the first difference and
never show the gold query or its cells. One state can be right by accident: `suite_match` looks at several.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

from verbal.contracts import CriticContext, Observation
from verbal.rows import OUTAGES, Comparison, compare, is_ordered
from verbal.types import Attempt, Feedback, StopReason, Task

_REMEMBERED = 256


class SqlResult:
    """Value 1 when the result is right, else 0; None when that cannot be said."""

    name = "sql_result"
    oracle: ClassVar[bool] = True

    def __init__(self, *, show_gold: bool = False) -> None:
        """Remembers the results of the gold queries it has run.

        Args:
            show_gold: Whether a wrong answer is told the gold query (as `correction`); never that of a test task.
        """
        self._show_gold = show_gold
        self._gold: OrderedDict[tuple[Any, ...], Observation] = OrderedDict()

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt."""
        gold = await self._gold_result(task, context)
        return [await self._one(task, attempt, gold, context) for attempt in group]

    async def _gold_result(self, task: Task, context: CriticContext) -> Observation | str:
        if not task.gold or not task.gold.strip():
            return "the task has no gold answer"
        db = str(task.info.get("db"))
        key = (task.id, db, task.gold, *_marks(db))
        seen = self._gold.get(key)
        if seen is None:
            if context.execute is None:
                return "the gold answer cannot be run here (no execute in the context)"
            seen = await context.execute(task, task.gold)
            self._gold[key] = seen
            if len(self._gold) > _REMEMBERED:
                self._gold.popitem(last=False)
        else:
            self._gold.move_to_end(key)
        if "://" in db or seen.info.get("error"):
            del self._gold[key]  # what a server holds may change at any time, and an error may pass
        if seen.info.get("error"):
            return f"the gold answer does not run: {seen.info['error']}"
        if seen.info.get("truncated"):
            return "the gold answer gives more rows than are fetched"
        return seen

    async def _one(self, task: Task, attempt: Attempt, gold: Observation | str, context: CriticContext) -> Feedback:
        if attempt.stop in (StopReason.ERROR, StopReason.BUDGET) and not attempt.answer:
            return self._unknown(attempt, f"the attempt ended without an answer: {attempt.error or attempt.stop.value}")
        if isinstance(gold, str):
            return self._unknown(attempt, gold)
        if not attempt.answer.strip():
            return self._scored(task, attempt, None, gold.info, "there is no query")
        seen = context.observations.get(attempt.id)
        if seen is None or "rows" not in seen.info:
            if context.execute is None:
                return self._unknown(attempt, "the attempt was not observed")
            seen = await context.execute(task, attempt.answer)
        if seen.info.get("error_class") in OUTAGES:
            return self._unknown(attempt, f"the answer could not be run: {seen.info['error']}")
        if seen.info.get("error"):
            return self._scored(task, attempt, None, gold.info, f"the query fails: {seen.info['error']}")
        return self._scored(task, attempt, seen.info, gold.info, "")

    def _scored(
        self, task: Task, attempt: Attempt, answer: dict[str, Any] | None, gold: dict[str, Any], text: str
    ) -> Feedback:
        """The feedback on a result; `answer` is None when there is none, and `text` says why."""
        if answer is None:
            found = Comparison(False, text, {"columns": 0.0, "rows": 0.0})
        else:
            found = compare(answer, gold, ordered=is_ordered(task.gold or ""))
        return self._known(task, attempt, float(found.match), found.text, found.parts)

    def _known(self, task: Task, attempt: Attempt, value: float, text: str, parts: dict[str, float]) -> Feedback:
        shown = self._show_gold and value < 1.0 and task.split != "test"
        return Feedback(
            attempt=attempt.id,
            critic=self.name,
            value=value,
            text=text,
            correction=(task.gold or "") if shown else "",
            parts=parts,
            source="gold",
            oracle=True,
        )

    def _unknown(self, attempt: Attempt, reason: str) -> Feedback:
        return Feedback(attempt=attempt.id, critic=self.name, reason=reason, source="gold", oracle=True)


def _marks(db: str) -> list[tuple[int, ...]]:
    """What changes when the database does: of its file and of the log beside it, or of the files in its folder."""
    try:
        paths = sorted(entry.path for entry in os.scandir(db)) if os.path.isdir(db) else [db, f"{db}-wal", f"{db}.wal"]
    except (OSError, ValueError):
        return []
    marks: list[tuple[int, ...]] = []
    for path in paths:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            marks.append(())
        else:
            marks.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return marks


__all__ = ["SqlResult"]
