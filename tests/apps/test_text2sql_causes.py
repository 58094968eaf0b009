"""One cause for each wrong answer: what a result proves, then the first part in which the queries differ."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.causes import CAUSES, cause_of, parts_of
from verbal.contracts import Observation
from verbal.rows import compare, is_ordered

SCRIPT = """
CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INT, country TEXT);
CREATE TABLE concert (id INTEGER PRIMARY KEY, singer_id INT, year INT);
INSERT INTO singer VALUES (1, 'Ann', 30, 'France'), (2, 'Bob', 40, 'Spain');
INSERT INTO singer VALUES (3, 'Cid', 50, 'France'), (4, 'Dan', 60, 'Peru');
INSERT INTO concert VALUES (1, 1, 2014), (2, 1, 2014), (3, 2, 2015), (4, 3, 2016);
"""
SCHEMA = {"singer": {"id", "name", "age", "country"}, "concert": {"id", "singer_id", "year"}}


def ran(sql: str) -> Observation:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCRIPT)
        try:
            cursor = db.execute(sql)
            info = {"columns": [c[0] for c in cursor.description or ()], "rows": cursor.fetchall(), "error": None}
        except sqlite3.Error as error:
            info = {"columns": [], "rows": [], "error": str(error), "error_class": "no_such_column"}
    return Observation(text="", done=True, info=info)


def cause(sql: str, gold: str, failed: str = "") -> tuple[str, str]:
    seen, wanted = ran(sql), ran(gold)
    found = compare(seen.info, wanted.info, ordered=is_ordered(gold))
    assert not found.match or failed, "the answer is right"
    made = cause_of(sql, gold, seen, wanted, found, schema=SCHEMA, failed=failed)
    assert made.name in CAUSES
    return made.label, made.text


JOINED = "SELECT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.singer_id"


@pytest.mark.parametrize(
    ("sql", "gold", "label"),
    [
        ("", "SELECT 1", "no query"),
        ("SELECT nothing FROM singer", "SELECT name FROM singer", "does not run: no such column"),
        (
            "SELECT name FROM singer ORDER BY age DESC",
            "SELECT name FROM singer ORDER BY age",
            "rows in the wrong order",
        ),
        ("SELECT country FROM singer", "SELECT DISTINCT country FROM singer", "duplicate rows (DISTINCT)"),
        ("SELECT name, age FROM singer", "SELECT name FROM singer", "columns too many"),
        ("SELECT name FROM singer", "SELECT age, name FROM singer", "columns missing"),
        ("SELECT id FROM concert", "SELECT id FROM singer WHERE age > 35", "wrong tables"),
        (
            "SELECT country FROM singer WHERE age > 35",
            "SELECT country FROM singer WHERE age > 35 INTERSECT SELECT country FROM singer WHERE age < 35",
            "wrong set operation",
        ),
        (JOINED.replace("T2.singer_id", "T2.id"), JOINED, "wrong join"),
        ("SELECT name FROM singer WHERE age > 30", 'SELECT name FROM singer WHERE country = "France"', "wrong filter"),
        ("SELECT max(age) FROM singer", "SELECT min(age) FROM singer", "wrong aggregate"),
        (
            "SELECT count(*) FROM singer GROUP BY age",
            "SELECT count(*) FROM singer GROUP BY country",
            "wrong grouping",
        ),
        ("SELECT country FROM singer", "SELECT name FROM singer", "wrong columns"),
        (
            "SELECT name FROM singer ORDER BY age LIMIT 1",
            "SELECT name FROM singer ORDER BY id DESC LIMIT 1",
            "wrong order",
        ),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age LIMIT 1", "wrong limit"),
        (
            "SELECT avg(age) FROM singer JOIN concert ON singer.id = concert.singer_id",
            "SELECT avg(age) FROM singer WHERE id IN (SELECT singer_id FROM concert)",
            "joined or nested otherwise",
        ),
        ("SELECT count(DISTINCT country) FROM singer", "SELECT count(country) FROM singer", "wrong aggregate"),
    ],
)
def test_each_cause(sql: str, gold: str, label: str) -> None:
    assert cause(sql, gold)[0] == label


def test_right_on_one_state_only_names_the_state_and_the_part() -> None:
    label, text = cause("SELECT name FROM singer WHERE age > 35", "SELECT name FROM singer WHERE age >= 40", "state7")
    assert label == "right on one state only"
    assert "state7" in text and "wrong filter" in text and "age >= 40" in text


def test_a_time_limit_and_an_error_are_told_by_their_class() -> None:
    gold = ran("SELECT name FROM singer")
    for kind, label in (("timeout", "time limit"), ("denied", "does not run: denied"), (None, "does not run: error")):
        info = {"columns": [], "rows": [], "error": "stopped after 5 s", "error_class": kind}
        seen = Observation(text="", done=True, info=info)
        found = compare(seen.info, gold.info)
        made = cause_of("SELECT 1", "SELECT name FROM singer", seen, gold, found, schema=SCHEMA)
        assert (made.label, made.text) == (label, "stopped after 5 s")


def test_parts_do_not_depend_on_aliases_case_quotes_and_order_of_conditions() -> None:
    one = parts_of('SELECT T1.NAME FROM singer AS T1 WHERE T1.country = "France" AND 30 = age ORDER BY T1.age', SCHEMA)
    other = parts_of("select name from Singer where age = 30 and country = 'France' order by singer.age", SCHEMA)
    assert one is not None and one == other


def test_a_semi_join_is_a_join() -> None:
    found = parts_of("SELECT name FROM singer WHERE id IN (SELECT singer_id FROM concert WHERE year = 2014)", SCHEMA)
    assert found is not None
    assert list(found.joins) == ["concert.singer_id = singer.id"]
    assert list(found.filter) == ["2014 = concert.year"]


@given(st.text(max_size=80))
def test_any_text_has_parts_or_none(text: str) -> None:
    found = parts_of(text, SCHEMA)
    assert found is None or found.tables is not None
