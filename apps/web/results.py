"""Results of queries kept for paging and for files; what was pushed out is asked again, read-only.

A page gets the first rows with a turn and the others in pieces. All results together take a bounded number of bytes.
"""

from __future__ import annotations

import asyncio
import csv
import io
import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .databases import MOST_ROWS, Source
from .door import attached, whole_of
from .faults import Fault, clean
from .people import Person

if TYPE_CHECKING:
    from .site import Site

FIRST_ROWS = 200
"""Rows that come with a turn."""
MOST_PAGE = 1_000
"""Rows of a piece."""
MOST_KEPT = 256 * 2**20
"""Bytes of all results that are kept, about."""
LONGEST_CELL = 2_000
"""Characters of a cell on the page; a file has all of them."""
_SECONDS, _SIZE = 15.0, 64 * 2**20
_LARGEST_WHOLE = 2**53 - 1
_DATE = re.compile(r"\d{4}-\d\d(-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?)?\Z")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_BLANK = ("\t", "\r", "\n")
_LEFT_OUT = r"[\s\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]*"
_STARTS = re.compile(rf"{_LEFT_OUT}[=+\-@＝＋－＠﹦﹢﹣﹫]")


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gave."""

    columns: list[str]
    rows: list[list[Any]]
    """As JSON has them, see `cell`."""
    types: list[str]
    truncated: bool = False
    weight: int = 0
    """Bytes, about."""

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, truncated: bool = False) -> Result:
        """The result of raw cells."""
        made = [[cell(c) for c in row] for row in rows]
        weight = sum(64 + sum(len(c) + 50 if isinstance(c, str) else 32 for c in row) for row in made)
        return cls([str(c) for c in columns], made, kinds(columns, made), truncated, weight)

    def part(self, offset: int, limit: int) -> list[list[Any]]:
        """Some rows for the page, cells that are very long cut."""
        return [[_short(c) for c in row] for row in self.rows[offset : offset + limit]]

    def first(self) -> dict[str, Any]:
        """The fields of a turn."""
        return {
            "columns": self.columns, "types": self.types, "rows": self.part(0, FIRST_ROWS),
            "row_count": len(self.rows), "truncated": self.truncated,
        }  # fmt: skip


def _short(value: Any) -> Any:
    long = isinstance(value, str) and len(value) > LONGEST_CELL
    return f"{value[:LONGEST_CELL]}… ({len(value):,} characters)" if long else value


def cell(value: Any) -> Any:
    """A cell as JSON has it: None, a finite number that a browser holds exactly, or text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST_WHOLE else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)


def kinds(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """number, date or text for each column, from the first rows."""
    found = []
    for at in range(len(columns)):
        cells = [row[at] for row in rows[:FIRST_ROWS] if at < len(row) and row[at] is not None]
        if cells and all(isinstance(c, int | float) for c in cells):
            found.append("number")
        else:
            found.append("date" if cells and all(isinstance(c, str) and _DATE.match(c) for c in cells) else "text")
    return found


class Results:
    """Results by the id of their turn, the latest used kept.

    Args:
        most: Bytes kept at most, about.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most, self._weight = most, 0
        self._kept: OrderedDict[str, Result] = OrderedDict()

    def keep(self, turn: str, result: Result) -> None:
        """Keeps a result; the ones not used for longest go."""
        self.drop(turn)
        self._kept[turn] = result
        self._weight += result.weight
        while self._weight > self._most and len(self._kept) > 1:
            self._weight -= self._kept.popitem(last=False)[1].weight

    def get(self, turn: str) -> Result | None:
        """The result, if it is still there."""
        if turn in self._kept:
            self._kept.move_to_end(turn)
        return self._kept.get(turn)

    def drop(self, turn: str) -> None:
        """Forgets a result."""
        if (old := self._kept.pop(turn, None)) is not None:
            self._weight -= old.weight


async def run_again(source: Source, sql: str) -> Result:
    """What a query gives now.

    Raises:
        Fault: it does not run any more (409).
    """
    info = await source.asked(sql, seconds=_SECONDS, rows=MOST_ROWS, size=_SIZE)
    if info.get("error"):
        raise Fault(409, "gone", f"the query does not run any more: {clean(str(info['error']))}", "ask again")
    return await asyncio.to_thread(Result.of, info["columns"], info["rows"], truncated=bool(info.get("truncated")))


async def _result(site: Site, person: Person, request: web.Request) -> tuple[str, Result]:
    """Turn and result that a request names."""
    turn = request.match_info["id"]
    source, record = await site.talks.answer(person, turn)
    if (kept := site.results.get(turn)) is not None:
        return turn, kept
    if not record["sql"]:
        raise Fault(404, "unknown", "this answer has no rows")
    found = await run_again(source, record["sql"])
    site.results.keep(turn, found)
    return turn, found


async def show_rows(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/turns/{id}/rows: a piece of a result."""
    offset = whole_of(request.query.get("offset"), "offset", 0, 10**9, 0)
    limit = whole_of(request.query.get("limit"), "limit", 1, MOST_PAGE, FIRST_ROWS)
    _, result = await _result(site, person, request)
    return web.json_response(
        {"columns": result.columns, "types": result.types, "rows": result.part(offset, limit),
         "row_count": len(result.rows), "truncated": result.truncated, "offset": offset}
    )  # fmt: skip


async def save_rows(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/turns/{id}/rows.csv."""
    turn, result = await _result(site, person, request)
    text = await asyncio.to_thread(csv_text, result.columns, result.rows)
    return attached(request, f"{turn}.csv", "\ufeff" + text, "text/csv")


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A result as CSV (RFC 4180), safe to open in a spreadsheet: no cell is taken for a formula.

    >>> csv_text(["a", "=b"], [["=1+1", -5], ["-3.5", "-x"], [None, "@SUM(A1)"]]).split()
    ["a,'=b", "'=1+1,-5", "-3.5,'-x", ",'@SUM(A1)"]
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([guarded(c) for c in columns])
    writer.writerows([[guarded(c) for c in row] for row in rows])
    return out.getvalue()


def guarded(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe, numbers do not.

    What is not seen at its start (spaces, control characters, marks of direction) is not what it begins with.
    """
    if not isinstance(value, str) or _NUMBER.match(value):
        return value
    return f"'{value}" if value.startswith(_BLANK) or _STARTS.match(value) else value


__all__ = [
    "FIRST_ROWS", "LONGEST_CELL", "MOST_KEPT", "MOST_PAGE", "Result", "Results", "cell", "csv_text", "guarded", "kinds",
    "run_again", "save_rows", "show_rows",
]  # fmt: skip
