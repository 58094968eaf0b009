"""What may be shown: the filter against irrelevant items, boundaries, rank fusion, what fits together. No I/O.

The filter matters: a small model that answered 90.7 % right with the right hint fell to 40.7 % with two irrelevant
ones beside it, and came back to 90.0 % when hints that share no telling word with the question were dropped.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from verbal.types import Reflection

from .log import said
from .words import informative, split_term

TERM_WORDS = 4
"""A term has at most this many informative words."""

_RANK_CONSTANT = 60
_LEAST_TOKENS = 3
_CLAUSE = re.compile(r"[;\n]|[,.](?=\s|$)|\bor\b", re.IGNORECASE)
_FRAME = frozenset(("apply", "except", "unless", "never", "avoid", "question", "query", "request", "task", "case"))
"""Words by which a boundary says that it is one; they say nothing of where it lies."""


class KeyWords:
    """Tells whether an item is about a query, by the words it is filed under.

    A text like `term means definition` is filed under its term alone. An item that somebody taught with a situation in
    a few words (`when`) is filed under that and its title: its text shares words with much that it is not about
    (bench/scope.py: answers changed near its scope 90 % of the time with the text as a key, 16 % without). Any other
    item has up to three keys, `when`, `title` and the text; the `when` of one drawn from a task is that task's
    question, an example and no situation.

    It is relevant when one key shares at least `min_overlap` informative words with the query and, where the key is a
    term (a short title counts as one), when those words carry at least `min_coverage` of its
    weight. A word that files many items weighs little, and the last word of a term half, because it names the thing
    while the others say which: "customer" does not call up what an "active customer" is, "active clients" does.

    Args:
        min_overlap: Words to share; 0 switches the filter off.
        min_coverage: Share of a term's weight, 0 to 1.
        common: Further words that say nothing here, such as the names of tables.
    """

    def __init__(self, min_overlap: int = 1, min_coverage: float = 0.5, common: Sequence[str] = ()) -> None:
        self.min_overlap, self._min_coverage = min_overlap, min_coverage
        self._common = {w for text in common for w in informative(text)}
        self._keys: dict[str, list[_Key]] = {}
        self._files: Counter[str] = Counter()

    def put(self, item: Reflection) -> None:
        """Adds or replaces an item."""
        self.drop(item.id)
        if term := split_term(item.text):
            filed = [(term[0], True)]
        elif item.task is None and 0 < len(informative(item.when)) <= TERM_WORDS:
            filed = [(item.title, True), (item.when, True)]
        else:
            filed = [(item.title, True), (item.when, False), (item.text, False)]
        read = [(informative(text), is_term) for text, is_term in filed]
        self._keys[item.id] = [self._key(found, is_term) for found, is_term in read if found]
        self._files.update(self._words(item.id))

    def drop(self, item_id: str) -> None:
        """Forgets an item (an unknown id is ignored)."""
        for word in self._words(item_id):
            self._files[word] -= 1
            if not self._files[word]:
                del self._files[word]
        self._keys.pop(item_id, None)

    def relevant(self, query: str, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that are about the query."""
        asked = set(informative(query))
        return {i for i in ids if any(self._covers(asked, key) for key in self._keys.get(i, ()))}

    def first(self, query: str, ranked: Iterable[str], n: int) -> list[str]:
        """The first `n` of some ranked ids that are about the query; no more of them are looked at than that takes."""
        asked, found = set(informative(query)), list[str]()
        for item_id in ranked if n > 0 else ():
            for key in self._keys.get(item_id, ()):
                if self._covers(asked, key):
                    found.append(item_id)
                    break
            if len(found) == n:
                break
        return found

    def _key(self, found: list[str], is_term: bool) -> _Key:
        # A key made of common words only would never be found, so it keeps them.
        kept = [w for w in found if w not in self._common] or found
        head, is_term = kept[-1] if len(kept) > 1 else "", is_term and len(kept) <= TERM_WORDS
        return _Key(tuple(dict.fromkeys(kept)), head, is_term)

    def _covers(self, asked: set[str], key: _Key) -> bool:
        if self.min_overlap == 1 and not key.is_term:  # nearly all keys are so, and nearly all time goes here
            return not asked.isdisjoint(key.words)
        shared = asked.intersection(key.words)
        if len(shared) < min(self.min_overlap, len(key.words)):
            return False
        if not key.is_term:
            return True
        weight = {
            w: math.log(1 + len(self._keys) / self._files[w]) * (0.5 if w == key.head else 1.0) for w in key.words
        }
        return math.fsum(weight[w] for w in shared) >= self._min_coverage * math.fsum(weight.values()) - 1e-9

    def _words(self, item_id: str) -> set[str]:
        return {w for key in self._keys.get(item_id, ()) for w in key.words}


class _Key(NamedTuple):
    words: tuple[str, ...]
    """Each once. A set of so few takes ten times the memory."""
    head: str
    is_term: bool


def full_text(item: Reflection) -> str:
    """The words under which an item is embedded and scored."""
    return "\n".join(part for part in (item.title, item.when, item.text) if part)


def fuse(rankings: Sequence[Sequence[str]]) -> list[str]:
    """Ids of several rankings in one, best first, ties by id.

    score(i) = sum over rankings of 1 / (60 + rank of i).

    Source: Cormack, Clarke and Buettcher 2009, Reciprocal rank fusion.
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, item_id in enumerate(ranking, 1):
            scores[item_id] = scores.get(item_id, 0.0) + 1 / (_RANK_CONSTANT + rank)
    return sorted(scores, key=lambda i: (-round(scores[i], 12), i))


def tokens(item: Reflection) -> int:
    """About how many tokens an item takes in a prompt: a token for four bytes of its words."""
    return (_bytes(item.title) + _bytes(item.when) + _bytes(item.text) + _bytes(item.boundary) + 12) // 4


def together(items: Iterable[Reflection], k: int, cap: int | None) -> list[Reflection]:
    """The first `k` items that can stand in one prompt.

    Passed over are: one that does not fit under `cap` tokens with those before it; one that says what another says
    already; and one that contradicts another (`Reflection.rival`; two rivals of one item contradict each other too).
    """
    kept: list[Reflection] = []
    left = math.inf if cap is None else cap
    words: set[tuple[str, ...]] = set()
    ids: set[str] = set()
    rivals: set[str] = set()
    for item in items:
        if len(kept) >= k or left < _LEAST_TOKENS:
            break
        contradicted = item.id in rivals or (item.rival and (item.rival in ids or item.rival in rivals))
        if (size := tokens(item)) > left or contradicted or said(item) in words:
            continue
        kept.append(item)
        left -= size
        words.add(said(item))
        ids.add(item.id)
        rivals |= {item.rival} - {""}
    return kept


def out_of_bounds(item: Reflection, asked: Collection[str]) -> bool:
    """Whether a query lies where an item must not be applied, by its `boundary`; never for an item without one.

    The boundary is read clause by clause (`;`, `,`, `.`, lines, `or`). With C the informative words of a clause, K
    those of one of the item's keys (its term, or title, and `when`) and Q those of the query, let b = |C and Q| / |C|
    and w the largest |K and Q| / |K|. The query is out of bounds when for some clause b > 1/2, and either b > w, or
    b = w and Q has a word of C that no key has. So half a clause is not enough ("a mail to my friend" for "mails to my
    boss"), a query that fits `when` better is in bounds, and what fits both alike is not: a lesson applied in the wrong
    place costs more than one that is missed.

    Args:
        item: The item.
        asked: The informative words of the query.
    """
    if not item.boundary:
        return False
    clauses, keys = _bounds(item.boundary, item.text[:200], item.title, item.when)
    asked = frozenset(asked)
    if not any(clause & asked for clause in clauses):
        return False
    fit = max((len(key & asked) / len(key) for key in keys), default=0.0)
    for clause in clauses:
        share = len(clause & asked) / len(clause)
        if share > 0.5 and (share > fit or (share == fit and (clause & asked).difference(*keys))):
            return True
    return False


@lru_cache(maxsize=8192)
def _bounds(boundary: str, text: str, title: str, when: str) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    """The words of a boundary's clauses, and of an item's keys."""
    term = split_term(text)
    clauses = [frozenset(informative(clause)) - _FRAME for clause in _CLAUSE.split(boundary)]
    keys = [frozenset(informative(key)) for key in (term[0] if term else title, when)]
    return [c for c in clauses if c], [k for k in keys if k]


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
