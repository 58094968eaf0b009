"""Worked examples for a prompt: train questions that are asked alike and whose queries have a like skeleton.

A question is compared without its schema words and cells (`<mask>`, `<value>`), a query without names and literals, so
that examples of other databases fit as well. With a preliminary query those whose skeleton is near it come first; in
either class the questions decide. Only train questions are held, and for a question of the train split all that share
its words or, on its database, its gold query are left out.

Source: DAIL-SQL, arXiv 2308.15363: masked question similarity, then query similarity above a threshold; examples are
shown as question and query without a schema.
Differs: weighted words and word pairs stand for an embedding of the masked question.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from verbal.errors import ConfigError
from verbal.models.embedded.lexicon import CLOSED, noun
from verbal.models.embedded.words import identifier_words
from verbal.types import Task

from .questions import read_questions

if TYPE_CHECKING:
    from .values import Database

NEAR = 0.85
"""Similarity of two skeletons from which on an example comes first (the paper's threshold)."""

_WORDS = """
all and asc between by case cast cross desc distinct else end except exists from full glob group having in inner
intersect is join left like limit natural not null offset on or order outer over partition right select then union
using when where with
"""
_KEYWORDS = {*_WORDS.upper().split(), "GROUP BY", "ORDER BY", "PARTITION BY"}
_NAME = re.compile(r"[^\W\d]\w*")
_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d.,:-]*|\w+")


@dataclass(frozen=True, slots=True)
class Shot:
    """A train question and its query."""

    id: str
    db: str
    question: str
    sql: str


class Examples:
    """Train questions by their likeness to a question."""

    def __init__(self, shots: Sequence[Shot], database: Callable[[str], Database]) -> None:
        """`database`: opens what a shot was asked of, for its schema words and cells.

        Raises:
            ConfigError: there are no shots.
        """
        if not shots:
            todo = "give app option examples_from, a file whose train questions have queries"
            raise ConfigError("there is no train question with a query to take examples from", todo=todo)
        self._shots, self._database = {s.id: s for s in shots}, database
        bags = {s.id: _bag(masked(s.question, database(s.db))) for s in shots}
        seen = Counter(term for bag in bags.values() for term in bag)
        self._rarity = {term: 1 + math.log(len(shots) / count) for term, count in seen.items()}
        self._vectors = {id: self._unit(bag) for id, bag in bags.items()}
        self._keys = {s.id: (_folded(s.question), s.db, _folded(s.sql)) for s in shots}
        self._shapes: dict[str, list[str]] | None = None
        self._where: dict[str, list[str]] = {}
        for id, bag in bags.items():
            for term in bag:
                self._where.setdefault(term, []).append(id)

    @classmethod
    def of(cls, tasks: Sequence[Task], database: Callable[[str], Database]) -> Examples:
        """Those of the train split that have gold; the gold of any other split is never read."""
        train = [t for t in tasks if t.split == "train" and t.gold]
        return cls(
            [Shot(t.id, str(t.info["db"]), str(t.info["question"]), t.gold or "") for t in train], database
        )  # fmt: skip

    @classmethod
    def read(cls, file: Path, database: Callable[[str], Database], db: str | None = None) -> Examples:
        """The same of a questions file (`questions.py`).

        Raises:
            DataError: the file cannot be read. ConfigError: it holds no train question with a query.
        """
        train = [q for q in read_questions(file, db) if q.split == "train" and q.sql]
        return cls([Shot(q.id, str(q.db), q.text, q.sql or "") for q in train], database)

    def near(self, task: Task, k: int, preliminary: str | None = None) -> list[Shot]:
        """The `k` best examples for a task, the best last (next to the question); ties by id.

        Args:
            task: Its gold is not looked at.
            k: Examples at most.
            preliminary: A first query for the task, perhaps wrong.
        """
        question = str(task.info["question"])
        vector = self._unit(_bag(masked(question, self._database(str(task.info["db"])))))
        likeness: dict[str, float] = {}
        for term, weight in vector.items():
            for id in self._where.get(term, ()):
                likeness[id] = likeness.get(id, 0.0) + weight * self._vectors[id][term]
        near, hidden = self._near(preliminary) if preliminary else set(), self._hidden(task)
        ranked = heapq.nsmallest(
            k,
            (id for id in self._shots if id not in hidden),
            key=lambda id: (id not in near, -likeness.get(id, 0.0), id),
        )
        return [self._shots[id] for id in ranked][::-1]

    def _near(self, preliminary: str) -> set[str]:
        """Examples whose skeleton is near that of a query."""
        shape = skeleton(preliminary)
        if self._shapes is None:
            self._shapes = {}
            for shot in self._shots.values():
                self._shapes.setdefault(skeleton(shot.sql), []).append(shot.id)
        return {id for other, ids in self._shapes.items() if shape and overlap(shape, other) >= NEAR for id in ids}

    def _hidden(self, task: Task) -> set[str]:
        """What would give the answer away: the task itself, its words, and on its database its gold query."""
        own = self._keys.get(task.id)
        words, db = _folded(str(task.info["question"])), str(task.info["db"])
        return {
            id
            for id, (asked, where, gold) in self._keys.items()
            if id == task.id or asked == words or (own is not None and where == db and gold == own[2])
        }

    def _unit(self, bag: Counter[str]) -> dict[str, float]:
        weights = {term: count * self._rarity[term] for term, count in bag.items() if term in self._rarity}
        length = math.sqrt(sum(w * w for w in weights.values())) or 1.0
        return {term: w / length for term, w in weights.items()}


def masked(question: str, database: Database) -> list[str]:
    """The words of a question in base form, with `<mask>` for schema words and `<value>` for cells and numbers."""
    names = {w for t in database.tables for n in (t.name, *(c.name for c in t.columns)) for w in identifier_words(n)}
    cells = {w for cell in database.values([question]) for w in _TOKEN.findall(cell.text.casefold())}
    found: list[str] = []
    for token in _TOKEN.findall(question.casefold()):
        if token[0] in "'\"" or token[0].isdigit() or (token in cells and token not in CLOSED):
            word = "<value>"
        else:
            word = noun(token)
            word = "<mask>" if word in names and word not in CLOSED else word
        if not (found and word == found[-1] and word[0] == "<"):  # a name of several words is one mask
            found.append(word)
    return found


@lru_cache(maxsize=16_384)
def skeleton(sql: str) -> str:
    """A query without its names and literals; one that cannot be read as tokens is empty.

    >>> skeleton("select T1.name from head as T1 where T1.date > 56 and count(*) = 'x'")
    'SELECT _ FROM _ WHERE _ > ? AND COUNT ( * ) = ?'
    """
    import sqlglot
    from sqlglot import TokenType
    from sqlglot.errors import SqlglotError

    try:
        tokens = [t for t in sqlglot.tokenize(sql, read="sqlite") if t.token_type is not TokenType.SEMICOLON]
    except SqlglotError:
        return ""
    found: list[str] = []
    for token, follows in zip(tokens, [*(t.text for t in tokens[1:]), ""], strict=False):
        text, quoted = token.text.upper(), token.token_type is TokenType.IDENTIFIER
        if token.token_type in (TokenType.STRING, TokenType.NUMBER):
            found.append("?")
        elif text in (".", "AS") and not quoted:
            continue
        elif not quoted and (text in _KEYWORDS or follows == "(" or not _NAME.match(text)):
            found.append(text)
        elif not found or found[-1] not in ("_", "?", ")", "END"):  # `a.b`, `a AS b` and `a b` are one name
            found.append("_")
    return " ".join(found)


def overlap(first: str, second: str) -> float:
    """How alike two skeletons are: Jaccard similarity of their tokens and pairs of tokens, counted. Range: [0, 1]."""
    a, b = _pieces(first), _pieces(second)
    return sum((a & b).values()) / (sum((a | b).values()) or 1)


@lru_cache(maxsize=16_384)
def _pieces(shape: str) -> Counter[str]:
    return _bag(shape.split())


def _bag(words: Sequence[str]) -> Counter[str]:
    return Counter([*words, *(f"{a} {b}" for a, b in pairwise(words))])


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+|[^\w\s]", text.casefold())).rstrip("; .?!")
