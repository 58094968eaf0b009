"""What an attempt is shown: what is believed, now and then withheld, and what is on trial, by lot.

A lesson that is always shown where it fits can never be told from a good task. So, while learning, each retrieved item
has a chance of being shown that is known and written on the attempt: 1 - `memory.withhold` for what is believed, one
half for what is on trial. The lots are drawn from the run's seed, task and item; a scoring arm draws none and sees what
is believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verbal.types import Reflection, Task

if TYPE_CHECKING:
    from verbal.loop.context import Context

TRIAL_CHANCE = 0.5
"""Of an item in a trial slot: the chance at which one attempt tells most."""

_CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """The reflections found for a task, after the lots were drawn."""

    shown: list[Reflection] = field(default_factory=list)
    chances: dict[str, float] = field(default_factory=dict)
    """Item -> the chance it had of being shown; empty where nobody reads outcomes."""


async def offer(context: Context, task: Task, query: str) -> Offer:
    """Searches the memory for a task and draws the lots.

    Of those that fit, a trial slot goes to the one that did best so far, then to the best fitting: what fails falls
    behind what is new, so that a heap of bad lessons cannot keep a good one waiting.
    A rival on trial takes the place of the item it contradicts: one lot decides which of the two is shown.
    """
    memory, table = context.memory, context.recipe.memory
    if memory is None:
        return Offer()
    # A memory of scope `task` lives on what the task itself taught (Reflexion); any other leaves that out.
    hidden = [] if table.options.get("scope") == "task" else [task.id]
    believed = await memory.search(query, table.k, exclude_tasks=hidden, task=task.id)
    if not context.learning:
        return Offer(believed)
    tried: list[Reflection] = []
    withheld = table.withhold if table.credit else 0.0  # lots that nobody reads would only cost
    if table.quarantine and table.trials and table.credit:
        fit = await memory.search(query, _CANDIDATES, exclude_tasks=hidden, status="quarantined", task=task.id)
        tried = sorted(fit, key=lambda r: -(r.value or 0.0))[: table.trials]
    chances = {r.id: 1.0 - withheld for r in believed}
    drawn = {r.id for r in believed if _lot(context, task, r) < chances[r.id]}
    for item in tried:
        chances[item.id] = TRIAL_CHANCE
        won = _lot(context, task, item) < TRIAL_CHANCE
        drawn |= {item.id} if won else set()
        for other in (r.id for r in believed if item.rival and item.rival in (r.id, r.rival)):
            chances[other] = 1.0 - TRIAL_CHANCE
            drawn = drawn - {other} if won else drawn | {other}
    if not table.credit:
        chances = {}
    return Offer([r for r in (*believed, *tried) if r.id in drawn], chances)


def _lot(context: Context, task: Task, item: Reflection) -> float:
    """A number in [0, 1) that depends on seed, task and item only."""
    return context.draw(task.id, item.id, "offer") / 2**31
