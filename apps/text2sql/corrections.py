"""What a person says of an answer, as evidence: thumbs, words, an edited query. Verified, filed, credited, undone.

Rules:

* Thumbs up is outcome 1, thumbs down and every correction outcome 0. An outcome counts once for an answer, for each
  lesson that was offered to it: at the chance it had of being shown there, shown or withheld (`verbal/loop/offers.py`),
  so that lessons are credited as in the loop. Of the readings of an answer one is chosen: it was right when that
  is its own, else wrong. A lesson that was drawn from the very question is shown for certain: that is no experiment and
  moves its value only. Who changes their mind takes the first outcome back; who says the same again is told so, and
  nothing is counted. Only answers of which something is said are outcomes: the difference between shown and withheld is
  fair as long as whether a person speaks depends on the answer alone, and not on what they know of the lots.
* An edited query has to run, read-only, and to give another result than the answer; then the reflector draws a lesson,
  which is kept when the model, shown it, gives the result of the edited query (as `loop.verify` has it). Words are the
  person's own lesson: kept as they are, and told whether they change the answer.
* An edited query that was kept answers its own question from then on (it is the gold of that task, which no policy
  sees), as long as it runs.
* What is kept is quarantined, through the curator, with who said it and of which answer. Instructions to the model and
  secrets are refused.
* Taking back appends the opposite of each operation: a lesson is retired, a standing is set back; the retired comes
  back as a new lesson in quarantine. An outcome is balanced by its opposite at the same chance (the effect is what it
  was; the evidence keeps a trace of both), when it is the one that counts and nothing else that was said says the same;
  then what was said before counts again. The log only grows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verbal.contracts import Credit, Curator
from verbal.errors import DataError, UnknownName
from verbal.parts import load_function, make_part
from verbal.store import Store
from verbal.types import Attempt, Counters, Feedback, MemoryOp, Reflection

from .answered import (
    USER,
    Record,
    add_correction,
    answer_of,
    counted,
    latest_correction,
    mark_undone,
    standing,
)

if TYPE_CHECKING:
    from .answer import Answer

LONGEST = 400
"""Characters of a person's words."""
_TOLD = {"up": "thumbs up", "down": "thumbs down", "words": "the words", "sql": "the query", "choose": "the reading"}
_LEAD = re.compile(r"^\s*(no|nope|wrong|not quite|incorrect)\s*[:,;.!-]+\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What became of something a person said."""

    id: str
    """Empty where nothing was kept."""
    answer_id: str
    kind: str
    """`up`, `down`, `words`, `sql`, `choose` or `undo`."""
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
    """Counts an answer as right or wrong; not twice.

    Raises:
        UnknownName: no such answer. DataError: there is nothing to judge.
    """
    record = answer_of(store, answer_id)
    attempt, kind, last = judged(store, record), "up" if up else "down", standing(record)
    ops = await outcome_ops(store, memory, credit, record, attempt, float(up))
    if last is not None and last["outcome"] == float(up) and not ops:
        told = f"it counts as {'right' if up else 'wrong'} already ({last['id']}), so nothing was added"
        return Correction(id="", answer_id=record["id"], kind=kind, kept=False, says=told, memory=record["memory"])
    logged = await write(store, memory, credit, ops)
    store.put_feedback([said(attempt, value=float(up))])
    made = add_correction(
        store, record["id"], {"kind": kind, "outcome": float(up), "memory": record["memory"], "ops": logged}
    )
    lessons = [op["reflection"] for op in counted(logged)]
    told = f"noted as {'right' if up else 'wrong'}; "
    told += f"that counts for {', '.join(lessons)}" if lessons else "no lesson had a part in that answer"
    return Correction(
        id=made["id"], answer_id=record["id"], kind=kind, kept=True, says=told, credited=lessons,
        memory=record["memory"],
    )  # fmt: skip


async def choose(store: Store, memory: Any, credit: Credit | None, record: Record, number: int) -> str:
    """Counts one reading of an answer as the one that was meant; gives the id of that as a correction.

    Raises:
        DataError: there is nothing to judge.
    """
    last = standing(record)
    if last is not None and last["kind"] == "choose" and last["reading"] == number:
        return str(last["id"])
    attempt, readings = judged(store, record), record["readings"]
    outcome = float(readings[number - 1]["attempt"] == record["attempt"])
    logged = await write(store, memory, credit, await outcome_ops(store, memory, credit, record, attempt, outcome))
    words = f"reading {number} of {len(readings)} was meant"
    made = add_correction(
        store, record["id"],
        {"kind": "choose", "outcome": outcome, "memory": record["memory"], "ops": logged, "reading": number,
         "words": words},
    )  # fmt: skip
    _retell(store, answer_of(store, record["id"]))
    return str(made["id"])


async def undo(store: Store, wanted: str = "", db: str = "", memory: Any = None) -> Correction:
    """Takes back what the last correction did (of a database, of an answer, or that one).

    Raises:
        UnknownName: there is none.
    """
    made = latest_correction(store, wanted, db)
    record = answer_of(store, made["answer"])
    ops, counts = list[MemoryOp](), list[Record](record.get("counts") or ())
    if made["memory"]:
        opened = memory if memory is not None and memory.name == made["memory"] else open_trials(store, made["memory"])
        try:
            await opened.refresh()
            ops, counts = _undo_ops(record, made, opened.items())
            if ops:
                await opened.apply(ops)
        finally:
            if opened is not memory:
                opened.close()
    mark_undone(store, made["id"], counts)
    _set_back_query(store, made, made.get("task") or record["task"])
    left = answer_of(store, record["id"])
    _retell(store, left)
    retired = [op.reflection for op in ops if op.op == "RETIRE"]
    balanced = list(dict.fromkeys(op.reflection for op in ops if op.op == "VALUE"))
    told = [f"lesson {i} retired" for i in retired]
    told += [f"it does not count for {', '.join(balanced)} any more"] if balanced else []
    told += [f"what still stands: {_TOLD[last['kind']]} ({last['id']})"] if (last := standing(left)) else []
    return Correction(
        id=made["id"], answer_id=record["id"], kind="undo", kept=True, memory=made["memory"], credited=balanced,
        says="; ".join([f"taken back: {_TOLD[made['kind']]} ({made['id']})", *told]),
    )  # fmt: skip


def _undo_ops(
    record: Record, made: Record, items: Mapping[str, Reflection]
) -> tuple[list[MemoryOp], list[dict[str, Any]]]:
    """What takes a correction back, and the VALUE operations by which its answer counts then."""
    counts: list[dict[str, Any]] = list(record.get("counts") or ())
    others = [c for c in record["corrections"] if "undone" not in c and c["id"] != made["id"]]
    outcome, ops = others[-1]["outcome"] if others else None, list[MemoryOp]()
    if counts and counts[0]["outcome"] != outcome:
        ops = [back for op in counts if (back := _inverse(op, items, made["id"])) is not None]
        same = [o for c in record["corrections"] if (o := counted(c["ops"])) and o[0]["outcome"] == outcome]
        again = [MemoryOp.from_dict(dict(op)) for op in (same[-1] if same else ())]
        fields = {"reason": f"counts again: {made['id']} was taken back by the user", "author": USER}
        again = [
            op.replace(attempt=f"{op.attempt}#{made['id']}+", **fields) for op in again
            if op.reflection in items and items[op.reflection].status != "retired"
        ]  # fmt: skip
        ops, counts = [*ops, *again], [op.to_dict() for op in again]
    rest = (_inverse(op, items, made["id"]) for op in reversed(made["ops"]) if op["op"] != "VALUE")
    return [*ops, *(op for op in rest if op is not None)], counts


def _set_back_query(store: Store, made: Record, task_id: str) -> None:
    """A question gets the query again that stood before one that was taken back, if that one still stands."""
    task = store.tasks([task_id]).get(task_id)
    if not made.get("before") or task is None or task.info.get("corrected") != made["id"]:
        return  # where a later query stands, it stays
    gold, source = made["before"]
    while source:
        try:
            earlier = answer_of(store, source)["corrections"]
        except UnknownName:  # its session is gone
            gold, source = None, ""
            break
        own = next((c for c in earlier if c["id"] == source), None)
        if own is not None and "undone" not in own:
            break
        gold, source = (own and own.get("before")) or (None, "")
    store.put_tasks([task.replace(gold=gold, info={**task.info, "corrected": source})])


def _retell(store: Store, record: Record) -> None:
    """The person's feedback on the attempts of an answer, from what was said of it and not taken back."""
    last, nothing = standing(record), {"value": None, "reason": "taken back by the user"}
    left = [c for c in record["corrections"] if c["kind"] == "choose" and "undone" not in c]
    meant = record["readings"][left[-1]["reading"] - 1]["attempt"] if left else ""
    given: dict[str, dict[str, Any]] = {}
    if any(c["kind"] == "choose" for c in record["corrections"]):
        for reading in record["readings"]:
            value = float(reading["attempt"] == meant)
            given[reading["attempt"]] = {"value": value, "text": left[-1]["words"]} if left else nothing
    given[record["attempt"]] = (
        {"value": last["outcome"], "text": last.get("words", ""), "correction": last.get("sql", "")}
        if last
        else nothing
    )
    for name, fields in given.items():
        if name and (attempt := store.attempt(name)) is not None:
            store.put_feedback([said(attempt, **fields)])


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
) -> list[MemoryOp]:
    """VALUE operations for what was offered to an answer; an earlier, other outcome is balanced first, an equal one is
    not counted again.
    """
    offered = attempt.steps[0].offered if attempt.steps else {}
    was = record.get("counts") or ()
    if credit is None or memory is None or not offered or (was and was[0]["outcome"] == outcome):
        return []
    await memory.refresh()
    why = f"{record['id']}.{len(record['corrections']) + 1}"
    ops = [back for op in was if (back := _inverse(op, memory.items(), why)) is not None]
    again = f"#{len(record['corrections']) + 1}" if record["corrections"] else ""
    shown = attempt.steps[0].shown
    values = credit.observe(f"{attempt.id}{again}", offered, shown, outcome, memory.preview(ops))
    reason = f"{'right' if outcome else 'wrong'}, said the user of answer {record['id']}"
    return [*ops, *(op.replace(reason=reason) for op in values)]


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
    "LONGEST", "Correction", "check_lesson", "choose", "judged", "lesson_ops", "open_trials", "outcome_ops",
    "own_words", "said", "thumbs", "undo", "write",
]  # fmt: skip
