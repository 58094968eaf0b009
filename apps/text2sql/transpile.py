"""SQLite queries for another engine: sqlglot's translation, with what only the schema can tell.

SQLite forgives what other engines refuse or read differently: texts in double quotes, columns that are neither grouped
nor aggregated, texts compared with numbers, subqueries of many rows, whole numbers that divide to whole numbers. Each
rewrite (`REWRITES`) says in the other engine what SQLite does. Nothing is run; the tables' names and types are needed.

    made = transpile('SELECT name FROM t WHERE city = "Rome"', database.tables, write="duckdb")
    made.sql            # SELECT "t"."name" FROM "t" WHERE "t"."city" = 'Rome'
    made.rewrites       # ("double-quoted text",)

What is not said: rows that SQLite itself leaves open (ties, the first of equal rows), values of the types text and
number in one column (they are texts in the target), column collations, letters beyond ASCII where case is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from verbal.errors import ConfigError, DataError

from . import transpile_groups as groups
from . import transpile_values as values
from .transpile_dates import date_function
from .transpile_names import Names, Schema
from .transpile_types import Work

REWRITES: dict[str, str] = {
    "double-quoted text": "a name in double quotes that no column has is a text",
    "alias": "WHERE, GROUP BY and HAVING may name an alias",
    "row number": "rowid is the whole-number primary key",
    "affinity": "texts and numbers that meet are converted by affinity, else a number is less than a text",
    "byte order": "texts are compared byte by byte, not in the order of a language",
    "numbers before texts": "a column that holds both is sorted numbers first",
    "NOCASE": "COLLATE NOCASE compares without regard to case",
    "condition": "a number is a condition: true unless 0",
    "truth value": "a condition is a number: 1 or 0",
    "number of a text": "sums, means and arithmetic read the number that a text begins with",
    "text of a number": "functions of texts take numbers as they are written",
    "whole division": "whole numbers divide to a whole number",
    "division by zero": "division by zero gives NULL",
    "ROUND": "halves are rounded away from zero, to any number of digits",
    "CAST": "a cast to a whole number cuts, and reads the number that a text begins with",
    "TOTAL": "TOTAL of nothing is 0.0",
    "LIKE": "LIKE knows no case, and no escape that is not named",
    "end of a text": "a negative start counts from the end",
    "one kind": "values of one expression or column may be texts and numbers",
    "date function": "dates are texts, and so are modifiers",
    "loose GROUP BY": "a column that is neither grouped nor aggregated comes from one row of the group",
    "GROUP BY a constant": "a constant makes one group",
    "ORDER BY a constant": "a constant orders nothing",
    "order of DISTINCT": "DISTINCT may be ordered by what is not selected",
    "first row": "a subquery of many rows is the value of the first",
    "join condition": "a condition may name a table that is joined later",
    "LIMIT": "a negative limit is none",
}
"""Name -> what SQLite does, and other engines do not."""

WRITTEN = ("duckdb", "postgres", "mysql")
"""sqlglot's names of the dialects that are written."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A query in another dialect."""

    sql: str
    rewrites: tuple[str, ...]
    """Names of the rewrites (`REWRITES`) that changed something, in the order in which they first did."""


def transpile(
    sql: str,
    tables: Schema,
    *,
    target: Schema | None = None,
    read: str = "sqlite",
    write: str = "duckdb",
) -> Translation:
    """The query `sql`, written for another engine that holds the same tables.

    Args:
        sql: One query, which runs on SQLite.
        tables: As SQLite declares them: records such as `Database.tables`, or table -> column -> type.
        target: As the other engine holds them (names and types); as `tables` when not given.
        read: `sqlite`; from another dialect there is no more than sqlglot's own translation, in which nothing is noted.
        write: `duckdb`, `postgres` or `mysql`.

    Raises:
        DataError: it cannot be read, or is not one query.
        ConfigError: no such dialect is written.
    """
    import sqlglot
    from sqlglot import exp

    if write not in WRITTEN:
        raise ConfigError(f"no rewrites for the dialect {write!r}", where="write", todo=f"use {', '.join(WRITTEN)}")
    try:
        trees = [tree for tree in sqlglot.parse(sql, read=read) if tree is not None]
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        what = str(error).splitlines()[0] if str(error) else "it is nested too deeply"
        raise DataError(f"the query cannot be read: {what}", where=sql[:200], todo="give a query of SQLite") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise DataError("one query is needed", where=sql[:200], todo="give one SELECT")
    tree: Any = trees[0]
    work = _Work(exp, write)
    if read == "sqlite":
        Names(work, tables, target).resolve(tree)
        tree = _shaped(work, _valued(work, tree))
    return Translation(tree.sql(dialect=write, identify=read == "sqlite"), tuple(work.done))


class _Work:
    """One translation under way."""

    def __init__(self, exp: Any, write: str) -> None:
        self.exp, self.write = exp, write
        self.done: list[str] = []

    def note(self, name: str) -> None:
        """Remembers that a rewrite changed something."""
        if name not in self.done:
            self.done.append(name)


def _valued(work: Work, tree: Any) -> Any:
    """Every expression rewritten, parts before wholes."""
    exp = work.exp
    rewrites = _rewrites(exp)
    for node in reversed([*tree.walk()]):
        for kinds, rewrite in rewrites:
            if isinstance(node, kinds):
                made = rewrite(work, node)
                if made is not None:
                    node.replace(made)
                    break
    return tree


def _rewrites(exp: Any) -> list[tuple[Any, Callable[[Work, Any], Any]]]:
    comparisons = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
    strings = (exp.Lower, exp.Upper, exp.Length, exp.Trim, exp.Replace, exp.Substring, exp.StrPosition, exp.DPipe)
    return [
        (comparisons, values.comparison),
        ((exp.Between,), values.between),
        ((exp.In,), values.within),
        ((exp.Where, exp.Having, exp.Join, exp.And, exp.Or, exp.Not, exp.If), values.condition),
        ((exp.Case,), values.case),
        ((exp.Coalesce, exp.Greatest, exp.Least, exp.Case, exp.If), values.one_kind),
        ((exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod), values.arithmetic),
        ((exp.Neg,), values.negative),
        ((exp.Sum, exp.Avg, exp.Min, exp.Max, exp.GroupConcat), values.aggregate),
        ((exp.Round, exp.Abs), values.rounded),
        ((exp.Cast,), values.cast),
        ((exp.Like,), values.like),
        (strings, values.string),
        ((exp.Collate,), values.collate),
        ((exp.TimeToStr, exp.Anonymous, exp.Date, exp.Time), date_function),
        ((exp.Anonymous,), values.total),
    ]


def _shaped(work: Work, tree: Any) -> Any:
    """Every query rewritten, inner ones before outer ones."""
    exp = work.exp
    for query in reversed([*tree.find_all(exp.Query)]):
        groups.limit(work, query)
        if isinstance(query, exp.Select):
            values.output(work, query)
            groups.joins(work, query)
            groups.order(work, query)
            groups.loose_group(work, query)
            groups.distinct_order(work, query)
            groups.first_row(work, query)
        elif isinstance(query, exp.SetOperation):
            groups.set_operation(work, query)
            groups.order(work, query)
            made = groups.order_of_set(work, query)
            if made is not query:
                if query is tree:
                    tree = made
                else:
                    query.replace(made)
    return tree


__all__ = ["REWRITES", "WRITTEN", "Translation", "transpile"]
