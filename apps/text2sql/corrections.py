"""What a person says of an answer, as evidence: thumbs, words, an edited query. Verified, filed, credited, undone.

Rules:

* Thumbs up is outcome 1, thumbs down and every correction outcome 0. An outcome counts once for an answer, for each
  lesson that was offered to it: at the chance it had of being shown there, shown or withheld (`verbal/loop/offers.py`),
  so that lessons are credited as in the loop. A lesson that was drawn from the very question is shown for certain: that
  is no experiment and moves its value only. Who changes their mind takes the first outcome back. Only answers of which
  something is said are outcomes: the difference between shown and withheld is fair as long as whether a person speaks
  depends on the answer alone, and not on what they know of the lots.
* An edited query has to run, read-only, and to give another result than the answer; then the reflector draws a lesson,
  which is kept when the model, shown it, gives the result of the edited query (as `loop.verify` has it). Words are the
  person's own lesson: kept as they are, and told whether they change the answer.
* An edited query that was kept answers its own question from then on (it is the gold of that task, which no policy
  sees), as long as it runs.
* What is kept is quarantined, through the curator, with who said it and of which answer. Instructions to the model and
  secrets are refused.
* Taking back appends the opposite of each operation: a lesson is retired, an outcome is balanced by its opposite at the
  same chance (the effect is what it was; the evidence keeps a trace of both), a standing is set back, what was
  retired comes back as a new lesson in quarantine. The log only grows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verbal.contracts import Credit, Curator
from verbal.errors import DataError
from verbal.parts import load_function, make_part
from verbal.store import Store
from verbal.types import Attempt, Counters, Feedback, MemoryOp, Reflection

from .answered import Record, add_correction, answer_of, latest_correction, mark_undone

if TYPE_CHECKING:
    from .answer import Answer

LONGEST = 400
"""Characters of a person's words."""
USER = "user"
"""Author of what a person said."""

_LEAD = re.compile(r"^\s*(no|nope|wrong|not quite|incorrect)\s*[:,;.!-]+\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What became of something a person said."""

    id: str
    """Empty where nothing was kept."""
    answer_id: str
    kind: str
    """`up`, `down`, `words`, `sql` or `undo`."""
    kept: bool
    says: str
    """In words, for the person."""
    lesson: dict[str, Any] | None = None
    """The lesson that was filed: id, text, status."""
    credited: list[str] = field(default_factory=list)
    """Lessons whose evidence it counts in."""
    memory: str = ""
    answer: Answer | None = None
    """What the question comes to now."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "answer"}
        return {**plain, "answer": self.answer.to_dict() if self.answer else None}


def open_trials(store: Store, name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The memory of that name, in quarantine and without files: the part `exact`."""
    given = {k: v for k, v in (options or {}).items() if k not in ("name", "folder", "server", "version")}
    return make_part("memory", "exact", store=store, **{**given, "name": name, "quarantine": True})


async def thumbs(store: Store, memory: Any, credit: Credit | None, answer_id: str, up: bool) -> Correction:
    """Counts an answer as right or wrong.

    Raises:
        UnknownName: no such answer. DataError: there is nothing to judge.
    """
    record = answer_of(store, answer_id)
    attempt = judged(store, record)
    kind = "up" if up else "down"
    ops, credited = await outcome_ops(store, memory, credit, record, attempt, float(up))
    logged = await write(store, memory, credit, ops)
    store.put_feedback([said(attempt, value=float(up))])
    made = add_correction(
        store, record["id"], {"kind": kind, "outcome": float(up), "memory": record["memory"], "ops": logged}
    )
    told = f"counted for {', '.join(credited)}" if credited else "no lesson had a part in that answer; it is noted"
    return Correction(
        id=made["id"], answer_id=record["id"], kind=kind, kept=True, says=told, credited=credited,
        memory=record["memory"],
    )  # fmt: skip


async def undo(store: Store, wanted: str = "", db: str = "", memory: Any = None) -> Correction:
    """Takes back what the last correction did (of a database, of an answer, or that one).

    Raises:
        UnknownName: there is none.
    """
    made = latest_correction(store, wanted, db)
    record = answer_of(store, made["answer"])
    opened = memory if memory is not None and memory.name == made["memory"] else open_trials(store, made["memory"])
    try:
        await opened.refresh()
        ops = [back for op in reversed(made["ops"]) if (back := _inverse(op, opened.items(), made["id"])) is not None]
        if ops:
            await opened.apply(ops)
    finally:
        if opened is not memory:
            opened.close()
    mark_undone(store, made["id"])
    task = store.tasks([record["task"]]).get(record["task"])
    if made.get("before") and task is not None and task.info.get("corrected") == made["id"]:
        gold, source = made["before"]  # where a later query stands, it stays
        store.put_tasks([task.replace(gold=gold, info={**task.info, "corrected": source})])
    left = [c for c in answer_of(store, record["id"])["corrections"] if "undone" not in c]
    if attempt := store.attempt(record["attempt"]):
        value = left[-1]["outcome"] if left else None
        reason = "" if left else "taken back by the user"
        store.put_feedback([said(attempt, value=value, reason=reason)])
    retired = [op.reflection for op in ops if op.op == "RETIRE"]
    balanced = [op.reflection for op in ops if op.op == "VALUE"]
    told = [f"lesson {i} retired" for i in retired] + (
        [f"outcome of {', '.join(balanced)} balanced"] if balanced else []
    )
    return Correction(
        id=made["id"], answer_id=record["id"], kind="undo", kept=True, memory=made["memory"], credited=balanced,
        says=f"taken back: {made['kind']} of answer {record['id']}{''.join(f'; {t}' for t in told)}",
    )  # fmt: skip


def _inverse(plain: Mapping[str, Any], items: Mapping[str, Reflection], why: str) -> MemoryOp | None:
    """The operation that takes another one back, or None where nothing is left to take back."""
    op = MemoryOp.from_dict(dict(plain))
    reason, item = f"taken back by the user ({why})", items.get(op.reflection)
    if item is None:
        return None
    if op.op == "RETIRE":
        back = item.replace(id="", status="quarantined", value=None, counters=Counters())
        return MemoryOp(op="ADD", item=back, reason=f"{reason}: {item.id} again", author=USER)
    if item.status == "retired":
        return None
    if op.op == "ADD":
        return MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author=USER)
    if op.op == "VALUE" and op.outcome is not None:
        return op.replace(
            outcome=1.0 - op.outcome, delta=-op.delta, attempt=f"{op.attempt}#{why}", reason=reason, author=USER
        )
    if op.op == "TAG" and op.tag in ("active", "quarantined"):
        other = "quarantined" if op.tag == "active" else "active"
        return MemoryOp.from_dict({"op": "TAG", "reflection": item.id, "tag": other, "reason": reason, "author": USER})
    return None


def judged(store: Store, record: Record) -> Attempt:
    """The attempt that an answer stands for.

    Raises:
        DataError: the answer is none of the model's (it abstained, or the SQL was the person's own).
    """
    attempt = store.attempt(record["attempt"]) if record["attempt"] else None
    if attempt is None:
        raise DataError(f"answer {record['id']} holds no query to judge ({record['status']})", todo="ask again")
    return attempt


async def outcome_ops(
    store: Store, memory: Any, credit: Credit | None, record: Record, attempt: Attempt, outcome: float
) -> tuple[list[MemoryOp], list[str]]:
    """VALUE operations for what was offered to an answer, and the lessons they count for; an earlier, other outcome
    is balanced first, an equal one is not counted again.
    """
    offered = attempt.steps[0].offered if attempt.steps else {}
    if credit is None or memory is None or not offered:
        return [], []
    await memory.refresh()
    ops: list[MemoryOp] = []
    was = _standing(record)
    if was and was[0]["outcome"] == outcome:
        return [], []
    if was:
        why = f"{record['id']}.{len(record['corrections']) + 1}"
        ops = [back for op in was if (back := _inverse(op, memory.items(), why)) is not None]
    again = f"#{len(record['corrections']) + 1}" if record["corrections"] else ""
    shown = attempt.steps[0].shown
    values = credit.observe(f"{attempt.id}{again}", offered, shown, outcome, memory.preview(ops))
    reason = f"{'right' if outcome else 'wrong'}, said the user of answer {record['id']}"
    return [*ops, *(op.replace(reason=reason) for op in values)], [op.reflection for op in values]


def _standing(record: Record) -> list[dict[str, Any]]:
    """The VALUE operations by which an answer counts now: the latest that were not taken back."""
    for made in reversed(record["corrections"]):
        values = [op for op in made["ops"] if op["op"] == "VALUE" and op["author"] != USER]
        if values and "undone" not in made:
            return values
    return []


async def lesson_ops(memory: Any, curator: Curator, lesson: Reflection, answer_id: str) -> list[MemoryOp]:
    """The operations that file a lesson, as the curator proposes them; in the person's name where words are written.

    Raises:
        DataError: it is empty, too long, holds a secret, or speaks to the model.
    """
    check_lesson(lesson)
    await memory.refresh()
    proposed = await curator.propose([lesson], list(memory.items().values()))
    reason = f"said by the user of answer {answer_id}"
    return [
        op.replace(author=USER, reason=f"{reason}{f': {op.reason}' if op.reason else ''}") if op.item or op.op == "NOOP"
        else op
        for op in proposed
    ]  # fmt: skip


def check_lesson(lesson: Reflection) -> None:
    """Refuses a lesson that must not be kept.

    Raises:
        DataError: it is empty, too long, holds a secret, or speaks to the model rather than of the data.
    """
    if not re.search(r"\w", lesson.text):
        raise DataError("a correction without words", todo="say what should have been known")
    if len(lesson.text) > LONGEST:
        todo = "say it in a sentence or two, or give several corrections"
        raise DataError(f"a correction of {len(lesson.text):,} characters, at most {LONGEST}", todo=todo)
    if kinds := sorted({s.kind for s in load_function("memory", "leaks", "find_secrets")(lesson.text)}):
        what = f"the correction seems to hold a secret ({', '.join(kinds)}); nothing was kept"
        raise DataError(what, todo="leave keys, passwords and personal data out and say it again")
    if why := load_function("memory", "screening", "instruction")(lesson):
        raise DataError(f"the correction was not taken: {why}", todo="say what is known of the data, and no more")


async def write(store: Store, memory: Any, credit: Credit | None, ops: Sequence[MemoryOp]) -> list[dict[str, Any]]:
    """Applies operations and what credit settles after them; gives those that counted, as they are in the log."""
    if memory is None or not ops:
        return []
    known = memory.items()
    settled = credit.settle(memory.preview(ops)) if credit is not None and any(o.op == "VALUE" for o in ops) else []
    wanted = [*ops, *(op for op in settled if op.reflection in known)]
    before = memory.version
    await memory.apply(wanted)
    # Another writer may have been between: ours are told by what they do and by their reason.
    marks = {(op.op, op.reason) for op in wanted}
    return [op.to_dict() for _, op in store.ops(memory.name, before) if op.op != "NOOP" and (op.op, op.reason) in marks]


def own_words(text: str) -> str:
    """A person's words without the `no:` before them.

    >>> own_words("no: revenue excludes returns")
    'revenue excludes returns'
    """
    return " ".join(_LEAD.sub("", text, count=1).split())


def said(attempt: Attempt, **fields: Any) -> Feedback:
    """Feedback of the person who asked."""
    if fields.get("value") is None:
        fields.setdefault("reason", "the user gave words only")
    return Feedback(attempt=attempt.id, critic=USER, source="user", **fields)


__all__ = [
    "LONGEST", "Correction", "check_lesson", "judged", "lesson_ops", "open_trials", "outcome_ops", "own_words", "said",
    "thumbs", "undo", "write",
]  # fmt: skip
