"""Parts of the SQL engines, mostly run in this process: cells, first words, catalogs, files as tables, ceilings."""

from __future__ import annotations

import datetime
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sql_places import SERVERS, Place

from verbal.apps.text2sql.engines import process
from verbal.apps.text2sql.engines.cells import plain, take
from verbal.apps.text2sql.engines.server import Sessions
from verbal.apps.text2sql.engines.words import first_word, refusal, several
from verbal.apps.text2sql.sources import request_of
from verbal.apps.text2sql.worker import Limits, Pool

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(1)
    yield made
    made.close()


# cells --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, None),
        (True, 1),
        (2**80, 2**80),
        (0.5, 0.5),
        ("é", "é"),
        (Decimal("7"), 7),
        (Decimal("7.00"), 7.0),
        (Decimal("1.25"), 1.25),
        (Decimal("Infinity"), float("inf")),
        (b"\x00\xff", "x'00ff'"),
        (memoryview(b"a"), "x'61'"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.datetime(2020, 1, 2, 3, 4, 5, 600), "2020-01-02 03:04:05.000600"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.timedelta(hours=30, seconds=1), "30:00:01"),
        (datetime.timedelta(seconds=-90, microseconds=-5), "-0:01:30.000005"),
        ([1, None, Decimal("0.5")], "[1, null, 0.5]"),
        ({"é": datetime.date(2020, 1, 2)}, '{"é": "2020-01-02"}'),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_values_become_plain(value: Any, cell: Any) -> None:
    assert plain(value) == cell and type(plain(value)) is type(cell)


def test_rows_are_taken_up_to_a_limit() -> None:
    assert take([(1,), (2,)], 2, 100) == ([[1], [2]], False)
    assert take(iter([(1,), (2,), (3,)]), 2, 100) == ([[1], [2]], True)
    assert take([("x" * 50,), ("y" * 50,)], 9, 100) == ([["x" * 50]], True)
    empty = [("",) * 10] * 5
    assert take(empty, 9, 100) == ([[""] * 10], True), "empty cells take room too"


# words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "word", "more"),
    [
        ("SELECT 1", "SELECT", False),
        (" -- a\n /* b */ (select 1);", "(", False),
        ("select ';' ; -- end", "SELECT", False),
        ("with x as (select 1) select 2; select 3", "WITH", True),
        ("select $a$;$a$; select 1", "SELECT", True),
        ("/* never closed", "", False),
        ("'never closed; x", "'", True),
        (";delete from t", "DELETE", True),
    ],
)
def test_first_words(sql: str, word: str, more: bool) -> None:
    assert first_word(sql) == word
    assert several(sql) == more


def test_mysql_comments() -> None:
    assert first_word("# x\nselect 1", hashes=True) == "SELECT"
    for sql in ("/*! delete from t */ select 1", "/*M!100100 delete from t */", "/* a *//*!50000 set x */"):
        refused = refusal(sql, hashes=True)
        assert refused is not None and refused["error_class"] == "denied"


@given(st.text(alphabet="select;'\"`$-/*!#\n() aé", max_size=40))
def test_any_text_has_a_first_word_or_none(sql: str) -> None:
    for hashes in (False, True):
        word = first_word(sql, hashes=hashes)
        assert word == word.upper() and word != ";"
        several(sql, hashes=hashes)


# SQLite -------------------------------------------------------------------------------------------------------------

ODD = """
CREATE TABLE "order" ("select" TEXT NOT NULL, "a b" INT, "🙂" BLOB, twice AS ("a b" * 2),
    PRIMARY KEY ("a b", "select"));
CREATE TABLE part (id INTEGER PRIMARY KEY, x TEXT, y INT, z INT REFERENCES part,
    FOREIGN KEY (y, x) REFERENCES "order" ("a b", "select"));
CREATE VIEW good AS SELECT "a b" AS n FROM "order";
CREATE VIEW broken AS SELECT * FROM nowhere;
CREATE VIRTUAL TABLE texts USING fts5 (body);
"""


def test_the_catalog_of_an_odd_sqlite_file(pool: Pool, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "odd.sqlite")) as db:
        db.executescript(ODD)
    found = pool.catalog_now(tmp_path / "odd.sqlite")
    tables = {table["name"]: table for table in found["tables"]}
    assert list(tables) == ["order", "part", "good", "texts"]
    assert found["warnings"] == ["broken cannot be read: no such table: main.nowhere"]
    columns = [(column["name"], column["type"], column["nullable"]) for column in tables["order"]["columns"]]
    assert columns == [("select", "TEXT", False), ("a b", "INT", True), ("🙂", "BLOB", True), ("twice", "", True)]
    assert tables["order"]["primary_key"] == ["a b", "select"]
    assert tables["part"]["foreign_keys"] == [
        {"columns": ["z"], "table": "part", "target_columns": []},
        {"columns": ["y", "x"], "table": "order", "target_columns": ["a b", "select"]},
    ]
    assert [tables[name]["kind"] for name in ("order", "good", "texts")] == ["table", "view", "table"]
    assert pool.run_now(tmp_path / "odd.sqlite", "PRAGMA table_info('order')").error_class == "denied"


def test_steps_are_counted(pool: Pool, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE t (a)")
    result = pool.run_now(tmp_path / "a.sqlite", ENDLESS, Limits(seconds=30, steps=200_000))
    assert (result.error_class, result.error) == ("steps", "stopped after 200000 steps")
    assert pool.run_now(tmp_path / "a.sqlite", "SELECT 1", Limits(steps=200_000)).rows == ((1,),)


# DuckDB -------------------------------------------------------------------------------------------------------------


def test_files_become_tables(pool: Pool, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "the items.csv").write_text("id,day\n1,2020-01-02\n2,\n", encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes("name\nM\xfcnchen\n".encode("latin-1"))
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "a.tsv").write_text("x\ty\n1\t2\n")
    (tmp_path / "late.csv").write_text("n\n" + "1\n" * 30_000 + "one\n")
    (tmp_path / ".hidden.csv").write_text("x\n1\n")
    duckdb.execute(f"COPY (SELECT range AS n FROM range(10)) TO '{tmp_path}/nums.parquet'")
    names = [table["name"] for table in pool.catalog_now(tmp_path)["tables"]]
    assert names == ["a", "a_tsv", "late", "latin", "nums", "the items"]
    assert pool.run_now(tmp_path, 'SELECT * FROM "the items" ORDER BY id').rows == ((1, "2020-01-02"), (2, None))
    assert pool.run_now(tmp_path, "SELECT name FROM latin").rows == (("München",),)
    assert pool.run_now(tmp_path, "SELECT SUM(n) FROM nums").rows == ((45,),)
    assert pool.run_now(tmp_path, "SELECT y FROM a_tsv").rows == ((2,),)
    assert pool.run_now(tmp_path, "SELECT COUNT(*) FROM late WHERE n = 'one'").rows == ((1,),)
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    broken = pool.run_now(tmp_path, "SELECT 1")
    assert broken.error_class in ("damaged", "not_a_database"), broken


def test_duckdb_files_that_cannot_be_read(pool: Pool, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "bad.duckdb").write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 5000)
    assert pool.run_now(tmp_path / "bad.duckdb", "SELECT 1").error_class in ("not_a_database", "damaged")
    with duckdb.connect(str(tmp_path / "a.duckdb")) as db:
        db.execute("CREATE VIEW v AS SELECT 1 AS a")
    script = f"import duckdb; db = duckdb.connect({str(tmp_path / 'a.duckdb')!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as owner:
        assert owner.stdin is not None and owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        assert pool.run_now(tmp_path / "a.duckdb", "SELECT 1").error_class == "locked"
        owner.stdin.write("\n")
        owner.stdin.close()
    assert pool.run_now(tmp_path / "a.duckdb", "SELECT a FROM v").rows == ((1,),)
    (tmp_path / "a.duckdb").unlink()
    assert pool.run_now(tmp_path / "a.duckdb", "SELECT a FROM v").error_class == "missing"


def test_an_idle_duckdb_file_is_let_go(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    from verbal.apps.text2sql.engines.duckdb import Connections

    with duckdb.connect(str(tmp_path / "a.duckdb")) as db:
        db.execute("CREATE TABLE t AS SELECT 1 AS a")
    (tmp_path / "b.csv").write_text("x\n1\n")
    engine = Connections(keep=2)
    for db in (tmp_path / "a.duckdb", tmp_path / "b.csv"):
        request = {**request_of(db), **Limits().told(), "sql": "SELECT 1"}
        assert not engine.is_open(request)
        assert engine.open(request) is None
        assert engine.is_open(request)
        assert engine.run(request)["rows"] == [[1]]
    engine.idle()
    assert list(engine._open) == [str(tmp_path / "b.csv")]
    with duckdb.connect(str(tmp_path / "a.duckdb")) as db:
        db.execute("INSERT INTO t VALUES (2)")
    engine._open.popitem()[1][1].close()


# ceilings -----------------------------------------------------------------------------------------------------------


def limit(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith(name))[len(name) :].split()[0]


def test_every_process_has_a_ceiling(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    (tmp_path / "b.csv").write_text("x\n1\n")
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE t (a)")
    pool = Pool(1)
    try:
        for name in ("a.sqlite", "b.csv"):
            assert pool.run_now(tmp_path / name, "SELECT 1").rows == ((1,),)
        for worker in pool._workers:
            assert int(limit(worker.process.pid, "Max address space")) < 8 * 2**30
            assert int(limit(worker.process.pid, "Max cpu time")) < 60
            assert limit(worker.process.pid, "Max core file size") == "0"
        large = "SELECT len(range(1000000000))"  # one value of 8 GB, which DuckDB's own limit lets pass
        assert pool.run_now(tmp_path / "b.csv", large).error_class in ("too_big", "crashed")
    finally:
        pool.close()


def test_a_reply_that_does_not_fit_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy:
        def run(self, request: dict[str, Any]) -> dict[str, Any]:
            raise MemoryError

    assert process.answer({"op": "query"}, Greedy())["error_class"] == "too_big"  # type: ignore[arg-type]

    def full(*args: Any, **options: Any) -> str:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(process.json, "dumps", full)
    assert b"too_big" in process._encoded({"rows": [[1]]})


# servers, in this process -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[Place]:
    with SERVERS[request.param]() as found:
        yield found


def test_a_session_by_hand(server: Place) -> None:
    sessions = Sessions(keep=1)
    request = {**request_of(server.db), **Limits(rows=5).told()}
    assert sessions.open(request) is None and sessions.is_open(request)
    for sql, expected in (
        ("SELECT a FROM t ORDER BY a", None),
        ("SELECT nope FROM t", "no_such_column"),
        ("SELECT 1; SELECT 2", "several_statements"),
        ("SELECT '\ud800'", "syntax"),
        ("DELETE FROM t", "denied"),
    ):
        assert sessions.run({**request, "sql": sql}).get("error_class") == expected
    many = "SELECT s.a FROM t s, t v, t w, u"
    cut = sessions.run({**request, "sql": many})
    assert (len(cut["rows"]), cut["truncated"]) == (5, True)
    if not sessions.is_open(request):  # MySQL: the session was given up, for it would send all rows
        assert sessions.open(request) is None
    late = sessions.run({**request, "sql": server.endless[0], "seconds": 0.05})
    assert late["error_class"] == "timeout"
    assert sessions.is_open(request) or sessions.open(request) is None
    assert len(sessions.catalog(request)["catalog"]["tables"]) == 2
    wrong = {**request, "server": {**request["server"], "password": "s3cret"}}
    assert not sessions.is_open(wrong)
    refused = sessions.open(wrong)
    assert refused is not None and refused["error_class"] == "login" and "s3cret" not in refused["error"]
    assert sessions.open(request) is None
    sessions.idle()
    sessions.cancel()
    sessions._close(request["db"])
