"""A statement's tree by sqlglot, within a budget of work, and the nodes that queries are made of.

The list of nodes is closed: a node that is not named here (a later release may bring new ones) is no part of a query.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import TYPE_CHECKING, Any

from .guard_names import key
from .guard_reading import Misread, read

if TYPE_CHECKING:
    from collections.abc import Iterator

# A parser may take so many steps, and so many more for each token.
STEPS = 20_000
"""Steps that any parse may take."""
STEPS_PER_TOKEN = 30
"""More steps for each token: queries take 1 to 3 a token, some nested ones take twice as many for each level."""

LONGEST_SERIES = 100_000
"""Numbers of a series that a query may make of nothing."""

_NODES = """
Select Union Intersect Except Subquery Values Table TableAlias CTE With From Join Where Group Having Qualify Order
Ordered Limit LimitOptions Offset Fetch Distinct Lateral Tuple Alias Aliases Star Identifier Column Dot Paren Bracket
Slice Literal Boolean Null Var DataType DataTypeParam DataTypeParams PseudoType Interval IntervalSpan CharacterSet
National Window WindowSpec NamedWindow WithinGroup IgnoreNulls RespectNulls Filter Cube Rollup GroupingSets
WithOrdinality If Lambda Comprehension Kwarg PropertyEQ AtTimeZone TableSample PositionalColumn
JSONKeyValue JSONPath JSONPathRoot JSONPathKey JSONPathSubscript JSONPathPart JSONPathWildcard JSONPathSelector
JSONPathSlice JSONPathUnion IndexTableHint JSONSchema JSONColumnDef
Add Sub Mul Div IntDiv Mod Neg DPipe BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitwiseLeftShift BitwiseRightShift
EQ NEQ GT GTE LT LTE Is Not NullSafeEQ NullSafeNEQ Between In Like ILike Glob Match SimilarTo Escape Any All Overlaps
Adjacent ExtendsLeft ExtendsRight Distance Collate HexString BitString ByteString RawString UnicodeString
"""
NODES = frozenset(_NODES.split())
"""sqlglot's nodes that queries are made of, besides functions."""


_PERCENT_ENDS = (")", ";", "offset")
"""What stands after a percentage, as in DuckDB's `LIMIT 10%`."""


class Unread(Exception):
    """A statement that is not read: why, and where it stands."""

    def __init__(self, what: str, line: int = 1, column: int = 1, kind: str = "syntax") -> None:
        """`kind`: the refusal's."""
        super().__init__(what)
        self.line, self.column, self.kind = line, column, kind


class _OutOfSteps(Exception):
    pass


def trees(sql: str, dialect: str) -> list[Any]:
    """The statements in `sql`, as sqlglot's trees.

    Raises:
        Unread: it is not read, or parser and engine may read it differently, or reading it takes too much work.
    """
    import sqlglot

    try:
        reading = read(sql, dialect)
    except Misread as error:
        raise Unread(str(error), *place(sql, error.at), error.kind) from error
    try:
        tokens = _tokens(reading.text, reading.ends, dialect)
        parsed = _parser(dialect)(dialect=dialect).parse(tokens, reading.text)
    except sqlglot.errors.ParseError as error:
        found = error.errors[0] if error.errors else {}
        text = str(found.get("description") or error).splitlines()[0].rstrip(".")
        if "Required keyword" in text:
            text = "something is missing"
        raise Unread(f"not read: {text}", int(found.get("line") or 1), int(found.get("col") or 1)) from error
    except sqlglot.errors.SqlglotError as error:
        raise Unread(f"not read: {str(error).splitlines()[0]}") from error
    except (RecursionError, _OutOfSteps) as error:
        raise Unread("the query is nested too deeply", kind="too_big") from error
    except (IndexError, TypeError, ValueError, AttributeError, KeyError) as error:  # of arguments that it expects
        raise Unread("not read: a call has the wrong arguments") from error
    return [tree for tree in parsed if tree is not None and type(tree).__name__ != "Semicolon"]


def _tokens(text: str, ends: frozenset[int], dialect: str) -> list[Any]:
    import sqlglot

    tokens = sqlglot.tokenize(text, read=dialect)
    seen = set()
    for token in tokens:
        piece = text[token.start : token.end + 1]
        if token.comments:
            raise Unread("a comment that not every engine reads as one", token.line, token.col)
        if piece[-1:] in "'\"`" or (piece[:1] in "[$" and len(piece) > 1):
            seen.add(token.end + 1)
        rest = text[token.end + 1 : token.end + 100].strip().lower() if piece == "%" else ""
        if rest and not rest.startswith(_PERCENT_ENDS):
            token.token_type = sqlglot.TokenType.STAR  # `LIMIT a % b` is not read; `*` binds as `%` does
    if odd := seen ^ ends:
        raise Unread("a quoted text that not every engine reads alike", *place(text, min(odd)))
    return tokens


@functools.cache
def _parser(dialect: str) -> Any:
    """A parser with a budget: sqlglot's tries some readings twice, which doubles the work at each level."""
    import sqlglot

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it cannot read is refused, not logged
    base: Any = sqlglot.Dialect.get_or_raise(dialect).parser_class

    class Bounded(base):  # type: ignore[misc]
        _steps = 0

        def _advance(self, times: int = 1) -> None:
            self._steps += 1
            if self._steps > STEPS + STEPS_PER_TOKEN * len(self._tokens):
                raise _OutOfSteps
            super()._advance(times)

    return Bounded


def place(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1, of the character at `at`."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def node_place(node: Any) -> tuple[int, int]:
    """Line and column of the first word of a node that has one; zeros where none has."""
    for part in node.walk():
        if "line" in part.meta:
            width = part.meta.get("end", 0) - part.meta.get("start", 0)
            return int(part.meta["line"]), max(1, int(part.meta["col"]) - width)
    return 0, 0


def strange(nodes: Any, exp: Any) -> Iterator[Any]:
    """Nodes that are no part of a query."""
    for node in nodes:
        name = type(node).__name__
        sets = name == "PropertyEQ" and not isinstance(node.parent, exp.Struct)  # a variable, not a field
        if sets or not (name in NODES or isinstance(node, exp.Func)):
            yield node


def short_series(node: Any, exp: Any) -> bool:
    """Whether a node is a series of at most `LONGEST_SERIES` numbers, or of dates by days or more.

    So is a text that is repeated no more often. What is as long as rows say is ended by the worker's limits.
    """
    if isinstance(node, exp.Repeat):
        times = node.args.get("times")
        return not isinstance(times, exp.Literal) or times.is_string or float(times.this) <= LONGEST_SERIES
    if not isinstance(node, exp.GenerateSeries | exp.ExplodingGenerateSeries):
        return False
    ends, step = [node.args.get("start"), node.args.get("end")], node.args.get("step")
    if any(end is not None and end.find(exp.Column, exp.Select) for end in ends):
        return True
    if all(isinstance(end, exp.Literal) and not end.is_string for end in ends):
        return abs(float(ends[1].this) - float(ends[0].this)) <= LONGEST_SERIES and (
            step is None or bool(re.fullmatch(r"-?[1-9]\d*", step.sql()))
        )
    return bool(
        step is not None and re.search(r"(?<![\w.-])[1-9]\d* ?'? (day|week|month|quarter|year)s?\b", step.sql().lower())
    )


def ctes_seen(table: Any, dialect: str, exp: Any) -> bool:
    """Whether the name of `table` means a CTE where it stands: one that is defined outside of it, or before it.

    Without RECURSIVE a CTE does not see itself (in SQLite it does): what it names is a table.
    """
    name, below, node = key(table.this, dialect), table, table.parent
    while node is not None:
        if isinstance(node, exp.With):
            seen = []
            for cte in node.expressions:
                if cte is below:
                    seen += [cte] if node.args.get("recursive") or dialect == "sqlite" else []
                    break
                seen.append(cte)
            if dialect == "sqlite":
                seen = node.expressions
        else:
            given = node.args.get("with_") or node.args.get("with")
            seen = given.expressions if given is not None and given is not below else []
        if any(key(cte.args.get("alias"), dialect) == name for cte in seen):
            return True
        below, node = node, node.parent
    return False
