"""CoT-RL rows: kept where the translated gold gives the same rows, never of held-out tasks; stages and reward."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from verbal.apps.text2sql.cot_rl import Place, Run, build, rewarder, runner, second_stage
from verbal.apps.text2sql.schema import Column, Table
from verbal.apps.text2sql.worker import Pool
from verbal.critics.partial_match import query_of, reward
from verbal.errors import DataError
from verbal.types import Message, Task

TABLES = [Table("emp", (Column("id", "INTEGER"), Column("name", "TEXT"), Column("dept", "TEXT")))]
MADE = "CREATE TABLE emp (id INTEGER, name TEXT, dept TEXT)"
ROWS = [(1, "Ann", "A"), (2, "Bob", "A"), (3, "Cid", "B")]
FENCED = "```sql\n{}\n```"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    """The same rows in SQLite and in DuckDB, but for one name that DuckDB has otherwise."""
    folder = tmp_path_factory.mktemp("cot_rl")
    with closing(sqlite3.connect(folder / "emp.sqlite")) as small:
        small.execute(MADE)
        small.executemany("INSERT INTO emp VALUES (?, ?, ?)", ROWS)
        small.commit()
    with closing(duckdb.connect(str(folder / "emp.duckdb"))) as other:
        other.execute(MADE)
        other.executemany("INSERT INTO emp VALUES (?, ?, ?)", [*ROWS[:2], (3, "Cyd", "B")])
    names = (("emp.sqlite", "sqlite"), ("emp.duckdb", "duckdb"))
    return [Place(str(Path(folder / file)), dialect, TABLES) for file, dialect in names]


@pytest.fixture(scope="module")
def run(places: list[Place]) -> Iterator[Run]:
    with closing(Pool(2)) as pool:
        yield runner(pool, places)


def task(name: str, gold: str | None, split: str = "train") -> Task:
    return Task(id=name, kind="text2sql", messages=(), gold=gold, info={"db": "there"}, split=split)  # type: ignore[arg-type]


def asked(moved: Task) -> list[Message]:
    return [Message(role="user", content=f"{moved.id} on {moved.info['db']}")]


GOLDS = [
    task("loose", 'SELECT dept, COUNT(*), name FROM emp WHERE dept = "A" GROUP BY dept'),
    task("differs", "SELECT name FROM emp"),
    task("broken", "SELECT nothing FROM emp"),
]


def test_a_question_gets_a_row_where_its_translated_gold_gives_the_same_rows(places: list[Place], run: Run) -> None:
    built = build(GOLDS, lambda _: places, asked, run)
    assert [row["id"] for row in built.rows] == ["loose@sqlite", "loose@duckdb", "differs@sqlite"]
    assert built.dropped == {"duckdb: not the same rows": 1, "the gold query does not run": 1}
    first, second, _ = built.rows
    assert first["gold_sql"] == GOLDS[0].gold != second["gold_sql"]
    assert run(second["db"], second["gold_sql"])["rows"] == built.golds["loose"]["rows"]  # type: ignore[index]
    assert second["prompt"] == [{"role": "user", "content": f"loose on {places[1].db}"}]
    assert {row["stage"] for row in built.rows} == {1}
    json.dumps(built.rows)  # plain values: a data set takes them


def test_a_gold_that_cannot_be_translated_stays_where_it_is(places: list[Place]) -> None:
    built = build(
        [task("odd", "SELECT (name FROM emp")], lambda _: places, asked, lambda db, sql: {"columns": [], "rows": []}
    )
    assert [row["id"] for row in built.rows] == ["odd@sqlite"]
    assert built.dropped == {"duckdb: not the same rows": 1}


def test_a_share_of_the_questions_is_drawn_and_always_the_same_one(places: list[Place], run: Run) -> None:
    tasks = [replace(GOLDS[0], id=f"q{i}") for i in range(40)]
    drawn = [[row["id"] for row in build(tasks, lambda _: places, asked, run, share={"sqlite": 0.5, "duckdb": 0}).rows]
             for _ in range(2)]  # fmt: skip
    assert drawn[0] == drawn[1]
    assert 8 < len(drawn[0]) < 32


@pytest.mark.parametrize("split", ["dev", "test"])
def test_held_out_and_sealed_tasks_are_refused_before_anything_runs(places: list[Place], split: str) -> None:
    def never(db: str, sql: str) -> None:
        raise AssertionError("nothing may run")

    with pytest.raises(DataError, match=split):
        build([GOLDS[0], task("kept", "SELECT 1", split)], lambda _: places, asked, never)
    with pytest.raises(DataError, match="no gold"):
        build([task("bare", None)], lambda _: places, asked, never)


def test_stage_two_starts_from_the_best_checkpoint_with_what_it_fails() -> None:
    rows = [{"id": name, "stage": 1} for name in ("a", "b", "c")]
    rates = {"step 9": {"a": 1.0, "b": 0.0, "c": 0.2}, "step 18": {"a": 0.9, "b": 1.0, "c": 0.0}}
    best, left = second_stage(rows, rates)
    assert (best, left) == ("step 18", [{"id": "a", "stage": 2}, {"id": "c", "stage": 2}])
    assert [row["id"] for row in second_stage(rows, rates, below=0.5)[1]] == ["c"]
    assert rows[0]["stage"] == 1
    with pytest.raises(DataError, match="'c'"):
        second_stage(rows, {"step 9": {"a": 1.0, "b": 0.0}})
    with pytest.raises(DataError, match="no checkpoint"):
        second_stage(rows, {})


def test_the_reward_is_called_as_trl_does_and_scores_with_partial_match(places: list[Place], run: Run) -> None:
    golds = {"all": {"columns": ["id", "name"], "rows": [(i, n) for i, n, _ in ROWS]}}
    score = rewarder(golds, run, reward, query=query_of)
    said = ["SELECT id, name FROM emp", "SELECT id FROM emp ORDER BY id", "SELECT 1 WHERE 1 = 2 LIMIT 5",
            "SELECT nothing FROM emp", "DELETE FROM emp WHERE id = 1"]  # fmt: skip
    chats = [[{"role": "assistant", "content": FENCED.format(sql)}] for sql in said]
    chats.append([{"role": "assistant", "content": "no fence: SELECT id, name FROM emp"}])
    columns = {"db": [places[0].db] * 6, "gold": ["all"] * 6, "stage": [1] * 6, "trainer_state": None}
    assert score(prompts=[[]] * 6, completions=chats, **columns) == [10.0, 5.0, 0.5, 0.0, 0.0, 0.0]
    assert score([chats[0][0]["content"]], db=[places[1].db], gold=["all"]) == [pytest.approx(5.0)]
    with closing(sqlite3.connect(places[0].db)) as small:
        assert small.execute("SELECT COUNT(*) FROM emp").fetchone() == (3,)
