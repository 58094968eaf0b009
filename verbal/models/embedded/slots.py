"""Which slot stands for what in one prompt, and the other way round."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from random import Random

from verbal.models.embedded.ast import Literal, Unsupported
from verbal.models.embedded.index import SchemaIndex
from verbal.models.embedded.vocabulary import COUNTS, KNOWN

_NUMBER = re.compile(r"-?\d+(\.\d+)?\Z")
_DIGITAL = re.compile(r"[-.\d]+\Z")


@dataclass(frozen=True, slots=True)
class SlotOrder:
    """How columns, tables and unknown words get their slots.

    Stable (no seed): by place in the schema and by hash of the word, so that fine-tuning on one database can learn
    what a word means. With a seed: shuffled, so that pre-training learns no number by heart.
    """

    seed: int | None = None

    def places(self, family: str) -> list[int]:
        """Slot numbers of a family in the order in which they are given out."""
        numbers = list(range(COUNTS[family]))
        if self.seed is not None:
            Random(f"{family}{self.seed}").shuffle(numbers)
        return numbers

    def word(self, base: str) -> str:
        """The word slot of an unknown word."""
        return f"w{zlib.crc32(base.encode(), self.seed or 0) % COUNTS['w']}"


STABLE = SlotOrder()
"""The order used at inference and for fine-tuning."""


def is_number(text: str) -> bool:
    """Whether a text is a plain decimal number."""
    return bool(_NUMBER.match(text))


@dataclass(slots=True)
class Binding:
    """Slots of one prompt. `*_slots` maps numbers of the schema index to tokens, the other tables map back."""

    index: SchemaIndex
    order: SlotOrder
    own_columns: dict[int, str] = field(default_factory=dict)
    """Column to its c-slot, for the columns that the prompt shows."""
    own_tables: dict[int, str] = field(default_factory=dict)
    column_slots: dict[int, str] = field(default_factory=dict)
    """Column to the slot an answer uses: its alias where it has one."""
    table_slots: dict[int, str] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)
    values: list[str] = field(default_factory=list)
    """Texts of v0, v1, ..."""
    found: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Text of a value to the columns in which it is known to occur."""
    spellings: dict[tuple[str, int], str] = field(default_factory=dict)
    """Text of a value and a column to the value's spelling in that column, where it differs."""
    words: dict[str, str] = field(default_factory=dict)
    """Token of a word to the word as the prompt wrote it first."""
    mentions: dict[str, str] = field(default_factory=dict)
    """Base form of a word to its slot by order of mention; filled for the reflector only (see `mention`)."""

    def show(self, columns: list[int], tables: list[int]) -> None:
        """Gives these columns and tables their own slots."""
        for family, wanted, own, back in (
            ("c", columns, self.own_columns, self.columns),
            ("t", tables, self.own_tables, self.tables),
        ):
            numbers, size = self.order.places(family), COUNTS[family]
            if len(wanted) > size:
                raise Unsupported(
                    f"{len(wanted)} {'columns' if family == 'c' else 'tables'} in one prompt, limit {size}"
                )
            for place in wanted:
                at = place % size
                while f"{family}{numbers[at]}" in back:
                    at = (at + 1) % size
                own[place] = f"{family}{numbers[at]}"
                back[own[place]] = place
        self.column_slots.update(self.own_columns)
        self.table_slots.update(self.own_tables)

    def alias(self, family: str, place: int) -> str:
        """The alias of a column (`a`) or table (`b`); given out by order of first mention while numbers last."""
        slots, back = (self.column_slots, self.columns) if family == "a" else (self.table_slots, self.tables)
        if place not in slots:
            return ""
        if slots[place][0] != family:
            number = sum(slot[0] == family for slot in slots.values())
            if number >= COUNTS[family]:
                return ""
            slots[place] = f"{family}{number}"
            back[slots[place]] = place
        return slots[place]

    def value(self, text: str) -> str:
        """The slot of a value in the prompt, a new one if needed; empty when no number is left."""
        if text not in self.values:
            if len(self.values) >= COUNTS["v"]:
                return ""
            self.values.append(text)
        return f"v{self.values.index(text)}"

    def word(self, base: str, surface: str = "") -> str:
        """The token of a word: itself if known, else its word slot."""
        token = base if base in KNOWN else self.order.word(base)
        self.words.setdefault(token, surface or base)
        return token

    def mention(self, base: str, surface: str = "") -> str:
        """The slot of a word by order of mention (w0, w1, ...), which a hint can repeat; empty when none is left."""
        if base not in self.mentions:
            if len(self.mentions) >= COUNTS["w"]:
                return ""
            self.mentions[base] = f"w{len(self.mentions)}"
            self.words[self.mentions[base]] = surface or base
        return self.mentions[base]

    def column(self, place: int) -> str:
        """The answer's token for a column.

        Raises:
            Unsupported: when the prompt does not show the column.
        """
        if place not in self.column_slots:
            raise Unsupported(f"column {self.index.columns[place].name!r} is not in the prompt (schema too large)")
        return self.column_slots[place]

    def table(self, place: int) -> str:
        """The answer's token for a table.

        Raises:
            Unsupported: when the prompt does not show the table.
        """
        if place not in self.table_slots:
            raise Unsupported(f"table {self.index.tables[place]!r} is not in the prompt (schema too large)")
        return self.table_slots[place]

    def literal(self, literal: Literal, column: int | None, new: bool = False) -> tuple[str, ...]:
        """Tokens of a literal: a value of the prompt, a category of the column it is compared with, or digits.

        Args:
            literal: the number or string.
            column: the column it is compared with.
            new: whether a value that is not in the prompt yet becomes one (SQL inside a prompt).

        Raises:
            Unsupported: when it is none of these.
        """
        text = literal.text
        if text in self.values:
            return (f"v{self.values.index(text)}",)
        for place, value in enumerate(self.values):
            same = value.lower() == text.lower() or (column is not None and self.spellings.get((value, column)) == text)
            if same or (is_number(value) and is_number(text) and float(value) == float(text)):
                return (f"v{place}",)
        categories = self.index.details[column].values if column is not None else ()
        if text in categories and categories.index(text) < COUNTS["u"]:
            return (f"u{categories.index(text)}",)
        short = _DIGITAL.match(text) and len(text) <= (1 if self.mentions else 3)
        if new and not short:
            slot = self.value(text)
            if slot:
                return (slot,)
        if _DIGITAL.match(text) and len(text) <= 10:
            digits = tuple(f"#{character}" for character in text)
            return digits if is_number(text) and not literal.quoted else ("'", *digits)
        raise Unsupported(f"the value {text!r} is neither in the prompt nor a listed value of its column")
