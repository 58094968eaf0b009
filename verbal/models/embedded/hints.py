"""Hints in words: which term a hint explains, and where a text speaks of it.

A hint goes into the question right behind its term, in brackets; a hint whose term the question does not use is left
out. So the model never has to find out which of several hints matters.
"""

from __future__ import annotations

import re
from functools import lru_cache

from verbal.models.embedded.lexicon import CLOSED, root, stem
from verbal.models.embedded.words import Atom, atoms

_BODY_FIRST = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^(?:please )?use (?P<body>.+?) (?:for|when asked (?:for|about)) (?P<term>.+)$",
        r"^filter (?:by|on|with|for)? ?(?P<body>.+?) (?:for|when asked (?:for|about)) (?P<term>.+)$",
    )
)
_TERM_FIRST = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^by (?P<term>.+?),? (?:we|i|they) mean (?P<body>.+)$",
        r"^(?:please )?(?:count|treat) (?:as )?(?P<term>.+?) (?:when|if|as|those where|where) (?P<body>.+)$",
        r"^(?:please )?(?:compute|calculate|define) (?P<term>.+?) (?:as|by|with) (?P<body>.+)$",
        r"^we call (?:an? )?\w+ (?P<term>.+?) (?:when|if) (?P<body>.+)$",
        r"^(?:an? |the )?(?P<term>.+?) (?:means?(?: that)?|stands? for|refers? to|(?:is|are) (?:defined|computed|"
        r"calculated|stored|kept|found|measured|given) (?:as|in|by)|(?:is|are) another (?:word|name) for|denotes?) "
        r"(?P<body>.+)$",
        r"^(?:an? |the )?(?P<term>[^:=]+?) ?: (?P<body>.+)$",
        r"^(?P<term>[^=<>!]+?) = (?P<body>.+)$",
        r"^(?:an? )?\w+ (?:is|are) (?P<term>.+?) (?:when|if) (?P<body>.+)$",
        r"^(?:the |an? )?(?P<term>.+?) (?:is|are) (?:one |those |the ones? )?(?P<body>.+)$",
        r"^(?P<term>.+?) (?P<body>have .+|has .+|with .+)$",
    )
)


@lru_cache(maxsize=4096)
def split_hint(hint: str) -> tuple[str, str]:
    """The term a hint explains and what it says of it; both empty when the hint defines nothing."""
    text = hint.strip().rstrip(".").strip()
    for pattern in (*_BODY_FIRST, *_TERM_FIRST):
        match = pattern.match(text)
        if match:
            return match["term"].strip(" '\"`,"), match["body"].strip()
    return "", ""


def insert_hints(question: tuple[Atom, ...], hints: tuple[str, ...], names: frozenset[str]) -> tuple[Atom, ...]:
    """The question's atoms with each hint's meaning in brackets behind the term it explains.

    Args:
        question: atoms of the question.
        hints: hints in words, best first; a second hint for the same words is left out.
        names: base forms of the words in table names; a term's other words must all be in the question.
    """
    found: list[tuple[int, frozenset[int], str]] = []
    for hint in hints:
        term, body = split_hint(hint)
        places = _places(question, term, names) if term else None
        if places:
            found.append((max(places), frozenset(places), body))
    kept = [
        one for place, one in enumerate(found)
        if not any(one[1] < other[1] or (one[1] == other[1] and rank < place) for rank, other in enumerate(found))
    ]  # fmt: skip
    result: list[Atom] = []
    for place, atom in enumerate(question):
        result.append(atom)
        for last, _, body in kept:
            if last == place:
                result += [Atom("mark", "("), *atoms(body), Atom("mark", ")")]
    return tuple(result)


def _places(question: tuple[Atom, ...], term: str, names: frozenset[str]) -> list[int] | None:
    words = [atom.stem or atom.surface.lower() for atom in atoms(term)]
    words = [word for word in words if word not in CLOSED and word.isalnum()]
    content = [word for word in words if word not in names] or words
    stems = [atom.stem or stem(atom.surface.lower()) for atom in question]
    places: list[int] = []
    for word in content:
        exact = [place for place, other in enumerate(stems) if other == word]
        near = exact or [place for place, other in enumerate(stems) if len(word) > 4 and root(other) == root(word)]
        if not near:
            return None
        places.append(min(near, key=lambda place: abs(place - places[-1])) if places else near[0])
    after = max(places) + 1 if places else 0
    while after < len(stems) and stems[after] in words and stems[after] in names:
        places.append(after)
        after += 1
    return places
