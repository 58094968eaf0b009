"""SQL text of any writer as a tree of the embedded model, read by sqlglot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from verbal.models.embedded.ast import (
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
    join_tree,
    used_tables,
)
from verbal.models.embedded.fields import Schema

_OPERATORS = {"EQ": "=", "NEQ": "!=", "LT": "<", "GT": ">", "LTE": "<=", "GTE": ">="}
_SWAPPED = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NEGATED = {"in": "not in", "like": "not like", "is null": "is not null", "=": "!=", "!=": "="}
_ARITHMETIC = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/"}


def from_sql(text: str, schema: Schema) -> Query:
    """The tree of one SELECT statement in SQLite's dialect.

    Raises:
        Unsupported: when it cannot be parsed or holds a construct outside the model's limits; the message names it.
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse(text.strip().rstrip(";"), read="sqlite")
    except (SqlglotError, RecursionError) as error:
        raise Unsupported(f"SQL that cannot be parsed: {str(error).splitlines()[0]}") from error
    if len(statements) != 1 or statements[0] is None:
        raise Unsupported(f"one SQL statement expected, got {len(statements)}")
    return _Reading(schema).query(statements[0])


class _Reading:
    """Reads the syntax tree of one statement."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.tables = {table.name.lower(): table for table in schema.tables}
        self.scope: dict[str, str] = {}
        self.named: dict[str, Expression] = {}

    def query(self, node: Any) -> Query:
        kind = type(node).__name__
        if kind in ("Subquery", "Paren"):
            return self.query(node.this)
        if kind in ("Union", "Intersect", "Except"):
            return self._compound(node, kind.lower())
        if kind != "Select":
            raise Unsupported(f"{kind.upper()} (only SELECT)")
        for part in ("with_", "with", "windows", "offset", "qualify"):
            if node.args.get(part):
                raise Unsupported(part.strip("_").upper())
        outer = self.scope, self.named
        self.scope, self.named = {}, {}
        try:
            return self._select(node)
        finally:
            self.scope, self.named = outer

    def _compound(self, node: Any, operator: str) -> Query:
        if operator == "union" and node.args.get("distinct") is False:
            raise Unsupported("UNION ALL")
        left, right = self.query(node.this), self.query(node.expression)
        if left.other or right.other or left.order_by or right.order_by or node.args.get("order"):
            raise Unsupported("several set operators, or one with ORDER BY")
        return Query(**{**_fields(left), "set_op": operator, "other": right})

    def _select(self, node: Any) -> Query:
        tables, conditions = self._from(node)
        select: list[Expression] = []
        for item in node.expressions:
            inner = item.this if type(item).__name__ == "Alias" else item
            if type(inner).__name__ == "Star":
                select += [Col(name, column.name) for name in tables for column in self.tables[name.lower()].columns]
                continue
            if type(inner).__name__ == "Column" and type(inner.this).__name__ == "Star":
                name = self._alias(inner.table)
                select += [Col(name, column.name) for column in self.tables[name.lower()].columns]
                continue
            select.append(self.expression(inner))
            if type(item).__name__ == "Alias":
                self.named[item.alias.lower()] = select[-1]
        where = node.args.get("where")
        predicate = self._both([*conditions, *([self.predicate(where.this)] if where else [])])
        group = node.args.get("group")
        having = node.args.get("having")
        order = node.args.get("order")
        limit = node.args.get("limit")
        groups: list[Col] = []
        for item in group.expressions if group else ():
            column = self.expression(item)
            if not isinstance(column, Col):
                raise Unsupported("GROUP BY of an expression")
            groups.append(column)
        return self._joined(
            Query(
                tuple(select), tuple(tables), self._via, node.args.get("distinct") is not None, predicate,
                tuple(groups),
                self.predicate(having.this) if having else None,
                tuple(Order(self.expression(key.this), bool(key.args.get("desc"))) for key in order.expressions)
                if order else (),
                _limit(limit) if limit else None,
            )
        )  # fmt: skip

    def _joined(self, query: Query) -> Query:
        """The query without `via` where the default path already joins along the same keys."""
        tree = join_tree(self.schema, used_tables(query), query.via)
        if {key for _, key in tree} == {key for _, key in join_tree(self.schema, used_tables(query))}:
            return Query(**{**_fields(query), "via": ()})
        return query

    def _from(self, node: Any) -> tuple[list[str], list[Predicate]]:
        source = node.args.get("from_") or node.args.get("from")
        if source is None:
            raise Unsupported("SELECT without FROM")
        joins = node.args.get("joins") or []
        for join in joins:
            if join.side in ("LEFT", "RIGHT", "FULL") or join.args.get("method") or join.args.get("using"):
                raise Unsupported(f"{join.side or join.args.get('method') or 'USING'} JOIN".upper())
        tables: list[str] = []
        for item in (source.this, *(join.this for join in joins)):
            if type(item).__name__ != "Table":
                raise Unsupported("a subquery in FROM")
            if item.name.lower() not in self.tables:
                raise Unsupported(f"unknown table {item.name!r}")
            name = self.tables[item.name.lower()].name
            if name in tables:
                raise Unsupported(f"a self-join of {name!r}")
            tables.append(name)
            self.scope[(item.alias or item.name).lower()] = name
        self._via: tuple[Col, ...] = ()
        extra = [self._on(join.args["on"]) for join in joins if join.args.get("on") is not None]
        return tables, [condition for conditions in extra for condition in conditions]

    def _on(self, node: Any) -> list[Predicate]:
        if type(node).__name__ in ("And", "Paren"):
            sides = [node.this, node.expression] if type(node).__name__ == "And" else [node.this]
            return [condition for side in sides for condition in self._on(side)]
        left = self.expression(node.this) if type(node).__name__ == "EQ" else None
        right = self.expression(node.expression) if type(node).__name__ == "EQ" else None
        if isinstance(left, Col) and isinstance(right, Col):
            for key in self.schema.foreign_keys:
                ends = {Col(key.table, key.column), Col(key.target, key.target_column)}
                if ends == {left, right}:
                    self._via = (*self._via, Col(key.table, key.column))
                    return []
            raise Unsupported(f"a join of {left.table}.{left.name} and {right.table}.{right.name} (no foreign key)")
        return [self.predicate(node)]

    def _alias(self, name: str) -> str:
        if name.lower() not in self.scope:
            raise Unsupported(f"unknown table or alias {name!r} (or a correlated subquery)")
        return self.scope[name.lower()]

    def _column(self, node: Any) -> Expression:
        wanted = node.name.lower()
        names = [self._alias(node.table)] if node.table else list(self.scope.values())
        for name in names:
            for column in self.tables[name.lower()].columns:
                if column.name.lower() == wanted:
                    return Col(name, column.name)
        if not node.table and wanted in self.named:
            return self.named[wanted]
        if not node.table and node.this.args.get("quoted"):
            return Literal(node.name, True)
        raise Unsupported(f"unknown column {node.sql()!r}")

    def expression(self, node: Any) -> Expression:
        kind = type(node).__name__
        if kind == "Column":
            return self._column(node)
        if kind == "Literal":
            return Literal(str(node.this), bool(node.is_string))
        if kind == "Neg" and type(node.this).__name__ == "Literal":
            return Literal(f"-{node.this.this}", False)
        if kind == "Paren":
            return self.expression(node.this)
        if kind in _ARITHMETIC:
            return Arithmetic(_ARITHMETIC[kind], self.expression(node.this), self.expression(node.expression))
        if kind in ("Count", "Sum", "Avg", "Min", "Max"):
            return self._aggregate(node, kind.lower())
        if kind == "Cast" and type(node.this).__name__ in ("TimeToStr", "Anonymous"):
            return self._part(node.this)
        if kind in ("TimeToStr", "Anonymous"):
            return self._part(node)
        raise Unsupported(_NAMES.get(kind, kind.upper()))

    def _aggregate(self, node: Any, function: str) -> Aggregate:
        inside = node.this
        if inside is None or type(inside).__name__ == "Star":
            return Aggregate(function)
        if type(inside).__name__ == "Distinct":
            if len(inside.expressions) != 1:
                raise Unsupported("COUNT(DISTINCT) of several columns")
            return Aggregate(function, self.expression(inside.expressions[0]), True)
        if node.args.get("expressions"):
            raise Unsupported(f"{function.upper()} of several values")
        return Aggregate(function, self.expression(inside))

    def _part(self, node: Any) -> Part:
        if type(node).__name__ == "TimeToStr":
            pattern = node.args["format"]
            inside = node.this
        else:
            if node.name.lower() != "strftime" or len(node.expressions) != 2:
                raise Unsupported(f"function {node.name}")
            pattern, inside = node.expressions
        while type(inside).__name__ not in ("Column", "Literal") and inside.this is not None:
            inside = inside.this
        unit = {"%Y": "year", "%m": "month"}.get(str(pattern.this))
        column = self.expression(inside)
        if unit is None or not isinstance(column, Col):
            raise Unsupported("STRFTIME other than year or month of a column")
        return Part(unit, column)

    def _both(self, parts: list[Predicate]) -> Predicate | None:
        flat = [one for part in parts for one in _flat(part, "and")]
        return Both("and", tuple(flat)) if len(flat) > 1 else flat[0] if flat else None

    def predicate(self, node: Any) -> Predicate:
        kind = type(node).__name__
        if kind == "Paren":
            return self.predicate(node.this)
        if kind in ("And", "Or"):
            name = kind.lower()
            sides = [self.predicate(node.this), self.predicate(node.expression)]
            return Both(name, tuple(one for side in sides for one in _flat(side, name)))
        if kind == "Not":
            inner = self.predicate(node.this)
            if not isinstance(inner, Condition) or inner.op not in _NEGATED:
                raise Unsupported("NOT of a condition other than IN, LIKE, IS NULL or =")
            return Condition(inner.left, _NEGATED[inner.op], inner.right)
        reader = _CONDITIONS.get(kind)
        if reader is None:
            raise Unsupported(_NAMES.get(kind, kind.upper()))
        return reader(self, node)

    def _comparison(self, node: Any) -> Condition:
        operator = _OPERATORS[type(node).__name__]
        left, right = node.this, node.expression
        if type(left).__name__ in ("Subquery", "Literal"):
            left, right, operator = right, left, _SWAPPED[operator]
        if type(right).__name__ == "Subquery":
            return Condition(self.expression(left), operator, self.query(right.this))
        return Condition(self.expression(left), operator, self.expression(right))

    def _between(self, node: Any) -> Condition:
        low, high = self.expression(node.args["low"]), self.expression(node.args["high"])
        if not isinstance(low, Literal) or not isinstance(high, Literal):
            raise Unsupported("BETWEEN with anything but values")
        return Condition(self.expression(node.this), "between", (low, high))

    def _in(self, node: Any) -> Condition:
        left = self.expression(node.this)
        inner = node.args.get("query")
        if inner is not None:
            return Condition(left, "in", self.query(inner))
        values = [self.expression(item) for item in node.expressions]
        literals = tuple(value for value in values if isinstance(value, Literal))
        if not literals or len(literals) != len(values):
            raise Unsupported("IN with anything but values")
        return Condition(left, "in", literals)

    def _like(self, node: Any) -> Condition:
        pattern = self.expression(node.expression)
        if not isinstance(pattern, Literal):
            raise Unsupported("LIKE with anything but a value")
        operator = "not like" if node.args.get("negate") else "like"
        return Condition(self.expression(node.this), operator, Literal(pattern.text, True))

    def _is(self, node: Any) -> Condition:
        if type(node.expression).__name__ != "Null":
            raise Unsupported("IS with anything but NULL")
        return Condition(self.expression(node.this), "is null")


_CONDITIONS: Mapping[str, Callable[[_Reading, Any], Condition]] = {
    **dict.fromkeys(_OPERATORS, _Reading._comparison),
    "Between": _Reading._between, "In": _Reading._in, "Like": _Reading._like, "Is": _Reading._is,
}  # fmt: skip
_NAMES = {"Case": "CASE", "Window": "a window function", "Exists": "EXISTS", "Coalesce": "COALESCE", "If": "IF"}


def _flat(part: Predicate, connective: str) -> tuple[Predicate, ...]:
    return part.parts if isinstance(part, Both) and part.connective == connective else (part,)


def _fields(query: Query) -> dict[str, Any]:
    return {name: getattr(query, name) for name in Query.__dataclass_fields__}


def _limit(node: Any) -> int:
    try:
        return int(node.expression.name)
    except (AttributeError, ValueError) as error:
        raise Unsupported("LIMIT with anything but a number") from error
