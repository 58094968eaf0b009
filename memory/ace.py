"""ACE's playbook: bullets in sections with counters, changed by small deltas in code and kept within a budget.

A bullet is an item whose id tells its section and a number that counts all bullets ever: `sai-00012`. In a prompt it is
`[sai-00012] helpful=3 harmful=1 :: text`. Its counters are those of the log (TAG helped, harmed).

Source: Agentic Context Engineering, arXiv 2510.04618. Differs: UPDATE and MERGE work (the released code ignores all but
ADD), the budget is enforced rather than told (lowest helpful - harmful, the oldest first), near bullets are merged
under the first id by an operation that the log keeps.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from verbal.contracts import Embedder, Model
from verbal.errors import ConfigError
from verbal.parts import make_part
from verbal.prompt import load_prompt
from verbal.types import MemoryOp, Reflection

from .asking import ask, read_json
from .condense import condensed
from .curator import NoveltyCurator
from .relation import closest, relation, source_of

SECTIONS = {
    "sai": "STRATEGIES & INSIGHTS", "calc": "FORMULAS & CALCULATIONS", "code": "CODE SNIPPETS & TEMPLATES",
    "err": "COMMON MISTAKES TO AVOID", "prob": "PROBLEM-SOLVING HEURISTICS", "ctx": "CONTEXT CLUES & INDICATORS",
    "misc": "OTHERS",
}  # fmt: skip
"""Slug of a section -> its heading; what belongs to none is filed under OTHERS."""
OPERATIONS = ("ADD", "UPDATE", "MERGE", "DELETE")
"""What a delta may hold."""

_ID = re.compile(r"[a-z]+-(\d{5,})")
_FIELDS = {"ADD": ("section", "content"), "UPDATE": ("id", "content"), "MERGE": ("ids", "content"), "DELETE": ("id",)}


def section_slug(name: str) -> str:
    """The slug of a section named in any spelling.

    >>> section_slug("strategies_and_insights"), section_slug("Gossip")
    ('sai', 'misc')
    """
    folded = _folded(name)
    return next((slug for slug, heading in SECTIONS.items() if folded in (slug, _folded(heading))), "misc")


def _folded(name: str) -> str:
    return "".join(re.findall(r"[a-z0-9]+", name.lower().replace("&", "and")))


def next_number(ids: Iterable[str]) -> int:
    """One more than the highest number of a bullet, so that numbers only grow; ids of other forms are passed over.

    >>> next_number(["sai-00007", "r12"])
    8
    """
    return 1 + max((int(found[1]) for i in ids if (found := _ID.fullmatch(i))), default=0)


def bullet(item: Reflection) -> str:
    """An item as one line of a playbook."""
    text = " ".join(item.text.split())
    return f"[{item.id}] helpful={item.counters.helped} harmful={item.counters.harmed} :: {text}"


def playbook(items: Sequence[Reflection]) -> str:
    """Items as a playbook: a heading and its bullets for each section that has some."""
    blocks: list[str] = []
    for slug, heading in SECTIONS.items():
        own = [bullet(r) for r in items if _section(r) == slug]
        blocks += ["\n".join([f"{heading}:", *own])] if own else []
    return "\n\n".join(blocks) or "none"


def _section(item: Reflection) -> str:
    slug = item.id.partition("-")[0]
    return slug if slug in SECTIONS and _ID.fullmatch(item.id) else "misc"


def statistics(items: Sequence[Reflection]) -> dict[str, int]:
    """How many bullets there are, did well (h > 5 and u < 2), did harm (u >= h and u > 0), were never counted."""
    counts = [(r.counters.helped, r.counters.harmed) for r in items]
    return {
        "bullets": len(counts),
        "high performing": sum(h > 5 and u < 2 for h, u in counts),
        "problematic": sum(u >= h and u > 0 for h, u in counts),
        "unused": sum(h + u == 0 for h, u in counts),
    }


def read_delta(text: str) -> list[dict[str, Any]]:
    """The operations of a curator's reply.

    Raises:
        ValueError: the reply is not the JSON that was asked for; says what is wrong.
    """
    data = read_json(text)
    if not isinstance(data, dict) or not isinstance(data.get("operations"), list):
        raise ValueError('the object must have a key "operations" with a list')
    for row in data["operations"]:
        kind = row.get("type") if isinstance(row, dict) else None
        if kind not in OPERATIONS:
            raise ValueError(f"`type` is one of {', '.join(OPERATIONS)}, found {kind!r}")
        for name in _FIELDS[kind]:
            value = row.get(name)
            texts = value if name == "ids" and isinstance(value, list) else [value]
            if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
                raise ValueError(f"{kind} needs `{name}`")
    return list(data["operations"])


def near_groups(vectors: Sequence[Sequence[float]], least: float) -> list[list[int]]:
    """Indices of unit vectors in groups: each joins the first earlier one whose cosine with it is at least `least`.

    >>> near_groups([(1.0, 0.0), (0.0, 1.0), (0.95, 0.31)], 0.9)
    [[0, 2], [1]]
    """
    groups: list[list[int]] = []
    for i, vector in enumerate(vectors):
        for group in groups:
            if sum(a * b for a, b in zip(vectors[group[0]], vector, strict=True)) >= least - 1e-9:
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


class Playbook:
    """Bullets while a delta is applied, and the operations of the memory that it comes to.

    Args:
        items: What the memory holds; retired items are not shown, but their numbers are never given again.
        allowed: Of OPERATIONS; others are passed over.
        author: Of the operations.
    """

    def __init__(
        self, items: Sequence[Reflection], allowed: Sequence[str] = OPERATIONS[:3], author: str = "ace"
    ) -> None:
        self.items = {r.id: r for r in items if r.status != "retired"}
        self.ops: list[MemoryOp] = []
        self.next = next_number(r.id for r in items)
        """The number that the next bullet gets."""
        self._allowed, self._author = allowed, author

    def apply(self, rows: Sequence[Mapping[str, Any]], lessons: Sequence[Reflection]) -> None:
        """Applies a delta; what was learned is filed under the lesson that it was most likely made of."""
        for row in rows:
            if row["type"] not in self._allowed:
                self.note(f"{row['type']} is not allowed")
            elif row["type"] == "ADD":
                self.add(row["section"], row["content"].strip(), source_of(row["content"], lessons))
            elif row["type"] == "MERGE":
                self.merge(list(row["ids"]), row["content"].strip())
            elif row["id"] not in self.items:
                self.note(f"{row['type']} of unknown id {row['id']!r}")
            elif row["type"] == "UPDATE":
                self.update(row["id"], row["content"].strip(), source_of(row["content"], lessons))
            else:
                self.retire(row["id"], "deleted", self._author)

    def add(self, section: str, text: str, source: Reflection) -> None:
        """A new bullet, under the next number."""
        new = source.replace(id=f"{section_slug(section)}-{self.next:05d}", text=text, status="active")
        self.next += 1
        self.items[new.id] = new
        self._log(MemoryOp(op="ADD", reflection=new.id, item=new, reason="new", author=self._author))

    def update(self, id: str, text: str, source: Reflection) -> None:
        """Another text for a bullet; its counters stay."""
        old = self.items[id]
        attempts = tuple(dict.fromkeys((*old.attempts, *source.attempts)))
        self.items[id] = old.replace(text=text, attempts=attempts, task=source.task or old.task)
        self._log(
            MemoryOp(op="UPDATE", reflection=id, item=self.items[id], reason="says it better", author=self._author)
        )

    def merge(self, ids: Sequence[str], text: str) -> None:
        """Several bullets into the first of them, counters summed."""
        known = [i for i in dict.fromkeys(ids) if i in self.items]
        if len(known) < 2:
            return self.note(f"MERGE of {', '.join(ids)}: fewer than two are known")
        first, *others = known
        attempts = tuple(dict.fromkeys(a for i in known for a in self.items[i].attempts))
        new = self.items[first].replace(text=text, attempts=attempts)
        reason = f"merges {', '.join(others)}"
        self._log(
            MemoryOp(op="MERGE", reflection=first, item=new, others=tuple(others), reason=reason, author=self._author)
        )
        counted = [self.items.pop(i).counters for i in others]
        helped, harmed = sum(c.helped for c in counted), sum(c.harmed for c in counted)
        own = new.counters
        self.items[first] = new.replace(counters=own.replace(helped=own.helped + helped, harmed=own.harmed + harmed))
        for _ in range(helped):
            self._log(MemoryOp(op="TAG", reflection=first, tag="helped", reason=reason, author=self._author))
        for _ in range(harmed):
            self._log(MemoryOp(op="TAG", reflection=first, tag="harmed", reason=reason, author=self._author))

    def retire(self, id: str, reason: str, author: str) -> None:
        """Takes a bullet out."""
        del self.items[id]
        self._log(MemoryOp(op="RETIRE", reflection=id, reason=reason, author=author))

    def evict(self, budget: int) -> None:
        """Retires bullets until `budget` tokens are left, about: lowest helpful - harmful, then oldest first."""
        sizes = {i: len(bullet(r).encode("utf-8", "replace")) // 4 + 1 for i, r in self.items.items()}
        total = sum(sizes.values())
        worst = sorted(self.items, key=lambda i: self.items[i].counters.helped - self.items[i].counters.harmed)
        for id in worst:  # sorting keeps the order of age among equals
            if total <= budget:
                break
            total -= sizes[id]
            self.retire(id, "over budget", "budget")

    def note(self, reason: str) -> None:
        """A NOOP that says why nothing was done."""
        self._log(MemoryOp(op="NOOP", reason=reason, author=self._author))

    def _log(self, op: MemoryOp) -> None:
        self.ops.append(op)


class AceCurator:
    """Turns lessons into a delta of a playbook; a reply that cannot be read changes nothing.

    Args:
        model: Who writes the delta; None compares words: a lesson that says more, or contradicts, updates its bullet,
            one that says the same changes nothing, any other is added.
        budget: Tokens of the playbook at most (a token for four bytes).
        allowed: Of ADD, UPDATE, MERGE, DELETE.
        merge_at: Cosine from which bullets are merged into the first; 0 merges none. Without a model only those whose
            words say the same.
        embedder: For `merge_at`: name of an embedder part that costs nothing.
        prompt: Name of the prompt (variables playbook, statistics, lessons, budget, sections).
        prompts: A folder of the user's that overrides prompts of the package.
        tries: Replies asked for at most, the first included.
        max_tokens: Of one reply.
    """

    author = "ace"

    def __init__(
        self,
        model: Model | None = None,
        *,
        budget: int = 80_000,
        allowed: Sequence[str] = OPERATIONS[:3],
        merge_at: float = 0.0,
        embedder: str = "hashing",
        prompt: str = "memory/ace_delta",
        prompts: str | None = None,
        tries: int = 3,
        max_tokens: int = 4096,
    ) -> None:
        if budget < 1 or tries < 1 or not 0 <= merge_at <= 1 or not set(allowed) <= set(OPERATIONS):
            what = f"budget {budget}, tries {tries}, merge_at {merge_at}, allowed {list(allowed)}"
            raise ConfigError(what, where="ace", todo=f"1 or more; 1 or more; 0 to 1; of {', '.join(OPERATIONS)}")
        self._model, self._budget, self._allowed, self._merge_at = model, budget, tuple(allowed), merge_at
        self._embedder: Embedder | None = make_part("memory", embedder) if merge_at else None
        if getattr(self._embedder, "price", 0):
            raise ConfigError(f"embedder {embedder!r} is paid for", where="ace", todo="name one that costs nothing")
        self._prompt, self._prompts = load_prompt(prompt, prompts), prompts
        self._tries, self._max_tokens = tries, max_tokens

    async def propose(self, lessons: Sequence[Reflection], existing: Sequence[Reflection]) -> list[MemoryOp]:
        """ADD, UPDATE, MERGE (with TAGs that sum the counters) and RETIRE, in the order they apply.

        Raises:
            ModelError: a call failed (nothing is proposed then).
        """
        book = Playbook(existing, self._allowed, self.author)
        forget = [r for r in lessons if r.status == "retired"]
        for op in await NoveltyCurator().propose(forget, list(book.items.values())) if forget else []:
            if op.op == "RETIRE":
                book.retire(op.reflection, op.reason, self.author)
        taught = [r for r in lessons if r.status != "retired" and r.text.strip()]
        if taught and self._model is not None:
            await self._asked(self._model, taught, book)
        else:
            for lesson in taught:
                await _compared(lesson, book)
        if self._embedder is not None:
            await self._merge_near(self._embedder, book)
        book.evict(self._budget)
        return book.ops

    async def _asked(self, model: Model, lessons: Sequence[Reflection], book: Playbook) -> None:
        items = list(book.items.values())
        text = self._prompt.fill(
            playbook=playbook(items),
            statistics=", ".join(f"{v} {k}" for k, v in statistics(items).items()),
            lessons="\n".join(f"- {' '.join(r.text.split())}" for r in lessons),
            budget=str(self._budget),
            sections="; ".join(h.lower() for h in SECTIONS.values()),
        )
        delta = await ask(
            model, text, read_delta, tries=self._tries, max_tokens=self._max_tokens, form="the JSON object"
        )
        if isinstance(delta, str):
            book.note(delta)
        else:
            book.apply(delta, lessons)

    async def _merge_near(self, embedder: Embedder, book: Playbook) -> None:
        items = list(book.items.values())
        vectors = await asyncio.to_thread(embedder.embed, [r.text for r in items])
        for group in near_groups(vectors, self._merge_at):
            same = [items[i] for i in group]
            if self._model is None:
                same = [r for r in same if r is same[0] or await relation(r, same[0]) in ("same", "more")]
            if len(same) > 1:
                texts = await condensed(self._model, same, most=1, prompts=self._prompts)
                if len(texts) == 1:
                    book.merge([r.id for r in same], texts[0].text)


async def _compared(lesson: Reflection, book: Playbook) -> None:
    kind, item = await closest(lesson, book.items.values())
    if item is None:
        section = lesson.title if section_slug(lesson.title) != "misc" else "sai"
        book.add("err" if lesson.polarity == "avoid" else section, lesson.text, lesson)
    elif kind == "same":
        book.note(f"the same as {item.id}")
    else:
        book.update(item.id, lesson.text, lesson)


__all__ = [  # noqa: RUF022  (the part comes first)
    "AceCurator", "OPERATIONS", "SECTIONS", "Playbook", "bullet", "near_groups", "next_number", "playbook",
    "read_delta", "section_slug", "statistics",
]  # fmt: skip
