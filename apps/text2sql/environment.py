"""One question's world, of one turn or several, and what a query or a reply without one comes to as an observation."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from verbal.contracts import Observation, Reply
from verbal.errors import EnvironmentFault
from verbal.types import Message, Reflection, StopReason, Task

from .replies import parse_sql
from .worker import Result

if TYPE_CHECKING:
    from .app import Text2Sql

SHOWN_ROWS = 3
"""Rows that an observation's text shows."""


class SqlEnvironment:
    """One question's world: one prompt, one query, one look at its result."""

    turns: ClassVar[int] = 1
    """Replies that an attempt takes."""

    def __init__(self, app: Text2Sql) -> None:
        """`app` owns the workers and databases; this holds only its task."""
        self._app = app
        self._task: Task | None = None

    async def start(self, task: Task, *, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        """The solver's prompt.

        Raises:
            EnvironmentFault: it was started before.
        """
        if self._task is not None:
            raise EnvironmentFault("an environment serves one task", todo="make another with app.environment()")
        self._task = task
        return await asyncio.to_thread(self._app.opening, task, hints, tried)

    async def step(self, reply: Reply) -> Observation:
        """Runs the last ```sql block of the reply; a reply without one is an observation that says so."""
        if self._task is None:
            raise EnvironmentFault("the environment was not started", todo="call start(task) first")
        sql = parse_sql(reply.text)
        return without_query(reply) if sql is None else await self._app.execute(self._task, sql)

    async def aclose(self) -> None:
        """Forgets the task; the app's workers stay warm."""
        self._task = None


class Chain(SqlEnvironment):
    """One question's world in several turns; a subclass says which."""

    template = "solver"
    """The prompt that opens it."""
    turn = 0
    """Replies so far."""

    async def start(self, task: Task, *, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        """The prompt of the first turn."""
        if self._task is not None:
            raise EnvironmentFault("an environment serves one task", todo="make another with app.environment()")
        self._task = task
        app = self._app
        return await asyncio.to_thread(app.messages, "solver", task, hints=hints, tried=tried, template=self.template)

    async def step(self, reply: Reply) -> Observation:
        """The next turn's prompt, or what the last turn's query gives."""
        if self._task is None:
            raise EnvironmentFault("the environment was not started", todo="call start(task) first")
        self.turn += 1
        return await self.after(self._task, reply)

    async def after(self, task: Task, reply: Reply) -> Observation:
        """What follows the reply of turn `turn`."""
        raise NotImplementedError

    def ask(self, task: Task, name: str, draft: Observation | None = None, **fields: str) -> Observation:
        """The prompt of the next turn; `draft` is what the query so far gave."""
        text = self._app.turn(task, name, **fields)
        return dataclasses.replace(draft or Observation(text="", done=False), text=text, done=False)


def without_query(reply: Reply) -> Observation:
    """The observation of a reply in which no query was found."""
    if reply.finish == "length":
        return malformed("the reply was cut at its token limit before its query ended", StopReason.LENGTH)
    if not reply.text.strip():
        return malformed("the reply is empty")
    return malformed("the reply holds no query: no closed block that starts with ```sql")


def malformed(what: str, stop: StopReason = StopReason.MALFORMED) -> Observation:
    """The observation of a reply that holds no query."""
    info = {"columns": [], "rows": [], "row_count": 0, "error": what, "error_class": "no_answer", "seconds": 0.0}
    return Observation(text=f"error: {what}", done=True, stop=stop, info={**info, "truncated": False})


def observed(answer: str, result: Result) -> Observation:
    """A query's result as an observation: words for a prompt, rows for critics."""
    info: Mapping[str, Any] = {
        "columns": list(result.columns),
        "rows": [list(row) for row in result.rows],
        "row_count": len(result.rows),
        "error": result.error,
        "error_class": result.error_class,
        "seconds": result.seconds,
        "truncated": result.truncated,
    }
    return Observation(text=_words(result), done=True, answer=answer, info=dict(info))


def _words(result: Result) -> str:
    if result.error is not None:
        return f"error: {result.error}"
    rows, columns = len(result.rows), len(result.columns)
    count = f"{'more than ' if result.truncated else ''}{rows} row{'' if rows == 1 else 's'}"
    head = f"{count}, {columns} column{'' if columns == 1 else 's'}"
    if not rows:
        return head
    shown = ["(" + ", ".join(_shown(cell) for cell in row[:8]) + ")" for row in result.rows[:SHOWN_ROWS]]
    return f"{head}: {' '.join(shown)}{' ...' if rows > SHOWN_ROWS else ''}"


def _shown(cell: Any) -> str:
    if cell is None:
        return "NULL"
    if isinstance(cell, str):
        text = " ".join(cell.split())
        return "'" + (text if len(text) <= 40 else text[:40] + "...") + "'"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
