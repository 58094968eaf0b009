"""One place of each kind that an SQL engine reads, all with the same two tables."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from verbal.apps.text2sql.sources import Source

TABLES = (
    "CREATE TABLE t (a INTEGER PRIMARY KEY, b VARCHAR(20), c DOUBLE PRECISION)",
    "INSERT INTO t VALUES (1, 'x', 0.5), (2, 'y', 1.5), (3, NULL, NULL)",
    "CREATE TABLE u (k INTEGER, a INTEGER, FOREIGN KEY (a) REFERENCES t (a))",
    "INSERT INTO u VALUES (1, 1), (2, 1)",
)


@dataclass
class Place:
    """One engine with the tables `t` and `u`."""

    kind: str
    db: str | Source
    state: Callable[[], str]
    """What must not change."""
    add: Callable[[], None]
    """A row more, written by the owner."""
    running: Callable[[], int] = lambda: 0
    """Queries that run on the server."""
    end: Callable[[int], Any] = lambda session: None
    """Ends a session on the server."""
    keys: bool = True
    writes: tuple[str, ...] = ()
    endless: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    """SQL of a value -> the cell."""


def files_state(folder: Path) -> str:
    """Names and hashes of what lies in the folder."""
    return json.dumps({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())})


ROWS = "SELECT json_agg(t), (SELECT COUNT(*) FROM u), (SELECT last_value FROM s) FROM t"
RUNNING = "SELECT id FROM information_schema.processlist WHERE user = '%s' AND command = 'Query'"
CROSS = "SELECT COUNT(*) FROM " + ", ".join(f"t t{n}" for n in range(40))
FOREVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"

DEAF = "SELECT instr(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || 'a')"
"""One step of SQLite's machine, for hours: its progress handler is not called."""


def sqlite_place(folder: Path) -> Place:
    """An SQLite file."""
    path = folder / "shop.sqlite"

    def run(*statements: str) -> None:
        with closing(sqlite3.connect(path)) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()

    run(*TABLES)
    return Place(
        "sqlite", str(path), lambda: files_state(folder), lambda: run("INSERT INTO t VALUES (4, 'z', 2.5)"),
        writes=("PRAGMA user_version = 3", "ATTACH 'other.sqlite' AS other", "VACUUM"),
        endless=(FOREVER, CROSS, DEAF),
        values={"x'00ff'": "x'00ff'", "1 = 1": 1, "DATE('2020-01-02')": "2020-01-02"},
    )  # fmt: skip


def duckdb_place(folder: Path) -> Place:
    """A DuckDB file."""
    duckdb = pytest.importorskip("duckdb")
    path = folder / "shop.duckdb"

    def run(*statements: str) -> None:
        with duckdb.connect(str(path)) as db:
            for statement in statements:
                db.execute(statement)

    run(*TABLES)
    return Place(
        "duckdb", str(path), lambda: files_state(folder), lambda: run("INSERT INTO t VALUES (4, 'z', 2.5)"),
        writes=DUCKDB_WRITES, endless=(FOREVER, CROSS, "SELECT COUNT(*) FROM range(100000000000000)", BIG_VALUE),
        values=DUCKDB_VALUES,
    )  # fmt: skip


BIG_VALUE = "SELECT repeat('x', 1000000000)"
DUCKDB_WRITES = (
    "COPY t TO 'stolen.csv'", "ATTACH 'other.duckdb' AS other", "INSTALL httpfs", "LOAD httpfs", "SET threads = 2",
    "CREATE TEMP TABLE z AS SELECT 1", "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd.csv'",
    "SELECT content FROM read_text('/etc/passwd')", "SELECT * FROM glob('/*')", "EXPORT DATABASE 'stolen'",
    "WITH x AS (INSERT INTO t VALUES (9, 'z', 1) RETURNING a) SELECT * FROM x", "CHECKPOINT", "PRAGMA database_list",
)  # fmt: skip
DUCKDB_VALUES = {
    "'x'::BLOB": "x'78'", "true": 1, "DATE '2020-01-02'": "2020-01-02", "1.50::DECIMAL(5, 2)": 1.5,
    "7::DECIMAL(5, 0)": 7, "1::HUGEINT << 100": 2**100, "[1, 2]": "[1, 2]",
    "{'a': DATE '2020-01-02'}": '{"a": "2020-01-02"}',
    "TIMESTAMP '2020-01-02 03:04:05'": "2020-01-02 03:04:05", "TIME '03:04:05'": "03:04:05",
    "INTERVAL 30 HOURS + INTERVAL 1 SECOND": "30:00:01", "-INTERVAL 90 SECONDS": "-0:01:30",
}  # fmt: skip


def files_place(folder: Path) -> Place:
    """A folder with a CSV and a TSV file."""
    pytest.importorskip("duckdb")
    (folder / "t.csv").write_text("a,b,c\n1,x,0.5\n2,y,1.5\n3,,\n", encoding="utf-8")
    (folder / "u.tsv").write_text("k\ta\n1\t1\n2\t1\n", encoding="utf-8")
    (folder / "notes.txt").write_text("no table")

    def add() -> None:
        with (folder / "t.csv").open("a", encoding="utf-8") as file:
            file.write("4,z,2.5\n")

    return Place(
        "files", str(folder), lambda: files_state(folder), add, keys=False, writes=DUCKDB_WRITES,
        endless=(FOREVER, CROSS, BIG_VALUE), values=DUCKDB_VALUES,
    )  # fmt: skip


@contextmanager
def postgresql_place() -> Iterator[Place]:
    """A schema and an account of its own, which may read and insert, on the server of VERBAL_TEST_POSTGRES."""
    server = os.environ.get("VERBAL_TEST_POSTGRES", "")
    if not server:
        pytest.skip("no PostgreSQL: set VERBAL_TEST_POSTGRES to the URL of a throw-away server (.ci/run starts one)")
    import psycopg

    name, parts = f"sql_{uuid.uuid4().hex[:12]}", urlsplit(server)
    with psycopg.connect(server, autocommit=True) as owner:

        def run(*statements: str) -> Any:
            for statement in statements:
                cursor = owner.execute(statement)  # type: ignore[arg-type]
            return cursor

        run(f"CREATE SCHEMA {name}", f"SET search_path TO {name}", *TABLES, "COMMENT ON COLUMN t.b IS 'a letter'")
        run(f"CREATE ROLE {name} LOGIN PASSWORD 'p@ss'", f"GRANT USAGE ON SCHEMA {name} TO {name}")
        run(f"GRANT SELECT, INSERT ON t, u TO {name}", "CREATE SEQUENCE s", f"GRANT ALL ON SEQUENCE s TO {name}")
        yield Place(
            "postgresql",
            f"postgresql://{name}:p%40ss@{parts.hostname}:{parts.port}/{parts.path.strip('/')}?schema={name}",
            lambda: str(run(ROWS).fetchall()),
            lambda: run("INSERT INTO t VALUES (4, 'z', 2.5)"),
            lambda: run(f"SELECT FROM pg_stat_activity WHERE usename = '{name}' AND state = 'active'").rowcount,
            lambda session: run(f"SELECT pg_terminate_backend({session}, 10000)"),
            writes=("SELECT nextval('s')", "WITH x AS (INSERT INTO t VALUES (9) RETURNING a) SELECT * FROM x", "COMMIT",
                    "COPY t TO PROGRAM 'id'", "SELECT pg_read_file('/etc/passwd')", "SELECT * FROM t FOR UPDATE",
                    "SELECT set_config('transaction_read_only', 'off', false)", "SET statement_timeout = 0",
                    "SELECT lo_import('/etc/passwd')", "SELECT 1 AS a INTO z", "NOTIFY x"),
            endless=(FOREVER, CROSS, "SELECT pg_sleep(100)", "SELECT COUNT(*) FROM generate_series(1, 10000000000)"),
            values={"'\\x00ff'::bytea": "x'00ff'", "true": 1, "DATE '2020-01-02'": "2020-01-02",
                    "1.50::numeric(5, 2)": 1.5, "7::numeric(5, 0)": 7, "'infinity'::date": "infinity",
                    "ARRAY[1, 2]": "[1, 2]",
                    "'{\"a\": 1}'::jsonb": '{"a": 1}', "'a%sb'": "a%sb",
                    "TIMESTAMP '0044-03-15 BC'": "0044-03-15 00:00:00 BC"},
        )  # fmt: skip
        run(f"DROP SCHEMA {name} CASCADE", f"DROP ROLE {name}")
    owner.close()


@contextmanager
def mysql_place() -> Iterator[Place]:
    """A database and an account of its own, which may read and insert, on the server of VERBAL_TEST_MYSQL."""
    server = os.environ.get("VERBAL_TEST_MYSQL", "")
    if not server:
        pytest.skip("no MySQL: set VERBAL_TEST_MYSQL to the URL of a throw-away server (.ci/run starts MariaDB)")
    import pymysql

    name, parts = f"sql_{uuid.uuid4().hex[:12]}", urlsplit(server)
    login = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
    with closing(pymysql.connect(**login, autocommit=True)) as owner:

        def run(*statements: str) -> Any:
            with owner.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall()

        run(f"CREATE DATABASE {name}", f"USE {name}", *TABLES)
        run(f"CREATE USER {name}@'%' IDENTIFIED BY 'p@ss'", f"GRANT SELECT, INSERT ON {name}.* TO {name}@'%'")
        yield Place(
            "mysql",
            f"mysql://{name}:p%40ss@{parts.hostname}:{parts.port}/{name}",
            lambda: str(run("SELECT * FROM t") + run("SELECT COUNT(*) FROM u")),
            lambda: run("INSERT INTO t VALUES (4, 'z', 2.5)"),
            lambda: len(run(RUNNING % name)),
            lambda session: run(f"KILL {session}"),
            writes=("SELECT 1 INTO OUTFILE '/tmp/stolen'", "SELECT * FROM t FOR UPDATE", "/*! DELETE FROM t */",
                    "COMMIT", "KILL 1", "SET GLOBAL read_only = 0", "HANDLER t OPEN", "FLUSH TABLES", "USE mysql",
                    "# SELECT\nDELETE FROM t", "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t", "DO SLEEP(1)"),
            endless=(CROSS, "SELECT SLEEP(100)", "SELECT BENCHMARK(1000000000000, MD5('a'))"),
            values={"x'00ff'": "x'00ff'", "true": 1, "DATE '2020-01-02'": "2020-01-02",
                    "CAST(1.50 AS DECIMAL(5, 2))": 1.5, "CAST(7 AS DECIMAL(5, 0))": 7,
                    "TIME '30:00:01'": "30:00:01", "'a%sb'": "a%sb"},
        )  # fmt: skip
        run(f"DROP DATABASE {name}", f"DROP USER {name}@'%'")


SERVERS = {"postgresql": postgresql_place, "mysql": mysql_place}
