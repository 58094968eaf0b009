"""Detectors that turn candidate sentences of a persuader into rewards, and the refining step that picks one.

| candidate | reward |
| --- | --- |
| what a human said there | +10 |
| passes all detectors and carries a strategy | +4 |
| passes, and its only strategy is an inquiry | +2 |
| passes, no strategy | +2 |
| fails, but stands in because too few pass | +0.5 |
| fails | -2 |
| longer than 50 words, or not longer than 2 (whatever else) | -3 |

Source: Refine and Imitate, arXiv 2012.15375; the table is that of the released code. Its rewards are standardised over
a batch and trained by PPO: `verbal distill` takes this critic's value under GRPO. Differs: the detectors are rules over
words (there trained classifiers), told below; the human's sentence is known only where one is given.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import ClassVar, NamedTuple

from verbal.contracts import CriticContext
from verbal.types import Attempt, Feedback, Task

SHORT, LONG = 2, 50
"""Words: a sentence that is not longer, or longer, scores -3."""
STRATEGIES = {
    "logical": re.compile(r"\d|\b(because|therefore|evidence|figures?|measured|percent|study|studies)\b", re.I),
    "emotional": re.compile(r"\b(imagine|feel|hope|suffer|happy|afraid|i hear you|that sounds|that must)\b", re.I),
    "credibility": re.compile(r"\b(experts?|trusted|certified|your work|your experience|you know this better)\b", re.I),
    "story": re.compile(r"\b(a friend of mine|my (?:aunt|uncle|neighbou?r|sister|brother)|i remember)\b", re.I),
    "small_step": re.compile(r"\b(start small|even a little|just one|for one week|in return|half of it)\b", re.I),
    "inquiry": re.compile(r"\?"),
}
"""Persuasion strategies by their cue words."""
_STOP = frozenset(
    {
        *("the", "a", "an", "and", "or", "but", "of", "to", "in", "on", "at", "for", "with", "is", "are", "was", "be"),
        *(
            "it",
            "its",
            "this",
            "that",
            "i",
            "you",
            "he",
            "she",
            "we",
            "they",
            "my",
            "your",
            "our",
            "their",
            "do",
            "does",
        ),
        *("did", "would", "will", "could", "can", "been", "were"),
    }
)
_NOT = re.compile(r"\b(not|no|never|nobody|nothing|cannot|\w+n't)\b", re.I)


class Checked(NamedTuple):
    """What the detectors say of a sentence."""

    repeats: bool
    """It says what its speaker said before."""
    contradicts: bool
    """It denies what its speaker said before, or says what they denied."""
    beside: bool
    """It takes up nothing of the question that was just asked."""
    strategies: tuple[str, ...]
    words: int

    @property
    def passes(self) -> bool:
        """No detector found anything."""
        return not (self.repeats or self.contradicts or self.beside)


def check(text: str, said: Sequence[str] = (), heard: str = "") -> Checked:
    """What the detectors say of a candidate.

    Args:
        text: The candidate.
        said: What its speaker said before.
        heard: The last thing the other said; a question wants to be taken up.
    """
    own = _content(text)
    denied = bool(_NOT.search(text))
    repeats = any(_overlap(own, _content(s)) >= 0.8 and bool(_NOT.search(s)) == denied for s in said)
    contradicts = any(_overlap(own, _content(s)) >= 0.6 and bool(_NOT.search(s)) != denied for s in said)
    asked = heard.strip().rpartition("?")[0].rpartition(". ")[2] if "?" in heard else ""
    answers = re.match(r"\s*(yes|no|because|i|we|it|that|so)\b", text, re.I) is not None
    beside = bool(asked) and not answers and not (own & _content(asked))
    found = tuple(name for name, cue in STRATEGIES.items() if cue.search(text))
    return Checked(repeats, contradicts, beside, found, len(text.split()))


def reward(checked: Checked, *, human: bool = False, fallback: bool = False) -> float:
    """The reward of a candidate by the table.

    >>> fine = Checked(False, False, False, (), 8)
    >>> asks, told = fine._replace(strategies=("inquiry",)), fine._replace(strategies=("inquiry", "logical"))
    >>> bad = fine._replace(repeats=True)
    >>> [reward(c) for c in (fine, asks, told, bad)], reward(bad, fallback=True), reward(bad, human=True)
    ([2.0, 2.0, 4.0, -2.0], 0.5, 10.0)
    >>> reward(fine._replace(words=60)), reward(fine._replace(words=2)), reward(told._replace(words=60), human=True)
    (-3.0, -3.0, -3.0)
    """
    if checked.words > LONG or checked.words <= SHORT:
        return -3.0
    if human:
        return 10.0
    if not checked.passes:
        return 0.5 if fallback else -2.0
    return 4.0 if set(checked.strategies) - {"inquiry"} else 2.0


def refine(
    candidates: Sequence[str], said: Sequence[str] = (), heard: str = "", *, human: str = "", least: int = 1
) -> tuple[int, list[float]]:
    """The place of the candidate to say, and the rewards of all; ties go to the first.

    Args:
        candidates: Sentences for one turn.
        said: What their speaker said before.
        heard: The last thing the other said.
        human: What a human said there, where that is known.
        least: Candidates that must pass; failed ones of a fitting length stand in for those that lack, in order.
    """
    if not candidates:
        raise ValueError("there is no candidate")
    checked = [check(c, said, heard) for c in candidates]
    passed = sum(c.passes and SHORT < c.words <= LONG for c in checked)
    stand_in = [i for i, c in enumerate(checked) if not c.passes and SHORT < c.words <= LONG][: max(0, least - passed)]
    rewards = [
        reward(c, human=bool(human) and candidates[i].split() == human.split(), fallback=i in stand_in)
        for i, c in enumerate(checked)
    ]
    return max(range(len(rewards)), key=lambda i: rewards[i]), rewards


def standardised(rewards: Sequence[float]) -> list[float]:
    """Rewards minus their mean, divided by their deviation, as a batch of PPO takes them; zeros where all are equal."""
    deviation = pstdev(rewards) if len(rewards) > 1 else 0.0
    return [(r - fmean(rewards)) / deviation if deviation > 1e-9 else 0.0 for r in rewards]


class Persuasion:
    """Value from -3 to 10: the mean reward of an attempt's sentences; then one Feedback for each, scope `step:i`.

    Sentences of a group that follow the same dialogue are candidates for one turn: where none of them passes, the first
    stands in. None for an attempt that said nothing.
    """

    name = "persuasion"
    oracle: ClassVar[bool] = False

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """For each attempt, in order, its Feedback and then those of its sentences."""
        turns: dict[tuple[str, ...], list[tuple[str, int, str]]] = defaultdict(list)
        opening = str(task.info.get("opening", ""))
        for attempt in group:
            past: tuple[str, ...] = (opening,)
            for at, step in enumerate(attempt.steps):
                if step.author == "policy" and step.text.strip():
                    turns[past].append((attempt.id, at, step.text))
                    past = (*past, step.text, step.observation or "")
        found: dict[str, dict[int, tuple[float, Checked]]] = defaultdict(dict)
        for past, places in turns.items():
            said, heard = past[1::2], past[-1]
            _, rewards = refine([text for _, _, text in places], said, heard)
            for (attempt_id, at, text), value in zip(places, rewards, strict=True):
                found[attempt_id][at] = (value, check(text, said, heard))
        return [feedback for attempt in group for feedback in self._of(attempt, found[attempt.id])]

    def _of(self, attempt: Attempt, turns: dict[int, tuple[float, Checked]]) -> list[Feedback]:
        if not turns:
            return [Feedback(attempt=attempt.id, critic=self.name, reason="nothing was said", low=-3.0, high=10.0)]
        values = [value for value, _ in turns.values()]
        share = {name: fmean(float(getattr(c, name)) for _, c in turns.values())
                 for name in ("passes", "repeats", "contradicts", "beside")}  # fmt: skip
        whole = Feedback(
            attempt=attempt.id, critic=self.name, value=fmean(values), low=-3.0, high=10.0, parts=share,
            text="; ".join(f"{n} in {v:.0%} of the sentences" for n, v in share.items() if n != "passes" and v),
        )  # fmt: skip
        return [whole, *(self._step(attempt, at, value, c) for at, (value, c) in sorted(turns.items()))]

    def _step(self, attempt: Attempt, at: int, value: float, checked: Checked) -> Feedback:
        parts = {name: 1.0 for name in checked.strategies} | {"words": float(checked.words)}
        return Feedback(
            attempt=attempt.id, critic=self.name, value=value, low=-3.0, high=10.0, scope=f"step:{at}", parts=parts
        )  # fmt: skip


def _content(text: str) -> frozenset[str]:
    words = re.findall(r"[a-z']+|\d+", text.lower())
    return frozenset(w for w in words if w not in _STOP and not _NOT.fullmatch(w))


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / min(len(a), len(b)) if a and b else 0.0


__all__ = ["Persuasion", "Checked", "check", "refine", "reward", "standardised"]  # noqa: RUF022  (the part comes first)
