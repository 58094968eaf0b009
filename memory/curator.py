"""Curation without a model: what a new lesson changes in a memory, by comparing words. The memory applies it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verbal.types import MemoryOp, Reflection

from .words import informative, split_term, words

_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"|\d+(?:\.\d+)?|[<>=!]+")
_NEGATIVE = "no not never none without avoid except don t dont cannot instead exclude excluding"
_NEGATIONS = frozenset(_NEGATIVE.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class NoveltyCurator:
    """Adds what is new, updates what a lesson contradicts or completes, drops what is known.

    For each lesson, in order:

    1. status `retired` asks to forget: RETIRE of the item with its id, else of those with its words or its term.
    2. The same words as an item: NOOP; UPDATE when the lesson brings further attempts as evidence.
    3. `term means B` against an item `term means A`: UPDATE to the newer, unless `keep` attempts or more speak for A.
    4. Nearly the same words, and the same numbers, literals, negations and polarity: UPDATE when the lesson says more,
       else NOOP.
    5. ADD otherwise, with an id of the memory's choosing.

    Lessons of one call are compared with each other in the same way.
    """

    same: float = 0.8
    """Share of common words (Jaccard) from which two texts count as nearly the same."""
    keep: int = 2
    """Attempts from which an item outweighs one contradiction, as long as it has not harmed more often than it helped;
    0 always replaces."""
    author: str = "curator"

    async def propose(self, lessons: Sequence[Reflection], existing: Sequence[Reflection]) -> list[MemoryOp]:
        """One operation for each lesson (RETIRE: one for each item it names), given the items already known."""
        known = {r.id: r for r in existing if r.status != "retired"}
        ops: list[MemoryOp] = []
        for lesson in lessons:
            ops += self._retire(lesson, known) if lesson.status == "retired" else [self._place(lesson, known, ops)]
        return ops

    def _retire(self, lesson: Reflection, known: dict[str, Reflection]) -> list[MemoryOp]:
        ids = [lesson.id] if lesson.id in known else [i for i, r in known.items() if _about_the_same(lesson, r)]
        ids = [i for i in ids if not i.startswith(_PENDING)]
        for i in ids:
            del known[i]
        if not ids:
            return [self._noop(f"nothing to forget like {lesson.text or lesson.id!r}")]
        return [
            MemoryOp(op="RETIRE", reflection=i, reason=lesson.when or "asked to forget", author=self.author)
            for i in ids
        ]

    def _place(self, lesson: Reflection, known: dict[str, Reflection], ops: list[MemoryOp]) -> MemoryOp:
        if not words(lesson.text):
            return self._noop("a lesson without words")
        for item_id, item in known.items():
            if _folded(item) == _folded(lesson):
                return self._confirm(item_id, item, lesson, known, ops)
        term = split_term(lesson.text)
        same = {
            i: meant
            for i, r in known.items()
            if term
            and (meant := split_term(r.text))
            and _key(meant[0]) == _key(term[0])
            and r.polarity == lesson.polarity
        }
        # Where rivals stand beside each other, the lesson speaks for the one that means the same.
        for item_id in (i for i, meant in same.items() if term and _meaning(meant[1]) == _meaning(term[1])):
            return self._confirm(item_id, known[item_id], lesson, known, ops)
        for item_id, meant in same.items():
            assert term is not None
            item = known[item_id]
            if self._outweighs(item):
                return self._noop(f"{len(item.attempts)} attempts say {item.text!r}, this one {lesson.text!r}")
            reason = f"{term[0]!r} was {meant[1]!r}, is now {term[1]!r}"
            return self._replace(item_id, item, lesson, reason, known, ops)
        for item_id, item in known.items():
            if not (term and split_term(item.text)) and self._near(item, lesson):
                if set(informative(lesson.text)) > set(informative(item.text)):
                    return self._replace(item_id, item, lesson, f"says more than {item.text!r}", known, ops)
                return self._noop(f"nearly the same as {_shown(item_id)}")
        known[f"{_PENDING}{len(ops)}"] = lesson
        return MemoryOp(op="ADD", item=lesson.replace(id=""), reason="new", author=self.author)

    def _confirm(
        self, item_id: str, item: Reflection, lesson: Reflection, known: dict[str, Reflection], ops: list[MemoryOp]
    ) -> MemoryOp:
        if set(lesson.attempts) <= set(item.attempts):
            return self._noop(f"the same as {_shown(item_id)}")
        attempts = tuple(dict.fromkeys((*item.attempts, *lesson.attempts)))
        return self._replace(item_id, item, item.replace(attempts=attempts), "seen again", known, ops)

    def _replace(
        self,
        item_id: str,
        item: Reflection,
        lesson: Reflection,
        reason: str,
        known: dict[str, Reflection],
        ops: list[MemoryOp],
    ) -> MemoryOp:
        new = lesson.replace(
            id=item_id, status=item.status, scope=item.scope if lesson.scope == "task" else lesson.scope
        )
        known[item_id] = new
        if not item_id.startswith(_PENDING):
            return MemoryOp(op="UPDATE", reflection=item_id, item=new, reason=reason, author=self.author)
        # The item was proposed earlier in this call and has no id yet, so its ADD takes the newer words.
        at = int(item_id.removeprefix(_PENDING))
        ops[at] = ops[at].replace(item=new.replace(id=""), reason=reason)
        return self._noop(f"joined a lesson of the same batch: {reason}")

    def _outweighs(self, item: Reflection) -> bool:
        return 0 < self.keep <= len(item.attempts) and item.counters.harmed <= item.counters.helped

    def _near(self, item: Reflection, lesson: Reflection) -> bool:
        one, other = set(informative(item.text)), set(informative(lesson.text))
        if item.polarity != lesson.polarity or not one or not other or _marks(item.text) != _marks(lesson.text):
            return False
        return len(one & other) / len(one | other) >= self.same or (one < other and len(one) >= 3)

    def _noop(self, reason: str) -> MemoryOp:
        return MemoryOp(op="NOOP", reason=reason, author=self.author)


_PENDING = "\0"


def _shown(item_id: str) -> str:
    return "a lesson of the same batch" if item_id.startswith(_PENDING) else item_id


def _folded(item: Reflection) -> tuple[str, ...]:
    return (item.polarity, _meaning(item.boundary), _meaning(item.text))


def _meaning(text: str) -> str:
    """`text` without spaces and capitals, but in quotes, where both count."""
    pieces = re.split(r"('[^']*')", text)
    return "".join(p if i % 2 else "".join(p.casefold().split()) for i, p in enumerate(pieces)).rstrip(".;")


def _key(term: str) -> tuple[str, ...]:
    return tuple(sorted(informative(term) or words(term)))


def _marks(text: str) -> tuple[list[str], frozenset[str]]:
    """What turns a sentence into its opposite: literals, numbers, signs; negations."""
    return sorted(_LITERAL.findall(text)), _NEGATIONS.intersection(words(text))


def _about_the_same(lesson: Reflection, item: Reflection) -> bool:
    asked, own = split_term(lesson.text), split_term(item.text)
    term = _key(asked[0] if asked else lesson.text)
    return _folded(lesson) == _folded(item) or bool(term and own and _key(own[0]) == term)


__all__ = ["NoveltyCurator"]
