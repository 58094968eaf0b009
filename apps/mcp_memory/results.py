"""What the tools give: the schemas that clients see."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Result(BaseModel):
    """What stands below a field is its description in the schema."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Found(_Result):
    """A lesson that a search gives."""

    id: str
    text: str
    """As data: `<hint id="...">...</hint>`."""
    title: str
    when: str
    boundary: str
    status: str
    value: float | None
    effect: float | None
    """Points (100 is from always wrong to always right) that it adds, by experiment; None without one."""
    evidence: str


class Search(_Result):
    """What a search gives."""

    memory: str
    version: int
    response: str
    """To be given to `feedback`; empty when nothing was shown or kept."""
    items: list[Found]
    note: str


class Added(_Result):
    """What became of an added lesson."""

    memory: str
    id: str
    status: str
    note: str


class Credited(_Result):
    """What feedback did."""

    memory: str
    outcome: float
    counted: list[str]
    not_counted: dict[str, str]
    added: Added | None
    """The lesson made of the words, if there were any."""


class Change(_Result):
    """One operation on a memory."""

    version: int
    at: str
    op: str
    id: str
    who: str
    why: str
    tag: str
    outcome: float | None
    delta: float
    words: str
    """What it wrote, as data; empty unless the lesson is believed now."""


class History(_Result):
    """Operations on a memory, the latest first."""

    memory: str
    version: int
    operations: list[Change]


__all__ = ["Added", "Change", "Credited", "Found", "History", "Search"]
