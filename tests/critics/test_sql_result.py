"""Execution match in numbers and words."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import Critic, CriticContext, Observation
from verbal.critics.sql_result import SqlResult
from verbal.parts import make_part
from verbal.rows import OUTAGES, compare, is_ordered
from verbal.types import Attempt, Feedback, StopReason, Task

GOLD = "SELECT name, sal FROM emp"
ROWS = [["Ann", 10], ["Bob", 20], ["Cid", 30], ["Dee", 40]]

FEWER = "the result has too few rows, the others are right: a condition or a join takes too many away"
MORE = "the result has too many rows, the others are right: a condition is missing or too loose"


def result(rows: Sequence[Sequence[Any]], columns: Sequence[str] | None = None, **info: Any) -> dict[str, Any]:
    names = columns if columns is not None else [f"c{i}" for i in range(len(rows[0]) if rows else 1)]
    base = {"columns": list(names), "rows": [list(row) for row in rows], "error": None, "truncated": False}
    return {**base, "row_count": len(rows), **info}


def seen(*args: Any, **info: Any) -> Observation:
    return Observation(text="", done=True, info=result(*args, **info))


def judge(observed: Observation | None, gold: Observation, *, sql: str = GOLD, **attempt: Any) -> Feedback:
    """Feedback on one attempt that was observed so."""

    async def execute(task: Task, text: str) -> Observation:
        return gold if text == sql else Observation(text="", done=True, info=result([[1]]))

    task = Task(id="t", kind="text2sql", messages=(), gold=sql)
    made = Attempt(id="a", run="r", task="t", **{"answer": "SELECT 1", **attempt})
    context = CriticContext(observations={"a": observed} if observed else {}, execute=execute)
    (feedback,) = asyncio.run(SqlResult().evaluate(task, [made], context))
    assert (feedback.attempt, feedback.critic, feedback.oracle, feedback.source) == ("a", "sql_result", True, "gold")
    return feedback


def test_it_is_a_part() -> None:
    assert isinstance(make_part("critics", "sql_result"), Critic)


@pytest.mark.parametrize(
    ("rows", "value", "words", "parts"),
    [
        (ROWS, 1.0, "the result is right", {"columns": 1.0, "rows": 1.0}),
        (ROWS[::-1], 1.0, "the result is right", {"columns": 1.0, "rows": 1.0}),
        ([row[::-1] for row in ROWS], 1.0, "the result is right", {"columns": 1.0, "rows": 1.0}),
        ([[n, s + 1e-12] for n, s in ROWS], 1.0, "the result is right", {"columns": 1.0, "rows": 1.0}),
        ([[n, float(s)] for n, s in ROWS], 1.0, "the result is right", {"columns": 1.0, "rows": 1.0}),
        ([[n] for n, _ in ROWS], 0.0, "1 column missing in the result, the others are right",
         {"columns": 0.5, "rows": 0.0}),
        ([[n, s, 1, 2] for n, s in ROWS], 0.0,
         "2 columns too many in the result: not asked for is column 3 (c2), 4 (c3)",
         {"columns": 0.5, "rows": 0.0}),
        (ROWS[:3], 0.0, FEWER, {"columns": 0.0, "rows": 6 / 7}),
        ([*ROWS, ["Eve", 50]], 0.0, MORE, None),
        ([*ROWS, ROWS[0]], 0.0, "the result has duplicate rows", {"columns": 0.0, "rows": 8 / 9}),
        ([], 0.0, "the query returns no rows", None),
        ([["Ann", 11], *ROWS[1:]], 0.0, "the number of rows is right but values are wrong in column 2 (c1)", None),
        ([["Ann", 20], ["Bob", 10], *ROWS[2:]], 0.0,
         "the number of rows is right but values are wrong: cells of different rows are mixed up", None),
        ([["ann", 10], *ROWS[1:]], 0.0, "the number of rows is right but values are wrong in column 1 (c0)", None),
    ],
)  # fmt: skip
def test_values_and_words(rows: list[list[Any]], value: float, words: str, parts: dict[str, float] | None) -> None:
    answer = seen(rows, None if rows else ["c0", "c1"])
    feedback = judge(answer, seen(ROWS))
    assert (feedback.value, feedback.text) == (value, words)
    if parts is not None:
        assert feedback.parts == pytest.approx(parts)
    assert not any(str(cell) in feedback.text for cell in ("Dee", 40, GOLD))


def test_missing_duplicates() -> None:
    gold = seen([["A"], ["A"], ["B"]])
    assert judge(seen([["A"], ["B"]]), gold).text == "the result lacks duplicate rows"


def test_order_counts_when_gold_orders() -> None:
    ordered = GOLD + " ORDER BY sal"
    wrong = judge(seen(ROWS[::-1]), seen(ROWS), sql=ordered)
    assert (wrong.value, wrong.text) == (0.0, "the rows are right but in the wrong order")
    assert wrong.parts == {"columns": 1.0, "rows": 1.0}
    assert judge(seen([row[::-1] for row in ROWS]), seen(ROWS), sql=ordered).value == 1.0


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n by a limit 1", True),
        ("SELECT a FROM t WHERE a IN (SELECT a FROM u ORDER BY b LIMIT 1)", False),
        ("SELECT 'order by' FROM t", False),
        ('SELECT "order by" FROM t -- order by a', False),
        ("SELECT a /* order by */ FROM t", False),
        ("SELECT ROW_NUMBER() OVER (ORDER BY a) FROM t", False),
        ("SELECT a FROM (SELECT a FROM t) ORDER BY a", True),
        ("SELECT ')' FROM t WHERE a IN (SELECT b FROM u ORDER BY 1)", False),
    ],
)
def test_outer_order_by(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) is ordered


def test_answers_that_fail_or_are_empty_score_0() -> None:
    failed = seen([], error="no such column: x", error_class="no_such_column")
    assert (judge(failed, seen(ROWS)).value, judge(failed, seen(ROWS)).text) == (
        0.0,
        "the query fails: no such column: x",
    )
    empty = judge(None, seen(ROWS), answer=" ", stop=StopReason.MALFORMED)
    assert (empty.value, empty.text) == (0.0, "there is no query")
    assert judge(None, seen([]), answer="").value == 0.0


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        (seen([], error="no such table: x"), "the gold answer does not run: no such table: x"),
        (seen(ROWS, truncated=True), "the gold answer gives more rows than are fetched"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_none_with_a_reason(gold: Observation, reason: str) -> None:
    feedback = judge(seen(ROWS), gold)
    assert (feedback.value, feedback.reason) == (None, reason)


async def test_no_gold_no_execute_and_a_model_that_failed() -> None:
    attempt = Attempt(id="a", run="r", task="t", answer="SELECT 1")
    task = Task(id="t", kind="text2sql", messages=())
    (feedback,) = await SqlResult().evaluate(task, [attempt], CriticContext())
    assert (feedback.value, feedback.reason) == (None, "the task has no gold answer")
    (feedback,) = await SqlResult().evaluate(task.replace(gold="SELECT 1"), [attempt], CriticContext())
    assert feedback.value is None and "no execute" in feedback.reason
    broken = attempt.replace(answer="", stop=StopReason.ERROR, error="server down")
    (feedback,) = await SqlResult().evaluate(task, [broken], CriticContext())
    assert (feedback.value, feedback.reason) == (None, "the attempt ended without an answer: server down")


@pytest.mark.parametrize("kind", sorted(OUTAGES))
@pytest.mark.parametrize("critic", ["sql_result", "partial_match"])
async def test_a_database_that_is_out_of_reach_is_not_the_answers_fault(critic: str, kind: str) -> None:
    async def execute(task: Task, sql: str) -> Observation:
        return seen(ROWS) if sql == GOLD else seen([], error="it is down", error_class=kind)

    task = Task(id="t", kind="text2sql", messages=(), gold=GOLD)
    made = Attempt(id="a", run="r", task="t", answer="SELECT name, sal FROM emp AS e")
    (found,) = await make_part("critics", critic).evaluate(task, [made], CriticContext(execute=execute))
    assert (found.value, found.reason) == (None, "the answer could not be run: it is down")


async def test_gold_runs_once_for_a_task_and_answers_run_when_not_observed() -> None:
    ran: list[str] = []

    async def execute(task: Task, sql: str) -> Observation:
        ran.append(sql)
        return seen([[len(sql)]])

    critic = SqlResult()
    task = Task(id="t", kind="text2sql", messages=(), gold="SELECT 1")
    group = [Attempt(id=str(n), run="r", task="t", answer=f"SELECT {n}") for n in range(12)]
    said = await critic.evaluate(task, group, CriticContext(execute=execute))
    await critic.evaluate(task, [], CriticContext(execute=execute))
    assert ran.count("SELECT 1") == 2 and len(ran) == 13
    assert [feedback.value for feedback in said] == [1.0] * 10 + [0.0] * 2


async def test_gold_runs_again_when_its_database_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "emp.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.executescript("PRAGMA journal_mode = WAL; CREATE TABLE emp (name, sal);")

    async def execute(task: Task, sql: str) -> Observation:
        ran.append(sql)
        with closing(sqlite3.connect(path)) as connection:
            return seen(connection.execute(sql).fetchall(), ["name", "sal"])

    ran: list[str] = []
    critic = SqlResult()
    task = Task(id="t", kind="text2sql", messages=(), gold=GOLD, info={"db": str(path)})
    made = Attempt(id="a", run="r", task="t", answer=f"{GOLD} WHERE 1")
    with closing(sqlite3.connect(path)) as writer:
        for number in range(3):
            for _ in range(2):
                (found,) = await critic.evaluate(task, [made], CriticContext(execute=execute))
                assert found.value == 1.0, number
            writer.execute("INSERT INTO emp VALUES (?, ?)", (f"P{number}", number))
            writer.commit()
    assert ran.count(GOLD) == 3
    for gone in (tmp_path / "gone.sqlite", tmp_path, "a\0b"):
        other = task.replace(info={"db": str(gone)})
        assert [f.value for f in await critic.evaluate(other, [made], CriticContext(execute=execute))] == [1.0]


async def test_gold_on_a_server_runs_for_each_group() -> None:
    ran: list[str] = []

    async def execute(task: Task, sql: str) -> Observation:
        ran.append(sql)
        return seen([[len(ran)]])

    task = Task(id="t", kind="text2sql", messages=(), gold=GOLD, info={"db": "postgresql://localhost/shop"})
    critic = SqlResult()
    for _ in range(2):
        await critic.evaluate(task, [], CriticContext(execute=execute))
    assert ran == [GOLD, GOLD]


CELLS = st.none() | st.integers(-3, 3) | st.text("ab", max_size=2) | st.sampled_from([0.5, 1.0, 1e9 / 3])
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=6))


@given(TABLES, st.permutations(range(4)), st.permutations(range(6)))
def test_any_row_and_column_order_matches(rows: list[tuple[Any, ...]], columns: list[int], places: list[int]) -> None:
    order = [i for i in columns if i < len(rows[0])]
    shuffled = [tuple(rows[place][i] for i in order) for place in places if place < len(rows)]
    found = compare(result(shuffled), result(rows))
    assert found.match and found.parts == {"columns": 1.0, "rows": 1.0}


@given(TABLES, TABLES)
def test_it_agrees_with_trying_every_permutation(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    from itertools import permutations

    width = len(first[0])
    expected = len(second[0]) == width and any(
        sorted(map(repr, (tuple(_plain(row[i]) for i in order) for row in first)))
        == sorted(map(repr, (tuple(map(_plain, row)) for row in second)))
        for order in permutations(range(width))
    )
    found = compare(result(first), result(second))
    assert found.match == expected
    assert all(0.0 <= share <= 1.0 for share in found.parts.values())


def _plain(cell: Any) -> Any:
    return float(cell) if isinstance(cell, int) else cell


def test_many_equal_columns_do_not_take_for_ever() -> None:
    rows = [[n % 2] * 11 + [n] for n in range(300)]
    wrong = [[(n + 1) % 2] * 10 + [n % 2, n] for n in range(300)]
    assert compare(result(wrong), result(rows)).match is False
    assert compare(result([row[::-1] for row in rows]), result(rows)).match is True
