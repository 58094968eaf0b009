"""Text to atoms: the smallest pieces the codec works on. Identifiers are split, words get their base form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from verbal.models.embedded.lexicon import ABBREVIATIONS, NUMBER_WORDS, noun, stem

_PIECE = re.compile(
    r"""(?P<quoted>(?<![^\W_])'(?:[^']|'')*'(?![^\W_])|(?<![^\W_])"[^"]*"(?![^\W_])|“[^”]*”|‘[^’]*’|`[^`]*`)
    |(?P<date>\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2})?)?)
    |(?P<number>(?<![\w.])-?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)|(?<![\w.])-?\d+(?:\.\d+)?(?:st|nd|rd|th)?(?![\w]))
    |(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)+)
    |(?P<word>\w+(?:['’]s\b)?)
    |(?P<mark><=|>=|!=|<>|[-+*/()<>=,:%])""",
    re.VERBOSE,
)
_NOT = re.compile(r"(?<=[a-z])n['’]t\b")
_FIRST_AND_LAST = re.compile(
    r"\b(first|last|given|family)( and | or |, )(first|last|given|family) (names?)\b", re.IGNORECASE
)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\dA-Za-z_]+|\d+")


@dataclass(frozen=True, slots=True)
class Atom:
    """One word, value or mark of a text."""

    kind: str
    """word, number, date, quoted or mark."""
    surface: str
    stem: str = ""
    """Base form of a word, empty for other kinds."""
    whole: str = ""
    """The identifier that the word was part of (`unit_price`), where it was one."""
    explained: bool = False
    """Whether a hint says what the word means."""


@lru_cache(maxsize=65536)
def identifier_words(name: str) -> tuple[str, ...]:
    """Base forms of the words in an identifier; short forms are written out (`cust_addr`: customer, address)."""
    found: list[str] = []
    whole = name.lower().strip("_")
    if whole in ABBREVIATIONS:
        return ABBREVIATIONS[whole]
    for part in _PARTS.findall(name):
        word = part.lower()
        found.extend(ABBREVIATIONS.get(word, (noun(word),)))
    return tuple(found)


@lru_cache(maxsize=4096)
def atoms(text: str) -> tuple[Atom, ...]:
    """The text's atoms in order; sentence marks other than the comma are dropped."""
    found: list[Atom] = []
    text = _FIRST_AND_LAST.sub(r"\1 \4\2\3 \4", _NOT.sub(" not", text))
    for match in _PIECE.finditer(text):
        kind, piece = str(match.lastgroup), match.group()
        if kind == "quoted":
            inner = piece[1:-1].strip()
            found.append(Atom("quoted", inner.replace("''", "'") if piece[0] == "'" else inner))
        elif kind in ("date", "mark"):
            found.append(Atom(kind, {"<>": "!="}.get(piece, piece)))
        elif kind == "number":
            ordinal = piece[-1].isalpha()
            number = (piece[:-2] if ordinal else piece).replace(",", "")
            found.append(Atom("number", number))
        else:
            found.extend(_word(piece))
    return tuple(found)


def _word(piece: str) -> list[Atom]:
    if piece.endswith(("'s", "’s")):
        piece = piece[:-2]
    lower = piece.lower()
    if lower in NUMBER_WORDS:
        return [Atom("number", NUMBER_WORDS[lower])]
    split = "_" in piece or "." in piece or (piece[1:] != piece[1:].lower() and not piece.isupper())
    if not split:
        return [Atom("word", piece, stem(lower))] if lower.strip("_") else []
    whole = [Atom("word", word, stem(word.lower()), piece) for word in _PARTS.findall(piece)]
    return whole or [Atom("word", piece, lower)]
