"""The two locks: what is refused by its tree, and that nothing a statement does changes the database."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verbal.apps.text2sql import Text2Sql
from verbal.apps.text2sql.guard import DEEPEST, MOST_CHARACTERS, Guard, check
from verbal.apps.text2sql.guard_functions import FUNCTIONS
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
        ("mysql", "SELECT 'O\\'Brien', 'a''b' FROM t # it's\nWHERE a = 1 -- don't"),
        ("sqlite", "/* it's */ SELECT a -- don't\nFROM t WHERE b = 'it''s -- no /* comment' AND b <> \"x\""),
        ("sqlite", "WITH a AS (SELECT * FROM z), z AS (SELECT 1 AS k) SELECT k FROM a"),
        ("sqlite", "SELECT random(), hex(b), quote(b) FROM t"),
        ("postgres", "SELECT $x$ it's $x$, E'a\\'b', U&'x' FROM t /* a /* b */ c */"),
        ("postgres", "SELECT a AT TIME ZONE 'UTC', (ARRAY[1, 2])[1], b::jsonb ->> 'k' FROM t WHERE a = ANY (ARRAY[1])"),
        ("duckdb", "SELECT [x * 2 FOR x IN [1, 2]], list_transform([1], y -> y + 1), {'k': 1} FROM t USING SAMPLE 5"),
        ("duckdb", "SELECT b.field.deeper FROM t"),
        ("duckdb", "SELECT i, yearweek(DATE '2020-01-01'), [1].len() FROM range(3) AS r(i) LIMIT 10%"),
        ("duckdb", "SELECT generate_series, main.lower('A') FROM generate_series(1, 3)"),
        (
            "postgres",
            "SELECT json_agg(a), repeat(b, 3), quote_literal(b) FROM t WHERE to_tsvector(b) @@ b::tsquery",
        ),
        ("postgres", "SELECT g, pg_catalog.lower('A') FROM pg_catalog.generate_series(1, 3) AS g"),
        ("postgres", "SELECT n FROM t, generate_series(1, a) AS n"),
        ("postgres", "SELECT tag, ord FROM unnest(ARRAY['x']) WITH ORDINALITY AS s(tag, ord)"),
        ("postgres", "SELECT k, e.value FROM t, jsonb_each_text(t.b::jsonb) AS e, jsonb_object_keys(t.b::jsonb) AS k"),
        ("postgres", 'WITH "X" AS (SELECT a AS "Mixed" FROM T) SELECT "Mixed" FROM "X"'),
        ("mysql", "SELECT MOD(a, 2), a MOD 2, a % 2, JSON_OBJECTAGG(a, b) FROM t FORCE INDEX (PRIMARY)"),
        ("mysql", "SELECT a FROM t USE INDEX (i, j) WHERE MATCH (b) AGAINST ('x' IN BOOLEAN MODE)"),
        ("mysql", "SELECT j.x FROM t, JSON_TABLE(t.b, '$[*]' COLUMNS (x INT PATH '$.x')) AS j"),
        ("mysql", "SELECT 1 FROM DUAL"),
        ("duckdb", "SELECT i FROM range(10) AS r(i)"),
        ("postgres", "SELECT d FROM generate_series('2020-01-01'::date, now(), interval '1 day') AS d"),
        ("postgres", "SELECT pg_catalog.upper(b), json_agg(b), ROW_NUMBER() OVER (ORDER BY a) FROM t"),
        ("mysql", "SELECT 1 FROM DUAL"),
    ],
)
def test_what_is_usual_in_a_dialect_passes(dialect: str, sql: str) -> None:
    assert GUARDS[dialect].check(sql) is None


@pytest.mark.parametrize(
    ("dialect", "sql", "kind"),
    [
        ("postgres", 'WITH "PG_ROLES" AS (SELECT 1 AS x) SELECT * FROM pg_roles', "denied"),
        ("postgres", 'WITH "T2" AS (SELECT 1 AS x) SELECT x FROM T2', "no_such_table"),
        ("postgres", 'SELECT "A" FROM t', "no_such_column"),
        ("postgres", 'SELECT x FROM (SELECT 1 AS "X") AS s', "no_such_column"),
        ("sqlite", 'WITH "\u017fqlite_master" AS (SELECT 1) SELECT * FROM sqlite_master', "denied"),
        ("duckdb", "WITH \"/etc/pa\u017fswd.csv\" AS (SELECT 1) SELECT * FROM '/etc/passwd.csv'", "no_such_table"),
        ("sqlite", 'SELECT * FROM "\u212a"', "no_such_table"),
        ("postgres", "SELECT evil.lower(b) FROM t", "denied"),
        ("postgres", 'SELECT "Lower"(b) FROM t', "denied"),
        ("postgres", 'SELECT "PG_CATALOG".lower(b) FROM t', "denied"),
        ("postgres", "SELECT * FROM evil.generate_series(1, 2)", "denied"),
        ("duckdb", "SELECT a.evil.lower(b) FROM t", "denied"),
        ("mysql", "SELECT otherdb.lower(1)", "denied"),
        ("mysql", "SELECT * FROM `dual`", "no_such_table"),
        ("postgres", "SELECT repeat('x', 100000001)", "denied"),
    ],
)
def test_names_are_those_that_the_engine_means(dialect: str, sql: str, kind: str) -> None:
    refusal = GUARDS[dialect].check(sql)
    assert refusal is not None and refusal.kind == kind, refusal


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


@pytest.mark.parametrize("opening", ["DATE(", "STRUCT(", "CAST(DATE(", "(", "f(", "CASE WHEN (", "(SELECT "])
@pytest.mark.parametrize("dialect", GUARDS)
def test_nesting_never_takes_the_parser_long(dialect: str, opening: str) -> None:
    closing = {"CAST(DATE(": ") AS INT)", "CASE WHEN (": ") THEN 1 END"}.get(opening, ")")
    refusal = GUARDS[dialect].check("SELECT " + opening * 60 + "1" + closing * 60)  # 2 ** 60 steps without a budget
    assert refusal is not None and refusal.kind in ("too_big", "denied")


@pytest.mark.parametrize(
    "call",
    [
        "generate_series(1, 100000000000)",
        "generate_series(1, 9, 0)",
        "generate_series(now(), now(), interval '1e-9 day')",
        "generate_series(now(), now(), interval '1 microsecond')",
        "private.upper('x')",
    ],
)
def test_series_without_end_and_functions_of_other_schemas_are_refused(call: str) -> None:
    for sql in (f"SELECT {call}", f"SELECT * FROM {call} AS x"):
        refusal = GUARDS["postgres"].check(sql)
        assert refusal is not None and refusal.kind == "denied"


def test_what_the_parser_cannot_take_is_refused() -> None:
    refusal = GUARDS["sqlite"].check("SELECT VAR_MAP(a) FROM t")  # raises an IndexError in sqlglot 30.30
    assert refusal is not None and refusal.kind in ("syntax", "denied")


def test_a_catalog_may_be_names_alone_and_more_functions_may_be_allowed() -> None:
    guard = Guard({"My Table": ["x"], "sales.orders": ["id"]}, "postgres", allow=("slugify",))
    assert guard.check('SELECT slugify(x) FROM "My Table"') is None
    assert guard.check("SELECT id FROM sales.orders AS o WHERE o.id > 1") is None
    for sql, kind in (("SELECT id FROM orders", "no_such_table"), ("SELECT id FROM hr.orders", "denied")):
        refusal = guard.check(sql)
        assert refusal is not None and refusal.kind == kind
    assert Guard({"t": ["x"]}, "postgres").check("SELECT slugify(x) FROM t") is not None


def test_functions_of_the_engines_that_do_more_than_compute_are_not_on_the_list() -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT DISTINCT function_name, function_type FROM duckdb_functions()").fetchall()
    tables = {name for name, kind in rows if kind in ("table", "pragma", "table_macro")}
    harmless = {"unnest", "json_each", "json_tree", "histogram"}
    assert not (tables - harmless) & FUNCTIONS["duckdb"]
    doubtful = re.compile(
        r"read|write|file|glob|scan|pragma|duckdb_|setting|setseed|getenv|variable|sleep|nextval|currval|txid"
        r"|checkpoint|query|execute|serialize|secret|connection|current_(user|role|database|schema|catalog)|version|_log$"
    )
    named = {name for name, _ in rows if doubtful.search(name)}
    assert named & FUNCTIONS["duckdb"] == set()
    with closing(sqlite3.connect(":memory:")) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM pragma_function_list")}
    outside = {"load_extension", "fts3_tokenizer", "sqlite_log", "readfile", "writefile", "edit", "changes", "zeroblob"}
    assert not FUNCTIONS["sqlite"] & (outside | {name for name in names if name.startswith(("sqlite_", "rtree"))})


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
