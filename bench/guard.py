"""The two locks of Text-to-SQL: no good query refused, no write done.

Gold queries of real sets go through the guard: none may be refused. Attacks go through the guard alone, through the
connection alone, and through both; what lies in the database's folder must not change. Attacks are
`data/attacks.jsonl` (each fault that field reports name, per dialect), the write tasks of DBBench, and gold queries
into which a write was put. Servers take part where VERBAL_TEST_POSTGRES / VERBAL_TEST_MYSQL name one.

    python bench/guard.py --data DIR
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from verbal.apps.text2sql.guard import Guard
from verbal.apps.text2sql.schema import Column, Table, read_catalog
from verbal.apps.text2sql.worker import Limits, Pool

HERE = Path(__file__).parent
LIMITS = Limits(seconds=1.0, rows=100)
BASE = (
    "CREATE TABLE t (a INTEGER, b VARCHAR(20), c DOUBLE PRECISION)",
    "INSERT INTO t VALUES (1, 'x', 0.5), (2, 'y', 1.5)",
    "CREATE TABLE u (k INTEGER, a INTEGER)",
    "INSERT INTO u VALUES (1, 1)",
)
TABLES = [
    Table("t", (Column("a", "INTEGER"), Column("b", "TEXT"), Column("c", "REAL"))),
    Table("u", (Column("k", "INTEGER"), Column("a", "INTEGER"))),
]


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("VERBAL_DATA"), help="the folder that holds spider/, extra/")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "guard.json")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.data and (Path(options.data) / "spider").is_dir():
        found |= golds(Path(options.data))
    else:
        print("skipped: no data (give --data DIR, the folder that holds spider/ and extra/)")
        found |= {"gold_queries": None, "gold_refused": None, "missing": {"gold_queries": "no data was given"}}
    found |= attacked(Path(options.data) if options.data else None)
    options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in found.items() if k != "refused_golds"}, indent=2, ensure_ascii=False))


# golds ----------------------------------------------------------------------------------------------------------------


def golds(data: Path) -> dict[str, Any]:
    """How many gold queries are refused; those that SQLite itself refuses are counted apart."""
    guards: dict[Path, Guard] = {}
    sets: dict[str, Counter[str]] = {}
    refused, times = [], []
    with tempfile.TemporaryDirectory() as folder, closing(Pool(2, Limits(seconds=20))) as pool:
        del folder
        for name, db, sql in _golds(data):
            if db not in guards:
                guards[db] = Guard(read_catalog(db), "sqlite")
            began = time.perf_counter()
            refusal = guards[db].check(sql)
            times.append(time.perf_counter() - began)
            counts = sets.setdefault(name, Counter())
            counts["queries"] += 1
            if refusal is None:
                continue
            result = pool.run_now(db, sql)
            if result.error is not None:
                counts["refused, and SQLite does not run it"] += 1
                continue
            counts["refused"] += 1
            refused.append({"set": name, "db": db.stem, "sql": sql, "why": str(refusal)})
    return {
        "gold_queries": sum(c["queries"] for c in sets.values()),
        "gold_refused": sum(c["refused"] for c in sets.values()),
        "gold_sets": {name: dict(counts) for name, counts in sets.items()},
        "refused_golds": refused,
        "guard_us": {
            "p50": round(statistics.median(times) * 1e6),
            "p95": round(sorted(times)[int(0.95 * len(times))] * 1e6),
        },
    }


def _golds(data: Path) -> Iterator[tuple[str, Path, str]]:
    for split in ("train", "dev"):
        for line in (data / "spider" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield (
                f"spider {split}",
                data / "spider" / "database" / row["db_id"] / f"{row['db_id']}.sqlite",
                row["query"],
            )
    extra = data / "extra"
    for name in ("geography", "restaurants"):
        for row in json.loads((extra / f"{name}.json").read_text(encoding="utf-8")):
            for sentence in row["sentences"]:
                yield name, extra / f"{name}.sqlite", _filled(row["sql"][0], row["variables"], sentence["variables"])
    for file in ("instruct_basic_sqlite.csv", "questions_gen_sqlite.csv"):
        with open(extra / "defog" / file, encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                for sql in filter(None, (part.strip() for part in row["query"].split(";"))):
                    yield "defog", extra / "defog" / f"{row['db_name']}.sqlite", sql


def _filled(sql: str, variables: Sequence[dict[str, Any]], given: dict[str, str]) -> str:
    for variable in variables:
        name = variable["name"]
        sql = sql.replace(name, str(given.get(name, variable.get("example", ""))))
    return sql


# attacks --------------------------------------------------------------------------------------------------------------


def attacked(data: Path | None) -> dict[str, Any]:
    """What attacks changed, through each lock alone and through both."""
    attacks = [json.loads(line) for line in (HERE / "data" / "attacks.jsonl").read_text(encoding="utf-8").splitlines()]
    if data is not None:
        attacks += [*_dbbench(data), *_poisoned_golds(data)]
    tables: dict[str, Any] = {}
    writes = 0
    for dialect in ("sqlite", "duckdb", "postgres", "mysql"):
        own = [a for a in attacks if a["dialect"] == dialect]
        guard = Guard(TABLES, dialect)
        passed = [a for a in own if guard.check(a["sql"]) is None]
        row: dict[str, Any] = {"attacks": len(own), "passed_the_guard": len(passed)}
        row |= _through_connection(dialect, own, passed)
        row["examples_passed"] = [a["sql"] for a in passed[:5]]
        tables[dialect] = row
        writes += (row.get("writes_connection_alone") or 0) + (row.get("writes_both") or 0)
    return {"attacks": len(attacks), "writes": writes, "dialects": tables}


def _through_connection(
    dialect: str, own: Sequence[dict[str, Any]], passed: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, closing(Pool(2, LIMITS)) as pool:
        place = _place(dialect, Path(name))
        if place is None:
            return {"writes_connection_alone": None, "writes_both": None, "reason": "no server was given"}
        db, state, end = place
        try:
            alone = _changed(pool, db, state, [a["sql"] for a in own])
            both = _changed(pool, db, state, [a["sql"] for a in passed])
        finally:
            end()
        return {"writes_connection_alone": len(alone), "writes_both": len(both), "examples_written": alone[:5]}


def _changed(pool: Pool, db: str, state: Any, queries: Sequence[str]) -> list[str]:
    """Queries after which something is not as it was."""
    before, changed = state(), []
    for sql in queries:
        pool.run_now(db, sql)
        after = state()
        if after != before:
            changed.append(sql)
            before = after
    return changed


def _place(dialect: str, folder: Path) -> tuple[str, Any, Any] | None:
    if dialect == "sqlite":
        path = folder / "shop.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            for sql in BASE:
                connection.execute(sql)
            connection.commit()
        return str(path), lambda: _files(folder), lambda: None
    if dialect == "duckdb":
        import duckdb

        path = folder / "shop.duckdb"
        with duckdb.connect(str(path)) as made:
            for sql in BASE:
                made.execute(sql)
        return str(path), lambda: _files(folder), lambda: None
    variable = {"postgres": "VERBAL_TEST_POSTGRES", "mysql": "VERBAL_TEST_MYSQL"}[dialect]
    return _server(dialect, os.environ[variable]) if os.environ.get(variable) else None


def _files(folder: Path) -> str:
    return json.dumps({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())})


def _server(dialect: str, url: str) -> tuple[str, Any, Any] | None:
    """A database of its own on a server, with tables `t` and `u`: what must not change are its rows and tables."""
    from sqlalchemy import create_engine, text

    driver = "postgresql+psycopg" if dialect == "postgres" else "mysql+pymysql"
    name = f"guard_{uuid.uuid4().hex[:8]}"
    address, _, _ = url[url.index("://") :].rpartition("/")
    server = create_engine(driver + url[url.index("://") :], isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine = create_engine(f"{driver}{address}/{name}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for sql in BASE:
            connection.execute(text(sql))
    space = "public" if dialect == "postgres" else name
    names = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{space}' ORDER BY 1"

    def state() -> str:
        with engine.connect() as connection:
            asked = ("SELECT a, b, c FROM t ORDER BY a", "SELECT k, a FROM u", names)
            return repr([connection.execute(text(q)).fetchall() for q in asked])

    def end() -> None:
        engine.dispose()
        with server.connect() as connection:
            force = " WITH (FORCE)" if dialect == "postgres" else ""
            connection.execute(text(f"DROP DATABASE {name}{force}"))
        server.dispose()

    return f"{url[: url.index('://')]}{address}/{name}?allow_superuser=true", state, end


def _dbbench(data: Path) -> list[dict[str, Any]]:
    rows = (data / "extra" / "dbbench_writes" / "must_refuse.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for row in map(json.loads, rows):
        label = row["label"] if isinstance(row["label"], list) else [row["label"]]
        found += [{"dialect": "sqlite", "from": "DBBench write tasks", "sql": str(sql)} for sql in label]
    return found


def _poisoned_golds(data: Path) -> list[dict[str, Any]]:
    """Gold queries into which a write was put, by sqlglot where the tree allows it; for every dialect."""
    import sqlglot
    from sqlglot import exp

    lines = (data / "spider" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    rng = random.Random(0)
    found = []
    for row in map(json.loads, rng.sample(lines, 40)):
        for dialect in ("sqlite", "duckdb", "postgres", "mysql"):
            tree = sqlglot.parse_one(row["query"], read="sqlite")
            sql = tree.sql(dialect=dialect)
            write = sqlglot.parse_one("DELETE FROM t RETURNING a", read="postgres")
            shapes = [f"{sql}; DELETE FROM t", f"DELETE FROM t; {sql}", f"CREATE TABLE s AS {sql}"]
            if isinstance(tree, exp.Select):
                shapes.append(tree.with_("d", as_=write).sql(dialect=dialect))
            found += [{"dialect": dialect, "from": "gold with a write", "sql": s} for s in shapes]
    return found


if __name__ == "__main__":
    main()
