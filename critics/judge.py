"""A language model as judge: a grade from 1 to 10 by a rubric with hard bands, and words. No gold answer is read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from verbal.contracts import CriticContext, Model, Sampling
from verbal.errors import STOPS, ConfigError, ModelError
from verbal.prompt import load_prompt
from verbal.types import Attempt, Feedback, Message, Task

_TAG = re.compile(r"<score>(.*?)</score>", re.IGNORECASE | re.DOTALL)
_GRADE = r"([-+]?[0-9]+(?:\.[0-9]+)?)(?:\s*/\s*([0-9]+(?:\.[0-9]+)?))?"
_WHOLE = re.compile(rf"[\s*_`]*{_GRADE}[\s*_`]*")
_LAST = re.compile(rf"(?<![\w.,/+-]){_GRADE}(?![\w,/])")
_CLOSING = re.compile(r"</(?=(?:task|answer|result|candidates|test)\b)", re.IGNORECASE)


class Judge:
    """Value in [0, 1]: u = (grade - 1) / 9, averaged over the calls whose grade could be read; None when none could.

    Args:
        samples: Calls for each attempt.
        rubric: Further rules of grading, added to the prompt.
        prompt: Name of the prompt (variables task, answer, result, rubric).
        prompts: A folder of the user's that overrides prompts of the package.
        temperature: Of the calls; with several calls take one above 0.
        max_tokens: Of one reply.

    Source: Multi-Agent Evolve, arXiv:2510.23595, judge rubric and grade parsing.
    Differs: "8/10" is 8 (there 0.8); a grade outside 1 to 10 is not clamped but unread; without any grade the value is
    None (there 0.5).
    """

    name = "judge"
    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        samples: int = 1,
        rubric: str = "",
        prompt: str = "critic/judge",
        prompts: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
    ) -> None:
        if samples < 1:
            raise ConfigError(f"samples {samples} is below 1", where="critic judge", todo="give 1 or more")
        self._samples, self._rubric, self._prompt = samples, rubric, load_prompt(prompt, prompts)
        self._temperature, self._max_tokens = temperature, max_tokens

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order; `parts` holds the mean grade and how many calls could be read.

        Raises:
            ConfigError: the context has no model.
            BudgetError, TransientError: a limit was reached or the model is gone; the run can be resumed.
        """
        if context.model is None:
            raise ConfigError("the critic `judge` has no model", where="[critics]", todo="give a model for role judge")
        model = context.model
        return list(await asyncio.gather(*(self._grade(task, a, context, model) for a in group)))

    async def _grade(self, task: Task, attempt: Attempt, context: CriticContext, model: Model) -> Feedback:
        if not attempt.answer.strip():
            return self._unread(attempt, "there is no answer to grade")
        seen = context.observations.get(attempt.id)
        result = (seen.text.strip() or "(empty)") if seen else "(not observed)"
        fields = {"task": asked(task, [attempt]), "answer": attempt.answer, "result": result}
        text = self._prompt.fill(rubric=self._rubric, **{k: material(v) for k, v in fields.items()})
        messages = [Message(role="user", content=text)]
        sampling = Sampling(temperature=self._temperature, max_tokens=self._max_tokens, seed=context.seed)
        try:
            replies = await model.generate(messages, self._samples, sampling)
        except STOPS:
            raise
        except ModelError as error:
            return self._unread(attempt, f"the judge's call failed: {error.what}")
        read = [(g, r.text) for r in replies if (g := read_grade(r.text)) is not None]
        if not read:
            shown = replies[0].text.strip()[-80:] if replies else ""
            return self._unread(attempt, f"no grade from 1 to 10 in {len(replies)} replies, such as {shown!r}")
        grade = fmean(g for g, _ in read)
        return Feedback(
            attempt=attempt.id,
            critic=self.name,
            value=fmean((g - 1) / 9 for g, _ in read),
            text=_TAG.sub("", read[0][1]).strip(),
            parts={"grade": grade, "read": float(len(read)), "calls": float(len(replies))},
            source="judge",
        )

    def _unread(self, attempt: Attempt, reason: str) -> Feedback:
        return Feedback(attempt=attempt.id, critic=self.name, source="judge", reason=reason)


def read_grade(text: str) -> float | None:
    """The grade in a judge's reply, from 1 to 10, or None.

    The first pair of score tags counts and must hold a grade alone; without tags the last number of the text counts.
    A fraction is scaled to ten.

    >>> [read_grade(t) for t in ("<score>8</score>", "<score>8/10</score>", "... final 6", "<score>X</score>")]
    [8.0, 8.0, 6.0, None]
    """
    tag = _TAG.search(text)
    found = _WHOLE.fullmatch(tag[1]) if tag else next(iter(list(_LAST.finditer(text))[-1:]), None)
    if found is None:
        return None
    whole = float(found[2]) if found[2] else 10.0
    grade = float(found[1]) * 10 / whole if whole else 0.0
    return grade if 1 <= grade <= 10 else None


def asked(task: Task, group: Sequence[Attempt]) -> str:
    """What the policy was asked: the prompt of its first step where it is kept, else the task. Never its gold."""
    prompts = (step.prompt for attempt in group for step in attempt.steps if step.prompt)
    return "\n\n".join(m.content for m in next(prompts, task.messages) if m.content.strip())


def material(text: str) -> str:
    """`text` to stand between tags of a judge's prompt: a closing tag in it does not close them."""
    return _CLOSING.sub("<\\\\/", text)


__all__ = ["Judge"]
