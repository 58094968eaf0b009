"""What a run will use, before it begins: calls, money, minutes as ranges, and what its budget buys.

Prompts are built as the run will build them (no call is made for that). How long replies are and how long they take is
read from earlier calls of the same model in the store; without any the ranges are wide. It is an estimate: what may
not be exceeded is a limit, and the ledger keeps it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from verbal.contracts import Sampling
from verbal.errors import ConfigError
from verbal.loop.nodes import unsealed
from verbal.models._calls import ModelCalls
from verbal.run import Workshop
from verbal.types import Task, Usage

SAMPLE = 16
"""Prompts that are built to learn how long they are."""
_BYTES_PER_TOKEN = (4.5, 3.0)
_REPLY_TOKENS = (60, 400)
_SECONDS = {True: (0.01, 0.2), False: (1.0, 6.0)}
"""Of one call when no earlier one is known: of a free model on this machine, of any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will use. Low and high are what is likely, not the worst case."""

    tasks: int
    calls_low: int
    calls_high: int
    cost_low: float
    """US dollars."""
    cost_high: float
    minutes_low: float
    minutes_high: float
    worst_call: Usage
    """The most that one attempt's first call can use."""

    def plus(self, other: Estimate) -> Estimate:
        """Both, one after the other; what is worst is the worse of the two."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("worst_call", "tasks")]
        added = {k: getattr(self, k) + getattr(other, k) for k in names}
        worst = max(self.worst_call, other.worst_call, key=lambda u: (u.cost or 0.0, u.tokens))
        return Estimate(tasks=self.tasks, worst_call=worst, **added)

    def plain(self) -> dict[str, Any]:
        """The ranges as plain JSON types, as pages and tables read them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "worst_call"}


async def estimate(shop: Workshop, tasks: Sequence[Task], *, passes: Mapping[str, int]) -> Estimate:
    """The likely use of a run.

    Args:
        shop: Open parts.
        tasks: What is worked on.
        passes: Kind of pass over the tasks -> how many: `learn` (critique and reflection too), `score`.
    """
    loop, solver = shop.recipe.loop, cast(ModelCalls, shop.roles("solver"))
    ends = _calls_per_task(shop)
    low, high = (sum(n * ends[kind][end] for kind, n in passes.items()) * len(tasks) for end in (0, 1))
    sizes, worst = await _prompts(shop, tasks, solver)
    known = shop.store.mean_call(solver.name)
    size = sum(sizes) / len(sizes)
    one = [_one_call(solver, size, end, shop.recipe.model.max_tokens, known) for end in (0, 1)]
    lanes = max(1, min(shop.recipe.model.concurrency, loop.batch))
    return Estimate(
        tasks=len(tasks), calls_low=low, calls_high=high, cost_low=low * (one[0].cost or 0.0),
        cost_high=high * (one[1].cost or 0.0), minutes_low=low * one[0].seconds / lanes / 60,
        minutes_high=high * one[1].seconds / lanes / 60, worst_call=worst,
    )  # fmt: skip


def check_budget(shop: Workshop, expected: Estimate) -> str:
    """What the budget buys, in words; empty when there is none.

    Raises:
        ConfigError: it does not buy one task, so nothing is begun.
    """
    limits, words = shop.ledger.limits, []
    left = {
        "max_cost": (limits.max_cost, shop.ledger.spent.cost or 0.0, expected.worst_call.cost or 0.0, "${:.4f}"),
        "max_tokens": (limits.max_tokens, shop.ledger.spent.tokens, expected.worst_call.tokens, "{:,.0f} tokens"),
        "max_calls": (limits.max_calls, shop.ledger.spent.calls, 1, "{:,.0f} calls"),
    }
    ends = {"max_cost": (expected.cost_low, expected.cost_high), "max_calls": (expected.calls_low, expected.calls_high)}
    for name, (limit, spent, worst, form) in left.items():
        if limit is None:
            continue
        most = ends.get(name, (0.0, 0.0))[0] / max(1, expected.tasks)
        if limit - spent < max(worst, most):
            need = form.format(max(worst, most))
            raise ConfigError(
                f"the budget is too small for one task: {form.format(max(0, limit - spent))} left, {need} needed",
                where=f"limits.{name} = {limit:g}, {form.format(spent)} spent",
                todo=f"give at least --{name.replace('_', '-')} {_round_up(max(worst, most) + spent)}",
            )
        if name in ends and ends[name][1] > 0:
            fewest, most_ = (
                int((limit - spent) * expected.tasks / e) if e else expected.tasks for e in ends[name][::-1]
            )
            if fewest < expected.tasks:
                words.append(f"{name.replace('_', '-')} buys about {fewest} to {min(most_, expected.tasks)} tasks")
    return f"of {expected.tasks} tasks, " + "; ".join(words) if words else ""


def _calls_per_task(shop: Workshop) -> dict[str, tuple[int, int]]:
    """Kind of pass -> the fewest and the most calls that one task likely takes."""
    loop, critics = shop.recipe.loop, shop.recipe.critics

    def drawn(role: str, samples: int) -> int:
        """Calls that so many samples of one conversation take."""
        return samples if getattr(cast(ModelCalls, shop.roles(role)).model, "one_per_call", False) else 1

    options = {name: critics.options.get(name, {}) for name in critics.names}
    judge = drawn("judge", int(options["judge"].get("samples", 1))) if "judge" in options else 0
    comparing = _compared(options, loop.samples)
    if "utterances" in options:  # one for each dimension, and one for its score where the environment gives none
        judge += 2 * len(options["utterances"].get("dimensions", ("goal", "relationship", "knowledge")))
    lesson = int(loop.critique) + int(loop.reflect)
    wave, more = min(loop.wave or loop.samples, loop.samples), max(0, loop.most - loop.samples)
    least, waves = drawn("solver", wave), drawn("solver", loop.samples) + more
    if loop.wave and least == 1:
        waves = -(-loop.samples // wave) + more
    each = int(getattr(shop.app, "calls_a_turn", 1))  # a simulated user is asked too
    turns = min(loop.turns, int(getattr(shop.app, "turns", 1))) * each
    fewest = min(turns, int(getattr(shop.app, "least_turns", loop.turns)) * each)
    later, most = turns - 1, max(loop.samples, loop.most)  # the first turns of a group are drawn together
    learn = {
        "reflect": (fewest, loop.rounds * (turns + judge + lesson)),
        "group": (least + wave * (fewest - 1), waves + most * (later + judge) + comparing),
        "self_play": (loop.samples + 2, 2 + loop.samples * (turns + judge) + comparing + int(loop.reflect)),
    }
    # Scoring asks the critic that decides, and no other.
    judged = judge if critics.verdict in ("judge", "utterances") else 0
    score = (fewest, loop.rounds * (turns + judged))
    low, high = learn[loop.graph]
    return {"learn": (low * loop.epochs, high * loop.epochs), "score": score}


def _compared(options: Mapping[str, Mapping[str, Any]], answers: int) -> int:
    """The most calls that critics make which compare the answers of a group; for a single attempt they make none."""
    calls = 0
    if "group" in options:  # again where a reply cannot be read
        calls += 3 * int(options["group"].get("passes", 5))
    if "tournament" in options:
        calls += answers * (answers - 1)
    if "unit_tests" in options:
        calls += 3 + 3 * int(options["unit_tests"].get("tests", 5))
    return calls


async def _prompts(shop: Workshop, tasks: Sequence[Task], solver: ModelCalls) -> tuple[list[int], Usage]:
    """Bytes of some opening prompts, and the worst case of the longest."""
    step, sizes, worst = max(1, len(tasks) // SAMPLE), [], Usage()
    sampling = Sampling(max_tokens=shop.recipe.model.max_tokens)
    for task in tasks[::step]:
        environment = shop.app.environment()
        try:
            messages = await environment.start(unsealed(task))
        finally:
            await environment.aclose()
        sizes.append(sum(len(m.content.encode("utf-8", "replace")) for m in messages))
        case = solver.worst(messages, 1, sampling)
        worst = case if case.tokens > worst.tokens else worst
    return sizes or [1], worst


def _one_call(solver: ModelCalls, size: float, end: int, max_tokens: int, known: Usage | None) -> Usage:
    """A call at the low (0) or high (1) end."""
    price, slack = solver.price, (0.8, 1.25)[end]
    free = price is not None and price.prompt == price.completion == 0.0
    prompt, completion = size / _BYTES_PER_TOKEN[end], float(min(_REPLY_TOKENS[end], max_tokens))
    seconds = _SECONDS[free][end]
    if known is not None:
        completion, seconds = known.completion_tokens * slack, known.seconds * slack
        prompt = max(prompt, known.prompt_tokens * slack) if end else min(prompt, known.prompt_tokens * slack)
    cost = price.cost(int(prompt), int(completion)) if price else None
    return Usage(calls=1, prompt_tokens=int(prompt), completion_tokens=int(completion), cost=cost, seconds=seconds)


def _round_up(value: float) -> str:
    return f"{value * 1.1:.2g}" if value < 1 else f"{int(value) + 1}"


__all__ = ["Estimate", "check_budget", "estimate"]
