"""What each utterance of a conversation was worth, in several dimensions: a judge spreads the episode's score.

    reward of an utterance = attribution / scale x score of the episode;  -1 where the attribution is -1

The judge sees the dialogue, the goal and one dimension, not the score. `merged` makes one number of the dimensions over
a data set: each scaled to [0, 1] by its least and greatest reward there, the mean of them x 10.

Source: Sotopia-RL, arXiv 2508.03905; the dimensions are those of Sotopia, arXiv 2310.11667.
Differs: an utterance without an attribution, or a judge that cannot be read in `tries` tries, gives None and a reason
(one variant of the released code fills in 0); a dimension that is the same over the whole data set is left out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import ClassVar, NamedTuple, TypeVar

from verbal.contracts import CriticContext, Model, Sampling
from verbal.errors import STOPS, ConfigError, ModelError
from verbal.prompt import load_prompt
from verbal.types import Attempt, Feedback, Message, Task

_T = TypeVar("_T")
_MARK = re.compile(r"^[\s*`-]*ME(\d+)[*`]*\s*:\s*([-+]?\d+(?:\.\d+)?)[*`]*\s*$", re.M)
_SCORE = re.compile(r"<score>\s*([-+]?\d+(?:\.\d+)?)\s*</score>", re.I)
_TAG = re.compile(r"<(?=\s*/?\s*(?:goal|dialogue|score)\b)", re.I)


class Dimension(NamedTuple):
    """What is judged, and the range of an episode's score in it."""

    low: float
    high: float
    meaning: str


DIMENSIONS: Mapping[str, Dimension] = {
    "goal": Dimension(0, 10, "how far ME came towards the goal."),
    "relationship": Dimension(-5, 5, "what became of the relationship between ME and THEM."),
    "knowledge": Dimension(0, 10, "what ME learned of THEM that was new and mattered."),
}
"""The three dimensions of the paper."""


class Utterances:
    """Value in [0, 1]: the mean over dimensions of the episode's score in its range; then one Feedback for each
    utterance, scope `step:i`, with its reward by dimension in `parts` and their mean as value.

    The episode's scores are those of the environment (`Observation.info["scores"]`), else the judge gives them.

    Args:
        dimensions: Names of `DIMENSIONS`.
        scale: The greatest attribution.
        tries: Calls for one judgement at most, until it can be read.
        prompts: A folder of the user's that overrides prompts of the package.
        max_tokens: Of one reply.
    """

    name = "utterances"
    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        dimensions: Sequence[str] = tuple(DIMENSIONS),
        scale: int = 3,
        tries: int = 5,
        prompts: str | None = None,
        max_tokens: int = 512,
    ) -> None:
        if unknown := [d for d in dimensions if d not in DIMENSIONS]:
            todo = f"choose among {', '.join(DIMENSIONS)}"
            raise ConfigError(f"no dimension is named {unknown[0]!r}", where="critic utterances", todo=todo)
        if min(scale, tries, len(dimensions)) < 1:
            raise ConfigError("dimensions, scale and tries must be at least 1", where="critic utterances")
        self._dimensions, self._scale, self._tries, self._max_tokens = tuple(dimensions), scale, tries, max_tokens
        self._spread, self._episode = (load_prompt(f"critic/{n}", prompts) for n in ("utterances", "episode"))

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """For each attempt, in order, its Feedback and then those of its utterances.

        Raises:
            ConfigError: the context has no model.
            BudgetError, TransientError: a limit was reached or the model is gone; the run can be resumed.
        """
        if context.model is None:
            todo = "give a model for role judge"
            raise ConfigError("the critic `utterances` has no model", where="[critics]", todo=todo)
        found = await asyncio.gather(*(self._one(task, a, context, context.model) for a in group))
        return [feedback for several in found for feedback in several]

    async def _one(self, task: Task, attempt: Attempt, context: CriticContext, model: Model) -> list[Feedback]:
        said = [(i, s) for i, s in enumerate(attempt.steps) if s.author == "policy" and s.text.strip()]
        goal = task.info.get("goal")
        if not isinstance(goal, str) or not said:
            reason = "nothing was said" if isinstance(goal, str) else "the task is no conversation: it has no goal"
            return [Feedback(attempt=attempt.id, critic=self.name, source="judge", reason=reason)]
        dialogue = numbered(attempt)
        seen = context.observations.get(attempt.id)
        known: Mapping[str, float] = seen.info.get("scores", {}) if seen else {}
        jobs = [self._judge(d, dialogue, goal, len(said), known.get(d), context, model) for d in self._dimensions]
        judged = dict(zip(self._dimensions, await asyncio.gather(*jobs), strict=True))
        scores = {d: score for d, (score, _, _) in judged.items() if score is not None}
        reasons = [reason for _, _, reason in judged.values() if reason]
        whole = len(scores) == len(judged)
        first = Feedback(
            attempt=attempt.id, critic=self.name, source="judge", parts=scores,
            value=fmean((scores[d] - DIMENSIONS[d].low) / (DIMENSIONS[d].high - DIMENSIONS[d].low) for d in scores)
            if whole else None, reason="" if whole else "; ".join(reasons),
        )  # fmt: skip
        rewards = {d: spread(score, shares, self._scale) for d, (score, shares, _) in judged.items()
                   if score is not None and shares is not None}  # fmt: skip
        return [first, *(self._step(attempt, n, i, s.text, rewards, reasons) for n, (i, s) in enumerate(said))]

    def _step(
        self, attempt: Attempt, number: int, at: int, text: str, rewards: Mapping[str, list[float]],
        reasons: Sequence[str],
    ) -> Feedback:  # fmt: skip
        parts = {d: values[number] for d, values in rewards.items()}
        harmed = [d for d, value in parts.items() if value == -1.0]
        words = f"{' '.join(text.split())[:80]!r} harmed {', '.join(harmed)}" if harmed else ""
        whole = len(parts) == len(self._dimensions)
        lows, highs = zip(*((min(-1.0, DIMENSIONS[d].low), DIMENSIONS[d].high) for d in self._dimensions), strict=True)
        return Feedback(
            attempt=attempt.id, critic=self.name, source="judge", scope=f"step:{at}", parts=parts, text=words,
            value=fmean(parts.values()) if whole else None, reason="" if whole else "; ".join(reasons),
            low=fmean(lows), high=fmean(highs),
        )  # fmt: skip

    async def _judge(
        self, name: str, dialogue: str, goal: str, count: int, score: float | None, context: CriticContext, model: Model
    ) -> tuple[float | None, list[float] | None, str]:
        """(score of the episode, attribution of each utterance, what could not be read) in one dimension."""
        dimension = DIMENSIONS[name]
        fields = {"dialogue": dialogue, "goal": _inside(goal), "dimension": name, "meaning": dimension.meaning}
        reason = ""
        if score is None:
            text = self._episode.fill(**fields, low=f"{dimension.low:g}", high=f"{dimension.high:g}")
            score, reason = await self._ask(model, text, context, lambda t: read_score(t, dimension))
        text = self._spread.fill(**fields, scale=str(self._scale), count=str(count))
        shares, unread = await self._ask(model, text, context, lambda t: read_attributions(t, count, self._scale))
        told = "; ".join(
            f"{what} of {name!r}: {why}" for what, why in (("score", reason), ("attribution", unread)) if why
        )
        return score, shares, told

    async def _ask(
        self, model: Model, text: str, context: CriticContext, read: Callable[[str], _T | None]
    ) -> tuple[_T | None, str]:
        """What can be read in a reply, and why nothing could after so many tries."""
        messages, last = [Message(role="user", content=text)], ""
        for number in range(self._tries):
            sampling = Sampling(
                temperature=0.0 if number == 0 else 0.7, max_tokens=self._max_tokens,
                seed=None if context.seed is None else context.seed + number,
            )  # fmt: skip
            try:
                (reply,) = await model.generate(messages, 1, sampling)
            except STOPS:
                raise
            except ModelError as error:
                last = f"the call failed: {error.what}"
                continue
            if (found := read(reply.text)) is not None:
                return found, ""
            last = f"such as {reply.text.strip()[-60:]!r}"
        return None, f"not readable in {self._tries} tries, {last}"


def numbered(attempt: Attempt) -> str:
    """The dialogue of an attempt, a line for each thing that was said; those of the policy are ME1, ME2, ..."""
    lines, mine = [], 0
    for step in attempt.steps:
        if step.author == "policy" and step.text.strip():
            mine += 1
            lines.append(f"ME{mine}: {_inside(step.text)}")
            if step.observation:
                lines.append(f"THEM: {_inside(step.observation)}")
    return "\n".join(lines)


def spread(score: float, attributions: Sequence[float], scale: float = 3) -> list[float]:
    """The rewards of utterances: attribution / scale x the episode's score; an attribution of -1 is a reward of -1.

    >>> [round(r, 3) for r in spread(8, [2, 3, -1, 0])]
    [5.333, 8.0, -1.0, 0.0]
    """
    return [-1.0 if a == -1 else a / scale * score for a in attributions]


def merged(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """One reward in [0, 10] for each utterance of a data set: each dimension scaled by its extremes, their mean x 10.

    >>> merged([{"goal": 8, "relationship": -1}, {"goal": 4, "relationship": 3}, {"goal": 0, "relationship": 3}])
    [5.0, 7.5, 5.0]

    Raises:
        ValueError: an utterance lacks a dimension, or no dimension tells two utterances apart.
    """
    names = sorted({d for row in rows for d in row})
    if lacking := [(i, d) for i, row in enumerate(rows) for d in names if d not in row]:
        raise ValueError(f"utterance {lacking[0][0]} has no reward in {lacking[0][1]!r}: it is missing, not 0")
    ends = {d: (min(r[d] for r in rows), max(r[d] for r in rows)) for d in names}
    told = [d for d, (low, high) in ends.items() if high > low]
    if not told:
        raise ValueError("no dimension tells two utterances apart")
    return [10 * fmean((row[d] - ends[d][0]) / (ends[d][1] - ends[d][0]) for d in told) for row in rows]


def read_attributions(text: str, count: int, scale: float = 3) -> list[float] | None:
    r"""The attributions in a judge's reply: exactly one for each utterance, -1 or from 0 to `scale`; else None.

    >>> read_attributions("ME1: 2\nME2: -1", 2), read_attributions("ME1: 2", 2), read_attributions("ME1: 4", 1)
    ([2.0, -1.0], None, None)
    """
    marks = [(int(n), float(value)) for n, value in _MARK.findall(text)]
    if [n for n, _ in marks] != list(range(1, count + 1)):
        return None
    return [v for _, v in marks] if all(v == -1 or 0 <= v <= scale for _, v in marks) else None


def read_score(text: str, dimension: Dimension) -> float | None:
    """The one score between tags in a judge's reply, when it is in the dimension's range."""
    found = _SCORE.findall(text)
    return float(found[0]) if len(found) == 1 and dimension.low <= float(found[0]) <= dimension.high else None


def _inside(text: str) -> str:
    """`text` on one line between tags of a prompt, none of which it can close."""
    return _TAG.sub("&lt;", " ".join(text.split()))


__all__ = ["Utterances", "DIMENSIONS", "Dimension", "merged", "numbered", "read_attributions", "read_score", "spread"]  # noqa: RUF022
