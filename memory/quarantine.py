"""What a memory in quarantine makes of an operation: nothing that is written is believed before outcomes speak for it.

Rules:

* ADD: the item is quarantined, without value and counts, whatever it says of itself.
* UPDATE or MERGE that keeps an active item's words: as it is. With other words: an ADD of a quarantined rival, and the
  item stays as it was until the rival has beaten it.
* UPDATE or MERGE of quarantined items: as it is, and the item stays in quarantine. A MERGE retires an active item only
  into another active one of the same words.
* RETIRE of an active item, or TAG `active`: only by those of TRUSTED. From anybody else a RETIRE sends the item back to
  quarantine, where outcomes decide, and a TAG `active` changes nothing.
* VALUE: from anybody but TRUSTED only with an outcome, at most 1 up or down, and never as an experiment (chance 1): who
  forges outcomes moves a value, not a standing; it counts under its author's name, so that it cannot take the place of
  what credit has to say of an attempt.
* An item that speaks to the model rather than of the task is refused (`screening.instruction`).
"""

from __future__ import annotations

from collections.abc import Mapping

from verbal.types import Counters, MemoryOp, Reflection

from .log import said
from .screening import instruction

TRUSTED = ("user", "credit", "budget")
"""Authors whose RETIRE and TAG `active` count at once: a person, and the code that reads outcomes and budgets."""


def quarantined(op: MemoryOp, items: Mapping[str, Reflection]) -> MemoryOp:
    """The operation as it may count, given the items before it."""
    old = items.get(op.reflection)
    if op.item is not None and (why := instruction(op.item)):
        return MemoryOp(op="NOOP", reflection=op.reflection, reason=f"{op.op} refused: {why}", author=op.author)
    if op.op == "ADD" and op.item is not None:
        return op.replace(item=op.item.replace(status="quarantined", value=None, counters=Counters()))
    if op.op in ("UPDATE", "MERGE") and op.item is not None and old is not None:
        changed = said(old) != said(op.item.replace(id=old.id))
        touched = [old, *(items[i] for i in op.others if i in items)]
        lost = [item for item in touched[1:] if item.status == "active"]
        if old.status == "active":
            lost = [item for item in lost if said(item) != said(old)]
        if lost and not changed and op.author not in TRUSTED:
            reason = f"{op.author} may not retire an active item by a merge"
            return MemoryOp(op="NOOP", reflection=old.id, reason=reason, author=op.author)
        if changed and any(item.status == "active" for item in touched):
            return _rival(op, op.item, old, items)
        return op.replace(item=op.item.replace(status=old.status, rival=op.item.rival or old.rival))
    if op.author not in TRUSTED and old is not None:
        if op.op == "RETIRE" and old.status == "active":
            return op.replace(op="TAG", tag="quarantined", reason=f"asked to retire it: {op.reason}")
        if op.op == "TAG" and op.tag == "active":
            return MemoryOp(op="NOOP", reflection=old.id, reason=f"{op.author} may not activate", author=op.author)
        if op.op == "VALUE" and (op.outcome is None or op.tag != "shown"):
            reason = f"{op.author} may not set a value without an outcome"
            return MemoryOp(op="NOOP", reflection=old.id, reason=reason, author=op.author)
        if op.op == "VALUE":
            own = f"{op.author}:{op.attempt}" if op.attempt else ""
            return op.replace(chance=1.0, attempt=own, delta=max(-1.0, min(1.0, op.delta)))
    return op


def _rival(op: MemoryOp, item: Reflection, old: Reflection, items: Mapping[str, Reflection]) -> MemoryOp:
    """Words that would replace an active item, as a quarantined one beside it, or that one seen again."""
    reason = f"rival of {old.id}: {op.reason}"
    for twin in items.values():
        if (twin.status, twin.rival) == ("quarantined", old.id) and said(twin) == said(item):
            seen = tuple(dict.fromkeys((*twin.attempts, *item.attempts)))
            again = twin.replace(attempts=seen)
            return MemoryOp(op="UPDATE", reflection=twin.id, item=again, reason=reason, author=op.author)
    rival = item.replace(id="", status="quarantined", rival=old.id, value=None, counters=Counters())
    return MemoryOp(op="ADD", item=rival, others=(old.id, *op.others), reason=reason, author=op.author)
