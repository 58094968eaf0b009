"""Where a statement's texts, quoted names and comments are, as its engine sees them.

A parser that reads one of them otherwise than the engine does would judge another statement than the one that runs: a
call stands in what it takes for a comment. So comments are blanked here before it reads, and its texts must end where
these do.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

_LETTER = r"A-Za-z_\x80-\U0010ffff"
_PARTS = {
    "text": r"'(?:[^']|'')*'",
    "backslashed": r"'(?:[^'\\]|\\.|'')*'",
    "escaped": r"[eE]'(?:[^'\\]|\\.|'')*'",
    "double": r'"(?:[^"]|"")*"',
    "double_backslashed": r'"(?:[^"\\]|\\.|"")*"',
    "tick": r"`(?:[^`]|``)*`",
    "bracket": r"\[[^\]]*\]",
    "dollar": rf"\$(?P<tag>(?:[{_LETTER}][\w\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$",
    "line": r"--[^\n]*",
    "line_or_return": r"--[^\n\r]*",
    "line_spaced": r"--(?=[\s\x00-\x1f]|\Z)[^\n]*",
    "hash": r"#[^\n]*",
    "block": r"/\*.*?\*/",
    "nested": r"/\*",
    "number": r"\.?\d[\w.]*(?P<junk>['\"`])?",
    "word": rf"[{_LETTER}][\w$\x80-\U0010ffff]*",
    "jinja": r"\{[{%#]",
    "open": r"['\"`]|/\*",
    "space": r"[ \t\r\n]+",
    "other": r".",
}
_ORDER = {
    "sqlite": "text double tick bracket line block number word jinja open space other",
    "duckdb": "escaped text double dollar line_or_return nested number word jinja open space other",
    "postgres": "escaped text double dollar line_or_return nested number word jinja open space other",
    "mysql": "backslashed double_backslashed tick line_spaced hash block number word jinja open space other",
}
_QUOTED = frozenset({"text", "backslashed", "escaped", "double", "double_backslashed", "tick", "bracket", "dollar"})
_COMMENTS = frozenset({"line", "line_or_return", "line_spaced", "hash", "block", "nested"})
_EXECUTED = ("/*!", "/*M!", "/*+")
"""Comments that MySQL and MariaDB run."""


class Misread(Exception):
    """A place that the engine and a parser may read differently, or that runs though it looks like a comment."""

    def __init__(self, what: str, at: int, kind: str = "syntax") -> None:
        """`at`: characters before it; `kind`: the refusal's."""
        super().__init__(what)
        self.at, self.kind = at, kind


class Reading(NamedTuple):
    """A statement with its comments blanked (line ends stay), and where its quoted parts end."""

    text: str
    ends: frozenset[int]


def read(sql: str, dialect: str) -> Reading:
    """What the engine of `dialect` sees.

    Raises:
        Misread: something is not closed, is a comment that runs, or is read differently by different readers.
    """
    pieces, ends, at = [], set(), 0
    pattern = _pattern(dialect)
    while at < len(sql):
        found = pattern.match(sql, at)
        if found is None:
            raise Misread("a character that cannot be read", at)
        kind, piece = found.lastgroup or "", found[0]
        if kind == "nested":
            piece = sql[at : _nested(sql, at)]
        if kind in _COMMENTS:
            if dialect == "mysql" and piece.startswith(_EXECUTED):
                raise Misread("a comment that the engine would run", at, "denied")
            pieces.append(re.sub(r"[^\n]", " ", piece))
        else:
            _doubt(kind, piece, at, found)
            pieces.append(piece)
        at += len(piece)
        if kind in _QUOTED:
            ends.add(at)
    return Reading("".join(pieces), frozenset(ends))


def _doubt(kind: str, piece: str, at: int, found: re.Match[str]) -> None:
    """Raises on what readers may differ about."""
    if "\0" in piece:
        raise Misread("a null character", at)
    if kind == "open":
        raise Misread(f"{piece} is not closed", at)
    if kind == "jinja":
        raise Misread(f"{piece} is no SQL", at)
    if kind == "number" and found["junk"]:
        raise Misread("a quote right after a number", at)
    if kind in ("word", "other") and not piece.isascii():
        if odd := next((sign for sign in piece if unicodedata.category(sign)[0] in "CZ"), ""):
            raise Misread(f"the character U+{ord(odd):04X} outside quotes", at)
        if any(len(other) == len(piece) and other.isascii() for other in (piece.upper(), piece.lower())):
            raise Misread(f"{piece} only looks like a word of SQL", at)
    if kind == "other" and piece.isascii() and not piece.isprintable():
        raise Misread(f"the character U+{ord(piece):04X} outside quotes", at)


def _nested(sql: str, at: int) -> int:
    depth = 0
    for sign in re.finditer(r"/\*|\*/", sql[at:]):
        depth += 1 if sign[0] == "/*" else -1
        if depth == 0:
            return at + sign.end()
    raise Misread("/* is not closed", at)


@functools.cache
def _pattern(dialect: str) -> re.Pattern[str]:
    named = (f"(?P<{name}>{_PARTS[name]})" for name in _ORDER[dialect].split())
    return re.compile("|".join(named), re.DOTALL)
