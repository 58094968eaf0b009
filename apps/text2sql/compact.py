"""Tables as one line each, and how they are made to fit a budget of tokens without losing what the question is about.

    customer (customer_id INTEGER KEY 1..300, name TEXT e.g. 'Ann', status TEXT in 'A' 'B', region_id -> region)

`KEY` marks the primary key, `-> table` or `-> table.column` a foreign key (with `?` one that nobody declared), `in`
lists all values, `e.g.` some, `..` the least and the greatest, `--` the database's own comment. What does not fit is
dropped in the order of `STEPS`, from the least to the most relevant table, and no more than needed (two of the steps
alternate, see `_Page.schedule`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verbal.errors import ConfigError

from .names import literal, plain, shown
from .schema import Column, ForeignKey, Table

if TYPE_CHECKING:
    from .linking import Linked

STEPS = (
    "values of unlinked tables",
    "values of unlinked columns",
    "comments",
    "columns of unlinked tables that are no keys",
    "unlinked tables but for their names",
    "unlinked columns of linked tables that are no keys",
    "names of unlinked tables",
    "values of linked columns",
)
"""What is dropped, in this order. Linked tables, their keys and linked columns are never dropped."""

NOTE_LENGTH = 80
"""Characters of a comment that are shown."""

_PIECE = re.compile(r"[A-Za-z]+|[0-9]+|\n|[^\sA-Za-z0-9]")
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_LENGTH = re.compile(r"\s*\([\d, ]*\)")
_LISTED = 60
"""Characters that the values of a column may take together and still be listed in full."""
_LISTS = 16
"""Lists of tables whose lines are kept."""
_VALUE_LENGTH = 30


def tokens(text: str) -> int:
    """About how many tokens a language model reads `text` as: an estimate without a tokenizer that rather errs high.

    A run of letters counts one per 6 begun, a run of digits one per 3 begun, any other sign one (two where it is not
    ASCII), blanks nothing. `bench/schema.py` compares it with real tokenizers.

    >>> tokens("SELECT name FROM customer_orders"), tokens("2024-12-30"), tokens("")
    (7, 6, 0)
    """
    count = 0
    for piece in _PIECE.findall(text):
        if piece[0].isascii():
            count += -(-len(piece) // (6 if piece[0].isalpha() else 3)) if piece[0].isalnum() else 1
        else:
            count += 2
    return count


@dataclass(frozen=True, slots=True)
class Rendering:
    """Tables as text, and what it took."""

    text: str
    tokens: int
    dropped: tuple[str, ...]
    """The steps that were taken, in part or whole; empty when everything is there."""
    columns: frozenset[tuple[str, str]]
    """(table, column) that are shown."""
    tables: frozenset[str]
    """Tables that are named."""


def render(tables: Sequence[Table], *, budget: int | None = None, linked: Linked | None = None) -> Rendering:
    """The tables in the compact style, within `budget` tokens where one is given.

    Args:
        tables: In the order they are shown.
        budget: Tokens at most.
        linked: What the question is about (`linking.py`). None: every table counts as unlinked, the last goes first.

    Raises:
        ConfigError: not even the linked part fits (without one: not even a table's name).
    """
    page = _Page(tables, linked)
    dropped: dict[str, None] = {}
    for step, place in page.schedule():
        if budget is None or page.size() <= budget:
            break
        if page.reduce(step, place):
            dropped[STEPS[step]] = None
    empty = bool(tables) and page.gone == len(tables)
    if budget is not None and (page.size() > budget or empty):
        what = "the linked part of the schema" if page.chosen else "the names of the tables"
        raise ConfigError(
            f"a budget of {budget} tokens is too small: {what} needs {'more' if empty else page.size()}",
            todo="raise the budget, or link fewer tables and columns",
        )
    return Rendering(page.text(), page.size(), tuple(dropped), page.columns(), page.tables())


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is still shown of one table."""

    values: str = "all"
    """all, linked or none."""
    notes: bool = True
    columns: str = "all"
    """all, kept (keys and linked columns), none (its name alone) or gone."""


_Known = dict[tuple[int, _Shape, frozenset[str]], tuple[str, int]]
_known: OrderedDict[int, tuple[Sequence[Table], _Known]] = OrderedDict()
"""Lines of a list of tables and their sizes, kept from one question to the next: by the identity of the list."""


def _lines_of(tables: Sequence[Table]) -> _Known:
    held = _known.pop(id(tables), None)
    if held is None or len(held[1]) > 50 * len(tables) + 1000:
        held = (tables, {})
    if isinstance(tables, tuple):  # a list may change
        _known[id(tables)] = held
        while len(_known) > _LISTS:
            _known.popitem(last=False)
    return held[1]


class _Page:
    """Tables with what is shown of each, while it is being reduced."""

    def __init__(self, tables: Sequence[Table], linked: Linked | None) -> None:
        self._tables, self._known = tables, _lines_of(tables)
        ranks = {} if linked is None else {score.table: place for place, score in enumerate(linked.tables)}
        self._order = sorted(range(len(tables)), key=lambda i: (-ranks.get(tables[i].name, len(tables) + i), -i))
        self.chosen = frozenset[str]() if linked is None else linked.kept_tables
        wanted: dict[str, set[str]] = {}
        for table, column in frozenset() if linked is None else linked.kept_columns:
            wanted.setdefault(table, set()).add(column)
        self._wanted = [frozenset(wanted.get(table.name, ())) for table in tables]
        self._far = frozenset((k.target, name) for t in tables for k in t.foreign_keys for name in k.target_columns)
        self._shapes = [_Shape()] * len(tables)
        self._lines = [self._line(place) for place in range(len(tables))]
        self._total = sum(size for _, size in self._lines)
        self.named = self.gone = 0

    def schedule(self) -> Iterator[tuple[int, int]]:
        """Steps and tables in the order in which they are reduced.

        Steps 3 and 4 are taken by the less relevant half of the tables first, then by half of the rest and so on, so
        that the last of the unlinked ones lose their columns before the first do.
        """
        yield from ((step, place) for step in (0, 1, 2) for place in self._order)
        rest = self._order
        while rest:
            part, rest = rest[: (len(rest) + 1) // 2], rest[(len(rest) + 1) // 2 :]
            yield from ((step, place) for step in (3, 4) for place in part)
        yield from ((step, place) for step in (5, 6, 7) for place in self._order)

    def reduce(self, step: int, place: int) -> bool:
        """Takes one step at one table; False where it changes nothing."""
        shape, linked = self._shapes[place], self._tables[place].name in self.chosen
        if (step in (0, 3, 4, 6) and linked) or (step == 5 and not linked):
            return False
        if step in (0, 7):
            shape = replace(shape, values="none")
        elif step == 1 and shape.values == "all":
            shape = replace(shape, values="linked")
        elif step == 2:
            shape = replace(shape, notes=False)
        elif step > 2:
            shape = replace(shape, columns={3: "kept", 4: "none", 5: "kept", 6: "gone"}[step])
        if shape == self._shapes[place]:
            return False
        before, was = self._lines[place], self._shapes[place].columns
        self._shapes[place] = shape
        self._lines[place] = self._line(place)
        self._total += self._lines[place][1] - before[1]
        self.named += (shape.columns == "none") - (was == "none")
        self.gone += (shape.columns == "gone") - (was == "gone")
        return before != self._lines[place] or shape.columns != was

    def size(self) -> int:
        """Tokens of the text."""
        return (
            self._total + (tokens(_OTHER) + 1 if self.named else 0) + (tokens(_more(self.gone)) + 1 if self.gone else 0)
        )

    def text(self) -> str:
        """The lines, then the tables of which only the name is left."""
        shown_ = [(line, shape.columns) for (line, _), shape in zip(self._lines, self._shapes, strict=True)]
        names = [line for line, columns in shown_ if columns == "none"]
        body = [line for line, columns in shown_ if columns in ("all", "kept")]
        body += [_OTHER + ", ".join(names)] if names else []
        return "\n".join(body + ([_more(self.gone)] if self.gone else []))

    def columns(self) -> frozenset[tuple[str, str]]:
        """(table, column) that the text shows."""
        return frozenset(
            (table.name, column.name)
            for place, table in enumerate(self._tables)
            if self._shapes[place].columns in ("all", "kept")
            for column in self._left(place)
        )

    def tables(self) -> frozenset[str]:
        """Tables that the text names."""
        return frozenset(t.name for t, s in zip(self._tables, self._shapes, strict=True) if s.columns != "gone")

    def _line(self, place: int) -> tuple[str, int]:
        key = (place, self._shapes[place], self._wanted[place])
        if key not in self._known:
            line = self._written(place)
            self._known[key] = (line, tokens(line) + 1 if line else 0)  # one for its end, or the comma after a name
        return self._known[key]

    def _left(self, place: int) -> Sequence[Column]:
        """The columns that are still shown."""
        table, shape = self._tables[place], self._shapes[place]
        if shape.columns == "all":
            return table.columns
        near = {name for key in table.foreign_keys for name in key.columns}
        kept = {*table.primary_key, *near, *self._wanted[place]}
        return [c for c in table.columns if c.name in kept or (table.name, c.name) in self._far]

    def _written(self, place: int) -> str:
        table, shape = self._tables[place], self._shapes[place]
        if shape.columns in ("none", "gone"):
            return table.shown if shape.columns == "none" else ""
        single = {key.columns[0]: key for key in table.foreign_keys if len(key.columns) == 1}
        parts = []
        for column in self._left(place):
            hinted = shape.values == "all" or (shape.values == "linked" and column.name in self._wanted[place])
            parts.append(_column(column, table, single.get(column.name), hinted, shape.notes))
        left = len(table.columns) - len(parts)
        parts += [f"{left} more"] if left else []
        if len(table.primary_key) > 1:
            parts.append(f"KEY ({_names(table, table.primary_key)})")
        parts += [_wide(key, table) for key in table.foreign_keys if len(key.columns) > 1]
        note = f" -- {literal(_note(table.note))}" if table.note.strip() and shape.notes else ""
        return f"{table.shown} ({', '.join(parts)}){note}"


_OTHER = "other tables: "
_more = "and {} more tables".format


def _column(column: Column, table: Table, link: ForeignKey | None, hinted: bool, notes: bool) -> str:
    key = table.primary_key == (column.name,)
    words = [shown(column.name, table.dialect), "" if link else plain(_LENGTH.sub("", column.type)), "KEY" * key]
    if link is not None:
        words.append(_arrow(link, table))
    if hinted and column.comment and (column.text or not (key or link)):
        words.append(_hint(column.comment))
    if notes and column.note.strip():
        words.append(f"-- {literal(_note(column.note))}")
    return " ".join(word for word in words if word)


def _arrow(link: ForeignKey, table: Table) -> str:
    target = table.name_of(link.target)
    if link.columns != link.target_columns:
        target += f".{shown(link.target_columns[0], table.dialect)}"
    return f"-> {target}{'' if link.declared else '?'}"


def _wide(link: ForeignKey, table: Table) -> str:
    near, far = _names(table, link.columns), _names(table, link.target_columns)
    return f"({near}) -> {table.name_of(link.target)} ({far}){'' if link.declared else '?'}"


def _names(table: Table, names: Sequence[str]) -> str:
    return ", ".join(shown(name, table.dialect) for name in names)


def _note(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= NOTE_LENGTH else flat[:NOTE_LENGTH] + "..."


def _hint(comment: str) -> str:
    """What a column holds, shorter: `1..9`, `in 'A' 'B'`, `e.g. 'Ann'`."""
    found = [_short(text) for text in _LITERAL.findall(comment)]
    if comment.startswith("one of "):
        size = 0
        for count, text in enumerate(found):
            size += len(text)
            if size > _LISTED and count:
                return f"e.g. {' '.join(found[: min(count, 2)])}"
        return f"in {' '.join(found)}"
    if comment.startswith("such as "):
        return f"e.g. {found[0]}" if found else ""
    return comment.replace(" to ", "..").replace("always NULL", "all NULL")


def _short(quoted: str) -> str:
    text = quoted[1:-1].replace("''", "'")
    return literal(text if len(text) <= _VALUE_LENGTH else text[:_VALUE_LENGTH] + "...")
