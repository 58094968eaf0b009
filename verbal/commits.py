"""Group commit: the writes of many tasks in one transaction.

Hundreds of episodes side by side each write a few rows at a time, and a commit costs more than the rows in it. So a
task hands its write over and waits; whatever was handed over in one turn of the event loop is committed together, and
then everyone who waited goes on. Nobody goes on before what he wrote is kept, and nobody waits for longer than a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")
_Waiting = list[tuple[Callable[[], Any], "asyncio.Future[Any]"]]


class GroupCommit:
    """Commits of one database, grouped by the turns of each event loop.

    Args:
        transaction: Opens a transaction that is undone as a whole.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[object]]) -> None:
        self._transaction = transaction
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    async def write(self, write: Callable[[], _T]) -> _T:
        """What `write` gives, once it is kept. It is made even when the task that waits is cancelled meanwhile.

        Args:
            write: Statements that are kept all or none; awaits nothing, and may run twice (the first time is undone).

        Raises:
            Whatever `write` raises; a write that fails takes no other with it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        waiting = self._waiting.setdefault(loop, [])
        waiting.append((write, future))
        if len(waiting) == 1:
            loop.call_soon(self._commit, loop)
        return await future

    def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting.pop(loop)
        try:
            with self._transaction():
                results = [write() for write, _ in waiting]
        except Exception:  # of one of them, or of the commit: each for itself then, to see whose it is
            for write, future in waiting:
                self._alone(write, future)
        except BaseException as stop:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(stop)
        else:
            for (_, future), result in zip(waiting, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _alone(self, write: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            with self._transaction():
                result = write()
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
