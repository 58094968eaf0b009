"""An answer of the assistant as a turn of a chat: as a page gets it, and as it is kept without its rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from verbal.store import Store
from verbal.types import Step, Usage

from ..text2sql.answer import Answer
from ..text2sql.answered import Record, standing
from ..text2sql.charts import choose_chart
from .databases import Source
from .faults import Fault, clean
from .results import Result, Results, run_again

_KEY = "turn"
RUN_AGAIN = 10
"""Turns of a chat, the latest ones, whose queries are run again when it is opened and their rows are gone."""
_NO_ROWS: dict[str, Any] = {"columns": [], "types": [], "rows": [], "row_count": 0, "truncated": False, "chart": None}


def turn_of(answer: Answer, result: Result | None, items: Mapping[str, Any]) -> dict[str, Any]:
    """The turn that an answer is.

    Args:
        answer: With its record in the store.
        result: Its rows, where it has any.
        items: The memory's lessons by id, for when each applies.
    """
    shown = result is not None and answer.status in ("answered", "ambiguous") and not answer.error
    used = sum(answer.usage.values(), Usage())
    return {
        "id": answer.id, "kind": "sql", "text": answer.question, "status": answer.status, "reply": reply_of(answer),
        "lessons": lessons_of(answer.lessons, answer.memory, items), "understood": None, "tools": [],
        "sql": answer.answer, **(result.first() if shown and result else _NO_ROWS),
        "chart": answer.chart if shown else None, "explanation": answer.explanation, "limits": list(answer.limits),
        "readings": readings_of(answer.readings), "reason": clean(answer.reason), "agreement": answer.agreement,
        "asked": answer.asked, "named": answer.understood.text, "says": answer.says,
        "error": clean(answer.error) if answer.error else None,
        "usage": {"calls": used.calls, "tokens": used.tokens, "cost": used.cost, "seconds": round(answer.seconds, 3)},
    }  # fmt: skip


def lessons_of(told: Sequence[Mapping[str, Any]], memory: str, items: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lessons that were shown to the model, with when each applies."""
    return [
        {**lesson, "when": items[lesson["id"]].when if lesson["id"] in items else "", "memory": memory, "used": True}
        for lesson in told
    ]


def readings_of(readings: Sequence[Any]) -> list[dict[str, Any]]:
    """The readings between which a person chooses."""
    return [{"number": r.number, "text": r.words or r.sql, "sql": r.sql} for r in readings]


def reply_of(answer: Answer) -> str:
    """What is said of an answer, in a sentence."""
    if answer.status == "ambiguous":
        return f"This can be read in {len(answer.readings)} ways. Which one is meant?"
    if answer.words:
        return answer.words
    if answer.status == "answered" and not answer.reason:
        return _result_words(answer)
    told = clean(answer.reason)
    if answer.error and answer.status == "failed":
        told = f"{told}: {clean(answer.error)}" if told else clean(answer.error)
    return f"{told[:1].upper()}{told[1:]}." if told and told[-1] not in ".?!" else told


def _result_words(answer: Answer) -> str:
    """The result in words where it is one cell, else its size."""
    if answer.row_count == 1 and len(answer.columns) == 1 and answer.rows:
        value = answer.rows[0][0]
        if value is None:
            return "NULL"
        # A cell is data: as code it is no Markdown.
        told = (
            f"{value:,}"
            if isinstance(value, int | float)
            else f"`{' '.join(str(value).replace('`', chr(39)).split())}`"
        )
        return told if 2 < len(told) <= 200 or not told.startswith("`") else ""
    return "" if answer.row_count else "No row fits."


def keep_turn(store: Store, turn: Mapping[str, Any]) -> None:
    """Keeps a turn beside its record, without rows: these are in the database."""
    kept = {k: v for k, v in turn.items() if k not in (*_NO_ROWS, "corrections", "verdict", "at")}
    kept["row_count"] = turn["row_count"]
    store.put_step(str(turn["id"]), _KEY, Step(author="environment", role="web", text=json.dumps(kept, default=str)))


def with_record(turn: dict[str, Any], record: Record) -> dict[str, Any]:
    """A turn with what was said of it since."""
    last = standing(record)
    said = [
        {"id": c["id"], "kind": c["kind"], "words": c.get("words") or c.get("sql") or "", "undone": "undone" in c}
        for c in record["corrections"]
    ]
    verdict = None if last is None or last["kind"] == "choose" else "up" if last["outcome"] else "down"
    return {**turn, "corrections": said, "verdict": verdict, "at": record["at"]}


def kept_turn(store: Store, record: Record) -> dict[str, Any]:
    """The turn of a record, without rows."""
    if (step := store.step(record["id"], _KEY)) is not None:
        return with_record({**json.loads(step.text), **_NO_ROWS, "rows": None, "row_count": None}, record)
    readings = [
        {"number": i, "text": r.get("words") or r["sql"], "sql": r["sql"]} for i, r in enumerate(record["readings"], 1)
    ]
    plain = {
        "id": record["id"], "kind": "sql", "text": record["question"], "status": record["status"], "reply": "",
        "lessons": [], "understood": None, "tools": [], "sql": record["sql"], **_NO_ROWS, "rows": None,
        "row_count": None, "explanation": "", "limits": [], "readings": readings, "reason": "", "agreement": None,
        "asked": record["asked"], "named": "", "says": record.get("says", ""), "error": None,
        "usage": {"calls": 0, "tokens": 0, "cost": None, "seconds": 0.0},
    }  # fmt: skip
    return with_record(plain, record)


async def turns_of(
    store: Store, results: Results, records: Sequence[Record], source: Source | None
) -> list[dict[str, Any]]:
    """The turns of a chat; the latest with their rows, which are asked for again where they are gone.

    Args:
        store: Where they are kept.
        results: Rows that are still there.
        records: Of the answers, oldest first.
        source: The database, where this server has it.
    """
    turns = await asyncio.to_thread(lambda: [kept_turn(store, r) for r in records])
    fresh = {t["id"] for t in turns[-RUN_AGAIN:]}

    async def filled(turn: dict[str, Any]) -> dict[str, Any]:
        if turn["status"] not in ("answered", "ambiguous") or turn.get("error") or not turn["sql"]:
            return {**turn, **_NO_ROWS}
        result = results.get(turn["id"])
        if result is None and turn["id"] in fresh and source is not None:
            try:
                result = await run_again(source, turn["sql"])
                results.keep(turn["id"], result)
            except Fault as error:
                return {**turn, **_NO_ROWS, "limits": [*turn["limits"], clean(str(error))]}
        if result is None:
            return turn
        few = len(result.rows) <= 50_000
        chart = await asyncio.to_thread(choose_chart, result.columns, result.rows, turn["asked"]) if few else None
        return {**turn, **result.first(), "chart": chart}

    return list(await asyncio.gather(*map(filled, turns)))


__all__ = [
    "RUN_AGAIN", "keep_turn", "kept_turn", "lessons_of", "readings_of", "reply_of", "turn_of", "turns_of",
    "with_record",
]  # fmt: skip
