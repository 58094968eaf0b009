"""The worlds of bench/credit.py, and the loop that learns in them.

A world has FAMILIES of tasks, each with a base chance of success in [0.3, 0.6] and six items: two helpful (+0.2 to
+0.5), two useless (0), two harmful (-0.2 to -0.5). An item fits seven of the ten topics of its family; it acts on every
task it is shown in, effects add up (clipped to [0.02, 0.98]). The loop makes the offers of `verbal.loop.offers`: of the
believed items that fit the three most similar, each shown with a chance of 0.9; one trial slot, at one half, for the
item in quarantine with the best value. Items start in quarantine; standings change between batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from verbal.contracts import MemoryState
from verbal.memory.credit import OutcomeCredit
from verbal.memory.exact import ExactMemory
from verbal.memory.log import LogState
from verbal.store import Store
from verbal.types import MemoryOp, Reflection, Status

FAMILIES, TOPICS, FITS, K, SLOTS, CANDIDATES, WITHHOLD = 3, 10, 7, 3, 1, 8, 0.1
KINDS = ("helpful", "helpful", "useless", "useless", "harmful", "harmful")
TOPIC_WORDS = ("anchor", "basket", "candle", "dagger", "engine", "feather", "garden", "hammer", "island", "jacket")
FAMILY_WORDS = ("harvest", "voyage", "machine")


@dataclass
class World:
    """Tasks and items, and what an item does to an outcome."""

    base: list[float] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    effects: dict[str, float] = field(default_factory=dict)
    homes: dict[str, int] = field(default_factory=dict)
    fits: dict[str, set[int]] = field(default_factory=dict)
    tasks: list[tuple[int, int]] = field(default_factory=list)
    """Family and topic of each task."""

    def chance(self, task: int, shown: Sequence[str]) -> float:
        """Of success with these items in the prompt."""
        total = self.base[self.tasks[task][0]] + sum(self.effects[i] for i in shown)
        return min(0.98, max(0.02, total))


def make_world(seed: int, tasks: int) -> World:
    rng, world = np.random.default_rng(seed), World()
    for family in range(FAMILIES):
        world.base.append(float(rng.uniform(0.3, 0.6)))
        for kind in rng.permutation(KINDS):
            name = f"r{len(world.kinds) + 1}"
            sign = {"helpful": 1.0, "useless": 0.0, "harmful": -1.0}[str(kind)]
            world.kinds[name], world.effects[name] = str(kind), sign * float(rng.uniform(0.2, 0.5))
            world.homes[name] = family
            world.fits[name] = {int(t) for t in rng.choice(TOPICS, FITS, replace=False)}
    world.tasks = [(int(rng.integers(FAMILIES)), int(rng.integers(TOPICS))) for _ in range(tasks)]
    return world


# the loop -------------------------------------------------------------------------------------------------------------


class Simulated:
    """A log without a store; similarity is a number drawn for each task and item."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.state = world, LogState()
        self.alike = np.random.default_rng([seed, 1]).random((len(world.tasks), len(world.kinds)))
        self.order = {name: i for i, name in enumerate(world.kinds)}

    def ranked(self, task: int) -> list[str]:
        """The items that fit, most similar first."""
        family, topic = self.world.tasks[task]
        fit = [i for i in self.world.kinds if self.world.homes[i] == family and topic in self.world.fits[i]]
        return sorted(fit, key=lambda i: -self.alike[task, self.order[i]])

    async def search(self, task: int, status: Status, k: int) -> list[Reflection]:
        """The items of a standing that fit, most similar first."""
        return [self.state.items[i] for i in self.ranked(task) if self.state.items[i].status == status][:k]

    async def apply(self, ops: Sequence[MemoryOp]) -> MemoryState:
        """The memory after some operations."""
        for op in ops:
            self.state.apply(op)
        return self.state


class Real:
    """The same world on a memory in a store: items are found by the words of their family and topics."""

    def __init__(self, world: World, store: Store) -> None:
        self.world, self.memory = world, ExactMemory(store, quarantine=True)

    async def search(self, task: int, status: Status, k: int) -> list[Reflection]:
        """What the memory finds, of the task's family."""
        family, topic = self.world.tasks[task]
        found = await self.memory.search(f"{FAMILY_WORDS[family]} {TOPIC_WORDS[topic]}", k, status=status)
        # An item that shares only the family's or only the topic's word is found too; it acts at home alone.
        return [r for r in found if self.world.homes[r.id] == family]

    async def apply(self, ops: Sequence[MemoryOp]) -> MemoryState:
        """The memory after some operations."""
        await self.memory.apply(ops)
        return self.memory.preview()


def filed(world: World) -> list[MemoryOp]:
    """The items as they come in: quarantined."""
    ops = []
    for name, family in world.homes.items():
        when = " ".join([FAMILY_WORDS[family], *(TOPIC_WORDS[t] for t in sorted(world.fits[name]))])
        item = Reflection(id=name, text=f"lesson number {name}", when=when, status="quarantined")
        ops.append(MemoryOp(op="ADD", reflection=name, item=item))
    return ops


@dataclass
class Course:
    """What happened in one world."""

    state: MemoryState
    ever_active: set[str]
    decided: dict[str, int]
    """Item -> trials when its first verdict fell."""
    learning: list[float]
    served: list[float]
    offers: int = 0


async def run(world: World, lab: Simulated | Real, credit: OutcomeCredit, seed: int, batch: int) -> Course:
    """Learns on all tasks of a world, in batches."""
    rng = np.random.default_rng([seed, 2])
    state = await lab.apply(filed(world))
    course = Course(state, set(), {}, [], [])
    for start in range(0, len(world.tasks), batch):
        observed: list[MemoryOp] = []
        for task in range(start, min(start + batch, len(world.tasks))):
            chances, shown, served = await offer(lab, task, rng)
            course.learning.append(world.chance(task, shown))
            course.served.append(world.chance(task, served))
            course.offers += len(chances)
            outcome = float(rng.random() < course.learning[-1])
            ops = credit.observe(f"a{task}", chances, shown, outcome, state)
            if isinstance(lab, Simulated):
                await lab.apply(ops)
            else:
                observed += ops
                state = lab.memory.preview(observed)
        ops = credit.settle(state)
        for op in ops:
            course.decided.setdefault(op.reflection, len(state.trials.get(op.reflection, ())))
            course.ever_active |= {op.reflection} if op.tag == "active" else set()
        state = await lab.apply([*observed, *ops])
    course.state = state
    return course


async def offer(lab: Simulated | Real, task: int, rng: Generator) -> tuple[dict[str, float], list[str], list[str]]:
    """Chances and shown items of a learning attempt, and what a scoring one is shown; as `verbal.loop.offers`."""
    believed = await lab.search(task, "active", K)
    fit = await lab.search(task, "quarantined", CANDIDATES)
    tried = sorted(fit, key=lambda r: -(r.value or 0.0))[:SLOTS]
    chances = {r.id: 1 - WITHHOLD for r in believed} | {r.id: 0.5 for r in tried}
    return chances, [i for i, p in chances.items() if rng.random() < p], [r.id for r in believed]
