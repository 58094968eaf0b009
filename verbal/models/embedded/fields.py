"""What one prompt says, once its text has been read: the embedded model's view of a prompt.

Every other model reads a prompt as text. The embedded model reads the same text (`read.py` finds its Markdown
sections) and works on these records; the corpus generator makes them directly. No numpy, no torch, no I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("solver", "critic", "reflector", "proposer", "judge")
"""Roles the embedded model was trained for; the first heading of a prompt names one (`# Role: solver`)."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    type: str
    """One of `int`, `real`, `text`, `date`."""
    values: tuple[str, ...] = ()
    """All values of a small categorical column (at most nine), as SQL literals without quotes; else empty."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table; a column is unique in its table."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`table.column` references `target.target_column`."""

    table: str
    column: str
    target: str
    target_column: str


@dataclass(frozen=True, slots=True)
class Schema:
    """A database as a prompt describes it."""

    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """A cell of the database that the question (or a hint) mentions."""

    text: str
    table: str
    column: str


@dataclass(frozen=True, slots=True)
class Fields:
    """One prompt. Fields that a role does not use are empty.

    role        solver     question, hints, tried              -> SQL
                critic     question, hints, sql, result        -> right | wrong + clauses + corrected SQL
                reflector  question, sql (wrong), right        -> a hint of one line
                proposer   level (1 to 5)                      -> question + SQL
                judge      question, hints, candidates         -> a score in [0, 1] for each candidate
    """

    role: str
    schema: Schema
    question: str = ""
    hints: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()
    sql: str = ""
    result: str = ""
    """What execution said of `sql`: an error class, or rows and columns ("3 rows, 2 columns")."""
    right: str = ""
    level: int = 0
    tried: tuple[str, ...] = ()
    """SQL of earlier attempts that failed; the model does not answer with one of these again."""
    candidates: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    """What execution said of each candidate; empty where the prompt does not show it."""
