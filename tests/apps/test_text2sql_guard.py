"""The two locks: what is refused by its tree, and that nothing a statement does changes the database."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verbal.apps.text2sql import Text2Sql
from verbal.apps.text2sql.guard import DEEPEST, MOST_CHARACTERS, Guard, check
from verbal.apps.text2sql.schema import Column, Table, read_catalog
from verbal.apps.text2sql.worker import Limits, Pool

TABLES = [
    Table("t", (Column("a", "INTEGER"), Column("b", "TEXT"), Column("c", "REAL"))),
    Table("u", (Column("k", "INTEGER"), Column("a", "INTEGER"))),
]
GUARDS = {dialect: Guard(TABLES, dialect) for dialect in ("sqlite", "duckdb", "postgres", "mysql")}
ATTACKS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "bench" / "data" / "attacks.jsonl").read_text("utf-8").splitlines()
]


def test_the_list_of_attacks_is_long_and_covers_every_dialect() -> None:
    assert len(ATTACKS) >= 150
    assert {a["dialect"] for a in ATTACKS} == GUARDS.keys()


@pytest.mark.parametrize("dialect", GUARDS)
def test_every_attack_is_refused(dialect: str) -> None:
    passed = [a["sql"] for a in ATTACKS if a["dialect"] == dialect and GUARDS[dialect].check(a["sql"]) is None]
    assert passed == []


GOOD = [
    "SELECT a, COUNT(*) FROM t WHERE b LIKE 'x%' AND c BETWEEN 1 AND 2 GROUP BY a HAVING COUNT(*) > 1 ORDER BY 2 DESC",
    "SELECT T1.a FROM t AS T1 JOIN u AS T2 ON T1.a = T2.a WHERE T2.k IN (SELECT k FROM u) LIMIT 3 OFFSET 1",
    "WITH x AS (SELECT a AS z FROM t) SELECT z, ROW_NUMBER() OVER (PARTITION BY z ORDER BY z) AS n FROM x",
    "SELECT a FROM t UNION SELECT k FROM u EXCEPT SELECT 1",
    "SELECT CASE WHEN a > 1 THEN 'big' ELSE NULL END, COALESCE(b, 'none'), CAST(c AS INTEGER) FROM t",
    "SELECT s.n FROM (SELECT COUNT(*) AS n FROM t GROUP BY b) AS s",
    "SELECT SUM(a) FILTER (WHERE b = 'x') FROM t",
    "SELECT 1",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
]


@pytest.mark.parametrize("dialect", GUARDS)
@pytest.mark.parametrize("sql", GOOD)
def test_queries_pass_in_every_dialect(dialect: str, sql: str) -> None:
    if dialect == "mysql" and "FILTER" in sql:
        pytest.skip("MySQL has no FILTER")
    assert GUARDS[dialect].check(sql) is None


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("sqlite", 'SELECT a FROM t WHERE b = "Bob"'),
        ("sqlite", "SELECT rowid, [a], `b` FROM main.t"),
        ("sqlite", "SELECT j.value FROM t, json_each(t.b) AS j"),
        ("sqlite", "SELECT a FROM t LIMIT 2 - (SELECT COUNT(*) FROM u) % 2"),
        ("sqlite", "VALUES (1), (2)"),
        ("duckdb", "FROM t"),
        ("duckdb", "SELECT * EXCLUDE (a) FROM t QUALIFY ROW_NUMBER() OVER () = 1"),
        ("postgres", "SELECT a::text, DATE_TRUNC('month', NOW()) FROM t WHERE b ILIKE 'x' -- by month"),
        ("mysql", "SELECT `a`, DATE_FORMAT(NOW(), '%Y') FROM `t` /* plain */"),
    ],
)
def test_what_is_usual_in_a_dialect_passes(dialect: str, sql: str) -> None:
    assert GUARDS[dialect].check(sql) is None


@pytest.mark.parametrize(
    ("sql", "kind", "says"),
    [
        ("SELECT a FROM", "syntax", "line 1"),
        ("SELECT 'open", "syntax", "not closed"),
        ("", "empty", "no statement"),
        ("-- only words", "empty", "no statement"),
        ("SELECT 1; SELECT 2", "several_statements", "2 statements"),
        ("DROP TABLE t", "not_a_query", "DROP is no query"),
        ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "denied", "DELETE"),
        ("SELECT load_extension('x')", "denied", "load_extension"),
        ("SELECT sustr(b, 1, 2) FROM t", "denied", "near: substr"),
        ("SELECT * FROM sqlite_master", "denied", "sqlite_master"),
        ("SELECT * FROM other.t", "denied", "other.t"),
        ("SELECT * FROM tt", "no_such_table", "no such table: tt"),
        ("SELECT nope FROM t", "no_such_column", "no such column: nope"),
        ("SELECT u.k FROM t", "no_such_column", "no such column: u.k"),
        ("SELECT x.k FROM t AS x", "no_such_column", "no such column: x.k"),
        ("SELECT " + "(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1), "too_big", "nested"),
        ("SELECT " + "NOT " * 12_000 + "1", "too_big", "nested"),
        ("SELECT '" + "x" * MOST_CHARACTERS + "'", "too_big", "characters"),
    ],
)
def test_a_refusal_says_what_where_and_what_to_do(sql: str, kind: str, says: str) -> None:
    refusal = GUARDS["sqlite"].check(sql)
    assert refusal is not None and refusal.kind == kind and says in str(refusal)


def test_places_are_those_of_the_text() -> None:
    refusal = GUARDS["sqlite"].check("SELECT a\nFROM t\nWHERE load_extension('x')")
    assert refusal is not None and refusal.line == 3


def test_without_tables_only_the_form_is_checked() -> None:
    assert check("SELECT x FROM anything", None, "sqlite") is None
    assert check("SELECT * FROM 'x.csv'", None, "duckdb") is not None
    assert check("DELETE FROM anything", None, "sqlite") is not None


def test_tables_that_only_look_like_the_systems_may_be_read() -> None:
    assert check("SELECT a FROM mysql", [Table("mysql", (Column("a", "INT"),))], "sqlite") is None


# nothing is ever written ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Pool]]:
    folder = tmp_path_factory.mktemp("locks")
    with closing(sqlite3.connect(folder / "shop.sqlite")) as connection:
        connection.executescript(
            "CREATE TABLE t (a INTEGER, b TEXT, c REAL); INSERT INTO t VALUES (1, 'x', 0.5), (2, 'y', 1.5);"
            "CREATE TABLE u (k INTEGER, a INTEGER); INSERT INTO u VALUES (1, 1);"
        )
    with closing(Pool(1, Limits(seconds=0.3, rows=50))) as pool:
        yield folder / "shop.sqlite", pool


def state(db: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in db.parent.iterdir()}


def test_attacks_change_nothing_through_the_connection_alone(world: tuple[Path, Pool]) -> None:
    db, pool = world
    before = state(db)
    for attack in ATTACKS:
        pool.run_now(db, attack["sql"])
    assert state(db) == before


NAMES = st.sampled_from(["t", "u", "a", "b", "k", "main.t", "x", "sqlite_master", '"t"', "temp.z"])
VALUES = st.sampled_from(["1", "'x'", "NULL", "(SELECT MAX(a) FROM t)", "zeroblob(9)", "a + 1", "load_extension('m')"])
WRITES = st.one_of(
    st.builds("DELETE FROM {} WHERE {} = {}".format, NAMES, NAMES, VALUES),
    st.builds("UPDATE {} SET {} = {}".format, NAMES, NAMES, VALUES),
    st.builds("INSERT OR REPLACE INTO {} SELECT {} FROM {}".format, NAMES, VALUES, NAMES),
    st.builds("DROP {} IF EXISTS {}".format, st.sampled_from(["TABLE", "VIEW", "INDEX"]), NAMES),
    st.builds("CREATE {} {} AS SELECT {}".format, st.sampled_from(["TABLE", "VIEW", "TEMP TABLE"]), NAMES, VALUES),
    st.builds("ATTACH 'f{}.sqlite' AS {}".format, st.integers(0, 9), NAMES),
    st.builds("PRAGMA {} = {}".format, st.sampled_from(["query_only", "writable_schema", "journal_mode"]), VALUES),
    st.builds("ALTER TABLE {} RENAME TO {}".format, NAMES, NAMES),
    st.sampled_from(["VACUUM", "VACUUM INTO 'v.sqlite'", "REINDEX", "BEGIN", "COMMIT", "ANALYZE"]),
)
READS = st.builds("SELECT {} FROM {} WHERE {} > {}".format, VALUES, NAMES, NAMES, VALUES)
STATEMENTS = st.one_of(
    READS,
    WRITES,
    st.builds("{};{}".format, READS, WRITES),
    st.builds("WITH q AS ({}) {}".format, st.one_of(READS, WRITES), st.one_of(READS, WRITES)),
    st.builds("{} UNION {}".format, READS, st.one_of(READS, WRITES)),
    st.builds("/* {} */ {} -- {}".format, READS, WRITES, READS),
    st.builds("EXPLAIN {}".format, WRITES),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=60),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sql=STATEMENTS)
def test_whatever_is_sent_the_files_stay_as_they_are(world: tuple[Path, Pool], sql: str) -> None:
    db, pool = world
    before = state(db)
    pool.run_now(db, sql)
    assert state(db) == before


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(WRITES, st.builds("{};{}".format, READS, WRITES), st.builds("WITH q AS ({}) {}".format, READS, WRITES))
)
def test_a_statement_that_writes_never_passes(sql: str) -> None:
    assert GUARDS["sqlite"].check(sql) is not None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.sampled_from(sorted(GUARDS)))
def test_any_text_gets_a_verdict(text: str, dialect: str) -> None:
    GUARDS[dialect].check(text)


async def test_the_app_runs_nothing_that_the_guard_refuses(world: tuple[Path, Pool]) -> None:
    db, _ = world
    assert {t.name for t in read_catalog(db)} == {"t", "u"}
    app = Text2Sql(db, workers=1)
    try:
        task = app.task("How many?")
        for sql, kind in (("DROP TABLE t", "not_a_query"), ("SELECT 1; SELECT 2", "several_statements")):
            seen = await app.execute(task, sql)
            assert seen.info["error_class"] == kind and seen.text.startswith("error: refused")
        assert (await app.execute(task, "SELECT COUNT(*) FROM t")).info["rows"] == [[2]]
    finally:
        await app.aclose()
