"""A test suite for a database that has none: the fewest contents that tell its gold queries from their neighbours.

A query that is right on one content may be wrong (Zhong, Yu and Klein 2020, arXiv 2010.02840). Contents are made by
`perturb.py`, the neighbours by `mutations.py`; those neighbours that the database itself does not tell from their gold
query decide which contents are kept. A gold query whose result is not determined on a content (ties that its LIMIT or
its order leaves open) is not judged there. Same database, golds and seed: same suite.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from verbal.errors import DataError
from verbal.types import Task

from .check import keyed
from .matching import Pair, match
from .mutations import ALL, mutations
from .perturb import Content
from .user_cache import user_cache
from .worker import Limits, Pool

VERSION = 1
"""Of the generator: another one makes other suites."""

_LIMITS = Limits(seconds=0.5, rows=20_000)
_DEPTH = 3
_NEIGHBOURS = 40
_SLICE = 256


@dataclass(frozen=True, slots=True)
class Suite:
    """Made states of one database."""

    states: tuple[str, ...]
    """The files, those that tell most apart first."""
    undetermined: dict[str, tuple[int, ...]]
    """Gold query -> places of the states where it has no one result."""
    figures: dict[str, float]
    """How it was made: candidates, neighbours, survivors (right on the database), killed, seconds."""

    def of(self, gold: str) -> list[str]:
        """The states on which answers to a gold query can be judged."""
        left_out = self.undetermined.get(gold, ())
        return [state for place, state in enumerate(self.states) if place not in left_out]


async def make_states(
    pool: Pool,
    db: str | Path,
    golds: Sequence[str],
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    most: int = 16,
    candidates: int = 192,
    seconds: float = 120.0,
) -> Suite:
    """A suite for the SQLite file `db`, from the cache when it was made before.

    Args:
        pool: Whose processes run the queries.
        db: The database; nothing is written beside it.
        golds: The gold queries of its questions.
        folder: Where suites are kept; None is the user's cache folder.
        seed: Decides the contents.
        most: Most states.
        candidates: Contents tried.
        seconds: Time after which no more is tried (the suite then depends on the machine's speed).

    Raises:
        DataError: the database cannot be read, or the folder cannot be written.
    """
    golds = sorted({gold for gold in golds if gold.strip()})
    root = Path(folder or user_cache() / "suites")
    try:
        home = root / _name(Path(db), golds, (seed, most, candidates))
        if (made := _read(home)) is not None:
            return made
        content = Content(db, golds)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            return await _make(pool, str(db), golds, content, Path(scratch), home, (seed, most, candidates, seconds))
    except (OSError, sqlite3.Error) as error:
        raise DataError(
            f"no states can be made of {str(db)!r}: {error}",
            where=str(root),
            todo="see that both can be read and written",
        ) from error


async def with_states(pool: Pool, tasks: Sequence[Task], **options: Any) -> list[Task]:
    """The tasks with made states in `info["states"]`: one suite for each SQLite file, of the golds of its tasks.

    Tasks without gold, and those that have states, stay as they are. `options` are those of `make_states`.

    Raises:
        DataError: a database cannot be read, or the folder cannot be written.
    """
    golds: dict[str, list[str]] = {}
    for task in tasks:
        if task.gold and not task.info.get("states"):
            golds.setdefault(str(task.info["db"]), []).append(task.gold)
    suites = {db: await make_states(pool, db, of_db, **options) for db, of_db in golds.items()}
    return [
        task.replace(info={**task.info, "states": suites[str(task.info["db"])].of(task.gold)})
        if task.gold and not task.info.get("states")
        else task
        for task in tasks
    ]


async def _make(
    pool: Pool, db: str, golds: Sequence[str], content: Content, scratch: Path, home: Path,
    options: tuple[int, int, int, float],
) -> Suite:  # fmt: skip
    seed, most, candidates, seconds = options
    started = time.monotonic()
    pairs = [(gold, wrong) for gold in golds for wrong in _neighbours(gold, content)]
    alive: list[bool | None] = []
    for start in range(0, len(pairs), _SLICE):  # on a large database each of them may take its time
        if time.monotonic() - started > seconds / 2:
            break
        alive += await _same(pool, pairs[start : start + _SLICE], db)
    survivors = [pair for pair, same in zip(pairs, alive, strict=False) if same]
    wanted = survivors + [(gold, other) for gold in golds for other in _wrapped(gold)]
    killed: dict[int, set[int]] = {}
    for number in range(candidates):
        if time.monotonic() - started > seconds:
            break
        path = scratch / f"{number}.sqlite"
        content.write(content.other(f"{seed}/{number}"), path)
        itself = await _same(pool, [(gold, gold) for gold in golds], str(path))
        if all(itself):
            verdicts = await _same(pool, wanted, str(path))
            killed[number] = {i for i, same in enumerate(verdicts) if same is False}
    chosen = fewest(killed, most, _DEPTH)
    states = []
    for place, number in enumerate(chosen):
        states.append(str(home / f"{Path(db).stem}-{place}.sqlite"))
        os.replace(scratch / f"{number}.sqlite", states[-1])
    open_golds = {gold: await _undetermined(pool, gold, states) for gold in golds}
    caught = set().union(*(killed[number] for number in chosen)) if chosen else set()
    caught = {i for i in caught if i < len(survivors)}
    figures = {
        "candidates": float(len(killed)), "neighbours": float(len(pairs)), "survivors": float(len(survivors)),
        "killed": float(len(caught)), "seconds": time.monotonic() - started,
    }  # fmt: skip
    suite = Suite(tuple(states), {gold: places for gold, places in open_golds.items() if places}, figures)
    _write(home, suite)
    return suite


def _neighbours(gold: str, content: Content) -> list[str]:
    """At most `_NEIGHBOURS` of them, spread over all kinds."""
    found = mutations(gold, ALL, content.columns)
    step = max(1.0, len(found) / _NEIGHBOURS)
    return [found[int(i * step)] for i in range(min(len(found), _NEIGHBOURS))]


def _wrapped(gold: str) -> list[str]:
    """What a state tells from the gold query when that gives a row there, several rows, or equal rows.

    Mistakes that no neighbour stands for only show where the gold query gives something.
    """
    inner = gold.strip().rstrip(";")
    return [
        f"SELECT * FROM ({inner}) LIMIT 0",
        f"SELECT * FROM ({inner}) LIMIT 1",
        f"SELECT * FROM ({inner}) LIMIT (SELECT COUNT(*) FROM (SELECT DISTINCT * FROM ({inner})))",
    ]


async def _same(pool: Pool, pairs: Sequence[tuple[str, str]], db: str) -> list[bool | None]:
    """For each (gold, other): do both give the same on `db`; None when the gold query does not run there."""
    asked = [Pair(other, gold, (db,)) for gold, other in pairs]
    return [said.right for said in await match(pool, asked, words=False, limits=_LIMITS)]


def fewest(killed: dict[int, set[int]], most: int, depth: int = 1) -> list[int]:
    """The candidates that together kill what all kill, each `depth` times where they can: greedy set cover.

    >>> fewest({0: {1, 2}, 1: {2, 3}, 2: {1, 2, 3}, 3: set()}, most=5)
    [2]
    """
    times: dict[int, int] = {}
    chosen: list[int] = []
    while len(chosen) < most:
        worth = {
            number: sum(1.0 if i not in times else 0.25 for i in found if times.get(i, 0) < depth)
            for number, found in killed.items()
            if number not in chosen
        }
        best = max(worth, key=lambda number: (worth[number], -number), default=None)
        if best is None or worth[best] < (1.0 if depth == 1 else 0.25):
            break
        chosen.append(best)
        for i in killed[best]:
            times[i] = times.get(i, 0) + 1
    return chosen


async def _undetermined(pool: Pool, gold: str, states: Sequence[str]) -> tuple[int, ...]:
    """The states on which rows with equal sort keys make the gold query's result a matter of chance."""
    asked = keyed(gold)
    if asked is None:
        return ()
    query, keys = asked
    found = []
    for place, state in enumerate(states):
        rows = (await pool.run(state, query, _LIMITS)).rows
        if any(a[-keys:] == b[-keys:] and a[:-keys] != b[:-keys] for a, b in pairwise(rows)):
            found.append(place)
    return tuple(found)


# the cache ----------------------------------------------------------------------------------------------------------


def _name(db: Path, golds: Sequence[str], options: tuple[int, ...]) -> str:
    digest = hashlib.blake2b(digest_size=10)
    with open(db, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    digest.update(json.dumps([VERSION, list(golds), options]).encode("utf-8", "surrogatepass"))
    return f"{db.stem}-{digest.hexdigest()}"


def _write(home: Path, suite: Suite) -> None:
    names = [Path(state).name for state in suite.states]
    told: dict[str, Any] = {"states": names, "undetermined": suite.undetermined, "figures": suite.figures}
    (home / "suite.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def _read(home: Path) -> Suite | None:
    try:
        told = json.loads((home / "suite.json").read_text(encoding="utf-8"))
        states = tuple(str(home / name) for name in told["states"])
        left_out = {gold: tuple(places) for gold, places in told["undetermined"].items()}
        return Suite(states, left_out, told["figures"]) if all(map(os.path.isfile, states)) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


__all__ = ["Suite", "fewest", "make_states", "with_states"]
