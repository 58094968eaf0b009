"""SQL trees as slot tokens. Keys and join conditions are never written; `a0`, `b0`, `v0` are slots (`slotread.py`)."""

from __future__ import annotations

from dataclasses import replace

from verbal.models.embedded.ast import (
    Arithmetic,
    Both,
    Col,
    Condition,
    Expression,
    Literal,
    Part,
    Predicate,
    Query,
    Unsupported,
    columns_in,
    join_tree,
    used_tables,
)
from verbal.models.embedded.index import SchemaIndex
from verbal.models.embedded.slots import Binding

LIKE = {"contains": ("%", "%"), "starts": ("", "%"), "ends": ("%", ""), "like": ("", "")}
"""Slot operators of LIKE, with what their patterns add before and after the value."""
STAR = 4
"""A table of at least so many columns that are all selected is written as its slot."""
_WORDS = {"not in": "not_in", "is null": "is_null", "is not null": "not_null"}


class Writer:
    """Writes trees as tokens of one prompt's slots."""

    def __init__(self, binding: Binding, new: bool = False) -> None:
        """With `new`, values that the prompt does not hold yet are added to it (SQL inside a prompt)."""
        self.binding = binding
        self.index = binding.index
        self.new = new

    def query(self, query: Query) -> list[str]:
        """Tokens of a query."""
        tokens = [*self._core(query)]
        if query.other is not None:
            tokens += [query.set_op, *self._core(query.other)]
        for place, order in enumerate(query.order_by):
            tokens.append("," if place else "order_by")
            tokens += self.expression(order.by)
            if order.descending:
                tokens.append("desc")
        if query.limit is not None:
            tokens += ["limit", *self.binding.literal(Literal(str(query.limit)), None, self.new)]
        return tokens

    def _core(self, query: Query) -> list[str]:
        tokens = ["select", "distinct"] if query.distinct else ["select"]
        place = 0
        while place < len(query.select):
            table = self._star(query.select, place)
            tokens += [","] * bool(place)
            tokens += self.expression(query.select[place]) if table is None else [self.binding.table(table)]
            place += 1 if table is None else len(self.index.columns_of[table])
        tokens += self._from(query)
        if query.where is not None:
            tokens += ["where", *self.predicate(query.where)]
        for place, column in enumerate(query.group_by):
            number = self._place(column)
            key = self.index.keys.get(number)
            tokens.append("," if place else "group_by")
            tokens.append(self.binding.table(key) if key is not None else self.binding.column(number))
        if query.having is not None:
            tokens += ["having", *self.predicate(query.having)]
        return tokens

    def _star(self, items: tuple[Expression, ...], start: int) -> int | None:
        """The table all of whose columns stand here in order, if it has enough of them to be written as one slot."""
        first = items[start]
        if not isinstance(first, Col):
            return None
        table = self._table(first.table)
        columns = [self.index.columns[place] for place in self.index.columns_of[table]]
        return table if len(columns) >= STAR and list(items[start : start + len(columns)]) == columns else None

    def _from(self, query: Query) -> list[str]:
        tables = used_tables(query)
        full = {name for name, _ in join_tree(self.index.schema, tables, query.via)}
        used = used_tables(replace(query, tables=()))
        for name in tables:
            rest = tuple(other for other in tables if other != name)
            if name not in used and rest and len(tables) > 1:
                tree = {table for table, _ in join_tree(self.index.schema, rest, query.via)}
                tables = rest if tree == full else tables
        tokens = ["from", *(self.binding.table(self._table(name)) for name in tables)]
        if query.via and join_tree(self.index.schema, tables) != join_tree(self.index.schema, tables, query.via):
            tokens += ["on", *(self.binding.column(self._place(column)) for column in query.via)]
        return tokens

    def _table(self, name: str) -> int:
        if name not in self.index.table_ids:
            raise Unsupported(f"no table {name!r} in the schema")
        return self.index.table_ids[name]

    def _place(self, column: Col) -> int:
        if column not in self.index.column_ids:
            raise Unsupported(f"no column {column.table}.{column.name} in the schema")
        return self.index.column_ids[column]

    def expression(self, item: Expression, column: int | None = None) -> list[str]:
        """Tokens of an expression; `column` is what a literal is compared with."""
        if isinstance(item, Col):
            return [self.binding.column(self._place(item))]
        if isinstance(item, Literal):
            return [*self.binding.literal(item, column, self.new)]
        if isinstance(item, Part):
            return [item.unit, *self.expression(item.column)]
        if isinstance(item, Arithmetic):
            return ["(", *self.expression(item.left), item.op, *self.expression(item.right), ")"]
        inside = ["*"] if item.argument is None else self.expression(item.argument)
        return [item.function, *(["distinct"] if item.distinct else []), *inside]

    def predicate(self, item: Predicate, outer: str = "") -> list[str]:
        """Tokens of a condition; brackets only for `or` inside `and`."""
        if isinstance(item, Both):
            tokens: list[str] = []
            for place, part in enumerate(item.parts):
                tokens += [item.connective] * bool(place) + self.predicate(part, item.connective)
            return ["(", *tokens, ")"] if (outer, item.connective) == ("and", "or") else tokens
        return self._condition(item)

    def _condition(self, item: Condition) -> list[str]:
        column = next((self._place(col) for col in columns_in(item.left)), None)
        left = self.expression(item.left)
        right = item.right
        if right is None:
            return [*left, _WORDS[item.op]]
        if isinstance(right, Query):
            return self._nested(item, left, right)
        if item.op in ("like", "not like") and isinstance(right, Literal):
            return [*left, *self._like(item.op, right, column)]
        if isinstance(right, tuple):
            first = self.expression(right[0], column)
            if item.op == "between":
                return [*left, "between", *first, "and", *self.expression(right[1], column)]
            more = [token for value in right[1:] for token in (",", *self.expression(value, column))]
            return [*left, _WORDS.get(item.op, item.op), "(", *first, *more, ")"]
        return [*left, item.op, *self.expression(right, column)]

    def _like(self, operator: str, pattern: Literal, column: int | None) -> list[str]:
        name = next(name for name, (head, tail) in LIKE.items() if _fits(pattern.text, head, tail))
        head, tail = LIKE[name]
        core = pattern.text[len(head) : len(pattern.text) - len(tail)]
        if operator == "not like":
            name = {"contains": "not_contains"}.get(name, "not_like")
            core = core if name == "not_contains" else pattern.text
        return [name, *self.binding.literal(Literal(core, True), column, self.new)]

    def _nested(self, item: Condition, left: list[str], inner: Query) -> list[str]:
        if item.op in ("in", "not in") and isinstance(item.left, Col) and inner.other is None:
            table = self.index.keys.get(self._place(item.left))
            if table is not None and _bare(inner) and inner.select == (implied_key(self.index, table, inner),):
                tokens = self.query(inner)
                return [
                    self.binding.table(table),
                    _WORDS.get(item.op, item.op),
                    "(",
                    *tokens[tokens.index("from") :],
                    ")",
                ]
        return [*left, _WORDS.get(item.op, item.op), "(", *self.query(inner), ")"]


def _bare(inner: Query) -> bool:
    return not (inner.distinct or inner.order_by or inner.limit or inner.group_by or inner.having)


def _fits(text: str, head: str, tail: str) -> bool:
    core = text[len(head) : len(text) - len(tail)]
    good = text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail)
    return (good and "%" not in core and "_" not in core) or not (head or tail)


def implied_key(index: SchemaIndex, table: int, inner: Query) -> Col | None:
    """The foreign key to `table` that a subquery behind `table in (from ...)` selects."""
    names = used_tables(replace(inner, select=()))
    for name in names:
        for key in index.schema.foreign_keys:
            if key.table == name and key.target == index.tables[table]:
                return Col(key.table, key.column)
    return None
