"""What a retrieval policy may choose from for one query, and what it may know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from verbal.contracts import Trial
from verbal.errors import ConfigError
from verbal.types import Reflection, Status

from .log import LogState
from .retrieval import out_of_bounds, together, tokens
from .shelf import Shelf
from .words import informative

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verbal.store import Store

_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """One search."""

    query: str
    k: int
    exclude_tasks: Sequence[str] = ()
    status: Status = "active"
    task: str | None = None
    """The task at hand: items of the scope `task` are shown for their own task only."""
    scope: Literal["family", "task"] = "family"
    """`task` looks among the lessons of the task at hand, and those of the scope `global`, only."""
    token_cap: int | None = None


class Candidates:
    """The items that may be shown for a query.

    Args:
        asked: The search.
        log: The memory.
        shelf: The items of the standing that is asked for.
        nearest: The n nearest ids of the shelf to a vector.
        vectors: The vectors of items.
        embed: The vectors of the query and of further texts; called only when a policy needs them.
        outcomes: What items did for tasks.

    Raises:
        ConfigError: scope `task` without a task.
    """

    def __init__(
        self,
        asked: Asked,
        log: LogState,
        shelf: Shelf,
        *,
        nearest: Callable[[Sequence[float], int], Sequence[tuple[str, float]]],
        vectors: Callable[[Sequence[str]], Sequence[Sequence[float]]],
        embed: Callable[[Sequence[str]], Sequence[Sequence[float]]],
        ask: Callable[[str], Sequence[float]],
        outcomes: Outcomes,
    ) -> None:
        if asked.task is None and asked.scope == "task":
            raise ConfigError(
                "retrieval with scope `task` was not told the task",
                where=f"memory {outcomes.memory!r}",
                todo="pass search(..., task=...), or take scope `family`",
            )
        self.query, self.k, self.items = asked.query, asked.k, log.items
        self._asked, self._log, self._shelf = asked, log, shelf
        self._nearest, self._vectors, self._embed, self._ask = nearest, vectors, embed, ask
        self._outcomes = outcomes
        self._hidden = {i for t in asked.exclude_tasks for i in log.by_task.get(t, ())}
        self._cosines: dict[str, float] = {}
        self._own = log.by_task.get(asked.task, set()) if asked.task is not None else set()

    def fits(self, item_id: str) -> bool:
        """Whether an item may be shown at all: standing, source, scope, boundary, size."""
        item, asked = self.items.get(item_id), self._asked
        if item is None or item.status != asked.status or item_id in self._hidden:
            return False
        bound = item.scope == "task" or (asked.scope == "task" and item.scope != "global")
        if bound and item_id not in self._own:
            return False
        if item.boundary and out_of_bounds(item, self._words):
            return False
        return asked.token_cap is None or tokens(item) <= asked.token_cap

    def alike(self) -> Iterator[str]:
        """Ids by words and vectors, best first, irrelevant ones dropped; at least `k` where there are so many."""
        if self._asked.status != self._shelf.status:
            return
        given, unfit, wanted, before = set[str](), False, self.k, -1
        while True:
            ids = self._shelf.similar(self.query, wanted, self._hidden, self._near)
            for item_id in ids:
                if item_id not in given and self.fits(item_id):
                    given.add(item_id)
                    yield item_id
                elif item_id not in given:
                    unfit = True
            # Where some may not be shown, others further down take their place.
            if not unfit or len(given) >= self.k or len(ids) <= before:
                return
            wanted, before = max(4 * wanted, 50), len(ids)

    def by_vector(self) -> Iterator[str]:
        """Ids by vector alone, best first; at least `k` where there are so many."""
        given, wanted = set[str](), self.k + len(self._hidden)
        while True:
            hits = self._near(wanted)
            for item_id, _ in hits:
                if item_id not in given and item_id in self._shelf.ids and self.fits(item_id):
                    given.add(item_id)
                    yield item_id
            if len(given) >= self.k or len(hits) < wanted:
                return
            wanted = max(4 * wanted, 50)

    def similarity(self, ids: Sequence[str]) -> dict[str, float]:
        """Cosine of the query and each item, six digits."""
        if not ids:
            return {}
        if other := [i for i in ids if i not in self._cosines]:
            found = _unit(self._vectors(other)) @ _unit([self._vector])[0]
            self._cosines.update(zip(other, np.round(found, 6).tolist(), strict=True))
        return {i: self._cosines[i] for i in ids}

    def likeness(self, ids: Sequence[str]) -> Callable[[int], NDArray[np.float64]]:
        """Place of an item among `ids` -> its cosine with each, six digits. Shape: [items]."""
        vectors = _unit(self._vectors(ids)) if ids else np.zeros((0, 0))
        return lambda place: np.round(vectors @ vectors[place], 6)

    def text_similarity(self, texts: Sequence[str]) -> list[float]:
        """Cosine of the query and some texts, six digits; a text is embedded once for the memory's life."""
        if not texts:
            return []
        found = _unit(self._outcomes.embedded(texts, self._embed)) @ _unit([self._vector])[0]
        return [round(float(s), 6) for s in found]

    def outcomes(self, item_id: str) -> dict[str, float]:
        """Task -> the item's mean outcome there when it was shown."""
        return self._outcomes.of(self._log.trials.get(item_id, ()))

    def of_task(self, task: str) -> Iterable[str]:
        """Ids whose words came from a task."""
        return self._log.by_task.get(task, ())

    def together(self, ids: Iterable[str]) -> list[Reflection]:
        """The first items that can stand in one prompt."""
        return together((self.items[i] for i in ids), self.k, self._asked.token_cap)

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(informative(self.query))

    @cached_property
    def _vector(self) -> Sequence[float]:
        return self._ask(self.query)

    def _near(self, n: int) -> Sequence[tuple[str, float]]:
        hits = self._nearest(self._vector, n)
        self._cosines.update(hits)
        return hits


@dataclass(slots=True)
class Outcomes:
    """What items did for tasks, from the attempts that the log's trials name, read once."""

    store: Store
    memory: str
    _version: int = 0
    _attempts: dict[int, str] = field(default_factory=dict)
    _tasks: dict[str, str] = field(default_factory=dict)
    _texts: dict[str, Sequence[float]] = field(default_factory=dict)

    def of(self, trials: Iterable[Trial]) -> dict[str, float]:
        """Task -> mean outcome of the trials in which the item was shown; an unknown attempt is a task of its own."""
        sums: dict[str, list[float]] = {}
        for trial in trials:
            if trial.shown:
                sums.setdefault(self._task(trial.version), []).append(trial.outcome)
        return {task: sum(values) / len(values) for task, values in sums.items()}

    def embedded(
        self, texts: Sequence[str], embed: Callable[[Sequence[str]], Sequence[Sequence[float]]]
    ) -> list[Sequence[float]]:
        """The vectors of texts, made for those not seen lately."""
        new = [t for t in dict.fromkeys(texts) if t not in self._texts]
        made: Mapping[str, Sequence[float]] = dict(zip(new, embed(new), strict=True)) if new else {}
        found = [self._texts[t] if t in self._texts else made[t] for t in texts]
        if len(self._texts) + len(made) > _KEPT:
            self._texts.clear()
        self._texts.update(made)
        return found

    def _task(self, version: int) -> str:
        if version > self._version:
            for at, op in self.store.ops(self.memory, after=self._version):
                self._version = at
                if op.op == "VALUE" and op.tag == "shown":
                    self._attempts[at] = op.attempt
        attempt = self._attempts.get(version) or f"version {version}"
        if attempt not in self._tasks:
            kept = self.store.attempt(attempt)
            self._tasks[attempt] = kept.task if kept else f"attempt {attempt}"
        return self._tasks[attempt]


def _unit(vectors: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The vectors at length 1. Shape: [n, dimension]."""
    matrix = np.asarray(vectors, dtype=np.float64)
    unit: NDArray[np.float64] = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    return unit
