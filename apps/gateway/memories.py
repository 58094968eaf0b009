"""The memories of a store, opened once and used from a thread of their own: no request waits for one that is slow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from verbal.memory_verbs import open_part, own_embedder
from verbal.store import Store
from verbal.versions import Policy

ADOPTED = "adopted"
"""Stands for the memory of the policy that the store has adopted."""
_LOOKED = 0.5
"""Seconds between two looks at what is adopted."""
_T = TypeVar("_T")


class Memories:
    """Opens memories by name, each once, and closes them.

    Args:
        store: Where they are; used by the thread, so give it a connection of its own.
        embedder: Of memories that are paid for or elsewhere; each memory's own when empty.
    """

    def __init__(self, store: Store, *, embedder: str = "") -> None:
        self.store, self._embedder = store, embedder
        self._opened: dict[tuple[str, int | None], Any] = {}
        self._adopted: tuple[float, tuple[str, int | None]] = (-_LOOKED, ("", None))
        self._loop = asyncio.new_event_loop()
        # One after the other, each told as soon as it is done; what nobody waits for any more is not begun.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memories")

    async def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What a coroutine gives that is run in the thread of the memories."""
        return await asyncio.wrap_future(self._thread.submit(lambda: self._loop.run_until_complete(work())))

    def find(self, spec: str) -> tuple[Any, str, int | None] | None:
        """The memory of `NAME`, `NAME@VERSION` or `adopted` with its name and the version at which it stands still.

        None where nothing with a memory is adopted. Only in the thread.

        Raises:
            VerbalError: it cannot be opened.
        """
        name, version = self._now() if spec == ADOPTED else _parsed(spec)
        if not name:
            return None
        if (name, version) not in self._opened:
            embedder = self._embedder or own_embedder(self.store, name)
            pinned: dict[str, Any] = {"version": version} if version is not None else {"quarantine": True}
            self._opened[name, version] = open_part(self.store, name, "exact", embedder, **pinned)
        return self._opened[name, version], name, version

    def close(self) -> None:
        """Closes the memories and ends the thread."""
        self._thread.shutdown(cancel_futures=True)
        last = threading.Thread(target=self._end)  # a loop cannot run where another one does
        last.start()
        last.join()

    def _end(self) -> None:
        for memory in self._opened.values():
            memory.close()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _now(self) -> tuple[str, int | None]:
        at, found = self._adopted
        if time.monotonic() - at >= _LOOKED:
            log = self.store.versions()
            policy = Policy(**log[-1]["policy"]) if log else None
            found = (policy.memory, policy.version) if policy is not None else ("", None)
            self._adopted = (time.monotonic(), found)
        return found


def _parsed(spec: str) -> tuple[str, int | None]:
    name, at, version = spec.rpartition("@")
    return (name, int(version)) if at and version.isdigit() else (spec, None)


__all__ = ["ADOPTED", "Memories"]
