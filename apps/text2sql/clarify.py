"""What a question names in the database, how its candidate queries differ, and when to answer, ask back or abstain.

Rules, all over the candidates of one question (samples of one prompt):

* Candidates with the same result are one reading: rows in any order, columns in any order. A reading that shows the
  columns of another and some more, row for row, is no other reading.
* Ask back: the second reading has at least two candidates and at least `CLOSE` times as many as the first, both give
  rows, and their words differ.
* Abstain: no candidate runs; or no word of the question is found in the schema, the cells or the lessons shown, and at
  most `SCATTERED` of the candidates agree or the result is empty. (Words alone would not do: a model knows synonyms,
  and then agrees.)
* Abstain too: words of the question name tables or columns (by `linking.py`, or by a cell, misspelled ones too), but
  none of the tables that the chosen query reads, and no lesson is in play. A condition or an order on a column that no
  word speaks of, in a table that no word names, is answered and told in the limits (`used.py`).

Nothing here asks a model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from verbal.contracts import Observation
from verbal.rows import column_bags, fingerprint, normal
from verbal.types import Attempt, Reflection

from .explain import explain, readable
from .used import untied
from .values import Database

CLOSE = 0.6
"""Votes of the second reading over those of the first from which on it is asked: 3 to 2 is close, 3 to 1 is not."""
SCATTERED = 0.8
"""Share of the candidates up to which they do not agree enough to be believed without a word that is found: 4 of 5."""

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_PLAIN_WORDS = """
a about above after all also am an and any are as at average be been before below between both but by can could count
did different distinct do does each either else every few find first for from get give had has have having highest how
i if in into is it its last latest least less like list lowest many max maximum me mean min minimum more most much my
name names no not number of off on one only or order ordered other our out over per please return same show sort
sorted some such sum tell than that the their them then there these they this those three to top total two under up
us was we were what when where which while who whom whose why will with within without would you your
"""
_PLAIN = frozenset(_PLAIN_WORDS.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """What the words of a question name, found before any model is asked."""

    tables: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """As `table.column`."""
    values: tuple[str, ...] = ()
    """Cells, as `'France' in singer.Country`."""
    lessons: tuple[str, ...] = ()
    """Words found in the lessons that are shown."""
    unknown: tuple[str, ...] = ()
    """Words that are found nowhere."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Stem of a word -> columns and cells it names, where it names no table."""
    question: str = ""
    database: Database | None = field(default=None, repr=False, compare=False)
    """Where it was looked; None where nobody did."""

    @property
    def linked(self) -> bool:
        """Whether any word was found."""
        return bool(self.tables or self.columns or self.values or self.lessons)

    @property
    def text(self) -> str:
        """In words, for a person; empty where nobody looked, or there was no word to look for."""
        parts = [f"{n}: {', '.join(found[:6])}" for n in ("tables", "columns", "values") if (found := getattr(self, n))]
        parts += [f"not found in the database: {', '.join(self.unknown[:8])}"] if self.unknown else []
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {n: list(getattr(self, n)) for n in ("tables", "columns", "values", "lessons", "unknown")}


def understand(question: str, database: Database, lessons: Sequence[Reflection] = ()) -> Understood:
    """What a question names: tables and columns by their words, cells by the database's index, terms by lessons."""
    words = {w.casefold(): w for w in _WORD.findall(question) if not w.isdigit()}
    content = {stem(low): word for low, word in words.items() if low not in _PLAIN and len(low) > 1}
    cells = database.values([question])
    in_cells = {stem(w.casefold()) for cell in cells for w in _WORD.findall(cell.text)}
    taught = {stem(w.casefold()) for r in lessons for w in _WORD.findall(f"{r.text} {r.when}")}
    # A word such as `name` says something only where a column is called so, and never that the schema is meant.
    asked = {stem(low) for low in words}
    tables, columns, known = [], [], set[str]()
    places: dict[str, list[str]] = {}
    tables_named = {key for table in database.tables for key in _named(table.name, content)}
    for table in database.tables:
        if found := _named(table.name, content):
            tables.append(table.name)
            known |= found
        for column in table.columns:
            found = _named(column.name, content)
            # `customers` names the table; a key of it is not meant for that.
            if found and (found - tables_named or found == _parts(column.name)):
                columns.append((len(found) < len(_parts(column.name) - asked), f"{table.name}.{column.name}"))
                known |= found
                for key in found - tables_named:
                    places.setdefault(key, []).append(columns[-1][1])
    for cell in cells:
        for key in {stem(w.casefold()) for w in _WORD.findall(cell.text)} & content.keys() - known:
            places.setdefault(key, []).append(str(cell))
    fresh = {key: word for key, word in content.items() if key not in known and key not in in_cells}
    return Understood(
        tables=tuple(tables), columns=tuple(name for _, name in sorted(columns, key=lambda c: c[0])),
        values=tuple(str(cell) for cell in cells),
        lessons=tuple(word for key, word in fresh.items() if key in taught),
        unknown=tuple(word for key, word in fresh.items() if key not in taught),
        words={key: tuple(found) for key, found in places.items()}, question=question, database=database,
    )  # fmt: skip


def names_word(name: str, key: str) -> bool:
    """Whether a name or a text holds a word, given by its stem."""
    return bool(_named(name, {key: key}))


def _named(name: str, content: Mapping[str, str]) -> set[str]:
    """Words of the question that stand in a name."""
    parts = _parts(name)
    return {key for key in content if key in parts or any(_akin(key, part) for part in parts)}


@lru_cache(maxsize=8192)
def _parts(name: str) -> frozenset[str]:
    return frozenset({*(stem(part.casefold()) for part in readable(name).split()), stem(name.casefold())})


def _akin(one: str, other: str) -> bool:
    """Whether two stems are forms of one word: `length` and `lengthy`, not `state` and `station`."""
    short, long = sorted((one, other), key=len)
    return len(short) >= 4 and long.startswith(short) and len(long) - len(short) <= 3


def stem(word: str) -> str:
    """A word without the ending of its plural.

    >>> [stem(w) for w in ("countries", "matches", "cities", "status", "bus", "albums")]
    ['country', 'match', 'city', 'status', 'bus', 'album']
    """
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Candidates with one result."""

    number: int
    """From 1, the chosen one first."""
    sql: str
    attempt: str
    """Id of the attempt that stands for it."""
    votes: int
    of: int
    """Candidates in all."""
    words: str
    """What the query does."""
    observation: Observation = field(repr=False)

    @property
    def rows(self) -> int:
        """Rows of its result."""
        return int(self.observation.info.get("row_count", 0))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the first rows."""
        info = self.observation.info
        return {
            "number": self.number, "sql": self.sql, "words": self.words, "votes": self.votes, "of": self.of,
            "attempt": self.attempt, "columns": info.get("columns", []), "rows": info.get("rows", [])[:20],
            "row_count": self.rows, "says": self.observation.text,
        }  # fmt: skip


def readings(
    attempts: Sequence[Attempt], seen: Mapping[str, Observation], chosen: str, dialect: str = "sqlite"
) -> list[Reading]:
    """The readings of candidates that run: the one of the chosen attempt first, then by votes, then as they came."""
    groups: dict[Any, list[Attempt]] = {}
    prints: dict[str, Any] = {}  # equal queries are looked at once, for results may be long
    for attempt in attempts:
        found = seen.get(attempt.id)
        if found is not None and attempt.answer and not found.info.get("error"):
            if attempt.answer not in prints:
                prints[attempt.answer] = fingerprint(found.info)
            groups.setdefault(prints[attempt.answer], []).append(attempt)
    first = next((key for key, group in groups.items() if chosen in [a.id for a in group]), None)
    order = sorted(groups.items(), key=lambda kv: (kv[0] != first, -len(kv[1])))
    made = []
    for number, (_, group) in enumerate(order, 1):
        head = next((a for a in group if a.id == chosen), group[0])
        made.append(
            Reading(
                number=number, sql=head.answer, attempt=head.id, votes=len(group), of=len(attempts),
                words=explain(head.answer, dialect), observation=seen[head.id],
            )
        )  # fmt: skip
    return made


def other_readings(found: Sequence[Reading]) -> list[Reading]:
    """The readings between which a person has to choose; fewer than two where the answer is clear."""
    if len(found) < 2 or not found[0].rows:
        return list(found[:1])
    first, close = found[0], [found[0]]
    for other in found[1:]:
        few = other.votes < 2 or other.votes < CLOSE * first.votes
        said = {reading.words or reading.sql for reading in close}
        if few or not other.rows or (other.words or other.sql) in said:
            continue
        if not any(_shows_more(other.observation, reading.observation) for reading in close):
            close.append(other)
    return close


def abstention(
    attempts: Sequence[Attempt], seen: Mapping[str, Observation], found: Sequence[Reading], named: Understood
) -> str:
    """Why a question is not answered, or an empty text."""
    if not found:
        errors = Counter(str(seen[a.id].info.get("error") or "no query") for a in attempts if a.id in seen)
        told = f": {errors.most_common(1)[0][0]}" if errors else ""
        return f"none of {len(attempts)} candidate queries runs on this database{told}"
    if named.linked:
        return _elsewhere(found[0], named)
    most, none = max(r.votes for r in found), "no word of the question is found in this database, and"
    if most <= SCATTERED * len(attempts):
        return f"{none} the candidate queries do not agree ({most} of {len(attempts)} at most)"
    return "" if found[0].rows else f"{none} the query gives no row"


def _elsewhere(chosen: Reading, named: Understood) -> str:
    """Why a query about something else than the question is no answer."""
    if named.database is None or named.lessons:
        return ""
    _, wholly = untied(named.question, chosen.sql, named.database, named.database.dialect)
    return "the question speaks of none of the tables that the query reads" if wholly else ""


def same_result(one: Observation, other: Observation) -> bool:
    """Whether two results are the same: rows and columns in any order. What failed has none."""
    return (first := fingerprint(one.info)) is not None and first == fingerprint(other.info)


def _shows_more(one: Observation, other: Observation) -> bool:
    """Whether one of two results has the columns of the other and more."""
    if one.info.get("row_count") != other.info.get("row_count"):
        return False
    sides = [
        Counter(column_bags(normal(seen.info.get("rows", ())), len(seen.info.get("columns", ()))))
        for seen in (one, other)
    ]
    return sides[0] <= sides[1] or sides[1] <= sides[0]


__all__ = [
    "CLOSE", "SCATTERED", "Reading", "Understood", "abstention", "names_word", "other_readings", "readings",
    "same_result", "stem", "understand",
]  # fmt: skip
