"""Why an answer is wrong: one primary cause each, in words, from the results and from the parts of both queries.

What a result proves comes first (it fails, rows in another order, columns too many). Otherwise the first part in which
the queries differ is named, in the order in which a query is thought out: tables, set operation, joins, filter,
aggregate, grouping, columns, order, limit, nesting, DISTINCT. Queries may differ in several parts; only the first is
counted, so that the causes of all wrong answers add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verbal.contracts import Observation
from verbal.rows import Comparison

if TYPE_CHECKING:
    from sqlglot import exp

CAUSES = {
    "no_query": "no query",
    "timeout": "time limit",
    "fails": "does not run",
    "other_state": "right on one state only",
    "row_order": "rows in the wrong order",
    "duplicates": "duplicate rows (DISTINCT)",
    "extra_columns": "columns too many",
    "missing_columns": "columns missing",
    "tables": "wrong tables",
    "set_operation": "wrong set operation",
    "joins": "wrong join",
    "filter": "wrong filter",
    "aggregate": "wrong aggregate",
    "grouping": "wrong grouping",
    "columns": "wrong columns",
    "order": "wrong order",
    "limit": "wrong limit",
    "nesting": "joined or nested otherwise",
    "distinct": "wrong DISTINCT",
    "unread": "cannot be compared",
    "other": "other",
}
"""Name of a cause -> its words; `fails` is parted further by the class of the error (`fails: no such column`)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The primary cause of one wrong answer."""

    name: str
    """One of `CAUSES`."""
    label: str
    """What is counted: its words, for `fails` with the class of the error."""
    text: str
    """What differs, in words; it may name parts of the gold query."""


def cause_of(
    sql: str,
    gold: str,
    seen: Observation,
    wanted: Observation,
    found: Comparison,
    *,
    schema: Mapping[str, Set[str]],
    failed: str = "",
    dialect: str = "sqlite",
) -> Cause:
    """The primary cause of a wrong answer.

    Args:
        sql: The answer.
        gold: The gold query.
        seen: What the answer gave.
        wanted: What the gold query gave.
        found: How the two results differ on the database that was asked.
        schema: Table -> columns, all in small letters.
        failed: Name of the state that told the two apart, when the results agree on the one that was asked.
        dialect: sqlglot's name of the dialect.
    """
    by_result = _from_result(sql, seen, wanted, found)
    if by_result is not None:
        return by_result
    name, text = _from_parts(sql, gold, schema, dialect)
    if found.match:
        return Cause(
            "other_state", CAUSES["other_state"], f"differs on the state {failed or '?'}; {CAUSES[name]}: {text}"
        )
    if name == "other" and "wrong order" in found.text:
        return Cause("row_order", CAUSES["row_order"], found.text)
    return Cause(name, CAUSES[name], text or found.text)


def _from_result(sql: str, seen: Observation, wanted: Observation, found: Comparison) -> Cause | None:
    if not sql.strip():
        return Cause("no_query", CAUSES["no_query"], "the answer holds no query")
    if seen.info.get("error"):
        kind, text = str(seen.info.get("error_class") or "error"), str(seen.info["error"])
        if kind == "timeout":
            return Cause("timeout", CAUSES["timeout"], text)
        return Cause("fails", f"{CAUSES['fails']}: {kind.replace('_', ' ')}", text)
    if found.match:
        return None
    rows = (seen.info.get("rows") or [], wanted.info.get("rows") or [])
    width, needed = len(seen.info.get("columns") or ()), len(wanted.info.get("columns") or ())
    shared = round(found.parts.get("columns", 0.0) * max(width, needed))
    if width == needed and "wrong order" in found.text:
        return Cause("row_order", CAUSES["row_order"], found.text)
    if width == needed and rows[0] and {*map(_key, rows[0])} == {*map(_key, rows[1])}:
        return Cause("duplicates", CAUSES["duplicates"], found.text)
    if width > needed and shared == needed and len(rows[0]) == len(rows[1]):
        return Cause("extra_columns", CAUSES["extra_columns"], _widths(width, needed))
    if width < needed and shared == width and len(rows[0]) == len(rows[1]):
        return Cause("missing_columns", CAUSES["missing_columns"], _widths(width, needed))
    return None


def _widths(width: int, needed: int) -> str:
    return f"{width} column{'' if width == 1 else 's'} where {needed} {'is' if needed == 1 else 'are'} asked for"


def _key(row: Any) -> tuple[str, ...]:
    return tuple(repr(cell) for cell in row)


def _from_parts(sql: str, gold: str, schema: Mapping[str, Set[str]], dialect: str) -> tuple[str, str]:
    """The first part in which two queries differ, and how; COUNT of a column counts as COUNT(*) at first."""
    for strict in (False, True):
        ours, right = (parts_of(q, schema, dialect, strict=strict) for q in (sql, gold))
        if ours is None or right is None:
            return "unread", f"{'the answer' if ours is None else 'the gold query'} cannot be parsed"
        for name in _PARTS:
            a, b = getattr(ours, name), getattr(right, name)
            if a != b:
                return name, _difference(a, b)
    return "other", "the queries agree in all parts that are compared"


def _difference(ours: Counter[str], right: Counter[str]) -> str:
    more, less = (", ".join(sorted((x - y).elements()))[:200] for x, y in ((ours, right), (right, ours)))
    return "; ".join(w for w in (f"has {more}" if more else "", f"lacks {less}" if less else "") if w)


@dataclass(slots=True)
class Parts:
    """What a query is made of, subqueries included: texts in which aliases, case and quotes no longer differ."""

    tables: Counter[str] = field(default_factory=Counter)
    set_operation: Counter[str] = field(default_factory=Counter)
    joins: Counter[str] = field(default_factory=Counter)
    filter: Counter[str] = field(default_factory=Counter)
    aggregate: Counter[str] = field(default_factory=Counter)
    grouping: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    order: Counter[str] = field(default_factory=Counter)
    limit: Counter[str] = field(default_factory=Counter)
    nesting: Counter[str] = field(default_factory=Counter)
    distinct: Counter[str] = field(default_factory=Counter)


_PARTS = tuple(Parts.__dataclass_fields__)


def parts_of(sql: str, schema: Mapping[str, Set[str]], dialect: str = "sqlite", *, strict: bool = True) -> Parts | None:
    """The parts of a query; None when it is not one query or cannot be parsed.

    Args:
        sql: The query.
        schema: Table -> columns, all in small letters.
        dialect: sqlglot's name of the dialect.
        strict: Whether COUNT of a column is another aggregate than COUNT(*).
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree: Any = sqlglot.parse_one(sql, read=dialect)
        if not isinstance(tree, exp.Query):
            return None
        _resolve(tree, schema)
        for count in [] if strict else tree.find_all(exp.Count):
            if isinstance(count.this, exp.Column):
                count.set("this", exp.Star())
        return _collected(tree)
    except (SqlglotError, RecursionError):
        return None


def _resolve(tree: exp.Expr, schema: Mapping[str, Set[str]]) -> None:
    """Gives each column its table's real name, in small letters; what is quoted and no column becomes a text."""
    from sqlglot import exp

    known = {name for columns in schema.values() for name in columns}
    for column in list(tree.find_all(exp.Column)):
        name, alias = column.name.lower(), column.table.lower()
        scopes = list(_scopes(column))
        if not alias and name not in known and column.this.args.get("quoted") and not _aliased(scopes, name):
            column.replace(exp.Literal.string(column.name))
            continue
        table = _owner(name, alias, scopes, schema)
        column.replace(exp.column(name, table=table or None))


def _scopes(node: exp.Expr) -> list[exp.Select]:
    from sqlglot import exp

    found, at = [], node.parent
    while at is not None:
        if isinstance(at, exp.Select):
            found.append(at)
        at = at.parent
    return found


def _sources(select: exp.Select) -> dict[str, str]:
    """Name by which a table is known in a query -> its own name; "" for a subquery."""
    from sqlglot import exp

    start = select.args.get("from_") or select.args.get("from")
    items = [start.this] if start is not None else []
    items += [join.this for join in select.args.get("joins") or []]
    return {item.alias_or_name.lower(): item.name.lower() if isinstance(item, exp.Table) else "" for item in items}


def _aliased(scopes: list[exp.Select], name: str) -> bool:
    return any(item.alias.lower() == name for scope in scopes for item in scope.expressions)


def _owner(name: str, alias: str, scopes: list[exp.Select], schema: Mapping[str, Set[str]]) -> str:
    for scope in scopes:
        sources = _sources(scope)
        if alias and alias in sources:
            return sources[alias]
        owners = {table for table in sources.values() if name in schema.get(table, ())}
        if not alias and owners:
            return min(owners)
    return alias


def _collected(tree: exp.Expr) -> Parts:
    from sqlglot import exp

    parts = Parts()
    named = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    parts.tables.update({t.name.lower() for t in tree.find_all(exp.Table)} - named)
    parts.set_operation.update(type(s).__name__.upper() for s in tree.find_all(exp.SetOperation))
    parts.aggregate.update({_text(a) for a in tree.find_all(exp.AggFunc)})
    parts.grouping.update(_text(e) for g in tree.find_all(exp.Group) for e in g.expressions)
    parts.order.update(_text(e) for o in tree.find_all(exp.Order) for e in o.expressions)
    parts.limit.update(_text(node.expression) for node in tree.find_all(exp.Limit))
    parts.nesting.update(type(q.parent).__name__ for q in tree.find_all(exp.Subquery) if q.parent is not None)
    parts.nesting.update("In" for i in tree.find_all(exp.In) if i.args.get("query"))
    for select in tree.find_all(exp.Select):
        parts.distinct.update(["DISTINCT"] if select.args.get("distinct") else [])
        if select.parent_select is None:
            parts.columns.update(_text(e.unalias()) for e in select.expressions)
        joins = select.args.get("joins") or []
        parts.joins.update(f"{join.side} JOIN" for join in joins if join.side)
        conditions = [join.args.get("on") for join in joins]
        conditions += [found.this for c in ("where", "having") if (found := select.args.get(c)) is not None]
        for unit in (unit for c in conditions if c is not None for unit in _units(c)):
            linked = _linked(unit)
            (parts.joins if linked else parts.filter)[linked or _text(unit)] += 1
    return parts


def _units(condition: exp.Expr) -> list[exp.Expr]:
    """The conditions that AND joins."""
    from sqlglot import exp

    found = condition.unnest()
    if not isinstance(found, exp.And):
        return [found]
    return [unit for side in (found.this, found.expression) for unit in _units(side)]


def _linked(condition: exp.Expr) -> str:
    """The two columns that a condition joins, by = or by IN of a subquery's only column; "" for a filter."""
    from sqlglot import exp

    sides = [condition.this, condition.args.get("expression")]
    if isinstance(condition, exp.In) and isinstance(query := condition.args.get("query"), exp.Subquery):
        inner = query.this
        sides[1] = inner.expressions[0] if isinstance(inner, exp.Select) and len(inner.expressions) == 1 else None
    elif not isinstance(condition, exp.EQ):
        return ""
    columns = [side for side in sides if isinstance(side, exp.Column)]
    return " = ".join(sorted(map(_text, columns))) if len(columns) == 2 else ""


def _text(node: exp.Expr) -> str:
    """A part as text: the sides of an equation in a fixed order, a subquery by its own parts elsewhere."""
    from sqlglot import exp

    copy = node.copy()
    for inner in list(copy.find_all(exp.Query)):
        if inner is not copy and inner.find_ancestor(exp.Query) is None:
            inner.replace(exp.Literal.string("subquery"))
    if isinstance(copy, exp.EQ | exp.NEQ):
        sides = sorted((copy.this.sql("sqlite"), copy.expression.sql("sqlite")))
        return (" = " if isinstance(copy, exp.EQ) else " <> ").join(sides)
    return str(copy.sql("sqlite"))


__all__ = ["CAUSES", "Cause", "Parts", "cause_of", "parts_of"]
