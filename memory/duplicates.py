"""Items that say the same, nearly the same, or the opposite: found in blocks, never by comparing all pairs.

Two items are compared when MinHash puts them in one block (64 hashes of the words and pairs of words, 16 bands of 4: at
a Jaccard similarity of 0.7 a pair is missed once in 80, at 0.8 once in 4,600) or when they define one term. What a
comparison says depends on the marks as well: two texts that differ in a number, a literal, a name such as `orders.id`
or a negation do not say the same, however alike their words are.

Source: Broder 1997, On the resemblance and containment of documents (MinHash); Indyk and Motwani 1998 (bands).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from verbal.types import Reflection

from .words import informative, split_term, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hashes: TypeAlias = NDArray[np.uint64]

LEAST = 0.7
"""Jaccard similarity of the words from which two texts count as near duplicates."""
SWAPPED = 0.8
"""The same for two texts of which each has words that the other lacks."""
_HASHES, _BAND = 64, 4
_WORDS = 4000  # of a text that are compared: enough to tell 100 kB texts apart
_CROWD = 24  # leaders of one block that a text is compared with; a block of unlike texts cannot cost more
_PRIME = np.uint64((1 << 31) - 1)
_NEGATIONS = frozenset(
    ("not", "no", "never", "without", "except", "exclude", "excluding", "unless", "isn", "aren", "don", "doesn", "didn",
     "shouldn", "cannot", "avoid", "nor", "neither", "none", "non")
)  # fmt: skip
_OPPOSITES = (
    ("asc", "desc"), ("ascending", "descending"), ("max", "min"), ("maximum", "minimum"), ("first", "last"),
    ("highest", "lowest"), ("include", "exclude"), ("including", "excluding"), ("before", "after"), ("above", "below"),
    ("left", "right"), ("more", "less"), ("greater", "smaller"), ("always", "never"), ("increase", "decrease"),
    ("earliest", "latest"), ("oldest", "newest"), ("enable", "disable"), ("true", "false"), ("gross", "net"),
    ("with", "without"), ("all", "none"), ("start", "end"), ("upper", "lower"), ("inner", "outer"), ("most", "least"),
    ("larger", "smaller"), ("on", "off"),
)  # fmt: skip
_SIDE = {word: (i, side) for i, pair in enumerate(_OPPOSITES) for side, word in enumerate(pair)}
_QUOTED = re.compile(r"('[^']*'|\"[^\"]*\"|`[^`]*`)")
# A name has a dot or an underscore in it. Possessive, and a plain word is eaten whole: linear in a hostile text.
_NUMBER = re.compile(r"\d++(?:[.,]\d++)*+")
_MARK = re.compile(
    r"[^\W\d](?:[^\W_]*+_\w++(?:\.\w++)*+|\w*+(?:\.\w++)++)"
    r"|(?P<plain>[^\W\d]\w*+(?:(?<=\d),\d++(?:[.,]\d++)*+)?)"
    rf"|'[^']*'|\"[^\"]*\"|{_NUMBER.pattern}|[<>!=]=?|[+*/%]"
)
_SPACE = re.compile(r"\s+")


class Alike(NamedTuple):
    """Two items and what their likeness is."""

    kind: str
    """`duplicate` (the same words), `near` (nearly), `contradiction`."""
    first: str
    """Id of the older one."""
    second: str
    likeness: float
    """Jaccard similarity of their words."""
    why: str = ""


def same_words(text: str) -> str:
    """A text without what does not change its meaning: case, blanks and closing signs, but in quotes, where all counts.

    >>> same_words("Paid means  Status = 'P'."), same_words("paid means status='P'")
    ("paidmeansstatus='P'", "paidmeansstatus='P'")
    """
    pieces = _QUOTED.split(text)
    return "".join(p if i % 2 else _SPACE.sub("", p.casefold()) for i, p in enumerate(pieces)).strip(".;!,")


def alike(items: Sequence[Reflection]) -> list[Alike]:
    """Pairs of items that say the same, nearly the same or the opposite, each with the older one first.

    An item is told once as a duplicate, with the oldest of its kind. Rivals (`Reflection.rival`) are left out: the
    memory knows that they contradict each other, and outcomes decide.
    """
    exact: dict[tuple[str, ...], Reflection] = {}
    found: list[Alike] = []
    kept: list[Reflection] = []
    for item in items:
        key = (item.polarity, *map(same_words, (item.text, item.when, item.boundary)))
        if (first := exact.setdefault(key, item)) is item:
            kept.append(item)
        else:
            found.append(Alike("duplicate", first.id, item.id, 1.0))
    told = [_Told(item) for item in kept]
    signatures = _signatures([t.features for t in told])
    gone: set[int] = set()
    opposed: set[int] = set()  # an item that contradicts a dozen others is told once
    for i, j in itertools.chain(_blocks(signatures, told), _terms(told)):
        if (
            i in gone
            or j in gone
            or told[i].item.id in _rivals(told[j].item)
            or told[j].item.id in _rivals(told[i].item)
        ):
            continue
        pair = _compared(told[i], told[j])
        if pair is not None and pair.kind == "near":
            found.append(pair)
            gone.add(j)
        elif pair is not None and j not in opposed:
            found.append(pair)
            opposed.add(j)
    return found


def _marks(text: str) -> Iterator[str]:
    """Names such as `orders.id`, literals, numbers and operators of a text."""
    for mark in _MARK.finditer(text):
        if mark["plain"]:
            yield from _NUMBER.findall(mark[0])
        else:
            yield mark[0]


class _Told:
    """What an item says, taken apart once."""

    def __init__(self, item: Reflection) -> None:
        self.item = item
        text = item.text[: 8 * _WORDS]
        found = words(text)[:_WORDS]
        kept = [w for w in informative(text) if w not in _NEGATIONS][:_WORDS]
        self.words = frozenset(kept)
        self.features = frozenset([*kept, *map(" ".join, itertools.pairwise(kept))]) or frozenset(found or [text])
        self.marks = tuple(sorted(_marks(text.casefold())))
        self.negations = sum(w in _NEGATIONS for w in found)
        self.sides: dict[int, set[int]] = {}
        for word in found:
            if place := _SIDE.get(word):
                self.sides.setdefault(place[0], set()).add(place[1])
        self.term = split_term(text) if len(text) < 2000 else None
        self.key = tuple(sorted(informative(self.term[0]) or words(self.term[0]))) if self.term else ()


def _rivals(item: Reflection) -> set[str]:
    return {item.rival} - {""}


def _compared(a: _Told, b: _Told) -> Alike | None:
    """What two items have to do with each other, or None when it is nothing."""
    first, second = a.item.id, b.item.id
    shared = len(a.words & b.words)
    likeness = shared / (len(a.words | b.words) or 1)
    if a.key and a.key == b.key and a.item.when == b.item.when:
        if not _same_scope(a.item, b.item):
            return None
        assert a.term and b.term
        if a.marks and a.marks == b.marks and likeness < 0.5:
            return None  # one literal in two settings: `today means date('now') for orders`, and for visits
        if a.marks != b.marks or likeness < LEAST or a.negations % 2 != b.negations % 2:
            why = f"{a.term[0]!r} is defined in two ways"
            return Alike("contradiction", first, second, likeness, why)
        return Alike("near", first, second, likeness)
    if not _same_scope(a.item, b.item) or max(len(a.words), len(b.words)) < 3:
        return None
    opposed = [i for i in a.sides.keys() & b.sides.keys() if not a.sides[i] & b.sides[i]]
    without = {w for i in opposed for w in _OPPOSITES[i]}
    bare = _share(a.words - without, b.words - without)
    if bare >= 0.8 and a.marks == b.marks:
        if a.item.polarity != b.item.polarity and a.negations % 2 == b.negations % 2:
            return Alike("contradiction", first, second, bare, "one says do, the other avoid")
        if a.item.polarity == b.item.polarity and a.negations % 2 != b.negations % 2:
            return Alike("contradiction", first, second, bare, "one says the other's words with a negation")
        if a.item.polarity == b.item.polarity and len(opposed) == 1:
            pair = " and ".join(_OPPOSITES[opposed[0]])
            return Alike("contradiction", first, second, bare, f"alike but for {pair}")
    alike_enough = likeness >= LEAST and not opposed and a.marks == b.marks and a.negations % 2 == b.negations % 2
    # A word in place of another says another thing more often than a word that was added.
    swapped = bool(a.words - b.words) and bool(b.words - a.words)
    if alike_enough and a.item.polarity == b.item.polarity and (not swapped or likeness >= SWAPPED):
        return Alike("near", first, second, likeness)
    return None


def _share(a: frozenset[str] | set[str], b: frozenset[str] | set[str]) -> float:
    return len(a & b) / (len(a | b) or 1)


def _same_scope(a: Reflection, b: Reflection) -> bool:
    """Whether two items can meet in one prompt as equals; what holds for one task only may differ from another's."""
    return (
        a.scope == b.scope
        and (a.scope != "task" or a.task == b.task)
        and same_words(a.boundary) == same_words(b.boundary)
    )


def _blocks(signatures: Hashes, told: Sequence[_Told]) -> Iterator[tuple[int, int]]:
    """Pairs of places that share a band, each once, older first; in a crowd with the leaders of the block only."""
    seen: set[tuple[int, int]] = set()
    for start in range(0, _HASHES, _BAND):
        blocks: dict[bytes, list[int]] = {}
        rows = np.ascontiguousarray(signatures[:, start : start + _BAND])
        for place in range(len(told)):
            leaders = blocks.setdefault(rows[place].tobytes(), [])
            for leader in leaders:
                if (leader, place) not in seen:
                    seen.add((leader, place))
                    yield leader, place
            if len(leaders) < _CROWD:
                leaders.append(place)


def _terms(told: Sequence[_Told]) -> Iterator[tuple[int, int]]:
    """Pairs that define the same term."""
    blocks: dict[tuple[str, ...], list[int]] = {}
    for place, one in enumerate(told):
        if one.key:
            leaders = blocks.setdefault(one.key, [])
            yield from ((leader, place) for leader in leaders)
            if len(leaders) < _CROWD:
                leaders.append(place)


def _signatures(features: Iterable[frozenset[str]]) -> Hashes:
    """The smallest of each of the hashes over the features of each text; shape (texts, _HASHES)."""
    rng = np.random.Generator(np.random.PCG64(20))
    a = rng.integers(1, int(_PRIME), _HASHES, dtype=np.uint64)
    b = rng.integers(0, int(_PRIME), _HASHES, dtype=np.uint64)
    rows = []
    for own in features:
        x = np.fromiter((_hash(f) for f in own), dtype=np.uint64, count=len(own))
        rows.append(((a[:, None] * x[None, :] + b[:, None]) % _PRIME).min(axis=1))
    return np.array(rows, dtype=np.uint64).reshape(-1, _HASHES)


@lru_cache(maxsize=1 << 16)
def _hash(feature: str) -> int:
    digest = hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


__all__ = ["LEAST", "Alike", "alike", "same_words"]
