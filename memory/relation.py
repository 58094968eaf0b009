"""How a lesson relates to an item, by words alone: what `curator` thinks of one pair, for curators of other rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from verbal.types import Reflection

from .curator import NoveltyCurator
from .log import said
from .words import informative, split_term

Relation = Literal["same", "against", "more", "none"]
"""It says the same; it defines the same term otherwise; it says the same and more; it is about something else."""

_NOVELTY = NoveltyCurator(keep=0)


async def relation(lesson: Reflection, item: Reflection) -> Relation:
    """How a lesson with words relates to an item (`NoveltyCurator` says what counts as the same)."""
    (op,) = await _NOVELTY.propose([lesson.replace(status="active")], [item.replace(status="active")])
    if op.op == "ADD":
        return "none"
    if op.op == "NOOP" or (op.item is not None and said(op.item) == said(item)):
        return "same"
    return "against" if split_term(lesson.text) and split_term(item.text) else "more"


async def closest(lesson: Reflection, items: Iterable[Reflection]) -> tuple[Relation, Reflection | None]:
    """The closest relation of a lesson to one of `items`, and that item; the first of equals, None for `none`."""
    found: dict[Relation, Reflection] = {}
    for item in items:
        found.setdefault(await relation(lesson, item), item)
    for kind in ("same", "against", "more"):
        if kind in found:
            return kind, found[kind]
    return "none", None


def source_of(text: str, lessons: Iterable[Reflection]) -> Reflection:
    """The one of `lessons` (one at least) that a text was most likely made of: the most words in common.

    What a model wrote from several lessons is filed under the task of one, so that it is not shown there.
    """
    own = set(informative(text))
    return max(lessons, key=lambda r: len(own & set(informative(r.text))))
