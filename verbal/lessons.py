"""What a reflector's reply teaches: its lessons, and what it says of the hints that were shown.

A reply is read line by line:

    TITLE: a few words                     (optional)
    WHEN: in which situation               (optional)
    NOT FOR: where it must not be applied  (optional)
    HINT: the lesson, on one line
    TAGS: r3 helpful, r5 harmful           (optional, of the whole reply)

TITLE, WHEN and NOT FOR belong to the HINT they stand around; a field that is there already, or an empty line after a
HINT, begins the next lesson. Other lines are thinking aloud and are passed over, and so is what stands in <think> tags.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from verbal.types import MemoryOp

MAX_LESSONS = 20
"""Lessons of one reply that are read; a reply that repeats itself for ever ends there."""
MAX_CHARACTERS = 600
"""Of a lesson; a longer one is no lesson, and is passed over."""

_FIELD = re.compile(r"^[ \t>*#.\d-]*(hint|title|when|not[ _]for|tags)\**[ \t]*:\**[ \t]*(.*)$", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"([\w.-]+)[ \t:=]+(helpful|harmful|neutral)", re.IGNORECASE)
_NOTHING = ("", "none", "n/a", "-")


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson of a reply; `text` is empty in a reply that only tags."""

    text: str
    title: str = ""
    when: str = ""
    boundary: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    """(id, `helpful` | `harmful` | `neutral`) of the hints that were shown; they stand on the reply's first lesson."""


def read_lessons(text: str) -> tuple[Lesson, ...]:
    """The lessons of a reply, in order; none when it follows no known form or says `HINT: none`.

    >>> read_lessons("HINT: subtract refunds once.")[0].text
    'subtract refunds once.'
    """
    blocks: list[dict[str, str]] = [{}]
    tags: list[str] = []
    for line in _THOUGHT.sub("\n", text).splitlines():
        if not (found := _FIELD.match(line)):
            if not line.strip() and "hint" in blocks[-1]:
                blocks.append({})
            continue
        name, said = re.sub("[ _]", "_", found[1].lower()), " ".join(found[2].strip().strip("*").split())
        if name == "tags":
            tags.append(said)
            continue
        if name in blocks[-1]:
            blocks.append({})
        blocks[-1][name] = said
    lessons = [_lesson(b) for b in blocks if _teaches(b)][:MAX_LESSONS]
    if read := _tags(",".join(tags)):
        head = lessons[0] if lessons else Lesson("")
        lessons[:1] = [Lesson(head.text, head.title, head.when, head.boundary, read)]
    return tuple(lessons)


def tag_ops(said: Sequence[Lesson], cited: Collection[str], author: str = "reflector") -> list[MemoryOp]:
    """TAG `helped` or `harmed` for the hints that a reply calls helpful or harmful.

    Only ids that the solver itself cited count: a reflector that praises what nobody used counts nothing.

    Source: ACE, arXiv 2510.04618: counters change for the bullets that the generator names.
    """
    tags: dict[str, Literal["helped", "harmed"]] = {"helpful": "helped", "harmful": "harmed"}
    return [
        MemoryOp(op="TAG", reflection=id, tag=tags[word], reason=f"called {word}", author=author)
        for id, word in dict.fromkeys(pair for lesson in said for pair in lesson.tags)
        if id in cited and word in tags
    ]


def _teaches(block: dict[str, str]) -> bool:
    hint = block.get("hint", "")
    return hint.strip(" .").lower() not in _NOTHING and len(hint) <= MAX_CHARACTERS


def _lesson(block: dict[str, str]) -> Lesson:
    other = {k: v for k, v in block.items() if v.strip(" .").lower() not in _NOTHING and len(v) <= MAX_CHARACTERS}
    return Lesson(block["hint"], other.get("title", ""), other.get("when", ""), other.get("not_for", ""))


def _tags(text: str) -> tuple[tuple[str, str], ...]:
    """Each id once; one that is called both helpful and harmful is called nothing."""
    pairs = dict.fromkeys((id, cast(str, word).lower()) for id, word in _TAG.findall(text))
    words: dict[str, list[str]] = {}
    for id, word in pairs:
        words.setdefault(id, []).append(word)
    return tuple((id, said[0]) for id, said in words.items() if len(said) == 1)


__all__ = ["MAX_CHARACTERS", "MAX_LESSONS", "Lesson", "read_lessons", "tag_ops"]
