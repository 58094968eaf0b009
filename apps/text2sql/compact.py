"""Tables as one line each, and how they are made to fit a budget of tokens without losing what the question is about.

    customer (customer_id INTEGER KEY 1..300, name TEXT e.g. 'Ann', status TEXT in 'A' 'B', region_id -> region)

`KEY` marks the primary key, `-> table` or `-> table.column` a foreign key (with `?` one that nobody declared), `in`
lists all values, `e.g.` some, `..` the least and the greatest, `--` the database's own comment. What does not fit is
dropped in the order of `STEPS`, from the least to the most relevant table, and no more than needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_VALUE_LENGTH = 30


def tokens(text: str) -> int:
    """About how many tokens a language model reads `text` as: an estimate without a tokenizer that rather errs high.

    A run of letters counts one per 6 begun, a run of digits one per 3 begun, any other sign one (two where it is not
    ASCII), blanks nothing. `bench/schema.py` compares it with real tokenizers.

    >>> tokens("SELECT name FROM customer_orders"), tokens("2024-12-30"), tokens("")
    (8, 6, 0)
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


@dataclass(slots=True)
class _Shape:
    """What is still shown of one table."""

    values: str = "all"
    """all, linked or none."""
    notes: bool = True
    columns: str = "all"
    """all, kept (keys and linked columns), none (its name alone) or gone."""


def render(tables: Sequence[Table], *, budget: int | None = None, linked: Linked | None = None) -> Rendering:
    """The tables in the compact style, within `budget` tokens where one is given.

    Args:
        tables: In the order they are shown.
        budget: Tokens at most.
        linked: What the question is about (`linking.py`). None: every table counts as unlinked, the last goes first.

    Raises:
        ConfigError: not even the linked part fits (without one: not even a table's name).
    """
    ranks = {} if linked is None else {score.table: place for place, score in enumerate(linked.tables)}
    wanted = frozenset() if linked is None else linked.kept_columns
    chosen = frozenset() if linked is None else linked.kept_tables
    order = sorted(range(len(tables)), key=lambda i: (-ranks.get(tables[i].name, len(tables) + i), -i))
    far = _referenced(tables)
    shapes = [_Shape() for _ in tables]
    lines = [_line(table, shape, wanted, far) for table, shape in zip(tables, shapes, strict=True)]
    sizes = [_size(line) for line in lines]
    total = sum(sizes) + _rest_size(shapes)
    dropped: dict[str, None] = {}
    for step, place in ((step, place) for step in range(len(STEPS)) for place in order):
        if budget is None or total <= budget:
            break
        if _reduce(step, shapes[place], tables[place].name in chosen):
            line = _line(tables[place], shapes[place], wanted, far)
            dropped |= {STEPS[step]: None} if line != lines[place] or step in (4, 6) else {}
            lines[place], sizes[place] = line, _size(line)
            total = sum(sizes) + _rest_size(shapes)
    if budget is not None and (total > budget or (tables and all(s.columns == "gone" for s in shapes))):
        what = "the linked part of the schema" if chosen else "the schema's table names"
        raise ConfigError(
            f"a budget of {budget} tokens is too small: {what} needs {max(total, budget + 1)}",
            todo="raise the budget, or link fewer tables and columns",
        )
    return Rendering(_text(lines, shapes), total, tuple(dropped), _shown_columns(tables, shapes, wanted, far),
                     frozenset(t.name for t, s in zip(tables, shapes, strict=True) if s.columns != "gone"))  # fmt: skip


def _reduce(step: int, shape: _Shape, linked: bool) -> bool:
    """Takes one step at one table; False where it changes nothing there."""
    before = (shape.values, shape.notes, shape.columns)
    if step == 0 and not linked:
        shape.values = "none"
    elif step == 1 and shape.values == "all":
        shape.values = "linked"
    elif step == 2:
        shape.notes = False
    elif (step == 3 and not linked) or (step == 5 and linked):
        shape.columns = "kept"
    elif step == 4 and not linked:
        shape.columns = "none"
    elif step == 6 and not linked:
        shape.columns = "gone"
    elif step == 7:
        shape.values = "none"
    return before != (shape.values, shape.notes, shape.columns)


def _text(lines: Sequence[str], shapes: Sequence[_Shape]) -> str:
    gone = sum(shape.columns == "gone" for shape in shapes)
    names = [line for line, shape in zip(lines, shapes, strict=True) if shape.columns == "none"]
    body = [line for line, shape in zip(lines, shapes, strict=True) if shape.columns in ("all", "kept")]
    return "\n".join([*body, *([_OTHER + ", ".join(names)] if names else []), *([_more(gone)] if gone else [])])


_OTHER = "other tables: "
_more = "and {} more tables".format


def _size(line: str) -> int:
    return tokens(line) + 1 if line else 0  # a line's end, or the comma after a name


def _rest_size(shapes: Sequence[_Shape]) -> int:
    named, gone = (sum(shape.columns == kind for shape in shapes) for kind in ("none", "gone"))
    return (tokens(_OTHER) + 1 if named else 0) + (tokens(_more(gone)) + 1 if gone else 0)


def _referenced(tables: Sequence[Table]) -> frozenset[tuple[str, str]]:
    """Columns that a foreign key of any table points to."""
    return frozenset((key.target, name) for t in tables for key in t.foreign_keys for name in key.target_columns)


def _kept(table: Table, wanted: frozenset[tuple[str, str]], far: frozenset[tuple[str, str]]) -> set[str]:
    near = {name for key in table.foreign_keys for name in key.columns}
    keys = {*table.primary_key, *near, *(name for owner, name in far if owner == table.name)}
    return keys | {name for owner, name in wanted if owner == table.name}


def _shown_columns(
    tables: Sequence[Table],
    shapes: Sequence[_Shape],
    wanted: frozenset[tuple[str, str]],
    far: frozenset[tuple[str, str]],
) -> frozenset[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for table, shape in zip(tables, shapes, strict=True):
        if shape.columns in ("all", "kept"):
            kept = _kept(table, wanted, far) if shape.columns == "kept" else None
            found |= {(table.name, c.name) for c in table.columns if kept is None or c.name in kept}
    return frozenset(found)


def _line(
    table: Table, shape: _Shape, wanted: frozenset[tuple[str, str]], far: frozenset[tuple[str, str]]
) -> str:  # fmt: skip
    if shape.columns in ("none", "gone"):
        return table.shown if shape.columns == "none" else ""
    kept = _kept(table, wanted, far) if shape.columns == "kept" else None
    single = {key.columns[0]: key for key in table.foreign_keys if len(key.columns) == 1}
    parts = []
    for column in table.columns:
        if kept is None or column.name in kept:
            hinted = shape.values == "all" or (shape.values == "linked" and (table.name, column.name) in wanted)
            parts.append(_column(column, table, single, hinted, shape.notes))
    left = len(table.columns) - len(parts)
    parts += [f"{left} more"] if left else []
    if len(table.primary_key) > 1:
        parts.append(f"KEY ({_names(table, table.primary_key)})")
    parts += [_wide(key, table) for key in table.foreign_keys if len(key.columns) > 1]
    note = f" -- {literal(_note(table.note))}" if table.note.strip() and shape.notes else ""
    return f"{table.shown} ({', '.join(parts)}){note}"


def _column(column: Column, table: Table, links: Mapping[str, ForeignKey], hinted: bool, notes: bool) -> str:
    link, key = links.get(column.name), table.primary_key == (column.name,)
    words = [
        shown(column.name, table.dialect),
        "" if link else plain(_LENGTH.sub("", column.type)),
        "KEY" if key else "",
    ]
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
