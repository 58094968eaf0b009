"""Chats of people: found in the store, opened when they are spoken to, closed when nobody does for a while.

A chat is a run of the store (`ask-3fa9c` about a database, `chat-3fa9c` with the agent) that says whose it is. A fresh
one lives here only, until something is said in it. One turn at a time: who speaks meanwhile, or on top of an older
state, is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from verbal.errors import VerbalError

from .databases import Source
from .faults import Fault, missing
from .people import Person
from .scopes import CHATS, is_chat

if TYPE_CHECKING:
    from .site import Site

MOST_OPEN = 200
"""Chats that are open at once; one more closes the one that was spoken to longest ago."""
IDLE = 15 * 60.0
"""Seconds after which a chat that nobody speaks to is closed."""
_LOOK = 20.0
"""Seconds between two looks at the store for chats that another process began."""
_MOST_FRESH = 50
MOST_AT_ONCE = 8
"""Turns of one person that are under way at once."""


class Talk(Protocol):
    """An open chat: `SqlTalk` or `AgentTalk`."""

    kind: str

    async def turns(self) -> list[dict[str, Any]]:
        """Its turns, oldest first."""
        ...

    async def etag(self) -> int:
        """Number of its turns."""
        ...

    def memory(self) -> str:
        """Where its lessons are filed."""
        ...

    def say(self, text: str) -> AsyncGenerator[dict[str, Any], None]:
        """The answer to a message as events; the last is `done`."""
        ...

    def run(self, sql: str) -> AsyncGenerator[dict[str, Any], None]:
        """What a person's own query gives."""
        ...

    def heard(self, turn: str, said: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """What becomes of feedback on a turn."""
        ...

    async def undo(self, correction: str) -> dict[str, Any]:
        """Takes back a correction."""
        ...

    async def aclose(self) -> None:
        """Lets go of what it holds."""
        ...


@dataclass(slots=True, kw_only=True)
class Chat:
    """What is known of a chat without opening it."""

    id: str
    kind: str
    owner: str
    title: str = ""
    database: str = ""
    """Name of its database."""
    place: str = ""
    """How the store calls it."""
    updated: float = 0.0
    turns: int = 0
    fresh: bool = False
    """Whether the store knows nothing of it yet."""

    def told(self) -> dict[str, Any]:
        """As a list of chats shows it."""
        return {
            "id": self.id, "kind": self.kind, "title": self.title, "db": self.database or None,
            "updated": self.updated, "turns": self.turns,
        }  # fmt: skip


@dataclass(slots=True)
class _Held:
    talk: Talk
    person: Person
    """Who it was opened for: of a team, and an admin or not, as they were then."""
    busy: bool = False
    used: float = field(default_factory=time.monotonic)


class Talks:
    """The chats of a site.

    Args:
        site: What they are made of.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._chats: dict[str, Chat] = {}
        self._looked = -1e9
        self._looking = asyncio.Lock()
        self._open: OrderedDict[str, _Held] = OrderedDict()

    # what there is ------------------------------------------------------------------------------------------------

    async def mine(self, person: Person) -> list[Chat]:
        """The chats of a person, the latest first."""
        await self._look()
        own = [c for c in self._chats.values() if c.owner == person.name and (c.turns or c.fresh)]
        return sorted(own, key=lambda c: c.updated, reverse=True)

    async def find(self, person: Person, name: str, *, speak: bool = False) -> Chat:
        """The chat of that id.

        Args:
            person: Who asks: the one whose it is; an admin may read it.
            name: Its id.
            speak: Whether something is to be said in it.

        Raises:
            Fault: there is none that this person may see (404).
        """
        if name not in self._chats and name.startswith(CHATS):
            run = await asyncio.to_thread(self._site.store.run, name)  # another process may have begun it
            if run is not None and name not in self._chats:
                self._note(run)
        chat = self._chats.get(name)
        if chat is None or (chat.owner != person.name and (speak or not person.admin)):
            raise missing("chat")
        return chat

    def create(self, person: Person, kind: str, source: Source | None) -> Chat:
        """A fresh chat."""
        fresh = [c for c in self._chats.values() if c.fresh and c.owner == person.name]
        for old in fresh[: max(0, len(fresh) - _MOST_FRESH + 1)]:
            self._chats.pop(old.id, None)
        prefix = "ask-" if kind == "sql" else "chat-"
        name = f"{prefix}{uuid.uuid4().hex[:5]}"
        while name in self._chats or self._site.store.run(name) is not None:
            name = f"{prefix}{uuid.uuid4().hex[:5]}"
        made = Chat(id=name, kind=kind, owner=person.name, updated=time.time(), fresh=True)
        if source is not None:
            made.database = source.name
        self._chats[name] = made
        return made

    async def rename(self, chat: Chat, title: str) -> None:
        """Gives a chat another title."""
        chat.title = title
        if not chat.fresh:
            await asyncio.to_thread(self._site.store.set_info, chat.id, {"title": title})

    async def hide(self, chat: Chat) -> None:
        """Leaves a chat out of lists; the store keeps the run."""
        held = self._open.get(chat.id)
        if held is not None and held.busy:
            raise Fault(409, "busy", "this chat is answering now", "wait until it has answered, or stop it")
        if held is not None:
            self._open.pop(chat.id, None)
            await held.talk.aclose()
        self._chats.pop(chat.id, None)
        if await asyncio.to_thread(self._site.store.run, chat.id) is not None:
            await asyncio.to_thread(self._site.store.set_info, chat.id, {"hidden": True})

    async def answer(self, person: Person, turn: str) -> tuple[Source, dict[str, Any]]:
        """Database and record of an answer about a database.

        Raises:
            Fault: there is none that this person may see (404), or its database is not served here (409).
        """
        chat = await self.find(person, chat_of(turn))
        run = await asyncio.to_thread(self._site.store.run, chat.id)
        found = next((a for a in (run["info"].get("answers") if run else None) or () if a["id"] == turn), None)
        if found is None:
            raise missing("answer")
        source = await self.source(person, chat)
        if source is None:
            raise Fault(409, "database", "the database of this chat is not served here any more")
        return source, dict(found)

    async def source(self, person: Person, chat: Chat) -> Source | None:
        """The database of a chat, where this server has it."""
        owner = person if person.name == chat.owner else Person(chat.owner)
        with contextlib.suppress(Fault, VerbalError):
            source = self._site.databases.find(owner, chat.database)
            if not chat.place or await source.location() == chat.place:
                return source
        return None

    async def _look(self) -> None:
        async with self._looking:  # who comes meanwhile waits for what is found
            if time.monotonic() - self._looked < _LOOK:
                return
            for run in await asyncio.to_thread(self._site.store.runs):
                if is_chat(run):
                    self._note(run)
            self._looked = time.monotonic()

    def _note(self, run: Mapping[str, Any]) -> None:
        """What a run tells of its chat."""
        info = run["info"]
        if not info.get("user") or info.get("hidden") or info.get("compared"):
            self._chats.pop(run["id"], None)
            return
        known = self._chats.setdefault(run["id"], Chat(id=run["id"], kind="", owner=str(info["user"])))
        answers = info.get("answers") or info.get("turns") or ()
        known.kind = "sql" if str(run["id"]).startswith("ask-") else "chat"
        known.title, known.turns, known.fresh = str(info.get("title") or ""), len(answers), False
        known.database, known.place = str(info.get("database") or ""), str(info.get("db") or "")
        last = [a["at"] for a in answers if isinstance(a, Mapping) and a.get("at")]
        known.updated = float(max(last, default=run["started"]))

    # speaking -----------------------------------------------------------------------------------------------------

    async def talk(self, person: Person, chat: Chat) -> Talk:
        """The chat, ready to be spoken in."""
        held = self._open.get(chat.id)
        if held is not None and held.person != person and not held.busy:
            await self._close([chat.id])
            held = self._open.get(chat.id)
        if held is None:
            source = await self.source(person, chat) if chat.kind == "sql" else None
            if chat.kind == "sql" and source is None:
                raise Fault(409, "database", "the database of this chat is not served here any more")
            held = self._open.get(chat.id)  # somebody may have been faster
            if held is None:
                held = self._open[chat.id] = _Held(self._site.make_talk(person, chat, source), person)
        held.used = time.monotonic()
        self._open.move_to_end(chat.id)
        idle = [i for i, h in self._open.items() if not h.busy and i != chat.id]
        await self._close(idle[: max(0, len(self._open) - MOST_OPEN)])
        return held.talk

    async def begin(self, person: Person, chat: Chat, etag: int | None) -> Talk:
        """The chat, held for one turn; `end` lets it go.

        Raises:
            Fault: it is answering (409, `busy`), or another tab said something since (409, `stale`).
        """
        talk = await self.talk(person, chat)
        held = self._open.get(chat.id)
        if held is None or held.talk is not talk or held.busy:  # closed meanwhile, with 200 others open
            raise Fault(409, "busy", "this chat is answering now", "wait until it has answered, or stop it")
        if sum(h.busy and self._owner(i) == person.name for i, h in self._open.items()) >= MOST_AT_ONCE:
            raise Fault(429, "many", f"{MOST_AT_ONCE} of your chats are answering now", "wait until one has answered")
        held.busy = True
        try:
            known = await talk.etag()
            if etag is not None and etag != known:
                todo = "load the chat again; nothing was asked"
                raise Fault(409, "stale", "another tab has gone on with this chat", todo, more={"etag": known})
            chat.turns, chat.fresh = known, chat.fresh and not known
        except BaseException:
            held.busy = False
            raise
        return talk

    def end(self, chat: Chat) -> None:
        """Lets a chat go after a turn."""
        if (held := self._open.get(chat.id)) is not None:
            held.busy, held.used = False, time.monotonic()

    async def spoken(
        self, chat: Chat, made: AsyncGenerator[dict[str, Any], None]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a turn; what they tell of the chat is noted."""
        async with aclosing(made):
            async for event in made:
                if event["type"] == "done":
                    if chat.fresh and chat.title:  # it was named before anything was said in it
                        await asyncio.to_thread(self._site.store.set_info, chat.id, {"title": chat.title})
                    chat.turns, chat.fresh, chat.updated = event["etag"], False, time.time()
                    chat.title = chat.title or str((event.get("turn") or {}).get("text") or "")[:120]
                    event = {**event, "title": chat.title}
                yield event

    def _owner(self, name: str) -> str:
        return self._chats[name].owner if name in self._chats else ""

    def busy(self, chat: Chat) -> bool:
        """Whether it is answering now."""
        held = self._open.get(chat.id)
        return held is not None and held.busy

    async def _close(self, names: list[str]) -> None:
        for name in names:
            held = self._open.pop(name, None)
            if held is not None:
                await held.talk.aclose()

    async def leave(self, person: Person, source: Source) -> None:
        """Closes a person's chats about a database that goes.

        Raises:
            Fault: one of them is answering (409).
        """
        own = [i for i in self._open if self._owner(i) == person.name and self._chats[i].database == source.name]
        if any(self._open[i].busy for i in own):
            raise Fault(409, "busy", "a chat about it is answering now", "wait until it has answered, or stop it")
        await self._close(own)

    async def watch(self, every: Callable[[], float] = lambda: 60.0) -> None:
        """Closes chats that nobody speaks to, for ever."""
        while True:
            await asyncio.sleep(every())
            now = time.monotonic()
            with contextlib.suppress(VerbalError):
                await self._close([i for i, h in self._open.items() if not h.busy and now - h.used > IDLE])

    async def aclose(self) -> None:
        """Closes all."""
        await self._close(list(self._open))


def chat_of(turn: str) -> str:
    """The chat that a turn or a correction is of, by its id: `3fa9c-1`, `chat-3fa9c-1`, `3fa9c-1.2`."""
    name = turn.rpartition("-")[0]
    return name if name.startswith(CHATS) else f"ask-{name}"


__all__ = ["IDLE", "MOST_AT_ONCE", "MOST_OPEN", "Chat", "Talk", "Talks", "chat_of"]
