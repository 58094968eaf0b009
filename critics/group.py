"""Listwise judging: a model scores all answers to one task against each other, several times, in changing order.

It is the group self-evaluation of PaVeRL-SQL: score(c) = (1/N) * sum over N valid passes of J(c | task, group).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import ClassVar

from verbal.contracts import CriticContext, Model, Sampling
from verbal.errors import ConfigError, ModelError
from verbal.prompt import load_prompt
from verbal.types import Attempt, Feedback, Task

from .candidates import Candidates, ask, filled, mean_scores, pick, read_marks


class GroupJudge:
    """Value in [0, 1]: the mean over valid passes of the mark the judge gave; `parts["chosen"]` is 1 for the winner.

    Each pass shows the answers that run in an order of its own (a seeded shuffle, undone when read), so that no place
    is favoured; one that does not run has value 0. A pass counts only when it has exactly one mark in [0, 1] for each
    answer. Passes are drawn until `passes` are valid, at most three times as many. Without a valid pass the results
    vote: value is the share of the answers with the same result, and where no answer was observed it is None. Ties
    for `chosen` are drawn by seed. A single answer is chosen without a value.

    Args:
        passes: Valid passes wanted (N; the paper takes 20).
        distinct: Judge answers with one result once; they share the mark.
        previews: Show the judge what each answer gave (a variant of ours: the paper's judge sees SQL only).
        multiplicity: Show the judge how many answers gave each result.
        early: Stop when the passes to come cannot change the winner; the mean is then over those there were.
        prompt: Name of the prompt. Its variables may be task, candidates, count, question, and any heading of the
            prompt that the policy saw (`## Schema` is `schema`), so `text2sql/judge` can be used.
        prompts: A folder of the user's that overrides prompts of the package.
        temperature: Of each pass; None leaves the provider's default, as the paper does.
        max_tokens: Of one reply.

    Source: PaVeRL-SQL, arXiv:2509.07159, verbal-RL pipeline.
    Differs: passes are capped, the mean divides by valid passes, an unreadable mark makes its pass invalid (there 0),
    the order is shuffled, a unique winner is chosen (the published code returns the first answer then).
    """

    name = "group"
    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        passes: int = 5,
        distinct: bool = False,
        previews: bool = False,
        multiplicity: bool = False,
        early: bool = False,
        prompt: str = "critic/group",
        prompts: str | None = None,
        temperature: float | None = None,
        max_tokens: int = 1024,
    ) -> None:
        if passes < 1:
            raise ConfigError(f"passes {passes} is below 1", where="critic group", todo="give 1 or more")
        self._passes, self._distinct, self._early = passes, distinct, early
        self._shows = {"previews": previews, "multiplicity": multiplicity}
        self._prompt, self._temperature, self._max_tokens = load_prompt(prompt, prompts), temperature, max_tokens

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order; None for an attempt without an answer, and for a group of one.

        Raises:
            ConfigError: the context has no model, or the prompt wants a field that nothing here has.
            BudgetError, TransientError: a limit was reached or the model is gone; the run can be resumed.
        """
        if context.model is None:
            raise ConfigError("the critic `group` has no model", where="[critics]", todo="give a model for role judge")
        candidates = Candidates.of(self.name, group, context, distinct=self._distinct)
        if len(candidates.shown) < 2:
            return candidates.too_few()
        rng = random.Random(context.seed)
        rows, calls, failure = await self._draw(task, candidates, context.model, rng)
        if not rows:
            return candidates.voted(rng, f"no valid pass in {calls} calls{failure}")
        means = mean_scores(rows)
        said = [
            f"{mean:.2f} against the other answers ({min(marks):.2f} to {max(marks):.2f}, {len(rows)} passes)"
            for mean, marks in zip(means, zip(*rows, strict=True), strict=True)
        ]
        parts = {"passes": float(len(rows)), "calls": float(calls)}
        return candidates.scored(means, said, [parts] * len(means), pick(means, rng))

    async def _draw(
        self, task: Task, candidates: Candidates, model: Model, rng: random.Random
    ) -> tuple[list[list[float]], int, str]:
        """Valid passes (marks in the order of the candidates), calls made, and the last failure in words."""
        rows: list[list[float]] = []
        count, calls, failure = len(candidates.shown), 0, ""
        while (more := min(self._needed(rows), 3 * self._passes - calls)) > 0:
            drawn = [(rng.sample(range(count), count), rng.randrange(2**31)) for _ in range(more)]
            asks = [self._ask(task, candidates, order, model, seed) for order, seed in drawn]
            for (order, _), reply in zip(drawn, await asyncio.gather(*asks), strict=True):
                calls += 1
                if isinstance(reply, ModelError):
                    failure = f"; the last failed: {reply.what}"
                elif marks := read_marks(reply, count):
                    row = [0.0] * count
                    for place, index in enumerate(order):
                        row[index] = marks[place]
                    rows.append(row)
        return rows, calls, failure

    def _needed(self, rows: Sequence[Sequence[float]]) -> int:
        """Passes to ask for now: all that are missing, or the fewest after which the winner could be certain."""
        return still_needed(rows, self._passes) if self._early else self._passes - len(rows)

    async def _ask(
        self, task: Task, candidates: Candidates, order: Sequence[int], model: Model, seed: int
    ) -> str | ModelError:
        lines = candidates.listed(order, **self._shows)
        text = filled(
            self._prompt, f"critic {self.name}", task, candidates.group, candidates=lines, count=str(len(order))
        )
        return await ask(
            model, text, Sampling(temperature=self._temperature, max_tokens=self._max_tokens, seed=seed)
        )  # fmt: skip


def still_needed(rows: Sequence[Sequence[float]], passes: int) -> int:
    """The fewest passes after which the leader could no longer be caught; 0 when that is so, or all were made.

    A mark is in [0, 1], so a pass moves the gap between two answers by at most 1: a leader `gap` ahead is safe when
    gap > passes to come. Nothing is asked in vain: with fewer passes than given here no winner could be certain.

    >>> still_needed([], 20), still_needed([[1.0, 0.0]] * 11, 20), still_needed([[0.9, 0.8]] * 11, 20)
    (11, 0, 4)
    """
    left = passes - len(rows)
    totals = sorted((sum(column) for column in zip(*rows, strict=True)), reverse=True)
    gap = totals[0] - totals[1] if len(totals) > 1 else 0.0
    return 0 if gap > left + 1e-9 else min(left, int((left - gap) // 2) + 1)


__all__ = ["GroupJudge"]
