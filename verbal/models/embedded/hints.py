"""Hints in words: which term a hint explains, and where a text speaks of it.

A hint goes into the question right behind its term, in brackets; a hint whose term the question does not use is left
out. So the model never has to find out which of several hints matters.
"""

from __future__ import annotations

import re
from dataclasses import replace
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
        r"^(?:an? |the )?(?P<term>[^=<>]+?) (?:is|are) (?:one|those|the ones?) (?:where|whose|with|that|which|when) "
        r"(?P<body>.+)$",
        r"^(?:an? )?[^=<>]+? (?:is|are) (?:called |considered )?(?P<term>[^=<>]+?) (?:when|if) (?P<body>.+)$",
        r"^(?P<term>[^=<>!]+?) = (?P<body>.+)$",
        r"^(?:the |an? )?(?P<term>.+?) (?:is|are) (?:one |those |the ones? )?(?P<body>.+)$",
        r"^(?P<term>.+?) (?P<body>have .+|has .+|with .+)$",
    )
)


_LEAD = re.compile(r"^(?:the )?(?:column|table|rows of)(?: the)? (?=\S+$)", re.IGNORECASE)


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
    found: list[tuple[frozenset[int], int, str]] = []
    for hint in hints:
        term, body = split_hint(hint)
        start = 0
        while term and (places := _places(question, term, names, start)):
            found.append((frozenset(places[0]), places[1], _LEAD.sub("", body)))
            start = places[1] + 1
    kept = [
        one for rank, one in enumerate(found)
        if not any(one[0] < other[0] or (one[0] == other[0] and at < rank) for at, other in enumerate(found))
    ]  # fmt: skip
    explained = {place for places, _, _ in kept for place in places}
    result: list[Atom] = []
    for place, atom in enumerate(question):
        result.append(replace(atom, explained=True) if place in explained else atom)
        for _, last, body in kept:
            if last == place:
                result += [Atom("mark", "("), *atoms(body), Atom("mark", ")")]
    return tuple(result)


def _places(question: tuple[Atom, ...], term: str, names: frozenset[str], start: int) -> tuple[list[int], int] | None:
    """Where the question, from `start` on, says a term's own words, and its last word; None where one is missing."""
    words = [atom.stem or atom.surface.lower() for atom in atoms(term)]
    words = [word for word in words if word not in CLOSED and word.isalnum()]
    stems = [atom.stem or stem(atom.surface.lower()) for atom in question]
    places: list[int] = []
    for word in [word for word in words if word not in names] or words:
        exact = [place for place, other in enumerate(stems) if other == word and place >= start]
        near = exact or [
            place for place, other in enumerate(stems) if place >= start and len(word) > 4 and root(other) == root(word)
        ]
        if not near:
            return None
        places.append(min(near, key=lambda place: abs(place - places[-1])) if places else near[0])
    last = max(places, default=-1)
    while places and last + 1 < len(stems) and stems[last + 1] in words and stems[last + 1] in names:
        last += 1
    return (places, last) if places else None
