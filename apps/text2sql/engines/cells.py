"""How any engine's values become cells, and rows a reply: None, int, float or str, cut at the limits.

A boolean is 1 or 0. A decimal of scale 0 is an int, any other a float. A blob is x'hex'. Dates and times are ISO text,
a duration is [-]H:MM:SS. Lists, structs and JSON are JSON text. Anything else is its text.
"""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

CELL_BYTES = 8
"""What each cell counts for beside its text."""

_FIRST, _MOST, _CHUNK_BYTES = 32, 1024, 2**20


def plain(value: Any) -> Any:
    """`value` as a cell."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"x'{bytes(value).hex()}'"
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=plain, ensure_ascii=False)
    return str(value)


def _duration(value: datetime.timedelta) -> str:
    sign = "-" if value < datetime.timedelta(0) else ""
    whole, left = divmod(abs(value), datetime.timedelta(seconds=1))
    minutes, seconds = divmod(whole, 60)
    fraction = f".{left.microseconds:06d}" if left else ""
    return f"{sign}{minutes // 60}:{minutes % 60:02d}:{seconds:02d}{fraction}"


def take(
    rows: Iterable[Sequence[Any]], most: int, size: int, cell: Callable[[Any], Any] = plain
) -> tuple[list[list[Any]], bool]:
    """At most `most` rows and about `size` bytes of `rows`, and whether a limit cut them."""
    found: list[list[Any]] = []
    taken = 0
    for row in rows:
        cells = [cell(value) for value in row]
        taken += CELL_BYTES * len(cells) + sum(len(value) for value in cells if isinstance(value, str))
        if len(found) >= most or taken > size:
            return found, True
        found.append(cells)
    return found, False


def chunked(fetch: Callable[[int], Sequence[Sequence[Any]]], deadline: float = math.inf) -> Iterator[Sequence[Any]]:
    """The rows that `fetch(number)` gives until it gives none, few at a time where they are wide.

    Raises:
        TimeoutError: `deadline`, on the monotonic clock, has passed.
    """
    number = _FIRST
    while rows := fetch(number):
        yield from rows
        width = sum(len(value) for value in rows[-1] if isinstance(value, str | bytes)) + CELL_BYTES * len(rows[-1])
        number = max(1, min(2 * number, _MOST, _CHUNK_BYTES // width))
        if time.monotonic() > deadline:
            raise TimeoutError


def is_text(sql: str) -> bool:
    """Whether `sql` can be written as UTF-8 (JSON lets half a surrogate pair pass)."""
    try:
        sql.encode()
    except UnicodeEncodeError:
        return False
    return True


def failure(message: str, error_class: str) -> dict[str, Any]:
    """The reply of a query that failed."""
    return {"error": message, "error_class": error_class}


def stopped(seconds: float) -> dict[str, Any]:
    """The reply of a query that took too long."""
    return failure(f"stopped after {seconds:g} s", "timeout")
