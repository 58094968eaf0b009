"""Cells of a database that a text mentions, found by an index over its text columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from verbal.models.embedded.ast import quote

from .schema import SCANNED_ROWS, Table, literal, read_tables, reading, schema_text

MOST_VALUES = 20_000
"""Different values indexed per column; a column with more is indexed in part."""

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

    def __str__(self) -> str:
        return f"{literal(self.text)} in {quote(self.table)}.{quote(self.column)}"


class Database:
    """One SQLite file as prompts see it: its tables, their text and an index of its values."""

    def __init__(self, path: Path) -> None:
        """Reads the tables now and the values when they are first needed.

        Raises:
            DataError: the file is missing, locked, not a database, or holds no table.
        """
        self.path = path
        self.mark = file_mark(path)
        self.tables = read_tables(path)
        self.schema = schema_text(self.tables)
        self._index: dict[str, list[Cell]] | None = None

    def values(self, texts: Iterable[str], limit: int = 12) -> list[Cell]:
        """Cells that the texts mention, in order of mention, longest first where mentions overlap."""
        index = self._values()
        found: dict[Cell, None] = {}
        for text in texts:
            for cells in _mentions(text, index):
                found.update(dict.fromkeys(_in_named_columns(cells, text)))
        return list(found)[:limit]

    def _values(self) -> dict[str, list[Cell]]:
        if self._index is None:
            self._index = _indexed(self.path, self.tables)
        return self._index


def file_mark(path: Path) -> tuple[int, int]:
    """Changes when the file does; (0, 0) for a file that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)


def _indexed(path: Path, tables: Sequence[Table]) -> dict[str, list[Cell]]:
    index: dict[str, list[Cell]] = {}
    with reading(path) as connection:
        for table in tables:
            for column in table.columns:
                if not column.text:
                    continue
                cell, rows = (f'"{name.replace(chr(34), chr(34) * 2)}"' for name in (column.name, table.name))
                query = (
                    f"SELECT DISTINCT {cell} FROM (SELECT {cell} FROM {rows} LIMIT {SCANNED_ROWS}) "
                    f"WHERE typeof({cell}) = 'text' AND length({cell}) <= {_LONGEST} LIMIT {MOST_VALUES}"
                )
                for (text,) in connection.execute(query):
                    key = _key(text)
                    if key and not _DATE.match(text):
                        index.setdefault(key, []).append(Cell(text, table.name, column.name))
    return index


def _key(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _mentions(text: str, index: dict[str, list[Cell]]) -> list[list[Cell]]:
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
    return [cells for _, cells in sorted(found, key=lambda pair: pair[0])]


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
