"""An answer as a person gets it, and the events in which it comes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from verbal.contracts import Observation
from verbal.types import Usage

from .charts import MOST_POINTS, choose_chart
from .clarify import Reading, Understood
from .explain import explain, filters, tables_in, warnings
from .used import MOST_TOLD, strange_literals, untied, unused

_NEAR = re.compile(r"near ['\"](\w+)")
Status = Literal["answered", "ambiguous", "abstained", "failed", "refused"]
"""What became of a question: answered; two readings, and the person has to choose; the schema cannot answer it; the
model or the query broke; SQL that would write."""

AGREEING = 0.5
"""Share of the candidates below which an answer says that they disagree."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that is known of an answer under way."""

    kind: Literal[
        "asked", "understood", "lessons", "sql", "rows", "chart", "explanation", "words", "limits", "readings", "answer"
    ]
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a question came to."""

    id: str
    """Short; thumbs and corrections name it."""
    question: str
    """As it was typed."""
    asked: str
    """As it was understood: a follow-up is a whole question here."""
    status: Status
    answer: str = ""
    """The SQL."""
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    row_count: int = 0
    says: str = ""
    """The result in one line."""
    error: str | None = None
    reason: str = ""
    """Why there is no answer, or what a person should do, in words."""
    agreement: float | None = None
    understood: Understood = field(default_factory=Understood)
    explanation: str = ""
    """What the query does, from its syntax tree."""
    words: str = ""
    """What the result means, in a model's words, where they were asked for."""
    chart: dict[str, Any] | None = None
    limits: list[str] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    """Between which to choose; empty where the answer is clear."""
    lessons: list[dict[str, Any]] = field(default_factory=list)
    """Shown to the model: id, text, status, chance."""
    usage: dict[str, Usage] = field(default_factory=dict)
    seconds: float = 0.0
    db: str = ""
    memory: str = ""
    attempt: str = ""

    @property
    def question_back(self) -> str:
        """What the person is asked, where there are several readings."""
        if self.status != "ambiguous":
            return ""
        told = "; or ".join(f"({r.number}) {r.words or r.sql}" for r in self.readings)
        return f"this can be read in {len(self.readings)} ways: {told}. Which one is meant?"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        usage = {role: {k: v for k, v in used.to_dict().items() if k != "v"} for role, used in self.usage.items()}
        return {
            **plain, "understood": {**self.understood.to_dict(), "text": self.understood.text},
            "readings": [r.to_dict() for r in self.readings], "usage": usage, "question_back": self.question_back,
            "seconds": round(self.seconds, 4),
        }  # fmt: skip


def result_fields(
    sql: str, seen: Observation, title: str, named: Understood, dialect: str, rows_cap: int
) -> dict[str, Any]:
    """The fields of an answer that follow from its query and result: rows, chart, words, limits."""
    info = seen.info
    columns, rows = list(info.get("columns", ())), list(info.get("rows", ()))
    chart = None if info.get("error") else choose_chart(columns, rows, title)
    return {
        "answer": sql, "columns": columns, "rows": rows, "row_count": int(info.get("row_count", 0)), "says": seen.text,
        "error": info.get("error"), "explanation": explain(sql, dialect) if sql else "", "chart": chart,
        "limits": _limits(sql, info, named, dialect, rows_cap, chart is not None),
    }  # fmt: skip


def _limits(
    sql: str, info: Mapping[str, Any], named: Understood, dialect: str, rows_cap: int, drawn: bool
) -> list[str]:
    """What a reader of the result has to know of its limits."""
    count, found = int(info.get("row_count", 0)), []
    if info.get("truncated"):
        cap = "row cap" if count >= rows_cap else "size cap"
        found.append(f"{cap} reached: these are the first {count:,} rows, there are more")
    found += warnings(sql, dialect) if sql else []
    if info.get("error"):
        found += _of_the_error(sql, info, dialect)
    elif sql:
        found += _of_the_question(sql, named, dialect)
    if not info.get("error") and sql and count == 0:
        found.append(_no_row(sql, dialect))
    if drawn and count > MOST_POINTS:
        found.append(f"the chart shows the first {MOST_POINTS:,} of {count:,} rows")
    if named.unknown:
        found.append(f"not found in the database, so maybe not taken into account: {', '.join(named.unknown[:8])}")
    return found


def _of_the_error(sql: str, info: Mapping[str, Any], dialect: str) -> list[str]:
    """The nearest names, or a name that has to be quoted."""
    if info.get("error_class") in ("no_such_table", "no_such_column") and info.get("todo"):
        return [f"{info['error']}; {info['todo']}"]
    at = _NEAR.search(str(info["error"])) if info.get("error_class") == "syntax" else None
    if at and at[1].casefold() in {name.casefold() for name in tables_in(sql, dialect)}:
        mark = "`" if dialect == "mysql" else '"'
        return [f"{at[1]} is a word of SQL: as the name of a table it needs quotes, {mark}{at[1]}{mark}"]
    return []


def _of_the_question(sql: str, named: Understood, dialect: str) -> list[str]:
    """What the query leaves out of the question, and what it adds to it."""
    if named.database is None:
        return []
    found = strange_literals(sql, named.database, dialect)
    if left := unused(named.words, sql, dialect):
        found.append(f"not used: {', '.join(left[:MOST_TOLD])}")
    if added := untied(named.question, sql, named.database, dialect)[0]:
        found.append(f"no word of the question speaks of this: {', '.join(added)}")
    return found


def _no_row(sql: str, dialect: str) -> str:
    """Why there may be no row."""
    if filters(sql, dialect):
        return "no row fits: a value may be written otherwise in the database"
    tables = tables_in(sql, dialect)
    return f"no row: the table {tables[0]} is empty" if len(tables) == 1 else "no row, without a condition"


def agreement_limits(readings: Sequence[Reading]) -> list[str]:
    """What the votes say of an answer."""
    if not readings:
        return []
    first, ran = readings[0], sum(r.votes for r in readings)
    found = []
    if first.of > 1 and first.votes < AGREEING * first.of:
        found.append(f"the candidates disagree: {first.votes} of {first.of} gave this result")
    if ran < first.of:
        found.append(f"{first.of - ran} of {first.of} candidate queries do not run")
    return found


__all__ = ["AGREEING", "Answer", "Event", "Status", "agreement_limits", "result_fields"]
