"""What critics that compare answers share: which are compared, how they are listed, and what decides without a judge.

Compared are the answers that ran (those that were not observed too). An answer that is known to fail is never put to
a judge and has value 0. When one answer is left it is marked as chosen without a value.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from verbal import rows
from verbal.contracts import CriticContext, Model, Observation, Sampling
from verbal.errors import STOPS, ConfigError, ModelError
from verbal.prompt import Prompt
from verbal.types import Attempt, Feedback, Message, Task

from .judge import asked, material

PREVIEW = 200
"""Characters of a result that are shown to a judge."""
_LINE = re.compile(r"[-*\s`]*SQL\s?([0-9]+)[`*]*\s*:\s*[`*]*([0-9]*\.?[0-9]+)[`*]*\s*", re.IGNORECASE)
_HEADING = re.compile(r"^## +(.+?) *$", re.MULTILINE)


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


def mean_scores(marks: Sequence[Sequence[float]]) -> list[float]:
    """The mean mark of each answer over the passes.

    >>> [round(s, 2) for s in mean_scores([[0.2, 0.9], [0.4, 0.8]])]
    [0.3, 0.85]
    """
    return [fmean(column) for column in zip(*marks, strict=True)]


def fingerprint(seen: Observation | None) -> str | None:
    """What an answer gave (`rows.fingerprint`); None when it was not observed, failed, or gave no rows to compare."""
    return None if seen is None else rows.fingerprint(seen.info)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The answers of one group, as a critic compares them."""

    critic: str
    group: Sequence[Attempt]
    shown: list[list[Attempt]]
    """What is compared: the attempts behind each different candidate, in order of the group."""
    failed: frozenset[str]
    """Ids of attempts whose answer does not run."""
    prints: dict[str, str | None]
    """Attempt id -> its result (see `fingerprint`)."""
    observations: Mapping[str, Observation]

    @classmethod
    def of(cls, critic: str, group: Sequence[Attempt], context: CriticContext, *, distinct: bool) -> Candidates:
        """The candidates of a group; with `distinct` answers with one result are one candidate."""
        seen = context.observations
        prints = {a.id: fingerprint(seen.get(a.id)) for a in group}
        failed = frozenset(a.id for a in group if a.answer.strip() and a.id in seen and seen[a.id].info.get("error"))
        shown: dict[str, list[Attempt]] = {}
        for attempt in group:
            if attempt.answer.strip() and attempt.id not in failed:
                key = (prints[attempt.id] if distinct else None) or attempt.id
                shown.setdefault(key, []).append(attempt)
        return cls(critic, group, list(shown.values()), failed, prints, seen)

    @property
    def votes(self) -> list[int]:
        """Answers with the result of each candidate (1 where it is not known)."""
        counts = Counter(p for p in self.prints.values() if p is not None)
        return [counts.get(self.prints[attempts[0].id] or "", 1) for attempts in self.shown]

    def listed(self, order: Sequence[int], *, previews: bool = False, multiplicity: bool = False) -> str:
        """`SQL0: ...` lines of the candidates in `order`; under each its result and how many gave it when wanted."""
        lines, votes = [], self.votes
        for place, index in enumerate(order):
            attempt = self.shown[index][0]
            lines.append(f"SQL{place}: {' '.join(attempt.answer.split())}")
            if previews:
                seen = self.observations.get(attempt.id)
                words = " ".join(seen.text.split()) if seen else ""
                short = words if len(words) <= PREVIEW else f"{words[:PREVIEW]}..."
                lines.append(f"  result: {short or '(not observed)'}")
            if multiplicity:
                lines.append(f"  given by: {votes[index]} of {sum(map(len, self.shown))} answers")
        return "\n".join(lines)

    def scored(
        self, values: Sequence[float | None], said: Sequence[str], parts: Sequence[Mapping[str, float]], winner: int
    ) -> list[Feedback]:
        """One Feedback for each attempt of the group: those of a candidate share its value and what is said of it.

        Args:
            values: Of each candidate; None where it could not be scored, and `said` is the reason then.
            said: Words for each candidate.
            parts: Of each candidate; `copies` and `chosen` are added.
            winner: Place of the candidate whose first attempt is chosen.
        """
        found: dict[str, Feedback] = {}
        for i, attempts in enumerate(self.shown):
            known = values[i] is not None
            for j, attempt in enumerate(attempts):
                own = {**parts[i], "copies": float(len(attempts)), "chosen": float(i == winner and j == 0)}
                found[attempt.id] = Feedback(
                    attempt=attempt.id, critic=self.critic, value=values[i], text=said[i] if known else "",
                    reason="" if known else said[i], parts=own, source="judge",
                )  # fmt: skip
        return [found.get(a.id) or self._left_out(a, "there is no answer to compare") for a in self.group]

    def too_few(self) -> list[Feedback]:
        """Feedback where nothing is left to compare; the first of what is left is marked as chosen."""
        first = self.shown[0][0].id if self.shown else ""
        return [
            self._left_out(a, "fewer than two answers to compare", {"chosen": 1.0} if a.id == first else {})
            for a in self.group
        ]

    def voted(self, rng: random.Random, why: str) -> list[Feedback]:
        """Feedback where no judge could be read: value is the share of the answers with the same result.

        None for an answer that was not observed, and for all without any result; ties are drawn by `rng`.
        """
        best = majority([self.prints[a.id] for a in self.group], rng)
        if best is None:
            return [self._left_out(a, f"{why}, and no result to vote by") for a in self.group]
        counts = Counter(p for p in self.prints.values() if p is not None)
        return [
            Feedback(
                attempt=a.id,
                critic=self.critic,
                value=counts[p] / counts.total(),
                text=f"{why}; {counts[p]} of {counts.total()} answers have this result",
                parts={"passes": 0.0, "votes": float(counts[p]), "chosen": float(i == best)},
            )
            if (p := self.prints[a.id]) is not None
            else self._left_out(a, f"{why}, and this answer has no result")
            for i, a in enumerate(self.group)
        ]

    def _left_out(self, attempt: Attempt, reason: str, parts: Mapping[str, float] | None = None) -> Feedback:
        if attempt.id in self.failed:
            return Feedback(attempt=attempt.id, critic=self.critic, value=0.0, text="the answer does not run")
        return Feedback(
            attempt=attempt.id, critic=self.critic, source="judge", reason=reason, parts=dict(parts or {})
        )  # fmt: skip


async def ask(model: Model, text: str, sampling: Sampling) -> str | ModelError:
    """The reply to a prompt, or how the call failed for good.

    Raises:
        BudgetError, TransientError: a limit was reached or the model is gone; the run can be resumed.
    """
    try:
        return (await model.generate([Message(role="user", content=text)], 1, sampling))[0].text
    except STOPS:
        raise
    except ModelError as error:
        return error


def filled(prompt: Prompt, where: str, task: Task, group: Sequence[Attempt], **fields: str) -> str:
    """A judge's prompt. Its variables may be `fields`, task, question, and any heading of the policy's prompt.

    Raises:
        ConfigError: the prompt wants a field that nothing here has.
    """
    text = asked(task, group)
    known = {"question": str(task.info.get("question", ""))} | sections(text)
    known |= {"task": material(text), **{k: material(v) for k, v in fields.items()}}
    if missing := [v for v in prompt.variables if v not in known]:
        raise ConfigError(
            f"the prompt {prompt.name!r} wants {missing[0]!r}, which neither task {task.id!r} nor the "
            "policy's prompt has",
            where=where,
            todo=f"known: {', '.join(sorted(known))}",
        )
    return prompt.fill(**{v: known[v] for v in prompt.variables})


def sections(text: str) -> dict[str, str]:
    r"""The parts of a prompt by heading (`## Right SQL` is `right_sql`); the last of a name counts.

    >>> sections("# Role\n## Schema\nA\n## Question\nHow many?\n## Answer\n")
    {'schema': 'A', 'question': 'How many?', 'answer': ''}
    """
    pieces = _HEADING.split(text)
    return {name.lower().replace(" ", "_"): body.strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


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
