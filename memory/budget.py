"""Budgets of a memory: items and tokens of each scope, and who goes when they are exceeded. Nothing goes silently.

Rules for a scope (task, family, global) that holds too much:

* What is on trial goes first, for it has proven nothing; but a tenth of the budget is kept for it (RESERVE), or a full
  memory could learn nothing new. Beyond that share believed items make room.
* Among those of a standing the one goes that gains least for its tokens: effect, times how often it is offered, over
  the tokens it takes. The effect is shrunk to 0 as by DOUBT trials without difference, so an item that was never tried
  counts 0: it goes after what did harm and before what helped.
* On ties the oldest goes (the order of their ADD).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from verbal.contracts import Trial
from verbal.types import MemoryOp, Reflection

from .effects import differences, lots
from .retrieval import tokens

RESERVE = 0.1
"""Share of a budget that is kept for items on trial."""
DOUBT = 10.0
"""Trials without difference that the first belief about an effect is worth: d spreads by about 1, effects by 0.3."""
YOUTH = 100
"""Operations on the memory by which an item is taken to be older than it is: one offer makes no habit."""


def over_budget(
    items: Iterable[Reflection],
    trials: Mapping[str, Sequence[Trial]],
    *,
    items_cap: int | None = None,
    tokens_cap: int | None = None,
) -> list[MemoryOp]:
    """RETIRE for what must go so that each scope keeps its budget, by the author `budget`, worst first.

    Args:
        items: The memory, oldest first; retired ones do not count.
        trials: What happened when they were offered, by id.
        items_cap: Most items of a scope; None is no limit.
        tokens_cap: Most tokens of the items of a scope together, as a prompt counts them; None is no limit.
    """
    scopes: dict[str, list[Reflection]] = {"task": [], "family": [], "global": []}
    now = 0
    for item in items:
        now = max(now, item.version)
        if item.status != "retired":
            scopes[item.scope].append(item)
    ops: list[MemoryOp] = []
    for scope, held in scopes.items():
        sizes = {}
        if tokens_cap is not None:
            sizes = {item.id: tokens(item) for item in held}
        if _fits(len(held), sum(sizes.values()), items_cap, tokens_cap):
            continue
        sizes = sizes or {item.id: tokens(item) for item in held}
        gains = _gains(held, trials, sizes, now)
        for item in _evicted(held, gains, sizes, items_cap, tokens_cap):
            caps = [f"{items_cap} items"] if items_cap is not None else []
            caps += [f"{tokens_cap} tokens"] if tokens_cap is not None else []
            row = trials.get(item.id, ())
            told = (
                f"{item.status}, {sizes[item.id]} tokens, offered {len(row)} times, gain {gains[item.id]:.2g} a token"
            )
            reason = f"over budget, scope {scope} keeps {' and '.join(caps)}: {told}"
            ops.append(MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author="budget"))
    return ops


def _fits(count: int, size: int, items_cap: int | None, tokens_cap: int | None) -> bool:
    return (items_cap is None or count <= items_cap) and (tokens_cap is None or size <= tokens_cap)


def _gains(
    held: Sequence[Reflection], trials: Mapping[str, Sequence[Trial]], sizes: Mapping[str, int], now: int
) -> dict[str, float]:
    """Expected gain of each item for a token, per operation on the memory."""
    rows = {item.id: lots(trials.get(item.id, ())) for item in held}
    tried = {i: row for i, row in rows.items() if row}
    gains = dict.fromkeys(rows, 0.0)
    if tried:
        d, bound = differences(list(tried.values()))
        weights = 1 / bound**2  # the larger d can get by its chance, the less it says
        known = np.array([[t < len(row) for t in range(d.shape[1])] for row in tried.values()])
        weights = np.where(known, weights, 0.0)
        effects = (weights * d).sum(axis=1) / (weights.sum(axis=1) + DOUBT)
        for item_id, mean in zip(tried, effects, strict=True):
            offers = trials[item_id]
            often = len(offers) / (max(now, offers[-1].version) - offers[0].version + YOUTH)
            gains[item_id] = float(mean) * often / max(sizes[item_id], 1)
    return gains


def _evicted(
    held: Sequence[Reflection],
    gains: Mapping[str, float],
    sizes: Mapping[str, int],
    items_cap: int | None,
    tokens_cap: int | None,
) -> list[Reflection]:
    """Who goes, in order."""
    # `sorted` keeps the order of equal ones: the oldest first.
    queues = {
        status: sorted((item for item in held if item.status == status), key=lambda item: gains[item.id])
        for status in ("quarantined", "active")
    }
    count = {status: len(queue) for status, queue in queues.items()}
    size = {status: sum(sizes[item.id] for item in queue) for status, queue in queues.items()}
    gone: list[Reflection] = []
    while not _fits(sum(count.values()), sum(size.values()), items_cap, tokens_cap):
        few = items_cap is None or count["quarantined"] <= RESERVE * items_cap
        small = tokens_cap is None or size["quarantined"] <= RESERVE * tokens_cap
        status = "active" if queues["active"] and ((few and small) or not queues["quarantined"]) else "quarantined"
        item = queues[status].pop(0)
        count[status] -= 1
        size[status] -= sizes[item.id]
        gone.append(item)
    return gone


__all__ = ["over_budget"]
