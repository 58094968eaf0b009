"""What a person's edit of an answer teaches, by rule: a few changes of form that hold for the next answer too.

A change of facts teaches nothing; where no rule fits, nothing is made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .turn import Understanding
from .understanding import situation

_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55]")
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*")
_MARK = re.compile(r"!")
_GREETING = re.compile(r"\A\s*(?:dear|hi|hello|hey|good (?:morning|afternoon|evening))\b", re.IGNORECASE)
_SHORTER, _LONGER, _LEAST = 0.6, 1.6, 20

_RULES: tuple[tuple[Callable[[str], object], str, str], ...] = (
    (_EMOJI.search, "no emojis", "use emojis"),
    (_BULLET.search, "no lists", "write it as a list"),
    (_HEADING.search, "no headings", "use headings"),
    (_BOLD.search, "no bold text", ""),
    (_MARK.search, "no exclamation marks", ""),
    (_GREETING.search, "no greeting at the beginning", "begin with a greeting"),
)
"""What a text has or has not; the lesson when it went, and when it came."""


def edit_lesson(asked: str, before: str, after: str) -> Understanding:
    """The lesson of an edit, about requests like the one that was asked; kind `none` when no rule fits.

    >>> edit_lesson("write a mail to my boss", "Done! 🎉", "Done!").lesson
    'no emojis'
    """
    found = []
    for has, went, came in _RULES:
        if has(before) and not has(after):
            found.append(went)
        elif has(after) and not has(before) and came:
            found.append(came)
    one, other = len(before.split()), len(after.split())
    if one >= _LEAST and other <= _SHORTER * one:
        found.append(f"keep it to about {max(5, round(other, -1))} words")
    elif one >= _LEAST // 2 and other >= _LONGER * one:
        found.append("more detail")
    if not found:
        return Understanding(kind="none")
    where = situation(asked) or " ".join(asked.split())[:120]
    bans = all(wish.startswith("no ") for wish in found)
    return Understanding(kind="teach", lesson=", ".join(found), when=where, polarity="avoid" if bans else "do")


__all__ = ["edit_lesson"]
