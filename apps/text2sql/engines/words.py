"""What a statement is, by its first word: says why a server would refuse it, and what MySQL must not be sent.

No lock of PostgreSQL or DuckDB rests on this; MySQL's READ ONLY transactions do not cover SET, KILL or FLUSH, so there
only what begins as a query is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .cells import failure

QUERIES = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "("})
"""How a query begins."""

OTHERS = frozenset({
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "CALL", "CHECKPOINT", "CLUSTER", "COMMENT", "COMMIT", "COPY", "CREATE",
    "DEALLOCATE", "DECLARE", "DELETE", "DESC", "DESCRIBE", "DETACH", "DISCARD", "DO", "DROP", "EXECUTE", "EXPLAIN",
    "EXPORT", "FLUSH", "GRANT", "HANDLER", "IMPORT", "INSERT", "INSTALL", "KILL", "LISTEN", "LOAD", "LOCK", "MERGE",
    "NOTIFY", "OPTIMIZE", "PRAGMA", "PREPARE", "PURGE", "REASSIGN", "REFRESH", "REINDEX", "RELEASE", "RENAME",
    "REPAIR", "REPLACE", "RESET", "REVOKE", "ROLLBACK", "SAVEPOINT", "SECURITY", "SET", "SHOW", "SHUTDOWN", "START",
    "TRUNCATE", "UNLISTEN", "UNLOCK", "UPDATE", "USE", "VACUUM", "XA",
})  # fmt: skip
"""How a statement begins that is no query."""

_TOKEN = re.compile(
    r"""\s+ | --[^\n]* | (?P<open>/\*) | (?P<end>;)
    | (?P<text> '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | (?P<tag>\$\w*\$).*?(?P=tag) )
    | (?P<word>\w+|.)""",
    re.DOTALL | re.VERBOSE,
)


def refusal(sql: str, *, hashes: bool = False) -> dict[str, str] | None:
    """Why `sql` is not sent, as the reply; None for what begins as a query.

    Args:
        sql: The statement.
        hashes: Whether `#` begins a comment and `/*! */` is no comment (MySQL).
    """
    word = first_word(sql, hashes=hashes)
    if word in QUERIES:
        return None
    if not word:
        return failure("only a query that gives rows is run", "not_a_query")
    if word in OTHERS or word == "/*!":
        return failure(f"not authorized: {word} is no query, and only reading is allowed", "denied")
    return failure(f'syntax error: a query does not begin with "{word[:40]}"', "syntax")


def first_word(sql: str, *, hashes: bool = False) -> str:
    """The first word (or sign) outside comments, in capitals; "" when there is none."""
    return next((token for token in _tokens(sql, hashes) if token != ";"), "")


def several(sql: str, *, hashes: bool = False) -> bool:
    """Whether more than one statement stands in `sql`, as far as can be told without a parser."""
    tokens = list(_tokens(sql, hashes))
    return ";" in tokens and any(token != ";" for token in tokens[tokens.index(";") :])


def _tokens(sql: str, hashes: bool) -> Iterator[str]:
    place = 0
    while place < len(sql):
        match = _TOKEN.match(sql, place)
        assert match is not None
        place = match.end()
        if match["open"]:
            if hashes and sql[place : place + 1] in ("!", "M"):
                yield "/*!"
            place = _after(sql, "*/", place)
        elif match["word"] == "#" and hashes:
            place = _after(sql, "\n", place)
        elif token := match["end"] or match["word"] or match["text"]:
            yield token.upper()


def _after(sql: str, sign: str, place: int) -> int:
    end = sql.find(sign, place)
    return len(sql) if end < 0 else end + len(sign)
