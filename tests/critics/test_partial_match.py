"""The partial-match reward: the golden values of the paper's reward, and what the hardened one takes away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import CriticContext, Observation
from verbal.critics.partial_match import faithful, hardened, query_of, reward
from verbal.errors import ConfigError
from verbal.parts import load_function, make_part
from verbal.rows import compare
from verbal.types import Attempt, Task

GOLD = "SELECT name, sal FROM emp"
NAMES = "SELECT name FROM emp"
COUNT = "SELECT count(*) FROM emp"
IDS = "WITH RECURSIVE t(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM t WHERE id < {}) SELECT id FROM t"

# name, prediction, gold, the paper's reward (as measured on its own code), ours hardened
GOLDEN: list[tuple[str, str, str, float, float]] = [
    ("exact", GOLD, GOLD, 10, 10),
    ("other names and column order", "SELECT sal AS x, name AS y FROM emp", GOLD, 10, 10),
    ("other row order", GOLD + " ORDER BY sal DESC", GOLD, 10, 10),
    ("one extra column", "SELECT name, sal, dept FROM emp", GOLD, 10, 20 / 3),
    ("star against one column", "SELECT * FROM emp    ", NAMES, 10, 2),
    ("one of two columns right", "SELECT name, n FROM emp", GOLD, 5, 5),
    ("only one column", NAMES, GOLD, 5, 5),
    ("no column right", "SELECT dept, n FROM emp", GOLD, 0.5, 0.5),
    ("3 of 4 rows", GOLD + " LIMIT 3", GOLD, 7.5, 60 / 7),
    ("2 of 4 rows", GOLD + " LIMIT 2", GOLD, 5, 20 / 3),
    ("gold 3 rows, prediction 4", GOLD, GOLD + " WHERE sal > 10", 10, 60 / 7),
    ("gold 2 rows, prediction 4", GOLD, GOLD + " WHERE sal > 20", 10, 20 / 3),
    ("paired with wrong rows", "SELECT a.name, b.sal FROM emp a JOIN emp b ON a.id = 5 - b.id", GOLD, 10, 5),
    ("syntax error", "SELEC name, sal FROM emp", GOLD, 0, 0),
    ("shorter than 16 characters", "SELECT 1", GOLD, 0, 0.5),
    ("delete", "DELETE FROM emp WHERE 0", GOLD, 0, 0),
    ("empty against 4 rows", GOLD + " WHERE 0", GOLD, 0.5, 0.5),
    ("empty against empty", GOLD + " WHERE 0", GOLD + " WHERE 1 = 0", 10, 10),
    ("4 rows against empty", GOLD, GOLD + " WHERE 1 = 0", 0.5, 0.5),
    ("right count", COUNT, COUNT, 10, 10),
    ("wrong count", COUNT + " WHERE id > 1", COUNT, 0.5, 0.5),
    ("float off by 0.004", "SELECT name, sal + 0.004 FROM emp", GOLD, 10, 5),
    ("float off by 0.006", "SELECT sal + 0.006 FROM emp", "SELECT sal FROM emp", 0.5, 0.5),
    ("25 against 25.0", "SELECT avg(sal) FROM emp", "SELECT 25", 10, 10),
    ("other case", "SELECT lower(name) FROM emp", NAMES, 0.5, 0.5),
    ("row gap 6", IDS.format(4), IDS.format(10), 0.5, 40 / 7),
    ("row gap 5", IDS.format(4), IDS.format(9), 40 / 9, 80 / 13),
    ("distinct against duplicates", "SELECT DISTINCT dept FROM emp", "SELECT dept FROM emp", 5, 20 / 3),
    ("duplicates against distinct", "SELECT dept FROM emp ", "SELECT DISTINCT dept FROM emp", 0.5, 20 / 3),
    ("two equal column names", "SELECT name, name FROM emp", GOLD, 0.5, 5),
    ("text against numbers", "SELECT CAST(id AS TEXT) FROM emp", "SELECT id FROM emp", 10, 0.5),
]


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            "CREATE TABLE emp (id INTEGER, name TEXT, dept TEXT, sal INTEGER, n INTEGER);"
            "INSERT INTO emp VALUES (1, 'Ann', 'A', 10, 5), (2, 'Bob', 'A', 20, 5), (3, 'Cid', 'B', 30, 7),"
            "(4, 'Dee', 'B', 40, 9)"
        )
        yield connection


def run(db: sqlite3.Connection, sql: str) -> dict[str, Any] | None:
    try:
        cursor = db.execute(sql)
    except sqlite3.Error:
        return None
    if cursor.description is None:
        return None
    return {"columns": [d[0] for d in cursor.description], "rows": cursor.fetchall()}


@pytest.mark.parametrize(("sql", "gold", "paper", "ours"), [row[1:] for row in GOLDEN], ids=[row[0] for row in GOLDEN])
def test_golden_values(db: sqlite3.Connection, sql: str, gold: str, paper: float, ours: float) -> None:
    right, answer = run(db, gold), run(db, sql)
    assert right is not None
    assert reward(sql, answer, [right]) == pytest.approx(paper)
    assert reward(sql, answer, [right], mode="hardened") == pytest.approx(ours)


def test_the_fence_is_the_only_check_of_the_form() -> None:
    assert query_of("```sql\nSELECT 1\n```\nor rather\n```sql\nSELECT 2\n```") == "SELECT 2"
    assert query_of("SELECT name FROM emp") == "" and reward("", None, [table([[1]])]) == 0.0


def test_the_best_of_several_golds_counts(db: sqlite3.Connection) -> None:
    golds = [table([[1]]), table([["Ann"], ["Bob"], ["Cid"], ["Dee"]])]
    assert reward(NAMES, run(db, NAMES), golds) == 10.0
    assert reward(NAMES, run(db, NAMES), golds[:1]) == 0.5


def test_the_evaluation_allows_30_rows() -> None:
    ours, right = table([[i] for i in range(4)]), table([[i] for i in range(10)])
    assert faithful(ours, right) == 0.0 and faithful(ours, right, cutoff=30) == pytest.approx(0.4)


def test_nulls_are_values_that_match_nulls_alone() -> None:
    assert faithful(table([[None], [1]]), table([[1], [None]])) == 1.0
    assert faithful(table([[None], ["a"]]), table([["a"], [None]])) == 1.0
    assert faithful(table([[0], [1]]), table([[1], [None]])) == 0.0


def test_surplus_rows_pay_no_more_than_they_should() -> None:
    right = table([[i, str(i)] for i in range(4)])
    more = table([[i, str(i)] for i in range(8)])
    assert faithful(more, right) == 1.0 and hardened(more, right) == pytest.approx(8 / 12)


def test_order_counts_where_the_gold_orders() -> None:
    right = table([[1], [2], [3], [4]])
    assert hardened(table([[4], [3], [2], [1]]), right) == 1.0
    assert hardened(table([[4], [3], [2], [1]]), right, ordered=True) == pytest.approx(0.25)
    assert hardened(table([[1], [2], [4], [3]]), right, ordered=True) == pytest.approx(0.75)


CELLS = st.none() | st.integers(-2, 2) | st.text("ab", max_size=1) | st.sampled_from([0.5, 1.0])
ROWS = st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[CELLS] * width), max_size=5))


def table(rows: Sequence[Sequence[Any]], width: int = 1) -> dict[str, Any]:
    return {"columns": [f"c{i}" for i in range(len(rows[0]) if rows else width)], "rows": [tuple(r) for r in rows]}


@given(ROWS, ROWS, st.booleans())
def test_shares_are_shares_and_only_a_match_is_whole(first: list[Any], second: list[Any], ordered: bool) -> None:
    answer, gold = table(first), table(second)
    assert 0.0 <= faithful(answer, gold) <= 1.0
    share = hardened(answer, gold, ordered)
    assert 0.0 <= share <= 1.0 and (share == 1.0) == compare(answer, gold, ordered=ordered).match
    assert ordered is False or share <= hardened(answer, gold)
    assert 0.5 <= reward("SELECT something", answer, [gold], mode="hardened", ordered=ordered) <= 10.0


@given(ROWS.filter(bool), CELLS)
def test_an_extra_column_or_row_always_costs(rows: list[Any], cell: Any) -> None:
    gold = table(rows)
    assert hardened(table([(*row, cell) for row in rows]), gold) < 1.0
    assert hardened(table([*rows, rows[0]]), gold) < 1.0


@given(ROWS.filter(bool), st.permutations(range(3)), st.randoms())
def test_neither_way_looks_at_the_order_of_rows_and_columns(rows: list[Any], columns: list[int], random: Any) -> None:
    order = [i for i in columns if i < len(rows[0])]
    moved = [tuple(row[i] for i in order) for row in rows]
    random.shuffle(moved)
    assert hardened(table(moved), table(rows)) == 1.0 and faithful(table(moved), table(rows)) == 1.0


async def test_the_critic_gives_a_tenth_of_the_reward_and_words(db: sqlite3.Connection) -> None:
    async def execute(task: Task, sql: str) -> Observation:
        found = run(db, sql)
        error = None if found else "it does not run"
        info = {"columns": [], "rows": [], "error": error, "truncated": False, **(found or {})}
        return Observation(text="", done=True, info=info)

    task = Task(id="t", kind="text2sql", messages=(), gold=GOLD, split="train")
    answers = (GOLD, GOLD + " LIMIT 3", "SELECT nothing FROM emp", "")
    group = [Attempt(id=str(i), run="r", task="t", answer=sql) for i, sql in enumerate(answers)]
    said = await make_part("critics", "partial_match").evaluate(task, group, CriticContext(execute=execute))
    assert [f.value for f in said] == [1.0, 0.75, 0.0, 0.0]
    assert [f.parts["reward"] for f in said] == [10.0, 7.5, 0.0, 0.0]
    assert said[1].text.startswith("the result has too few rows") and not any(f.correction for f in said)
    shown = make_part("critics", "partial_match", mode="hardened", show_gold=True)
    said = await shown.evaluate(task, group, CriticContext(execute=execute))
    assert said[1].value == pytest.approx(6 / 7) and said[1].correction == GOLD and not said[0].correction
    sealed = await shown.evaluate(task.replace(split="test"), group, CriticContext(execute=execute))
    assert not any(f.correction for f in sealed)


def test_trainers_find_the_function_and_wrong_modes_are_told() -> None:
    assert load_function("critics", "partial_match", "reward") is reward
    with pytest.raises(ConfigError, match="no mode 'loose'"):
        make_part("critics", "partial_match", mode="loose")
