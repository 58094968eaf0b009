"""A memory as a pure function of its op log: `replay(ops)` gives the items, the same on every machine.

Rules, one per operation (an operation that breaks its rule changes nothing and counts as NOOP with a reason):

* ADD: needs an item with words; its id must be new. Without an id it gets the next `r<n>`. Ids are never reused.
* UPDATE: needs an item and the id of an item that is not retired. Counters and value stay: only TAG and VALUE change
  them.
* MERGE: as UPDATE, and `others` (known, not retired, not the item itself) are retired.
* RETIRE: a known item that is not retired yet. It stays readable by id and is never found again.
* TAG: counts `shown`, `helped` or `harmed` of a known item; `active` or `quarantined` is its new standing.
* VALUE: adds a finite `delta` to its value. With an outcome it is a trial: `shown` or `withheld`, counted once for an
  attempt; a shown item has helped when the outcome is at least one half, else harmed. Without an outcome, for an
  attempt that has counted, it takes that trial back: it counts no more, and may count anew.
* NOOP: nothing.

Trials are about words: an item whose words change begins with none.

No I/O, no model, no clock.
"""

from __future__ import annotations

import math
import re
from collections import ChainMap
from collections.abc import Iterable
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from verbal.contracts import Trial
from verbal.store_memory import EMBEDDER, is_embedder_op
from verbal.types import MemoryOp, Reflection

_WORDS = {
    name: frozenset(get_args(hint)) for name, hint in get_type_hints(Reflection).items() if get_origin(hint) is Literal
}
"""Fields of a reflection that hold one of a few words."""
_NUMBERED = re.compile(r"r([1-9][0-9]{0,17})")


class LogState:
    """A memory after some operations; `apply` takes it one further."""

    def __init__(self) -> None:
        self.version = 0
        self.items: dict[str, Reflection] = {}
        """Every item ever added, retired ones included, in order of their ADD."""
        self.by_task: dict[str, set[str]] = {}
        """Task id -> ids of the items whose words came from it, through updates and merges too."""
        self.trials: dict[str, list[Trial]] = {}
        """Id -> what happened when it was offered, since its words last changed."""
        self.since: dict[str, int] = {}
        """Id -> version at which its words or its standing last changed."""
        self.embedder = ""
        """Name of the embedder that made the vectors of the next items."""
        self.embedded_by: dict[str, str] = {}
        self.written: dict[str, int] = {}
        """Id -> version of the operation that wrote its words: its vector is kept under it."""
        self._tasks: dict[str, set[str]] = {}
        self._last = 0
        self._counted: dict[tuple[str, str], Trial | None] = {}
        """(attempt, item) -> its trial; None when it was taken back."""

    def next_id(self) -> str:
        """The id that the next ADD without one gets."""
        return f"r{self._last + 1}"

    def active(self) -> dict[str, Reflection]:
        """The items that may be shown, by id."""
        return {i: item for i, item in self.items.items() if item.status == "active"}

    def copy(self) -> LogState:
        """A copy that stays as it is (it does not know which task an item is from)."""
        copy = LogState()
        copy.version, copy.embedder, copy._last = self.version, self.embedder, self._last
        copy.items, copy.since = dict(self.items), dict(self.since)
        copy.trials, copy._counted = {i: list(t) for i, t in self.trials.items()}, dict(self._counted)
        return copy

    def trial(self) -> LogState:
        """A thin layer over this state, on which to try operations before they are logged; to be thrown away before
        this state moves on (it does not know which task an item is from).
        """
        return _Layer(self)

    def apply(self, op: MemoryOp) -> MemoryOp:
        """The operation as it counted (ids filled in, or a NOOP that says what was wrong), after applying it."""
        self.version += 1
        if op.op == "NOOP":
            if is_embedder_op(op):
                self.embedder = op.reason.removeprefix(EMBEDDER)
            return op
        if op.op == "ADD" and op.item is not None:
            target = op.reflection or op.item.id or self.next_id()
            if op.reflection != target or op.item.id != target:
                op = op.replace(reflection=target, item=op.item.replace(id=target))
        if wrong := self._wrong(op):
            return MemoryOp(op="NOOP", reflection=op.reflection, reason=f"{op.op}: {wrong}", author=op.author)
        if op.op in ("ADD", "UPDATE", "MERGE"):
            return self._write(op)
        self.items[op.reflection] = self._changed(op).replace(version=self.version)
        return op

    def _changed(self, op: MemoryOp) -> Reflection:
        """The item after a RETIRE, TAG or VALUE."""
        old = self.items[op.reflection]
        if op.op == "RETIRE" or op.tag in ("active", "quarantined"):
            self.since[op.reflection] = self.version
            return old.replace(status="retired" if op.op == "RETIRE" else op.tag)
        if op.op == "TAG":
            return old.replace(counters=old.counters.replace(**{op.tag: getattr(old.counters, op.tag) + 1}))
        key, by = (op.attempt, op.reflection), 1
        if op.outcome is None:
            trial = self._trial_of(*key) if op.attempt else None
            if trial is None:
                return old.replace(value=(old.value or 0.0) + op.delta)
            by, known = -1, self._trials_of(op.reflection)
            known[:] = [t for t in known if t.version != trial.version]
        else:
            trial = Trial(op.tag == "shown", op.chance, op.outcome, self.version)
            self._trials_of(op.reflection).append(trial)
        self._counted[key] = trial if by > 0 else None
        if not trial.shown:
            return old
        helped = trial.outcome >= 0.5
        counters = old.counters.replace(
            shown=old.counters.shown + by,
            helped=old.counters.helped + by * helped,
            harmed=old.counters.harmed + by * (not helped),
        )
        return old.replace(value=(old.value or 0.0) + op.delta, counters=counters)

    def _wrong(self, op: MemoryOp) -> str:
        """What is wrong with an operation, or an empty text."""
        old = self.items.get(op.reflection)
        if op.op in ("ADD", "UPDATE", "MERGE"):
            if op.item is None:
                return "no item"
            if not op.item.text.strip():
                return "the item has no words"
            if bad := [
                f"{k} {getattr(op.item, k)!r}" for k, known in _WORDS.items() if getattr(op.item, k) not in known
            ]:
                return f"the item has an unknown {bad[0]}"  # it could be written, and never read again
            if op.item.status == "retired":
                return "the item is retired already"
        if op.op == "ADD":
            return f"the id {op.reflection!r} is taken" if old else ""
        if old is None:
            return f"unknown id {op.reflection!r}"
        if op.op in ("UPDATE", "MERGE", "RETIRE") and old.status == "retired":
            return f"{op.reflection!r} is retired"
        if op.op == "MERGE":
            bad = [o for o in op.others if o not in self.items or self.items[o].status == "retired"]
            if bad or not op.others or op.reflection in op.others:
                return f"cannot merge {', '.join(map(repr, bad or op.others)) or 'nothing'} into {op.reflection!r}"
        if op.op == "TAG" and op.tag in ("", "withheld"):
            return "no tag"
        if op.op == "TAG" and op.tag in ("active", "quarantined") and old.status in ("retired", op.tag):
            return f"{op.reflection!r} is {old.status}"
        return self._wrong_value(op) if op.op == "VALUE" else ""

    def _wrong_value(self, op: MemoryOp) -> str:
        if not math.isfinite(op.delta):
            return f"delta {op.delta} is not a number"
        if op.outcome is None:
            return ""
        if op.tag not in ("shown", "withheld"):
            return "an outcome needs the tag `shown` or `withheld`"
        if not (0 <= op.outcome <= 1 and 0 < op.chance <= 1) or (op.tag == "withheld" and op.chance == 1):
            return f"outcome {op.outcome} at chance {op.chance} is out of range"
        if op.attempt and self._trial_of(op.attempt, op.reflection) is not None:
            return f"attempt {op.attempt!r} has counted for {op.reflection!r}"
        return ""

    def _write(self, op: MemoryOp) -> MemoryOp:
        assert op.item is not None
        given, target, old = op.item, op.reflection, self.items.get(op.reflection)
        # Vectors are kept beside the log (logs had them in their items before): here they would fill the memory.
        changes: dict[str, Any] = {"id": target, "embedding": ()}
        if old is None:
            if match := _NUMBERED.fullmatch(target):
                self._last = max(self._last, int(match[1]))
        else:
            changes |= {"counters": old.counters, "value": old.value, "task": given.task or old.task}
        for other in op.others if op.op == "MERGE" else ():
            self.items[other] = self.items[other].replace(status="retired", version=self.version)
            for task in self._tasks.get(other, ()):
                self._comes_from(target, task)
        new = given.replace(**changes, version=self.version)
        reworded = old is None or said(old) != said(new)
        if reworded:
            self._forget_trials(target)
            # A lesson that only confirms the words does not make its task a source of them.
            if given.task:
                self._comes_from(target, given.task)
            # Words that were made from others come from their tasks too.
            for task in [t for i in op.others for t in self._tasks.get(i, ())] if old is None else ():
                self._comes_from(target, task)
        if reworded or (old is not None and old.status != new.status):
            self.since[target] = self.version
        self.items[target] = new
        self.embedded_by[target], self.written[target] = self.embedder, self.version
        if old is None and given.id == target and not given.embedding:
            return op  # as it is in the log already; most are
        return op.replace(item=new.replace(version=given.version))

    def _comes_from(self, item_id: str, task: str) -> None:
        self.by_task.setdefault(task, set()).add(item_id)
        self._tasks.setdefault(item_id, set()).add(task)

    def _trials_of(self, item_id: str) -> list[Trial]:
        """The list to which a trial is added."""
        return self.trials.setdefault(item_id, [])

    def _forget_trials(self, item_id: str) -> None:
        self.trials.pop(item_id, None)

    def _trial_of(self, attempt: str, item_id: str) -> Trial | None:
        return self._counted.get((attempt, item_id))


class _Layer(LogState):
    """Changes over a state that is left as it is: made at once, however many items there are."""

    def __init__(self, under: LogState) -> None:
        super().__init__()
        self._under = under
        self.version, self.embedder, self._last = under.version, under.embedder, under._last
        # A ChainMap reads and writes like a dict, which is all that `apply` does.
        self.items = cast("dict[str, Reflection]", ChainMap({}, under.items))
        self.since = cast("dict[str, int]", ChainMap({}, under.since))
        self._own: dict[str, list[Trial]] = {}
        self.trials = cast("dict[str, list[Trial]]", ChainMap(self._own, under.trials))

    def _trials_of(self, item_id: str) -> list[Trial]:
        if item_id not in self._own:
            self._own[item_id] = list(self.trials.get(item_id, ()))
        return self._own[item_id]

    def _forget_trials(self, item_id: str) -> None:
        if item_id in self.trials:
            self._own[item_id] = []

    def _trial_of(self, attempt: str, item_id: str) -> Trial | None:
        if (attempt, item_id) in self._counted:
            return self._counted[attempt, item_id]
        return self._under._trial_of(attempt, item_id)


def replay(ops: Iterable[MemoryOp]) -> dict[str, Reflection]:
    """The items that a log leaves, by id, retired ones included."""
    state = LogState()
    for op in ops:
        state.apply(op)
    return state.items


def embedder_op(name: str) -> MemoryOp:
    """The operation that records which embedder made the vectors of the items after it."""
    return MemoryOp(op="NOOP", reason=EMBEDDER + name, author="memory")


def said(item: Reflection) -> tuple[str, ...]:
    """What an item says: two that say the same have the same evidence."""
    return item.title, item.text, item.when, item.boundary, item.polarity
