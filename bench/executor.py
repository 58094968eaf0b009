"""Execution that cannot hurt: how late a bad query ends, what memory it gets, what the safety costs.

    .venv/bin/python bench/executor.py [--data DIR] [--seconds 2] [--repeats 2]

* kills: about 50 bad queries over SQLite, DuckDB, PostgreSQL and MariaDB, each with a limit of 2 s. `kill_p95_ms` (and
  p50, max) is milliseconds BEYOND the limit until the caller has the result, over all queries that were ended by time;
  those that ended before (an error, memory) are counted by class. `next_ms`: the query after one that was ended.
* peers: the same limit asked of `asyncio.wait_for` around a blocking sqlite3 call (the official evaluator's way) and of
  an sqlite3 progress handler in the same process, on one query that heeds a handler and one that does not; each in a
  process that is ended after `PEER_CAP` seconds.
* memory: queries that ask for more; the worker's highest address space (and resident size) beside its ceiling.
* speed: queries a second through a warm pool beside the bare driver in this process (bound) and a process a query
  (the other way to be safe), interleaved; Spider dev gold with --data, else ten queries on a made table.

Servers are those of VERBAL_TEST_POSTGRES and VERBAL_TEST_MYSQL; without, they are left out and the result says so.
Writes bench/results/executor.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from executor_queries import BAD, places

from verbal.apps.text2sql.worker import Limits, Pool

BY_TIME = ("timeout", "crashed", "unreachable")
PEER_CAP = 15.0
HEEDING = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 60000000) SELECT COUNT(*) FROM r"
DEAF = BAD["sqlite"]["deaf search (one step)"]
TEN = (
    "SELECT COUNT(*) FROM big", "SELECT name FROM big WHERE id = 77", "SELECT MAX(amount) FROM big WHERE id < 50",
    "SELECT name, COUNT(*) FROM big GROUP BY name ORDER BY 2 DESC, 1 LIMIT 5", "SELECT * FROM big WHERE id < 20",
    "SELECT AVG(amount) FROM big WHERE name = 'name 5'", "SELECT DISTINCT name FROM big WHERE id < 40",
    "SELECT a.name FROM big a JOIN big b ON a.id = b.id WHERE b.amount < 9", "SELECT 1", "SELECT id FROM big LIMIT 100",
)  # fmt: skip
HUNGRY = {
    "sqlite": "SELECT hex(randomblob(100000)) FROM big a, big b ORDER BY 1",
    "duckdb": "SELECT len(range(60000000) || range(60000001) || range(60000002))",
    "postgresql": "SELECT repeat('x', 800000) FROM big",
    "mysql": "SELECT REPEAT('x', 800000) FROM big",
}


def main() -> None:
    """Runs all parts and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("VERBAL_DATA") or None)
    parser.add_argument("--seconds", type=float, default=2.0, help="the limit of a bad query")
    parser.add_argument("--repeats", type=int, default=2, help="times that each bad query is run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "executor.json")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, places(Path(folder)) as found:
        result = kills(found, options.seconds, options.repeats)
        result["peers"] = peers(found["sqlite"], options.seconds)
        result["memory"] = memory(found)
        result["speed"] = speed(found, options.data)
    result["missing"] = {engine: "no server" for engine in BAD if engine not in found}
    result["seconds"] = round(time.perf_counter() - began, 1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


# kills --------------------------------------------------------------------------------------------------------------


def kills(found: dict[str, str], seconds: float, repeats: int) -> dict[str, Any]:
    """How late each bad query ends, by engine and together."""
    engines: dict[str, Any] = {}
    all_late: list[float] = []
    for engine, db in found.items():
        pool, late, after, classes, worst = Pool(1), [], [], Counter[str](), {}
        pool.run_now(db, "SELECT 1")
        for name, sql in BAD[engine].items():
            for _ in range(repeats):
                started = time.perf_counter()
                result = pool.run_now(db, sql, Limits(seconds=seconds))
                took = time.perf_counter() - started
                kind = result.error_class or ("cut" if result.truncated else "finished")
                classes[kind] += 1
                started = time.perf_counter()
                assert pool.run_now(db, "SELECT COUNT(*) FROM big").rows == ((3000,),), (engine, name)
                after.append((time.perf_counter() - started) * 1000)
                if kind in BY_TIME and took >= seconds:
                    late.append((took - seconds) * 1000)
                worst[name] = {"class": kind, "seconds": round(max(took, worst.get(name, {}).get("seconds", 0.0)), 3)}
        pool.close()
        all_late += late
        engines[engine] = {
            "queries": sum(classes.values()), "ended_by_time": len(late), "beyond_ms": _spread(late),
            "next_ms": _spread(after), "classes": dict(classes), "each": worst,
        }  # fmt: skip
        print(engine, engines[engine]["beyond_ms"], dict(classes), file=sys.stderr)
    spread = _spread(all_late)
    return {
        "limit_s": seconds, "promise_ms": 500, "ended_by_time": len(all_late), "kill_p50_ms": spread["p50"],
        "kill_p95_ms": spread["p95"], "kill_max_ms": spread["max"], "ratio_to_promise": round(spread["p95"] / 500, 3),
        "kill_is": "milliseconds beyond the limit until the caller has the result", "engines": engines,
    }  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values) or [float("nan")]
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) for name, share in at.items()}


# peers --------------------------------------------------------------------------------------------------------------

_WAIT_FOR = """
import asyncio, sqlite3, sys
async def run():
    sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()
async def main():
    try: await asyncio.wait_for(run(), float(sys.argv[3]))
    except asyncio.TimeoutError: pass
asyncio.run(main())
"""
_HANDLER = """
import sqlite3, sys, time
end, db = time.monotonic() + float(sys.argv[3]), sqlite3.connect(sys.argv[1])
db.set_progress_handler(lambda: time.monotonic() > end, 5000)
try: db.execute(sys.argv[2]).fetchall()
except sqlite3.Error: pass
"""


def peers(db: str, seconds: float) -> dict[str, Any]:
    """Seconds until each way gives up a query that has `seconds`; a text where it had not after `PEER_CAP`."""
    found: dict[str, Any] = {"asked_s": seconds}
    pool = Pool(1)
    pool.run_now(db, "SELECT 1")
    for query, sql in (("heeds a handler", HEEDING), ("one deaf step", DEAF)):
        started = time.perf_counter()
        pool.run_now(db, sql, Limits(seconds=seconds))
        found[query] = {"verbal": round(time.perf_counter() - started, 3)}
        for name, script in (("asyncio.wait_for", _WAIT_FOR), ("progress handler", _HANDLER)):
            started = time.perf_counter()
            try:
                command = [sys.executable, "-I", "-S", "-c", script, db, sql, str(seconds)]
                subprocess.run(command, timeout=PEER_CAP, check=False)
                found[query][name] = round(time.perf_counter() - started, 3)
            except subprocess.TimeoutExpired:
                found[query][name] = f"still running after {PEER_CAP:g} s"
    pool.close()
    return found


# memory -------------------------------------------------------------------------------------------------------------


def memory(found: dict[str, str]) -> dict[str, Any]:
    """Highest resident size of a worker while a query asks for more than it may have."""
    told: dict[str, Any] = {}
    for engine, db in found.items():
        pool = Pool(1)
        pool.run_now(db, "SELECT 1")
        (worker,) = pool._workers
        most, ceiling = [0, 0], _ceiling(worker.process.pid)
        stop = threading.Event()
        watch = threading.Thread(target=_watch, args=(worker.process.pid, most, stop))
        watch.start()
        result = pool.run_now(db, HUNGRY[engine], Limits(seconds=20))
        stop.set()
        watch.join()
        kind = result.error_class or ("cut" if result.truncated else "finished")
        told[engine] = {
            "asks": HUNGRY[engine], "class": kind, "highest_resident_mib": most[0],
            "highest_address_space_mib": most[1], "ceiling_mib": ceiling,
            "ratio": round(most[1] / ceiling, 3), "held": most[1] <= ceiling,
        }  # fmt: skip
        pool.close()
    return told


def _watch(pid: int, most: list[int], stop: threading.Event) -> None:
    while True:
        last = stop.wait(0.005)
        for place, name in enumerate(("VmHWM", "VmPeak")):
            most[place] = max(most[place], _of(f"/proc/{pid}/status", name) // 1024)
        if last:
            return


def _ceiling(pid: int) -> int:
    return _of(f"/proc/{pid}/limits", "Max address space") // 2**20


def _of(file: str, name: str) -> int:
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line[len(name) :].strip(": \t").split()[0]) for line in lines if line.startswith(name)), 0)


# speed --------------------------------------------------------------------------------------------------------------

_ONE = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())"


def speed(found: dict[str, str], data: Path | None) -> dict[str, Any]:
    """Queries a second, the best of five interleaved rounds."""
    told: dict[str, Any] = {}
    for engine, db in found.items():
        load = [(db, sql) for sql in TEN] * 30
        told[engine] = _raced(engine, load)
    if data is not None and (data / "spider" / "dev.jsonl").is_file():
        lines = (data / "spider" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        base = data / "spider" / "database"
        pairs = [(str(base / r["db_id"] / f"{r['db_id']}.sqlite"), r["query"]) for r in rows]
        told["sqlite, Spider dev gold"] = _raced("sqlite", [pair for pair in pairs if Path(pair[0]).is_file()])
    else:
        told["sqlite, Spider dev gold"] = "skipped: no data"
    return told


def _raced(engine: str, load: list[tuple[str, str]]) -> dict[str, Any]:
    one, two = Pool(1), Pool(2)
    bare = _bare(engine, {db for db, _ in load})
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: [bare(db, sql) for db, sql in load],
        "pool": lambda: [one.run_now(db, sql) for db, sql in load],
        "pool, many at once, 1 process": lambda: asyncio.run(_together(one, load)),
        "pool, many at once, 2 processes": lambda: asyncio.run(_together(two, load)),
    }
    best: dict[str, float] = {}
    for _ in range(5):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            best[name] = max(best.get(name, 0.0), len(load) / (time.perf_counter() - started))
    one.close()
    two.close()
    if engine == "sqlite":
        some = load[:40]
        started = time.perf_counter()
        for db, sql in some:
            subprocess.run([sys.executable, "-I", "-S", "-c", _ONE, db, sql], capture_output=True, check=False)
        best["process a query"] = len(some) / (time.perf_counter() - started)
    told: dict[str, Any] = {"queries": len(load), "per_s": {name: round(rate, 1) for name, rate in best.items()}}
    told["ratio_to_bare"] = round(best["pool"] / best["bare"], 3)
    told["cost_us"] = round((1 / best["pool"] - 1 / best["bare"]) * 1e6, 1)
    if "process a query" in best:
        told["ratio_to_process_a_query"] = round(best["pool"] / best["process a query"], 1)
    return told


async def _together(pool: Pool, load: list[tuple[str, str]]) -> None:
    await asyncio.gather(*(pool.run(db, sql) for db, sql in load))


def _bare(engine: str, dbs: set[str]) -> Callable[[str, str], object]:
    """The driver alone, connected already."""
    if engine == "sqlite":
        open_files = {db: sqlite3.connect(f"file:{db}?mode=ro", uri=True, isolation_level=None) for db in dbs}
        for connection in open_files.values():
            connection.text_factory = lambda value: value.decode("utf-8", "replace")
        return lambda db, sql: open_files[db].execute(sql).fetchall()
    (db,) = dbs
    if engine == "duckdb":
        import duckdb

        file = duckdb.connect(db, read_only=True)
        return lambda _, sql: file.execute(sql).fetchall()
    from verbal.apps.text2sql.sources import Source

    told = Source.of(db).request()["server"]
    login = {name: told[name] for name in ("host", "port", "user", "password")}
    if engine == "postgresql":
        import psycopg

        session = psycopg.connect(**login, dbname=told["database"], autocommit=True)
        session.execute(f"SET search_path TO {told['options']['schema']}")
        return lambda _, sql: session.execute(sql).fetchall()
    import pymysql

    link = pymysql.connect(**login, database=told["database"], autocommit=True)

    def run(_: str, sql: str) -> object:
        with closing(link.cursor()) as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    return run


if __name__ == "__main__":
    main()
