"""SQLite queries for another engine: sqlglot's translation, with what only the schema can tell.

SQLite forgives what other engines refuse: literals in double quotes, columns that are neither grouped nor aggregated,
texts compared with numbers, averages of texts, scalar subqueries of many rows. Each rewrite here says in the other
engine what SQLite does. It needs the tables as the target holds them (names and types); nothing is run.

    transpile('SELECT name FROM t WHERE city = "Rome"', tables, write="duckdb").sql
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .schema import Table
from .transpile_groups import distinct_order, set_operation, ungrouped
from .transpile_types import Kind, Scope, functions, held_kind, kind_of, types


@dataclass(frozen=True, slots=True)
class Translation:
    """A query in another dialect."""

    sql: str
    rewrites: tuple[str, ...]
    """Names of the rewrites that changed something, in order."""


def transpile(
    sql: str,
    tables: Sequence[Table],
    *,
    target: Sequence[Table] | None = None,
    read: str = "sqlite",
    write: str = "duckdb",
) -> Translation:
    """The query `sql`, written for another engine with the same tables.

    Args:
        sql: One query.
        tables: As SQLite declares them.
        target: As the other engine holds them (names and types); as `tables` when not given.
        read: sqlglot's name of its dialect; only SQLite's gets more than sqlglot's own translation.
        write: `duckdb`, `postgres` or `mysql`.

    Raises:
        sqlglot.errors.SqlglotError: it cannot be read.
    """
    import sqlglot

    work = _Work(tables, target or tables, write)
    tree = sqlglot.parse_one(sql, read=read)
    if read == "sqlite":
        tree = work.query(tree, None)
    return Translation(tree.sql(dialect=write), tuple(work.done))


class _Work:
    """One translation under way."""

    def __init__(self, tables: Sequence[Table], target: Sequence[Table], write: str) -> None:
        from sqlglot import exp

        self.exp: Any = exp
        self.write = write
        self.done: list[str] = []
        declared = {(t.name.lower(), c.name.lower()): c.type for t in tables for c in t.columns}
        self.tables: dict[str, tuple[str, dict[str, tuple[str, Kind]]]] = {}
        for table in target:
            columns = {
                c.name.lower(): (c.name, held_kind(declared.get((table.name.lower(), c.name.lower()), c.type), c.type))
                for c in table.columns
            }
            self.tables[table.name.lower()] = (table.name, columns)
        self.ctes: dict[str, dict[str, tuple[str, Kind]]] = {}

    def note(self, name: str) -> None:
        """Remembers that a rewrite changed something."""
        if name not in self.done:
            self.done.append(name)

    # queries, from inside out ---------------------------------------------------------------------------------------

    def query(self, node: Any, outer: Scope | None) -> Any:
        """A query and all in it, rewritten in place; gives the node that stands for it."""
        exp = self.exp
        for cte in [*(node.args["with_"].expressions if node.args.get("with_") else ())]:
            self.query(cte.this, outer)
            self.ctes[cte.alias.lower()] = self.shape(cte.this)
        if isinstance(node, exp.SetOperation):
            self.query(node.left, outer)
            self.query(node.right, outer)
            set_operation(self, node)
            return node
        if isinstance(node, exp.Subquery):
            self.query(node.this, outer)
            return node
        if isinstance(node, exp.Select):
            self._select(node, outer)
        return node

    def _select(self, select: Any, outer: Scope | None) -> None:
        exp = self.exp
        scope = Scope(outer=outer)
        for source in self._sources(select):
            if isinstance(source, exp.Subquery):
                self.query(source.this, outer)
                if not source.alias:
                    name = f"derived_{len(scope.sources)}"
                    source.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
                scope.sources[source.alias.lower()] = self.shape(source.this)
            elif isinstance(source, exp.Table):
                self._table(source, scope)
        for column in self.own(select, exp.Column):
            self._column(column, scope, select)
        for inner in [*self.own(select, exp.Query)]:
            self.query(inner, scope)
            self._scalar(inner)
        types(self, select, scope)
        functions(self, select, scope)
        ungrouped(self, select, scope)
        distinct_order(self, select)

    def _sources(self, select: Any) -> Iterator[Any]:
        found = select.args.get("from_")
        if found is not None:
            yield found.this
        for join in select.args.get("joins") or ():
            yield join.this

    def own(self, select: Any, kind: Any) -> Iterator[Any]:
        """Nodes of a kind that belong to this SELECT, not to a query inside it (whose own node is given)."""
        exp = self.exp
        stack = [v for k, v in select.args.items() if k != "with_"]
        sources = {id(s) for s in self._sources(select) if isinstance(s, exp.Subquery)}
        while stack:
            node = stack.pop()
            if isinstance(node, list):
                stack.extend(node)
            elif isinstance(node, exp.Expression):
                if id(node) in sources:
                    continue
                if isinstance(node, kind):
                    yield node
                if not isinstance(node, exp.Query) or isinstance(node, exp.Subquery):
                    stack.extend(node.args.values())

    def shape(self, query: Any) -> dict[str, tuple[str, Kind]]:
        """Output columns of a query: name in small letters -> (name, kind)."""
        exp = self.exp
        while isinstance(query, exp.Subquery):
            query = query.this
        first = query
        while isinstance(first, exp.SetOperation):
            first = first.left
        found: dict[str, tuple[str, Kind]] = {}
        scope = first.meta.get("scope")
        for item in getattr(first, "selects", ()):
            if isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star)):
                for columns in scope.sources.values() if scope else ():
                    found.update(columns)
            else:
                found[item.alias_or_name.lower()] = (item.alias_or_name, kind_of(self, item, scope))
        return found

    # names ----------------------------------------------------------------------------------------------------------

    def _table(self, table: Any, scope: Scope) -> None:
        name = table.name.lower()
        alias = (table.alias or table.name).lower()
        if name in self.ctes:
            scope.sources[alias] = self.ctes[name]
        elif name in self.tables:
            real, columns = self.tables[name]
            scope.sources[alias] = columns
            table.set("this", self.exp.to_identifier(real, quoted=True))
            table.set("db", None)
        else:
            scope.sources[alias] = {}
        if table.args.get("alias"):
            table.args["alias"].set("this", self.exp.to_identifier(alias, quoted=True))
        elif name not in self.ctes and table.name.lower() != table.name and self.write == "postgres":
            table.set("alias", self.exp.TableAlias(this=self.exp.to_identifier(alias, quoted=True)))

    def _column(self, column: Any, scope: Scope, select: Any) -> None:
        """A column by its name in the target; a double-quoted name that is none becomes a literal."""
        exp = self.exp
        if isinstance(column.this, exp.Star):
            if column.table:
                column.set("table", exp.to_identifier(column.table.lower(), quoted=True))
            return
        name, table = column.name.lower(), column.table.lower()
        found = scope.find(table, name)
        aliases = {item.alias.lower(): item.alias for item in select.selects if item.alias}
        if found is not None:
            column.set("this", exp.to_identifier(found[1], quoted=True))
            if table:
                column.set("table", exp.to_identifier(table, quoted=True))
            elif self._ambiguous(name, scope):
                column.set("table", exp.to_identifier(found[0], quoted=True))
        elif not table and name in aliases:
            self._alias(column, select, name)
        elif not table and isinstance(column.this, exp.Identifier) and column.this.quoted:
            self.note("quoted literal")
            column.replace(exp.Literal.string(column.name))

    def _ambiguous(self, name: str, scope: Scope) -> bool:
        return sum(name in columns for columns in scope.sources.values()) > 1

    def _alias(self, column: Any, select: Any, name: str) -> None:
        """An alias in WHERE, GROUP BY or HAVING stands for what it names."""
        exp = self.exp
        if column.find_ancestor(exp.Where, exp.Having, exp.Group, exp.Join) is None:
            order = column.parent
            if isinstance(order, exp.Ordered):
                return  # a bare alias in ORDER BY is understood everywhere
        item = next(i for i in select.selects if i.alias.lower() == name)
        self.note("alias")
        column.replace(exp.paren(item.this.copy()) if isinstance(item.this, exp.Binary) else item.this.copy())

    # shapes ---------------------------------------------------------------------------------------------------------

    def _scalar(self, query: Any) -> None:
        """A subquery that stands for one value gives the first of its rows."""
        exp = self.exp
        place = query.parent
        if not isinstance(place, exp.Subquery) or isinstance(place.parent, exp.In | exp.Exists | exp.From | exp.Join):
            return
        if isinstance(query, exp.Select) and query.args.get("limit") is None:
            alone = not query.args.get("group") and any(item.find(exp.AggFunc) for item in query.selects)
            if not alone:
                self.note("first row")
                query.set("limit", exp.Limit(expression=exp.Literal.number(1)))
