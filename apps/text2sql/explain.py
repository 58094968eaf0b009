"""A query in plain words, from its syntax tree: always the same words for the same query, and no model.

What the words cannot say (window functions, CASE, functions of one engine) is shown as SQL in back quotes, never left
out and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import exp

LONGEST = 600
"""Characters of an explanation."""

MOST_NAMED = 8
"""Columns that are told by name."""

_COMPARE = {
    "EQ": "is", "Is": "is", "NullSafeEQ": "is", "NEQ": "is not", "GT": "is more than", "LT": "is less than",
    "GTE": "is at least", "LTE": "is at most",
}  # fmt: skip
_NOT = {"EQ": "is not", "Is": "is not", "NEQ": "is", "GT": "is at most", "LT": "is at least"}
_SIGNS = {"Add": "plus", "Sub": "minus", "Mul": "times", "Div": "divided by", "Mod": "modulo", "DPipe": "joined to"}
_TOTALS = {"Sum": "the total", "Avg": "the average", "Min": "the smallest", "Max": "the largest"}
_SET = {"Union": "together with", "Intersect": "but only what is also found where it", "Except": "but without what it"}
_PARTS = {"%Y": "year", "%m": "month", "%d": "day", "%H": "hour", "%Y-%m": "month", "%w": "weekday"}
_SPLIT = re.compile(r"[_\W]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def explain(sql: str, dialect: str = "sqlite") -> str:
    """What a query does in one sentence; empty when it cannot be parsed.

    >>> explain("SELECT COUNT(*) FROM singer WHERE Country = 'France'")
    'counts the singers whose country is France'
    """
    tree = parsed(sql, dialect)
    try:
        words = " ".join(_Words(dialect).query(tree).split()) if tree is not None else ""
    except RecursionError:
        return ""
    return words if len(words) <= LONGEST else words[: LONGEST - 4] + " ..."


def readable(name: str) -> str:
    """A name of the schema as words.

    >>> readable("order_item"), readable("ArtistId"), readable("URL")
    ('order item', 'artist id', 'URL')
    """
    parts = [part for part in _SPLIT.split(name) if part]
    return " ".join(p if len(p) > 1 and p.isupper() and len(parts) == 1 else p.lower() for p in parts) or name


def plural(noun: str) -> str:
    """A noun for several.

    >>> plural("country"), plural("singer"), plural("sales"), plural("match")
    ('countries', 'singers', 'sales', 'matches')
    """
    if len(noun) < 3 or (noun.endswith("s") and not noun.endswith("ss")):
        return noun
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ss", "ch", "sh", "x", "z")) else "s")


def warnings(sql: str, dialect: str = "sqlite") -> list[str]:
    """What a reader of the result should know that the query itself decides: samples, and limits without an order."""
    tree = parsed(sql, dialect)
    if tree is None:
        return []
    from sqlglot import exp

    found = []
    if tree.find(exp.TableSample) or any(_is_random(order) for order in tree.find_all(exp.Order)):
        found.append("sampled: the query itself takes rows at random")
    if isinstance(tree, exp.Query) and tree.args.get("limit") and not tree.args.get("order"):
        found.append("the query takes the first rows without an order, so which ones come is not fixed")
    return found


def tables_in(sql: str, dialect: str = "sqlite") -> list[str]:
    """Tables that a query reads, in order; its own WITH names left out. Empty when it cannot be parsed."""
    tree = parsed(sql, dialect)
    if tree is None:
        return []
    from sqlglot import exp

    own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    names = [table.name for table in tree.find_all(exp.Table) if table.name and table.name.lower() not in own]
    return list(dict.fromkeys(names))


def filters(sql: str, dialect: str = "sqlite") -> bool:
    """Whether a query can leave out rows of its tables; True when it cannot be parsed."""
    from sqlglot import exp

    tree = parsed(sql, dialect)
    kinds = (exp.Where, exp.Having, exp.Qualify, exp.Join, exp.Limit, exp.SetOperation)
    return tree is None or tree.find(*kinds) is not None


@lru_cache(maxsize=256)
def parsed(sql: str, dialect: str) -> exp.Expr | None:
    """The syntax tree, which nobody changes; an answer asks for it several times."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        return sqlglot.parse_one(sql, read=dialect)
    except (SqlglotError, RecursionError):
        return None


def _is_random(order: exp.Expr) -> bool:
    from sqlglot import exp

    return order.find(exp.Rand) is not None or bool(re.search(r"\brandom\s*\(", order.sql(), re.IGNORECASE))


class _Words:
    """The words of one query; a query inside it has its own."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._tables: dict[str, str] = {}

    def query(self, tree: exp.Expr) -> str:
        """Any query: plain, compound or in brackets."""
        from sqlglot import exp

        if isinstance(tree, exp.Subquery):
            return self.query(tree.this)
        named = [f"{readable(c.alias)} ({_Words(self._dialect).query(c.this)})" for c in _ctes(tree)]
        before = f"first works out {_and(named)}; then " if named else ""
        if isinstance(tree, exp.SetOperation):
            joined = _SET.get(type(tree).__name__, "together with")
            sides = [_Words(self._dialect).query(side) for side in (tree.left, tree.right)]
            return f"{before}{sides[0]}, {joined} {sides[1]}{self._end(tree)}"
        if not isinstance(tree, exp.Select):
            return f"{before}runs {self._code(tree)}" if isinstance(tree, exp.Query) else ""
        return before + self._select(tree)

    def _select(self, tree: exp.Select) -> str:
        source, joins = tree.args.get("from_") or tree.args.get("from"), tree.args.get("joins") or []
        sources = [source.this] if source is not None else []
        sources += [join.this for join in joins]
        nouns = [self._source(item) for item in sources]
        where, group = tree.args.get("where"), tree.args.get("group")
        what = self._what(tree, nouns, grouped=group is not None)
        if where is not None:
            what += f" {self._where(where.this, len(nouns) == 1)}"
        if group is not None:
            what += f", for each {_and([self._key(g, tree).removeprefix('the ') for g in group.expressions])}"
        if (having := tree.args.get("having")) is not None:
            what += f", keeping those where {self._test(having.this)}"
        return what + self._end(tree)

    def _what(self, tree: exp.Select, nouns: Sequence[str], *, grouped: bool) -> str:
        """Verb, columns and tables."""
        from sqlglot import exp

        items = [item.this if isinstance(item, exp.Alias) else item for item in tree.expressions]
        of = f" of the {_joined(nouns)}" if nouns else ""
        only = items[0] if len(items) == 1 else None
        if isinstance(only, exp.Count) and not grouped:
            inside = only.this
            if isinstance(inside, exp.Star) or inside is None:
                return f"counts the {_joined(nouns)}" if nouns else "counts one row"
            if isinstance(inside, exp.Distinct):
                return f"counts the different {_and([plural(self._word(e)) for e in inside.expressions])}{of}"
            return f"counts the {plural(self._word(inside))} that are there{of}"
        if isinstance(only, exp.Star):
            return f"lists everything{of}"
        names = [self._word(item) for item in items]
        if len(names) > MOST_NAMED:
            return f"lists {len(names)} columns ({', '.join(names[:3])}, ...){of}"
        different = "the different " if tree.args.get("distinct") else ""
        if len(items) == 1 and type(items[0]).__name__ in _TOTALS and not grouped:
            return f"works out {names[0]}{of}"
        lead = f"lists {different or 'the '}" if not names[0].startswith("the ") or different else "lists "
        return f"{lead}{_and(names)}{of}"

    def _source(self, item: exp.Expr) -> str:
        """The noun of a table; a query in its place is told in brackets."""
        from sqlglot import exp

        name = item.alias_or_name
        if isinstance(item, exp.Subquery):
            self._tables[name.lower()] = readable(name) if name else "result"
            return f"rows of ({_Words(self._dialect).query(item)})"
        self._tables[name.lower()] = readable(item.name)
        return plural(readable(item.name))

    def _where(self, test: exp.Expr, single: bool) -> str:
        """Tests of one table's columns read as `whose country is France`."""
        from sqlglot import exp

        parts = list(test.flatten()) if isinstance(test, exp.And) else [test]
        own = all(isinstance(p.this, exp.Column) for p in parts if not isinstance(p, exp.Not | exp.Or | exp.Exists))
        plain = own and not any(isinstance(p, exp.Not | exp.Or | exp.Exists | exp.Paren) for p in parts)
        return f"{'whose' if single and plain else 'where'} {' and '.join(self._test(p) for p in parts)}"

    def _test(self, test: exp.Expr, *, denied: bool = False) -> str:
        """A condition in words."""
        from sqlglot import exp

        kind = type(test).__name__
        denied = denied != bool(test.args.get("negate"))  # `a NOT LIKE b` is a Like with a mark
        if isinstance(test, exp.Paren):
            return self._test(test.this, denied=denied)
        if isinstance(test, exp.Not):
            return self._test(test.this, denied=not denied)
        if isinstance(test, exp.And | exp.Or) and not denied:
            joined = " and " if isinstance(test, exp.And) else " or "
            parts = [self._test(part) for part in test.flatten()]
            nested = isinstance(test.parent, exp.And | exp.Or | exp.Paren)
            return f"({joined.join(parts)})" if nested else joined.join(parts)
        if isinstance(test, exp.Is) and isinstance(test.expression, exp.Null):
            return f"{self._word(test.this)} is {'not ' if denied else ''}empty"
        if kind in (_NOT if denied else _COMPARE):
            return f"{self._word(test.this)} {(_NOT if denied else _COMPARE)[kind]} {self._word(test.expression)}"
        no = "not " if denied else ""
        if isinstance(test, exp.Between):
            low, high = self._word(test.args["low"]), self._word(test.args["high"])
            return f"{self._word(test.this)} is {no}between {low} and {high}"
        if isinstance(test, exp.In):
            among = "among" if test.args.get("query") is not None else "one of"
            return f"{self._word(test.this)} is {no}{among} {self._members(test)}"
        if isinstance(test, exp.Like | exp.ILike):
            return f"{self._word(test.this)} {_like(test.expression, denied)}"
        if isinstance(test, exp.Exists):
            return f"there is {'nothing' if denied else 'something'} in ({_Words(self._dialect).query(test.this)})"
        return f"{'not ' if denied else ''}{self._word(test)}"

    def _members(self, test: exp.In) -> str:
        inner = test.args.get("query")
        if inner is not None:
            return f"what ({_Words(self._dialect).query(inner)}) gives"
        return _and([self._word(e) for e in test.expressions], "or")

    def _word(self, item: exp.Expr) -> str:
        """A value in words."""
        from sqlglot import exp

        kind = type(item).__name__
        if isinstance(item, exp.Column):
            return self._column(item)
        if isinstance(item, exp.Literal):
            return str(item.this) if item.this else "''"
        if isinstance(item, exp.Paren | exp.Cast | exp.Distinct | exp.Alias):
            return self._word(item.expressions[0] if isinstance(item, exp.Distinct) else item.this)
        if isinstance(item, exp.Neg) and isinstance(item.this, exp.Literal):
            return f"-{item.this.this}"
        if isinstance(item, exp.Star):
            return "everything"
        if isinstance(item, exp.Count):
            return self._count(item)
        if kind in _TOTALS and not item.expressions:
            return f"{_TOTALS[kind]} {self._word(item.this)}"
        if kind in _SIGNS:
            return f"{self._word(item.this)} {_SIGNS[kind]} {self._word(item.expression)}"
        if isinstance(item, exp.Subquery):
            return f"what ({_Words(self._dialect).query(item)}) gives"
        if (part := _date_part(item)) is not None:
            return f"the {part[0]} of {self._word(part[1])}"
        return self._code(item)

    def _count(self, item: exp.Count) -> str:
        from sqlglot import exp

        inside = item.this
        if isinstance(inside, exp.Star) or inside is None:
            return "the number of rows"
        different = "different " if isinstance(inside, exp.Distinct) else ""
        return f"the number of {different}{plural(self._word(inside))}"

    def _column(self, column: exp.Column) -> str:
        from sqlglot import exp

        if isinstance(column.this, exp.Star):
            return f"everything of {self._tables.get(column.table.lower(), readable(column.table))}"
        name, table = readable(column.name), self._tables.get(column.table.lower(), "")
        # A name that several tables may have is told with its table.
        return f"{table} {name}" if table and len(self._tables) > 1 and not name.startswith(table) else name

    def _key(self, key: exp.Expr, tree: exp.Expr) -> str:
        """A column to group or sort by; a number stands for the column at that place."""
        from sqlglot import exp

        items = tree.expressions if isinstance(tree, exp.Select) else []
        at = str(key.this) if isinstance(key, exp.Literal) and not key.is_string else ""
        if at.isdigit() and 0 < int(at) <= len(items):
            return self._word(items[int(at) - 1].unalias())
        named = {i.alias.lower(): i.this for i in items if isinstance(i, exp.Alias)}
        if isinstance(key, exp.Column) and not key.table and key.name.lower() in named:
            return self._word(named[key.name.lower()])
        return self._word(key)

    def _end(self, tree: exp.Expr) -> str:
        """Order and limit."""
        from sqlglot import exp

        words = ""
        if (order := tree.args.get("order")) is not None:
            keys = [
                self._key(o.this, tree) + (", highest first" if o.args.get("desc") else "") for o in order.expressions
            ]
            words += f", sorted by {_and(keys)}"
        limit = tree.args.get("limit")
        if limit is not None and isinstance(limit.expression, exp.Literal):
            count = limit.expression.this
            words += ", only the first" if count == "1" else f", only the first {count}"
            if (offset := tree.args.get("offset")) is not None:
                words += f" after {self._word(offset.expression)}"
        return words

    def _code(self, item: exp.Expr) -> str:
        return f"`{item.sql(self._dialect)}`"


def _ctes(tree: exp.Expr) -> Sequence[exp.Expr]:
    found: Sequence[exp.Expr] = getattr(tree, "ctes", None) or ()
    return found


def _and(words: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def _joined(nouns: Sequence[str]) -> str:
    """Tables: the first, and those it is joined to."""
    return nouns[0] if len(nouns) == 1 else f"{nouns[0]} with their {_and(nouns[1:])}"


def _like(pattern: exp.Expr, denied: bool) -> str:
    from sqlglot import exp

    text = str(pattern.this) if isinstance(pattern, exp.Literal) else ""
    inside, ends = text.strip("%"), (text[:1] == "%", text[-1:] == "%")
    if inside and not re.search("[%_]", inside) and any(ends):
        verb, after = {(True, True): ("contain", ""), (False, True): ("start", " with")}.get(ends, ("end", " with"))
        return f"does not {verb}{after} {inside}" if denied else f"{verb}s{after} {inside}"
    return f"{'does not match' if denied else 'matches'} `{pattern.sql()}`"


def _date_part(item: exp.Expr) -> tuple[str, exp.Expr] | None:
    """(unit, what) of a function that takes a part of a date."""
    from sqlglot import exp

    if isinstance(item, exp.Year | exp.Month | exp.Day):
        return type(item).__name__.lower(), item.this
    if isinstance(item, exp.Extract):
        return item.name.lower(), item.expression
    if isinstance(item, exp.TimeToStr) and (unit := _PARTS.get(item.text("format"))):
        inner = item.this
        return unit, inner.this if isinstance(inner, exp.Cast | exp.TsOrDsToTimestamp) else inner
    return None


__all__ = ["LONGEST", "MOST_NAMED", "explain", "plural", "readable", "tables_in", "warnings"]
