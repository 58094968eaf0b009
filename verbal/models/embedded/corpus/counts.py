"""Words for conditions on counts and totals: `more than 3`, `at least 500`. No torch, no numpy."""

from __future__ import annotations

from verbal.models.embedded.ast import Literal
from verbal.models.embedded.corpus.asker import Asker
from verbal.models.embedded.corpus.namer import ABOVE, AT_LEAST, BELOW, NUMBER_WORDS
from verbal.models.embedded.corpus.words import plural
from verbal.models.embedded.corpus.world import ColumnInfo


def more_than(ask: Asker, noun: str = "") -> tuple[str, str, int]:
    """Words, operator and number of a condition on a count: `more than 3`."""
    number = ask.rng.choice((1, 1, 2, 2, 3, 3, 4, 5, 8))
    said = NUMBER_WORDS[number] if number <= 10 and ask.chance(0.4) else str(number)
    roll = ask.rng.random()
    if roll < 0.45:
        return f"{ask.pick('more than', 'more than', 'over', 'greater than')} {said}", ">", number
    if roll < 0.75:
        return (f"{ask.pick(*AT_LEAST[:4])} {said}" if ask.chance(0.7) else f"{said} or more"), ">=", number
    if roll < 0.87:
        return f"{ask.pick('fewer than', 'less than', 'under')} {said}", "<", number
    if roll < 0.93:
        return f"{ask.pick('at most', 'no more than')} {said}", "<=", number
    return f"exactly {said}", "=", number


def compare(ask: Asker, limit: float) -> tuple[str, str, str]:
    """Words, operator and number of a condition on an aggregate."""
    value = str(round(limit))
    op = ask.rng.choices((">", "<", ">=", "<="), (5, 3, 2, 1))[0]
    words = {">": ABOVE, "<": BELOW, ">=": AT_LEAST, "<=": ("at most", "no more than")}[op]
    return f"{ask.pick(*words)} {ask.number(value)}", op, value


def literal(number: int) -> Literal:
    """A whole number as SQL."""
    return Literal(str(number))


def plural_of(ask: Asker, column: ColumnInfo) -> str:
    """A column's name in the plural."""
    return plural(ask.name(column))
