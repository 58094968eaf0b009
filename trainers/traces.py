"""What was recorded of the turn a row is made of: tokens, log-probabilities, and whether they belong to its prompt.

A log-probability belongs to the prompt it was sampled under. Where a row's prompt leaves something out (hints, earlier
tries), where the answer was cut out of a reply, or where only text was kept, the row is off-policy: it may be imitated
or compared, but a method that needs the behaviour policy refuses it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from verbal.types import Attempt, Message, Step, Task

__all__ = [
    "HINT", "Span", "Trace", "hints_in", "keep_mask", "spread", "step_trace", "text_of", "trace_of", "turn", "turns",
]  # fmt: skip

HINT = re.compile(r"<hint\b[^>]*>(.*?)</hint>", re.DOTALL)
"""A reflection as prompts show it."""


class Span(NamedTuple):
    """Characters of one message of the prompt that a model saw, kept in the row's prompt or discarded."""

    message: int
    start: int
    end: int
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What was recorded of a row's words."""

    token_ids: tuple[int, ...] | None = None
    """Tokens of the completion as sampled; None where only text was kept, or the completion is not all of it."""
    logprobs: tuple[float, ...] | None = None
    """Behaviour log-probabilities of `token_ids`, nats; None unless they were sampled under the row's own prompt."""
    off_policy: str = ""
    """Why the words are no sample from the row's prompt with known probability; "" where they are."""
    mask: tuple[Span, ...] = ()
    """The prompt that was seen, kept and discarded spans in order; empty where nothing was discarded."""

    def record(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "off_policy": self.off_policy,
            "token_ids": list(self.token_ids) if self.token_ids is not None else None,
            "logprobs": list(self.logprobs) if self.logprobs is not None else None,
            "mask": [span._asdict() for span in self.mask],
        }


def turn(attempt: Attempt) -> Step | None:
    """The last turn of the policy as solver, or None."""
    return next((s for s in reversed(attempt.steps) if s.author == "policy" and s.role == "solver"), None)


def turns(attempt: Attempt) -> Iterator[tuple[int, Step, list[dict[str, str]]]]:
    """(place among all steps, turn of the policy as solver, what was said before it) of an attempt."""
    before: list[dict[str, str]] = []
    for at, step in enumerate(attempt.steps):
        if step.author == "policy" and step.role == "solver" and step.text.strip():
            yield at, step, list(before)
            before.append({"role": "assistant", "content": step.text})
            if step.observation:
                before.append({"role": "user", "content": step.observation})


def spread(attempt: Attempt) -> bool:
    """Whether an answer is what several turns came to (a conversation, moves): no turn is the answer by itself."""
    last = turn(attempt)
    return last is not None and attempt.answer.strip() not in last.text and sum(1 for _ in turns(attempt)) > 1


def hints_in(step: Step) -> set[str]:
    """The texts of the hints the model was shown."""
    return {h.strip() for m in step.prompt for h in HINT.findall(m.content)} - {""}


def text_of(messages: Sequence[Message]) -> str:
    """Messages as JSON text, as TRL takes them."""
    return json.dumps([{"role": m.role, "content": m.content} for m in messages], ensure_ascii=False)


def keep_mask(seen: Sequence[Message], own: Sequence[Message]) -> tuple[Span, ...]:
    """Which characters of the prompt that was seen the task's own prompt has as well, by whole lines.

    Spans cover every message of `seen` from start to end, kept and discarded in turn; a message that the task's own
    prompt has no counterpart for (a later turn) is discarded as a whole. Empty where nothing is discarded.
    """
    spans: list[Span] = []
    for i, message in enumerate(seen):
        lines = message.content.splitlines(keepends=True)
        other = own[i].content.splitlines(keepends=True) if i < len(own) and own[i].role == message.role else []
        kept = [False] * len(lines)
        for block in difflib.SequenceMatcher(None, lines, other, autojunk=False).get_matching_blocks():
            kept[block.a : block.a + block.size] = [True] * block.size
        at = 0
        for line, keep in zip(lines, kept, strict=True):
            if spans and spans[-1].message == i and spans[-1].keep == keep:
                spans[-1] = spans[-1]._replace(end=at + len(line))
            else:
                spans.append(Span(i, at, at + len(line), keep))
            at += len(line)
    return tuple(spans) if any(not span.keep for span in spans) else ()


def trace_of(attempt: Attempt, task: Task, completion: str) -> Trace:
    """What was recorded of the completion that an attempt gave, for a row under the task's own prompt."""
    turns = [s for s in attempt.steps if s.author == "policy" and s.role == "solver"]
    if not turns:
        return Trace(off_policy="no turn was recorded")
    mask = keep_mask(turns[-1].prompt, task.messages)
    why = "it stood after other turns" if len(turns) > 1 else ""
    why = why or ("" if completion == turns[-1].text.strip() else "it was cut out of its reply")
    if not why and not turns[-1].prompt:
        why = "the prompt it was sampled under was not recorded"
    if not why and text_of(turns[-1].prompt) != text_of(task.messages):
        why = "it was sampled under another prompt (hints or earlier tries)"
    return step_trace(turns[-1], why, mask, whole=completion == turns[-1].text.strip())


def step_trace(step: Step, why: str = "", mask: tuple[Span, ...] = (), *, whole: bool = True) -> Trace:
    """What was recorded of a step; `why` it is off-policy whatever was recorded, `whole`: its text is the row's."""
    ids = step.token_ids if whole else None
    if ids is None:
        return Trace(off_policy=why or "text only: no token ids were recorded", mask=mask)
    if step.logprobs is None or len(step.logprobs) != len(ids):
        return Trace(token_ids=ids, off_policy=why or "no log-probabilities were recorded", mask=mask)
    return Trace(token_ids=ids, logprobs=None if why else step.logprobs, off_policy=why, mask=mask)
