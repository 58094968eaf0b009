"""Feedback of a person: the right answer, words, or a grade. Offline, a simulated person who knows the gold."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from verbal.contracts import CriticContext, Observation
from verbal.errors import ConfigError, CriticError, DataError
from verbal.rows import compare, is_ordered
from verbal.types import Attempt, Feedback, Task

_FIELDS = ("correction", "text", "value")


class User:
    """Value 1 where the answer does what the person's correction does, 0 where not; `correction` is the right answer.

    A correction is given only for an answer that differs from it, and only when it runs. When both can be run, their
    results are compared as by the critic `sql_result`; two empty results prove nothing and give None. Where nothing can
    be run only an equal text gives a value. On a task of split `test` the value is None: nothing may be learned there.

    Args:
        corrections: What the person said: a JSONL file with `task` (its id) and one or more of `correction`, `text`,
            `value` (0 to 1) in each line, later lines counting; or a function `(task, attempt) -> said` (async or not),
            where `said` is None, the correction, or a mapping of those fields.
        simulated: The person knows the gold of train tasks. Such feedback has `oracle` set.

    Raises:
        ConfigError: neither or both are given. DataError: a line of the file cannot be read.
    """

    name = "user"
    oracle: ClassVar[bool] = True
    """It reads the gold when simulated; each Feedback says whether it did."""

    def __init__(
        self,
        corrections: str | Path | Callable[[Task, Attempt], Any] | None = None,
        *,
        simulated: bool = False,
    ) -> None:
        if (corrections is None) is not simulated:
            raise ConfigError(
                "the critic `user` needs either corrections or simulated = true",
                where="[critics]",
                todo="give a JSONL file or a function of a person's corrections, or simulate one on train tasks",
            )
        self._said: Mapping[str, dict[str, Any]] = {}
        self._ask: Callable[[Task, Attempt], Any] | None = None
        if callable(corrections):
            self._ask = corrections
        elif corrections is not None:
            self._said = read_corrections(corrections)
        self._simulated = simulated

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order; None with a reason where the person said nothing that can be compared."""
        if task.split == "test":
            return [self._feedback(a, reason="the task is of the sealed split 'test'") for a in group]
        if self._simulated and task.split != "train":
            return [self._feedback(a, reason="the simulated user knows train tasks only") for a in group]
        found: list[Feedback] = []
        results: dict[str, Observation] = {}
        for attempt in group:
            said = await self._listen(task, attempt)
            if not said:
                found.append(self._feedback(attempt, reason="the user said nothing about this task"))
                continue
            correction = said.get("correction", "").strip()
            value, reason = said.get("value"), ""
            if value is None and correction:
                if correction not in results and context.execute is not None:
                    results[correction] = await context.execute(task, correction)
                seen = context.observations.get(attempt.id)
                value, reason = _compare(attempt.answer, seen, correction, results.get(correction))
            elif value is None:
                reason = "the user gave words only"
            if value == 1.0 or (correction in results and results[correction].info.get("error")):
                correction = ""
            text = said.get("text", "")
            found.append(self._feedback(attempt, value=value, text=text, correction=correction, reason=reason))
        return found

    async def _listen(self, task: Task, attempt: Attempt) -> dict[str, Any] | None:
        if self._simulated:
            return {"correction": task.gold} if task.gold else None
        if self._ask is None:
            return self._said.get(task.id)
        said = self._ask(task, attempt)
        if inspect.isawaitable(said):
            said = await said
        if said is None or said == "":
            return None
        try:
            return _checked({"correction": said} if isinstance(said, str) else dict(said))
        except (TypeError, ValueError) as error:
            raise CriticError(
                f"the user's function said {str(said)[:80]!r} of attempt {attempt.id!r}: {error}",
                where="critic user",
                todo="it gives None, the right answer, or a mapping with correction, text, value",
            ) from error

    def _feedback(self, attempt: Attempt, **fields: Any) -> Feedback:
        told = self._simulated and bool(fields.get("correction") or fields.get("value") is not None)
        return Feedback(attempt=attempt.id, critic=self.name, source="user", oracle=told, **fields)


def read_corrections(path: str | Path) -> dict[str, dict[str, Any]]:
    """What a JSONL file of corrections says, by task id; of several lines on one task the last counts.

    Raises:
        DataError: the file cannot be read, or a line is not a correction (names the line).
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the corrections cannot be read: {error}", where=str(path), todo="give a JSONL file"
        ) from error
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("task"), str):
                raise ValueError('a line is an object with "task", the id of a task')
            task = row.pop("task")
            found[task] = _checked(row)
        except ValueError as error:
            raise DataError(
                f"not a correction: {error}", where=f"{path}, line {number}", todo=f"fields: task, {', '.join(_FIELDS)}"
            ) from error
    return found


def _compare(
    answer: str, seen: Observation | None, correction: str, right: Observation | None
) -> tuple[float | None, str]:
    """(value, reason when it is None)."""
    if " ".join(answer.split()) == " ".join(correction.split()):
        return 1.0, ""
    if right is not None and right.info.get("error"):
        return None, f"the user's correction does not run: {right.info['error']}"
    if seen is None or right is None or not {"rows", "columns"} <= set(right.info):
        return None, "the answer and the correction cannot both be run here, and their texts differ"
    if seen.info.get("error") or not {"rows", "columns"} <= set(seen.info):
        return 0.0, ""
    if not seen.info["rows"] and not right.info["rows"]:
        return None, "both results are empty, which proves nothing"
    if _count(seen) != _count(right):
        return 0.0, ""
    if seen.info.get("truncated") or right.info.get("truncated"):
        return None, "the results are too long to be compared"
    return float(compare(seen.info, right.info, ordered=is_ordered(correction)).match), ""


def _count(seen: Observation) -> int:
    return int(seen.info.get("row_count", len(seen.info["rows"])))


def _checked(said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said, its fields checked; ValueError says what is wrong with them."""
    if unknown := sorted(map(str, set(said) - set(_FIELDS))):
        raise ValueError(f"unknown field {unknown[0]!r}")
    if not said:
        raise ValueError("it says nothing")
    for name in ("correction", "text"):
        if not isinstance(said.get(name, ""), str):
            raise ValueError(f"`{name}` is a text, found {said[name]!r}")
    value = said.get("value")
    if value is not None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"`value` is a number from 0 to 1, found {value!r}")
        return {**said, "value": float(value)}
    return dict(said)


__all__ = ["User"]
