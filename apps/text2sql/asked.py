"""What a person typed, looked at before anything is paid for: empty, too long, or SQL in place of a question.

SQL that reads is run as it is, without a model, behind the same locks as any query. SQL that would write is refused.
`Select all singers from France` is a sentence: a text that parses as a query counts as SQL when a table of it is there,
or when it is written as nobody writes a sentence: `*`, brackets, SELECT and FROM in capitals, a semicolon or a fence.
"""

from __future__ import annotations

import re
from typing import Any

from verbal.errors import DataError

from .values import Database

LONGEST = 4_000
"""Characters of a question."""

_READS = re.compile(r"^\s*\(*\s*(select|with|values)\b", re.IGNORECASE)
_WRITES = re.compile(
    r"^\s*(insert\s+(or\s+\w+\s+)?into\s+\S|replace\s+into\s+\S|update\s+(or\s+\w+\s+)?[\w.\"`\[\]]+\s+set\s+\S|"
    r"delete\s+from\s+[\w.\"`\[\]]+\s*(;|$|where\b)|truncate\s+(table\s+)?\w+\s*;?\s*$|"
    r"(create|drop|alter)\s+(temp(orary)?\s+|unique\s+|or\s+replace\s+)*(table|view|index|database|schema|trigger|user|"
    r"role|function|procedure)\b|attach\s+(database\s+)?\S+\s+as\b|pragma\s+\w+|copy\s+\S+\s+(from|to)\b|"
    r"grant\s+\w+.*\bto\b|vacuum\s*;?\s*$|merge\s+into\b)",
    re.IGNORECASE | re.DOTALL,
)
_CAPITALS = re.compile(r"\bSELECT\b.*\bFROM\b", re.DOTALL)
_AS = re.compile(r"\bas\b", re.IGNORECASE)
_FENCE = re.compile(r"^\s*```\w*\s*\n?(.*?)\n?\s*```\s*$", re.DOTALL)


def check_question(question: str) -> str:
    """The question without what surrounds it.

    Raises:
        DataError: it is empty, says nothing, or is longer than `LONGEST`.
    """
    text = question.replace("\x00", " ").strip()
    if not text:
        raise DataError("the question is empty", todo="ask something")
    if not re.search(r"\w", text):
        raise DataError(f"the question {text[:40]!r} holds no word", todo="ask something in words")
    if len(text) > LONGEST:
        raise DataError(
            f"the question has {len(text):,} characters, at most {LONGEST:,} are read",
            todo="ask in a sentence or two; data belongs into the database",
        )
    return text


def pasted_sql(text: str, database: Database, dialect: str = "sqlite") -> tuple[str, str] | None:
    """(`reads` or `writes`, the SQL) when a text is SQL and no question; else None."""
    fenced = _FENCE.match(text)
    sql = (fenced[1] if fenced else text).strip().rstrip(";").strip()
    if _WRITES.match(sql):
        return "writes", sql
    if not _READS.match(sql):
        return None
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        trees = [tree for tree in sqlglot.parse(sql, read=dialect) if tree is not None]
    except (SqlglotError, RecursionError):
        return None
    if not trees or not isinstance(trees[0], exp.Query):
        return None
    known = {table.name.casefold() for table in database.tables}
    own = {cte.alias.casefold() for tree in trees for cte in tree.find_all(exp.CTE)}
    named = {t.name.casefold() for tree in trees for t in tree.find_all(exp.Table) if t.name}
    # Words that follow a word without a comma are aliases to a parser, and prose to a person.
    if named and not named & (known | own) and not (fenced or _is_written(text, trees[0])):
        return None
    if not named and not re.search(r"[\d'(*]", sql):
        return None
    return "reads", sql


def _is_written(text: str, tree: Any) -> bool:
    """Whether a query over unknown tables is one for certain: the guard then names the nearest table."""
    from sqlglot import exp

    items = [item for select in tree.find_all(exp.Select) for item in select.expressions]
    if sum(isinstance(item, exp.Alias) for item in items) > len(_AS.findall(text)):
        return False  # `5 singers`
    if text.rstrip().endswith(";") or (_CAPITALS.search(text) and not text.isupper()):
        return True
    kinds = (exp.Star, exp.AggFunc)
    return any(item.find(*kinds) is not None for item in items)


__all__ = ["LONGEST", "check_question", "pasted_sql"]
