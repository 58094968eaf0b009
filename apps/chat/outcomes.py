"""What a person says of answers and lessons, written down: outcomes, lessons, and the way back.

Rules beyond those of `apps/_said.py`:

* A lesson that a person taught for themselves is an instruction of theirs: it is shown for certain where it fits, which
  is no experiment. Its counters say how often it was shown and what was said of those answers. It stays quarantined:
  what one person wants is no evidence for others.
* A lesson of the team, or of all, is shown by lot and believed by outcomes, as everywhere in the house.
* Thumbs up is outcome 1; thumbs down, a correction, an edit and asking again are outcome 0, once for a turn. A turn may
  have lessons of several memories: it counts in each.
* The same words for another situation widen a lesson; the opposite words for the same situation replace it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verbal.contracts import Credit
from verbal.errors import DataError
from verbal.store import Store
from verbal.types import Attempt, MemoryOp, Reflection

from .._said import USER, check_lesson, counted, outcome_ops, said, standing, undo_ops, write
from . import kept
from .changes import telling
from .kept import Record
from .turn import Understanding

SAY = "say how answers should be, and no more"
"""What to do when a lesson is refused."""
_SMALL = "no not never none without avoid don t do dont stop always alway please use skip"
_NEGATIONS = frozenset(_SMALL.split())


async def count(
    store: Store,
    memories: Mapping[str, Any],
    credit: Credit | None,
    record: Record,
    outcome: float,
    *,
    kind: str,
    **fields: Any,
) -> Record | None:
    """Counts an answer as right or wrong; gives the correction, or None when it counts so already.

    Args:
        store: The store.
        memories: Name -> memory.
        credit: Who turns outcomes into credit.
        record: Of the turn.
        outcome: 1 or 0.
        kind: What was said.
        fields: Kept with the correction: `words`, `before`, `text`.

    Raises:
        DataError: the turn has no answer of a model.
    """
    attempt = judged(store, record)
    ops: dict[str, list[Record]] = {}
    for name, offer in record["offers"].items():
        if (memory := memories.get(name)) is not None:
            view = _view(record, name)
            made = await outcome_ops(memory, credit, view, attempt.id, offer["offered"], offer["shown"], outcome)
            if logged := await write(store, memory, credit, made):
                ops[name] = logged
    last = standing(_view(record, ""))
    if kind in ("up", "down") and last is not None and last["outcome"] == outcome and not ops:
        return None
    store.put_feedback(
        [said(attempt, value=outcome, text=fields.get("words", ""), correction=str(fields.get("text", "")))]
    )
    counts = {name: counted(logged) for name, logged in ops.items()}
    return kept.add_correction(store, record["id"], {"kind": kind, "outcome": outcome, "ops": ops, **fields}, counts)


def judged(store: Store, record: Record) -> Attempt:
    """The answer of a turn.

    Raises:
        DataError: no model gave one.
    """
    attempt = store.attempt(record["attempt"]) if record["attempt"] else None
    if attempt is None or record["status"] not in ("answered", "failed", "refused") or not attempt.model:
        what = f"turn {record['id']} holds no answer of a model to judge ({record['status']})"
        raise DataError(what, todo="say it of an answer")
    return attempt


async def teach(
    store: Store, memory: Any, read: Understanding, turn: str, *, kind: str = "teach"
) -> tuple[Reflection, Record | None, bool]:
    """Files a lesson of a person in their memory: the item, the correction of it, and whether it was known.

    Raises:
        DataError: it is empty, too long, holds a secret, or speaks to the model rather than of answers.
    """
    lesson = Reflection(
        id="", kind="rule", text=_ended(read.lesson), when=read.when, boundary=read.boundary, polarity=read.polarity,
        scope="global",
    )  # fmt: skip
    check_lesson(lesson, todo=SAY)
    await memory.refresh()
    items = [r for r in memory.items().values() if r.status != "retired"]
    for item in items:
        if _same(item, lesson):
            wider = _joined(item, lesson)
            if (wider.when, wider.boundary) == (item.when, item.boundary):
                return item, None, True
            return (*await reword(store, memory, item, wider, turn, kind=kind, words=read.lesson), False)
        if _opposite(item, lesson):
            changed = item.replace(text=lesson.text, polarity=lesson.polarity, boundary=lesson.boundary)
            return (*await reword(store, memory, item, changed, turn, kind=kind, words=read.lesson), False)
    reason = f"said by the user of {turn}"
    logged = await write(store, memory, None, [MemoryOp(op="ADD", item=lesson, reason=reason, author=USER)])
    added = [op["reflection"] for op in logged if op["op"] == "ADD"]
    if not added:
        raise DataError("the lesson was not taken", where=f"memory {memory.name!r}", todo=SAY)
    made = kept.add_correction(store, turn, {"kind": kind, "ops": {memory.name: logged}, "words": read.lesson})
    return memory.items()[added[-1]], made, False


async def reword(
    store: Store, memory: Any, item: Reflection, new: Reflection, turn: str, *, kind: str, words: str = ""
) -> tuple[Reflection, Record]:
    """Gives a lesson other words; an active one is retired and begins anew, as nobody has tried the new words.

    Raises:
        DataError: the new words must not be kept.
    """
    check_lesson(new, todo=SAY)
    reason = f"{kind} by the user of {turn}"
    ops = [MemoryOp(op="UPDATE", reflection=item.id, item=new, reason=reason, author=USER)]
    if item.status == "active":
        ops = [
            MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author=USER),
            MemoryOp(op="ADD", item=new.replace(id=""), reason=reason, author=USER),
        ]
    logged = await write(store, memory, None, ops)
    told = {"kind": kind, "ops": {memory.name: logged}, "words": words, "items": {item.id: item.to_dict()}}
    made = kept.add_correction(store, turn, told)
    last = [op["reflection"] for op in logged if op["op"] in ("ADD", "UPDATE")]
    return memory.items()[last[-1] if last else item.id], made


async def retire(store: Store, memory: Any, items: Sequence[Reflection], turn: str, *, words: str = "") -> Record:
    """Retires lessons."""
    reason = f"forgotten by the user of {turn}"
    ops = [MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author=USER) for item in items]
    logged = await write(store, memory, None, ops)
    return kept.add_correction(store, turn, {"kind": "forget", "ops": {memory.name: logged}, "words": words})


async def take_back(
    store: Store, memories: Mapping[str, Any], made: Record, record: Record, called: Callable[[str], str]
) -> list[str]:
    """Takes a correction back; says what that changed. `called`: how the person knows `memory:id`."""
    told: list[str] = []
    counts: dict[str, list[Record]] = {}
    for name in {*made["ops"], *(record["counts"] if made["outcome"] is not None else ())}:
        memory = memories.get(name)
        if memory is None:
            told.append(f"memory {name} is not yours any more, so it stays as it is")
            continue
        await memory.refresh()
        view = _view(record, name, also=made["id"])
        own = next(c for c in view["corrections"] if c["id"] == made["id"])
        ops, counts[name] = undo_ops(view, own, memory.items())
        ops += _worded_back(made, own, memory.items())
        if ops:
            await memory.apply(ops)
        told += [f"lesson {called(f'{name}:{op.reflection}')} retired" for op in ops if op.op == "RETIRE"]
        told += [f"it is back: {op.item.text}" for op in ops if op.op == "ADD" and op.item]
        told += [f"lesson {called(f'{name}:{op.reflection}')} as it was" for op in ops if op.op == "UPDATE"]
        counted_for = dict.fromkeys(called(f"{name}:{op.reflection}") for op in ops if op.op == "VALUE")
        told += [f"it does not count for {', '.join(counted_for)} any more"] if counted_for else []

    def mark(turn: Record) -> None:
        next(c for c in turn["corrections"] if c["id"] == made["id"])["undone"] = time.time()
        turn["counts"].update(counts)
        if made["kind"] == "edit":
            turn["edited"] = made.get("before")

    left = kept.change(store, record["id"], mark)
    if made["outcome"] is not None and (attempt := store.attempt(record["attempt"])) is not None:
        last = standing(_view(left, ""))
        fields = {"value": last["outcome"], "text": last["words"]} if last else {"reason": "taken back by the user"}
        store.put_feedback([said(attempt, **fields)])
    return told


def credited(made: Record) -> list[str]:
    """Lessons that a correction counts for, as `memory:id`."""
    return [f"{name}:{op['reflection']}" for name, ops in made["ops"].items() for op in counted(ops)]


def _view(record: Record, memory: str, also: str = "") -> Record:
    """A turn as one memory sees it: what was said of the answer, with the operations there."""
    told = [c for c in record["corrections"] if c["outcome"] is not None or c["id"] == also]
    corrections = [{**c, "ops": c["ops"].get(memory, [])} for c in told]
    return {"id": record["id"], "corrections": corrections, "counts": record["counts"].get(memory) or []}


def _worded_back(made: Record, own: Record, items: Mapping[str, Reflection]) -> list[MemoryOp]:
    """The operations that give lessons the words back that they had."""
    ops = []
    for op in own["ops"]:
        old = made.get("items", {}).get(op["reflection"])
        item = items.get(op["reflection"])
        if op["op"] == "UPDATE" and old and item is not None and item.status != "retired":
            back = Reflection.from_dict(old)
            reason = f"taken back by the user ({made['id']})"
            ops.append(MemoryOp(op="UPDATE", reflection=item.id, item=back, reason=reason, author=USER))
    return ops


def _joined(item: Reflection, lesson: Reflection) -> Reflection:
    """A lesson that was said again of another situation: it holds in both."""
    when = "" if not item.when or not lesson.when else joined(item.when, lesson.when)
    return item.replace(when=when, boundary=joined(item.boundary, lesson.boundary))


def changed(item: Reflection, read: Understanding) -> Reflection:
    """A lesson after it was narrowed or widened in words."""
    if read.kind == "widen":
        return item.replace(when=joined(item.when, read.when) if item.when and read.when else "")
    return item.replace(when=read.when or item.when, boundary=joined(item.boundary, read.boundary))


def joined(one: str, other: str) -> str:
    """Two situations, or boundaries, in one."""
    parts = [p.strip() for p in f"{one};{other}".split(";") if p.strip()]
    return "; ".join({_folded(p): p for p in reversed(parts)}[f] for f in dict.fromkeys(map(_folded, parts)))


def _opposite(item: Reflection, lesson: Reflection) -> bool:
    """Whether a lesson says the opposite of an item about the same situation."""
    one, other = _wanted(item), _wanted(lesson)
    same_place = _folded(item.when) == _folded(lesson.when)
    return bool(one) and {*one} == {*other} and item.polarity != lesson.polarity and same_place


def _same(item: Reflection, lesson: Reflection) -> bool:
    """Whether two lessons want the same: "no emojis" and "never use emojis", but not X before Y and Y before X."""
    one, other = _wanted(item), _wanted(lesson)
    return item.polarity == lesson.polarity and (one == other if one else _folded(item.text) == _folded(lesson.text))


def _wanted(item: Reflection) -> list[str]:
    return [w for w in telling(item.text) if w not in _NEGATIONS]


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold().replace("'", "").replace("’", "")))


def _ended(text: str) -> str:
    return " ".join(text.split())


__all__ = ["SAY", "changed", "count", "credited", "joined", "judged", "retire", "reword", "take_back", "teach"]
