"""What counts as SQL, what its refusal says; intervals of scores that are all alike."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from verbal.apps.text2sql.asked import pasted_sql
from verbal.apps.text2sql.charts import choose_chart
from verbal.apps.text2sql.evaluation import _share
from verbal.apps.text2sql.values import Database
from verbal.cli import app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "m.sqlite"
    with closing(sqlite3.connect(made)) as connection:
        connection.executescript("CREATE TABLE Track (Name TEXT, Size INTEGER); INSERT INTO Track VALUES ('a', 1)")
    return made


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("SELECT * FROM Trak", True), ("select * from trak", True), ("SELECT * FROM sqlite_master", True),
        ("SELECT Nam FROM Track", True), ("SELECT name FROM trk", True), ("select count(*) from trk", True),
        ("Select all singers from France", False), ("Select 5 singers from France", False),
        ("select names from employees", False), ("Select everything (all) from France", False),
        ("With friends from France, which songs are liked?", False),
    ],
)  # fmt: skip
def test_sql_over_unknown_tables_is_seen_and_sentences_are_not(path: Path, text: str, is_sql: bool) -> None:
    assert (pasted_sql(text, Database(path)) is not None) == is_sql


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SELECT Nam FROM Track", "near: name"), ("SELECT * FROM Trak", "near: track"),
        ("SELECT COUNT(*) FROM Track", "no model call"), ("DROP TABLE Track", "No answer"),
    ],
)  # fmt: skip
def test_pasted_sql_is_run_or_refused_with_the_nearest_name(path: Path, text: str, told: str) -> None:
    found = CliRunner().invoke(app, ["ask", str(path), text, "--store", str(path.with_suffix(".db"))])
    assert told in found.output


def test_all_right_has_an_interval() -> None:
    assert 0.5 < _share([1.0] * 4)["low"] < 0.52 and _share([1.0] * 4)["high"] == 1.0
    assert 0.04 < _share([0.0] * 87)["high"] < 0.05 and _share([0.0] * 87)["low"] == 0.0
    assert _share([0.5] * 4)["low"] == 0.5


def test_no_chart_for_a_flag_or_an_id() -> None:
    assert choose_chart(["name", "vip"], [["a", 1], ["b", 0], ["c", 1]]) is None
    assert choose_chart(["name", "CustomerId"], [["a", 1], ["b", 2], ["c", 3]]) is None
    assert choose_chart(["name", "n"], [["a", 1], ["b", 2], ["c", 3]]) is not None
