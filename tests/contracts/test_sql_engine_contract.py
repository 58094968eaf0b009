"""What every SQL engine keeps: it reads, says what went wrong in the same words, writes nothing, ends in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sql_places import SERVERS, Place, duckdb_place, files_place, sqlite_place

from verbal.apps.text2sql.sources import Source
from verbal.apps.text2sql.worker import Limits, Pool, Result

SERIES = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1000) SELECT n FROM r"


@pytest.fixture(scope="module", params=["sqlite", "duckdb", "files", "postgresql", "mysql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if request.param in SERVERS:
        with SERVERS[request.param]() as found:
            yield found
    else:
        make = {"sqlite": sqlite_place, "duckdb": duckdb_place, "files": files_place}[request.param]
        yield make(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(1, Limits(seconds=10))
    yield made
    made.close()


def failed(result: Result) -> str | None:
    assert (result.error is None) == (result.error_class is None)
    assert result.error is None or result.rows == ()
    return result.error_class


def test_rows_and_names_come_back(place: Place, pool: Pool) -> None:
    result = pool.run_now(place.db, "SELECT a, b AS letter, c FROM t WHERE a < 4 ORDER BY a;")
    assert result.error is None, result
    assert result.columns == ("a", "letter", "c")
    assert result.rows == ((1, "x", 0.5), (2, "y", 1.5), (3, None, None))
    assert pool.run_now(place.db, "SELECT a FROM t WHERE a > 99").rows == ()
    assert pool.run_now(place.db, "/* a */ SELECT 'é;' AS x -- b").rows == (("é;",),)


def test_a_source_is_as_good_as_its_text_and_its_location(place: Place, pool: Pool) -> None:
    source = Source.of(place.db)
    assert source.kind == place.kind
    for db in (source, source.location):
        assert pool.run_now(db, "SELECT COUNT(*) FROM u").rows == ((2,),)
    assert "p@ss" not in f"{source!r} {source.location}" and "p%40ss" not in source.location


def test_values_become_cells(place: Place, pool: Pool) -> None:
    found = pool.run_now(place.db, f"SELECT {', '.join(place.values)}")
    assert found.error is None, found
    assert found.rows == (tuple(place.values.values()),)
    assert [type(cell) for cell in found.rows[0]] == [type(cell) for cell in place.values.values()]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT nope FROM t", "no_such_column"),
        ("SELECT 1 FROM nope", "no_such_table"),
        ("SELECT a FROM t, u", "ambiguous_column"),
        ("SELECT a FROM t UNION SELECT a, b FROM t", "set_columns"),
        ("SELECT MAX(COUNT(*)) FROM t", "misuse_of_aggregate"),
        ("SELEC 1", "syntax"),
        ("SELECT (1", "syntax"),
        ("SELECT '\ud800'", "syntax"),
        ("", "not_a_query"),
        ("  -- nothing", "not_a_query"),
        ("SELECT 1; SELECT 2", "several_statements"),
        ("SELECT 1; DELETE FROM t", "several_statements"),
    ],
)
def test_errors_have_the_same_words(place: Place, pool: Pool, sql: str, expected: str) -> None:
    result = pool.run_now(place.db, sql)
    assert failed(result) == expected, result
    assert pool.run_now(place.db, "SELECT COUNT(*) FROM u").rows == ((2,),)


FAULTS = ("locked", "missing", "damaged", "not_a_database", "timeout", "unreachable", "login")


@pytest.mark.parametrize("said", ["locked", "malformed", "set lock", "unable to open", "interrupted", "checksum"])
def test_a_statement_cannot_say_that_the_file_is_at_fault(place: Place, pool: Pool, said: str) -> None:
    quote = "`" if place.kind == "mysql" else '"'
    failing = (
        f"SELECT b FROM t ORDER BY b COLLATE {quote}{said}{quote}",
        f"SELECT CAST('{said}' AS INTEGER) FROM t",
        f"SELECT json_extract('{said}', '$.x') FROM t",
        f"SELECT {quote}{said}{quote}(a) FROM t",
    )
    found = [pool.run_now(place.db, sql) for sql in failing]
    assert any(result.error is not None for result in found)
    assert not [result for result in found if result.error_class in FAULTS]


WRITES = (
    "DELETE FROM t", "INSERT INTO t VALUES (9, 'z', 1)", "UPDATE t SET a = 0", "DROP TABLE u", "CREATE TABLE z (a INT)",
    "ALTER TABLE t ADD COLUMN z INTEGER", "CREATE INDEX i ON t (a)", "WITH x AS (SELECT 1) UPDATE t SET a = 0",
    "CREATE VIEW v AS SELECT 1", "BEGIN", "ROLLBACK", "TRUNCATE TABLE t", "GRANT ALL ON t TO PUBLIC", "; DELETE FROM t",
)  # fmt: skip

REFUSED = ("denied", "syntax", "not_a_query", "several_statements")


def test_nothing_is_written(place: Place, pool: Pool) -> None:
    before = place.state()
    for sql in (*WRITES, *place.writes):
        assert failed(pool.run_now(place.db, sql)) in (
            "denied",
            "syntax",
            "not_a_query",
            "several_statements",
            "missing",
        ), sql
        assert place.state() == before, sql
    assert pool.run_now(place.db, "SELECT COUNT(*) FROM u").rows == ((2,),)
    assert not Path("stolen.csv").exists() and not Path("stolen").exists()


def test_rows_and_bytes_are_cut(place: Place, pool: Pool) -> None:
    few = pool.run_now(place.db, SERIES, Limits(rows=10))
    assert (len(few.rows), few.truncated) == (10, True)
    exact = pool.run_now(place.db, SERIES, Limits(rows=1000))
    assert (len(exact.rows), exact.truncated) == (1000, False)
    wide = pool.run_now(place.db, f"SELECT 'a longer text {'x' * 900}' FROM ({SERIES}) AS s", Limits(size=10_000))
    assert (len(wide.rows), wide.truncated) == (10, True)
    assert pool.run_now(place.db, "SELECT COUNT(*) FROM u").rows == ((2,),)


def test_what_does_not_end_is_ended(place: Place, pool: Pool) -> None:
    for sql in place.endless:
        result = pool.run_now(place.db, sql, Limits(seconds=0.3))
        assert failed(result) in ("timeout", "too_big", "crashed"), (sql, result)
        assert result.error_class != "timeout" or result.error == "stopped after 0.3 s"
        assert pool.run_now(place.db, "SELECT COUNT(*) FROM u").rows == ((2,),)


def test_the_catalog_tells_tables_columns_and_keys(place: Place, pool: Pool) -> None:
    found = pool.catalog_now(place.db)
    tables = {table["name"]: table for table in found["tables"]}
    assert set(tables) == {"t", "u"}
    assert [column["name"] for column in tables["t"]["columns"]] == ["a", "b", "c"]
    assert all(column["type"] for column in tables["t"]["columns"])
    assert {(t["schema"], t["kind"]) for t in tables.values()} == {("", "table")}
    if place.keys:
        assert tables["t"]["primary_key"] == ["a"]
        assert tables["u"]["foreign_keys"] == [{"columns": ["a"], "table": "t", "target_columns": ["a"]}]
    if place.kind == "postgresql":
        assert tables["t"]["columns"][1]["comment"] == "a letter"
    assert bool(found["warnings"]) == (place.kind in ("postgresql", "mysql"))


def test_what_the_owner_adds_is_seen(place: Place, pool: Pool) -> None:
    assert pool.run_now(place.db, "SELECT COUNT(*) FROM t").rows == ((3,),)
    if place.kind == "duckdb":  # its file is locked while somebody reads it
        (worker,) = (worker for worker in pool._workers if worker.family == "duckdb")
        worker.stop()
    place.add()
    assert pool.run_now(place.db, "SELECT COUNT(*), MAX(a) FROM t").rows == ((4, 4),)
