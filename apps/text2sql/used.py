"""What a query uses of the question it answers, and what it adds: for the limits that stand below an answer.

Three looks, all over the syntax tree and the words, none through a model: words of the question that name a column or a
cell and that the query does not use; literals that no cell of their column is; columns of a condition or an order that
no word of the question speaks of. What cannot be told for certain is not said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .explain import parsed

if TYPE_CHECKING:
    from sqlglot import exp

    from .linking import Linker
    from .schema import Table
    from .values import Database

MOST_TOLD = 3
"""Findings of one kind that are told."""


def unused(words: Mapping[str, Sequence[str]], sql: str, dialect: str) -> list[str]:
    """Columns and cells that a word of the question names, of words that the query uses in no name and no literal.

    Args:
        words: Word of the question -> what it names, the best first.
        sql: The query.
        dialect: sqlglot's name.
    """
    tree = parsed(sql, dialect)
    if tree is None or not words:
        return []
    from sqlglot import exp

    from .clarify import names_word

    said = {node.name for node in tree.find_all(exp.Identifier)}
    said |= {str(node.this).strip("%") for node in tree.find_all(exp.Literal) if node.is_string}
    left = [places[0] for word, places in words.items() if not any(names_word(name, word) for name in said)]
    return list(dict.fromkeys(left))


def strange_literals(sql: str, database: Database, dialect: str) -> list[str]:
    """Texts that a query asks a column for and that no cell of it is, each with the nearest cell there is."""
    found = []
    for column, table, text in _asked_for(sql, database, dialect):
        if database.holds(table.name, column, text) is not False:
            continue
        told = f"{text!r} is not in {table.name}.{column}"
        near = [cell for cell in database.values([text], fuzzy=True) if cell.text != text or cell.column != column]
        near.sort(key=lambda cell: (cell.table != table.name, cell.column != column))
        found.append(told + (f"; {near[0].table}.{near[0].column} has {near[0].text!r}" if near else ""))
    return list(dict.fromkeys(found))[:MOST_TOLD]


def untied(question: str, sql: str, database: Database, dialect: str) -> tuple[list[str], bool]:
    """Columns of conditions and orders that no word speaks of, nor of their table; and whether that goes for it all.

    Returns:
        The columns, and True where words name tables or columns of the database, but none of those the query reads.
    """
    tree = parsed(sql, dialect)
    if tree is None:
        return [], False
    tables, columns = _linker(tuple(database.tables)).named(question, database.values([question], fuzzy=True))
    places = _Places(tree, database)
    found = []
    for column, why in _deciding(tree):
        table = places.table(column)
        if table is None or table.name in tables:
            continue
        name = next((c.name for c in table.columns if c.name.casefold() == column.name.casefold()), column.name)
        if (table.name, name) not in columns:
            found.append(f"{why} {table.name}.{name}")
    read = {table.name for table in places.tables}
    linked = tables | {table for table, _ in columns}
    return list(dict.fromkeys(found))[:MOST_TOLD], bool(read and linked and not read & linked)


@lru_cache(16)
def _linker(tables: tuple[Table, ...]) -> Linker:
    from .linking import Linker

    return Linker(tables)


class _Places:
    """The tables of a query, and which of them a column is of."""

    def __init__(self, tree: exp.Expr, database: Database) -> None:
        from sqlglot import exp

        known = {table.name.casefold(): table for table in database.tables}
        named = [(t.alias_or_name.casefold(), known.get(t.name.casefold())) for t in tree.find_all(exp.Table)]
        self._by_alias: dict[str, set[str]] = {}
        for alias, table in named:
            self._by_alias.setdefault(alias, set()).update({table.name} if table else ())
        self.tables = list({table.name: table for _, table in named if table}.values())

    def table(self, column: exp.Column) -> Table | None:
        """The one table that has the column; None where several or none do."""
        names = self._by_alias.get(column.table.casefold(), set()) if column.table else None
        having = [
            table
            for table in self.tables
            if (names is None or table.name in names)
            and any(c.name.casefold() == column.name.casefold() for c in table.columns)
        ]
        return having[0] if len(having) == 1 else None


def _asked_for(sql: str, database: Database, dialect: str) -> Iterator[tuple[str, Table, str]]:
    """Column, its table and a text that it is compared with for being equal."""
    tree = parsed(sql, dialect)
    if tree is None:
        return
    from sqlglot import exp

    places = _Places(tree, database)
    for test in tree.find_all(exp.EQ, exp.In):
        sides: list[Any] = [test.this, *([test.expression] if isinstance(test, exp.EQ) else test.expressions)]
        columns = [side for side in sides if isinstance(side, exp.Column)]
        texts = [side for side in sides if isinstance(side, exp.Literal) and side.is_string]
        if len(columns) != 1 or (table := places.table(columns[0])) is None:
            continue
        for column in table.columns:
            if column.text and column.name.casefold() == columns[0].name.casefold():
                yield from ((column.name, table, str(text.this)) for text in texts)


def _deciding(tree: exp.Expr) -> Iterator[tuple[exp.Column, str]]:
    """Columns that literals are compared with and columns that rows are put in order by; not what only joins."""
    from sqlglot import exp

    kinds = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.ILike, exp.In, exp.Between)
    for test in tree.find_all(*kinds):
        columns = list(test.find_all(exp.Column))
        if len(columns) == 1 and test.find(exp.Literal) is not None and test.find(exp.Query) is None:
            yield columns[0], "filter on"
    for order in tree.find_all(exp.Order):
        for column in order.find_all(exp.Column):
            if column.find_ancestor(exp.Count, exp.Order) is order:
                yield column, "order by"


__all__ = ["MOST_TOLD", "strange_literals", "untied", "unused"]
