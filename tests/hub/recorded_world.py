"""A recorded world for the tests of replay: a store, the tiny app, a model in a file of its own that can be closed.

Run as a script it learns in a process of its own: `recorded_world.py FOLDER RUN`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import verbal.testing
from verbal.gate import Rule
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.store import Store
from verbal.study import Study, perform
from verbal.testing import TinyApp
from verbal.versions import adopt, declare, make_policy

TINY = verbal.testing.__file__
MODEL = """
import os
from pathlib import Path
from verbal.errors import RefusedError
from verbal.testing import ScriptedModel, tiny_reply

class Model(ScriptedModel):
    '''The tiny model; while the file `closed` is there nobody may as much as open it.'''

    def __init__(self):
        if (Path(__file__).parent / "closed").exists():
            raise AssertionError("a replay opened a model")
        super().__init__(tiny_reply, latency=float(os.environ.get("LATENCY", "0")))

    async def generate(self, messages, n, sampling):
        if (Path(__file__).parent / "closed").exists():
            raise AssertionError("a replay called a model")
        if "refuse me" in messages[-1].content:
            raise RefusedError("I do not talk about that")
        return await super().generate(messages, n, sampling)
"""


class World:
    """A store, the tiny app and a model in a file of its own."""

    def __init__(self, folder, codes=None):
        self.folder, self.path = folder, folder / "v.db"
        (folder / "model.py").write_text(MODEL)
        self.store = Store(self.path)
        self.app = TinyApp(codes)
        options = {"codes": codes} if codes else {}
        self.recipe = Recipe(
            app=AppTable(name=f"{TINY}:TinyApp", options=options),
            model=ModelTable(name=f"{folder / 'model.py'}:Model"),
            loop=LoopTable(rounds=2, batch=3),
            critics=CriticsTable(names=(f"{TINY}:TinyCritic",), verdict=f"{TINY}:TinyCritic"),
            memory=MemoryTable(name="exact", k=2, quarantine=False, withhold=0.0),
        )
        self.store.put_tasks([*self.app.tasks("train"), *self.app.tasks("dev")])

    def study(self, run):
        return Study(store=self.store, recipe=self.recipe, run=run)

    async def learn(self, run="run", **more):
        ids = [t.id for t in self.app.tasks("train")]
        spec = {"command": "learn", "arm": "learn", "tasks": ids, "memory": {"name": more.pop("memory", run)}, **more}
        return await perform(self.study(run), spec)

    async def score(self, run="eval", memory="run", seeds=(0, 1)):
        ids = [t.id for t in self.app.tasks("dev")]
        memories = {s: [memory, self.store.memories()[memory]] for s in seeds}
        return await perform(
            self.study(run), {"command": "eval", "tasks": ids, "seeds": list(seeds), "memories": memories}
        )

    async def judge(self, memory="run", guard=()):
        candidate = make_policy(self.store, self.recipe.model.name, memory)
        dev = self.app.tasks("dev")
        name, spec = declare(self.store, self.recipe, candidate, dev, guard, rule=Rule(batch=3), seeds=2, budget=None)
        decision = await perform(self.study(name), spec)
        adopt(self.store, name, spec, decision)
        return decision

    def close_models(self):
        (self.folder / "closed").touch()


def edit(path, sql, *values):
    """Changes a store behind its back."""
    db = sqlite3.connect(path)
    assert db.execute(sql, values).rowcount > 0
    db.commit()
    db.close()


if __name__ == "__main__":
    asyncio.run(World(Path(sys.argv[1])).learn(sys.argv[2]))
