"""Cells of a database that a text mentions, found by an index over its text columns.

Exact mentions (but for case, punctuation and plural) come first and are all that is looked for by default, so that
prompts stay what they are; `fuzzy=True` adds near ones (`fuzzy.py`) for words that mention nothing exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .names import literal, quoted, shown
from .schema import SCANNED_ROWS, Table, read_tables, reading, schema_text

if TYPE_CHECKING:
    from .fuzzy import NearCells
    from .linking import Linker
    from .profile import Profile, Query

MOST_VALUES = 20_000
"""Different values indexed per column; a column with more is indexed in part."""

MOST_CELLS = 300_000
"""Cells indexed in all: a database with many text columns is indexed with fewer of each."""

LEAST_VALUES = 200
"""Different values that a column may always have, however many columns there are."""

_LONGEST = 60
_WORDS_AT_MOST = 8
_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"'((?:[^']|'')+)'|\"([^\"]+)\"|“([^”]+)”|‘([^’]+)’")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_COMMON_WORDS = """
a about all also an and any are as at average be been between both but by can count did different do does each every
few find for from get give had has have how i in is it its least less list many max maximum me mean min minimum more
most much my name no none not number of on one only or other our per show some sum tell than that the their them there
these they this those to total two us was we were what when where which who whose why will with without you your yes
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Cell:
    """A value and where it occurs."""

    text: str
    table: str
    column: str
    schema: str = ""
    dialect: str = "sqlite"

    def __str__(self) -> str:
        place = f"{shown(self.table, self.dialect, self.schema)}.{shown(self.column, self.dialect)}"
        return f"{literal(self.text)} in {place}"


class Database:
    """One database as prompts see it: its tables, their text and an index of its values."""

    def __init__(self, path: Path) -> None:
        """Reads the tables of an SQLite file now and the values when they are first needed.

        Raises:
            DataError: the file is missing, locked, not a database, or holds no table.
        """
        self.path = path
        self.mark: object = file_mark(path)
        self.tables = read_tables(path)
        self.dialect = "sqlite"
        self._begin(None)

    @classmethod
    def of(cls, location: str, profile: Profile, query: Query, mark: object = "") -> Database:
        """The same for any engine: from its profile (`profile.py`) and a function that runs queries on it."""
        made = cls.__new__(cls)
        made.path, made.mark, made.tables = Path(location), mark, profile.tables()
        made.dialect = profile.dialect
        made._begin(query)
        made._profile = profile
        return made

    def _begin(self, query: Query | None) -> None:
        self.schema = schema_text(self.tables)
        self._query = query
        self._index: dict[str, list[Cell]] | None = None
        self._sizes: Counter[tuple[str, str]] | None = None
        self._near: NearCells | None = None
        self._linker: Linker | None = None
        self._profile: Profile | None = None

    @property
    def profile(self) -> Profile:
        """What its columns hold, kept on disk from one process to the next.

        Raises:
            DataError: the database cannot be read any more.
        """
        if self._profile is None:
            from .profile import profile_file

            self._profile = profile_file(self.path)
        return self._profile

    @property
    def linker(self) -> Linker:
        """Links questions to its tables, keys that nobody declared included."""
        if self._linker is None:
            from .linking import Linker

            self._linker = Linker(self.profile.tables())
        return self._linker

    def values(self, texts: Iterable[str], limit: int = 12, *, fuzzy: bool = False) -> list[Cell]:
        """Cells that the texts mention, in order of mention, longest first where mentions overlap.

        Args:
            texts: Questions, hints, literals of queries.
            limit: Cells at most.
            fuzzy: Also cells that words come near to (misspelled, without accents, in another order), after all
                others and only for words that mention no cell exactly.
        """
        texts, index = list(texts), self._values()
        found: dict[Cell, None] = {}
        free: list[tuple[str, list[tuple[int, int]]]] = []
        for text in texts:
            mentions, covered = _mentions(text, index)
            free.append((text, covered))
            for cells in mentions:
                found.update(dict.fromkeys(_in_named_columns(cells, text)))
        if fuzzy and len(found) < limit:
            for text, covered in free:
                for cells in self._nearly().mentions(text, covered):
                    found.update(dict.fromkeys(_in_named_columns(cells, text)))
        return list(found)[:limit]

    def holds(self, table: str, column: str, text: str) -> bool | None:
        """Whether a cell of a text column is `text`, letter for letter; None where the index may lack it."""
        if not _key(text) or len(text) > _LONGEST or _DATE.match(text):
            return None
        index = self._values()
        if any((c.table, c.column, c.text) == (table, column, text) for c in index.get(_key(text), ())):
            return True
        if self._sizes is None:
            self._sizes = Counter((c.table, c.column) for cells in index.values() for c in cells)
        known = self._sizes[table, column]
        if not 0 < known < _share(self.tables):
            return None
        read = next((t for t in self.profile.profiles if t.name == table), None)
        return False if read is not None and read.whole else None

    def _values(self) -> dict[str, list[Cell]]:
        if self._index is None:
            self._index = _indexed(self.path, self.tables) if self._query is None else _asked(self._query, self)
        return self._index

    def _nearly(self) -> NearCells:
        if self._near is None:
            from .fuzzy import NearCells

            self._near = NearCells(self._values(), self.tables)
        return self._near


def file_mark(path: Path) -> tuple[int, int]:
    """Changes when the file does; (0, 0) for a file that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)


def _indexed(path: Path, tables: Sequence[Table]) -> dict[str, list[Cell]]:
    index: dict[str, list[Cell]] = {}
    most = _share(tables)
    with reading(path) as connection:
        for table, column in _text_columns(tables):
            cell, rows = (quoted(name, "sqlite") for name in (column, table.name))
            query = (
                f"SELECT DISTINCT {cell} FROM (SELECT {cell} FROM {rows} LIMIT {SCANNED_ROWS}) "
                f"WHERE typeof({cell}) = 'text' AND length({cell}) <= {_LONGEST} LIMIT {most}"
            )
            _add(index, (row[0] for row in connection.execute(query)), table, column)
    return index


def _asked(query: Query, database: Database) -> dict[str, list[Cell]]:
    """The index of a database of another engine."""
    from .profile import distinct_values

    index: dict[str, list[Cell]] = {}
    most = _share(database.tables)
    for table, column in _text_columns(database.tables):
        texts = distinct_values(query, table, column, database.profile.dialect, most, _LONGEST)
        _add(index, texts, table, column)
    return index


def _share(tables: Sequence[Table]) -> int:
    return max(LEAST_VALUES, min(MOST_VALUES, MOST_CELLS // max(1, len(list(_text_columns(tables))))))


def _text_columns(tables: Sequence[Table]) -> Iterator[tuple[Table, str]]:
    return ((table, column.name) for table in tables for column in table.columns if column.text)


def _add(index: dict[str, list[Cell]], texts: Iterable[str], table: Table, column: str) -> None:
    for text in texts:
        key = _key(text)
        if key and not _DATE.match(text):
            index.setdefault(key, []).append(Cell(text, table.name, column, table.schema, table.dialect))


def _key(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _mentions(text: str, index: dict[str, list[Cell]]) -> tuple[list[list[Cell]], list[tuple[int, int]]]:
    """The cells of each exact mention in order, and the places (from, to) in the text that they take."""
    found = []
    covered: list[tuple[int, int]] = []
    for match in _QUOTED.finditer(text):
        inside = next(group for group in match.groups() if group).replace("''", "'")
        cells = index.get(_key(inside), [])
        exact = [cell for cell in cells if cell.text == inside]
        if cells:
            found.append((match.start(), exact or cells))
            covered.append(match.span())
    words = list(_WORD.finditer(text))
    for length in range(min(_WORDS_AT_MOST, len(words)), 0, -1):
        for first in range(len(words) - length + 1):
            start, end = words[first].start(), words[first + length - 1].end()
            if any(start < stop and begin < end for begin, stop in covered):
                continue
            if cells := _lookup(text[start:end], length, index):
                found.append((start, cells))
                covered.append((start, end))
    return [cells for _, cells in sorted(found, key=lambda pair: pair[0])], covered


def _lookup(text: str, length: int, index: dict[str, list[Cell]]) -> list[Cell]:
    key = _key(text)
    if length == 1 and (key in _COMMON or len(key) < 2 or (key.isdigit() and len(key) < 4)):
        return []
    singular = [key[: -len(end)] + new for end, new in (("ies", "y"), ("es", ""), ("s", "")) if key.endswith(end)]
    return next((index[form] for form in (key, *singular) if len(form) > 1 and form in index), [])


def _in_named_columns(cells: list[Cell], text: str) -> list[Cell]:
    words = set(_WORD.findall(text.casefold()))
    named = [cell for cell in cells if words & set(re.findall(r"[a-z0-9]+", cell.column.casefold()))]
    return (named or cells)[:4]
