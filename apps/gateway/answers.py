"""What the answers of all protocols have in common: what they are written from, how they are written and overheard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from verbal.contracts import Reply
from verbal.types import Usage

from .fields import ChatRequest
from .refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What all parts of one answer have in common."""

    id: str
    model: str
    """The model that answers: of a promoted checkpoint its name."""
    fingerprint: str | None = None
    """Of its weights; None when they are behind another server."""
    asked: ChatRequest
    body: Mapping[str, Any] = field(default_factory=dict)
    """As the client sent it; some protocols repeat it."""
    created: int = field(default_factory=lambda: int(time.time()))


class Writer(Protocol):
    """Writes one answer, whole or as a stream of events."""

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The answer in one body."""
        ...

    def begin(self) -> bytes:
        """Events before the first piece."""
        ...

    def piece(self, index: int, piece: str | Reply) -> bytes:
        """Events of a piece of a reply; the whole reply is the last piece of each."""
        ...

    def end(self) -> bytes:
        """Events after the last piece."""
        ...

    def broken(self, refused: Refusal) -> bytes:
        """The last event of a stream that failed."""
        ...


class Heard(Protocol):
    """Reads an answer that another server writes, while it is passed on."""

    id: str
    """What that server calls it; empty until that is known."""

    def whole(self, body: Any) -> Reply:
        """The reply in one body.

        Raises:
            ModelError, TransientError: it is none.
        """
        ...

    def add(self, event: Any) -> str:
        """The text that an event of a stream adds, perhaps empty.

        Raises:
            ModelError: the event tells a failure. TransientError: it cannot be read.
        """
        ...

    def reply(self) -> Reply:
        """The reply of a stream that ended.

        Raises:
            TransientError: it ended early.
        """
        ...

    def so_far(self) -> Reply:
        """What came until a stream broke, as a reply that ends in an error."""
        ...


class StopText:
    """Ends a text before the first of some stop texts, as its pieces come; for models that do not stop by themselves.

    Args:
        stops: The stop texts.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        """Whether one of them came."""
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._held = ""

    def add(self, piece: str) -> str:
        """What can be told after this piece: what may still begin a stop text is held back."""
        if self.found:
            return ""
        text = self._held + piece
        if places := [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]:
            self.found, self._held = True, ""
            return text[: min(places)[1]]  # the one that is complete first, as a model would have stopped
        sure = max(0, len(text) - max(0, self._longest - 1))
        self._held = text[sure:]
        return text[:sure]

    def rest(self) -> str:
        """What was held back when the text is over."""
        held, self._held = self._held, ""
        return held


def stopped(reply: Reply, stops: Sequence[str]) -> Reply:
    """The reply, ended before the first stop text in it."""
    cut = StopText(stops)
    text = cut.add(reply.text)
    return replace(reply, text=text, finish="stop") if cut.found else reply


def cut_off(pieces: Sequence[str], name: str, usage: Usage | None = None) -> Reply:
    """The reply of a stream that broke: what came until then."""
    return Reply(text="".join(pieces), finish="error", usage=usage or Usage(calls=1, cost=None), model=name)


__all__ = ["Head", "Heard", "StopText", "Writer", "cut_off", "stopped"]
