"""What a reflector's reply teaches."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson of a reply."""

    text: str
    title: str = ""
    when: str = ""
    boundary: str = ""
    tags: tuple[tuple[str, str], ...] = ()


def read_lessons(text: str) -> tuple[Lesson, ...]:
    """The lessons of a reply, in order; none when it follows no known form."""
    return tuple(Lesson(m.strip()) for m in re.findall(r"^HINT:(.+)$", text, re.MULTILINE))
