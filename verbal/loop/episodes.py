"""Many episodes side by side in one event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

AT_ONCE = 16
"""Episodes that are begun before those under way have their turn, so that the first calls are sent at once."""
_RARELY = 50_000
_T = TypeVar("_T")


async def side_by_side(episodes: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """What they give, awaited together; the first failure cancels the rest, which leave no half-kept attempt behind."""
    running = [asyncio.ensure_future(e) for e in episodes[:AT_ONCE]]
    try:
        with rare_collections():
            for at in range(AT_ONCE, len(episodes), AT_ONCE):
                await asyncio.sleep(0)
                running += [asyncio.ensure_future(e) for e in episodes[at : at + AT_ONCE]]
            return await asyncio.gather(*running)
    except BaseException:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for episode in episodes[len(running) :]:
            episode.close()
        raise


@contextmanager
def rare_collections() -> Iterator[None]:
    """Lets the collector of cycles look less often meanwhile.

    An episode makes thousands of small objects in LangGraph that live until it ends; to look for cycles among those of
    hundreds of episodes every 700 objects took a quarter of the time. References are counted as ever.
    """
    before = gc.get_threshold()
    if not 0 < before[0] < _RARELY:
        yield
        return
    gc.set_threshold(_RARELY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
