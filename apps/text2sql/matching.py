"""Many answers against their gold queries, on every state of their databases: `await match(pool, pairs)`.

The comparison runs in the pool's processes (`engines/match.py`); this side deals the work out. Pairs with one gold
query stay together, and come back to the process that has its results; a process with nothing to do takes over what
another has not begun. A process that dies costs its pairs a second try, one by one, and nobody else anything.

Which rules a reward should take: the default, `verbal`. The order counts only where the outermost query orders,
DISTINCT is part of the question, and sums that differ by rounding noise are equal. `test_suite` is the official
evaluator's verdict, for figures beside published ones: it drops DISTINCT from both queries, so that answers with
duplicates are paid, and it asks for an order where only a subquery has one.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from verbal.contracts import Match
from verbal.errors import DataError
from verbal.rows import OUTAGES, compare, is_ordered
from verbal.types import Task

from .engines.match import SLOW_GOLD, is_slow, same_text
from .user_cache import user_cache
from .worker import Ask, Limits, Pool

Rules = Literal["verbal", "test_suite", "test_suite_distinct"]
"""Ours; the official evaluator's; the official evaluator's with DISTINCT kept."""

CHUNK = 48
"""Predictions in one request to a process."""

_GOLD_SECONDS = 30.0
_PATIENCE = 600.0
_ROOM = 4  # results that stay in their process may be larger than those that travel
_REMEMBERED = 50_000


class Pair(NamedTuple):
    """An answer and what it is compared with."""

    sql: str
    gold: str
    states: tuple[str, ...]
    """Database files; the task's own first."""


@dataclass(slots=True)
class _Group:
    """The different predictions on one gold query, and the pairs that wait for each."""

    gold: str
    states: tuple[str, ...]
    waiting: dict[str, list[int]] = field(default_factory=dict)


async def match(
    pool: Pool,
    pairs: Sequence[Pair],
    *,
    rules: Rules = "verbal",
    words: bool = True,
    limits: Limits | None = None,
    cache: str | Path | None = None,
) -> list[Match]:
    """One verdict a pair, in order.

    Args:
        pool: Whose processes and limits are used.
        pairs: A thousand at a time is a good number.
        rules: What counts as the same.
        words: Whether to say how a wrong result differs; without, a batch is faster.
        limits: Of each query; the pool's when None.
        cache: A file for gold results that took long; None is one in the user's cache folder.

    Raises:
        EnvironmentFault: the pool is closed.
    """
    here = [i for i, pair in enumerate(pairs) if all(_is_sqlite(state) for state in pair.states)]
    settings = _settings(limits or pool.limits, rules, words, cache)
    work = _Work(_grouped(pairs, here), _homes(pool), settings)
    lanes = range(min(pool.size, len(work.left)))
    try:
        await asyncio.gather(*(_lane(pool, work) for _ in lanes))
    except BaseException:
        work.left.clear()
        raise
    found = work.found
    for i in set(range(len(pairs))).difference(here):
        found[i] = await _elsewhere(pool, pairs[i], limits)
    return [found[i] for i in range(len(pairs))]


async def match_task(pool: Pool, task: Task, answers: Sequence[str], cache: Path | None = None) -> list[Match]:
    """One verdict an answer on a task, on its database and its `states`; `cache` is a folder, the user's when None."""
    if not task.gold or not task.gold.strip():
        return [Match(None, "the task has no gold answer", 0)] * len(answers)
    if not task.info.get("db"):
        return [Match(None, "the task names no database", 0)] * len(answers)
    states = tuple(dict.fromkeys([str(task.info["db"]), *map(str, task.info.get("states") or ())]))
    asked = [i for i, answer in enumerate(answers) if answer.strip()]
    file = None if cache is None else cache / gold_cache_file().name
    said = await match(pool, [Pair(answers[i], task.gold, states) for i in asked], cache=file)
    found = [Match(False, "there is no query", 0)] * len(answers)
    for i, verdict in zip(asked, said, strict=True):
        found[i] = verdict
    return found


def _settings(limits: Limits, rules: Rules, words: bool, cache: str | Path | None) -> dict[str, Any]:
    return {
        "op": "match", "rules": rules, "words": words, "seconds": limits.seconds, "rows": limits.rows * _ROOM,
        "gold_seconds": max(_GOLD_SECONDS, limits.seconds), "bytes": limits.size * _ROOM,
        "wait": min(limits.wait, limits.seconds / 2), "cache": str(cache or gold_cache_file()),
    }  # fmt: skip


def gold_cache_file() -> Path:
    """Where gold results that took long are kept."""
    return user_cache() / "text2sql-gold.sqlite"


@lru_cache(maxsize=10_000)
def _is_sqlite(state: str) -> bool:
    from .sources import Source

    try:
        return Source.of(state).kind == "sqlite"
    except DataError:
        return True  # the verdict says what is wrong with it


def _grouped(pairs: Sequence[Pair], places: Sequence[int]) -> list[_Group]:
    groups: dict[tuple[str, tuple[str, ...]], _Group] = {}
    for place in places:
        sql, gold, states = pairs[place]
        group = groups.setdefault((gold, states), _Group(gold, states))
        group.waiting.setdefault(sql, []).append(place)
    return sorted(groups.values(), key=lambda group: group.states)  # neighbours share connections


# the processes ------------------------------------------------------------------------------------------------------


_known: WeakKeyDictionary[Pool, OrderedDict[int, int]] = WeakKeyDictionary()


def _homes(pool: Pool) -> OrderedDict[int, int]:
    """Hash of a gold query and its states, or of states -> the process that has results, or has them open."""
    homes = _known.setdefault(pool, OrderedDict())
    while len(homes) > _REMEMBERED:
        homes.popitem(last=False)
    return homes


class _Work:
    """What is left to compare, and the verdicts so far. Threads take from it."""

    def __init__(self, groups: list[_Group], homes: OrderedDict[int, int], settings: dict[str, Any]) -> None:
        self.left = groups
        self.homes, self.settings = homes, settings
        self.found: dict[int, Match] = {}
        self._lock = threading.Lock()

    def take(self, lane: int) -> list[_Group]:
        """The next groups for a process: its own, those on its databases, those that are nobody's, then another's."""
        with self._lock:
            if not self.left:
                return []
            order = sorted(range(len(self.left)), key=lambda i: self._distance(self.left[i], lane))
            taken: list[int] = []
            size = 0
            for i in order:
                if taken and size + len(self.left[i].waiting) > CHUNK:
                    break
                taken.append(i)
                size += len(self.left[i].waiting)
            groups = [self.left[i] for i in taken]
            gone = set(taken)
            self.left = [group for i, group in enumerate(self.left) if i not in gone]
            for group in groups:
                self.homes[hash((group.gold, group.states))] = lane
                self.homes.setdefault(hash(group.states), lane)
            return groups

    def _distance(self, group: _Group, lane: int) -> int:
        own = self.homes.get(hash((group.gold, group.states)))
        home = self.homes.get(hash(group.states)) if own is None else own
        return 2 if home is None else 3 if home != lane else 0 if own is not None else 1

    def settle(self, group: _Group, sql: str, verdict: list[Any]) -> None:
        """Writes a verdict down for all pairs that wait for it."""
        said = _match(verdict, group.states)
        with self._lock:
            for place in group.waiting[sql]:
                self.found[place] = said


def _match(verdict: list[Any], states: tuple[str, ...]) -> Match:
    right, text, done, place, columns, rows = verdict
    name = "" if place < 0 else os.path.basename(states[place])
    if right:
        text = "the result is right" + (f" on all {done} states of the database" if done > 1 else "")
    elif right is False and place > 0:
        text = f"on another state of the database ({name}): {text}" if text else ""
    return Match(right, text, done, name, {"columns": columns, "rows": rows})


async def _lane(pool: Pool, work: _Work) -> None:
    """One process's share: a chunk at a time, so that other queries get their turn."""
    while work.left:
        await asyncio.wrap_future(pool.submit(lambda ask: _chunk(ask, work)))


def _chunk(ask: Ask, work: _Work) -> None:
    groups = work.take(ask.lane)
    if not groups:
        return
    verdicts = _asked(ask, work.settings, groups)
    if verdicts is not None:
        for group, said in zip(groups, verdicts, strict=True):
            for sql, verdict in zip(group.waiting, said, strict=True):
                work.settle(group, sql, verdict)
        return
    for group in groups:  # something in them ends its process: which one, is found by trying each
        for sql, places in group.waiting.items():
            alone = _Group(group.gold, group.states, {sql: places})
            found = _asked(ask, work.settings, [alone])
            work.settle(group, sql, _blamed(ask, work.settings, alone) if found is None else found[0][0])


def _blamed(ask: Ask, settings: dict[str, Any], group: _Group) -> list[Any]:
    """The verdict on a prediction whose comparison ended its process: wrong, unless the gold query alone does that."""
    if _asked(ask, settings, [_Group(group.gold, group.states, {group.gold: []})]) is None:
        return [None, "the gold query ends its worker process", 1, 0, 0.0, 0.0]
    return [False, "the query fails: it ended its worker process (too long, or out of memory)", 1, 0, 0.0, 0.0]


def _asked(ask: Ask, settings: dict[str, Any], groups: Sequence[_Group]) -> list[list[list[Any]]] | None:
    """The verdicts, or None when the process ended."""
    suites: dict[tuple[str, ...], int] = {}
    told = [
        {"gold": g.gold, "suite": suites.setdefault(g.states, len(suites)), "predictions": list(g.waiting)}
        for g in groups
    ]
    reply = ask({**settings, "suites": list(suites), "groups": told}, _PATIENCE)
    found: list[list[list[Any]]] | None = None if reply is None else reply["verdicts"]
    return found


# other engines ------------------------------------------------------------------------------------------------------


async def _elsewhere(pool: Pool, pair: Pair, limits: Limits | None) -> Match:
    """The verdict for databases that are no SQLite files: both results are fetched and compared here."""
    ordered = is_ordered(pair.gold)
    for place, state in enumerate(pair.states):
        asked = (pair.gold,) if same_text(pair.sql, pair.gold) else (pair.gold, pair.sql)
        found = await asyncio.gather(*(pool.run(state, sql, limits) for sql in asked))
        gold, ours = found[0], found[-1]
        name = os.path.basename(state)
        if gold.error or gold.truncated:
            why = gold.error or "it gives more rows than are fetched"
            return Match(None, f"the gold query does not run on {name}: {why}", place + 1, name)
        if ours.error:
            slow = ours.error_class == "timeout" and is_slow(gold.seconds, (limits or pool.limits).seconds)
            why = f"{ours.error}{SLOW_GOLD}" if slow else ours.error
            unknown = slow or ours.error_class in OUTAGES
            return Match(None if unknown else False, f"the query fails: {why}", place + 1, name)
        said = compare(ours.to_dict(), gold.to_dict(), ordered=ordered)
        if not said.match:
            verdict = [False, said.text, place + 1, place, said.parts["columns"], said.parts["rows"]]
            return _match(verdict, pair.states)
    return _match([True, "", len(pair.states), -1, 1.0, 1.0], pair.states)


__all__ = ["Pair", "Rules", "gold_cache_file", "match", "match_task"]
