"""Critique-GRPO: a failed answer is criticised in words and written again; the better text joins the group as if it had
been written without the critique, with a bounded weight.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from verbal.errors import ConfigError
from verbal.loop.episodes import side_by_side
from verbal.types import Reflection

from .grpo import GRPO
from .words import answers_of, shows

if TYPE_CHECKING:
    from torch import Tensor

    from verbal.loop.context import Context

    from .rollouts import Made, Rollouts, Sampled

__all__ = ["CritiqueGRPO"]

_ECHO = re.compile(r"\b(critiques?|feedback|previous (answer|attempt))\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CritiqueGRPO(GRPO):
    """Source: Critique-GRPO (arXiv 2506.03106), group of 7 + 1, advantage without deviation, no clip, no KL.

    Differs: where nothing is refined the place is filled with one more ordinary answer, so that groups keep their size;
    critiques and refinements that give the answer away or speak of the critique are dropped (`critique="answer"`, which
    is made of the answer, excepted); rows of both kinds are summed together, as the released code does.
    """

    name: ClassVar[str] = "critique_grpo"
    own_loss: ClassVar[bool] = True

    critique: Literal["indicative", "answer", "words"] = "words"
    """What the second try reads: right or wrong; that and the reference answer; or words of critics and reflector about
    a wrong answer (where they say nothing: as `answer` in the released code, here as `indicative`)."""
    trigger: Literal["all_wrong", "wrong_only", "always"] = "all_wrong"
    """Which answers are written again: those of a group without a right one (the paper), every wrong one, or all (the
    released code)."""
    tries: int | None = None
    """Answers of a group that are written again at most; None: all that `trigger` names."""
    gamma: float = 0.1
    """Of the shaping p / (p + gamma); 0: not shaped."""

    def __post_init__(self) -> None:
        GRPO.__post_init__(self)
        if self.gamma < 0:
            raise ConfigError(f"gamma is {self.gamma}", where="gamma", todo="give 0 (not shaped) or more")
        if self.beta or self.loss != "dr_grpo" or self.clip_high is not None:
            what = (
                f"beta is {self.beta:g}, loss {self.loss}, clip_high {self.clip_high}: its own loss has none of these"
            )
            raise ConfigError(what, where="critique_grpo", todo="leave them out, or train with grpo")

    async def sample(self, rollouts: Rollouts, tasks: Sequence[str], step: int) -> list[list[Sampled]]:
        """Groups of `group` - 1 answers, and the best refined one or one answer more."""
        groups = await rollouts.groups(step, tasks, self.group - 1)
        context = rollouts.context(step)
        return await side_by_side([self._group(rollouts, context, made) for made in groups])

    async def _group(self, rollouts: Rollouts, context: Context, group: Sequence[Made]) -> list[Sampled]:
        task, rows = group[0].attempt.task, [row for made in group if (row := rollouts.row(made))]
        failed = self.chosen(group)[: self.tries] if rows else []
        tried = [await self._refined(rollouts, context, made) for made in failed]
        if better := self.select([m for m in tried if m is not None]):
            prompt, messages = rows[0].tokens.prompt, _first(group).attempt.steps[0].prompt
            if row := rollouts.moved(prompt, messages, better, "refined"):
                return [*rows, row]
        more = context.solving(task, "group", self.group - 1)
        made = await rollouts.attempt(context, task, sample=self.group - 1, sampling=more)
        return [*rows, *([row] if (row := rollouts.row(made)) else [])]

    def chosen(self, group: Sequence[Made]) -> list[Made]:
        """The answers that are written again, by `trigger`; those without a score never are."""
        scored = [m for m in group if m.value is not None and m.attempt.answer]
        wrong = [m for m in scored if m.value != 1.0]
        if self.trigger == "always":
            return scored
        return wrong if self.trigger == "wrong_only" or len(wrong) == len(scored) else []

    def select(self, tried: Sequence[Made]) -> Made | None:
        """The first perfect one, else the first of the highest score."""
        scored = [m for m in tried if m.value is not None]
        return max(scored, key=lambda m: m.value or 0.0) if scored else None

    async def _refined(self, rollouts: Rollouts, context: Context, made: Made) -> Made | None:
        words = await self.words(rollouts, context, made)
        first, sample = made.attempt, made.attempt.sample
        again = await rollouts.attempt(
            context, first.task, sample=sample, round_=1, hints=words, earlier=[first],
            sampling=context.solving(first.task, "refine", sample),
        )  # fmt: skip
        spoken = " ".join(step.text for step in again.attempt.steps if step.author == "policy")
        known = " ".join(m.content for m in first.steps[0].prompt) if first.steps else ""
        if any(word.group().casefold() not in known.casefold() for word in _ECHO.finditer(spoken)):
            rollouts.counts["refinements that speak of the critique"] += 1
            return None
        return again

    async def words(self, rollouts: Rollouts, context: Context, made: Made) -> list[Reflection]:
        """The critique of an answer, as the reflections that its second try reads."""
        task, right = rollouts.tasks[made.attempt.task], made.value == 1.0
        feedback = context.store.feedback([made.attempt.id])[made.attempt.id]
        known = answers_of(task, feedback)
        if self.critique == "words" and not right:
            told = await rollouts.words(context, made.attempt)
            spoken = [f for f in feedback if f.text and f.value != 1.0]
            told += [Reflection(id=f"critic:{f.critic}", text=f.text) for f in spoken]
            if safe := [r for r in told if not shows(r.text, known)]:
                return safe
        text = "The answer is correct." if right else "The answer is incorrect."
        if self.critique != "indicative" and known and (self.critique == "answer" or right):
            text += f" The right answer is: {known[0]}"
        return [Reflection(id=f"critique:{context.place(made.attempt.id)}", text=text)]

    def token_losses(self, logps: Tensor, old: Tensor, weights: Tensor, off_policy: Tensor) -> Tensor:
        """-A p / (p + gamma) on refined rows, -A ratio elsewhere, clipped only where rows are used more than once."""
        from .losses import critique_grpo

        clip = self.clip if self.passes > 1 else None
        return critique_grpo(logps, old, weights, off_policy, gamma=self.gamma, clip=clip)


def _first(group: Sequence[Made]) -> Made:
    return next(m for m in group if m.attempt.steps)
