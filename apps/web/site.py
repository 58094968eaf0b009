"""What the web app is made of: one object that every route is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbal.contracts import Model
from verbal.models import open_model
from verbal.store import Store
from verbal.verbs import resolve_checkpoint

from .databases import Databases, Source
from .door import host_of
from .faults import shown_model
from .people import People, Person
from .results import Results
from .static import PAGE
from .talks import Chat, Talk, Talks

if TYPE_CHECKING:
    from .memories import States
    from .runs import Progress


class Site:
    """Store, people, databases, chats and models of the web app.

    Args:
        store: Where everything is kept; it belongs to whoever made it.
        url: How it is opened by another process; may hold a password, and is told to nobody.
        models: As `--model` takes them; the first one answers, the others may be compared with it.
        places: Databases as `--db` takes them; the demo shop when there is none.
        page: Folder of the built page.
        max_cost: US dollars for one chat; the call that could exceed it is not made.
        hosts: Names by which browsers may come; any when empty.
        tell: Told a fresh token for the one person of a server without accounts.
    """

    def __init__(
        self,
        store: Store,
        *,
        url: str = "",
        models: Sequence[str] = ("embedded",),
        places: Sequence[str] = (),
        page: Path = PAGE,
        hosts: Sequence[str] = (),
        max_cost: float | None = None,
        tell: Callable[[str], None] = lambda token: None,
    ) -> None:
        self.store, self.url, self.page = store, url or str(store.where), page
        self.models = tuple(dict.fromkeys(models))
        self.shown: dict[str, str] = {}
        """What a page calls a model -> how it is opened."""
        for spec in self.models:
            name, number = shown_model(spec), 1
            while name in self.shown:
                number += 1
                name = f"{shown_model(spec)} ({number})"
            self.shown[name] = spec
        self.chats_too = self._chats_too()
        """Whether the chat agent answers here."""
        self.hosts, self.max_cost = frozenset(host_of(h) for h in hosts), max_cost
        self.people = People(store, tell)
        self.databases = Databases(places, store.folder / f"{Path(str(store.where)).stem or 'store'}.brought")
        self.results = Results()
        self.talks = Talks(self)
        self.finished: dict[str, tuple[int, float | None]] = {}
        """Runs that have ended -> episodes and cost."""
        self.watched: dict[str, Progress] = {}
        """Runs under way that somebody looks at."""
        self.replaying = asyncio.Lock()
        self.comparing = 0
        self._states: States | None = None
        self._opened: dict[str, Kept] = {}
        self._opening = asyncio.Lock()

    def _chats_too(self) -> bool:
        """Whether the first model follows instructions."""
        spec = self.models[0] if self.models else "embedded"
        if spec.startswith("checkpoint:"):
            known = {f"checkpoint:{c['name']}": c["info"].get("kind") for c in self.store.checkpoints()}
            return known.get(spec) != "embedded"
        return not spec.startswith("embedded")

    @property
    def states(self) -> States:
        """Memories as their logs leave them."""
        from .memories import States

        if self._states is None:
            self._states = States(self.store)
        return self._states

    def known_host(self, host: str) -> bool:
        """Whether a browser may come by that name."""
        return not self.hosts or host in self.hosts

    async def model(self, spec: str) -> Model:
        """An open model, one for all who talk to it.

        Raises:
            VerbalError: it cannot be opened.
        """
        async with self._opening:
            if spec not in self._opened:
                self._opened[spec] = Kept(await asyncio.to_thread(self._open_model, spec))
            return self._opened[spec]

    def _open_model(self, spec: str) -> Model:
        name = resolve_checkpoint(self.store, spec) if spec.startswith("checkpoint:") else spec
        return open_model(name)

    def make_talk(self, person: Person, chat: Chat, source: Source | None) -> Talk:
        """A chat that is not open yet."""
        if chat.kind == "sql":
            from .sql_talk import SqlTalk

            made: Talk = SqlTalk(self, person, chat.id, source)
            return made
        from .agent_talk import AgentTalk

        return AgentTalk(self, person, chat.id)

    async def aclose(self) -> None:
        """Closes chats, workers and models; the store stays open."""
        await self.talks.aclose()
        await self.databases.aclose()
        for kept in self._opened.values():
            await kept.model.aclose()
        self._opened.clear()


class Kept:
    """A model that stays open when one of those who use it is done.

    Args:
        model: The model itself.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    async def aclose(self) -> None:
        """Nothing: the site closes it."""


__all__ = ["Kept", "Site"]
