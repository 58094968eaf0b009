"""The second lock: what a query is made of, read before it is run. The first is a connection that can only read.

A query passes when it is exactly one statement, its root is a query, every node of its tree is one that queries are
made of (an allow-list, so that a statement nobody thought of is refused), every function only computes
(`guard_functions.py`), and every table and column is known. Whatever cannot be parsed is refused with its place.

    guard = Guard(database.tables, "sqlite")
    refusal = guard.check("DROP TABLE t")       # Refusal(kind="not_a_query", ...)

Columns are looked up among the tables that the query names, its aliases and its derived columns, without following
scopes: a name that exists nowhere in the query is refused here, one that is merely out of scope by the engine.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from .guard_functions import FUNCTIONS, TABLE_FUNCTIONS
from .schema import Table

MOST_CHARACTERS = 50_000
"""Of a query; a longer one is refused unread."""
DEEPEST = 120
"""Brackets inside brackets; more are refused unread."""
REMEMBERED = 4_096
"""Verdicts kept per guard."""

_QUERY_PARTS = """
Select Union Intersect Except SetOperation Subquery CTE With From Join Where Group Having Order Ordered Limit Offset
Fetch Distinct Qualify Table TableAlias Alias Aliases Star Identifier DataType DataTypeParam Interval IntervalSpan If
Window WindowSpec Values Tuple Lateral Unnest Cube Rollup GroupingSets WithinGroup IgnoreNulls RespectNulls JSONPath
JSONPathRoot JSONPathKey JSONPathSubscript JSONPathPart JSONPathWildcard Var Collate Kwarg OrderedSet
NamedWindow Windows Recursive JSONKeyValue JSONPathSelector JSONPathSlice Slice WithOrdinality Tag Paren LimitOptions
Filter
"""
"""sqlglot's nodes that queries are made of, besides conditions, literals and functions."""
_NEVER = """
Parameter SessionParameter Placeholder PropertyEQ Lock Into Returning Hint Command Pivot TableSample Introducer
SwapTable National
"""
"""Nodes that are conditions or parts to sqlglot and more than that to an engine."""
_SYSTEM = re.compile(r"sqlite_|pg_|information_schema|performance_schema|duckdb_|mysql\b|sys\b", re.IGNORECASE)
_ROWIDS = {"sqlite": {"rowid", "oid", "_rowid_"}, "duckdb": {"rowid"}, "postgres": set(), "mysql": set()}
_EXECUTED = {"mysql": ("!", "M!", "+"), "postgres": (), "duckdb": (), "sqlite": ()}
_MAIN = {"sqlite": {"main"}, "duckdb": {"main", "memory"}, "postgres": {"public"}, "mysql": set()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a query is not run, in words for a model or a person."""

    kind: str
    """An error class as the engines' are: syntax, empty, several_statements, not_a_query, denied, no_such_table,
    no_such_column, too_big."""
    message: str
    line: int = 0
    """From 1; 0 where it is not known."""
    column: int = 0
    todo: str = ""

    def __str__(self) -> str:
        if self.kind in ("no_such_table", "no_such_column"):  # in the engine's words, which models know
            return self.message
        place = f" (line {self.line}, column {self.column})" if self.line else ""
        return f"refused: {self.message}{place}{'; ' + self.todo if self.todo else ''}"


class Guard:
    """Checks queries on one database."""

    def __init__(self, tables: Sequence[Table] | None, dialect: str) -> None:
        """`tables`: what may be asked, None when only the form is checked; `dialect`: sqlglot's name."""
        self._dialect = dialect
        self._tables: dict[str, set[str]] | None = None
        self._spaces = set(_MAIN[dialect])
        if tables is not None:
            self._tables = {}
            for table in tables:
                names = {column.name.casefold() for column in table.columns}
                self._tables.setdefault(table.name.casefold(), set()).update(names)
                self._spaces |= {space.casefold() for space in (getattr(table, "schema", ""),) if space}
        self.check = functools.lru_cache(REMEMBERED)(self._check)

    def _check(self, sql: str) -> Refusal | None:
        """None when `sql` may be run."""
        if len(sql) > MOST_CHARACTERS:
            return Refusal(
                kind="too_big", message=f"the query has {len(sql):,} characters, at most {MOST_CHARACTERS:,}"
            )
        if deepest(sql) > DEEPEST:
            return Refusal(kind="too_big", message=f"brackets are nested more than {DEEPEST} deep", todo="flatten it")
        try:
            return self._read(sql)
        except RecursionError:
            return Refusal(kind="too_big", message="the query is nested too deeply", todo="flatten it")

    def _read(self, sql: str) -> Refusal | None:
        import sqlglot
        from sqlglot import exp

        logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it cannot read is refused, not logged
        try:
            tokens = sqlglot.tokenize(sql, read=self._dialect)
            for token in tokens:  # `LIMIT a % b` is not read; `*` binds as `%` does, so the tree is the same
                if token.token_type == sqlglot.TokenType.MOD:
                    token.token_type = sqlglot.TokenType.STAR
            parsed = sqlglot.Dialect.get_or_raise(self._dialect).parser().parse(tokens, sql)
        except sqlglot.errors.ParseError as error:
            found = error.errors[0] if error.errors else {}
            text = str(found.get("description") or error).splitlines()[0].rstrip(".")
            return Refusal(kind="syntax", message=f"not read: {text}", line=int(found.get("line") or 0),
                           column=int(found.get("col") or 0), todo="write one query in plain SQL")  # fmt: skip
        except sqlglot.errors.SqlglotError as error:
            return Refusal(kind="syntax", message=f"not read: {str(error).splitlines()[0]}", line=1, column=1)
        for comment in (c for token in tokens for c in token.comments):
            if comment.startswith(_EXECUTED[self._dialect] or ("\0",)):
                return Refusal(kind="denied", message="a comment that the engine would run", todo="leave comments out")
        trees = [tree for tree in parsed if tree is not None and not isinstance(tree, exp.Semicolon)]
        if not trees:
            return Refusal(kind="empty", message="there is no statement")
        if len(trees) > 1:
            return Refusal(kind="several_statements", message=f"{len(trees)} statements, one is run", todo="send one")
        tree = trees[0]
        if not isinstance(tree, exp.Query | exp.Values):
            word = (sql.split() or [""])[0].upper()[:20]
            return Refusal(kind="not_a_query", message=f"{word} is no query", todo="only SELECT is run here")
        return next(self._complaints(tree, exp), None)

    def _complaints(self, tree: Any, exp: Any) -> Iterator[Refusal]:
        nodes = list(tree.walk())
        for node in nodes:
            yield from self._node(node, exp)
        ctes = {cte.alias_or_name.casefold() for cte in tree.find_all(exp.CTE)}
        named = (a.alias.casefold() for kind in (exp.Subquery, exp.UDTF) for a in tree.find_all(kind) if a.alias)
        sources: dict[str, set[str] | None] = dict.fromkeys([*ctes, *named])
        derived = _derived(tree, exp)
        for table in tree.find_all(exp.Table):
            refusal = self._table(table, ctes, sources, derived, exp)
            if refusal is not None:
                yield refusal
        if self._tables is not None:
            yield from self._columns(tree, sources, derived, exp)

    def _node(self, node: Any, exp: Any) -> Iterator[Refusal]:
        name = type(node).__name__
        if name in _never() or not (name in _parts() or isinstance(node, exp.Condition | exp.Func)):
            kind = "denied" if isinstance(node, exp.DML | exp.DDL | exp.Into) else "not_a_query"
            line, column = _place(node)
            yield Refusal(
                kind=kind, message=f"{node.key.upper()} is not part of a query here", line=line, column=column
            )
        elif isinstance(node, exp.Func) and not isinstance(node, exp.Binary | exp.Unnest):
            yield from self._function(node, exp)

    def _function(self, node: Any, exp: Any) -> Iterator[Refusal]:
        loose = isinstance(node, exp.Anonymous | exp.AnonymousAggFunc | exp.ParameterizedAgg | exp.CombinedAggFunc)
        names = {node.name.lower()} if loose else {n.lower() for n in node.sql_names()}
        known = FUNCTIONS[self._dialect] | TABLE_FUNCTIONS[self._dialect].keys()
        if names & known or (isinstance(node, exp.Cast | exp.Case)):
            return
        name = min(names)
        near = get_close_matches(name, sorted(known), 3)
        line, column = _place(node)
        yield Refusal(kind="denied", message=f"the function {name} may not be called", line=line, column=column,
                      todo=f"near: {', '.join(near)}" if near else "")  # fmt: skip

    def _table(
        self, table: Any, ctes: set[str], sources: dict[str, set[str] | None], derived: set[str], exp: Any
    ) -> Refusal | None:
        alias = table.alias.casefold()
        line, column = _place(table)
        if not isinstance(table.this, exp.Identifier):
            name = (table.this.name if isinstance(table.this, exp.Anonymous) else table.this.sql_names()[0]).lower()
            given = TABLE_FUNCTIONS[self._dialect].get(name)
            if given is None:
                return Refusal(kind="denied", message=f"{name} may not stand as a table", line=line, column=column)
            sources[alias or name] = None
            derived.update(given, {name})
            return None
        name, space = table.name.casefold(), table.db.casefold()
        known = self._tables is not None and name in self._tables
        if table.catalog or (space and space not in self._spaces) or (_SYSTEM.match(name) and not known):
            shown = ".".join(part.name for part in table.parts)
            return Refusal(kind="denied", message=f"the table {shown} may not be read", line=line, column=column)
        if name in ctes and not space:
            sources[alias or name] = None
        elif self._tables is None:
            if not re.fullmatch(r"[\w $-]+", name):
                return Refusal(kind="denied", message=f"{table.name!r} is no table", line=line, column=column)
            sources[alias or name] = None
        elif not known:
            near = get_close_matches(name, sorted(self._tables), 3)
            return Refusal(kind="no_such_table", message=f"no such table: {table.name}", line=line, column=column,
                           todo=f"near: {', '.join(near)}" if near else "")  # fmt: skip
        else:
            before = sources.get(alias or name, set())  # an alias may stand for other tables in other subqueries
            sources[alias or name] = None if before is None else before | self._tables[name]
            derived.update(self._tables[name])
            derived.add(alias or name)
        return None

    def _columns(
        self, tree: Any, sources: dict[str, set[str] | None], derived: set[str], exp: Any
    ) -> Iterator[Refusal]:
        rowids = _ROWIDS[self._dialect]
        for column in tree.find_all(exp.Column):
            name, owner = column.name.casefold(), column.table.casefold()
            if isinstance(column.this, exp.Star) or name in rowids:
                continue
            quoted = self._dialect == "sqlite" and isinstance(column.this, exp.Identifier) and column.this.quoted
            known = sources.get(owner)
            if owner and owner not in sources and owner not in derived:
                text = f"no such column: {column.table}.{column.name}"
            elif name in (derived if known is None else known) or (quoted and not owner):
                continue  # SQLite takes a double-quoted name that is no column for a text
            else:
                text = f"no such column: {column.table + '.' if column.table else ''}{column.name}"
            near = get_close_matches(name, sorted(derived if known is None else known), 3)
            line, place = _place(column)
            yield Refusal(kind="no_such_column", message=text, line=line, column=place,
                          todo=f"near: {', '.join(near)}" if near else "")  # fmt: skip


@functools.cache
def _parts() -> frozenset[str]:
    return frozenset(_QUERY_PARTS.split())


@functools.cache
def _never() -> frozenset[str]:
    return frozenset(_NEVER.split())


def _derived(tree: Any, exp: Any) -> set[str]:
    """Names that the query itself gives to columns and sources: aliases, column lists of CTEs and derived tables."""
    found = {alias.alias.casefold() for alias in tree.find_all(exp.Alias)}
    for alias in tree.find_all(exp.TableAlias):
        found.update(name.name.casefold() for name in alias.args.get("columns") or ())
        found.add(alias.name.casefold())
    return found


def _place(node: Any) -> tuple[int, int]:
    for part in node.walk():
        if "line" in part.meta:
            return int(part.meta["line"]), int(part.meta["col"])
    return 0, 0


def deepest(sql: str) -> int:
    """How deeply brackets are nested, those in strings and comments included (so never too few)."""
    depth = most = 0
    for sign in re.findall(r"[()\[\]]", sql):
        depth += 1 if sign in "([" else -1
        most = max(most, depth)
    return most


@functools.lru_cache(64)
def _guard(tables: tuple[Table, ...] | None, dialect: str) -> Guard:
    return Guard(tables, dialect)


def check(sql: str, tables: Sequence[Table] | None, dialect: str) -> Refusal | None:
    """None when `sql` may be run on a database with these tables; keep a `Guard` where many are asked."""
    return _guard(None if tables is None else tuple(tables), dialect).check(sql)
