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

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verbal.contracts import Credit
from verbal.errors import DataError, UnknownName
from verbal.store import Store
from verbal.types import Attempt, MemoryOp

from .. import _said
from .._said import LONGEST, check_lesson, lesson_ops, open_trials, own_words, said, undo_ops, write
from .answered import Record, add_correction, answer_of, counted, latest_correction, mark_undone, standing

if TYPE_CHECKING:
    from .answer import Answer

_TOLD = {"up": "thumbs up", "down": "thumbs down", "words": "the words", "sql": "the query", "choose": "the reading"}


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
            ops, counts = undo_ops(record, made, opened.items())
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
    """VALUE operations for what was offered to an answer (`_said.outcome_ops`)."""
    step = attempt.steps[0] if attempt.steps else None
    offered, shown = (step.offered, step.shown) if step else ({}, ())
    return await _said.outcome_ops(memory, credit, record, attempt.id, offered, shown, outcome)


__all__ = [
    "LONGEST", "Correction", "check_lesson", "choose", "judged", "lesson_ops", "open_trials", "outcome_ops",
    "own_words", "said", "thumbs", "undo", "write",
]  # fmt: skip
