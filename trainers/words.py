"""What was said of an attempt, who read it, and whether it gives the answer away."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from verbal.store import Store
from verbal.types import Attempt, Feedback, Step, Task

from .traces import HINT, turn

__all__ = ["answers_of", "contains", "critique_of", "heard", "model_of", "reflection_of", "shows"]

_TOKEN = re.compile(r"\w+|[^\w\s]")
_LONG, _SHARE = 8, 0.8


def contains(text: str, part: str) -> bool:
    """Whether the tokens of `part` stand in `text` one after another, whatever the case and the spaces.

    >>> contains("so: select 1", "SELECT  1;"), contains("select 10", "SELECT 1"), contains("anything", " ")
    (True, False, False)
    """
    wanted = _tokens(part)
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(_tokens(text))} "


def shows(text: str, answers: Iterable[str]) -> bool:
    """Whether a text gives an answer away: it holds one, or one unbroken piece with most of a long one.

    A long one has at least 8 tokens; most of it is 80 %. Source: Retroformer, arXiv 2308.02151, needs this check: a
    reflection that holds the answer is rewarded for nothing.
    """
    said = _tokens(text)
    for answer in answers:
        if contains(text, answer):
            return True
        wanted = _tokens(answer)
        if len(wanted) >= _LONG:
            match = difflib.SequenceMatcher(None, said, wanted, autojunk=False).find_longest_match()
            if match.size >= _SHARE * len(wanted):
                return True
    return False


def answers_of(task: Task, feedback: Sequence[Feedback]) -> list[str]:
    """The right answers that are known of a task: gold, a proposer's reference, and what critics gave as one."""
    known = [task.gold or "", task.info.get("reference"), *(f.correction for f in feedback)]
    return [a for a in known if isinstance(a, str) and a.strip()]


def reflection_of(store: Store, attempt: Attempt) -> Step | None:
    """What the reflector said of an attempt, as a step with the prompt it saw."""
    return store.step(attempt.id, "reflect") or next((s for s in attempt.steps if s.role == "reflector"), None)


def critique_of(store: Store, attempt: Attempt, feedback: Sequence[Feedback]) -> Step | None:
    """What the critic role said of an attempt."""
    if step := store.step(attempt.id, "critique") or next((s for s in attempt.steps if s.role == "critic"), None):
        return step
    text = next((f.text for f in feedback if f.critic == "critique" and f.text), "")
    return Step(author="guide", role="critic", text=text) if text else None


def heard(retry: Attempt, attempt: Attempt, words: str) -> bool:
    """Whether a retry was shown the words about the attempt before it (by the ids it was shown, else by its prompt)."""
    place = attempt.id.removeprefix(f"{attempt.run}/{attempt.arm}/")
    step = turn(retry)
    if step is None:
        return False
    told = {i.partition(":")[2] for i in step.shown if i.startswith(("new:", "critique:"))}
    if told:
        return any(i == place or i.startswith(f"{place}.") for i in told)
    hints = [h for m in step.prompt for h in HINT.findall(m.content)]
    return any(contains(words, h) for h in hints) or any(contains(m.content, words) for m in step.prompt)


def model_of(store: Store, run: str, role: str) -> str:
    """The model that plays a role by the recipe of a run; "" where that is not known."""
    table = ((store.run(run) or {}).get("recipe") or {}).get("model") or {}
    return str((table.get("roles") or {}).get(role) or table.get("name") or "")


def _tokens(text: str) -> list[str]:
    found: list[str] = _TOKEN.findall(text.casefold())
    while found and found[-1] in ";.":
        found.pop()
    return found
