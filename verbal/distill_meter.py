"""What a training used and how it goes: seconds of its machine, charged as they pass, figures on the screen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from verbal.errors import StoreError
from verbal.ledger import Ledger
from verbal.run import Progress
from verbal.types import Usage

__all__ = ["CHARGE_EVERY", "Meter"]

CHARGE_EVERY = 10.0
"""Seconds between two entries in the ledger: what a kill leaves unpaid at most."""

_WORDS: dict[str, Callable[[float], str]] = {
    "loss": "loss {:.3g}".format,
    "reward": "reward {:.3f}".format,
    "entropy": "entropy {:.3g}".format,
    "kl": "KL {:.3g}".format,
    "tokens_per_second": "{:,.0f} tokens/s".format,
}


class Meter:
    """Listener of a training's steps (`on_progress` of a method), as a context manager around it.

    Args:
        ledger: Of the training; its limits are looked at after every step.
        method: Named in the ledger.
        price: US dollars for an hour of the machine; 0 for one's own.
        changed: Told of every step.
        at: Steps that an earlier process made.
        now: The clock, in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        method: str,
        price: float,
        changed: Callable[[Progress], None],
        *,
        at: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger, self.method, self.price, self._now = ledger, method, price, now
        self.progress = Progress(changed=changed, solved=None, unit="steps", done=at, kept=at)
        self.curve: list[dict[str, Any]] = []
        """Step and figures of every step."""
        self._began = self._charged = now()
        self._first: tuple[int, float] | None = None

    def step(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Notes a step.

        Raises:
            BudgetError: one more step of this length could exceed a limit.
        """
        now = self._now()
        self.curve.append({"step": done, **figures})
        words = [_WORDS[k](figures[k]) for k in _WORDS if k in figures]
        words += [f"{k} {v:.3g}" for k, v in figures.items() if k not in _WORDS]
        spent = self.ledger.spent + self._since(now)
        self.progress.update(done=done, total=total, note=", ".join(words), usage=spent)
        if now - self._charged >= CHARGE_EVERY:
            self._charge(now, done, total)
        if done < total:
            # The first step also loaded the weights, so later ones are measured from there.
            first, at = self._first = self._first or (done - 1, self._began)
            length = (now - at) / max(1, done - first)
            more = self._since(now + length)
            self.ledger.require(more, where=f"training, step {done} of {total}")

    def _since(self, now: float) -> Usage:
        """What was used since the last entry in the ledger."""
        seconds = max(0.0, now - self._charged)
        return Usage(seconds=seconds, cost=seconds / 3600 * self.price)

    def _charge(self, now: float, done: int, total: int) -> None:
        self.ledger.charge("trainer", self.method, self._since(now))
        self._charged = now
        if self.ledger.store is not None:
            self.ledger.store.set_info(self.ledger.run, {"step": [done, total]})

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(StoreError):
            self._charge(self._now(), self.progress.done, self.progress.total)
