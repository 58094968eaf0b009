"""Read-only SQL in killable processes: limits hold, nothing is written, no process is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.engines.sqlite import authorize, classify
from verbal.apps.text2sql.worker import Limits, Pool
from verbal.errors import EnvironmentFault

SHOP = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, NULL);"
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"


def make(path: Path, script: str = SHOP) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with_limits = Pool(1, Limits(seconds=5))
    yield with_limits
    with_limits.close()


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("db") / "shop ?#%.sqlite")


def test_rows_columns_and_types_come_back(pool: Pool, db: Path) -> None:
    result = pool.run_now(db, "SELECT a, b AS letter, a * 0.5, x'00ff' FROM t ORDER BY a;")
    assert result.columns == ("a", "letter", "a * 0.5", "x'00ff'")
    assert result.rows == ((1, "x", 0.5, "x'00ff'"), (2, "y", 1.0, "x'00ff'"), (3, None, 1.5, "x'00ff'"))
    assert (result.error, result.error_class, result.truncated) == (None, None, False)


@pytest.mark.parametrize(
    ("sql", "error_class", "words"),
    [
        ("SELECT nope FROM t", "no_such_column", "no such column: nope"),
        ("SELECT 1 FROM nope", "no_such_table", "no such table: nope"),
        ("SELECT nope(1)", "no_such_function", "nope"),
        ("SELEC 1", "syntax", "syntax error"),
        ("SELECT (", "syntax", "incomplete input"),
        ("SELECT a FROM t WHERE SUM(a) > 1", "misuse_of_aggregate", "aggregate"),
        ("SELECT 1; SELECT 2", "several_statements", "one statement"),
        ("SELECT 1; DROP TABLE t", "several_statements", "one statement"),
        ("", "not_a_query", "rows"),
        ("-- only a comment", "not_a_query", "rows"),
        ("SELECT '\ud800'", "syntax", "not valid text"),
        ("SELECT 1\0", "syntax", "null character"),
        ("SELECT a FROM t UNION SELECT a, b FROM t", "set_columns", "same number"),
        ("SELECT randomblob(1000000000)", "too_big", "too big"),
    ],
)
def test_a_bad_query_is_an_error_with_its_class(pool: Pool, db: Path, sql: str, error_class: str, words: str) -> None:
    result = pool.run_now(db, sql)
    assert result.error_class == error_class
    assert result.error is not None and words in result.error
    assert result.rows == ()


WRITES = (
    "DELETE FROM t",
    "INSERT INTO t VALUES (4, 'z')",
    "INSERT INTO t VALUES (4, 'z') RETURNING a",
    "UPDATE t SET a = 0",
    "WITH x AS (SELECT 1) UPDATE t SET a = 0",
    "REPLACE INTO t VALUES (1, 'z')",
    "DROP TABLE t",
    "CREATE TABLE u (a)",
    "CREATE TEMP TABLE u (a)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "ALTER TABLE t RENAME TO u",
    "CREATE INDEX i ON t (a)",
    "VACUUM",
    "VACUUM INTO 'copy.sqlite'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "SAVEPOINT s",
    "ATTACH 'other.sqlite' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "PRAGMA query_only = 0",
    "PRAGMA journal_mode = WAL",
    "PRAGMA writable_schema = 1",
    "PRAGMA user_version = 9",
    "PRAGMA table_info(t)",
    "SELECT load_extension('x')",
    "SELECT writefile('x', 'y')",
    "SELECT fts3_tokenizer('simple')",
)


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_but_reading_is_allowed(pool: Pool, db: Path, sql: str) -> None:
    before = hashlib.sha256(db.read_bytes()).hexdigest()
    result = pool.run_now(db, sql)
    assert result.error is not None, result
    assert hashlib.sha256(db.read_bytes()).hexdigest() == before
    assert sorted(p.name for p in db.parent.iterdir()) == [db.name]
    assert pool.run_now(db, "SELECT COUNT(*) FROM t").rows == ((3,),)


_FRAGMENTS = """
SELECT * FROM t WHERE a = 1 ; , ( ) ' " -- /* */ INSERT INTO VALUES UPDATE SET DELETE DROP TABLE CREATE TRIGGER ATTACH
DETACH PRAGMA journal_mode=DELETE user_version=3 VACUUM INTO 'x.db' BEGIN COMMIT WITH x AS RETURNING b NULL ALTER ADD
COLUMN c REINDEX UNION EXCEPT writable_schema=ON load_extension randomblob 'é' sqlite_master
"""
_WHOLE = st.sampled_from(WRITES)
_PIECES = st.lists(st.sampled_from(_FRAGMENTS.split()) | st.text(max_size=6), max_size=14).map(" ".join)


@given(sql=_PIECES | st.tuples(_WHOLE, _PIECES).map("; ".join) | st.tuples(_PIECES, _WHOLE).map("; ".join))
def test_random_statements_leave_the_file_as_it_is(pool: Pool, db: Path, sql: str) -> None:
    before = db.read_bytes()
    result = pool.run_now(db, sql, Limits(seconds=2, rows=50))
    assert (result.error is None) == (result.error_class is None)
    assert db.read_bytes() == before
    assert [p.name for p in db.parent.iterdir()] == [db.name]


def test_an_endless_query_ends_at_its_time_and_the_next_one_works(pool: Pool, db: Path) -> None:
    started = time.monotonic()
    result = pool.run_now(db, ENDLESS, Limits(seconds=0.4))
    assert result.error_class == "timeout"
    assert result.error == "stopped after 0.4 s"
    assert time.monotonic() - started >= 0.4
    assert pool.run_now(db, "SELECT 1").rows == ((1,),)


def test_a_query_deaf_to_the_progress_handler_is_killed_with_its_process(db: Path) -> None:
    pool = Pool(1)
    try:
        assert pool.run_now(db, "SELECT 1").rows == ((1,),)
        (worker,) = pool._workers
        os.kill(worker.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        result = pool.run_now(db, "SELECT 2", Limits(seconds=0.3))
        waited = time.monotonic() - started
        assert (result.error_class, result.error) == ("timeout", "stopped after 0.3 s")
        assert waited >= 0.3
        assert worker.process.poll() is not None
        assert pool.run_now(db, "SELECT 3").rows == ((3,),)
    finally:
        pool.close()


def test_rows_and_bytes_are_cut(pool: Pool, db: Path) -> None:
    few = pool.run_now(db, "SELECT a FROM t ORDER BY a", Limits(rows=2))
    assert (few.rows, few.truncated) == (((1,), (2,)), True)
    exact = pool.run_now(db, "SELECT a FROM t ORDER BY a", Limits(rows=3))
    assert (len(exact.rows), exact.truncated) == (3, False)
    wide = pool.run_now(db, "SELECT hex(zeroblob(600)) FROM t", Limits(size=2000))
    assert (len(wide.rows), wide.truncated) == (1, True)


def test_memory_has_a_ceiling(pool: Pool, db: Path) -> None:
    series = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 3000)"
    result = pool.run_now(db, f"{series} SELECT DISTINCT hex(randomblob(100000)) FROM r ORDER BY 1", Limits(seconds=20))
    assert result.error_class == "too_big", result.error


def test_text_that_is_not_utf8_is_replaced(pool: Pool, tmp_path: Path) -> None:
    path = make(tmp_path / "latin.sqlite", "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'4dfc6e' AS TEXT));")
    assert pool.run_now(path, "SELECT a FROM t").rows == (("M\ufffdn",),)


def test_bad_files_are_clear_errors(pool: Pool, tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("this is no database " * 100)
    (tmp_path / "empty.sqlite").touch()
    missing = pool.run_now(tmp_path / "no.sqlite", "SELECT 1")
    assert (missing.error_class, missing.error) == ("missing", f"database {tmp_path / 'no.sqlite'}: no such file")
    assert not (tmp_path / "no.sqlite").exists()
    assert pool.run_now(tmp_path, "SELECT 1").error_class == "missing"
    assert pool.run_now(text, "SELECT 1").error_class == "not_a_database"
    assert pool.run_now(tmp_path / "empty.sqlite", "SELECT a FROM t").error_class == "no_such_table"


def test_a_locked_file_is_said_to_be_locked_and_works_later(pool: Pool, tmp_path: Path) -> None:
    path = make(tmp_path / "locked.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("BEGIN EXCLUSIVE")
        assert pool.run_now(path, "SELECT COUNT(*) FROM t", Limits(wait=0.05)).error_class == "locked"
        owner.execute("ROLLBACK")
    assert pool.run_now(path, "SELECT COUNT(*) FROM t").rows == ((3,),)


def test_a_changed_or_deleted_file_is_noticed(pool: Pool, tmp_path: Path) -> None:
    path = make(tmp_path / "moving.sqlite")
    assert pool.run_now(path, "SELECT COUNT(*) FROM t").rows == ((3,),)
    make(tmp_path / "new.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (7);").replace(path)
    assert pool.run_now(path, "SELECT * FROM t").rows == ((7,),)
    path.unlink()
    assert pool.run_now(path, "SELECT * FROM t").error_class == "missing"


def test_a_wal_database_in_a_folder_that_cannot_be_written_can_be_read(pool: Pool, tmp_path: Path) -> None:
    path = make(tmp_path / "wal.sqlite", f"PRAGMA journal_mode = WAL; {SHOP}")
    before = path.read_bytes()
    assert pool.run_now(path, "SELECT COUNT(*) FROM t").rows == ((3,),)
    assert path.read_bytes() == before


async def test_many_at_once_from_one_event_loop_and_then_from_another(db: Path) -> None:
    pool = Pool(2)
    try:
        results = await asyncio.gather(*(pool.run(db, f"SELECT {n}") for n in range(60)))
        assert [result.rows[0][0] for result in results] == list(range(60))
        assert len(pool._workers) <= 2
        other: list[object] = []
        thread = threading.Thread(target=lambda: other.append(asyncio.run(pool.run(db, "SELECT 5")).rows))
        thread.start()
        thread.join()
        assert other == [((5,),)]
    finally:
        await pool.aclose()
    assert not pool._workers
    with pytest.raises(EnvironmentFault, match="closed"):
        await pool.run(db, "SELECT 1")


async def test_cancelling_a_run_frees_the_caller_and_keeps_the_pool(db: Path) -> None:
    pool = Pool(1, Limits(seconds=0.5))
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.run(db, ENDLESS), 0.1)
        assert (await pool.run(db, "SELECT 1")).rows == ((1,),)
    finally:
        await pool.aclose()


def test_closing_ends_a_query_that_runs(db: Path) -> None:
    pool = Pool(1, Limits(seconds=30))
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(pool.run_now(db, ENDLESS).error_class))
    thread.start()
    while not pool._workers:
        time.sleep(0.01)
    time.sleep(0.1)
    pool.close()
    thread.join(10)
    assert found == ["crashed"]


_PARENT = """
import sys, threading, time
from verbal.apps.text2sql.worker import Limits, Pool
pool = Pool(1, Limits(seconds=60))
pool.run_now(sys.argv[1], "SELECT 1")
threading.Thread(target=pool.run_now, args=(sys.argv[1], sys.argv[2]), daemon=True).start()
print([w.process.pid for w in pool._workers][0], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("sql", ["SELECT 1", ENDLESS])
def test_a_worker_ends_when_its_parent_is_killed(db: Path, root: Path, sql: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(db), sql], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
    for _ in range(400):
        if not _alive(worker):
            break
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_authorizer_and_classes_by_hand() -> None:
    assert authorize(sqlite3.SQLITE_READ, "t", "a", "main", None) == sqlite3.SQLITE_OK
    assert authorize(sqlite3.SQLITE_FUNCTION, None, "Load_Extension", None, None) == sqlite3.SQLITE_DENY
    assert authorize(sqlite3.SQLITE_ATTACH, "x", None, None, None) == sqlite3.SQLITE_DENY
    assert authorize(sqlite3.SQLITE_PRAGMA, "user_version", "1", None, None) == sqlite3.SQLITE_DENY
    assert classify(sqlite3.OperationalError("something new")) == "other"
