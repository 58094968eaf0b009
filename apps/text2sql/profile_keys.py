"""Foreign keys that nobody declared: a column named like another table's key whose values are found there.

A name that fits in full (`customer_id` for customer.customer_id or customer.id, `airport_code` for airport.code) needs
nearly all of its values in the key; one that only ends so (`source_airport`) needs all of them, and two at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from verbal.errors import VerbalError
from verbal.models.embedded.words import identifier_words

from .names import quoted
from .schema import ForeignKey

if TYPE_CHECKING:
    from .profile import ColumnProfile, Query, TableProfile

CONTAINED = 0.9
"""Share of a column's values that must occur in the key when the name fits in full."""

COMPARED_VALUES = 1_000
"""Different values that are looked up."""

MOST_PAIRS = 2_000
"""Pairs of columns that are compared in one database."""

_SHORT = frozenset(("id", "code", "no", "number", "key", "name", "abbreviation", "abbr"))


def probable_keys(query: Query, tables: Sequence[TableProfile], dialect: str) -> tuple[TableProfile, ...]:
    """The tables with their probable foreign keys after the declared ones (at most one a column)."""
    found: dict[str, list[ForeignKey]] = {}
    taken = {(t.name, name) for t in tables for key in t.foreign_keys for name in key.columns}
    pairs = sorted(_pairs(tables), key=lambda pair: -pair[0])
    for strength, near, column, far, key in pairs[:MOST_PAIRS]:
        if (near.name, column.name) not in taken and _contained(query, near, column, far, key, strength, dialect):
            taken.add((near.name, column.name))
            found.setdefault(near.name, []).append(ForeignKey((column.name,), far.name, (key.name,), declared=False))
    return tuple(replace(t, foreign_keys=(*t.foreign_keys, *found.get(t.name, ()))) for t in tables)


_Pair = tuple[int, "TableProfile", "ColumnProfile", "TableProfile", "ColumnProfile"]


def _pairs(tables: Sequence[TableProfile]) -> Iterator[_Pair]:
    """Columns and keys whose names fit: 2 in full, 1 at the end."""
    keys = [(table, key, identifier_words(table.name), identifier_words(key.name))
            for table in tables for key in _unique(table)]  # fmt: skip
    for near in tables:
        for column in near.columns:
            words = identifier_words(column.name)
            alone = near.primary_key == (column.name,)
            for far, key, owner, own in keys:
                if near is far or not _same_kind(column, key):
                    continue
                strength = _fits(words, owner, own)
                if strength > alone:  # a key that is also a reference must fit in full
                    yield strength, near, column, far, key


def _unique(table: TableProfile) -> list[ColumnProfile]:
    """The columns that can be referred to: the primary key, else one named like a key whose values all differ."""
    if table.primary_key:
        return [c for c in table.columns if table.primary_key == (c.name,)]
    whole = [c for c in table.columns if table.rows and c.distinct == table.rows and not c.nulls and c.kind != "date"]
    return [c for c in whole if set(identifier_words(c.name)) & _SHORT][:1]


def _fits(words: tuple[str, ...], owner: tuple[str, ...], own: tuple[str, ...]) -> int:
    short = len(own) == 1 and own[0] in _SHORT
    full = own if not short else (*owner, *own)
    if not full:
        return 0
    if words == full or "".join(words) == "".join(full) or (short and words == owner):
        return 2
    if len(words) > len(full) and words[-len(full) :] == full:
        return 1
    return 1 if owner and len(words) > len(owner) and words[-len(owner) :] == owner else 0


def _same_kind(one: ColumnProfile, other: ColumnProfile) -> bool:
    return one.kind == other.kind or "empty" in (one.kind, other.kind)


def _contained(
    query: Query,
    near: TableProfile,
    column: ColumnProfile,
    far: TableProfile,
    key: ColumnProfile,
    strength: int,
    dialect: str,
) -> bool:
    if "empty" in (column.kind, key.kind):
        return strength == 2  # nothing to compare: the name alone decides
    here, there = quoted(near.name, dialect, near.schema), quoted(far.name, dialect, far.schema)
    mine, theirs = quoted(column.name, dialect), quoted(key.name, dialect)
    values = f"SELECT DISTINCT {mine} AS v FROM {here} WHERE {mine} IS NOT NULL LIMIT {COMPARED_VALUES}"
    inside = f"CASE WHEN v IN (SELECT {theirs} FROM {there}) THEN 1 ELSE 0 END"
    try:
        count, hits = query(f"SELECT COUNT(*), SUM({inside}) FROM ({values}) AS t")[0]
    except VerbalError:
        return False
    share = int(hits or 0) / max(1, int(count))
    return share >= CONTAINED if strength == 2 else share == 1.0 and int(count) >= 2
