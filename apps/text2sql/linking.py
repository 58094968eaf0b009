"""Schema linking: which tables and columns a question is about, ranked, from words alone (no model).

Names are split into words, written out (`cust_addr`) and brought to their base form; a word of the question speaks of a
word in a name when it is the same, of the same family, a synonym, a misspelling, or a piece of a compound. Rare words
count more (inverse document frequency, Spärck Jones 1972). Cells that the question mentions point to their columns, and
a table gains from its neighbours along foreign keys, so that tables which only join others are found.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from verbal.errors import ConfigError
from verbal.models.embedded.lexicon import ABBREVIATIONS, ASKING, CLOSED, SYNONYMS, noun, root, stem
from verbal.models.embedded.words import atoms, identifier_words

from .compact import Rendering, render, tokens
from .schema import Table

if TYPE_CHECKING:
    from .values import Cell, Database

TABLES = 8
"""Tables that count as linked, if not said otherwise."""

COLUMNS = 40
"""Columns that count as linked, if not said otherwise."""

LADDER = ((TABLES, COLUMNS), (5, 15), (3, 8), (1, 3))
"""Tables and columns that count as linked in `fit`, each pair when the one before it does not fit."""

MOST_WORDS = 400
"""Words of a question that are looked at; a longer text is read up to there."""

# Strengths of a match, then shares of scores; tuned on Spider's train databases within schemas of 200 tables.
_FAMILY, _SYNONYM, _PIECE, _TYPO, _HINT, _ASKED = 0.75, 0.75, 0.5, 0.7, 0.7, 0.4
_CELL, _WHOLE, _NAME, _NEIGHBOUR, _BRIDGE, _GAIN = 3.0, 1.25, 1.5, 0.3, 0.4, 0.6
_CONTEXT, _SILENT, _KEY, _STRONG, _REFERENCE, _SPARE = 0.8, 0.75, 0.4, 0.5, 0.6, 0.6
_COLUMN_SHARES = (1.0, 0.6, 0.4)
_ENDING = re.compile(r"(?<=\w{3})(?:ings?|ed|ers?|ors?|es?|s)\Z")
_TYPO_CUTOFF = 86.0


@dataclass(frozen=True, slots=True)
class TableScore:
    """A table and how much a question is about it (0 or more, only comparable within one question)."""

    table: str
    score: float


@dataclass(frozen=True, slots=True)
class ColumnScore:
    """A column and how much a question is about it."""

    table: str
    column: str
    score: float


@dataclass(frozen=True, slots=True)
class Linked:
    """What a question is about: all tables and columns, best first, and how many of them count as linked."""

    tables: tuple[TableScore, ...]
    columns: tuple[ColumnScore, ...]
    cells: tuple[Cell, ...] = ()
    """Cells that the question mentions."""
    table_count: int = TABLES
    column_count: int = COLUMNS

    @property
    def kept_tables(self) -> frozenset[str]:
        """Tables that a budget never drops."""
        return frozenset(score.table for score in self.tables[: self.table_count])

    @property
    def kept_columns(self) -> frozenset[tuple[str, str]]:
        """(table, column) that a budget never drops: the best of the kept tables, and those of the cells."""
        kept = self.kept_tables
        best = [(c.table, c.column) for c in self.columns if c.table in kept and c.score > 0]
        return frozenset(best[: self.column_count]) | {(c.table, c.column) for c in self.cells if c.table in kept}


def link(
    database: Database,
    question: str,
    tables: Sequence[Table] | None = None,
    *,
    hints: Iterable[str] = (),
    cells: Sequence[Cell] | None = None,
    table_count: int = TABLES,
    column_count: int = COLUMNS,
) -> Linked:
    """Tables and columns of a database by how much a question is about them.

    Args:
        database: Where cells are looked up.
        question: Any text; empty means that nothing is linked better than anything else.
        tables: What may be linked; None is all of the database.
        hints: Lessons that go with the question; their words count less.
        cells: Cells that the question mentions; None looks them up, misspelled ones too.
        table_count: Tables that count as linked.
        column_count: Columns that count as linked.
    """
    found = database.values([question], fuzzy=True) if cells is None else cells
    linker = database.linker if tables is None else Linker(tables)
    return linker.link(question, found, hints=hints, table_count=table_count, column_count=column_count)


def fit(
    database: Database,
    question: str,
    budget: int,
    *,
    hints: Iterable[str] = (),
    cells: Sequence[Cell] | None = None,
) -> Rendering:
    """The schema as one text of at most `budget` tokens: in full where it fits, else compact around the question.

    Where not even what is linked fits, less of it counts as linked (`LADDER`): the best tables and columns stay.

    Args:
        database: Whose schema.
        question: What it is for.
        budget: Tokens at most, as `compact.tokens` counts them.
        hints: Lessons that go with the question.
        cells: As for `link`.

    Raises:
        ConfigError: the best table with its keys and three columns does not fit.
    """
    if (size := tokens(database.schema)) <= budget:
        columns = frozenset((table.name, column.name) for table in database.tables for column in table.columns)
        return Rendering(database.schema, size, (), columns, frozenset(table.name for table in database.tables))
    tables = database.linker.tables
    linked = link(database, question, hints=hints, cells=cells)
    for table_count, column_count in LADDER[:-1]:
        try:
            counts = replace(linked, table_count=table_count, column_count=column_count)
            return render(tables, budget=budget, linked=counts)
        except ConfigError:
            continue
    table_count, column_count = LADDER[-1]
    return render(tables, budget=budget, linked=replace(linked, table_count=table_count, column_count=column_count))


@dataclass(slots=True)
class _Name:
    words: tuple[str, ...]
    weight: float = 0.0
    """Root of the sum of its words' weights."""


@dataclass(slots=True)
class _Vocabulary:
    """The words of all names, and how each may be met."""

    weights: dict[str, float] = field(default_factory=dict)
    roots: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    long: list[str] = field(default_factory=list)


class Linker:
    """Links questions to one list of tables; the words of their names are prepared once."""

    def __init__(self, tables: Sequence[Table]) -> None:
        """Splits and weighs the names of `tables`."""
        self.tables = self._tables = tuple(tables)
        self._names = [_Name(_words(table.name)) for table in tables]
        self._columns = [[_Name(_own_words(_words(c.name), n.words)) for c in t.columns]
                         for t, n in zip(tables, self._names, strict=True)]  # fmt: skip
        self._away = [{name for key in t.foreign_keys for name in key.columns} for t in tables]
        self._vocabulary = self._weighed()
        self._holders: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for i, (own, names) in enumerate(zip(self._names, self._columns, strict=True)):
            for j, name in enumerate([own, *names], start=-1):
                for word in name.words:
                    self._holders[word].add((i, j))
        self._inside = [{word for name in (own, *names) for word in name.words}
                        for own, names in zip(self._names, self._columns, strict=True)]  # fmt: skip
        self._place = place = {table.name: i for i, table in enumerate(tables)}
        self._near: list[set[int]] = [set() for _ in tables]
        for i, table in enumerate(tables):
            for key in table.foreign_keys:
                if (j := place.get(key.target, i)) != i:
                    self._near[i].add(j)
                    self._near[j].add(i)

    def link(
        self,
        question: str,
        cells: Sequence[Cell] = (),
        *,
        hints: Iterable[str] = (),
        table_count: int = TABLES,
        column_count: int = COLUMNS,
    ) -> Linked:
        """See `link`."""
        met = self._met(_asked(question), 1.0)
        for hint in hints:
            for word, strength in self._met(_asked(hint), _HINT).items():
                met[word] = max(met.get(word, 0.0), strength)
        hits = _hits(cells)
        named, columns = self._scored(met, hits)
        scores = [
            _NAME * own + _best([score * (_REFERENCE if c.name in away else 1.0)
                                 for c, score in zip(table.columns, inside, strict=True)])
            for own, inside, table, away in zip(named, columns, self._tables, self._away, strict=True)
        ]  # fmt: skip
        totals = self._spread(scores, met)
        ranked = sorted(range(len(totals)), key=lambda i: (-totals[i], i))
        best = set(ranked[:table_count])
        joins = {i: self._joins(i, best) for i in best}
        flat = [
            ColumnScore(table.name, column.name, score + totals[i] * (_CONTEXT if score else _SILENT) +
                        (_KEY * totals[i] if column.name in joins.get(i, ()) else 0.0))
            for i, table in enumerate(self._tables)
            for column, score in zip(table.columns, columns[i], strict=True)
        ]  # fmt: skip
        order = {table.name: rank for rank, table in enumerate(self._tables[i] for i in ranked)}
        return Linked(
            tuple(TableScore(self._tables[i].name, totals[i]) for i in ranked),
            tuple(sorted(flat, key=lambda c: (-c.score, order[c.table]))),
            tuple(cells),
            table_count,
            column_count,
        )

    def named(self, text: str, cells: Sequence[Cell] = ()) -> tuple[set[str], set[tuple[str, str]]]:
        """Tables whose name a text speaks of, and (table, column) by name or by a cell: nothing by neighbourhood."""
        own, columns = self._scored(self._met(_asked(text), 1.0), _hits(cells))
        tables = {table.name for table, score in zip(self._tables, own, strict=True) if score}
        inside = zip(self._tables, columns, strict=True)
        return tables, {(t.name, c.name) for t, scores in inside for c, s in zip(t.columns, scores, strict=True) if s}

    def _scored(
        self, met: Mapping[str, float], hits: Mapping[tuple[str, str], float]
    ) -> tuple[list[float], list[list[float]]]:
        """What the names of tables and of columns score by themselves, and columns by their cells."""
        named, columns = [0.0] * len(self._tables), [[0.0] * len(names) for names in self._columns]
        for i, j in {place for word in met for place in self._holders[word]}:
            if j < 0:
                named[i] = self._score(self._names[i], met)
            else:
                columns[i][j] = self._score(self._columns[i][j], met)
        for (table, column), score in hits.items():
            if (at := self._place.get(table)) is not None:
                for j, one in enumerate(self._tables[at].columns):
                    columns[at][j] += score if one.name == column else 0.0
        return named, columns

    def _weighed(self) -> _Vocabulary:
        names = [*self._names, *(name for inside in self._columns for name in inside)]
        seen = Counter(word for name in names for word in set(name.words))
        found = _Vocabulary({word: math.log(1 + len(names) / count) for word, count in seen.items()})
        for word in seen:
            for base in _bases(word):
                found.roots[base].append(word)
        found.long = [word for word in seen if len(word) >= 5]
        for name in names:
            name.weight = math.sqrt(sum(found.weights[word] for word in set(name.words))) or 1.0
        return found

    def _met(self, words: Sequence[str], strength: float) -> dict[str, float]:
        """Word of a name -> how surely the text speaks of it."""
        vocabulary, met = self._vocabulary, dict[str, float]()

        def note(word: str, value: float, said: str) -> None:
            value *= strength * (_ASKED if said in ASKING else 1.0)
            met[word] = max(met.get(word, 0.0), value)

        pairs = ["".join(pair) for pair in pairwise(words)]
        unknown = []
        for word in dict.fromkeys([*words, *pairs]):
            kin = [other for base in _bases(word) for other in vocabulary.roots.get(base, ())]
            for other in kin:
                note(other, 1.0 if other == word else _FAMILY, word)
            if not kin and len(word) >= 5:
                unknown.append(word)
        for word in dict.fromkeys(words):
            for other in SYNONYMS.get(word, ()):
                if other in vocabulary.weights:
                    note(other, _SYNONYM * (_SPARE if word in vocabulary.weights else 1.0), word)
            if len(word) >= 4:
                for other in vocabulary.long:
                    if word != other and (word in other or (len(other) >= 5 and other in word)):
                        note(other, _PIECE, word)
        for word, other in _typos(unknown, vocabulary.long):
            note(other, _TYPO, word)
        return met

    def _score(self, name: _Name, met: Mapping[str, float]) -> float:
        parts = [(self._vocabulary.weights[word], met.get(word, 0.0)) for word in set(name.words)]
        if not any(strength for _, strength in parts):
            return 0.0
        total = sum(weight * strength for weight, strength in parts) / name.weight
        return total * (_WHOLE if all(strength >= _FAMILY for _, strength in parts) else 1.0)

    def _spread(self, scores: Sequence[float], met: Mapping[str, float]) -> list[float]:
        """Scores with what comes along foreign keys: from the best neighbour, for joining two, for what it lacks."""
        totals = []
        for i, own in enumerate(scores):
            near = sorted(self._near[i], key=lambda j: (-scores[j], j))[:2]
            if not near:
                totals.append(own)
                continue
            bridge = _BRIDGE * scores[near[1]] if len(near) > 1 else 0.0
            lacking = self._inside[i] - self._inside[near[0]]
            gain = sum(self._vocabulary.weights[word] * met[word] for word in lacking & met.keys())
            gain = math.sqrt(gain) * _GAIN if scores[near[0]] >= _STRONG * max(scores) else 0.0
            totals.append(own + _NEIGHBOUR * scores[near[0]] + bridge + gain)
        return totals

    def _joins(self, i: int, best: set[int]) -> set[str]:
        """Columns by which table `i` joins another of the best."""
        found = set()
        for j in best:
            for key in self._tables[j].foreign_keys:
                if j == i and self._place.get(key.target) in best:
                    found |= set(key.columns)
                elif j != i and self._place.get(key.target) == i:
                    found |= set(key.target_columns)
        return found


def _typos(words: Sequence[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of an unknown word and the known word that it misspells."""
    if not words or not known:
        return []
    from rapidfuzz import fuzz, process

    return [
        (word, found[0])
        for word in words
        if (found := process.extractOne(word, known, scorer=fuzz.ratio, score_cutoff=_TYPO_CUTOFF)) is not None
    ]


def _bases(word: str) -> set[str]:
    """What words of one family share: `rated` and `rating`, `follower` and `follow`."""
    return {word, root(word), stem(word), _ENDING.sub("", word)}


def _words(name: str) -> tuple[str, ...]:
    words = identifier_words(name)
    return tuple(word for word in words if word not in CLOSED) or words or (name.casefold(),)


def _own_words(words: tuple[str, ...], table: tuple[str, ...]) -> tuple[str, ...]:
    """A column's words without those of its table, where others remain (`customer_name` in customer: name)."""
    own = tuple(word for word in words if word not in table)
    return own or words


def _asked(text: str) -> list[str]:
    """The words of a text that can speak of a name, in base form."""
    found: list[str] = []
    for atom in atoms(text[: MOST_WORDS * 12])[:MOST_WORDS]:
        word = noun(atom.surface.lower()) if atom.kind == "word" else ""
        if word and word not in CLOSED:
            found.extend(ABBREVIATIONS.get(word, (word,)))
    return found


def _hits(cells: Sequence[Cell]) -> dict[tuple[str, str], float]:
    """(table, column) -> what the cells found there count; less where one text occurs in many columns."""
    places: dict[str, set[tuple[str, str]]] = {}
    for cell in cells:
        places.setdefault(cell.text.casefold(), set()).add((cell.table, cell.column))
    found: dict[tuple[str, str], float] = {}
    for where in places.values():
        for place in where:
            found[place] = max(found.get(place, 0.0), _CELL / math.sqrt(len(where)))
    return found


def _best(scores: Sequence[float]) -> float:
    best = sorted(scores, reverse=True)[: len(_COLUMN_SHARES)]
    return sum(share * score for share, score in zip(_COLUMN_SHARES, best, strict=False))
