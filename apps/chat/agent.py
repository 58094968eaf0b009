"""The chat agent: answers, tools, and lessons that a person teaches by saying what was wrong. `verbal chat` is this.

async with ChatAgent(model="openai/gpt-5-mini", user="me") as agent:
    async for event in agent.stream("don't use emojis when you write to my boss"): ...
    async for event in agent.stream("write to my boss that I am late", chat=agent.chat): ...
    await agent.thumbs(agent.last, up=True)
    await agent.undo()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from verbal.contracts import Model
from verbal.recipe import Recipe
from verbal.store import Store

from .turn import Event, Said, Turn


class ChatAgent:
    """SKELETON: the signatures that others build on; the bodies follow.

    Args:
        model: As `--model` takes it, or an open Model (which stays open); the recipe's when empty.
        store: A path, a URL or an open store, which stays open.
        user: Whose conversations and lessons these are: letters, digits and `._@-`.
        team: The person's team, if any.
        tools: Plain functions with types, or `./mine.py:function`.
        mcp: MCP servers: a command line (stdio) or a URL.
        budget: Tokens of a prompt at most; older turns are summarised.
        max_cost: US dollars for one conversation; the call that could exceed it is not made.
        recipe: The shipped `chat` when None.
        admin: Whether lessons of the team and of all may be narrowed and forgotten.
    """

    chat: str
    """The conversation that was spoken in last."""
    last: Turn | None
    """The last turn of it."""

    def __init__(
        self,
        *,
        model: str | Model = "",
        store: str | Path | Store = "runs/verbal.db",
        user: str = "me",
        team: str = "",
        tools: Sequence[Callable[..., Any] | str] = (),
        mcp: Sequence[str] = (),
        budget: int = 16_000,
        max_cost: float | None = None,
        recipe: Recipe | None = None,
        admin: bool = False,
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def stream(self, text: str, *, chat: str | None = None, etag: int | None = None) -> AsyncIterator[Event]:
        """A turn as it comes; a new conversation when `chat` is None. The last event is `done`.

        Closing the iterator (a client that hung up) cancels the work; the turn stays as `stopped`.

        Raises:
            Stale: the conversation has another number of turns than `etag` (what this agent knows, when None).
            UnknownName: no such conversation of this person. DataError: the message is empty or too long.
            BudgetError, TransientError, StoreError: what stops a run; the turn is kept as `stopped`.
        """
        raise NotImplementedError

    def new_chat(self) -> str:
        """The id of a new, empty conversation."""
        raise NotImplementedError

    async def thumbs(self, turn: Turn | str, up: bool) -> Said:
        """Counts an answer as right or wrong, once."""
        raise NotImplementedError

    async def correct(self, turn: Turn | str, words: str) -> Said:
        """Learns from words about an answer, which counts as wrong."""
        raise NotImplementedError

    async def edit(self, turn: Turn | str, text: str) -> Said:
        """Puts the person's own text in place of an answer, and learns from the difference."""
        raise NotImplementedError

    def regenerate(self, turn: Turn | str, reason: str = "") -> AsyncIterator[Event]:
        """Asks again; events as of `stream`. The answer before counts as wrong."""
        raise NotImplementedError

    async def undo(self, id: str = "") -> Said:
        """Takes back the last thing that was said of answers or lessons, of a turn, or that one."""
        raise NotImplementedError

    async def narrow(self, reflection: str, *, when: str | None = None, boundary: str | None = None) -> Said:
        """Sets when a lesson applies, or adds where it must not be applied."""
        raise NotImplementedError

    async def forget(self, reflection: str) -> Said:
        """Retires a lesson."""
        raise NotImplementedError

    async def share(self, reflection: str, to: Literal["team", "global"]) -> Said:
        """Files a lesson for the team or for all, on trial there."""
        raise NotImplementedError

    def lessons(self) -> list[dict[str, Any]]:
        """The lessons that this person may see, by memory: id, text, when, boundary, status, scope, memory, counts."""
        raise NotImplementedError

    def history(self, chat: str) -> list[Turn]:
        """The turns of a conversation, oldest first, replaced ones included."""
        raise NotImplementedError

    def chats(self) -> list[dict[str, Any]]:
        """The person's conversations, newest first: id, kind `chat`, title, updated, turns."""
        raise NotImplementedError

    def hide(self, chat: str) -> None:
        """Leaves a conversation out of `chats`; the store keeps it."""
        raise NotImplementedError

    def export(self, chat: str) -> str:
        """A conversation as Markdown."""
        raise NotImplementedError


__all__ = ["ChatAgent"]
