"""The worker's own code, run in this process (the pool's tests run it where it lives)."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from verbal.apps.text2sql.engines import sqlite
from verbal.apps.text2sql.engines.process import read_frame, write_frame
from verbal.apps.text2sql.engines.sqlite import Connections, connect
from verbal.apps.text2sql.worker import Pool


@pytest.fixture(autouse=True)
def _no_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's heap limit holds for a whole process and cannot be taken back, so it is not set in this one."""
    monkeypatch.setattr(sqlite, "HEAP_BYTES", 0)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (a, b TEXT); INSERT INTO t VALUES (1, 'x'), (x'ff', 'y');")
    return path


@pytest.fixture
def connections() -> Iterator[Connections]:
    made = Connections(keep=2)
    yield made
    for _, connection in made._open.values():
        connection.close()


def ask(connections: Connections, db: Path, sql: str, **limits: Any) -> dict[str, Any]:
    request = {"db": str(db), "sql": sql, "seconds": 5.0, "rows": 100, "bytes": 10_000, "wait": 0.01, **limits}
    reply = connections.run(request)
    assert reply.pop("seconds") >= 0
    return reply


def test_replies(connections: Connections, db: Path) -> None:
    assert ask(connections, db, "SELECT * FROM t") == {
        "columns": ["a", "b"], "rows": [[1, "x"], ["x'ff'", "y"]], "truncated": False,
    }  # fmt: skip
    assert ask(connections, db, "SELECT a FROM t", rows=1)["truncated"] is True
    assert ask(connections, db, "SELECT hex(zeroblob(6000))", bytes=10)["rows"] == []
    assert ask(connections, db, "") == {
        "error": "only a query that gives rows is run", "error_class": "not_a_query",
    }  # fmt: skip
    assert ask(connections, db, "DELETE FROM t")["error_class"] == "denied"
    assert ask(connections, db, "SELECT '\ud800'")["error"] == "syntax error: the query is not valid text"
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT MAX(n) FROM r"
    assert ask(connections, db, endless, seconds=0.05) == {
        "error": "stopped after 0.05 s", "error_class": "timeout",
    }  # fmt: skip


def test_files_that_cannot_be_opened(connections: Connections, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 500)
    assert ask(connections, tmp_path / "none", "SELECT 1")["error"].endswith("none: no such file")
    assert "it is a folder" in ask(connections, tmp_path, "SELECT 1")["error"]
    assert ask(connections, tmp_path / "text", "SELECT 1")["error_class"] == "not_a_database"
    assert ask(connections, tmp_path / "a\0b", "SELECT 1")["error_class"] == "missing"


def test_connections_are_kept_renewed_and_let_go(connections: Connections, db: Path, tmp_path: Path) -> None:
    ask(connections, db, "SELECT 1")
    first = connections._open[str(db)][1]
    ask(connections, db, "SELECT 1")
    assert connections._open[str(db)][1] is first
    with closing(sqlite3.connect(db)) as other:
        other.execute("INSERT INTO t VALUES (3, 'z')")
        other.commit()
    assert ask(connections, db, "SELECT COUNT(*) FROM t")["rows"] == [[3]]
    for name in ("b", "c"):
        (tmp_path / name).write_bytes(db.read_bytes())
        ask(connections, tmp_path / name, "SELECT 1")
    assert list(connections._open) == [str(tmp_path / "b"), str(tmp_path / "c")]


def test_a_wal_file_without_its_log_in_a_folder_that_is_gone_for_writing(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = sqlite3.connect, []

    def refusing(target: str, **options: Any) -> sqlite3.Connection:
        opened.append(target.rpartition("?")[2])
        if "immutable" not in target:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return real(target, **options)

    monkeypatch.setattr(sqlite.sqlite3, "connect", refusing)
    with closing(connect(str(db), 0.01)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM t").fetchone() == (2,)
    assert opened == ["mode=ro", "mode=ro&immutable=1"]
    with pytest.raises(sqlite3.OperationalError):
        connect(str(db) + "x", 0.01)


def test_frames() -> None:
    stream = io.BytesIO()
    write_frame(stream, b"one")
    write_frame(stream, b"")
    stream.write(b"\x00\x00\x00\x09cut")
    stream.seek(0)
    assert [read_frame(stream) for _ in range(4)] == [b"one", b"", None, None]


def test_a_wal_file_is_read_and_only_an_empty_log_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.commit()
    before = path.read_bytes()
    with closing(Pool(1)) as pool:
        assert pool.run_now(path, "SELECT COUNT(*) FROM t").rows == ((0,),)
    assert path.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.endswith("-wal") and p.stat().st_size]
    with closing(sqlite3.connect(path)) as connection:  # whoever may write takes it away
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
    assert [p.name for p in tmp_path.iterdir()] == ["log.sqlite"]
