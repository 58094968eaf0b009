"""Attacks for guard.py: the list, write tasks on their own tables, gold queries with something put into them, soups.

A soup is a query of signs that parsers and engines may read differently (comments, quotes, braces), with a call of a
function that gives a mark: when one passes the guard, its result must not hold the mark.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
DIALECTS = ("sqlite", "duckdb", "postgres", "mysql")
BASE = (
    "CREATE TABLE t (a INTEGER, b VARCHAR(20), c DOUBLE PRECISION)",
    "INSERT INTO t VALUES (1, 'x', 0.5), (2, 'y', 1.5)",
    "CREATE TABLE u (k INTEGER, a INTEGER)",
    "INSERT INTO u VALUES (1, 1)",
)
"""The database that attacks are aimed at."""
COLUMNS = {"t": ["a", "b", "c"], "u": ["k", "a"]}
_CALLS = {
    "sqlite": ("load_extension('x')", "writefile('o', 'x')", "fts3_tokenizer('x')"),
    "duckdb": ("getenv('HOME')", "current_setting('threads')", "nextval('s')"),
    "postgres": ("pg_sleep(9)", "pg_read_file('x')", "set_config('transaction_read_only', 'off', true)"),
    "mysql": ("SLEEP(9)", "LOAD_FILE('x')", "GET_LOCK('x', 9)"),
}
_WRITE = "DELETE FROM t RETURNING a"
_SIGNS = """/* */ -- -- ' '' " ` [ ] \\ \\' $$ $a$ { } {# #} # {% 1 a E' e' N' U& x' /*! + | ( ) % ; * / {x {x"""
_SPACES = ["\n", "\r", " ", "\t", "\x0b", "\x00", "\u00a0", "\u2028", "-- ", " AS a", " AS a$x$", ", 1", "'x'"]
_ENDS = [
    ", mark()",
    "\n, mark()",
    " mark()",
    "{x mark()}",
    ", mark() */",
    " mark() --'",
    "\n, mark() -- #}",
    ", mark() $$",
]


class Attack(NamedTuple):
    """One statement, where it is from, and the database that it is aimed at."""

    dialect: str
    source: str
    sql: str
    made: tuple[str, ...] = BASE
    columns: dict[str, list[str]] = COLUMNS
    clean: str = ""
    """The query that something was put into, if it was one."""


def listed() -> list[Attack]:
    """`data/attacks.jsonl`."""
    rows = (HERE / "data" / "attacks.jsonl").read_text(encoding="utf-8").splitlines()
    return [Attack(row["dialect"], row["from"], row["sql"]) for row in map(json.loads, rows)]


def write_tasks(data: Path) -> Iterator[Attack]:
    """INSERT and UPDATE tasks of DBBench, on the tables that they are about (in SQLite)."""
    text = (data / "extra" / "dbbench_writes" / "must_refuse.jsonl").read_text(encoding="utf-8")
    for row in map(json.loads, text.splitlines()):
        table, info = row["table"]["table_name"], row["table"]["table_info"]
        columns = [str(column["name"]) for column in info["columns"]]
        names = ", ".join(f"`{name.replace('`', '``')}`" for name in columns)
        quoted = "`" + table.replace("`", "``") + "`"
        made = [f"CREATE TABLE {quoted} ({names})"]
        for line in info["rows"]:
            cells = ", ".join("'" + str(cell).replace("'", "''") + "'" for cell in line)
            made.append(f"INSERT INTO {quoted} VALUES ({cells})")
        label = row["label"] if isinstance(row["label"], list) else [row["label"]]
        for sql in map(str, label):
            yield Attack("sqlite", "DBBench write tasks", sql, tuple(made), {table: columns})


def poisoned(golds: Sequence[str]) -> Iterator[Attack]:
    """Gold queries, about our tables, with a write or a call at every place that a tree has, in every dialect."""
    import sqlglot
    from sqlglot import exp

    for index, gold in enumerate(golds):
        for dialect in DIALECTS:
            tree = _onto_base(sqlglot.parse_one(gold, read="sqlite"))
            sql = tree.sql(dialect=dialect)
            shapes = [f"{sql}; DELETE FROM t", f"DELETE FROM t; {sql}", f"CREATE TABLE s AS {sql}"]
            shapes += [f"{sql} -- x\n; DROP TABLE t", f"/* {sql} */ DELETE FROM t", f"INSERT INTO t (a) {sql}"]
            if isinstance(tree, exp.Select):
                write = sqlglot.parse_one(_WRITE, read="postgres")
                shapes.append(tree.with_("d", as_=write).sql(dialect=dialect))
                call = _CALLS[dialect][index % 3]
                shapes += [made.sql(dialect=dialect) for made in _called(tree, call, dialect)]
            for shape in shapes:
                yield Attack(dialect, "gold with a write or a call", shape, clean=sql)


def _onto_base(tree: Any) -> Any:
    """The same query about `t` and `u`: the form of a real one that runs on the base."""
    from sqlglot import exp

    names: dict[str, str] = {}
    for table in tree.find_all(exp.Table):
        name = names.setdefault(table.name.lower(), "tu"[len(names) % 2])
        table.set("this", exp.to_identifier(name))
    for column in tree.find_all(exp.Column):
        if not isinstance(column.this, exp.Star):
            column.set("this", exp.to_identifier("a"))
        if owner := names.get(column.table.lower()):
            column.set("table", exp.to_identifier(owner))
    return tree


def _called(tree: Any, call: str, dialect: str) -> Iterator[Any]:
    from sqlglot import exp, parse_one

    made = parse_one(f"SELECT {call}", read=dialect).selects[0]
    yield tree.select(made.copy())
    yield tree.where(exp.Is(this=made.copy(), expression=exp.Null()))
    yield tree.order_by(made.copy())
    yield tree.group_by(made.copy())
    yield tree.select(exp.Case(ifs=[exp.If(this=exp.true(), true=made.copy())]))
    yield tree.select(exp.Coalesce(this=made.copy(), expressions=[exp.null()]))
    yield tree.with_("w", as_=exp.select(made.copy()))
    yield exp.union(tree.copy(), exp.select(made.copy()))
    yield exp.select("*").from_(exp.select(made.copy()).subquery("q"))
    yield tree.where(exp.Exists(this=exp.select(made.copy())))


def soups(dialect: str, count: int) -> Iterator[str]:
    """Queries of signs, the same for every run."""
    rng = random.Random(f"soup {dialect}")
    pieces = [*_SIGNS.split(), *_SPACES, "mark()", ", mark() "]
    for _ in range(count):
        yield "SELECT 1" + "".join(rng.choices(pieces, k=rng.randint(1, 8))) + rng.choice(_ENDS)
