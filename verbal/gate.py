"""The evidence gate: a candidate takes the incumbent's place only if it helps on held-out tasks, words or weights.

Both sides attempt the same tasks with the same sample indices and seeds; d is the difference of their mean scores on a
task. Tasks come in a random order that is drawn, like candidate, margin and levels, before the first is attempted. A
bet against "the candidate gains at most the margin" (`verbal.betting`) may be looked at after every task; it accepts at
its threshold, which e-LOND sets from the whole history of proposals. The opposite bet ends hopeless ones early. Before
an accept a guard set, which has nothing to do with what was learned, must not lose more than its margin.

Rules for what has no difference: a tie counts as d = 0; an attempt that failed scores 0, for failing is an answer; a
task that any sample of either side left without a score (critic could not score, model could not be reached) is left
out and counted; more than a tenth left out is a reject, with the reason. Tasks of the sealed split are refused.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from verbal.betting import Bet, ConfidenceSequence, threshold
from verbal.errors import BudgetError, ConfigError
from verbal.types import Task

Verdict = Literal["accept", "reject", "need_more"]
"""What a gate decides. `need_more` adopts nothing and claims nothing."""
BUDGET_ENDED = "the budget ended first"
"""How the reason of a `need_more` begins that more money, calls or time would have decided."""
MOST = 1e300
"""Wealth beyond that is written as this (JSON has no infinity)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is asked of a candidate, declared before the first task."""

    margin: float = 0.0
    """Share by which it must be better. Range: [-1, 1]."""
    alpha: float = 0.05
    """Chance that a candidate which is not better is accepted, tested by itself."""
    fdr: float = 0.10
    """Share of false ones among all that are ever accepted, on average (e-LOND)."""
    finite: bool = False
    """False: the claim is about new tasks like these. True: about these tasks and no others (without replacement)."""
    worth: float = 0.05
    """Gain below which it is not worth going on: a candidate that is shown to gain less is rejected early."""
    guard_margin: float = 0.02
    """Share that the guard set may lose. Its tasks are all there are, so it is tested as a finite set."""
    left_out: float = 0.10
    """Share of tasks without a difference above which it is rejected."""
    batch: int = 16
    """Tasks attempted side by side; the evidence is still looked at task by task."""

    def __post_init__(self) -> None:
        """Refuses what no bet can be made on, before a proposal is written down.

        Raises:
            ConfigError: a number is out of its range.
        """
        shares = {"margin": self.margin, "worth": self.worth, "guard_margin": self.guard_margin}
        chances = {"alpha": self.alpha, "fdr": self.fdr}
        wrong = [f"{k} {v:g} (-1 to 1)" for k, v in shares.items() if not -1 <= v <= 1]
        wrong += [f"{k} {v:g} (between 0 and 1)" for k, v in chances.items() if not 0 < v < 1]
        wrong += [f"left_out {self.left_out:g} (0 to 1)"] if not 0 <= self.left_out <= 1 else []
        wrong += [f"batch {self.batch} (1 or more)"] if self.batch < 1 else []
        if wrong:
            what = f"the rule of the gate is out of range: {', '.join(wrong)}"
            raise ConfigError(what, where="Rule", todo="give shares (1 is 100 points) and chances in their ranges")


class Side(Protocol):
    """A policy that can be scored: what serves now, or what may serve instead."""

    name: str
    """In words, for the evidence."""

    async def scores(self, tasks: Sequence[Task]) -> list[list[float | None]]:
        """For each task the score of each sample in [0, 1], in the same order of samples on both sides."""
        ...


@dataclass(slots=True)
class Trial:
    """One paired comparison under way: every task's difference, and the interval for their mean."""

    tasks: int
    used: list[str] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    low: float = -1.0
    high: float = 1.0

    @property
    def mean(self) -> float | None:
        """Mean difference so far; None before the first."""
        return sum(self.gains) / len(self.gains) if self.gains else None

    def plain(self) -> dict[str, Any]:
        """Ids, differences and interval as plain JSON types."""
        return {
            "tasks": self.tasks, "used": len(self.used), "left_out": len(self.left_out), "left_out_ids": self.left_out,
            "order": self.used, "gains": self.gains, "gain": {"mean": self.mean, "low": self.low, "high": self.high},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says of a candidate, and why."""

    verdict: Verdict
    reason: str
    evidence: dict[str, Any]
    """Rule, names, order, every difference, the wealth after each task, interval, guard: enough to check it by hand."""

    def plain(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"verdict": self.verdict, "reason": self.reason, **self.evidence}


async def gate(
    incumbent: Side,
    candidate: Side,
    tasks: Sequence[Task],
    budget: int | None = None,
    *,
    rule: Rule | None = None,
    guard: Sequence[Task] = (),
    seed: int = 0,
    proposal: int = 1,
    accepted_before: int = 0,
    on_task: Callable[[int, float], None] = lambda used, wealth: None,
) -> Decision:
    """Accept, reject or need more, with the evidence.

    Args:
        incumbent: What serves now.
        candidate: What may take its place.
        tasks: Held-out tasks (train or dev).
        budget: Most tasks to use, of `tasks`; all when not given. Money is limited by the ledger behind the sides.
        rule: Margins and levels.
        guard: Tasks on which nothing may be lost; none is no guard.
        seed: Draws the order of the tasks.
        proposal: The how-manieth proposal of the history this is, from 1.
        accepted_before: How many of the earlier ones were accepted.
        on_task: Told after each task how many were used and the wealth.

    Raises:
        ConfigError: there is no task, one is given twice, or one is of the sealed split.
    """
    rule = rule or Rule()
    refuse_sealed([*tasks, *guard])
    if not tasks:
        raise ConfigError("the gate was given no task", todo="give held-out tasks: another --split or --questions")
    for what in (tasks, guard):
        ids = [t.id for t in what]
        if twice := [i for i in ids if ids.count(i) > 1]:
            # The same difference again is no new evidence.
            raise ConfigError(f"the gate was given task {twice[0]!r} twice", todo="give each task once")
    order = random.Random(f"gate/{seed}").sample(list(tasks), len(tasks))[:budget]
    needed = threshold(proposal, accepted_before, alpha=rule.fdr, single=rule.alpha)
    trial = _Gain(rule, order, needed, on_task)
    head = {
        "candidate": candidate.name, "incumbent": incumbent.name, **asdict(rule), "threshold": needed,
        "proposal": proposal, "accepted_before": accepted_before, "seed": seed,
    }  # fmt: skip
    guarded: dict[str, Any] | None = None
    try:
        await trial.run(incumbent, candidate)
        verdict, reason = trial.verdict()
        if verdict == "accept" and guard:
            guarded = await _guard(incumbent, candidate, guard, rule, seed)
            if not guarded["passed"]:
                verdict, reason = guarded["verdict"], f"{reason}, but the guard does not pass: {guarded['reason']}"
    except BudgetError as error:
        verdict, reason = "need_more", f"{BUDGET_ENDED}: {error.what}"
    return Decision(verdict, reason, {**head, **trial.plain(), "guard": guarded})


def refuse_sealed(tasks: Sequence[Task]) -> None:
    """Raises ConfigError when a task is of the sealed split."""
    if sealed := [t.id for t in tasks if t.split == "test"]:
        todo = "take train or dev tasks; `verbal eval --test` runs the test tasks, once for each adopted version"
        raise ConfigError(f"task {sealed[0]!r} is of the sealed split 'test'", todo=todo)


async def pairs(
    incumbent: Side, candidate: Side, tasks: Sequence[Task], trial: Trial, batch: int
) -> AsyncIterator[float | None]:
    """The difference of each task as it comes, noted on the trial; None for one that is left out."""
    for at in range(0, len(tasks), batch):
        part = tasks[at : at + batch]
        # One after the other: where both sides ask the model the same, the second finds the first one's reply.
        old, new = await incumbent.scores(part), await candidate.scores(part)
        for task, a, b in zip(part, old, new, strict=True):
            if len(a) != len(b) or not a or None in a or None in b:
                trial.left_out.append(task.id)
                yield None
                continue
            gain = (sum(x for x in b if x is not None) - sum(x for x in a if x is not None)) / len(a)
            trial.used.append(task.id)
            trial.gains.append(gain)
            yield gain


class _Gain:
    """The comparison on the held-out tasks."""

    def __init__(self, rule: Rule, order: Sequence[Task], needed: float, on_task: Callable[[int, float], None]) -> None:
        population = len(order) if rule.finite else None
        self.rule, self.order, self.needed, self._on_task = rule, order, needed, on_task
        self.trial = Trial(len(order))
        self.better = Bet(rule.margin, population=population, horizon=len(order), target=needed)
        # Nothing is adopted by this one, so it needs no correction for many proposals.
        self.worse = Bet(max(rule.margin, rule.worth), below=True, population=population, horizon=len(order))
        self.harm = Bet(0.0, below=True, population=population, horizon=len(order))
        self.interval = ConfidenceSequence(rule.alpha, population=population)

    async def run(self, incumbent: Side, candidate: Side) -> None:
        """Attempts task after task until there is an answer, or no task left."""
        async for gain in pairs(incumbent, candidate, self.order, self.trial, self.rule.batch):
            if gain is not None:
                self.better.add(gain)
                self.worse.add(gain)
                self.harm.add(gain)
                self.trial.low, self.trial.high = self.interval.add(gain)
                self._on_task(len(self.trial.used), self.better.wealth)
            if self._over():
                return

    def _over(self) -> bool:
        bar = 1 / self.rule.alpha
        found = self.better.wealth >= self.needed or self.worse.wealth >= bar or self.harm.wealth >= bar
        return found or len(self.trial.left_out) > self.rule.left_out * len(self.order)

    def verdict(self) -> tuple[Verdict, str]:
        """What was found, in a sentence."""
        trial, bar = self.trial, 1 / self.rule.alpha
        told = f"{_points(trial.mean)} [{_points(trial.low)}, {_points(trial.high)}] points on {len(trial.used)} tasks"
        if len(trial.left_out) > self.rule.left_out * len(self.order):
            most = f"{100 * self.rule.left_out:g} %"
            return "reject", f"{len(trial.left_out)} of {len(self.order)} tasks have no difference, more than {most}"
        if self.better.wealth >= self.needed:
            return "accept", f"it is better: {told}, wealth {self.better.wealth:,.0f} of {self.needed:,.0f} needed"
        if self.harm.wealth >= bar:
            return "reject", f"it does harm: {told}"
        if self.worse.wealth >= bar:
            # This bet is won before the one on harm, which is the harder claim; the mean is told as no more than it is.
            least, lost = max(self.rule.margin, self.rule.worth), (trial.mean or 0.0) < 0
            rather = ", and rather does harm" if lost else ""
            return "reject", f"it does not gain the {100 * least:g} points that would be worth finding{rather}: {told}"
        short = f"wealth {self.better.wealth:,.1f} of {self.needed:,.0f} needed"
        return "need_more", f"the tasks do not decide: {told}, {short}; give more tasks, or samples (--seeds)"

    def plain(self) -> dict[str, Any]:
        """The evidence as plain JSON types."""
        return {**self.trial.plain(), "wealth": [min(w, MOST) for w in self.better.history]}


async def _guard(incumbent: Side, candidate: Side, tasks: Sequence[Task], rule: Rule, seed: int) -> dict[str, Any]:
    """Whether the candidate loses at most `guard_margin` on the guard set."""
    order = random.Random(f"guard/{seed}").sample(list(tasks), len(tasks))
    trial, bar = Trial(len(order)), 1 / rule.alpha
    safe = Bet(-rule.guard_margin, population=len(order))
    lost = Bet(-rule.guard_margin, below=True, population=len(order))
    interval = ConfidenceSequence(rule.alpha, population=len(order))
    async for gain in pairs(incumbent, candidate, order, trial, rule.batch):
        if gain is not None:
            safe.add(gain)
            lost.add(gain)
            trial.low, trial.high = interval.add(gain)
        if max(safe.wealth, lost.wealth) >= bar or len(trial.left_out) > rule.left_out * len(order):
            break
    passed = safe.wealth >= bar
    told = (
        f"{_points(trial.mean)} [{_points(trial.low)}, {_points(trial.high)}] points on {len(trial.used)} guard tasks"
    )
    if len(trial.left_out) > rule.left_out * len(order):
        passed, verdict, reason = (
            False,
            "reject",
            f"{len(trial.left_out)} of {len(order)} guard tasks have no difference",
        )
    elif passed:
        verdict, reason = "accept", f"no harm: {told}"
    elif lost.wealth >= bar:
        verdict, reason = "reject", f"it loses more than {100 * rule.guard_margin:g} points: {told}"
    else:
        verdict, reason = "need_more", f"{told} do not show that at most {100 * rule.guard_margin:g} are lost"
    return {
        "name": "guard", "margin": -rule.guard_margin, "passed": passed, "verdict": verdict, "reason": reason,
        "mean": trial.mean, "low": trial.low, "high": trial.high, **trial.plain(),
    }  # fmt: skip


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f}"


__all__ = ["BUDGET_ENDED", "Decision", "Rule", "Side", "Trial", "gate", "refuse_sealed"]
