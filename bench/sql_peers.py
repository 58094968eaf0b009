"""Popular ways to run a model's SQL beside ours: what attacks change, what runs on, what results are lost, the time.

Bare execution only, no model: each system's own public call with default settings (vanna 2 `SqliteRunner.run_sql`,
langchain-community `SQLDatabase.run`, LlamaIndex `SQLDatabase.run_sql`, ours `Text2Sql.execute`), on SQLite.

    python bench/sql_peers.py --venv DIR --install --data DIR

`--venv` names a virtual environment of the peers' own; `--install` makes it with pip. The attacks are the SQLite ones
of `data/attacks.jsonl`, each on a fresh copy of a small database in a folder of its own: a change is a file of it that
is not what it was, or a new one. Endless queries are stopped from outside after 10 s. Times are those of 20 queries on
Chinook, in rounds in which the systems take turns, each call with a number it has not seen. A peer that cannot be
installed or called is null with the reason. The list knows vanna's, langchain's and LlamaIndex's reported faults, and
ours was built against it: it shows what a system leaves to its user, not who wins.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OVER, OUTER = 2.5, 10.0
"""Seconds: what counts as running on (a limit of 2 s and the grace that the house allows), when it is stopped."""
PEERS = {
    "vanna": "vanna>=2,<3",
    "langchain": "langchain-community>=0.4",
    "llama_index": "llama-index-core",
    "sqlsaber": "sqlsaber",
}
"""Peer -> what pip installs."""
OURS = ("verbal", "verbal_2s", "sqlite3")
"""Ours with default settings (5 s), ours with a limit of 2 s, and the bound of the times."""
BASE = """
CREATE TABLE t (a INTEGER, b TEXT, c REAL);
INSERT INTO t VALUES (1, 'x', 0.5), (2, 'y', 1.5);
CREATE TABLE u (k INTEGER, a INTEGER);
INSERT INTO u VALUES (1, 1);
CREATE TABLE n (k INTEGER);
WITH RECURSIVE s (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM s WHERE k < 1000) INSERT INTO n SELECT k FROM s;
"""
ENDLESS = {
    "recursive CTE": "SELECT count(*) FROM"
    " (WITH RECURSIVE s (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM s) SELECT k FROM s)",
    "cross join": "SELECT count(*) FROM n w, n x, n y, n z WHERE w.k + x.k + y.k + z.k = 7777777",
}
MANY = "SELECT x.k, y.k AS j FROM n x, n y"
"""A million rows."""
FORMS = {
    "starts with WITH": "WITH s AS (SELECT * FROM t) SELECT a, b FROM s",
    "starts with a -- comment": "-- all of it\nSELECT a, b FROM t",
    "starts with a /* comment */": "/* all of it */ SELECT a, b FROM t",
    "SELECT without a space after it": "SELECT*FROM (SELECT a, b FROM t)",
    "two columns of one name": "SELECT a, a FROM t",
}
"""Queries that give two rows of two columns."""
QUERIES = (
    "SELECT count(*) FROM Track WHERE TrackId > {n}",
    "SELECT Name FROM Artist WHERE ArtistId > {n} ORDER BY Name LIMIT 10",
    "SELECT Title FROM Album WHERE ArtistId = {n}",
    "SELECT FirstName, LastName, Email FROM Customer WHERE CustomerId <> {n}",
    "SELECT Country, count(*) AS n FROM Customer WHERE CustomerId <> {n} GROUP BY Country ORDER BY n DESC",
    "SELECT sum(Total) FROM Invoice WHERE InvoiceId > {n}",
    "SELECT BillingCountry, sum(Total) AS s FROM Invoice WHERE InvoiceId > {n} GROUP BY 1 ORDER BY s DESC LIMIT 5",
    "SELECT strftime('%Y-%m', InvoiceDate) AS m, sum(Total) AS s FROM Invoice WHERE InvoiceId > {n} GROUP BY m",
    "SELECT g.Name, count(*) AS n FROM Track t JOIN Genre g ON g.GenreId = t.GenreId"
    " WHERE t.TrackId > {n} GROUP BY g.Name",
    "SELECT a.Title, r.Name FROM Album a JOIN Artist r ON r.ArtistId = a.ArtistId WHERE a.AlbumId > {n} LIMIT 50",
    "SELECT Name, Milliseconds FROM Track WHERE TrackId > {n} ORDER BY Milliseconds DESC LIMIT 20",
    "SELECT avg(Milliseconds) FROM Track WHERE GenreId = 1 AND TrackId > {n}",
    "SELECT Name FROM Track WHERE Name LIKE '%love%' AND TrackId > {n}",
    "SELECT c.LastName, sum(i.Total) AS s FROM Customer c JOIN Invoice i ON i.CustomerId = c.CustomerId"
    " WHERE i.InvoiceId > {n} GROUP BY c.CustomerId ORDER BY s DESC LIMIT 10",
    "SELECT e.LastName, count(c.CustomerId) AS n FROM Employee e LEFT JOIN Customer c ON c.SupportRepId = e.EmployeeId"
    " WHERE e.EmployeeId <> {n} GROUP BY e.EmployeeId",
    "SELECT Name FROM Artist WHERE ArtistId NOT IN (SELECT ArtistId FROM Album) AND ArtistId > {n}",
    "SELECT m.Name, max(t.Bytes) AS b FROM Track t JOIN MediaType m ON m.MediaTypeId = t.MediaTypeId"
    " WHERE t.TrackId > {n} GROUP BY m.Name",
    "SELECT p.Name, count(*) AS n FROM Playlist p JOIN PlaylistTrack x ON x.PlaylistId = p.PlaylistId"
    " WHERE x.TrackId > {n} GROUP BY p.PlaylistId",
    "SELECT DISTINCT Composer FROM Track WHERE Composer IS NOT NULL AND TrackId > {n} LIMIT 100",
    "SELECT * FROM Invoice WHERE InvoiceId > {n}",
)


class Worker:
    """A process of bench/sql_peers_worker.py; one that was stopped is started again at the next query."""

    def __init__(self, kind: str, python: str) -> None:
        """Starts it. `version` is None where it says why it cannot take part: `reason`."""
        self._command = [python, str(HERE / "sql_peers_worker.py"), kind]
        self.version: str | None = None
        self.reason: str | None = None
        self._start()

    def run(self, db: Path, sql: str, seconds: float = 60.0) -> dict[str, Any]:
        """What the system makes of a query; `killed` where it ran on for `seconds`, `died` where its process ended."""
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"folder": str(db.parent), "db": str(db), "sql": sql}) + "\n")
        line = self._line(seconds)
        if line:
            return dict(json.loads(line))
        self.close()
        if line is None:
            return {"seconds": seconds, "error": "stopped from outside", "killed": True}
        return {"seconds": 0.0, "error": "its process ended", "died": True}

    def close(self) -> None:
        """Ends the process and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()

    def _start(self) -> None:
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            bufsize=1, env=environ, start_new_session=True,
        )  # fmt: skip
        line = self._line(120.0)
        told = json.loads(line) if line else {"reason": "its process did not start"}
        self.version, self.reason = told.get("version"), told.get("reason")

    def _line(self, seconds: float) -> str | None:
        """A line of its output; None where none came in time, empty where its process ended."""
        stream = self._process.stdout
        assert stream is not None
        return stream.readline() if select.select([stream], [], [], seconds)[0] else None


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="the peers' own virtual environment")
    parser.add_argument("--install", action="store_true", help="make it, with pip")
    parser.add_argument("--data", default=os.environ.get("VERBAL_DATA"), help="the folder that holds extra/")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sql_peers.json")
    options = parser.parse_args()
    venv = options.venv.absolute() if options.venv else None
    workers, found = started(venv, installed(venv) if venv and options.install else {})
    try:
        attacks = [json.loads(x) for x in (HERE / "data" / "attacks.jsonl").read_text(encoding="utf-8").splitlines()]
        queries = [a["sql"] for a in attacks if a["dialect"] == "sqlite"]
        for name, worker in workers.items():
            if name != "sqlite3":
                found[name] |= attacked(worker, queries) | pressed(worker)
        times(workers, found, options.data, options.rounds)
    finally:
        for worker in workers.values():
            worker.close()
    compared = "each system's own call that runs SQL, default settings, SQLite; bare execution, no model"
    result = {"compared": compared, "cpus": os.cpu_count(), "over_s": OVER, "stopped_s": OUTER, "peers": found}
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(found))


def installed(venv: Path) -> dict[str, str]:
    """Makes the environment; peer -> why pip does not install it."""
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    reasons = {}
    for name, package in PEERS.items():
        command = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = [
                x.removeprefix("ERROR: ") for x in done.stderr.splitlines() if x.startswith("ERROR") and len(x) < 200
            ]
            wants = sorted(set(re.findall(r"Requires-Python ([^\s;]+)", done.stderr)))
            reasons[name] = (
                f"pip: {last[-1] if last else 'failed'}{'; asks for Python ' if wants else ''}{', '.join(wants)}"
            )
    return reasons


def started(venv: Path | None, reasons: dict[str, str]) -> tuple[dict[str, Worker], dict[str, dict[str, Any]]]:
    """The systems that run, and the first figures of all."""
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in (*PEERS, *OURS):
        if name in PEERS and venv is None:
            found[name] = {"version": None, "reason": "no --venv was given"}
            continue
        if name in reasons:
            found[name] = {"version": None, "reason": reasons[name]}
            continue
        worker = Worker(name, sys.executable if name in OURS or venv is None else str(venv / "bin" / "python"))
        found[name] = {"version": worker.version, **({"reason": worker.reason} if worker.reason else {})}
        if worker.version is None:
            worker.close()
        else:
            workers[name] = worker
    return workers, found


def attacked(worker: Worker, queries: Sequence[str]) -> dict[str, Any]:
    """What attacks changed, and which ran on."""
    written, over, made, died = [], [], 0, []
    for sql in queries:
        with tempfile.TemporaryDirectory() as folder:
            db = fresh(Path(folder))
            before = files(db.parent)
            seen = worker.run(db, sql, OUTER)
            after = files(db.parent)
            written += [sql] if after != before else []
            made += len(after.keys() - before.keys())
            over += [sql] if seen["seconds"] > OVER else []
            died += [sql] if seen.get("died") else []
    return {
        "attacks": len(queries), "changed": len(written), "new_files": made, "attacks_over_time": len(over),
        "changed_by": written, "ran_over_time": over, "ended_the_process": died,
    }  # fmt: skip


def pressed(worker: Worker) -> dict[str, Any]:
    """What came of endless queries, of a million rows, and of results that are easily lost."""
    with tempfile.TemporaryDirectory() as folder:
        db = fresh(Path(folder))
        endless = {name: worker.run(db, sql, OUTER) for name, sql in ENDLESS.items()}
        many = worker.run(db, MANY)
        forms = {name: worker.run(db, sql) for name, sql in FORMS.items()}
    lost = {n: s["error"] or f"{s['rows']} x {s['columns']}, not 2 x 2" for n, s in forms.items() if shape(s) != (2, 2)}
    return {
        "endless_s": {name: round(seen["seconds"], 2) for name, seen in endless.items()},
        "over_time": sum(seen["seconds"] > OVER for seen in endless.values()),
        "killed": sum(bool(seen.get("killed")) for seen in endless.values()), "of_endless": len(ENDLESS),
        "rows_of_a_million": many.get("rows"), "says_rows_were_cut": many.get("cut"),
        "million_rows_s": round(many["seconds"], 2), "lost": len(lost), "of_forms": len(FORMS), "lost_results": lost,
    }  # fmt: skip


def shape(seen: dict[str, Any]) -> tuple[int, int] | None:
    """Rows and columns; None where there was an error."""
    return None if seen["error"] else (seen["rows"], seen["columns"])


def fresh(folder: Path) -> Path:
    """A small database in a folder of its own."""
    path = folder / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(BASE)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def times(workers: dict[str, Worker], found: dict[str, dict[str, Any]], data: str | None, rounds: int) -> None:
    """Adds p50_ms, p95_ms and ratio_ours: our p50 over theirs, above 1 where ours is slower."""
    db = Path(data) / "extra" / "chinook.sqlite" if data else None
    taking = [name for name in workers if name != "verbal_2s"]
    if db is None or not db.is_file():
        print("times skipped: no data (give --data DIR, the folder that holds extra/chinook.sqlite)")
        for name in taking:
            found[name] |= {"p50_ms": None, "ratio_ours": None, "p50_reason": "no data was given"}
        return
    taken: dict[str, list[float]] = {name: [] for name in taking}
    for turn in range(-1, rounds):  # the first round opens databases and is not counted
        for query in QUERIES:
            counts = {}
            for at in range(len(taking)):
                name = taking[(at + turn) % len(taking)]
                seen = workers[name].run(db.resolve(), query.format(n=turn + 2))
                if seen["error"]:
                    raise SystemExit(f"{name}: {query}: {seen['error']}")
                counts[name] = seen["rows"]
                taken[name] += [seen["seconds"] * 1e3] if turn >= 0 else []
            if len(set(counts.values())) > 1:
                raise SystemExit(f"not as many rows from all: {query}: {counts}")
    ours = statistics.median(taken["verbal"])
    for name, those in taken.items():
        p50, p95 = statistics.median(those), sorted(those)[int(0.95 * len(those))]
        found[name] |= {"calls": len(those), "p50_ms": round(p50, 3), "p95_ms": round(p95, 3)}
        found[name]["ratio_ours"] = round(ours / p50, 2)


def table(found: dict[str, dict[str, Any]]) -> str:
    """The figures for a terminal."""
    keys = ["attacks", "changed", "new_files", "over_time", "killed", "rows_of_a_million", "lost", "p50_ms"]
    keys.append("ratio_ours")
    lines = [f"{'':28}" + "".join(f"{k:>{len(k) + 2}}" for k in keys)]
    for name, made in found.items():
        head = f"{made['version'] or name}{' (2 s)' if name == 'verbal_2s' else ''}"
        if made.get("reason"):
            lines.append(f"{head:28}  does not take part: {made['reason']}")
        else:
            cells = ("-" if made.get(k) is None else str(made[k]) for k in keys)
            lines.append(f"{head:28}" + "".join(f"{c:>{len(k) + 2}}" for k, c in zip(keys, cells, strict=True)))
    lines += [
        f"over_time: of {len(ENDLESS)} endless queries, those that ran for more than {OVER:g} s; killed: that still"
    ]
    lines += [f"ran after {OUTER:g} s. lost: of {len(FORMS)} good queries. ratio_ours: our p50 over theirs."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
