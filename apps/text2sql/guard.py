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

from .guard_functions import FUNCTIONS, TABLE_FUNCTIONS
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
            names = {column.name.casefold() for column in table.columns}
            self._tables.setdefault(table.name.casefold(), set()).update(names)
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
        named = (n.alias.casefold() for n in nodes if isinstance(n, exp.CTE | exp.Subquery | exp.UDTF))
        sources: dict[str, set[str] | None] = dict.fromkeys(name for name in named if name)
        derived = _derived(nodes, exp)
        for node in nodes:
            if isinstance(node, exp.Table):
                refusal = self._table(node, sources, derived, exp)
                if refusal is not None:
                    yield refusal
        if self._tables is not None:
            yield from self._columns((n for n in nodes if isinstance(n, exp.Column)), sources, derived, exp)

    def _function(self, sql: str, node: Any, exp: Any) -> Iterator[Refusal]:
        loose = isinstance(node, exp.Anonymous | exp.AnonymousAggFunc | exp.ParameterizedAgg | exp.CombinedAggFunc)
        names = {node.name.lower()} if loose else {_plain(n) for n in node.sql_names()}
        of = node.parent.this.name.lower() if isinstance(node.parent, exp.Dot) and node.arg_key == "expression" else ""
        if of not in ("", "pg_catalog") and self._dialect in ("postgres", "mysql"):
            yield _at(node, "denied", f"a function of {of} may not be called")
        if names & self._functions or isinstance(node, exp.Cast | exp.Case) or short_series(node, exp):
            return
        written = sql[node.meta.get("start", 0) : node.meta.get("end", -1) + 1].strip('"`[]').lower()
        if written in self._functions and not loose:
            return
        name = written or node.key
        near = get_close_matches(name, sorted(self._functions), 3)
        yield _at(node, "denied", f"the function {name} may not be called", near)

    def _table(self, table: Any, sources: dict[str, set[str] | None], derived: set[str], exp: Any) -> Refusal | None:
        alias = table.alias.casefold()
        if not isinstance(table.this, exp.Identifier):
            name = (
                table.this.name.lower() if isinstance(table.this, exp.Anonymous) else _plain(table.this.sql_names()[0])
            )
            given = TABLE_FUNCTIONS[self._dialect].get(name)
            if given is None or table.db:
                return _at(table, "denied", f"{name} may not stand as a table")
            sources[alias or name] = None
            derived.update(given, {name})
            return None
        name, space = table.name.casefold(), table.db.casefold()
        shown = ".".join(part.name for part in table.parts)
        if not space and ctes_seen(table, self._dialect, exp):
            sources[alias or name] = None
            return None
        full = f"{space}.{name}" if space and space not in self._spaces else name
        known = not table.catalog and self._tables is not None and full in self._tables
        if not known and (table.catalog or full != name or _SYSTEM.match(name)):
            return _at(table, "denied", f"the table {shown} may not be read", self._near(full))
        if name == "dual" and self._dialect == "mysql" and full == name and not known:
            return None
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
            name, owner = column.name.casefold(), column.table.casefold()
            if isinstance(column.this, exp.Star) or name in rowids:
                continue
            if self._dialect == "duckdb" and owner not in sources and column.parts[0].name.casefold() in derived:
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


def _plain(name: str) -> str:
    """A function's name as engines write it: sqlglot makes `J_S_O_N_B_OBJECT_AGG` of the name of a class."""
    return name.lower().replace("j_s_o_n_b_", "jsonb_").replace("j_s_o_n_", "json_").replace("exploding_", "")


def _at(node: Any, kind: str, message: str, near: Sequence[str] = ()) -> Refusal:
    line, column = node_place(node)
    todo = f"near: {', '.join(near)}" if near else ""
    return Refusal(kind=kind, message=message, line=line, column=column, todo=todo)


def _derived(nodes: Iterable[Any], exp: Any) -> set[str]:
    """Names that the query itself gives to columns and sources: aliases, column lists, parameters of lambdas."""
    found = set()
    for node in nodes:
        if isinstance(node, exp.Alias):
            found.add(node.alias.casefold())
        elif isinstance(node, exp.TableAlias):
            found.update(name.name.casefold() for name in node.args.get("columns") or ())
            found.add(node.name.casefold())
        elif isinstance(node, exp.Lambda):
            found.update(name.name.casefold() for name in node.expressions)
        elif isinstance(node, exp.Comprehension):
            found.add(node.expression.name.casefold())
        elif isinstance(node, exp.Values) and node.expressions:  # as engines name them
            width = len(node.expressions[0].expressions)
            found.update(f"{word}{number}" for number in range(width + 1) for word in ("column", "col", "column_"))
    return found


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
