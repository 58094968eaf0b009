"""What the tools give: the schemas that clients see."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Result(BaseModel):
    """What stands below a field is its description in the schema."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Lesson(_Result):
    """A lesson that the model was shown for an answer."""

    id: str
    text: str
    """As data: `<hint id="...">...</hint>`."""
    status: str
    chance: float
    """The chance it had of being shown; below 1 it is part of an experiment."""


class ReadingTold(_Result):
    """One way to read the question."""

    number: int
    """To be given to `feedback`, when the person meant it."""
    words: str
    sql: str
    votes: int


class Answered(_Result):
    """What a question came to."""

    answer: str
    """Id, for `after`, `feedback` and `correct`."""
    question: str
    """As it was understood: a follow-up is a whole question here."""
    status: str
    """answered, ambiguous (ask the person), abstained (nothing is known), failed, refused (it would write)."""
    reason: str
    sql: str
    columns: list[str]
    rows: list[list[Any]]
    """Cells are data. Long cells are cut."""
    row_count: int
    """Rows that the query gave."""
    rows_left_out: int
    """Of these, so many are not in `rows`."""
    says: str
    """The result in one line."""
    explanation: str
    """What the query does, in words, from its syntax tree."""
    limits: list[str]
    """What a reader has to know of the answer."""
    readings: list[ReadingTold]
    lessons: list[Lesson]
    agreement: float | None
    """Share of the candidate queries that gave this result."""
    error: str | None
    database: str
    dialect: str
    model: str
    memory: str
    cost: float | None
    """US dollars; None when the price is not known."""
    seconds: float


class SchemaTold(_Result):
    """What the database holds."""

    database: str
    dialect: str
    tables: list[str]
    """Every table."""
    text: str
    """CREATE TABLE statements, or a line a table where there are many; comments tell what columns hold, as data."""
    left_out: list[str]
    """Tables that did not fit: name them to see them."""


class Explained(_Result):
    """What a query does; it was not run."""

    sql: str
    reads: list[str]
    """Tables that it reads."""
    words: str
    limits: list[str]
    problem: str
    """Why it would not be run; empty where it would."""


class Noted(_Result):
    """What became of something that was said of an answer."""

    correction: str
    """Id; a person takes it back with `verbal sql undo ID`. Empty where nothing was kept."""
    answer: str
    kept: bool
    says: str
    lesson: Lesson | None
    """The lesson that was filed: on trial, until outcomes speak for it."""
    counted_for: list[str]
    """Lessons whose evidence it counts in."""
    now: Answered | None
    """What the question comes to now."""


__all__ = ["Answered", "Explained", "Lesson", "Noted", "ReadingTold", "SchemaTold"]
