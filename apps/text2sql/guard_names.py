"""Names in a query as its engine compares them, and the names that functions go by.

Engines hold A and a for one letter and nothing else (PostgreSQL only outside quotes). Whoever held more names for one,
as Unicode's rules do, would take a table of the system for one that the query makes.
"""

from __future__ import annotations

import string
from typing import Any

_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SPELLED = {"j_s_o_n_b_": "jsonb_", "j_s_o_n_": "json_", "exploding_": ""}
"""What sqlglot makes of the names of its classes."""


def lowered(name: str) -> str:
    """`name` with A to Z in small letters."""
    return name.translate(_SMALL)


def key(part: Any, dialect: str) -> str:
    """What the engine compares of a name or an alias: quoted ones are exact in PostgreSQL; "" where there is none."""
    if type(part).__name__ == "TableAlias":
        part = part.args.get("this")
    if part is None or isinstance(part, str):
        return lowered(part or "")
    exact = dialect == "postgres" and part.args.get("quoted")
    return str(part.name) if exact else lowered(part.name)


def called(sql: str, node: Any, dialect: str, exp: Any) -> list[str]:
    """The names that a function goes by, in small letters, the one that is written first where it is known."""
    written = sql[node.meta.get("start", 0) : node.meta.get("end", -1) + 1]
    if dialect == "postgres" and written.startswith('"'):
        return [written.strip('"')]  # "Lower" is not lower
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc | exp.ParameterizedAgg | exp.CombinedAggFunc):
        quoted = isinstance(node.this, exp.Identifier) and node.this.quoted
        return [node.name if quoted and dialect == "postgres" else lowered(node.name)]
    names = [_spelled(name) for name in node.sql_names()] if isinstance(node, exp.Func) else []
    if isinstance(node, exp.MatchAgainst) and not written:
        names.append("@@")  # the operator, not a function of that name
    return [lowered(written.strip('"`[]')) or node.key, *names]


def _spelled(name: str) -> str:
    name = lowered(name)
    for odd, plain in _SPELLED.items():
        name = name.replace(odd, plain)
    return name


def derived_names(nodes: Any, dialect: str, exp: Any) -> set[str]:
    """Names that the query itself gives to columns and sources: aliases, column lists, parameters of lambdas."""
    found: list[Any] = []
    for node in nodes:
        if isinstance(node, exp.Alias):
            found.append(node.args.get("alias"))
        elif isinstance(node, exp.TableAlias):
            found += [node, *(node.args.get("columns") or ())]
        elif isinstance(node, exp.Lambda):
            found += node.expressions
        elif isinstance(node, exp.Comprehension):
            found.append(node.expression)
        elif isinstance(node, exp.JSONColumnDef):
            found.append(node.this)
        elif isinstance(node, exp.Unnest) and isinstance(node.args.get("offset"), exp.Identifier):
            found.append(node.args["offset"])
        elif isinstance(node, exp.Values) and node.expressions:  # as engines name them
            width = len(node.expressions[0].expressions)
            found += (f"{word}{number}" for number in range(width + 1) for word in ("column", "col", "column_"))
    return {key(part, dialect) for part in found}
