"""A correction on its way: a person's words or query, verified by trying, filed with the outcome (`corrections.py`)."""

from __future__ import annotations

import dataclasses

from verbal.contracts import Observation
from verbal.errors import ConfigError, DataError
from verbal.types import Attempt, MemoryOp, Reflection, Task

from .. import _said
from . import answered, corrections
from .answer import Answer, result_fields
from .clarify import same_result
from .corrections import Correction, own_words
from .replies import parse_sql
from .session import Session
from .turn import Turn


async def correct(session: Session, answer: Answer | str, words: str = "", sql: str = "") -> Correction:
    """Learns from a person's words or query: verified, filed in quarantine, the answer counted as wrong.

    Raises:
        UnknownName: no such answer. DataError: nothing was said, it must not be kept (a secret, an instruction), or the
            answer is of another database or memory.
        ConfigError: the memory is pinned at a version, or there is none.
    """
    record = session.own(answer if isinstance(answer, str) else answer.id)
    said, query = own_words(words), _query(sql)
    if not said and not query:
        raise DataError("nothing was said", todo='give words, or a query: --sql "SELECT ..."')
    if session.trials() is None or session.shop.curator is None:
        why = f"memory {session.memory!r} is pinned at a version" if session.pinned else "no memory is in use"
        raise ConfigError(f"{why}, so nothing can be learned", todo="leave --memory out, or name one")
    if said:
        corrections.check_lesson(Reflection(id="", text=said))
    turn = await session.begin(record["question"], record["asked"], record["task"])
    await turn.look_up()
    attempt = session.shop.store.attempt(record["attempt"]) if record["attempt"] else None
    seen = await session.app.execute(turn.task, attempt.answer) if attempt else Observation(text="no answer", done=True)
    if query:
        return await _by_query(session, turn, record, attempt, seen, said, query)
    return await _by_words(session, turn, record, attempt, seen, said)


async def _by_words(
    session: Session, turn: Turn, record: answered.Record, attempt: Attempt | None, seen: Observation, said: str
) -> Correction:
    lesson = Reflection(id=f"new:{turn.id}", text=said, when=record["asked"], attempts=_ids(attempt))
    tried, now = await turn.tried(lesson, round_=1)
    works = bool(tried.answer) and not now.info.get("error")
    if attempt is not None and attempt.steps and {r.id for r in turn.lessons} != set(attempt.steps[0].shown):
        # Other lessons than then are shown now: what they change is not the doing of this one.
        _, seen = await turn.tried(None, round_=2)
    changed = works and (attempt is None or not same_result(now, seen))
    told = "it changes the answer" if changed else "it does not change the answer of this model"
    made = await _file(session, record, attempt, "words", lesson, told, said=said)
    if not changed:
        return made
    fields = result_fields(tried.answer, now, turn.asked, turn.named, session.dialect, session.rows_cap())
    return dataclasses.replace(made, answer=session.conclude(turn, "answered", attempt=tried.id, **fields))


async def _by_query(
    session: Session,
    turn: Turn,
    record: answered.Record,
    attempt: Attempt | None,
    seen: Observation,
    said: str,
    query: str,
) -> Correction:
    right = await session.app.execute(turn.task, query)
    if why := right.info.get("error"):
        return _refused(record, "sql", f"the corrected query does not run, so nothing was kept: {why}")
    if attempt is not None and attempt.answer and not seen.info.get("error") and same_result(right, seen):
        return _refused(record, "sql", "the corrected query gives the same result, so there is nothing to learn")
    key, text = f"reflect:{turn.id}", ""
    if attempt is not None:
        text, _ = await turn.reflected(attempt, seen, query, said, key)
    lesson, told = None, "no lesson could be drawn from it; say it in words too"
    drawn = Reflection(id=f"new:{turn.id}", text=text, when=record["asked"], attempts=_ids(attempt))
    if text and (why := _unfit(drawn)):
        told = f"the lesson drawn from it must not be kept ({why}), so only your query is"
    elif text:
        tried, now = await turn.tried(drawn, round_=1)
        if tried.answer and same_result(now, right):
            lesson, told = drawn, "with the lesson the model gives the result of your query"
        else:
            told = f"the lesson drawn from it ({text}) does not lead to your result, so it is not kept"
    if lesson is None and said:
        lesson = Reflection(id=f"new:{turn.id}", text=said, when=record["asked"], attempts=_ids(attempt))
        told += "; your words are kept"
    own = turn.pasted(query, right)
    told += "; asked again, this question gets your query"
    made = await _file(session, record, attempt, "sql", lesson, told, said=said, query=query, task=turn.task)
    # Asked again, the question gets this query; a policy never sees the gold of a task.
    info = {**turn.task.info, "corrected": made.id}
    session.shop.store.put_tasks([turn.task.replace(gold=query, info=info)])
    fields = result_fields(query, right, turn.asked, turn.named, session.dialect, session.rows_cap())
    return dataclasses.replace(made, answer=session.conclude(turn, "answered", attempt=own.id, **fields))


async def _file(
    session: Session, record: answered.Record, attempt: Attempt | None, kind: str, lesson: Reflection | None, told: str,
    *, said: str, query: str = "", task: Task | None = None,
) -> Correction:  # fmt: skip
    """Writes lesson and outcome as one, and what the person said of the attempt."""
    store, memory, ops = session.shop.store, session.trials(), list[MemoryOp]()
    if attempt is not None:
        ops = await corrections.outcome_ops(store, memory, session.shop.credit, record, attempt, 0.0)
    filed: list[MemoryOp] = []
    if lesson is not None and session.shop.curator is not None:
        filed = await corrections.lesson_ops(memory, session.shop.curator, lesson.replace(id=""), record["id"])
    logged = await corrections.write(store, memory, session.shop.credit, [*ops, *filed])
    if attempt is not None:
        store.put_feedback([corrections.said(attempt, value=0.0, text=said, correction=query)])
    held = _said.filed(memory, filed, logged)
    if lesson is not None and held is None:
        told += "; nothing new was filed, for it is known"
    made = answered.add_correction(
        store, record["id"],
        {"kind": kind, "outcome": 0.0, "memory": session.memory, "ops": logged, "words": said, "sql": query,
         "before": [task.gold, task.info.get("corrected", "")] if task else None, "task": task.id if task else ""},
    )  # fmt: skip
    return Correction(
        id=made["id"], answer_id=record["id"], kind=kind, kept=True, says=told, memory=session.memory,
        credited=[op["reflection"] for op in answered.counted(logged)],
        lesson={k: getattr(held, k) for k in ("id", "text", "status")} if held else None,
    )  # fmt: skip


def _refused(record: answered.Record, kind: str, why: str) -> Correction:
    return Correction(id="", answer_id=record["id"], kind=kind, kept=False, says=why)


def _unfit(lesson: Reflection) -> str:
    """Why a lesson that a model drew must not be kept, or an empty text."""
    try:
        corrections.check_lesson(lesson)
    except DataError as error:
        return error.what
    return ""


def _query(sql: str) -> str:
    return parse_sql(sql) or sql.strip().rstrip(";").strip()


def _ids(attempt: Attempt | None) -> tuple[str, ...]:
    return (attempt.id,) if attempt else ()


__all__ = ["correct"]
