"""What a query leaves out of its question and what it adds is told below the answer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from verbal.apps.text2sql.answer import result_fields
from verbal.apps.text2sql.clarify import Reading, abstention, understand
from verbal.apps.text2sql.values import Database
from verbal.contracts import Observation


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """CREATE TABLE customer (id INTEGER PRIMARY KEY, first_name TEXT, country TEXT, vip INTEGER);
            INSERT INTO customer VALUES (1, 'Anna', 'Germany', 1), (2, 'Bob', 'France', 0);
            CREATE TABLE track (id INTEGER PRIMARY KEY, title TEXT, milliseconds INTEGER);
            INSERT INTO track VALUES (1, 'Blue', 10);
            CREATE TABLE employee (id INTEGER PRIMARY KEY, birth_date TEXT);
            CREATE TABLE void (x INTEGER);"""
        )
    return Database(path)


def _limits(database: Database, question: str, sql: str, rows: Any = ((1,),)) -> str:
    seen = Observation(
        text="", done=True, info={"columns": ["x"], "rows": [list(r) for r in rows], "row_count": len(rows)}
    )
    named = understand(question, database)
    return "\n".join(result_fields(sql, seen, question, named, "sqlite", 1_000)["limits"])


def test_a_linked_word_that_is_dropped_is_told(database: Database) -> None:
    question = "How many vip customers are there in France?"
    sql = "SELECT COUNT(*) FROM customer WHERE country = 'France'"
    assert "not used: customer.vip" in _limits(database, question, sql)
    assert "not used: 'France'" in _limits(database, question, "SELECT COUNT(*) FROM customer WHERE vip = 1")
    assert "not used" not in _limits(database, question, sql + " AND vip = 1")


def test_a_literal_that_no_cell_is_comes_with_the_nearest(database: Database) -> None:
    asked = "How many customers in Germny?"
    told = _limits(database, asked, "SELECT COUNT(*) FROM customer AS c WHERE c.first_name = 'Germny'")
    assert "'Germny' is not in customer.first_name; customer.country has 'Germany'" in told
    assert " is not in " not in _limits(database, asked, "SELECT COUNT(*) FROM customer WHERE country = 'Germany'")
    told = _limits(database, "customers", "SELECT id FROM customer WHERE country IN ('France', 'Frence')")
    assert "'Frence' is not in customer.country; customer.country has 'France'" in told and "'France' is" not in told


def test_a_condition_that_no_word_speaks_of_is_told(database: Database) -> None:
    sql = "SELECT t.title FROM track t JOIN employee e ON e.id = t.id ORDER BY e.birth_date DESC LIMIT 1"
    told = "no word of the question speaks of this: order by employee.birth_date"
    assert told in _limits(database, "What is the longest track?", sql)
    assert told not in _limits(database, "Which track of an employee is the longest?", sql)
    assert told not in _limits(database, "Tracks by birth date", sql)
    count = "SELECT COUNT(*) FROM track ORDER BY milliseconds"
    assert "no word of" not in _limits(database, "longest track", count), "its table is named"


def test_a_query_about_something_else_is_no_answer(database: Database) -> None:
    def why(question: str, sql: str) -> str:
        seen = Observation(text="", done=True, info={"columns": ["x"], "rows": [[1]], "row_count": 1})
        found = Reading(number=1, sql=sql, attempt="a", votes=5, of=5, words="", observation=seen)
        return abstention([], {}, [found], understand(question, database))

    sql = "SELECT MAX(birth_date) FROM employee"
    assert "none of the tables" in why("What is the longest track?", sql)
    assert not why("What is the latest birth date?", sql)
    assert not why("What is the longest track?", "SELECT MAX(milliseconds) FROM track")


def test_an_empty_table_is_called_so(database: Database) -> None:
    assert "the table void is empty" in _limits(database, "everything", "SELECT * FROM void", ())
    assert "written otherwise" in _limits(database, "x", "SELECT * FROM void WHERE x = 1", ())
