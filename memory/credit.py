"""Credit by outcome: what each reflection was worth, and who is believed. A pure function of the op log.

Rules, in the order of `settle`:

* An item in quarantine is tried at the chance its trial slot gives it. Proven better than nothing: it is believed (TAG
  `active`), and the item it is a rival of is retired. Proven worse, proven to be worth less than `worth`, or nothing
  proven in `horizon` trials: it is retired. Each claim is wrong with a chance of at most `alpha` in one stay in
  quarantine (`effects.verdicts`).
* An active item is withheld so seldom that proof of harm would be slow. So, when the attempts it is shown to turn bad,
  it is sent back to quarantine (`effects.loudness`), where an even coin decides. One that is believed without trials,
  for a person said so, has nothing to compare with: it is retired when it is proven worse than nothing, and tried when
  it is proven to be worth less than `worth`. Outcomes at chance 1 move no standing, for anybody may log them; so a
  recipe that withholds nothing has nobody watched.
* What is over budget is retired (`budget.over_budget`).

While an item has a rival on trial, a coin decides between the two, and its differences speak of the rival: it is not
judged by them. The value is MemRL's, an average that forgets (arXiv 2601.03192), for retrieval by value; no standing
depends on it, since a value falls where tasks are hard and rises where they are easy. The reason of every operation
holds its evidence, for people.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from verbal.contracts import MemoryState, Trial
from verbal.errors import ConfigError
from verbal.types import MemoryOp, Reflection

from .budget import over_budget
from .effects import Verdict, effect, lots, loudness, verdicts

_AUTHOR = "credit"


@dataclass(frozen=True, kw_only=True)
class OutcomeCredit:
    """The part `credit`. Its fields are the recipe's `[memory] credit_options`.

    Raises:
        ConfigError: an option is out of range.
    """

    rate: float = 0.3
    """Share of the way to the newest reward that a value moves. Range: (0, 1]."""
    alpha: float = 0.05
    """Chance that a claim about an item is taken for proven although it is wrong. Range: (0, 1)."""
    worth: float = 0.05
    """Effect below which an item is not worth its place, in shares of an outcome. Range: [0, 1]."""
    horizon: int = 200
    """Trials after which what is not proven is retired; after half of them what has a mean effect below `worth`."""
    alarm: float = 500.0
    """How many times an active item that helps half as much as when it was proven is shown, at least on average, until
    it is sent back to quarantine by mistake; one that helps as before, far more often (bench/credit.py)."""
    patience: int = 0
    """Operations on the memory without being offered after which an item in quarantine is retired; 0 is never."""
    items: int = 500
    """Most items of a scope; 0 is no limit."""
    tokens: int = 50_000
    """Most tokens of the items of a scope; 0 is no limit."""
    _open: dict[str, tuple[int, list[Trial]]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Id -> standing since, trials for which nothing was found: these need not be looked at again."""

    def __post_init__(self) -> None:
        wrong = [f"rate {self.rate:g} (above 0, at most 1)"] if not 0 < self.rate <= 1 else []
        wrong += [f"alpha {self.alpha:g} (between 0 and 1)"] if not 0 < self.alpha < 1 else []
        wrong += [f"worth {self.worth:g} (0 to 1)"] if not 0 <= self.worth <= 1 else []
        wrong += [f"horizon {self.horizon} (1 or more)"] if self.horizon < 1 else []
        wrong += [f"alarm {self.alarm:g} (above 1)"] if not self.alarm > 1 else []
        low = {"patience": self.patience, "items": self.items, "tokens": self.tokens}
        wrong += [f"{k} {v} (0 or more)" for k, v in low.items() if v < 0]
        if wrong:
            todo = "put numbers in their ranges into [memory] credit_options"
            raise ConfigError(f"credit options out of range: {', '.join(wrong)}", where="OutcomeCredit", todo=todo)

    def observe(
        self, attempt: str, offered: Mapping[str, float], shown: Collection[str], outcome: float, state: MemoryState
    ) -> list[MemoryOp]:
        """One VALUE for each offered item that is known and not retired, in the order of the offer.

        The value of what was shown moves by rate * (reward - value), reward = 2 * outcome - 1, from 0 at first.

        Args:
            attempt: Its id; it counts once for an item.
            offered: Item -> the chance it had of being shown.
            shown: Those that were.
            outcome: What the attempt scored. Range: [0, 1].
            state: The memory with everything that was observed before.
        """
        ops = []
        for item_id, chance in offered.items():
            item = state.items.get(item_id)
            if item is None or item.status == "retired":
                continue
            seen = item_id in shown
            delta = self.rate * (2 * outcome - 1 - (item.value or 0.0)) if seen else 0.0
            ops.append(
                MemoryOp(
                    op="VALUE", reflection=item_id, delta=delta, tag="shown" if seen else "withheld", chance=chance,
                    outcome=outcome, attempt=attempt, author=_AUTHOR,
                )
            )  # fmt: skip
        return ops

    def settle(self, state: MemoryState) -> list[MemoryOp]:
        """TAG `active` or `quarantined`, and RETIRE, for the items whose evidence or budget calls for it."""
        tried, believed = self._fresh(state)
        ops: dict[str, MemoryOp] = {}
        beaten: dict[str, MemoryOp] = {}
        unproven: list[Reflection] = []
        for item, row, verdict in self._judged(state, tried):
            if verdict is not None:
                old = state.items.get(item.rival)
                if item.rival and (old is None or old.status == "retired"):  # another rival of it took its place
                    old = next((r for r in state.items.values() if (r.status, r.rival) == ("active", item.rival)), None)
                ops[item.id] = self._tried(item, row, verdict, f"than {old.id}" if old else "than without")
                if verdict.claim == "better" and old:
                    beaten[old.id] = _op("RETIRE", old, f"superseded by {item.id}: {effect(row, alpha=self.alpha)}")
        ops.update(beaten)
        for item in believed:
            heard, why = self._alarmed(state, item)
            if why and item.id not in ops:
                ops[item.id] = _op("TAG", item, why, tag="quarantined")
            unproven += [] if heard else [item]
        contested = {item.rival for i in state.trials if (item := state.items[i]).status == "quarantined"}
        for item, row, verdict in self._judged(state, [item for item in unproven if item.id not in contested]):
            if verdict is not None and verdict.claim in ("worse", "small") and item.id not in ops:
                told = f"{effect(row, alpha=self.alpha)}, {_won(verdict, self.alpha)}"
                ops[item.id] = (
                    _op("RETIRE", item, f"harmful: {told}")
                    if verdict.claim == "worse"
                    else _op("TAG", item, f"no use shown: {told}", tag="quarantined")
                )
        for item in self._forgotten(state) if self.patience else ():
            ops.setdefault(item.id, _op("RETIRE", item, f"not offered in {self.patience} operations"))
        for item in (*tried, *believed):
            if item.id not in ops and item.id not in contested:
                self._open[item.id] = state.since.get(item.id, 0), list(state.trials[item.id])
        return [*ops.values(), *self._budget(state, ops)]

    def _fresh(self, state: MemoryState) -> tuple[list[Reflection], list[Reflection]]:
        """Items in quarantine and active ones about which there is something new."""
        found: dict[str, list[Reflection]] = {"quarantined": [], "active": [], "retired": []}
        for item_id, trials in state.trials.items():
            if self._open.get(item_id) != (state.since.get(item_id, 0), trials):
                found[state.items[item_id].status].append(state.items[item_id])
        return found["quarantined"], found["active"]

    def _judged(
        self, state: MemoryState, items: Sequence[Reflection]
    ) -> Iterator[tuple[Reflection, list[Trial], Verdict | None]]:
        """Each item with the experiments since its standing changed and what they prove.

        An active item stays for long: it is judged anew on every `horizon` experiments, and for it that is no end.
        """
        rows, horizon = [lots(_since(state, item)) for item in items], self.horizon
        if items and items[0].status == "active":
            rows = [[t for t in row if t.chance != 0.5] for row in rows]  # an even coin: against a rival
            rows = [row[max(len(row) - 1, 0) // horizon * horizon :] for row in rows]
            horizon = 2 * horizon  # rows are half as long, so none is `open`
        found = verdicts(rows, alpha=self.alpha, worth=self.worth, horizon=horizon)
        yield from zip(items, rows, found, strict=True)

    def _tried(self, item: Reflection, row: list[Trial], verdict: Verdict, than: str) -> MemoryOp:
        """What becomes of an item in quarantine."""
        seen = effect(row, alpha=self.alpha)
        if verdict.claim == "better":
            return _op("TAG", item, f"better {than}: {seen}, {_won(verdict, self.alpha)}", tag="active")
        if verdict.claim == "worse":
            return _op("RETIRE", item, f"harmful, worse {than}: {seen}, {_won(verdict, self.alpha)}")
        rather = ", and rather does harm" if seen.mean < 0 else ""
        if verdict.claim == "small":
            least = f"not the {100 * self.worth:g} points that would be worth its place{rather}"
            return _op("RETIRE", item, f"no use shown, {least}: {seen}, {_won(verdict, self.alpha)}")
        return _op(
            "RETIRE", item, f"no use shown in {verdict.trials} trials{rather}: {seen}, wealth {verdict.wealth:.2g}"
        )

    def _alarmed(self, state: MemoryState, item: Reflection) -> tuple[bool, str]:
        """Whether an active item can be watched by its outcomes, and why it must be tried again, if it must."""
        since = _since(state, item)
        earlier = state.trials[item.id][: len(state.trials[item.id]) - len(since)]
        # The stay in quarantine that it left: all at one chance.
        stay = list(takewhile(lambda t: t.chance == earlier[-1].chance, reversed(earlier)))
        after = lots(since)
        watched = loudness(stay[::-1], after)
        if watched is None or watched[0] < self.alarm:
            return watched is not None, ""
        (heard, level), shown = watched, [t.outcome for t in after if t.shown]
        last = shown[-20:]
        return True, (
            f"its outcomes turned bad: {sum(last) / len(last):.2f} in the last {len(last)} of {len(shown)} times it "
            f"was shown, where {level:.2f} is half-way to being of no use; alarm {heard:.0f} of {self.alarm:g}"
        )

    def _forgotten(self, state: MemoryState) -> Iterator[Reflection]:
        """Items in quarantine that were not offered for too long."""
        for item in state.items.values():
            if item.status == "quarantined":
                offered = [t.version for t in state.trials.get(item.id, ())[-1:]]
                if state.version - max(offered, default=state.since.get(item.id, 0)) > self.patience:
                    yield item

    def _budget(self, state: MemoryState, ops: Mapping[str, MemoryOp]) -> list[MemoryOp]:
        """What has to go after the other operations."""
        if not self.items and not self.tokens:
            return []
        after: list[Reflection] = []
        for item in state.items.values():
            op = ops.get(item.id)
            if item.status != "retired" and (op is None or op.op != "RETIRE"):
                after.append(item if op is None else item.replace(status=op.tag))
        return over_budget(after, state.trials, items_cap=self.items or None, tokens_cap=self.tokens or None)


def _since(state: MemoryState, item: Reflection) -> list[Trial]:
    """The trials since the item's words or standing last changed."""
    start = state.since.get(item.id, 0)
    return list(takewhile(lambda t: t.version > start, reversed(state.trials[item.id])))[::-1]


def _op(op: str, item: Reflection, reason: str, **fields: str) -> MemoryOp:
    return MemoryOp.from_dict({"op": op, "reflection": item.id, "reason": reason, "author": _AUTHOR, **fields})


def _won(verdict: Verdict, alpha: float) -> str:
    return f"wealth {verdict.wealth:.0f} of {1 / alpha:.0f} after {verdict.trials} trials"


__all__ = ["OutcomeCredit"]
