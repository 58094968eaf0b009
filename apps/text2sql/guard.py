"""The second lock: what a query is made of, read before it is run. The first is a connection that can only read.

A query passes when it is exactly one statement, its root is a query, every node of its tree is one that queries are
made of (an allow-list, so that a statement nobody thought of is refused), every function only computes
(`guard_functions.py`), and every table and column is known. Whatever cannot be parsed, or is read differently by a
parser and an engine (`guard_reading.py`), is refused with its place.

    guard = Guard(database.tables, "sqlite")
    refusal = guard.check("DROP TABLE t")       # Refusal(kind="not_a_query", ...)

Columns are looked up among the tables that the query names, its aliases and its derived columns, without following
scopes: a name that exists nowhere in the query is refused here, one that is merely out of scope by the engine. So this
keeps a query to the tables, not a reader from some columns of one: that is for the rights of the account.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from .guard_functions import FUNCTIONS, HOMES, TABLE_FUNCTIONS
from .guard_names import called, derived_names, key, lowered
from .guard_tree import Unread, ctes_seen, node_place, short_series, strange, trees
from .schema import Column, Table

MOST_CHARACTERS = 50_000
"""Of a query; a longer one is refused unread."""
DEEPEST = 120
"""Brackets inside brackets; more are refused unread."""
REMEMBERED = 4_096
"""Verdicts kept per guard."""

_SYSTEM = re.compile(
    r"(sqlite_|pg_|duckdb_|pragma_)|(information_schema|performance_schema|mysql|sys|dbstat)\Z", re.IGNORECASE
)
_ROWIDS = {"sqlite": {"rowid", "oid", "_rowid_"}, "duckdb": {"rowid"}, "postgres": set(), "mysql": set()}
_MAIN = {"sqlite": {"main"}, "duckdb": {"main"}, "postgres": {"public"}, "mysql": set()}


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

    def __init__(
        self,
        tables: Sequence[Table] | Mapping[str, Iterable[str]] | None,
        dialect: str,
        *,
        allow: Iterable[str] = (),
    ) -> None:
        """Keeps names only.

        Args:
            tables: What may be asked, as records or as table -> columns; None when only the form is checked.
            dialect: sqlglot's name: sqlite, duckdb, postgres or mysql.
            allow: More functions that may be called, in small letters: you answer for them.
        """
        self._dialect = dialect
        tables_of = TABLE_FUNCTIONS[dialect].keys() - {"generate_series"}  # which `short_series` looks at
        self._functions = FUNCTIONS[dialect] | tables_of | frozenset(allow)
        self._spaces = _MAIN[dialect]
        self._tables: dict[str, set[str]] | None = None if tables is None else {}
        if isinstance(tables, Mapping):
            tables = [Table(name, tuple(Column(column, "") for column in columns)) for name, columns in tables.items()]
        for table in tables or ():
            assert self._tables is not None
            names = {self._named(column.name) for column in table.columns}
            self._tables.setdefault(self._named(table.name), set()).update(names)
        self.check = functools.lru_cache(REMEMBERED)(self._check)

    def _named(self, name: str) -> str:
        """The key of a name that a catalog gives: PostgreSQL's are exact, whatever a query writes."""
        return name if self._dialect == "postgres" else lowered(name)

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
        except Unread as error:
            todo = {"too_big": "flatten it", "denied": "leave it out"}.get(error.kind, "write one query in plain SQL")
            return Refusal(kind=error.kind, message=str(error), line=error.line, column=error.column, todo=todo)
        except RecursionError:
            return Refusal(kind="too_big", message="the query is nested too deeply", todo="flatten it")

    def _read(self, sql: str) -> Refusal | None:
        from sqlglot import exp

        found = trees(sql, self._dialect)
        if not found:
            return Refusal(kind="empty", message="there is no statement")
        if len(found) > 1:
            return Refusal(kind="several_statements", message=f"{len(found)} statements, one is run", todo="send one")
        tree = found[0]
        if not isinstance(tree, exp.Query | exp.Values):
            word = (re.findall(r"[A-Za-z]+", sql) or [""])[0].upper()[:20]
            return Refusal(kind="not_a_query", message=f"{word} is no query", todo="only SELECT is run here")
        return next(self._complaints(sql, tree, exp), None)

    def _complaints(self, sql: str, tree: Any, exp: Any) -> Iterator[Refusal]:
        nodes = list(tree.walk())
        for node in strange(nodes, exp):
            kind = "denied" if isinstance(node, exp.DML | exp.DDL | exp.Into) else "not_a_query"
            yield _at(node, kind, f"{node.key.upper()} is not part of a query here")
        for node in nodes:
            if self._dialect == "sqlite" and isinstance(node, exp.In) and node.args.get("field"):
                yield _at(node, "syntax", "IN without brackets", ["IN (SELECT ...)"])  # it would name a table
            if isinstance(node, exp.Func) and not isinstance(node, exp.Binary | exp.Unnest):
                yield from self._function(sql, node, exp)
            if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func):
                yield from self._home(node, exp)
        sourced = (n for n in nodes if isinstance(n, exp.CTE | exp.Subquery | exp.UDTF))
        named = (key(n.args.get("alias"), self._dialect) for n in sourced)
        sources: dict[str, set[str] | None] = dict.fromkeys(name for name in named if name)
        derived = derived_names(nodes, self._dialect, exp)
        for node in nodes:
            if isinstance(node, exp.Table):
                refusal = self._table(sql, node, sources, derived, exp)
                if refusal is not None:
                    yield refusal
        if self._tables is not None:
            yield from self._columns((n for n in nodes if isinstance(n, exp.Column)), sources, derived, exp)

    def _function(self, sql: str, node: Any, exp: Any) -> Iterator[Refusal]:
        names = called(sql, node, self._dialect, exp)
        known = bool(self._functions.intersection(names)) or isinstance(node, exp.Cast | exp.Case)
        if not known and not short_series(node, exp):
            yield _at(node, "denied", f"the function {names[0]} may not be called", self._close(names[0]))

    def _close(self, name: str) -> list[str]:
        return get_close_matches(name, sorted(self._functions), 3)

    def _home(self, dot: Any, exp: Any) -> Iterator[Refusal]:
        """A function of a schema; in DuckDB `[1].len()` is one too, and `a.len()` may be."""
        parts = list(dot.this.flatten()) if isinstance(dot.this, exp.Dot) else [dot.this]
        if any(isinstance(part, exp.Identifier | exp.Column) for part in parts):
            names = [key(part, self._dialect) for part in parts]
            if len(names) > 1 or names[0] not in HOMES[self._dialect]:
                shown = ".".join(part.name for part in parts)
                yield _at(dot, "denied", f"the function {shown}.{dot.expression.name} may not be called")

    def _table(
        self, sql: str, table: Any, sources: dict[str, set[str] | None], derived: set[str], exp: Any
    ) -> Refusal | None:
        alias, space = key(table.args.get("alias"), self._dialect), key(table.args.get("db"), self._dialect)
        if not isinstance(table.this, exp.Identifier):
            names = called(sql, table.this, self._dialect, exp)
            name = next((name for name in names if name in TABLE_FUNCTIONS[self._dialect]), "")
            if not name or table.catalog or (space and space not in HOMES[self._dialect]):
                return _at(table, "denied", f"{names[0]} may not stand as a table")
            sources[alias or name] = None
            derived.update(TABLE_FUNCTIONS[self._dialect][name], {name})
            return None
        name = key(table.this, self._dialect)
        shown = ".".join(part.name for part in table.parts)
        if not space and ctes_seen(table, self._dialect, exp):
            sources[alias or name] = None
            return None
        full = f"{space}.{name}" if space and space not in self._spaces else name
        known = not table.catalog and self._tables is not None and full in self._tables
        if not known and self._dialect == "mysql" and full == "dual" and not table.this.quoted:
            return None  # no table, as in SELECT 1
        if not known and (table.catalog or full != name or _SYSTEM.match(name)):
            return _at(table, "denied", f"the table {shown} may not be read", self._near(full))
        if self._tables is None:
            if not re.fullmatch(r"[\w $-]+", name):
                return _at(table, "denied", f"{table.name!r} is no table")
            sources[alias or name] = None
        elif not known:
            return _at(table, "no_such_table", f"no such table: {shown}", self._near(full))
        else:
            before = sources.get(alias or name, set())  # an alias may stand for other tables in other subqueries
            sources[alias or name] = None if before is None else before | self._tables[full]
            derived.update(self._tables[full])
            derived.add(alias or name)
        return None

    def _near(self, name: str) -> list[str]:
        return get_close_matches(name, sorted(self._tables or ()), 3)

    def _columns(
        self, columns: Iterable[Any], sources: dict[str, set[str] | None], derived: set[str], exp: Any
    ) -> Iterator[Refusal]:
        rowids = _ROWIDS[self._dialect]
        for column in columns:
            name, owner = key(column.this, self._dialect), key(column.args.get("table"), self._dialect)
            if isinstance(column.this, exp.Star) or name in rowids:
                continue
            if self._dialect == "duckdb" and owner not in sources and key(column.parts[0], self._dialect) in derived:
                continue  # a field of a struct
            quoted = self._dialect == "sqlite" and isinstance(column.this, exp.Identifier) and column.this.quoted
            known = sources.get(owner)
            if owner and owner not in sources and owner not in derived:
                text = f"no such column: {column.table}.{column.name}"
            elif name in (derived if known is None else known) or (quoted and not owner):
                continue  # SQLite takes a double-quoted name that is no column for a text
            else:
                text = f"no such column: {column.table + '.' if column.table else ''}{column.name}"
            near = get_close_matches(name, sorted(derived if known is None else known), 3)
            yield _at(column, "no_such_column", text, near)


def _at(node: Any, kind: str, message: str, near: Sequence[str] = ()) -> Refusal:
    line, column = node_place(node)
    todo = f"near: {', '.join(near)}" if near else ""
    return Refusal(kind=kind, message=message, line=line, column=column, todo=todo)


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
