"""Slot tokens back to SQL trees (written by `slotsql.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from verbal.models.embedded.ast import (
    COMPARISONS,
    FUNCTIONS,
    Aggregate,
    Arithmetic,
    Both,
    Col,
    Condition,
    Expression,
    Literal,
    Order,
    Part,
    Predicate,
    Query,
    Unsupported,
    columns_in,
    join_tree,
    used_tables,
)
from verbal.models.embedded.slots import Binding, is_number
from verbal.models.embedded.slotsql import LIKE, implied_key


class Reader:
    """Reads slot tokens back to a tree; tokens are consumed from `place` on."""

    def __init__(self, binding: Binding, tokens: Sequence[str]) -> None:
        """Reads `tokens` with the slots of one prompt."""
        self.binding = binding
        self.index = binding.index
        self.tokens = tokens
        self.place = 0

    def _peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def _take(self, *wanted: str) -> bool:
        if self._peek() in wanted and self._peek():
            self.place += 1
            return True
        return False

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise Unsupported(f"slot SQL: {wanted!r} expected, found {self._peek()!r} at {self.place}")

    def query(self) -> Query:
        """One query with its set operator, order and limit.

        Raises:
            Unsupported: when the tokens are no slot SQL of this prompt.
        """
        found = self._core()
        if self._peek() in ("union", "intersect", "except"):
            operator = self.tokens[self.place]
            self.place += 1
            found = replace(found, set_op=operator, other=self._core())
        order: list[Order] = []
        if self._take("order_by"):
            order.append(self._order())
            while self._take(","):
                order.append(self._order())
        limit = None
        if self._take("limit"):
            text = self._literal(None).text
            if not text.isdigit():
                raise Unsupported(f"slot SQL: limit {text!r}")
            limit = int(text)
        if found.other is not None and len(found.select) != len(found.other.select):
            raise Unsupported("slot SQL: a set operator between queries of different width")
        return replace(found, order_by=tuple(order), limit=limit)

    def _order(self) -> Order:
        by = self.expression()
        return Order(by, self._take("desc") or (self._take("asc") and False))

    def _core(self, inner: bool = False) -> Query:
        select: list[Expression] = []
        distinct = False
        if not inner:
            self._need("select")
            distinct = self._take("distinct")
            select += self._item()
            while self._take(","):
                select += self._item()
        tables, via = self._from()
        where = self._predicate() if self._take("where") else None
        group: list[Col] = []
        if self._take("group_by"):
            group.append(self._group())
            while self._take(","):
                group.append(self._group())
        having = self._predicate() if self._take("having") else None
        tables = tuple(name for name in tables if name not in _excluded(where)) or tables
        return Query(tuple(select), tables, via, distinct, where, tuple(group), having)

    def _item(self) -> list[Expression]:
        """One item of a select list: an expression, or a table for all its columns."""
        table = self.binding.tables.get(self._peek())
        if table is None:
            return [self.expression()]
        self.place += 1
        return [self.index.columns[place] for place in self.index.columns_of[table]]

    def _from(self) -> tuple[tuple[str, ...], tuple[Col, ...]]:
        tables: list[str] = []
        via: list[Col] = []
        if self._take("from"):
            while self._peek() in self.binding.tables:
                tables.append(self.index.tables[self.binding.tables[self._peek()]])
                self.place += 1
            if self._take("on"):
                while self._peek() in self.binding.columns:
                    via.append(self._column())
        return tuple(dict.fromkeys(tables)), tuple(via)

    def _group(self) -> Col:
        table = self.binding.tables.get(self._peek())
        if table is None:
            return self._column()
        self.place += 1
        return self._key(table)

    def _key(self, table: int) -> Col:
        keys = self.index.schema.tables[table].primary_key
        if not keys:
            raise Unsupported(f"table {self.index.tables[table]!r} has no primary key to group or compare by")
        return Col(self.index.tables[table], keys[0])

    def _column(self) -> Col:
        if self._peek() not in self.binding.columns:
            raise Unsupported(f"slot SQL: a column expected, found {self._peek()!r} at {self.place}")
        self.place += 1
        return self.index.columns[self.binding.columns[self.tokens[self.place - 1]]]

    def expression(self, column: int | None = None) -> Expression:
        """One expression."""
        token = self._peek()
        if token in FUNCTIONS:
            self.place += 1
            distinct = self._take("distinct")
            return Aggregate(token, None if self._take("*") else self.expression(), distinct)
        if token in ("year", "month"):
            self.place += 1
            return Part(token, self._column())
        if self._take("("):
            left = self.expression()
            operator = self._peek()
            if operator not in ("+", "-", "*", "/"):
                raise Unsupported(f"slot SQL: + - * / expected, found {operator!r} at {self.place}")
            self.place += 1
            right = self.expression()
            self._need(")")
            return Arithmetic(operator, left, right)
        return self._column() if token in self.binding.columns else self._literal(column)

    def _literal(self, column: int | None, kind: str = "") -> Literal:
        token = self._peek()
        text = ""
        if token[:1] == "v" and token[1:].isdigit() and int(token[1:]) < len(self.binding.values):
            text = self.binding.values[int(token[1:])]
            if column is not None:
                text = self.binding.spellings.get((text, column), text)
            self.place += 1
        elif token[:1] == "u" and token[1:].isdigit() and column is not None:
            categories = self.index.details[column].values
            if int(token[1:]) >= len(categories):
                raise Unsupported(f"slot SQL: no value {token} in {self.index.columns[column].name!r}")
            text = categories[int(token[1:])]
            self.place += 1
        else:
            quoted = self._take("'")
            while self._peek()[:1] == "#":
                text += self._peek()[1:]
                self.place += 1
            kind = kind or ("text" if quoted else "")
        if not text:
            raise Unsupported(f"slot SQL: a value expected, found {token!r} at {self.place}")
        if column is not None and not kind:
            kind = self.index.details[column].type
        return Literal(text, kind in ("text", "date") or not is_number(text))

    def _predicate(self) -> Predicate:
        parts = [self._conjunction()]
        while self._take("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Both("or", tuple(parts))

    def _conjunction(self) -> Predicate:
        parts = [self._single()]
        while self._take("and"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else Both("and", tuple(parts))

    def _single(self) -> Predicate:
        if self._peek() == "(":
            start = self.place
            try:
                return self._condition()
            except Unsupported:
                self.place = start + 1
                inner = self._predicate()
                self._need(")")
                return inner
        return self._condition()

    def _condition(self) -> Condition:
        table = self.binding.tables.get(self._peek())
        if table is not None:
            self.place += 1
            return self._membership(table)
        left = self.expression()
        column = next((self.index.column_ids[col] for col in columns_in(left)), None)
        kind = "" if not _counted(left) else "int"
        operator = self._peek()
        self.place += 1
        if operator in ("is_null", "not_null"):
            return Condition(left, "is null" if operator == "is_null" else "is not null")
        if operator in ("contains", "starts", "ends", "like", "not_contains", "not_like"):
            head, tail = LIKE[operator.removeprefix("not_")]
            pattern = Literal(head + self._literal(column, "text").text + tail, True)
            return Condition(left, "not like" if operator.startswith("not_") else "like", pattern)
        if operator == "between":
            low = self._literal(column, kind)
            self._need("and")
            return Condition(left, "between", (low, self._literal(column, kind)))
        if operator in ("in", "not_in"):
            return self._listed(left, operator.replace("_", " "), column, kind)
        if operator not in COMPARISONS:
            raise Unsupported(f"slot SQL: an operator expected, found {operator!r} at {self.place}")
        if self._peek() == "(" and self.place + 1 < len(self.tokens) and self.tokens[self.place + 1] == "select":
            self.place += 1
            inner = self.query()
            self._need(")")
            return Condition(left, operator, inner)
        token = self._peek()
        plain = token[:1] in "vu#'" and token not in FUNCTIONS
        return Condition(left, operator, self._literal(column, kind) if plain else self.expression())

    def _listed(self, left: Expression, operator: str, column: int | None, kind: str) -> Condition:
        self._need("(")
        if self._peek() == "select":
            inner = self.query()
            self._need(")")
            return Condition(left, operator, inner)
        values = [self._literal(column, kind)]
        while self._take(","):
            values.append(self._literal(column, kind))
        self._need(")")
        return Condition(left, operator, tuple(values))

    def _membership(self, table: int) -> Condition:
        operator = "not in" if self._take("not_in") else "in" if self._take("in") else ""
        if not operator:
            raise Unsupported(f"slot SQL: in or not_in expected, found {self._peek()!r} at {self.place}")
        self._need("(")
        inner = self._core(inner=True)
        self._need(")")
        key = implied_key(self.index, table, inner) or self._distant_key(table, inner)
        if key is None:
            raise Unsupported(f"no foreign key from the subquery to {self.index.tables[table]!r}")
        return Condition(self._key(table), operator, replace(inner, select=(key,)))

    def _distant_key(self, table: int, inner: Query) -> Col | None:
        """The key to `table` of the first table on the path from the subquery's tables to it."""
        name = self.index.tables[table]
        for _, key in join_tree(self.index.schema, (name, *used_tables(inner))):
            if key is not None and key.target == name:
                return Col(key.table, key.column)
        return None


def _excluded(where: Predicate | None) -> frozenset[str]:
    """Tables whose rows a NOT IN keeps out: joining them as well would leave nothing."""
    if isinstance(where, Both):
        return (
            frozenset().union(*(_excluded(part) for part in where.parts)) if where.connective == "and" else frozenset()
        )
    if where is not None and where.op == "not in" and isinstance(where.right, Query):
        return frozenset(used_tables(where.right))
    return frozenset()


def _counted(item: Expression) -> bool:
    """Whether an expression is a number whatever its columns are."""
    if isinstance(item, Aggregate):
        return item.function in ("count", "sum", "avg")
    return isinstance(item, Arithmetic | Part)
