"""Listwise judging: a model scores all answers to one task against each other, several times, in changing order.

It is the group self-evaluation of PaVeRL-SQL: score(c) = (1/N) * sum over N valid passes of J(c | task, group).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from verbal.contracts import CriticContext, Model, Observation, Sampling
from verbal.errors import STOPS, ConfigError, ModelError
from verbal.prompt import load_prompt
from verbal.types import Attempt, Feedback, Message, Task

from .judge import asked, material

_LINE = re.compile(r"[-*\s`]*SQL\s?([0-9]+)[`*]*\s*:\s*[`*]*([0-9]*\.?[0-9]+)[`*]*\s*", re.IGNORECASE)
_HEADING = re.compile(r"^## +(.+?) *$", re.MULTILINE)


class GroupJudge:
    """Value in [0, 1]: the mean over valid passes of the mark the judge gave; `parts["chosen"]` is 1 for the winner.

    Each pass shows the answers in an order of its own (a seeded shuffle, undone when read), so that no place is
    favoured. A pass counts only when it has exactly one mark in [0, 1] for each answer. Passes are drawn until
    `passes` are valid, at most three times as many. Without a valid pass the results vote: value is the share of the
    answers with the same result, and where no answer was observed it is None. Ties for `chosen` are drawn by seed.

    Args:
        passes: Valid passes wanted (N; the paper takes 20).
        distinct: Judge answers with one result once; they share the mark.
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
        prompt: str = "critic/group",
        prompts: str | None = None,
        temperature: float | None = None,
        max_tokens: int = 1024,
    ) -> None:
        if passes < 1:
            raise ConfigError(f"passes {passes} is below 1", where="critic group", todo="give 1 or more")
        self._passes, self._distinct, self._prompt = passes, distinct, load_prompt(prompt, prompts)
        self._temperature, self._max_tokens = temperature, max_tokens

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order; None for an attempt without an answer, and for a group of one.

        Raises:
            ConfigError: the context has no model, or the prompt wants a field that nothing here has.
            BudgetError, TransientError: a limit was reached or the model is gone; the run can be resumed.
        """
        if context.model is None:
            raise ConfigError("the critic `group` has no model", where="[critics]", todo="give a model for role judge")
        prints = {a.id: fingerprint(context.observations.get(a.id)) for a in group}
        shown: dict[str, list[Attempt]] = {}
        for attempt in group:
            if attempt.answer.strip():
                key = (prints[attempt.id] if self._distinct else None) or attempt.id
                shown.setdefault(key, []).append(attempt)
        if len(shown) < 2:
            return [self._none(a, "fewer than two answers to compare") for a in group]
        rng = random.Random(context.seed)
        answers = [attempts[0].answer for attempts in shown.values()]
        rows, calls, failure = await self._draw(task, group, answers, context.model, rng)
        if not rows:
            return self._vote(group, prints, rng, f"no valid pass in {calls} calls{failure}")
        means = mean_scores(rows)
        winner = pick(means, rng)
        found: dict[str, Feedback] = {}
        for i, attempts in enumerate(shown.values()):
            marks = [row[i] for row in rows]
            said = (
                f"{means[i]:.2f} against the other answers ({min(marks):.2f} to {max(marks):.2f}, {len(rows)} passes)"
            )
            for j, attempt in enumerate(attempts):
                parts = {
                    "passes": float(len(rows)),
                    "calls": float(calls),
                    "copies": float(len(attempts)),
                    "chosen": float(i == winner and j == 0),
                }
                found[attempt.id] = Feedback(
                    attempt=attempt.id, critic=self.name, value=means[i], text=said, parts=parts, source="judge"
                )
        return [found.get(a.id) or self._none(a, "there is no answer to compare") for a in group]

    async def _draw(
        self, task: Task, group: Sequence[Attempt], answers: Sequence[str], model: Model, rng: random.Random
    ) -> tuple[list[list[float]], int, str]:
        """Valid passes (marks in the order of `answers`), calls made, and the last failure in words."""
        rows: list[list[float]] = []
        calls, failure = 0, ""
        while len(rows) < self._passes and calls < 3 * self._passes:
            more = min(self._passes - len(rows), 3 * self._passes - calls)
            orders = [rng.sample(range(len(answers)), len(answers)) for _ in range(more)]
            seeds = [rng.randrange(2**31) for _ in range(more)]
            asks = [
                self._ask(self._text(task, group, [answers[i] for i in order]), model, seed)
                for order, seed in zip(orders, seeds, strict=True)
            ]
            for order, reply in zip(orders, await asyncio.gather(*asks), strict=True):
                calls += 1
                if isinstance(reply, ModelError):
                    failure = f"; the last failed: {reply.what}"
                elif marks := read_marks(reply, len(answers)):
                    row = [0.0] * len(answers)
                    for place, index in enumerate(order):
                        row[index] = marks[place]
                    rows.append(row)
        return rows, calls, failure

    async def _ask(self, text: str, model: Model, seed: int) -> str | ModelError:
        sampling = Sampling(temperature=self._temperature, max_tokens=self._max_tokens, seed=seed)
        try:
            return (await model.generate([Message(role="user", content=text)], 1, sampling))[0].text
        except STOPS:
            raise
        except ModelError as error:
            return error

    def _text(self, task: Task, group: Sequence[Attempt], answers: Sequence[str]) -> str:
        text = asked(task, group)
        lines = "\n".join(f"SQL{i}: {' '.join(answer.split())}" for i, answer in enumerate(answers))
        fields = {"question": str(task.info.get("question", ""))} | sections(text)
        fields |= {"task": material(text), "candidates": material(lines), "count": str(len(answers))}
        if missing := [v for v in self._prompt.variables if v not in fields]:
            raise ConfigError(
                f"the prompt {self._prompt.name!r} wants {missing[0]!r}, which neither task {task.id!r} nor the "
                "policy's prompt has",
                where="critic group",
                todo=f"known: {', '.join(sorted(fields))}",
            )
        return self._prompt.fill(**{v: fields[v] for v in self._prompt.variables})

    def _vote(
        self, group: Sequence[Attempt], prints: dict[str, str | None], rng: random.Random, why: str
    ) -> list[Feedback]:
        best = majority([prints[a.id] for a in group], rng)
        if best is None:
            return [self._none(a, f"{why}, and no result to vote by") for a in group]
        counts = Counter(p for p in prints.values() if p is not None)
        return [
            Feedback(
                attempt=a.id,
                critic=self.name,
                value=counts[p] / counts.total(),
                text=f"{why}; {counts[p]} of {counts.total()} answers have this result",
                parts={"passes": 0.0, "votes": float(counts[p]), "chosen": float(i == best)},
            )
            if (p := prints[a.id]) is not None
            else self._none(a, f"{why}, and this answer has no result")
            for i, a in enumerate(group)
        ]

    def _none(self, attempt: Attempt, reason: str) -> Feedback:
        return Feedback(attempt=attempt.id, critic=self.name, source="judge", reason=reason)


def read_marks(text: str, count: int) -> list[float] | None:
    r"""The marks of `SQL0: x.xx` to `SQL(count-1)` at the end of a reply, or None when they are not exactly that.

    >>> read_marks("They differ.\nSQL0: 0.20\nSQL1: 0.90", 2), read_marks("SQL0: 0.20", 2), read_marks("SQL1: 1", 1)
    ([0.2, 0.9], None, None)
    """
    marks: list[tuple[int, float]] = []
    for line in reversed([line for line in text.splitlines() if line.strip(" `")]):
        found = _LINE.fullmatch(line)
        if not found:
            break
        marks.insert(0, (int(found[1]), float(found[2])))
    if [i for i, _ in marks] != list(range(count)) or any(mark > 1 for _, mark in marks):
        return None
    return [mark for _, mark in marks]


def mean_scores(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean mark of each answer over the passes.

    >>> [round(s, 2) for s in mean_scores([[0.2, 0.9], [0.4, 0.8]])]
    [0.3, 0.85]
    """
    return [fmean(column) for column in zip(*rows, strict=True)]


def pick(scores: Sequence[float], rng: random.Random) -> int:
    """The place of the highest score; equal ones (to nine digits) are drawn by `rng`."""
    best = round(max(scores), 9)
    return rng.choice([i for i, score in enumerate(scores) if round(score, 9) == best])


def majority(prints: Sequence[str | None], rng: random.Random) -> int | None:
    """The first place of the most frequent result; None without any. Equally frequent results are drawn by `rng`.

    >>> majority(["a", "b", "a", None, "b", "a"], random.Random(0))
    0
    """
    counts = Counter(p for p in prints if p is not None)
    if not counts:
        return None
    results = list(counts)
    return list(prints).index(results[pick([counts[r] for r in results], rng)])


def fingerprint(seen: Observation | None) -> str | None:
    """What an answer gave, rows in any order; None when it was not observed, failed, or gave no rows to compare."""
    if seen is None or seen.info.get("error") or "rows" not in seen.info:
        return None
    return repr((len(seen.info.get("columns", ())), sorted(map(repr, seen.info["rows"]))))


def sections(text: str) -> dict[str, str]:
    r"""The parts of a prompt by heading (`## Right SQL` is `right_sql`); the last of a name counts.

    >>> sections("# Role\n## Schema\nA\n## Question\nHow many?\n## Answer\n")
    {'schema': 'A', 'question': 'How many?', 'answer': ''}
    """
    pieces = _HEADING.split(text)
    return {name.lower().replace(" ", "_"): body.strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


__all__ = ["GroupJudge"]
