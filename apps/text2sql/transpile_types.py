"""Texts and numbers that meet in a query: SQLite converts them by affinity, other engines refuse or differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Kind = Literal["number", "integer", "text", "mixed", ""]
"""What an expression holds; `mixed` is text in the target and has a number's affinity in SQLite; "" is not known.

Only columns are `integer`; whoever asks for an expression's kind (`kind_of`) is told `number`.
"""

_NUMBERS = ("INT", "DOUBLE", "FLOAT", "REAL", "DEC", "NUMERIC", "BIGINT", "HUGEINT", "SERIAL", "BOOL")
_TEXTS = ("CHAR", "TEXT", "STRING", "CLOB", "DATE", "TIME")
_NUMBER = r"^\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GIVES_NUMBER = {"Count", "Sum", "Avg", "Length", "Abs", "Round", "Neg", "Add", "Sub", "Mul", "Div", "Mod"}
_GIVES_TEXT = {"Lower", "Upper", "Substring", "DPipe", "Trim", "TimeToStr", "GroupConcat", "Concat"}


@dataclass(slots=True)
class Scope:
    """What names mean inside one SELECT."""

    sources: dict[str, dict[str, tuple[str, Kind]]] = field(default_factory=dict)
    """Alias in small letters -> column in small letters -> (its name in the target, its kind)."""
    outer: Scope | None = None

    def find(self, table: str, name: str) -> tuple[str, str, Kind] | None:
        """(alias, name, kind) of a column, looked up from inside to outside; None when there is none."""
        scope: Scope | None = self
        while scope is not None:
            for alias, columns in scope.sources.items():
                if table in ("", alias) and name in columns:
                    return alias, *columns[name]
            scope = scope.outer
        return None


class Work(Protocol):
    """One translation under way, as the rewrites see it."""

    exp: Any
    """sqlglot's expressions."""
    write: str
    """Dialect that is written."""

    def note(self, name: str) -> None:
        """Remembers that a rewrite changed something."""

    def own(self, select: Any, kind: Any) -> Iterator[Any]:
        """Nodes of a kind that belong to this SELECT, not to a query inside it."""

    def shape(self, query: Any) -> dict[str, tuple[str, Kind]]:
        """Output columns of a query: name in small letters -> (name, kind)."""


def kind_of(work: Work, node: Any, scope: Scope | None) -> Kind:
    """What an expression holds."""
    exp = work.exp
    if isinstance(node, exp.Alias | exp.Paren):
        return kind_of(work, node.this, scope)
    if isinstance(node, exp.Column):
        found = scope.find(node.table.lower(), node.name.lower()) if scope else None
        return "number" if found and found[2] == "integer" else found[2] if found else ""
    if isinstance(node, exp.Literal):
        return "text" if node.is_string else "number"
    if isinstance(node, exp.Min | exp.Max | exp.AnyValue | exp.Distinct | exp.Coalesce | exp.First):
        return kind_of(work, node.this if node.this is not None else node.expressions[0], scope)
    if isinstance(node, exp.Cast):
        kind = kind_of_type(node.to.sql())
        return "number" if kind == "integer" else kind
    if isinstance(node, exp.Query):
        shape = work.shape(node)
        return next(iter(shape.values()))[1] if shape else ""
    name = type(node).__name__
    return "number" if name in _GIVES_NUMBER else "text" if name in _GIVES_TEXT else ""


def _integer(work: Work, node: Any, scope: Scope) -> bool:
    exp = work.exp
    if isinstance(node, exp.Literal):
        return not node.is_string and node.name.isdigit()
    if isinstance(node, exp.Column):
        found = scope.find(node.table.lower(), node.name.lower())
        return found is not None and found[2] == "integer"
    if isinstance(node, exp.Count):
        return True
    inner = exp.Add | exp.Sub | exp.Mul
    if isinstance(node, inner):
        return _integer(work, node.this, scope) and _integer(work, node.expression, scope)
    return isinstance(node, exp.Paren | exp.Sum | exp.Min | exp.Max | exp.Neg) and _integer(work, node.this, scope)


def types(work: Work, select: Any, scope: Scope) -> None:
    """Texts and numbers that meet: SQLite converts by affinity, others refuse."""
    exp = work.exp
    select.meta["scope"] = scope
    for node in [*work.own(select, exp.Predicate | exp.Between | exp.In)]:
        if isinstance(node, exp.EQ | exp.NEQ | exp.GT | exp.GTE | exp.LT | exp.LTE | exp.Is):
            if not isinstance(node, exp.Is):
                left, right = _meet(work, node.this, node.expression, scope)
                node.set("this", left)
                node.set("expression", right)
        elif isinstance(node, exp.Between):
            for side in ("low", "high"):
                left, right = _meet(work, node.this, node.args[side], scope)
                node.set("this", left)
                node.set(side, right)
        elif isinstance(node, exp.In):
            _within(work, node, scope)
        elif isinstance(node, exp.Like):
            if kind_of(work, node.this, scope) == "number":
                work.note("text of a number")
                node.set("this", as_text(work, node.this))
            if work.write in ("duckdb", "postgres"):
                work.note("LIKE")
                node.replace(exp.ILike(**node.args))
    for node in [*work.own(select, exp.Sum | exp.Avg)]:
        inner = node.this
        values = inner.expressions[0] if isinstance(inner, exp.Distinct) else inner
        if kind_of(work, values, scope) in ("text", "mixed"):
            work.note("number of a text")
            values.replace(as_number(work, values))
    for node in [*work.own(select, exp.Add | exp.Sub | exp.Mul | exp.Div | exp.Mod)]:
        for side in ("this", "expression"):
            if kind_of(work, node.args[side], scope) in ("text", "mixed"):
                work.note("number of a text")
                node.set(side, as_number(work, node.args[side]))


def _meet(work: Work, left: Any, right: Any, scope: Scope) -> tuple[Any, Any]:
    """Both sides of a comparison, brought to one kind as SQLite's affinities do."""
    exp = work.exp
    kinds = kind_of(work, left, scope), kind_of(work, right, scope)
    if "" in kinds or kinds[0] == kinds[1] or "number" not in kinds:
        return left, right
    work.note("affinity")
    number, text = (left, right) if kinds[0] == "number" else (right, left)
    if "mixed" in kinds:
        changed = {id(number): number, id(text): as_number(work, text, above=True)}
        return changed[id(left)], changed[id(right)]
    if isinstance(number, exp.Literal):  # a text column gives a literal its own affinity
        changed = {id(number): exp.Literal.string(number.name), id(text): text}
    elif isinstance(text, exp.Literal):
        found = _plain_number(text.name)
        changed = {id(number): number if found else as_text(work, number),
                   id(text): exp.Literal.number(found) if found else text}  # fmt: skip
    elif isinstance(text, exp.Column | exp.Query):
        changed = {id(number): number, id(text): as_number(work, text)}
    else:
        changed = {id(number): as_text(work, number), id(text): text}
    return changed[id(left)], changed[id(right)]


def _within(work: Work, node: Any, scope: Scope) -> None:
    exp = work.exp
    kind, query = kind_of(work, node.this, scope), node.args.get("query")
    if query is not None:
        other = kind_of(work, query, scope)
        if kind and other and kind != other and "number" in (kind, other):
            work.note("affinity")
            if kind == "number":
                node.set("this", as_text(work, node.this))
            else:
                inner = query.this if isinstance(query, exp.Subquery) else query
                if isinstance(inner, exp.Select) and len(inner.selects) == 1:
                    item = inner.selects[0]
                    inner.set("expressions", [as_text(work, item.unalias())])
        return
    items = []
    for item in node.expressions:
        if kind == "text" and isinstance(item, exp.Literal) and not item.is_string:
            work.note("affinity")
            item = exp.Literal.string(item.name)
        elif kind == "number" and isinstance(item, exp.Literal) and item.is_string:
            work.note("affinity")
            found = _plain_number(item.name)
            item = exp.Literal.number(found) if found else exp.Null()
        items.append(item)
    node.set("expressions", items)


def as_number(work: Work, node: Any, *, above: bool = False) -> Any:
    """What SQLite takes a text for as a number: NULL stays NULL, else the number it begins with, else 0.

    Where it is compared (`above`) the whole text must be a number, and one that is not is more than any number.
    """
    exp = work.exp
    double = exp.DataType.build("DOUBLE")
    if work.write == "mysql":
        return exp.Cast(this=node.copy(), to=double)
    other: Any = exp.Literal.number(0)
    if above:
        other = exp.Cast(this=exp.Literal.string("Infinity"), to=double)
    text = exp.Cast(this=node.copy(), to=exp.DataType.build("TEXT"))
    pattern = exp.Literal.string(_NUMBER + (r"\s*$" if above else ""))
    name = "REGEXP_EXTRACT" if work.write == "duckdb" else "SUBSTRING"
    found = exp.Nullif(this=exp.Anonymous(this=name, expressions=[text, pattern]), expression=exp.Literal.string(""))
    value = exp.Coalesce(this=exp.Cast(this=found, to=double), expressions=[other])
    missing = exp.If(this=exp.Is(this=node.copy(), expression=exp.Null()), true=exp.Null())
    return exp.Case(ifs=[missing], default=value)


def as_text(work: Work, node: Any) -> Any:
    """The node as text."""
    return work.exp.Cast(this=node.copy(), to=work.exp.DataType.build("TEXT"))


def functions(work: Work, select: Any, scope: Scope) -> None:
    """Functions and operators that a server takes another way."""
    exp = work.exp
    for node in [*work.own(select, exp.Round)]:
        if work.write == "postgres" and node.args.get("decimals") is not None:
            work.note("ROUND")
            node.set("this", exp.Cast(this=node.this, to=exp.DataType.build("DECIMAL")))
    for node in [*work.own(select, exp.Cast)]:
        cut = kind_of_type(node.to.sql()) == "integer" and kind_of(work, node.this, scope) == "number"
        if cut and not _integer(work, node.this, scope):
            work.note("integer of a number")
            node.set("this", exp.Trunc(this=node.this.copy()))
    for node in [*work.own(select, exp.Div)]:
        if work.write == "postgres":
            work.note("division by zero")
            node.set("expression", exp.Nullif(this=node.expression.copy(), expression=exp.Literal.number(0)))
        elif _integer(work, node.this, scope) and _integer(work, node.expression, scope):
            work.note("integer division")
            below = exp.Nullif(this=node.expression.copy(), expression=exp.Literal.number(0))
            node.replace(exp.IntDiv(this=node.this.copy(), expression=below))


def held_kind(declared: str, held: str) -> Kind:
    """What a column holds, by its type in SQLite and in the target."""
    kind = kind_of_type(held)
    upper = declared.upper()
    if kind == "text" and upper and not any(word in upper for word in ("CHAR", "CLOB", "TEXT", "BLOB", "STRING")):
        return "mixed"
    return kind


def kind_of_type(declared: str) -> Kind:
    """What a column of a type holds, by the type's name."""
    upper = declared.upper()
    if any(word in upper for word in _TEXTS):
        return "text"
    if "INT" in upper or "SERIAL" in upper:
        return "integer"
    return "number" if any(word in upper for word in _NUMBERS) else ""


def _plain_number(text: str) -> str:
    """The text as a number literal, or "" when it is none."""
    try:
        value = float(text)
    except ValueError:
        return ""
    return text.strip() if value == value and abs(value) != float("inf") else ""
