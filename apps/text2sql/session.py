"""A session of the assistant: its parts open, its run in the store, its answers kept. See `assistant.py`."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from verbal.contracts import Memory, Model
from verbal.errors import ConfigError, DataError
from verbal.recipe import Recipe, load_recipe
from verbal.run import Workshop, open_workshop
from verbal.store import Store
from verbal.types import Task

from . import answered
from .answer import Answer, Status
from .clarify import Reading
from .turn import Turn, folded

DEFAULT_STORE = "runs/verbal.db"
"""Where answers are kept when no store is named."""


class Session:
    """One run of the store in which questions about one database are answered; arguments and errors: `Assistant`."""

    def __init__(
        self,
        db: str | Path | None = None,
        *,
        model: str | Model = "",
        store: str | Path | Store = DEFAULT_STORE,
        memory: str = "",
        recipe: Recipe | None = None,
        app: Any = None,
        new_memory: bool = False,
        words: bool = False,
        moved: str = "",
        run: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        made = recipe or load_recipe("ask")
        if db is not None:
            app_table = dataclasses.replace(made.app, options={**made.app.options, "db": str(db)})
            made = dataclasses.replace(made, app=app_table)
        if isinstance(model, str) and model:
            made = dataclasses.replace(made, model=dataclasses.replace(made.model, name=model))
        self._recipe, self._model, self._wanted, self._given_app = made, model, memory, app
        self._new_memory, self.words = new_memory, words
        self._given_store, self._moved = store, moved
        self._stack = AsyncExitStack()
        self._shop: Workshop | None = None
        self._known: Memory | None = None
        self.pinned = False
        self._run, self._turns, self._started = run, 0, False
        self._about = dict(about or {})
        self.location, self.dialect, self.memory = "", "sqlite", ""
        """The database without password, its SQL, and the name of the memory."""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started and self._shop is not None:
            self._shop.store.finish_run(self._run, "done" if kind is None else "stopped")
        await self._stack.aclose()

    async def _open(self) -> None:
        given = self._given_store
        store = given if isinstance(given, Store) else self._stack.enter_context(Store(given))
        if self._run and (begun := store.run(self._run)) is not None:
            numbers = [int(a["id"].rpartition("-")[2]) for a in begun["info"].get("answers") or ()]
            self._started, self._turns = True, max(numbers, default=0)
        while not self._run:
            named = f"{answered.PREFIX}{session_id()}"
            self._run = "" if store.run(named) is not None else named
        name, _, version = self._wanted.partition("@")
        app = self._given_app or await self._make_app()
        # A database that does not answer must not hold up the event loop.
        probe: Task = await asyncio.to_thread(app.task, "?", id=f"{answered.PREFIX}open")
        self.location, self.dialect = str(probe.info["db"]), _dialect(str(probe.info["db"]))
        self.memory = "" if name == "none" else name or memory_of(self.location)
        if name and name != "none" and not self._new_memory:
            known = store.memories()
            if name not in known:
                raise ConfigError(f"there is no memory {name!r}", where=store.where, todo=f"known: {', '.join(known)}")
            if version and not (version.isdigit() and int(version) <= known[name]):
                raise ConfigError(f"memory {name!r} has no version {version!r}", todo=f"give 0 to {known[name]}")
        self.pinned = bool(version)
        live = self.memory and not self.pinned
        table = dataclasses.replace(self._recipe.memory, name="exact" if live else "")
        recipe = dataclasses.replace(self._recipe, memory=table)
        self._shop = await self._stack.enter_async_context(
            open_workshop(
                recipe, store, run=self._run, model=None if isinstance(self._model, str) else self._model, app=app,
                memory_name=self.memory or None,
            )
        )  # fmt: skip
        self._known = self._shop.memory
        if self.pinned:
            from verbal.study import open_pinned

            self._known = open_pinned(self._shop, self.memory, int(version))
            self._stack.callback(self._known.close)

    async def _make_app(self) -> Any:
        from verbal.parts import make_part

        named = self._recipe.app
        app = await asyncio.to_thread(make_part, "apps", named.name, where="[app]", **named.options)
        self._stack.push_async_callback(app.aclose)
        return app

    @property
    def shop(self) -> Workshop:
        """The open parts.

        Raises:
            ConfigError: it was not entered.
        """
        if self._shop is None:
            raise ConfigError("the assistant is not open", todo="async with Assistant(...) as assistant: ...")
        return self._shop

    async def begin(self, question: str, asked: str, task: str = "") -> Turn:
        """The next turn; with the first the run begins. `task` is the id of the task when it is known."""
        shop = self.shop
        if not self._started:
            plain = shop.recipe.to_dict()
            plain["app"]["options"]["db"] = self.location  # never a password
            shop.store.start_run(
                self._run,
                plain,
                {"command": "ask", "tasks": [], "db": self.location, "answers": [], **shop.info, **self._about},
            )
            self._started = True
        self._turns += 1
        made = shop.store.tasks([task]).get(task) if task else None
        if made is not None and made.info["db"] != self.location:
            made = None  # the database moved since
        return Turn(
            id=f"{self._run.removeprefix(answered.PREFIX)}-{self._turns}", run=self._run, question=question,
            asked=asked, shop=shop, task=made or await self.task(asked), dialect=self.dialect,
            database=await asyncio.to_thread(self.app.database, self.location), memory=self._known,
            trials=not self.pinned, before=shop.store.usage(self._run),
        )  # fmt: skip

    def own(self, answer: str) -> answered.Record:
        """The record of an answer that this session may judge: of its database, given with its memory.

        Raises:
            UnknownName: no such answer. DataError: it is of another database or memory.
        """
        record = answered.answer_of(self.shop.store, answer)
        if record["db"] not in (self.location, self._moved):
            what = f"answer {record['id']} is of the database {record['db']}, not of {self.location}"
            raise DataError(what, todo="open that database to judge it, or use: verbal sql thumbs | correct")
        if record["memory"] != self.memory:
            had, has = record["memory"] or "none", self.memory or "none"
            what = f"answer {record['id']} was given with memory {had!r}, and this session has {has!r}"
            raise DataError(what, todo=f"open it with memory={had!r}, or use: verbal sql thumbs | correct")
        return record

    @property
    def app(self) -> Any:
        """The open app."""
        return self.shop.app

    async def task(self, asked: str) -> Task:
        """The task that a whole question is: the same for the same question of the same database.

        Its gold is the query that a person gave for it, if one did.
        """
        digest = hashlib.sha256(f"{self.location}\0{folded(asked)}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
        name = f"{answered.PREFIX}{digest}"
        made: Task = await asyncio.to_thread(self.app.task, asked, id=name)
        if (known := self.shop.store.tasks([name]).get(name)) is not None:
            made = made.replace(gold=known.gold, info={**made.info, "corrected": known.info.get("corrected", "")})
        self.shop.store.put_tasks([made])
        return made

    def conclude(
        self, turn: Turn, status: Status, *, attempt: str = "", readings: Sequence[Reading] = (), **fields: Any
    ) -> Answer:
        """The answer, kept."""
        close = [dataclasses.replace(r, number=i) for i, r in enumerate(readings, 1)]
        made = Answer(
            id=turn.id, question=turn.question, asked=turn.asked, status=status, understood=turn.named,
            readings=close, lessons=turn.told_lessons(), usage=turn.usage(), seconds=time.perf_counter() - turn.began,
            db=self.location, memory=self.memory, attempt=attempt, **fields,
        )  # fmt: skip
        told = [{"sql": r.sql, "attempt": r.attempt, "words": r.words, "votes": r.votes} for r in close]
        record = {
            "id": made.id, "question": made.question, "asked": made.asked, "status": status, "sql": made.answer,
            "attempt": attempt, "task": turn.task.id, "db": self.location, "memory": self.memory, "at": time.time(),
            "readings": told, "corrections": [], "says": made.says[:200],
        }  # fmt: skip
        answered.keep(self.shop.store, self._run, record)
        return made

    def rows_cap(self) -> int:
        """Rows that a query gives at most."""
        return int(self._recipe.app.options.get("rows", 50_000))

    def trials(self) -> Any:
        """The memory that may be written, or None."""
        return self.shop.memory


def session_id() -> str:
    """A new session's name, short enough to be typed; the lots of its answers are drawn from it."""
    return uuid.uuid4().hex[:5]


def location_of(db: str | Path) -> str:
    """How a database is called in the store: its absolute path, or its URL without the password.

    Raises:
        DataError: there is none, or nothing that an engine reads.
    """
    from .sources import Source

    return Source.of(db).location


def memory_of(db: str | Path) -> str:
    """Name of the memory in which lessons on a database are kept when none is named: `sql-shop` for `shop.sqlite`."""
    from .sources import Source

    return f"sql-{Source.of(db).name}"


def _dialect(location: str) -> str:
    from .sources import Source

    return Source.of(location).dialect


__all__ = ["DEFAULT_STORE", "Session", "location_of", "memory_of", "session_id"]
