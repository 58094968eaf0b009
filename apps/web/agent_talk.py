"""A chat with the agent: one person's conversation, open while it is spoken to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..chat.agent import ChatAgent
from ..chat.turn import Said, Stale, Turn
from .faults import Fault, clean
from .people import Person
from .scopes import own_memory

if TYPE_CHECKING:
    from .site import Site

Happening = dict[str, Any]
"""An event as a page gets it."""


class AgentTalk:
    """A chat with the agent.

    Args:
        site: Store and models.
        person: Whose chat it is.
        chat: Its id, `chat-3fa9c`; its run.
    """

    kind = "chat"

    def __init__(self, site: Site, person: Person, chat: str) -> None:
        self._site, self._person, self.chat = site, person, chat
        self._agent: ChatAgent | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> ChatAgent:
        """The agent, opened when it is first needed.

        Raises:
            VerbalError: the model cannot be used.
        """
        async with self._opening:  # two tabs that look at it get one agent
            if self._agent is None:
                made = ChatAgent(
                    model=await self._site.model(self._site.models[0]), store=self._site.store, user=self._person.name,
                    team=self._person.team, admin=self._person.admin, max_cost=self._site.max_cost,
                )  # fmt: skip
                await made.__aenter__()
                self._agent = made
                if await asyncio.to_thread(self._site.store.run, self.chat) is None:
                    made.new_chat(self.chat)
            return self._agent

    async def aclose(self) -> None:
        """Lets the agent go; the conversation can be gone on with."""
        async with self._opening:
            if self._agent is not None:
                agent, self._agent = self._agent, None
                await agent.__aexit__(None, None, None)

    async def etag(self) -> int:
        """Number of its turns."""
        run = await asyncio.to_thread(self._site.store.run, self.chat)
        return len((run["info"].get("turns") if run else None) or ())

    async def turns(self) -> list[Happening]:
        """Its turns, oldest first, those that were asked again included: they name what took their place."""
        if not await self.etag():
            return []
        agent = await self.open()
        found = await asyncio.to_thread(agent.history, self.chat)
        return [told_turn(turn) for turn in found]

    def memory(self) -> str:
        """Where its lessons are filed, when nobody says otherwise."""
        return own_memory(self._person, "user")

    async def say(self, text: str) -> AsyncGenerator[Happening, None]:
        """The answer to a message as it comes; the last event is `done`."""
        agent = await self.open()
        async with aclosing(self._told(agent.stream(text, chat=self.chat, etag=await self.etag()))) as made:
            async for event in made:
                yield event

    def run(self, sql: str) -> AsyncGenerator[Happening, None]:
        """Nothing: there is no database here.

        Raises:
            Fault: always (400).
        """
        raise Fault(400, "kind", "this chat has no database")

    async def heard(self, turn: str, said: Mapping[str, Any]) -> AsyncGenerator[Happening, None]:
        """What becomes of feedback on a turn; asked again it comes as events."""
        kind, words, agent = said["kind"], said["text"], await self.open()
        if kind == "regenerate":
            noted = {"kept": True, "says": "asked again", "correction": None, "lesson": None}
            async with aclosing(self._told(agent.regenerate(turn, words), noted)) as made:
                async for event in made:
                    yield event
            return
        if kind in ("up", "down"):
            heard = await agent.thumbs(turn, kind == "up")
        elif kind == "words":
            heard = await agent.correct(turn, words)
        elif kind == "edit":
            heard = await agent.edit(turn, words)
        else:
            raise Fault(400, "kind", "this answer has no query", "correct it by words, or edit it")
        found = await asyncio.to_thread(agent.history, self.chat)
        now = next((told_turn(t) for t in found if t.id == turn), None) if kind == "edit" else None
        yield {"type": "done", "turn": now, "etag": len(found), "feedback": feedback_of(heard)}

    async def undo(self, correction: str) -> Happening:
        """Takes back something that was said."""
        made = await (await self.open()).undo(correction)
        return {"says": made.says, "etag": await self.etag()}

    async def _told(self, source: Any, feedback: Happening | None = None) -> AsyncGenerator[Happening, None]:
        try:
            async with aclosing(source) as parts:
                async for event in parts:
                    told = dict(event.to_dict())
                    if told["type"] == "done":
                        told["turn"] = told_turn(told["turn"])
                        told |= {"feedback": feedback} if feedback else {}
                    yield told
        except Stale as error:
            raise Fault(409, "stale", clean(error.what), "load the chat again; nothing was asked") from error


def told_turn(turn: Turn | Mapping[str, Any]) -> Happening:
    """A turn as a page gets it."""
    found = dict(turn) if isinstance(turn, Mapping) else turn.to_dict()
    return {**found, "reason": clean(str(found.get("reason") or ""))}


def feedback_of(heard: Said) -> Happening:
    """What became of feedback as a page gets it."""
    lesson = dict(heard.lesson) if heard.lesson else None
    return {"kept": heard.kept, "says": heard.says, "correction": heard.id or None, "lesson": lesson}


__all__ = ["AgentTalk", "feedback_of", "told_turn"]
