"""Curation by a language model: it proposes small operations as JSON, this code checks them, the memory applies them.

A reply that breaks the schema is sent back with what is wrong; after the last try nothing changes. The model never
writes the memory itself, and what it reads of lessons and items is data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from verbal.contracts import Model
from verbal.errors import ConfigError
from verbal.prompt import load_prompt
from verbal.types import MemoryOp, Reflection

from .asking import ask, read_json
from .curator import NoveltyCurator

_FIELDS = {"lesson", "op", "id", "text", "title", "when", "boundary", "reason"}


class LLMCurator:
    """Asks a model what new lessons change.

    Rules applied to its reply: an UPDATE of an unknown id becomes an ADD; UPDATE and RETIRE of one id becomes RETIRE; a
    second UPDATE of one id becomes NOOP; a RETIRE of an unknown id becomes NOOP. A lesson whose status is `retired`
    (somebody asked to forget) is not put to the model: its item is retired.

    Args:
        model: Who is asked; None compares words, as `curator` does.
        prompt: Name of the prompt (variables existing, lessons, count).
        prompts: A folder of the user's that overrides prompts of the package.
        tries: Replies asked for at most, the first included.
        max_tokens: Of one reply.

    Source: Training-Free GRPO, arXiv:2510.08191 (operations, DELETE before UPDATE, three parse retries, no change).
    """

    author = "llm_curator"

    def __init__(
        self,
        model: Model | None,
        *,
        prompt: str = "memory/curator",
        prompts: str | None = None,
        tries: int = 4,
        max_tokens: int = 2048,
    ) -> None:
        if tries < 1:
            raise ConfigError(f"tries {tries} is below 1", where="llm_curator", todo="give 1 or more")
        self._model, self._prompt, self._tries, self._max_tokens = (
            model,
            load_prompt(prompt, prompts),
            tries,
            max_tokens,
        )

    async def propose(self, lessons: Sequence[Reflection], existing: Sequence[Reflection]) -> list[MemoryOp]:
        """One operation for each lesson, in order, given the items already known.

        Raises:
            ModelError: a call failed (nothing is proposed then).
        """
        if self._model is None:
            return await NoveltyCurator().propose(lessons, existing)
        known = {r.id: r for r in existing if r.status != "retired"}
        asked = [lesson for lesson in lessons if lesson.status != "retired"]
        decided = await self._ask(self._model, asked, known) if asked else []
        forget = [self._forget(lesson, known) for lesson in lessons if lesson.status == "retired"]
        retired = {op.reflection for op in (*decided, *forget) if op.op == "RETIRE"}
        ops: list[MemoryOp] = []
        seen: set[str] = set()
        for op in (*decided, *forget):
            if op.op in ("UPDATE", "RETIRE"):
                if op.op == "UPDATE" and op.reflection in retired:
                    op = self._noop(f"{op.reflection} is retired by another lesson")
                elif op.reflection in seen:
                    op = self._noop(f"{op.reflection} is changed by another lesson")
                seen.add(op.reflection)
            ops.append(op)
        return ops

    async def _ask(self, model: Model, lessons: Sequence[Reflection], known: dict[str, Reflection]) -> list[MemoryOp]:
        text = self._prompt.fill(
            existing="\n".join(_line(r, id=r.id) for r in known.values()) or "none",
            lessons="\n".join(_line(r, lesson=i) for i, r in enumerate(lessons, 1)),
            count=str(len(lessons)),
        )
        rows = await ask(
            model, text, lambda reply: read_operations(reply, len(lessons)), tries=self._tries,
            max_tokens=self._max_tokens, form="the JSON object",
        )  # fmt: skip
        if isinstance(rows, str):
            return [self._noop(rows) for _ in lessons]
        return [self._operation(row, lesson, known) for row, lesson in zip(rows, lessons, strict=True)]

    def _operation(self, row: dict[str, Any], lesson: Reflection, known: dict[str, Reflection]) -> MemoryOp:
        op, reason, target = row["op"], row.get("reason", ""), row.get("id", "")
        if op == "NOOP":
            return self._noop(reason)
        if op == "RETIRE":
            if target not in known:
                return self._noop(f"RETIRE of unknown id {target!r}")
            return MemoryOp(op="RETIRE", reflection=target, reason=reason, author=self.author)
        said = {k: row[k].strip() for k in ("text", "title", "when", "boundary") if k in row}
        if op == "UPDATE" and target in known:
            old = known[target]
            attempts = tuple(dict.fromkeys((*old.attempts, *lesson.attempts)))
            item = old.replace(**said, attempts=attempts, task=lesson.task or old.task, embedding=())
            return MemoryOp(op="UPDATE", reflection=target, item=item, reason=reason, author=self.author)
        if op == "UPDATE":
            reason = f"UPDATE of unknown id {target!r}: {reason}"
        return MemoryOp(op="ADD", item=lesson.replace(**said, id=""), reason=reason, author=self.author)

    def _forget(self, lesson: Reflection, known: dict[str, Reflection]) -> MemoryOp:
        same = [i for i, r in known.items() if i == lesson.id or r.text.strip() == lesson.text.strip()]
        if not same:
            return self._noop(f"nothing to forget like {lesson.text or lesson.id!r}")
        reason = lesson.when or "asked to forget"
        return MemoryOp(op="RETIRE", reflection=same[0], reason=reason, author=self.author)

    def _noop(self, reason: str) -> MemoryOp:
        return MemoryOp(op="NOOP", reason=reason, author=self.author)


def read_operations(text: str, count: int) -> list[dict[str, Any]]:
    """The operations of a reply, one for each of `count` lessons, in their order.

    Raises:
        ValueError: the reply is not exactly the JSON that was asked for; says what is wrong with it.
    """
    data = read_json(text)
    if not isinstance(data, dict) or set(data) != {"operations"} or not isinstance(data["operations"], list):
        raise ValueError('the object must have one key, "operations", with a list')
    rows: dict[int, dict[str, Any]] = {}
    for row in data["operations"]:
        _check_row(row, count)
        if row["lesson"] in rows:
            raise ValueError(f"two operations for lesson {row['lesson']}")
        rows[row["lesson"]] = row
    if missing := [i for i in range(1, count + 1) if i not in rows]:
        raise ValueError(f"no operation for lesson {missing[0]}")
    return [rows[i] for i in range(1, count + 1)]


def _check_row(row: Any, count: int) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"an operation is an object, found {json.dumps(row)[:40]}")
    if unknown := sorted(set(row) - _FIELDS):
        raise ValueError(f"unknown field {unknown[0]!r}")
    number, op = row.get("lesson"), row.get("op")
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= count:
        raise ValueError(f"`lesson` is a number from 1 to {count}, found {json.dumps(number)[:40]}")
    if op not in ("ADD", "UPDATE", "RETIRE", "NOOP"):
        raise ValueError(f"`op` is ADD, UPDATE, RETIRE or NOOP, found {json.dumps(op)[:40]}")
    for name in sorted(_FIELDS - {"lesson", "op"}):
        if name in row and not isinstance(row[name], str):
            raise ValueError(f"`{name}` is a text, found {json.dumps(row[name])[:40]}")
    if op in ("ADD", "UPDATE") and not row.get("text", "").strip():
        raise ValueError(f"{op} of lesson {number} needs `text`")
    if op in ("UPDATE", "RETIRE") and not row.get("id", "").strip():
        raise ValueError(f"{op} of lesson {number} needs `id`")


def _line(item: Reflection, **first: Any) -> str:
    """An item as one line of JSON: whatever its text says, it cannot leave its quotes."""
    shown = {"text": item.text, "title": item.title, "when": item.when, "boundary": item.boundary}
    counts = {"helped": item.counters.helped, "harmed": item.counters.harmed}
    return json.dumps({**first, **{k: v for k, v in {**shown, **counts}.items() if v}}, ensure_ascii=False)


__all__ = ["LLMCurator"]
