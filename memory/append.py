"""Curation that only adds: every lesson becomes an item, a few from each attempt; nothing is merged, nothing leaves.

Three methods keep their memory so, and differ in what they show of it: ReasoningBank (arXiv 2509.25140), the case bank
of Memento, MemRL (arXiv 2601.03192).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from verbal.contracts import Embedder
from verbal.errors import ConfigError
from verbal.parts import make_part
from verbal.types import MemoryOp, Reflection

from .curator import NoveltyCurator
from .words import words


class AppendCurator:
    """ADD of each lesson; a lesson whose status is `retired` (somebody asked to forget) still retires its item.

    Args:
        most: Items of one attempt at most: 3 in ReasoningBank, 5 where several attempts were compared.
        value: Value of a new item (MemRL's initial Q, 0); None leaves it open.
        same_task: Cosine of two tasks' questions from which a new item is filed under the older one (its `when`), so
            that both are found together: 0.9 in MemRL; 0 files each under its own.
        embedder: For `same_task`: name of an embedder part that costs nothing.
        kind: Kind of the items; as the lesson says when empty.
    """

    author = "append"

    def __init__(
        self,
        *,
        most: int = 3,
        value: float | None = None,
        same_task: float = 0.0,
        embedder: str = "hashing",
        kind: str = "strategy",
    ) -> None:
        kinds = ("", "reflection", "rule", "strategy", "case")
        if most < 1 or not 0 <= same_task <= 1 or kind not in kinds:
            what = f"most {most}, same_task {same_task}, kind {kind!r}"
            raise ConfigError(what, where="append", todo=f"1 or more; 0 to 1; one of {', '.join(kinds[1:])} or empty")
        self._most, self._value, self._same_task, self._kind = most, value, same_task, kind
        self._embedder: Embedder | None = make_part("memory", embedder) if same_task else None
        if getattr(self._embedder, "price", 0):
            raise ConfigError(f"embedder {embedder!r} is paid for", where="append", todo="name one that costs nothing")

    async def propose(self, lessons: Sequence[Reflection], existing: Sequence[Reflection]) -> list[MemoryOp]:
        """One ADD for each lesson with words, up to `most` of an attempt, in order; NOOP for the rest."""
        known = [r for r in existing if r.status != "retired"]
        forget = [r for r in lessons if r.status == "retired"]
        ops = await NoveltyCurator(author=self.author).propose(forget, known) if forget else []
        taught = [r for r in lessons if r.status != "retired"]
        filed = await self._filed(taught, known)
        counts: Counter[tuple[str, ...]] = Counter()
        for lesson in filed:
            counts[lesson.attempts] += 1
            if not words(lesson.text):
                ops.append(self._noop("a lesson without words"))
            elif lesson.attempts and counts[lesson.attempts] > self._most:
                ops.append(self._noop(f"more than {self._most} lessons of one attempt"))
            else:
                fields = {"value": self._value, **({"kind": self._kind} if self._kind else {})}
                item = lesson.replace(id="", **fields)
                ops.append(MemoryOp(op="ADD", item=item, reason="new", author=self.author))
        return ops

    async def _filed(self, lessons: Sequence[Reflection], known: Sequence[Reflection]) -> list[Reflection]:
        """The lessons, each under the task text of the nearest one before it if that is near enough."""
        if self._embedder is None:
            return list(lessons)
        keys = list(dict.fromkeys(r.when for r in known if r.when))
        asked = [r.when for r in lessons]
        texts = list(dict.fromkeys([*keys, *(t for t in asked if t)]))
        made = await asyncio.to_thread(self._embedder.embed, texts)
        vectors = dict(zip(texts, made, strict=True))
        filed: list[Reflection] = []
        for lesson in lessons:
            near = [(sum(a * b for a, b in zip(vectors[lesson.when], vectors[k], strict=True)), k) for k in keys]
            best = max(near, key=lambda pair: pair[0], default=(-1.0, "")) if lesson.when else (-1.0, "")
            if best[0] >= self._same_task - 1e-9:
                lesson = lesson.replace(when=best[1])
            elif lesson.when:
                keys.append(lesson.when)
            filed.append(lesson)
        return filed

    def _noop(self, reason: str) -> MemoryOp:
        return MemoryOp(op="NOOP", reason=reason, author=self.author)


__all__ = ["AppendCurator"]
