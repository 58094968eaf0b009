"""Each rewrite does in another engine what SQLite does: both run, and the rows are compared."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.apps.text2sql.schema import Column, Table
from verbal.apps.text2sql.transpile import transpile
from verbal.rows import compare, is_ordered

DECLARED = [
    Table("Singer", tuple(Column(n, t) for n, t in (
        ("Singer_ID", "INTEGER"), ("Name", "TEXT"), ("Country", "TEXT"), ("Age", "INTEGER"), ("Year", "TEXT"),
        ("Rating", "NUMERIC"), ("order", "INTEGER")))),
    Table("concert", tuple(Column(n, t) for n, t in (("id", "INTEGER"), ("Singer_ID", "INTEGER"), ("Name", "TEXT")))),
]  # fmt: skip
HELD = [
    Table("Singer", tuple(Column(c.name, "VARCHAR" if c.name in ("Name", "Country", "Year", "Rating") else "BIGINT")
                          for c in DECLARED[0].columns)),
    Table("concert", tuple(Column(c.name, "VARCHAR" if c.name == "Name" else "BIGINT") for c in DECLARED[1].columns)),
]  # fmt: skip
ROWS = {
    "Singer": [
        (1, "Ann", "France", 30, "1999", 7, 3),
        (2, "bob", "France", 41, "2003", "high", 1),
        (3, "Cid", "Rome", 30, "2003", 9.5, 2),
        (4, None, "Rome", None, None, None, 4),
    ],
    "concert": [(10, 1, "x"), (11, 1, "y"), (12, 3, "z")],
}
CASES = {
    "quoted literal": 'SELECT Name FROM Singer WHERE Country = "France"',
    "loose GROUP BY": "SELECT Country, COUNT(*), Country || '!' FROM Singer GROUP BY Country",
    "a key of the group": (
        "SELECT T1.Name, COUNT(*) FROM Singer AS T1 JOIN concert AS T2 ON T1.Singer_ID = T2.Singer_ID "
        "GROUP BY T1.Singer_ID"
    ),
    "the row of the maximum": "SELECT Name, MAX(Age) FROM Singer",
    "the row of the minimum": "SELECT Country, Name, MIN(\"order\") FROM Singer GROUP BY Country",
    "the last extreme speaks": "SELECT Name, MIN(Age), MAX(\"order\"), COUNT(*) FROM Singer WHERE Age IS NOT NULL",
    "integer of a number": "SELECT CAST(\"order\" * 2.9 AS INTEGER) FROM Singer",
    "a derived table without a name": "SELECT COUNT(*) FROM (SELECT Name FROM Singer)",
    "affinity": "SELECT Name FROM Singer WHERE Year > 2000 AND Age = '30'",
    "affinity of a list": "SELECT Name FROM Singer WHERE Year IN (1999, 2003) AND Singer_ID IN ('1', '3')",
    "affinity between": "SELECT Name FROM Singer WHERE Year BETWEEN 1990 AND 2000",
    "mixed column": "SELECT Singer_ID FROM Singer WHERE Rating > 8",
    "number of a text": "SELECT SUM(Rating), AVG(Year), SUM(Year) + 1 FROM Singer",
    "arithmetic on a text": "SELECT Year - 1000 FROM Singer WHERE Singer_ID = 1",
    "LIKE": "SELECT Name FROM Singer WHERE Name LIKE 'B%' OR Name NOT LIKE '%n%'",
    "nulls first": "SELECT Singer_ID FROM Singer ORDER BY Age, Singer_ID",
    "order of DISTINCT": "SELECT DISTINCT Country FROM Singer ORDER BY \"order\"",
    "first row": "SELECT Name FROM Singer WHERE Singer_ID = (SELECT Singer_ID FROM concert ORDER BY id)",
    "join without a condition": "SELECT COUNT(*) FROM Singer JOIN concert",
    "alias in WHERE": "SELECT Age + 1 AS older FROM Singer WHERE older > 40",
    "alias in HAVING": "SELECT Country AS c, COUNT(*) AS n FROM Singer GROUP BY c HAVING n > 1",
    "reserved names": 'SELECT "order" FROM singer WHERE "ORDER" > 2',
    "set operation of two kinds": "SELECT Age FROM Singer WHERE Age > 40 UNION SELECT Year FROM Singer WHERE Age = 30",
    "integer division": "SELECT Age / 7, Age / 7.0 FROM Singer WHERE Singer_ID = 2",
    "aggregate in ORDER BY": "SELECT Name FROM Singer GROUP BY Country ORDER BY COUNT(*), Country LIMIT 1",
    "derived table": "SELECT s.n FROM (SELECT Name AS n, Year AS y FROM Singer) AS s WHERE s.y = 2003",
    "common table": "WITH old AS (SELECT Name, Age FROM Singer WHERE Age > 35) SELECT name FROM old",
    "correlated": (
        "SELECT Name FROM Singer AS a WHERE Age = (SELECT MAX(Age) FROM Singer AS b WHERE b.Country = a.Country)"
    ),
    "names of both tables": "SELECT Singer.Name, concert.Name FROM Singer JOIN concert ON Singer.Singer_ID = id - 9",
    "subquery in IN": "SELECT Name FROM Singer WHERE Singer_ID NOT IN (SELECT Singer_ID FROM concert)",
}  # fmt: skip


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as made:
        _filled(made)
        yield made


def _filled(made: sqlite3.Connection) -> None:
    for table in DECLARED:
        columns = ", ".join(f'"{c.name}" {c.type}' for c in table.columns)
        made.execute(f'CREATE TABLE "{table.name}" ({columns})')
        made.executemany(f'INSERT INTO "{table.name}" VALUES ({", ".join("?" * len(table.columns))})', ROWS[table.name])


def _loaded(execute: Callable[..., Any], small: bool, types: dict[str, str], mark: str) -> list[Table]:
    held = []
    for table in HELD:
        name = table.name.lower() if small else table.name
        columns = tuple(Column(c.name.lower() if small else c.name, types[c.type]) for c in table.columns)
        execute(f'CREATE TABLE "{name}" ({", ".join(chr(34) + c.name + chr(34) + " " + c.type for c in columns)})')
        for row in ROWS[table.name]:
            cells = [
                str(v) if c.type == types["VARCHAR"] and v is not None else v for v, c in zip(row, columns, strict=True)
            ]
            execute(f'INSERT INTO "{name}" VALUES ({", ".join([mark] * len(cells))})', cells)
        held.append(Table(name, columns))
    return held


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Table], Callable[[str], Any]]]:
    if request.param == "duckdb":
        import duckdb

        with duckdb.connect(":memory:") as made:
            types = {"VARCHAR": "VARCHAR", "BIGINT": "BIGINT"}
            yield "duckdb", _loaded(made.execute, False, types, "?"), lambda sql: made.execute(sql)
    elif not os.environ.get("VERBAL_TEST_POSTGRES"):
        pytest.skip("no PostgreSQL server (VERBAL_TEST_POSTGRES)")
    else:
        import psycopg

        with psycopg.connect(os.environ["VERBAL_TEST_POSTGRES"], autocommit=True) as server:
            server.execute("DROP SCHEMA IF EXISTS transpile_test CASCADE")
            server.execute("CREATE SCHEMA transpile_test")
            server.execute("SET search_path TO transpile_test")
            types = {"VARCHAR": "TEXT", "BIGINT": "BIGINT"}
            yield "postgres", _loaded(server.execute, True, types, "%s"), lambda sql: server.execute(sql)
            server.execute("DROP SCHEMA transpile_test CASCADE")


def answer(cursor: Any) -> dict[str, Any]:
    rows = [[float(v) if v.__class__.__name__ == "Decimal" else v for v in row] for row in cursor.fetchall()]
    return {"columns": [c[0] for c in cursor.description], "rows": rows}


@pytest.mark.parametrize("name", CASES)
def test_the_other_engine_gives_sqlites_rows(
    sqlite: sqlite3.Connection, engine: tuple[str, list[Table], Callable[[str], Any]], name: str
) -> None:
    dialect, held, run = engine
    gold = answer(sqlite.execute(CASES[name]))
    made = transpile(CASES[name], DECLARED, target=held, write=dialect)
    got = answer(run(made.sql))
    if name in ("number of a text", "set operation of two kinds"):  # a number of a text column comes back as text
        got, gold = (
            {**r, "rows": [[v if v is None else str(float(v)) for v in row] for row in r["rows"]]} for r in (got, gold)
        )
    verdict = compare(got, gold, ordered=is_ordered(CASES[name]))
    assert verdict.match, f"{made.sql}\n{verdict.text}: {got['rows']} for {gold['rows']}"


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        (CASES["quoted literal"], "quoted literal"),
        (CASES["a key of the group"], "loose GROUP BY"),
        (CASES["affinity"], "affinity"),
        (CASES["number of a text"], "number of a text"),
        (CASES["LIKE"], "LIKE"),
        (CASES["order of DISTINCT"], "order of DISTINCT"),
        (CASES["first row"], "first row"),
        (CASES["alias in WHERE"], "alias"),
        (CASES["integer division"], "integer division"),
    ],
)
def test_what_was_rewritten_is_told(sql: str, name: str) -> None:
    assert name in transpile(sql, DECLARED, target=HELD).rewrites


def test_a_plain_query_is_left_alone() -> None:
    assert transpile("SELECT COUNT(*) FROM concert WHERE id > 3", DECLARED, target=HELD).rewrites == ()


def test_mysql_gets_its_own_quotes_and_one_value_of_a_group() -> None:
    made = transpile(CASES["a key of the group"], DECLARED, target=HELD, write="mysql").sql
    assert "`" in made and "MIN(" in made and '"' not in made


def test_what_cannot_be_read_says_so() -> None:
    import sqlglot

    with pytest.raises(sqlglot.errors.SqlglotError):
        transpile("SELECT FROM WHERE", DECLARED)


NUMBERS, TEXTS = st.sampled_from(["Age", "Singer_ID", '"order"']), st.sampled_from(["Name", "Country", "Year"])
CONDITIONS = st.one_of(
    st.builds("{} {} {}".format, NUMBERS, st.sampled_from([">", "=", "<=", "<>"]), st.integers(0, 50)),
    st.builds("{} {} {}".format, st.just("Year"), st.sampled_from([">", "=", "<"]), st.integers(1990, 2010)),
    st.builds('{} = "{}"'.format, TEXTS, st.sampled_from(["France", "Ann", "2003"])),
    st.builds("{} LIKE '{}%'".format, TEXTS, st.sampled_from(["a", "B", "20"])),
    st.builds("{} IS NULL".format, st.one_of(NUMBERS, TEXTS)),
)
QUERIES = st.one_of(
    st.builds("SELECT {}, {} FROM Singer WHERE {} AND {}".format, NUMBERS, TEXTS, CONDITIONS, CONDITIONS),
    st.builds("SELECT Country, COUNT(*), SUM({}) FROM Singer WHERE {} GROUP BY Country".format, NUMBERS, CONDITIONS),
    st.builds("SELECT DISTINCT {} FROM Singer WHERE {} OR {}".format, TEXTS, CONDITIONS, CONDITIONS),
    st.builds(
        "SELECT COUNT(*) FROM Singer WHERE {} IN (SELECT Singer_ID FROM concert) AND {}".format, NUMBERS, CONDITIONS
    ),
)


@settings(max_examples=80, deadline=None)
@given(sql=QUERIES)
def test_generated_queries_agree(sql: str) -> None:
    import duckdb

    with closing(sqlite3.connect(":memory:")) as source, duckdb.connect(":memory:") as made:
        _filled(source)
        held = _loaded(made.execute, False, {"VARCHAR": "VARCHAR", "BIGINT": "BIGINT"}, "?")
        gold = answer(source.execute(sql))
        got = answer(made.execute(transpile(sql, DECLARED, target=held).sql))
        assert compare(got, gold).match, (sql, got["rows"], gold["rows"])
