"""Lessons that the weights have absorbed: with the lesson withheld the outcomes are the same, so its words can go.

For each active item of a memory the new weights attempt the tasks on which it is found, once with the memory as it is
and once with that item retired, with the same seeds; d is the score without it minus the score with it. Bets
(`verbal.betting`) decide: it is *absorbed* when d is shown to lose at most a margin, *needed* when it is shown to lose
more, and otherwise more tasks have to be seen. The claim is of the gate's guard form, a fixed set drawn without
replacement: nothing is lost on these tasks. With `finite = False` it is about new tasks like these, which takes many.

A task that neither side solves is no evidence that anything was absorbed and is counted apart. Tasks the weights were
trained on are left out by the caller: there they may remember the answer and not the lesson. Two items that say the
same can each be withheld and not both, so what is absorbed one by one is withheld together at the end, and whatever is
missed then is put back, the worst first, until nothing is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from verbal.betting import Bet, ConfidenceSequence, threshold
from verbal.errors import ConfigError, DataError, StoreError
from verbal.evaluate import attempt_values
from verbal.gate import MOST, Trial, refuse_sealed
from verbal.memory_verbs import open_for, read_state
from verbal.run import Workshop, make_context
from verbal.store import Store
from verbal.study import open_pinned
from verbal.types import MemoryOp, Reflection, Task

if TYPE_CHECKING:
    from verbal.contracts import Memory

Verdict = Literal["absorbed", "needed", "need_more"]
"""What outcomes say of an item under the new weights. `need_more` retires nothing."""
AUTHOR = "absorbed"
"""Who retires and takes back, in the log of a memory."""
_WRITE_TRIES = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What has to be shown before an item goes, declared before the first task."""

    margin: float = 0.02
    """Share that withholding an item may lose. Range: [0, 1]."""
    alpha: float = 0.05
    """Chance that an item whose absence loses more is retired, tested by itself."""
    fdr: float = 0.10
    """Share of such items among all that are retired, on average (e-LOND)."""
    finite: bool = True
    """True: about these tasks and no others, as the gate's guard. False: about new tasks like these."""
    least: int = 5
    """Tasks that at least one side solves, below which nothing is decided."""
    left_out: float = 0.10
    """Share of tasks without a score above which nothing is decided."""

    def __post_init__(self) -> None:
        """Refuses numbers that no bet can be made on.

        Raises:
            ConfigError: one is out of its range.
        """
        shares = {"margin": self.margin, "left_out": self.left_out}
        wrong = [f"{k} {v:g} (0 to 1)" for k, v in shares.items() if not 0 <= v <= 1]
        wrong += [
            f"{k} {v:g} (between 0 and 1)" for k, v in (("alpha", self.alpha), ("fdr", self.fdr)) if not 0 < v < 1
        ]
        wrong += [f"least {self.least} (1 or more)"] if self.least < 1 else []
        if wrong:
            todo = "give shares (1 is 100 points) and numbers in their ranges"
            raise ConfigError(f"the claim is out of range: {', '.join(wrong)}", where="Claim", todo=todo)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What outcomes say of one item, or of several withheld together."""

    items: tuple[str, ...]
    verdict: Verdict
    reason: str
    trial: Trial
    """Differences without - with, in the order in which they were looked at; its interval is about new tasks."""
    unsolved: int = 0
    """Tasks neither side solved, which are not among the trial's."""
    shown: float | None = None
    """Mean score with it, on the trial's tasks."""
    withheld: float | None = None
    wealth: float = 1.0
    """Against "withholding loses more than the margin"."""
    lost: float = 1.0
    """Against "it loses at most the margin"."""
    threshold: float = 20.0

    def plain(self) -> dict[str, Any]:
        """As plain JSON types."""
        bets = {"wealth": min(self.wealth, MOST), "lost": min(self.lost, MOST), "threshold": self.threshold}
        return {
            "items": list(self.items), "verdict": self.verdict, "reason": self.reason, "shown": self.shown,
            "withheld": self.withheld, "unsolved": self.unsolved, **bets, **self.trial.plain(),
        }  # fmt: skip


Scored = Mapping[str, Sequence[float | None]]
"""Task -> the score of each seed in [0, 1]; None where there is none."""


def weigh(
    items: Sequence[str],
    tasks: Sequence[str],
    shown: Scored,
    withheld: Scored,
    claim: Claim,
    *,
    needed: float | None = None,
    seed: int = 0,
) -> Finding:
    """What the outcomes on some tasks say of items that were withheld together.

    Args:
        items: What was withheld.
        tasks: Where they are found.
        shown: Scores with them.
        withheld: Scores without them, same seeds.
        claim: Margin and levels.
        needed: The wealth that is enough for `absorbed`; 1 / alpha when not given.
        seed: Draws the order of the tasks.
    """
    needed = needed or 1 / claim.alpha
    trial, unsolved = Trial(len(tasks)), 0
    means: dict[str, tuple[float, float]] = {}
    for task in random.Random(f"absorbed/{seed}").sample(list(tasks), len(tasks)):
        a, b = ([s for s in side[task] if s is not None] for side in (shown, withheld))
        if len(a) != len(shown[task]) or len(b) != len(withheld[task]) or not a:
            trial.left_out.append(task)
        elif not any(a) and not any(b):
            unsolved += 1
        else:
            means[task] = sum(a) / len(a), sum(b) / len(b)
    population, margin = len(means) if claim.finite and means else None, claim.margin
    safe = Bet(-margin, population=population, horizon=len(means) or None, target=needed)
    lost = Bet(-margin, below=True, population=population, horizon=len(means) or None)
    interval = ConfidenceSequence(claim.alpha)
    for task, (with_it, without) in means.items():
        trial.used.append(task)
        trial.gains.append(without - with_it)
        safe.add(without - with_it)
        lost.add(without - with_it)
        trial.low, trial.high = interval.add(without - with_it)
    count = len(means)
    sides = [sum(m[i] for m in means.values()) / count if count else None for i in (0, 1)]
    found = Finding(
        tuple(items), "need_more", "", trial, unsolved, sides[0], sides[1], safe.wealth, lost.wealth, needed
    )
    verdict, reason = _verdict(found, claim)
    return dataclasses.replace(found, verdict=verdict, reason=reason)


def _verdict(found: Finding, claim: Claim) -> tuple[Verdict, str]:
    trial, count = found.trial, len(found.trial.used)
    told = f"{_points(trial.mean)} [{_points(trial.low)}, {_points(trial.high)}] points on {count} tasks"
    if len(trial.left_out) > claim.left_out * trial.tasks:
        return "need_more", f"{len(trial.left_out)} of {trial.tasks} tasks could not be scored"
    if count < claim.least:
        neither = f", {found.unsolved} are solved by neither" if found.unsolved else ""
        return "need_more", f"found on {trial.tasks} tasks{neither}; at least {claim.least} that are solved are needed"
    if found.wealth >= found.threshold:
        return "absorbed", f"the weights do it alone: withheld {told}"
    if found.lost >= 1 / claim.alpha:
        return "needed", f"the weights do not know it: withheld {told}"
    short = f"wealth {found.wealth:,.1f} of {found.threshold:,.0f}"
    return "need_more", f"the tasks do not decide: withheld {told}, {short}"


def passes(found: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Sets of items that share no task, so that one pass over the tasks can withhold a whole set.

    Greedy colouring, items with most tasks first.

    >>> passes({"r1": {"a", "b"}, "r2": {"c"}, "r3": {"b"}})
    [['r1', 'r2'], ['r3']]
    """
    sets: list[tuple[list[str], set[str]]] = []
    for item in sorted(found, key=lambda i: (-len(found[i]), i)):
        room = next((s for s in sets if s[1].isdisjoint(found[item])), None)
        if room is None:
            sets.append(room := ([], set()))
        room[0].append(item)
        room[1].update(found[item])
    return [items for items, _ in sets]


class Without:
    """A store in which items of one memory are retired on top of a version; everything else is the store's own.

    What takes their place in a search is what would take it after the retirement: the search itself decides.
    """

    def __init__(self, store: Store, name: str, version: int, retired: Collection[str]) -> None:
        self._store, self._name, self._upto = store, name, version
        self._more = [
            (version + n, MemoryOp(op="RETIRE", reflection=i, author=AUTHOR)) for n, i in enumerate(sorted(retired), 1)
        ]

    def ops(self, memory: str, after: int = 0) -> list[tuple[int, MemoryOp]]:
        """The log up to the version, then the retirements."""
        found = self._store.ops(memory, after)
        if memory != self._name:
            return found
        return [row for row in found if row[0] <= self._upto] + [row for row in self._more if row[0] > after]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclasses.dataclass(slots=True, kw_only=True)
class Absorption:
    """One look at a memory under the weights of an open workshop.

    Args:
        shop: Open parts; its model is the one that may have absorbed something.
        name: The memory.
        version: At which it is looked at.
        run: Id of the run; what it finished is not attempted again.
        seeds: Attempts of each task on each side.
        claim: What has to be shown.
    """

    shop: Workshop
    name: str
    version: int
    run: str
    seeds: Sequence[int] = (0, 1, 2)
    claim: Claim = dataclasses.field(default_factory=Claim)

    async def found(self, tasks: Sequence[Task], only: Collection[str] = ()) -> dict[str, list[Task]]:
        """Active item -> the tasks on which it is found, as a scoring arm would find it; the log's order.

        Raises:
            ConfigError: a task is of the sealed split.
        """
        refuse_sealed(tasks)
        with contextlib.closing(self._open(())) as memory:
            context = make_context(self.shop, tasks, run=self.run, arm="found", seed=0, learning=False, memory=memory)
            shown = {t.id: {r.id for r in await context.hints(t)} for t in tasks}
            items = [r for r in memory.preview().items.values() if r.status == "active" and (not only or r.id in only)]
        return {r.id: [t for t in tasks if r.id in shown[t.id]] for r in items}

    async def judge(self, found: Mapping[str, Sequence[Task]]) -> list[Finding]:
        """A finding for each item; those that are `absorbed` lose nothing when they are withheld together, either."""
        tasks = {t.id: t for each in found.values() for t in each}
        where = {item: [t.id for t in each] for item, each in found.items()}
        shown = await self.scores((), list(tasks.values()))
        alone: dict[str, Scored] = {}
        for items in passes({i: ids for i, ids in where.items() if ids}):
            part = [tasks[i] for item in items for i in where[item]]
            made = await self.scores(items, part)
            alone |= dict.fromkeys(items, made)
        findings: dict[str, Finding] = {}
        for order, item in enumerate(found, 1):
            before = sum(f.verdict == "absorbed" for f in findings.values())
            needed = threshold(order, before, alpha=self.claim.fdr, single=self.claim.alpha)
            findings[item] = weigh([item], where[item], shown, alone.get(item, {}), self.claim, needed=needed)
        return list((await self._together(findings, where, tasks, shown)).values())

    async def _together(
        self, findings: dict[str, Finding], where: Mapping[str, list[str]], tasks: Mapping[str, Task], shown: Scored
    ) -> dict[str, Finding]:
        """Puts back, one by one, what is missed when all that is absorbed is withheld."""
        while len(gone := [i for i, f in findings.items() if f.verdict == "absorbed"]) > 1:
            ids = dict.fromkeys(t for i in gone for t in where[i])
            made = await self.scores(gone, [tasks[t] for t in ids])
            again = {i: weigh([i], where[i], shown, made, self.claim) for i in gone}
            missed = [i for i in gone if again[i].verdict != "absorbed"]
            if not missed:
                break
            worst = min(missed, key=lambda i: again[i].trial.mean or 0.0)
            others = [i for i in gone if i != worst and set(where[i]) & set(where[worst])]
            with_ = f" with {', '.join(others[:5])}" if others else ""
            reason = f"alone it can go, but not together{with_}: then {again[worst].reason}"
            findings[worst] = dataclasses.replace(again[worst], reason=reason)
        return findings

    async def scores(self, retired: Collection[str], tasks: Sequence[Task]) -> Scored:
        """Task -> the verdict on one attempt of each seed, with some items retired."""
        told = hashlib.sha256("\0".join(sorted(retired)).encode()).hexdigest()[:12]
        arm, batch = f"without-{told}" if retired else "shown", self.shop.recipe.loop.batch
        made: dict[str, list[float | None]] = {t.id: [] for t in tasks}
        with contextlib.closing(self._open(retired)) as memory:
            for seed in self.seeds:
                for at in range(0, len(tasks), batch):
                    part = tasks[at : at + batch]
                    values = await attempt_values(
                        self.shop, part, run=self.run, arm=f"{arm}:{seed}", seed=seed, memory=memory
                    )
                    for task, value in zip(part, values, strict=True):
                        made[task.id].append(value)
                    done = self.shop.progress.done + len(part)
                    self.shop.progress.update(done=done, note=f"{len(retired)} withheld" if retired else "all shown")
        return made

    def _open(self, retired: Collection[str]) -> Memory:
        store: Any = Without(self.shop.store, self.name, self.version, retired)
        return open_pinned(dataclasses.replace(self.shop, store=store), self.name, self.version + len(retired))


def retire_absorbed(
    store: Store, name: str, version: int, findings: Sequence[Finding], *, model: str, run: str
) -> tuple[list[str], int]:
    """Retires what was absorbed, with the evidence as the reason; gives the ids and the new version.

    An item whose words or standing changed since `version`, at which it was judged, is left alone.

    Raises:
        DataError: other writers were faster too often.
    """
    judged = read_state(store, f"{name}@{version}").since
    for tried in range(_WRITE_TRIES):
        state = read_state(store, name)
        ops = [
            MemoryOp(op="RETIRE", reflection=i, reason=f"absorbed by {model}: {f.reason} (run {run})", author=AUTHOR)
            for f in findings
            for i in f.items
            if f.verdict == "absorbed" and state.since.get(i) == judged.get(i) and state.items[i].status == "active"
        ]
        if not ops:
            return [], int(state.version)
        try:
            return [op.reflection for op in ops], store.log_ops(name, ops, expect=state.version)
        except StoreError:  # another writer was faster; anything else is an error at once
            if tried + 1 == _WRITE_TRIES or not store.ops(name, after=state.version):
                raise
    raise DataError(f"memory {name!r} changes too fast", todo="try again")


async def take_back(store: Store, name: str, model: str = "") -> dict[str, str]:
    """Believes again what was retired as absorbed (by `model`, or by any); gives old id -> new id.

    An id that was retired is never used again, so each comes back as a new item with its words, counts and value;
    the trials stay with the old one. What was taken back already is not added twice.
    """
    wanted = f"absorbed by {model}: " if model else "absorbed by "
    ops = [op for _, op in store.ops(name)]
    gone = [op.reflection for op in ops if (op.op, op.author) == ("RETIRE", AUTHOR) and op.reason.startswith(wanted)]
    back = {i for op in ops if (op.op, op.author) == ("ADD", AUTHOR) for i in op.others}
    items: dict[str, Reflection] = read_state(store, name).items
    lost = [i for i in dict.fromkeys(gone) if i not in back and items[i].status == "retired"]
    if not lost:
        return {}
    memory = open_for(store, name, "exact")
    try:
        adds = [
            MemoryOp(
                op="ADD", item=items[i].replace(id="", status="active"), others=(i,), author=AUTHOR,
                reason=f"taken back: {i}, which had been retired as absorbed",
            )
            for i in lost
        ]  # fmt: skip
        at = memory.version
        await memory.apply(adds)
        made = {op.others[0]: op.reflection for _, op in store.ops(name, after=at) if op.author == AUTHOR and op.others}
    finally:
        memory.close()
    return {i: made[i] for i in lost if i in made}


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f}"


__all__ = [
    "AUTHOR", "Absorption", "Claim", "Finding", "Scored", "Verdict", "Without", "passes", "retire_absorbed",
    "take_back", "weigh",
]  # fmt: skip
