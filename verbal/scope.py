"""The scope test: whether a lesson changes answers where it must not.

A lesson that a person taught ("be brief in mails to my boss") is tried on requests inside its scope, near it (the same
words, another matter) and outside. One that changes answers near or outside is narrowed by the proposer's boundary and
tried again; one that still changes answers outside, or too many near, is refused, and so is one that narrowing left
without any effect. In-context lessons leak a lot: 0.50 of answers out of scope changed in the source's own baseline.

A boundary made of words that the failing requests hold was tried and left out: it passes the test it was made from and
no other. With one, 29 of the 32 lessons of bench/data/feedback.jsonl passed, and still changed 65 % of the answers to
near requests that were held out.

Source: Stephan et al. 2024, RLVF / C3PO, arXiv 2402.10893: sections 3 (three kinds of prompts) and 6 (the score). The
test is for retrieval and prompt together: an item that is not found for a request cannot change its answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from verbal.contracts import Memory, Observation
from verbal.errors import DataError
from verbal.loop.context import query
from verbal.loop.episodes import side_by_side
from verbal.loop.nodes import make_attempt
from verbal.parts import load_function
from verbal.run import Workshop, make_context
from verbal.scope_requests import KINDS, Kind, Requests, digest, make_requests, read_requests, write_requests
from verbal.types import MemoryOp, Reflection, StopReason, Task

NEAR_ALLOWED = 0.1
"""Share of near requests whose answer may change: what is near is a matter of judgement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a lesson changed. Shares are of the requests of a kind, 0 to 1."""

    item: Reflection
    changed: dict[str, list[str]] = field(default_factory=dict)
    """Kind -> requests whose answer is another one with the lesson."""
    asked: dict[str, int] = field(default_factory=dict)
    """Kind -> requests tried: sealed ones, and those whose call failed, are not."""

    def share(self, *kinds: Kind) -> float:
        """Share of the requests of these kinds whose answer changed; 0 where there are none."""
        asked = sum(self.asked.get(k, 0) for k in kinds)
        return sum(len(self.changed.get(k, ())) for k in kinds) / asked if asked else 0.0

    @property
    def kept(self) -> bool:
        """Whether the lesson stays where it belongs."""
        return not self.changed.get("outside") and self.share("near") <= NEAR_ALLOWED

    @property
    def score(self) -> float:
        """(S_in + 1 - S_out) / 2, with changes for adherence: 1 changes all inside and nothing else."""
        return (self.share("inside") + 1.0 - self.share("near", "outside")) / 2

    def words(self) -> str:
        """The finding in words."""
        told = ", ".join(f"{len(self.changed.get(k, ()))} of {self.asked.get(k, 0)} {k}" for k in KINDS)
        return f"changes answers to {told} its scope" if any(self.asked.values()) else "was not tried"


async def try_scope(
    workshop: Workshop, memory: Memory, item: Reflection, requests: Requests, *, run: str, answers: bool = False
) -> Scope:
    """What a lesson changes: each request is answered with and without it, beside what the memory believes already.

    Args:
        workshop: Open parts; its solver answers, greedily.
        memory: Holds the item; whatever its standing, it is tried as if it were believed. One that search does not
            find, because `k` others or a rival stand before it, changes nothing.
        item: The lesson.
        requests: What it is tried on.
        run: Under which the attempts are kept.
        answers: Whether requests that the lesson is not found for are answered too. The finding does not need it, rows
            of `c3po` do.

    Raises:
        DataError: no request could be tried. BudgetError, TransientError, ReplayMiss, StoreError: what stops a run.
    """
    tried = [(kind, task) for kind in KINDS for task in requests.of(kind) if task.split != "test"]
    workshop.store.put_tasks([task for _, task in tried])
    found: dict[tuple[str, str], bool | None] = {}

    async def one(kind: Kind, task: Task) -> None:
        found[kind, task.id] = await _changes(workshop, memory, item, task, run, answers)

    await side_by_side([one(kind, task) for kind, task in tried])
    if all(seen is None for seen in found.values()):
        why = f"all {len(tried)} calls failed" if tried else "there are none, or all are of the sealed split"
        todo = f"see `verbal traces {run}`" if tried else "give requests near and outside its scope"
        raise DataError(f"{item.id} could not be tried on any request: {why}", where=f"run {run!r}", todo=todo)
    scope = Scope(item=item)
    for kind in KINDS:
        seen = {t.id: found[kind, t.id] for k, t in tried if k == kind}
        scope.asked[kind] = sum(changed is not None for changed in seen.values())
        scope.changed[kind] = [i for i, changed in seen.items() if changed]
    return scope


async def confine(
    workshop: Workshop, memory: Memory, item: Reflection, requests: Requests, *, run: str, answers: bool = False
) -> tuple[Scope, Scope]:
    """Keeps a lesson where it belongs: as it is, narrowed by a boundary, or refused. Gives the first, last finding.

    The operations are logged by the author `scope`, with the finding as their reason. In a memory with quarantine an
    active item is never rewritten: the narrowed one is its rival, and the item goes back to quarantine.

    Raises:
        DataError: no request near or outside could be tried, so nothing is known and nothing is decided.
    """
    first = last = await try_scope(workshop, memory, item, requests, run=run, answers=answers)
    if not first.asked["near"] + first.asked["outside"]:
        why = f"no request near or outside the scope of {item.id} could be tried"
        raise DataError(why, where=f"run {run!r}", todo="give some that are not sealed, and whose calls do not fail")
    if not last.kept and (boundary := _usable(item, requests)):
        narrowed = await _narrow(memory, last, boundary)
        if narrowed:
            last = await try_scope(workshop, memory, narrowed, requests, run=run, answers=answers)
    refused = verdict(first, last) == "refused"
    mute = ", which leaves nothing of it" if last.kept and refused else ""
    op: Literal["NOOP", "RETIRE"] = "RETIRE" if refused else "NOOP"
    ops = [MemoryOp(op=op, reflection=last.item.id, reason=f"scope test: it {last.words()}{mute}", author="scope")]
    if last.item.id != item.id:  # a rival was filed
        reason = f"scope test: it {first.words()}; {last.item.id} is narrower"
        ops.append(MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author="scope"))
    await memory.apply(ops)
    return first, last


def verdict(first: Scope, last: Scope) -> Literal["kept", "narrowed", "refused"]:
    """What becomes of a lesson by its first and its last finding; one that lost its effect inside is refused."""
    if not last.kept or (first.changed.get("inside") and not last.changed.get("inside")):
        return "refused"
    return "kept" if first.item.boundary == last.item.boundary else "narrowed"


async def _narrow(memory: Memory, found: Scope, boundary: str) -> Reflection | None:
    """The item, or its rival, with a further boundary; None where the memory refused that."""
    item = found.item.replace(boundary="; ".join(b for b in (found.item.boundary, boundary) if b))
    reason = f"narrowed: it {found.words()}"
    await memory.apply([MemoryOp(op="UPDATE", reflection=item.id, item=item, reason=reason, author="scope")])
    same = (item.text, item.boundary)
    for held in reversed(memory.preview().items.values()):
        if item.id in (held.id, held.rival) and held.status != "retired" and (held.text, held.boundary) == same:
            return held
    return None


def _usable(item: Reflection, requests: Requests) -> str:
    """The clauses of the proposer's boundary that are new and do not shut out requests inside the scope.

    A clause shuts out a request that holds more than half of its telling words, as a search reads it.
    """
    informative = load_function("memory", "words", "informative")
    inside = [set(informative(query(t))) for t in requests.inside]
    kept = []
    for clause in dict.fromkeys(c.strip() for c in requests.boundary.replace("\n", ";").split(";")):
        words = set(informative(clause))
        if words and clause not in item.boundary and all(2 * len(words & asked) <= len(words) for asked in inside):
            kept.append(clause)
    return "; ".join(kept)


async def _changes(
    workshop: Workshop, memory: Memory, item: Reflection, task: Task, run: str, answers: bool
) -> bool | None:
    """Whether the item is found for a request and its answer is another one then; None where a call failed."""
    words, k = query(task), workshop.recipe.memory.k
    believed = found = await memory.search(words, k, task=task.id)
    if item.status != "active":
        found = await memory.search(words, k, status="quarantined", task=task.id)
    against = {item.id, item.rival} - {""}
    others = [r for r in believed if r.id not in against and r.rival not in against]
    if item.id not in {r.id for r in found}:
        if answers:
            await _answered(workshop, memory, task, others, run)
        return False
    seen = [await _answered(workshop, memory, task, hints, run) for hints in (others, [*others, item])]
    return None if None in seen else seen[0] != seen[1]


async def _answered(workshop: Workshop, memory: Memory, task: Task, hints: list[Reflection], run: str) -> str | None:
    """What the answer to a request comes to when these are shown; None where the call failed.

    The arm is named by what was shown: the same is answered once, and something else anew.
    """
    shown = digest(json.dumps([(h.id, h.title, h.when, h.text, h.boundary, h.polarity) for h in hints]))
    context = make_context(workshop, [task], run=run, arm=f"scope-{shown}", seed=0, learning=False, memory=memory)
    sampling = context.sampling(task.id, greedy=True)
    made = await make_attempt(context, task, round_=0, hints=hints, sampling=sampling)
    if made.stop in (StopReason.ERROR, StopReason.TIMEOUT):
        return None
    return _result(await context.observation(made))


def _result(seen: Observation) -> str:
    """What an answer came to: its rows where there are rows, else its words."""
    rows = seen.info.get("rows")
    return repr(sorted(map(repr, rows))) if rows is not None and not seen.info.get("error") else seen.text


__all__ = [
    "KINDS", "NEAR_ALLOWED", "Kind", "Requests", "Scope", "confine", "digest", "make_requests", "read_requests",
    "try_scope", "verdict", "write_requests",
]  # fmt: skip
