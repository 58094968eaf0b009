"""The two locks of Text-to-SQL: no good query refused, no write done.

Gold queries of real sets go through the guard: none may be refused (nor those that sqlglot writes for other dialects,
nor what models wrote in InterCode's runs and SQLite runs, but for looks at the engine's own tables).
Attacks go through the guard alone, through the connection alone, and through both; the files of the database's folder,
or rows and tables on a server, must stay as they are. What attacks do when nothing stands in their way says how many of
them could change something. Attacks are `data/attacks.jsonl`, the write tasks of DBBench and gold queries into which
something was put (`guard_attacks.py`); soups are what a parser and an engine may read differently. Servers take part
where VERBAL_TEST_POSTGRES / VERBAL_TEST_MYSQL name one, by an account that may write.

    python bench/guard.py --data DIR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sqlite3
import statistics
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from guard_attacks import DIALECTS, Attack, listed, poisoned, soups, write_tasks
from guard_golds import gold_queries

from verbal.apps.text2sql.guard import Guard
from verbal.apps.text2sql.schema import read_catalog
from verbal.apps.text2sql.worker import Limits, Pool

HERE = Path(__file__).parent
LIMITS = Limits(seconds=1.0, rows=100)
SERVERS = {"postgres": "VERBAL_TEST_POSTGRES", "mysql": "VERBAL_TEST_MYSQL"}
_NEVER_BARE = {"memory", "nesting bombs", "endless", "endless (Langchain-Chatchat#5446)", "extensions"}
"""Attacks that are not tried without a lock: they end this process, or wait for a network."""


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("VERBAL_DATA"), help="the folder that holds spider/, extra/")
    parser.add_argument("--soups", type=int, default=10_000, help="on each engine")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "guard.json")
    options = parser.parse_args()
    data = Path(options.data) if options.data and (Path(options.data) / "spider").is_dir() else None
    found: dict[str, Any] = {}
    if data is not None:
        found |= golds(data)
    else:
        print("skipped: no data (give --data DIR, the folder that holds spider/ and extra/)")
        found |= {"gold_queries": None, "gold_refused": None, "missing": {"gold_queries": "no data was given"}}
    found |= attacked(data, options.soups)
    options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False))


# golds ----------------------------------------------------------------------------------------------------------------


def golds(data: Path) -> dict[str, Any]:
    """How many gold queries are refused; those that SQLite itself refuses are counted apart."""
    guards: dict[Path, dict[str, Guard]] = {}
    sets: dict[str, Counter[str]] = {}
    refused, times, again = [], [], []
    other: dict[str, Any] = {d: {"queries": 0, "refused": 0, "examples": [], "us": []} for d in DIALECTS[1:]}
    seen: set[tuple[Path, str]] = set()
    with closing(Pool(2, Limits(seconds=20))) as pool:
        for name, db, sql in gold_queries(data):
            if db not in guards:
                tables = read_catalog(db)
                guards[db] = {dialect: Guard(_folded(tables, dialect), dialect) for dialect in DIALECTS}
            refusal, us = _timed(guards[db]["sqlite"], sql)
            if (db, sql) in seen:
                again.append(us)
            else:
                times.append(us)
                if refusal is None and name == "spider dev":
                    _elsewhere(other, guards[db], sql)
            seen.add((db, sql))
            counts = sets.setdefault(name, Counter())
            counts["queries"] += 1
            if refusal is None:
                continue
            if pool.run_now(db, sql).error is not None:
                counts["refused, and SQLite does not run it"] += 1
                continue
            counts["refused"] += 1
            refused.append({"set": name, "db": db.stem, "sql": sql, "why": str(refusal)})
    return {
        "gold_queries": sum(c["queries"] for c in sets.values()),
        "gold_refused": sum(c["refused"] for c in sets.values()),
        "gold_sets": {name: dict(counts) for name, counts in sets.items()},
        "refused_golds": refused,
        "guard_us": {**_percentiles(times), "known_p50": _percentiles(again)["p50"]},
        "model_queries": _model_queries(data),
        "dev_golds_by_sqlglot": {d: {**row, "us": _percentiles(row["us"])} for d, row in other.items()},
    }


def _model_queries(data: Path) -> dict[str, Any] | None:
    """Different queries of real agents that SQLite runs, and which of them are refused."""
    asked: set[tuple[str, str]] = set()
    for file in sorted((data / "intercode").glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8")).values():
            actions = (row.get("turn_history") or {}).get("actions") or ()
            asked |= {(row["db_id"], action) for action in actions if isinstance(action, str)}
    run, refused = 0, []
    guards: dict[str, Guard] = {}
    with closing(Pool(2, LIMITS)) as pool:
        for name, sql in sorted(asked):
            db = data / "spider" / "database" / name / f"{name}.sqlite"
            if not db.exists() or pool.run_now(db, sql).error is not None:
                continue
            run += 1
            if name not in guards:
                guards[name] = Guard(read_catalog(db), "sqlite")
            refusal = guards[name].check(sql)
            refused += [f"{sql[:120]}: {refusal}"] if refusal is not None else []
    return {"run": run, "refused": len(refused), "examples": refused[:5]} if run else None


def _timed(guard: Guard, sql: str) -> tuple[Any, float]:
    began = time.perf_counter()
    refusal = guard.check(sql)
    return refusal, (time.perf_counter() - began) * 1e6


def _percentiles(us: Sequence[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(us), 1), "p95": round(sorted(us)[int(0.95 * len(us))], 1)}


def _elsewhere(other: dict[str, Any], guards: dict[str, Guard], sql: str) -> None:
    import sqlglot

    for dialect, row in other.items():
        text = sqlglot.transpile(sql, read="sqlite", write=dialect)[0]
        refusal, us = _timed(guards[dialect], text)
        row["us"].append(us)
        row["queries"] += 1
        if refusal is not None and not _literal(refusal, text):
            row["refused"] += 1
            row["examples"] = [*row["examples"], f"{text}: {refusal}"][:3]


def _folded(tables: Sequence[Any], dialect: str) -> Any:
    """PostgreSQL's tables are those that CREATE makes of unquoted names: sqlglot's queries quote none either."""
    if dialect != "postgres":
        return tables
    return {table.name.lower(): [column.name.lower() for column in table.columns] for table in tables}


def _literal(refusal: Any, text: str) -> bool:
    """Whether a text in double quotes is meant, which SQLite takes for one and sqlglot writes as a name."""
    name = refusal.message.partition(": ")[2]
    return refusal.kind == "no_such_column" and any(f"{mark}{name}{mark}" in text for mark in '"`')


# attacks --------------------------------------------------------------------------------------------------------------

Place = tuple[str, Callable[[], str]]
"""Where a database is, and what says whether anything there is another than before."""


def attacked(data: Path | None, soup_count: int) -> dict[str, Any]:
    """What attacks changed, through each lock alone and through both, for each dialect."""
    attacks = listed()
    if data is not None:
        lines = (data / "spider" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
        sample = [json.loads(line)["query"] for line in random.Random(0).sample(lines, 40)]
        attacks += [*write_tasks(data), *poisoned(sample)]
    tables: dict[str, Any] = {}
    for dialect in DIALECTS:
        own = [a for a in attacks if a.dialect == dialect]
        guards = {id(a.columns): Guard(a.columns, dialect) for a in own}
        passed = [a for a in own if guards[id(a.columns)].check(a.sql) is None]
        if odd := [a.clean for a in own if a.clean and guards[id(a.columns)].check(a.clean) is not None]:
            raise AssertionError(f"refused without what was put into it, so nothing is shown: {odd[:3]}")
        row: dict[str, Any] = {"attacks": len(own), "by_source": dict(Counter(a.source for a in own))}
        row |= {"passed_the_guard": len(passed), "examples_passed": [a.sql for a in passed[:5]]}
        row |= _through_connection(dialect, own, passed)
        row["soups"] = _soups(dialect, soup_count)
        tables[dialect] = row
    keys = ("writes_connection_alone", "writes_both")
    return {
        "attacks": len(attacks), "writes": sum(row[key] or 0 for row in tables.values() for key in keys),
        "dialects": tables,
    }  # fmt: skip


def _through_connection(dialect: str, own: Sequence[Attack], passed: Sequence[Attack]) -> dict[str, Any]:
    if dialect in SERVERS and not os.environ.get(SERVERS[dialect]):
        reason = f"no server: {SERVERS[dialect]} is not set"
        return {"writes_connection_alone": None, "writes_both": None, "reason": reason}
    with closing(Pool(2, LIMITS)) as pool:

        def run(db: str, sql: str) -> None:
            pool.run_now(db, sql)

        alone, both = _changed(dialect, own, run, pool), _changed(dialect, passed, run, pool)
    found: dict[str, Any] = {"writes_connection_alone": len(alone), "writes_both": len(both), "written": alone[:5]}
    if dialect not in SERVERS:
        tried = [a for a in own if a.source not in _NEVER_BARE]
        bare = _changed(dialect, tried, _bare_sqlite if dialect == "sqlite" else _bare_duckdb, None)
        found["with_no_lock"] = {"attacks": len(tried), "changed": len(bare)}
    return found


def _changed(dialect: str, attacks: Sequence[Attack], run: Callable[[str, str], None], pool: Pool | None) -> list[str]:
    """Attacks after which something is not as it was; the next meets a database as it was made."""
    changed: list[str] = []
    made: tuple[str, ...] | None = None
    with ExitStack() as stack:
        for attack in attacks:
            if made != attack.made:
                stack.close()
                db, state = stack.enter_context(_world(dialect, attack.made))
                made, before = attack.made, state()
                if pool is not None:  # or nothing would be proved
                    assert pool.run_now(db, "SELECT 1").rows == ((1,),), pool.run_now(db, "SELECT 1").error
            run(db, attack.sql)
            if state() != before:
                changed.append(attack.sql)
                made = None
    return changed


def _bare_sqlite(db: str, sql: str) -> None:
    with closing(sqlite3.connect(db)) as connection, suppress(sqlite3.Error, ValueError):
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**24)
        until = time.monotonic() + 0.5
        connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        connection.executescript(sql)
        connection.commit()


def _bare_duckdb(db: str, sql: str) -> None:
    import duckdb

    with duckdb.connect(db, config={"memory_limit": "256MB", "threads": 1}) as connection, suppress(duckdb.Error):
        watch = threading.Timer(0.5, connection.interrupt)
        watch.start()
        try:
            connection.execute(sql).fetchmany(10)
        finally:
            watch.cancel()
            watch.join()


def _soups(dialect: str, count: int) -> dict[str, Any] | None:
    """Soups that pass the guard, how many of them run, and those in whose result the mark is."""
    if dialect in SERVERS and not os.environ.get(SERVERS[dialect]):
        return None
    guard, marked, ran = Guard({}, dialect), [], 0
    with _marking(dialect) as ask:
        passed = [sql for sql in soups(dialect, count) if guard.check(sql) is None]
        for sql in passed:
            with suppress(Exception):  # most are no SQL to the engine
                answer = ask(sql)
                ran += 1
                marked += [sql] if "MARK" in answer else []
        called = ask("SELECT mark()")
    assert "MARK" in called
    return {"soups": count, "passed": len(passed), "of_them_run": ran, "called": len(marked), "examples": marked[:5]}


@contextmanager
def _marking(dialect: str) -> Iterator[Callable[[str], str]]:
    """Runs SQL on an engine that has a function `mark`, whose result no soup holds."""
    if dialect == "sqlite":
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.create_function("mark", 0, lambda: "MARK")
            yield lambda sql: repr(connection.execute(sql).fetchall())
    elif dialect == "duckdb":
        import duckdb

        with duckdb.connect() as made:
            made.execute("CREATE MACRO mark() AS 'MA' || 'RK'")
            yield lambda sql: repr(made.execute(sql).fetchall())
    else:
        body = "RETURNS text LANGUAGE sql AS $$ SELECT 'MA' || 'RK' $$"
        body = body if dialect == "postgres" else "RETURNS text DETERMINISTIC RETURN CONCAT('MA', 'RK')"
        with _server(dialect, (f"CREATE FUNCTION mark() {body}",)) as (_, engine):
            raw = engine.raw_connection()
            with closing(raw.cursor()) as cursor:

                def ask(sql: str) -> str:
                    cursor.execute(sql)
                    return repr(cursor.fetchall())

                yield ask
            raw.close()


# worlds ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _world(dialect: str, made: Sequence[str]) -> Iterator[Place]:
    """A new database, in a new folder in which this process stands meanwhile."""
    if dialect in SERVERS:
        with _server(dialect, made) as (url, engine):
            space = "current_schema()" if dialect == "postgres" else "database()"
            names = f"SELECT table_name FROM information_schema.tables WHERE table_schema = {space} ORDER BY 1"

            def rows() -> str:
                from sqlalchemy import text

                asked = ("SELECT a, b, c FROM t ORDER BY a", "SELECT k, a FROM u", names)
                with engine.connect() as connection:
                    return repr([connection.execute(text(sql)).fetchall() for sql in asked])

            yield url, rows
        return
    with tempfile.TemporaryDirectory() as name, _standing(Path(name)):
        path = Path(name) / f"shop.{dialect}"
        if dialect == "sqlite":
            with closing(sqlite3.connect(path)) as connection:
                for sql in made:
                    connection.execute(sql)
                connection.commit()
        else:
            import duckdb

            with duckdb.connect(str(path)) as other:
                for sql in made:
                    other.execute(sql)
        yield str(path), lambda: _files(Path(name))


@contextmanager
def _standing(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _files(folder: Path) -> str:
    found = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in folder.rglob("*")}
    return json.dumps(found, sort_keys=True)


def _server(dialect: str, made: Sequence[str]) -> AbstractContextManager[tuple[str, Any]]:
    """A new database on a server: its URL by an account that may write there, and an engine of its owner."""
    from sqlalchemy import create_engine

    @contextmanager
    def opened() -> Iterator[tuple[str, Any]]:
        url = os.environ[SERVERS[dialect]]
        postgres, name, rest = dialect == "postgres", f"guard_{uuid.uuid4().hex[:8]}", url[url.index("://") + 3 :]
        driver, place = "postgresql+psycopg" if postgres else "mysql+pymysql", rest.rpartition("/")[0]
        server = create_engine(f"{driver}://{rest}", isolation_level="AUTOCOMMIT")
        engine = create_engine(f"{driver}://{place}/{name}", isolation_level="AUTOCOMMIT")
        host = place.rpartition("@")[2]
        try:
            _do(server, f"CREATE DATABASE {name}")
            if postgres:
                _do(server, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
                _do(engine, *made, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")
                _do(engine, f"GRANT ALL ON SCHEMA public TO {name}", f"GRANT ALL ON DATABASE {name} TO {name}")
            else:
                _do(server, f"CREATE USER {name} IDENTIFIED BY '{name}'", f"GRANT ALL ON {name}.* TO {name}")
                _do(engine, *made)
            yield f"{'postgresql' if postgres else 'mysql'}://{name}:{name}@{host}/{name}", engine
        finally:
            engine.dispose()
            if postgres:
                _do(server, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE IF EXISTS {name}")
            else:
                _do(server, f"DROP DATABASE {name}", f"DROP USER IF EXISTS {name}")
            server.dispose()

    return opened()


def _do(engine: Any, *statements: str) -> None:
    with engine.connect() as connection:
        for sql in statements:
            connection.exec_driver_sql(sql)


if __name__ == "__main__":
    main()
