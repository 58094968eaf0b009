"""What the agent says of lessons in its own words: what it understood, where that applies and where it does not."""

from __future__ import annotations

import re

from verbal.types import Reflection

from .turn import Understanding

_TURNED = {
    "my": "your", "your": "my", "mine": "yours", "yours": "mine", "me": "you", "i": "you", "i'm": "you are",
    "i’m": "you are", "am": "are", "myself": "yourself", "yourself": "myself",
}  # fmt: skip
_AFTER = (
    "to",
    "for",
    "with",
    "at",
    "of",
    "from",
    "about",
    "ask",
    "asks",
    "tell",
    "tells",
    "give",
    "gives",
    "if",
    "when",
)
_WORDS = 7
_SCOPES = {"user": "", "team": "your team's ", "global": "everybody's "}


def says(read: Understanding, item: Reflection | None, alias: str, *, known: bool = False) -> str:
    """What the person is told of feedback that was understood.

    Args:
        read: What was understood.
        item: The lesson as it is now.
        alias: How the person may call it.
        known: Whether it was known already.
    """
    if item is None:
        return "There is no lesson that this could be about, so nothing was changed."
    if read.kind == "forget":
        return f"Forgotten ({alias}): {item.text}. To have it back: undo."
    lead = {"narrow": "Narrowed", "widen": "Widened"}.get(read.kind, "Noted")
    if known:
        lead = "You told me before"
    return f"{lead} ({alias}): {_ended(item.text)} {applies(item)}"


def applies(item: Reflection) -> str:
    """When a lesson applies and where it does not, said to the person who taught it.

    >>> applies(Reflection(id="r1", text="no emojis", when="you write to my boss"))
    'It holds when I write to your boss, and nowhere else.'
    """
    bound = f", but not {_place(item.boundary)}" if item.boundary else ""
    if item.when:
        return f"It holds {_place(item.when)}{bound}, and nowhere else."
    rest = "" if item.boundary else ' Say "only for ..." or "not when ..." to narrow it.'
    return f"It holds for every answer to you, in all conversations{bound}.{rest}"


def told(item: Reflection, alias: str, scope: str) -> str:
    """A lesson in one line, for a list."""
    when = f" | {_place(item.when)}" if item.when else ""
    bound = f" | not {_place(item.boundary)}" if item.boundary else ""
    return f"{alias} {_SCOPES.get(scope, '')}{item.text}{when}{bound}"


def turned(text: str) -> str:
    """A person's words as the other one says them.

    >>> turned("you write to my boss")
    'I write to your boss'
    """
    words, made = text.split(), list[str]()
    for at, word in enumerate(words):
        core = word.strip(".,;:!?()\"'")
        new = _TURNED.get(core.lower(), core)
        if core.lower() == "you":
            new = "me" if at and words[at - 1].lower() in _AFTER[:12] else "I"
        made.append(word.replace(core, new, 1) if core else word)
    return " ".join(made)


def _place(text: str) -> str:
    """`when I write to your boss`, `for mails to your boss`; several are joined by `or`."""
    parts = [p.strip() for p in re.split(r"[;\n]", text) if p.strip()]
    return " or ".join(map(_part, parts))


def _part(text: str) -> str:
    if re.match(r"(?:you|i|we|it|it's|it’s|there|someone|somebody|the \w+ \w+s)\b", text, re.IGNORECASE):
        return f"when {turned(text)}"
    if re.match(r"(?:write|writing|reply|replying|answer|talk|speak|translate|ask) ", text, re.IGNORECASE):
        return f"when I {turned(text)}"
    long = len(text.split()) > _WORDS or text.endswith("?")
    return f'for requests like "{text}"' if long else f"for {turned(text)}"


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


__all__ = ["applies", "says", "told", "turned"]
