"""Queries that do harm, for each engine, and the places they are run on: material of bench/executor.py."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROWS = 3_000
SCRIPT = (
    "CREATE TABLE big (id INTEGER PRIMARY KEY, name VARCHAR(40), amount DOUBLE PRECISION)",
    "INSERT INTO big " + " UNION ALL ".join(f"SELECT {n}, 'name {n % 97}', {n}.5" for n in range(1, 301)),
)
_CROSS = "SELECT COUNT(*) FROM " + ", ".join(f"big b{n}" for n in range(12))
_SORT = "SELECT a.name FROM big a, big b, big c, big d ORDER BY a.amount + b.amount * c.id, d.id DESC"
_ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"
_DEDUP = "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r) SELECT MAX(n) FROM r"
_A = "a" * 40
BAD: dict[str, dict[str, str]] = {
    "sqlite": {
        "endless recursion": _ENDLESS,
        "endless recursion, kept": _DEDUP,
        "cross join": _CROSS,
        "huge sort": _SORT,
        "distinct over a cross join": "SELECT DISTINCT a.name || b.id || c.id || d.id FROM big a, big b, big c, big d",
        "window over a cross join": "SELECT SUM(a.id) OVER (ORDER BY b.id) FROM big a, big b, big c, big d",
        "LIKE bomb": f"SELECT COUNT(*) FROM big a, big b, big c WHERE '{_A * 50}' LIKE '{'%a' * 40}%b'",
        "GLOB bomb": f"SELECT '{_A * 100}' GLOB '{'*a' * 30}*b'",
        "GLOB bomb of huge text": f"SELECT replace(hex(zeroblob(4000000)), '0', 'a') GLOB '{'*a' * 30}*b'",
        "printf of a huge width": "SELECT LENGTH(printf('%*d', 2000000000, 1))",
        "group_concat growth": "SELECT LENGTH(group_concat(a.name || b.name)) FROM big a, big b, big c, big d",
        "deaf search (one step)": "SELECT instr(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || 'a')",
        "deaf replace (one step)": "SELECT LENGTH(replace(hex(zeroblob(4000000)), hex(zeroblob(1500000)) || 'a', 'b'))",
        "doubling text": "WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM r) SELECT MAX(s) FROM r",
        "random blobs, sorted": f"SELECT hex(randomblob(100000)) FROM ({_ENDLESS.replace('COUNT(*)', 'n')}) ORDER BY 1",
    },
    "duckdb": {
        "endless recursion": _ENDLESS,
        "endless recursion, kept": _DEDUP,
        "cross join": _CROSS,
        "huge sort": _SORT,
        "range explosion": "SELECT COUNT(*) FROM range(100000000000000)",
        "list of a range": "SELECT len(range(1000000000))",
        "list aggregate": "SELECT len(list(x)) FROM range(100000000000) t(x)",
        "huge text": "SELECT len(repeat('x', 2000000000))",
        "text growth": "SELECT len(string_agg(repeat('x', 100000), '')) FROM range(1000000000)",
        "regex over huge text": "SELECT regexp_extract_all(repeat('ab', 50000000), '(a|b)*?c|b')",
        "regex a row": "SELECT COUNT(*) FROM range(100000000000) t(x) WHERE regexp_matches(x::VARCHAR, '(1*)*(2*)*3$')",
        "levenshtein": "SELECT levenshtein(repeat('ab', 500000), repeat('ba', 500000))",
        "unnest explosion": "SELECT COUNT(*) FROM (SELECT unnest(range(1000000)) FROM range(1000000))",
        "distinct": "SELECT COUNT(DISTINCT hash(x)) FROM range(100000000000) t(x)",
        "window": "SELECT MAX(s) FROM (SELECT SUM(x) OVER (ORDER BY hash(x)) s FROM range(1000000000) t(x))",
    },
    "postgresql": {
        "endless recursion": _ENDLESS,
        "endless recursion, kept": _DEDUP,
        "cross join": _CROSS,
        "huge sort": _SORT,
        "pg_sleep": "SELECT pg_sleep(3600)",
        "generate_series": "SELECT COUNT(*) FROM generate_series(1, 100000000000)",
        "regex bomb": f"SELECT repeat('{_A}', 500) ~ '^(a+)+(a*)*(a|aa)+$b'",
        "regex with back references": "SELECT repeat('ab', 20000) ~ '(.*)(.*)(.*)(.*)\\1\\2\\3c'",
        "huge text": "SELECT LENGTH(repeat('x', 1000000000) || repeat('y', 70000000))",
        "text growth": "SELECT LENGTH(string_agg(repeat('x', 100000), '')) FROM generate_series(1, 1000000000)",
        "array growth": "SELECT array_length(array_agg(n), 1) FROM generate_series(1, 100000000000) n",
        "all rows": "SELECT a.*, b.* FROM big a, big b, big c, big d",
    },
    "mysql": {
        "endless recursion": "SET STATEMENT max_recursive_iterations = 4294967295 FOR " + _ENDLESS,
        "cross join": _CROSS,
        "huge sort": _SORT,
        "SLEEP": "SELECT SLEEP(3600)",
        "BENCHMARK": "SELECT BENCHMARK(1000000000000, MD5('a'))",
        "SLEEP a row": "SELECT SLEEP(0.5) FROM big a, big b",
        "regex bomb": f"SELECT COUNT(*) FROM big a, big b, big c WHERE REPEAT('{_A}', 500) REGEXP '^(a+)+$b'",
        "GROUP_CONCAT": "SELECT LENGTH(GROUP_CONCAT(a.name, b.name, c.name)) FROM big a, big b, big c, big d",
        "distinct": "SELECT COUNT(DISTINCT a.id, b.id, c.id, d.id) FROM big a, big b, big c, big d",
        "all rows": "SELECT a.*, b.* FROM big a, big b, big c, big d",
        "GET_LOCK": "SELECT GET_LOCK('x', 1), SLEEP(3600)",
    },
}  # fmt: skip
"""Engine -> what it is -> the query."""


def fill(run: Callable[[str], object]) -> None:
    """Makes the table `big` of `ROWS` rows."""
    for statement in SCRIPT:
        run(statement)
    for start in range(300, ROWS, 300):
        run(f"INSERT INTO big SELECT id + {start}, name, amount FROM big WHERE id <= 300")


@contextmanager
def places(folder: Path) -> Iterator[dict[str, str]]:
    """Engine -> what names its database; servers only where VERBAL_TEST_POSTGRES, VERBAL_TEST_MYSQL name one."""
    import duckdb

    with closing(sqlite3.connect(folder / "big.sqlite")) as db:
        fill(db.execute)
        db.commit()
    with duckdb.connect(str(folder / "big.duckdb")) as made:
        fill(made.execute)
    found = {"sqlite": str(folder / "big.sqlite"), "duckdb": str(folder / "big.duckdb")}
    name, password = f"bench_{secrets.token_hex(5)}", secrets.token_hex(12)
    with postgresql(name, password) as url, mysql(name, password) as other:
        yield found | ({"postgresql": url} if url else {}) | ({"mysql": other} if other else {})


@contextmanager
def postgresql(name: str, password: str) -> Iterator[str]:
    """The URL of a schema with `big` and an account that reads it; "" without a server."""
    server = os.environ.get("VERBAL_TEST_POSTGRES", "")
    if not server:
        yield ""
        return
    import psycopg

    parts = urlsplit(server)
    with psycopg.connect(server, autocommit=True) as owner:

        def run(sql: str) -> None:
            owner.execute(sql)  # type: ignore[arg-type]

        run(f"CREATE SCHEMA {name}")
        run(f"SET search_path TO {name}")
        fill(run)
        for sql in (
            f"CREATE ROLE {name} LOGIN PASSWORD '{password}'",
            f"GRANT USAGE ON SCHEMA {name} TO {name}",
            f"GRANT SELECT ON big TO {name}",
        ):
            run(sql)
        yield f"postgresql://{name}:{password}@{parts.hostname}:{parts.port}{parts.path}?schema={name}"
        run(f"DROP SCHEMA {name} CASCADE")
        run(f"DROP ROLE {name}")


@contextmanager
def mysql(name: str, password: str) -> Iterator[str]:
    """The same for MariaDB or MySQL."""
    server = os.environ.get("VERBAL_TEST_MYSQL", "")
    if not server:
        yield ""
        return
    import pymysql

    parts = urlsplit(server)
    login = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
    with closing(pymysql.connect(**login, autocommit=True)) as owner:

        def run(sql: str) -> None:
            with owner.cursor() as cursor:
                cursor.execute(sql)

        run(f"CREATE DATABASE {name}")
        run(f"USE {name}")
        fill(run)
        run(f"CREATE USER {name}@'%' IDENTIFIED BY '{password}'")
        run(f"GRANT SELECT ON {name}.* TO {name}@'%'")
        yield f"mysql://{name}:{password}@{parts.hostname}:{parts.port}/{name}"
        run(f"DROP DATABASE {name}")
        run(f"DROP USER {name}@'%'")
