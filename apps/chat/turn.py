"""What a turn of a conversation is: what was said, answered, understood, used and spent. Plain records, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from verbal.errors import DataError

Status = Literal["answered", "noted", "refused", "failed", "stopped"]
"""What became of a message: a model answered; it only taught something, which was noted; nothing was kept of what it
taught, or the provider refused; the model broke; it was dropped, or is under way."""

Kind = Literal["teach", "narrow", "widen", "forget", "complaint", "none"]
"""What a message does, beside asking for something."""


class Stale(DataError):
    """Somebody else (another tab, another process) has gone on with the conversation."""


class Busy(DataError):
    """An answer in this conversation is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """What was understood of feedback in a message, and where it holds."""

    kind: Kind
    lesson: str = ""
    """What to do, in the person's words."""
    when: str = ""
    """When it applies; empty for always."""
    boundary: str = ""
    """Where it must not be applied, as far as that was said."""
    polarity: Literal["do", "avoid"] = "do"
    about: str = ""
    """Id of the lesson that is narrowed, widened or forgotten."""
    asks: bool = False
    """Whether the message also asks for something to be done now."""
    complains: bool = False
    """Whether it says that the last answer was not right."""
    scope: str = "user"
    memory: str = ""
    id: str = ""
    """Of the lesson as it is filed; empty where nothing was."""
    status: str = ""
    says: str = ""
    """What the person is told: what was understood, when it applies and where it does not."""
    correction: str = ""
    """Id under which it can be taken back."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One part of a turn, as it comes. Types: understood, lessons, text, tool, summary, done."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """understood: the fields of `Understanding`; lessons: `lessons`; text: `delta`; tool: `name`, `arguments`,
    `result`, `error`; summary: `turns` (so many older ones were put into a summary or, with `dropped`, left out);
    done: `turn` and `etag`."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"type": self.type, **self.data}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message and its answer."""

    id: str
    """`chat-3fa9c-1`: the conversation and a number."""
    chat: str
    text: str
    """What the person said."""
    status: Status
    reply: str = ""
    """Markdown, without the ids of what was used."""
    reason: str = ""
    """Why there is no answer."""
    lessons: tuple[Mapping[str, Any], ...] = ()
    """Each with id, text, when, boundary, status, chance, memory and `used`: whether the answer names it."""
    understood: Understanding | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    """Each with name, arguments, result and error."""
    corrections: tuple[Mapping[str, Any], ...] = ()
    """What was said of the answer: each with id, kind, words and `undone`."""
    verdict: Literal["up", "down"] | None = None
    edited: bool = False
    """Whether the reply is in the person's own words."""
    replaces: str = ""
    """The turn that was asked again."""
    replaced: str = ""
    """The turn that took its place."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """calls, tokens, cost (None: no price is known), seconds, and `first`: seconds until the first piece of text."""
    at: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the fields that turns about a database have."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own |= {name: [dict(x) for x in own[name]] for name in ("lessons", "tools", "corrections")}
        own |= {"understood": self.understood.to_dict() if self.understood else None, "usage": dict(self.usage)}
        return {**_NO_QUERY, "kind": "chat", **own}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What became of something a person said of an answer or a lesson."""

    id: str
    """Of the correction, to take it back; empty where nothing was kept."""
    turn: str
    kind: str
    """`up`, `down`, `words`, `edit`, `regenerate`, `narrow`, `forget`, `share` or `undo`."""
    kept: bool
    says: str
    """In words, for the person."""
    lesson: Mapping[str, Any] | None = None
    """The lesson it is about: id, text, when, boundary, scope, status, memory."""
    credited: tuple[str, ...] = ()
    """Lessons whose evidence it counts in."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `correction` is the id once more, as the web API calls it."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lesson = dict(self.lesson) if self.lesson else None
        return {**own, "lesson": lesson, "credited": list(self.credited), "correction": self.id or None}


_NO_QUERY: dict[str, Any] = {
    "sql": None, "columns": [], "types": [], "rows": [], "row_count": 0, "truncated": False, "chart": None,
    "explanation": "", "limits": [], "readings": [], "agreement": None, "asked": "",
}  # fmt: skip

__all__ = ["Busy", "Event", "Kind", "Said", "Stale", "Status", "Turn", "Understanding"]
