"""Words of a text, as retrieval and curation see them: folded, stemmed a little, stop words apart. No I/O.

`term means definition` is the usual form of a learned business term; `split_term` reads it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_STOP = """
a about above after again all also am an and any are as at be been before being below between both but by can
could did do does doing down during each every few find for from further get give had has have having he her here
him his how i if in into is it its itself just let list many me mean more most much must my no nor not now number
of off on once only or other our out over please return same she should show so some such tell than that the their
them then there these they this those through to too under until up us use used using very was we were what when
where which while who whom whose why will with would you your
"""

STOP_WORDS = frozenset(_STOP.split())
"""English words that say little about what a question or a lesson is about."""

_WORD = re.compile(r"[^\W_]+")
_TERM = re.compile(
    r"^\W*(?P<term>[^.;:=]{1,60}?)\s+(?:means|is defined as|stands for|refers to)\s+(?P<definition>\S.*)$", re.DOTALL
)


def words(text: str) -> list[str]:
    """The words of `text` in order, stop words included; Chinese, Japanese and Korean runs become pairs of characters.

    >>> words("Active CUSTOMERS (user_name)")
    ['active', 'customer', 'user', 'name']
    """
    text = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return [part for word in _WORD.findall(text) for part in _folded(word)]


def informative(text: str) -> list[str]:
    """The words of `text` in order, without stop words."""
    return list(_informative(text))


def split_term(text: str) -> tuple[str, str] | None:
    """(term, definition) of a text of the form `term means definition`, else None.

    >>> split_term("active customer means status = 'A'")
    ('active customer', "status = 'A'")
    """
    match = _TERM.match(text.strip())
    return (match["term"].strip(), match["definition"].strip()) if match else None


@lru_cache(maxsize=64)
def _informative(text: str) -> tuple[str, ...]:  # an item, and a query, is read by several in turn
    return tuple(w for w in words(text) if w not in STOP_WORDS)


@lru_cache(maxsize=65536)
def _folded(word: str) -> tuple[str, ...]:
    if len(word) > 2 and not word.isascii() and any(0x2E80 <= ord(c) <= 0xD7FF for c in word):
        return tuple(word[i : i + 2] for i in range(len(word) - 1))
    return (_stem(word),)


def _stem(word: str) -> str:
    """`word` in the singular, roughly: retrieval only needs both sides to fold alike."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
