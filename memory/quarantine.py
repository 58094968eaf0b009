"""What a memory in quarantine makes of an operation: nothing that is written is believed before outcomes speak for it.

Rules:

* ADD: the item is quarantined, without value and counts, whatever it says of itself.
* UPDATE or MERGE that keeps an active item's words: as it is. With other words: an ADD of a quarantined rival, and the
  item stays as it was until the rival has beaten it.
* UPDATE or MERGE of quarantined items: as it is, and the item stays in quarantine.
* RETIRE of an active item, or TAG `active`: only by those of TRUSTED. From anybody else a RETIRE sends the item back to
  quarantine, where outcomes decide, and a TAG `active` changes nothing.
* VALUE: from anybody but TRUSTED only with an outcome, at most 1 up or down, and never as an experiment (chance 1): who
  forges outcomes moves a value, not a standing.
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
        if changed and any(item.status == "active" for item in touched):
            rival = op.item.replace(id="", status="quarantined", rival=old.id, value=None, counters=Counters())
            return MemoryOp(op="ADD", item=rival, reason=f"rival of {old.id}: {op.reason}", author=op.author)
        return op.replace(item=op.item.replace(status=old.status))
    if op.author not in TRUSTED and old is not None:
        if op.op == "RETIRE" and old.status == "active":
            return op.replace(op="TAG", tag="quarantined", reason=f"asked to retire it: {op.reason}")
        if op.op == "TAG" and op.tag == "active":
            return MemoryOp(op="NOOP", reflection=old.id, reason=f"{op.author} may not activate", author=op.author)
        if op.op == "VALUE" and (op.outcome is None or op.tag != "shown"):
            reason = f"{op.author} may not set a value without an outcome"
            return MemoryOp(op="NOOP", reflection=old.id, reason=reason, author=op.author)
        if op.op == "VALUE":
            return op.replace(chance=1.0, delta=max(-1.0, min(1.0, op.delta)))
    return op
