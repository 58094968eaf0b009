"""Hard limits under load: 64 callers at once, random costs and delays, a random limit on money, tokens or calls.

Each trial draws prices, reply lengths, delays and one limit, and lets 64 callers ask until each has been refused once.
`overshoot` is the largest excess over a limit in any trial, as a fraction of the limit; what the model itself gave out
is counted, so a ledger that miscounts is seen. `unused_within_one_call` is the share of trials that stop with no more
unused than the worst case of one call: of the smallest call that was refused, so no refused call would have fitted.

Named comparison, the same callers on the same draws: a budget that is checked before a call against what finished
calls have used, and added to after each call (`naive`). It is how budgets are usually kept around agents; no library's
own code is measured here. Writes bench/results/ledger.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from verbal.contracts import Sampling
from verbal.errors import BudgetError
from verbal.ledger import Ledger, Limits
from verbal.models import ModelCalls
from verbal.models.scripted import ScriptedModel
from verbal.types import Message, Usage

CALLERS = 64


@dataclass(frozen=True, slots=True)
class Trial:
    """What one trial draws from its seed; prices are in dollars per million tokens."""

    seed: int

    @property
    def drawn(self) -> tuple[str, float, float, float]:
        """Which limit, the two prices, and how many calls the limit is worth."""
        rng = random.Random(f"ledger/{self.seed}")
        kind = rng.choice(["max_cost", "max_tokens", "max_calls"])
        return kind, rng.uniform(0.05, 75.0), rng.uniform(0.05, 75.0), rng.uniform(1.0, 200.0)

    def length(self, caller: int, turn: int) -> tuple[int, int]:
        """Most tokens that a call asks for, and how many it gets."""
        rng = random.Random(f"{self.seed}/{caller}/{turn}")
        most = rng.randint(1, 1000)
        return most, rng.randint(1, most)


@dataclass(slots=True)
class Spending:
    """What a model gave out, counted by the model itself."""

    price_in: float
    price_out: float
    calls: int = 0
    prompt: int = 0
    completion: int = 0
    waits: random.Random = field(default_factory=lambda: random.Random(0))

    def value(self, kind: str) -> float:
        """In the unit of the limit."""
        cost = (self.prompt * self.price_in + self.completion * self.price_out) / 1e6
        return {"max_cost": cost, "max_tokens": self.prompt + self.completion, "max_calls": self.calls}[kind]

    async def answer(self, messages: Sequence[Message], index: int, seed: int | None) -> str:
        """As many words as the message asks for, after some turns of the event loop; counted when the call arrives."""
        words = int(messages[0].content.split()[1])
        self.calls += 1
        self.prompt += len(messages[0].content.split())
        self.completion += words
        for _ in range(self.waits.randint(0, 20)):
            await asyncio.sleep(0)
        return " ".join(["w"] * words)


async def run(trial: Trial, ask: Callable[[int, int, list[Message]], Awaitable[bool]]) -> None:
    """Every caller asks until it has been refused once."""

    async def caller(number: int) -> None:
        turn, going = 0, True
        while going:
            most, words = trial.length(number, turn)
            going = await ask(number, most, [Message(role="user", content=f"say {words} words of at most {most}")])
            turn += 1

    await asyncio.gather(*(caller(i) for i in range(CALLERS)))


async def ours(trial: Trial) -> tuple[float, bool]:
    """Excess over the limit as a fraction of it, and whether at most one call's worst case was left unused."""
    kind, price_in, price_out, calls = trial.drawn
    spending = Spending(price_in, price_out, waits=random.Random(trial.seed))
    limit = limit_of(kind, price_in, price_out, calls)
    ledger = Ledger(Limits(**{kind: limit}))
    model = ModelCalls(
        ScriptedModel(spending.answer), ledger=ledger, price_in=price_in, price_out=price_out, concurrency=CALLERS
    )
    refused: list[float] = []

    async def ask(caller: int, most: int, messages: list[Message]) -> bool:
        sampling = Sampling(max_tokens=most)
        try:
            await model.generate(messages, 1, sampling)
        except BudgetError:
            refused.append(amount(kind, model.worst(messages, 1, sampling)))
            return False
        return True

    await run(trial, ask)
    used = spending.value(kind)
    assert abs(amount(kind, ledger.spent) - used) <= 1e-9 * max(1.0, used), "the ledger counts what the model gave"
    return max(0.0, used - limit) / limit, limit - used <= min(refused)


async def naive(trial: Trial) -> float:
    """The same with a budget that is looked at before a call and added to after it."""
    kind, price_in, price_out, calls = trial.drawn
    spending = Spending(price_in, price_out, waits=random.Random(trial.seed))
    limit, spent = limit_of(kind, price_in, price_out, calls), 0.0
    model = ModelCalls(ScriptedModel(spending.answer), price_in=price_in, price_out=price_out, concurrency=CALLERS)

    async def ask(caller: int, most: int, messages: list[Message]) -> bool:
        nonlocal spent
        if spent >= limit:
            return False
        (reply,) = await model.generate(messages, 1, Sampling(max_tokens=most))
        spent += amount(kind, reply.usage)
        return True

    await run(trial, ask)
    return max(0.0, spending.value(kind) - limit) / limit


def limit_of(kind: str, price_in: float, price_out: float, calls: float) -> float:
    """A limit worth so many calls of 250 reply tokens (half of the mean request for 500)."""
    if kind == "max_calls":
        return int(calls)
    return int(calls * 257) if kind == "max_tokens" else calls * (7 * price_in + 250 * price_out) / 1e6


def amount(kind: str, usage: Usage) -> float:
    """A usage in the unit of the limit."""
    return {"max_cost": usage.cost or 0.0, "max_tokens": usage.tokens, "max_calls": usage.calls}[kind]


def main() -> None:
    """Runs the trials and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ledger.json")
    options = parser.parse_args()
    began = time.perf_counter()
    over, within, peer = [], [], []
    for seed in range(options.trials):
        excess, near = asyncio.run(ours(Trial(seed)))
        over.append(excess)
        within.append(near)
        peer.append(asyncio.run(naive(Trial(seed))))
    found = {
        "trials": options.trials,
        "callers": CALLERS,
        "overshoot": max(over),
        "unused_within_one_call": sum(within) / len(within),
        "naive_overshoot_mean": round(statistics.mean(peer), 4),
        "naive_overshoot_max": round(max(peer), 4),
        "seconds": round(time.perf_counter() - began, 1),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
