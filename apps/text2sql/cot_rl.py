"""PaVeRL's CoT-RL as data for a GRPO trainer (arXiv 2509.07159): questions in several dialects, two stages, one reward.

A row holds `id`, `prompt` (messages), `task`, `db`, `dialect`, `gold_sql` (of that dialect), `gold` (the key of the
right result, which was computed once, as in the paper) and `stage`. A question gets a row on another engine only where
its translated query gives the same rows there. Only train questions are taken: the others are what is measured with.

    built = build(app.tasks("train"), places, lambda task: app.messages("solver", task), run)
    GRPOTrainer(..., train_dataset=Dataset.from_list(built.rows), reward_funcs=rewarder(built.golds, run, score))
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from verbal.errors import DataError
from verbal.rows import compare, is_ordered
from verbal.types import Message, Task

from .guard import Guard
from .replies import parse_sql
from .schema import Table
from .transpile import transpile
from .worker import Pool

Result = Mapping[str, Any]
"""What a query gives: `columns` (names) and `rows`."""

Run = Callable[[str, str], Result | None]
"""What a query (second) gives on a database (first); None where it gives nothing."""


class Place(NamedTuple):
    """A task's database on one engine."""

    db: str
    dialect: str
    """sqlglot's name."""
    tables: Sequence[Table]
    """As this engine holds them."""


@dataclass(slots=True)
class Built:
    """Rows for a trainer."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    golds: dict[str, Result] = field(default_factory=dict)
    """Right results by their key."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Why rows were left out."""


def build(
    tasks: Sequence[Task],
    places: Callable[[Task], Sequence[Place]],
    messages: Callable[[Task], Sequence[Message]],
    run: Run,
    *,
    share: Mapping[str, float] | None = None,
) -> Built:
    """The rows of stage 1.

    Args:
        tasks: Train questions with their gold queries, in SQLite's dialect.
        places: Where a task's database is: the SQLite file first, then the same data on other engines.
        messages: The prompt of a task; it is asked with the place's database and query in the task.
        run: Runs gold queries (`runner`).
        share: Of the questions, how many get a row in a dialect (1 where it is not named), drawn by the task's id.

    Raises:
        DataError: a task is sealed or held out (its split is not train), or has no gold query.
    """
    for task in tasks:
        if task.split != "train":
            todo = "give train tasks: what is trained on can measure nothing"
            raise DataError(f"the task {task.id!r} is of the split {task.split!r}", where="CoT-RL", todo=todo)
        if not task.gold:
            raise DataError(f"the task {task.id!r} has no gold query", where=str(task.info.get("where", "")))
    built = Built()
    for task in tasks:
        source, *others = places(task)
        gold = run(source.db, task.gold or "")
        if gold is None:
            built.dropped["the gold query does not run"] += 1
            continue
        for place in (source, *others):
            if random.Random(f"{task.id}@{place.dialect}").random() >= (share or {}).get(place.dialect, 1.0):
                continue
            sql = task.gold or "" if place is source else _translated(task.gold or "", source, place, gold, run)
            if sql is None:
                built.dropped[f"{place.dialect}: not the same rows"] += 1
                continue
            moved = task.replace(gold=sql, info={**task.info, "db": place.db})
            prompt = [{"role": m.role, "content": m.content} for m in messages(moved)]
            built.golds[task.id] = gold
            built.rows.append({
                "id": f"{task.id}@{place.dialect}", "prompt": prompt, "task": task.id, "db": place.db,
                "dialect": place.dialect, "gold_sql": sql, "gold": task.id, "stage": 1,
            })  # fmt: skip
    return built


def _translated(sql: str, source: Place, place: Place, gold: Result, run: Run) -> str | None:
    """The query for the place, None where it cannot be translated or does not give the gold rows there."""
    from sqlglot.errors import SqlglotError

    try:
        made = transpile(sql, source.tables, target=place.tables, write=place.dialect).sql
    except SqlglotError:
        return None
    found = run(place.db, made)
    return made if found is not None and compare(dict(found), dict(gold), ordered=is_ordered(sql)).match else None


def second_stage(
    rows: Sequence[Mapping[str, Any]], rates: Mapping[str, Mapping[str, float]], *, below: float = 1.0
) -> tuple[str, list[dict[str, Any]]]:
    """The checkpoint that stage 2 restarts from, and the rows that it still fails.

    Args:
        rows: Those of stage 1.
        rates: Checkpoint -> row's id -> share of its samples that were right. The best mean wins, the first of equals.
        below: A row with a smaller share than this is failed.

    Raises:
        DataError: there is no checkpoint, or a row has no rate.
    """
    if not rates:
        raise DataError("no checkpoint has pass rates", where="CoT-RL", todo="evaluate the checkpoints of stage 1")
    lacking = [(name, row["id"]) for name, known in rates.items() for row in rows if row["id"] not in known]
    if lacking:
        name, row_id = lacking[0]
        raise DataError(f"the checkpoint {name!r} has no pass rate for {row_id!r}", todo="evaluate it on every row")
    best = max(rates, key=lambda name: fmean(rates[name][row["id"]] for row in rows) if rows else 0.0)
    return best, [{**row, "stage": 2} for row in rows if rates[best][row["id"]] < below]


def runner(pool: Pool, places: Sequence[Place]) -> Run:
    """Runs queries of models on these places: past the guard, in the pool's processes, read-only."""
    guards = {place.db: Guard(place.tables, place.dialect) for place in places}

    def run(db: str, sql: str) -> Result | None:
        if not sql.strip() or guards[db].check(sql) is not None:
            return None
        found = pool.run_now(db, sql)
        return None if found.error is not None else {"columns": list(found.columns), "rows": list(found.rows)}

    return run


def rewarder(
    golds: Mapping[str, Result],
    run: Run,
    score: Callable[[str, Result | None, Sequence[Result]], float],
    *,
    query: Callable[[str], str | None] = parse_sql,
    threads: int = 2,
) -> Callable[..., list[float]]:
    """A reward function as TRL calls it: `reward(completions, **columns)` gives one number a completion.

    Args:
        golds: `Built.golds`.
        run: Runs queries (`runner`).
        score: What a query is worth, of its text, its result and the right results: partial match's `reward`.
        query: Takes the query from a reply.
        threads: Queries at a time; as many as the pool has processes.
    """

    def reward(completions: Sequence[Any], *, db: Sequence[str], gold: Sequence[str], **columns: Any) -> list[float]:
        def one(completion: Any, place: str, key: str) -> float:
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            sql = query(text) or ""
            return float(score(sql, run(place, sql) if sql else None, [golds[key]]))

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, completions, db, gold))

    return reward


__all__ = ["Built", "Place", "build", "rewarder", "runner", "second_stage"]
