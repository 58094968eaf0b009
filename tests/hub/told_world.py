"""A learned world for the tests of pages, figures and cards: two seeds that learned, what they scored, a decision."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from recorded_world import World


def told_world(folder: Path) -> World:
    """The runs `run` (two seeds: `run`, `run:1`; scored as `run:eval`) and `gate-1` of the tiny app."""
    shutil.copy2(_made() / "v.db", folder / "v.db")
    return World(folder)


@cache
def _made() -> Path:
    """The folder of a world that is made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="told-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    world = World(folder)

    async def work() -> None:
        await world.learn("run", parts=["run:1", "run:eval"])
        await world.learn("run:1")
        await _score(world)
        await world.judge()

    asyncio.run(work())
    results = (world.store.run("run:eval") or {"info": {}})["info"]["results"]
    world.store.set_info("run", {"study": results})
    world.store.close()
    return folder


async def _score(world: World) -> None:
    from verbal.study import perform

    ids = [t.id for t in world.app.tasks("dev")]
    known = world.store.memories()
    memories = {s: [name, known[name]] for s, name in enumerate(("run", "run:1"))}
    await perform(world.study("run:eval"), {"command": "eval", "tasks": ids, "seeds": [0, 1], "memories": memories})
