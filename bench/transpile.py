"""Spider's SQLite gold queries on DuckDB and PostgreSQL: with sqlglot alone, and with our rewrites on top.

Each database is loaded into the other engine (a column becomes BIGINT, DOUBLE or text by what it holds), each gold
query is run on both, and the rows are compared (as a multiset, in order where the gold orders). The rewrites were made
while looking at train databases; dev is what was held out. A query whose rows SQLite itself does not determine (ties)
is a class of its own: it is found by letting SQLite scan its tables backwards.

    python bench/transpile.py --data DIR [--step 1]          # PostgreSQL where VERBAL_TEST_POSTGRES names a server,
    .ci/run .venv/bin/python bench/transpile.py --data DIR   # as .ci/run does
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import json
import os
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlglot

from verbal.apps.text2sql.schema import Column, Table, read_catalog
from verbal.apps.text2sql.transpile import transpile
from verbal.rows import compare, is_ordered

HERE = Path(__file__).parent
POSTGRES = {"BIGINT": "BIGINT", "DOUBLE": "DOUBLE PRECISION", "VARCHAR": "TEXT"}


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("VERBAL_DATA"), help="the folder that holds spider/")
    parser.add_argument("--step", type=int, default=1, help="every n-th train question")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "transpile.json")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "spider").is_dir():
        print("skipped: no data (give --data DIR, the folder that holds spider/)")
        return
    spider, found, missing = Path(options.data) / "spider", dict[str, Any](), dict[str, str]()
    for engine, name in (("duckdb", "DuckDB"), ("postgres", "PostgreSQL")):
        if engine == "postgres" and not os.environ.get("VERBAL_TEST_POSTGRES"):
            missing["postgres_same_rows"] = "no server was given (VERBAL_TEST_POSTGRES)"
            continue
        for split, step in (("dev", 1), ("train", options.step)):
            began = time.perf_counter()
            found[f"{engine}_{split}"] = measured = measure(spider, split, step, engine)
            measured["seconds"] = round(time.perf_counter() - began, 1)
            ours, alone = measured["ours"], measured["sqlglot"]
            ratio = ours["same"] / alone["same"]
            print(f"{name} {split}: {measured['queries']} queries; same rows {ours['same']:.4f}, sqlglot alone "
                  f"{alone['same']:.4f}, x{ratio:.2f}; run {ours['ran']:.4f}, sqlglot alone {alone['ran']:.4f}; "
                  f"{measured['us_per_query']} us a query; {ours['classes']}", flush=True)  # fmt: skip
    for engine in ("duckdb", "postgres"):
        dev = found.get(f"{engine}_dev")
        found[f"{engine}_same_rows"] = dev["ours"]["same"] if dev else None
        found[f"{engine}_sqlglot_alone"] = dev["sqlglot"]["same"] if dev else None
    found["missing"] = missing
    options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def measure(spider: Path, split: str, step: int, engine: str) -> dict[str, Any]:
    """Both translations of a split's gold queries on one engine."""
    rows = [json.loads(line) for line in (spider / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()][::step]
    by_db: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_db[row["db_id"]].append(row["query"])
    tallies = {"ours": Tally(), "sqlglot": Tally()}
    spent = 0.0
    for db, queries in by_db.items():
        path = spider / "database" / db / f"{db}.sqlite"
        source = opened(path)
        tables = read_catalog(path)
        target = [typed(source, table, small=engine == "postgres") for table in tables]
        run, close = ENGINES[engine](source, target, db)
        for sql in queries:
            gold = asked(source, sql)
            began = time.perf_counter()
            made = transpile(sql, tables, target=target, write=engine)
            spent += time.perf_counter() - began
            tallies["ours"].add(db, sql, made.sql, gold, run, source, made.rewrites)
            tallies["sqlglot"].add(db, sql, sqlglot.transpile(sql, read="sqlite", write=engine)[0], gold, run, source)
        close()
        source.close()
    return {"queries": len(rows), "databases": len(by_db), "us_per_query": round(spent / len(rows) * 1e6),
            **{name: tally.figures() for name, tally in tallies.items()}}  # fmt: skip


class Tally:
    """What became of queries."""

    def __init__(self) -> None:
        self.ran = self.same = self.total = 0
        self.classes: Counter[str] = Counter()
        self.rewrites: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def add(
        self, db: str, sql: str, made: str, gold: dict[str, Any], run: Callable[[str], Any], source: Any,
        rewrites: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Runs one and files it."""
        self.total += 1
        self.rewrites.update(rewrites)
        try:
            rows = run(made)
        except Exception as error:
            self._fail(f"does not run: {type(error).__name__}", db, sql, made, str(error).splitlines()[0])
            return
        self.ran += 1
        verdict = compare(rows, gold, ordered=is_ordered(sql))
        if verdict.match:
            self.same += 1
        else:
            self._fail(why(verdict.text, rows, gold, sql, source), db, sql, made, verdict.text)

    def _fail(self, name: str, db: str, sql: str, made: str, text: str) -> None:
        self.classes[name] += 1
        if len(self.examples[name]) < 3:
            self.examples[name].append({"db": db, "sqlite": sql, "made": made, "what": text})

    def figures(self) -> dict[str, Any]:
        """Shares and classes."""
        return {"ran": round(self.ran / self.total, 4), "same": round(self.same / self.total, 4),
                "classes": dict(self.classes.most_common()), "rewrites": dict(self.rewrites.most_common()),
                "examples": self.examples}  # fmt: skip


def why(text: str, rows: dict[str, Any], gold: dict[str, Any], sql: str, source: Any) -> str:
    """The class of a difference."""
    source.execute("PRAGMA reverse_unordered_selects = 1")
    backwards = asked(source, sql)
    source.execute("PRAGMA reverse_unordered_selects = 0")
    if not compare(backwards, gold, ordered=is_ordered(sql)).match:
        return "SQLite itself does not determine the rows (ties)"
    if compare(rows, gold).match:
        return "order of equal keys"
    texts = [{**r, "rows": [[str(v) for v in row] for row in r["rows"]]} for r in (rows, gold)]
    if compare(texts[0], texts[1]).match:
        return "a number comes back as text (the column holds both)"
    if "LIMIT" in sql.upper() and len(rows["rows"]) == len(gold["rows"]):
        return "ties at the limit"
    return text.partition(" in column")[0]


# databases ------------------------------------------------------------------------------------------------------------


def opened(path: Path) -> sqlite3.Connection:
    """The SQLite file, read-only."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.text_factory = lambda value: value.decode("utf-8", "replace")
    return connection


def quoted(name: str) -> str:
    """A name in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def typed(source: sqlite3.Connection, table: Table, *, small: bool) -> Table:
    """The table with the types that its cells need elsewhere; names in small letters where that is the custom."""
    columns = []
    for column in table.columns:
        asked_ = f"SELECT DISTINCT typeof({quoted(column.name)}) FROM {quoted(table.name)}"
        kinds = {row[0] for row in source.execute(asked_)} - {"null"}
        declared = column.type.upper()
        real = any(word in declared for word in ("REAL", "FLOA", "DOUB"))
        if not kinds:
            kinds = {"integer"} if "INT" in declared else {"real"} if real else {"text"}
        kind = "VARCHAR" if kinds & {"text", "blob"} else "DOUBLE" if real or "real" in kinds else "BIGINT"
        columns.append(Column(column.name.lower() if small else column.name, kind))
    name = table.name.lower() if small else table.name
    return Table(name, tuple(columns), table.primary_key, table.foreign_keys)


def cells(source: sqlite3.Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    """The rows of a table as the other engine takes them."""
    for row in source.execute(f"SELECT * FROM {quoted(table.name)}"):
        yield tuple(_cell(v, c.type) for v, c in zip(row, table.columns, strict=True))


def _cell(value: Any, kind: str) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value).replace("\0", "") if kind == "VARCHAR" and value is not None else value


def asked(source: sqlite3.Connection, sql: str) -> dict[str, Any]:
    """Columns and rows of a query."""
    cursor = source.execute(sql)
    return {"columns": [c[0] for c in cursor.description], "rows": [list(row) for row in cursor.fetchall()]}


def plain(value: Any) -> Any:
    """A cell as SQLite would give it."""
    if isinstance(value, decimal.Decimal):
        return float(value) if value % 1 else int(value)
    if isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, datetime.date | datetime.time) else value


def in_duckdb(source: sqlite3.Connection, tables: Sequence[Table], db: str) -> tuple[Any, Any]:
    """The tables in DuckDB: how to ask, how to end."""
    import duckdb

    made = duckdb.connect(":memory:", config={"threads": 1})
    for table in tables:
        columns = ", ".join(f"{quoted(c.name)} {c.type}" for c in table.columns)
        made.execute(f"CREATE TABLE {quoted(table.name)} ({columns})")
        rows, names = list(cells(source, table)), [f"c{n}" for n in range(len(table.columns))]
        for at in range(0, len(rows), 2_000):  # lists are unnested into rows: far faster than one INSERT a row
            part = list(zip(*rows[at : at + 2_000], strict=True))
            lists = ", ".join(f"UNNEST(${n}::{c.type}[]) AS {n}" for n, c in zip(names, table.columns, strict=True))
            values = {n: list(v) for n, v in zip(names, part, strict=True)}
            made.execute(f"INSERT INTO {quoted(table.name)} SELECT {lists}", values)

    def run(sql: str) -> dict[str, Any]:
        cursor = made.execute(sql)
        names_ = [c[0] for c in cursor.description]
        return {"columns": names_, "rows": [[plain(v) for v in row] for row in cursor.fetchall()]}

    return run, made.close


def in_postgres(source: sqlite3.Connection, tables: Sequence[Table], db: str) -> tuple[Any, Any]:
    """The tables in a schema of a PostgreSQL server: how to ask, how to end."""
    import psycopg

    made = psycopg.connect(os.environ["VERBAL_TEST_POSTGRES"], autocommit=True)
    space = quoted(f"bench_{db.lower()}")
    made.execute(f"DROP SCHEMA IF EXISTS {space} CASCADE")
    made.execute(f"CREATE SCHEMA {space}")
    made.execute(f"SET search_path TO {space}")
    for table in tables:
        columns = ", ".join(f"{quoted(c.name)} {POSTGRES[c.type]}" for c in table.columns)
        made.execute(f"CREATE TABLE {quoted(table.name)} ({columns})")
        with made.cursor().copy(f"COPY {quoted(table.name)} FROM STDIN") as copy:
            for row in cells(source, table):
                copy.write_row(row)

    def run(sql: str) -> dict[str, Any]:
        cursor = made.execute(sql)
        names = [c.name for c in cursor.description or ()]
        return {"columns": names, "rows": [[plain(v) for v in row] for row in cursor.fetchall()]}

    def close() -> None:
        made.execute(f"DROP SCHEMA {space} CASCADE")
        made.close()

    return run, close


ENGINES: dict[str, Callable[..., tuple[Any, Any]]] = {"duckdb": in_duckdb, "postgres": in_postgres}


if __name__ == "__main__":
    main()
