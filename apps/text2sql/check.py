"""The app's own proof: what `verbal check apps/text2sql` runs on every question that has a gold query.

A set of questions is only worth learning from when its golds run, give rows, cannot be had by accident, and when the
critic tells them from their neighbours. Each finding is {"check", "task", "ok", "what"}.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as quote_url

from verbal.contracts import Critic, CriticContext, Observation
from verbal.parts import make_part
from verbal.types import Attempt, Task

from .demo import TERMS
from .mutations import mutations

if TYPE_CHECKING:
    from .app import Text2Sql

Finding = dict[str, Any]
"""One result of one check."""


async def check_app(app: Text2Sql, critic: Critic | None = None, *, split: str | None = None) -> list[Finding]:
    """All findings on the app's questions, those that passed as well.

    Args:
        app: Its tasks are checked.
        critic: The judge on trial; the critic `sql_result` when None.
        split: Only the tasks of this split.
    """
    judge: Critic = critic or make_part("critics", "sql_result")
    tasks = [task for task in app.tasks(split) if task.gold]
    findings = [*_splits(tasks), _enough(tasks)]
    results: dict[str, Observation] = {}
    for task in tasks:
        seen = results[task.id] = await app.execute(task, task.gold or "")
        findings.append(_runs(task, seen))
        if not findings[-1]["ok"]:
            continue
        findings.append(await _determined(app, task))
        findings += await _scores(app, judge, task)
    return [*findings, *_distinct(tasks, results)]


def _finding(check: str, task: str, ok: bool, what: str) -> Finding:
    return {"check": check, "task": task, "ok": ok, "what": what if task == "" else f"{task}: {what}"}


def _enough(tasks: Sequence[Task]) -> Finding:
    return _finding("questions", "", bool(tasks), f"{len(tasks)} questions have a gold query")


def _splits(tasks: Sequence[Task]) -> Iterator[Finding]:
    """No question and no gold query of train is asked again in dev or test, nor of dev in test."""
    order = {"train": 0, "dev": 1, "test": 2}
    for kind in ("question", "gold query"):
        first: dict[str, Task] = {}
        for task in sorted(tasks, key=lambda task: order[task.split]):
            text = task.info["question"] if kind == "question" else (task.gold or "")
            key = " ".join(str(task.info["db"]).split()) + "\0" + " ".join(text.lower().split())
            other = first.setdefault(key, task)
            ok = other is task or (other.split == task.split and kind == "gold query")
            yield _finding(f"new {kind}", task.id, ok, "new" if ok else f"the same {kind} as {other.id}")


def _runs(task: Task, seen: Observation) -> Finding:
    info = seen.info
    if info["error"]:
        return _finding("gold runs", task.id, False, f"{seen.text}; SQL: {task.gold}")
    cells = [cell for row in info["rows"] for cell in row]
    if not any(cell is not None for cell in cells):
        return _finding("gold runs", task.id, False, f"the gold query gives no value; SQL: {task.gold}")
    return _finding("gold runs", task.id, not info["truncated"], seen.text)


async def _determined(app: Text2Sql, task: Task) -> Finding:
    """Neither ties in ORDER BY nor the order in which SQLite scans its tables decide what the gold query gives."""
    tied = keyed(task.gold or "")
    if tied is not None:
        query, keys = tied
        rows = (await app.execute(task, query)).info["rows"]
        for first, second in pairwise(rows):
            if first[-keys:] == second[-keys:] and first[:-keys] != second[:-keys]:
                return _finding("gold is determined", task.id, False, f"ties decide; SQL: {task.gold}")
    uri = f"file:{quote_url(str(Path(task.info['db']).resolve()))}?mode=ro"
    results = []
    for backwards in (0, 1):
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.text_factory = bytes
            connection.execute(f"PRAGMA reverse_unordered_selects = {backwards}")
            rows = connection.execute(task.gold or "").fetchall()
            results.append(rows if tied is not None else sorted(rows, key=repr))
    same = len(results[0]) == len(results[1]) and all(map(_same, *results))
    what = "one result" if same else f"the order of the scan decides; SQL: {task.gold}"
    return _finding("gold is determined", task.id, same, what)


def keyed(sql: str) -> tuple[str, int] | None:
    """The query with its sort keys as last columns and one row more, and how many keys; None when it has no order."""
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(sql, read="sqlite")
    except sqlglot.errors.SqlglotError:
        return None
    order, limit = tree.args.get("order"), tree.args.get("limit")
    if not isinstance(tree, exp.Select) or order is None or tree.args.get("distinct"):
        return None
    keys = [ordered.this for ordered in order.expressions]
    if any(isinstance(key, exp.Literal) for key in keys):
        return None
    if limit is not None:
        limit.set("expression", exp.Literal.number(int(limit.expression.name) + 1))
    return tree.select(*(key.copy() for key in keys)).sql(dialect="sqlite"), len(keys)


def _same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b)) for a, b in pairs)


async def _scores(app: Text2Sql, judge: Critic, task: Task) -> list[Finding]:
    """Gold scores 1; the empty answer, mutated queries and other readings of the terms do not."""
    answers = [("gold scores 1", task.gold or "", True), ("empty scores 0", "", False)]
    answers += [("differs from neighbours", sql, False) for sql in mutations(task.gold or "")]
    answers += [("terms are needed", sql, False) for sql in other_readings(task)]
    attempts, seen = [], {}
    for number, (_, sql, _) in enumerate(answers):
        attempts.append(Attempt(id=f"check/{task.id}/{number}", run="check", task=task.id, answer=sql))
        if sql:
            seen[attempts[-1].id] = await app.execute(task, sql)
    said = await judge.evaluate(task, attempts, CriticContext(observations=seen, execute=app.execute))
    findings = []
    for (check, sql, right), feedback in zip(answers, said, strict=True):
        ok = feedback.value == 1.0 if right else feedback.value is not None and feedback.value < 1.0
        what = f"{judge.name} gives {feedback.value} to: {sql or '(empty answer)'}"
        findings.append(_finding(check, task.id, ok, what + (f" ({feedback.reason})" if feedback.reason else "")))
    return findings


def other_readings(task: Task) -> list[str]:
    """The gold query with one of its terms taken for something else."""
    gold, found = task.gold or "", []
    for term in (TERMS[phrase] for phrase in task.info.get("terms", ()) if phrase in TERMS):
        for prefix in (f"{term.table}.", ""):
            meant = term.sql.format(t=prefix)
            pattern = rf"(?<![\w.]){re.escape(meant)}(?!\w)"
            if re.search(pattern, gold):
                for reading in term.readings:
                    found.append(re.sub(pattern, reading.format(t=prefix).replace("\\", "\\\\"), gold))
                break
    return found


def _distinct(tasks: Sequence[Task], results: dict[str, Observation]) -> Iterator[Finding]:
    """No other question of the same database has the same result from another query (single cells excepted)."""
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        info = results[task.id].info
        if info["error"] is None and len(info["rows"]) * len(info["columns"]) > 1:
            groups[f"{task.info['db']}\0{sorted(map(repr, info['rows']))}"].append(task)
    for same in groups.values():
        for task in same:
            others = [other.id for other in same if other.gold != task.gold]
            text = f"the same result as {', '.join(others[:3])}, which ask something else" if others else "its own"
            yield _finding("own result", task.id, not others, text)
