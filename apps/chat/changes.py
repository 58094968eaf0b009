"""Words that change a lesson as a whole: forget it, only for, also for, not for; and which words say something."""

from __future__ import annotations

import re
from collections.abc import Sequence

from verbal.parts import load_function
from verbal.types import Reflection

from .turn import Understanding

WHEN = r"(?:when(?:ever)?|wen|wehn|whne|every ?time|each time|any ?time|if|while)"
"""What a situation begins with, also mistyped."""
_SIGN = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff]")
_SMALL = "keep doing do don t never stop avoid alway please ok okay thank hi hello hey sorry great nice good oh well it"
_EMPTY = frozenset(_SMALL.split())
_OF_FORM = frozenset(("list", "number", "few"))


def change(text: str, about: str, known: Sequence[Reflection] | None) -> Understanding | None:
    """A message that as a whole changes a lesson: forget it (`*`: all), only for, also for, not for; None if none.

    Without `known` any lesson may be meant (the gate).
    """
    said = " ".join(text.split())
    if len(said) > 200 or said.endswith("?"):
        return None
    said = clean(re.sub(r"^(?:(?:please|ok(?:ay)?|and|but|no|hm+)[\s,.:;-]+)+", "", said, flags=re.IGNORECASE))
    place = rf"(?:{WHEN}|for|in|with|to|on)"
    if found := re.fullmatch(
        r"forget (?:(?P<last>that|it|this)(?: (?:one|rule|lesson|again))?|(?:what i (?:said|told you) about|"
        r"the (?:rule|lesson|thing|one) (?:about|on|with|for)|about) (?P<what>.+)|"
        r"(?:my|the|your) (?P<named>.+) (?:rule|lesson|wish)|(?P<all>(?:all|everything)(?: of (?:it|that|them)|"
        r" (?:that )?(?:i (?:ever )?(?:said|told you|taught you)|you (?:have )?learned)|"
        r" (?:my|the|your) (?:rules|lessons|wishes))?))",
        said,
        re.IGNORECASE,
    ):
        target = about if found["last"] or known is None else _about(found["what"] or found["named"] or "", known)
        target = "*" if found["all"] else target
        named = bool(found["what"] or found["named"]) and not said.lower().startswith("forget about")
        # Of no lesson: that is told, for a model would say that it forgot.
        return Understanding(kind="forget", about=target) if target or named else None
    if not about:
        return None
    if re.fullmatch(r"(?:always|everywhere|in general|for everything|in all (?:chats|cases))", said, re.IGNORECASE):
        return Understanding(kind="widen", about=about)
    for kind, lead in (
        ("when", rf"(?:that(?:'s|’s| is)? |apply (?:that|it) )?(?:only|just) {place}"),
        ("also", rf"(?:also|(?:the )?same(?: goes| holds| applies)?) {place}"),
        ("boundary", rf"(?:not {place}|except(?: {place})?|unless(?: it(?:'s|’s| is))?)"),
    ):
        if found := re.fullmatch(rf"{lead} (?P<where>.+)", said, re.IGNORECASE):
            where = clean(found["where"])
            if not says_something(where):
                return None
            if kind == "boundary":
                return Understanding(kind="narrow", about=about, boundary=where)
            return Understanding(kind="narrow" if kind == "when" else "widen", about=about, when=where)
    return None


def _about(words: str, known: Sequence[Reflection]) -> str:
    """Id of the one lesson that some words name best, or an empty text."""
    wanted = set(telling(words))
    shared = {r.id: len(wanted & set(telling(f"{r.text} {r.when}"))) for r in known if r.status != "retired"}
    best = max(shared.values(), default=0)
    top = [i for i, n in shared.items() if n == best]
    return top[-1] if best and len(top) == 1 else ""


def clean(text: str) -> str:
    """A phrase without what only makes it polite, or ends it."""
    return re.sub(
        r"^(?:please|pl[sz]|then)\b[\s,]*|(?:[\s,;:.!]+(?:please|pl[sz]|any ?more|any longer|always))?[\s,;:.!]*$",
        "",
        text.strip(),
        flags=re.IGNORECASE,
    ).strip()


def telling(text: str) -> list[str]:
    """The words of a text that say something: those of the house's search, and of form, which say little of a database.

    >>> telling("No lists in the mails"), telling("as many as you want")
    (['list', 'mail'], ['want'])
    """
    kept = _OF_FORM.union(load_function("memory", "words", "informative")(text))
    return [w for w in load_function("memory", "words", "words")(text) if w in kept]


def says_something(text: str) -> bool:
    """Whether some words, or a sign such as an emoji, say what is wanted, beside that something is."""
    return bool(set(telling(text)) - _EMPTY or _SIGN.search(text))


__all__ = ["WHEN", "change", "clean", "says_something", "telling"]
