"""A chart for a result, where one fits: a Vega-Lite specification that code picks from a closed set of forms.

A model has no say here and nothing of a result becomes code: cells and column names stand in the specification as data
and titles only, and `check_chart` refuses whatever is not of these forms. Rules, the first that fits:

* a date (or year, or month) and numbers: a line, one for each kind when a column with few kinds stands beside them;
* shares that add up to 1 or 100, of 2 to 6 kinds: a pie;
* a column of different texts and a number: bars, in the order of the rows; two such columns: bars in colours;
* two numbers, three rows or more: points.

No chart: a single row or column, more than two texts, texts that repeat, no number, or in its place keys or a column of
0 and 1 alone, which says yes or no.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from verbal.errors import DataError
from verbal.text import visible

MARKS = ("bar", "line", "point", "arc")
"""Forms of a chart."""
MOST_POINTS = 1_000
"""Rows that are drawn."""
MOST_BARS = 40
"""Bars of a chart; of more kinds none is drawn."""
MOST_COLOURS = 8
"""Kinds that colours can tell apart."""

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_CHANNELS = {"bar": {"x", "y", "color"}, "line": {"x", "y", "color"}, "point": {"x", "y", "color"}}
_CHANNELS["arc"] = {"theta", "color"}
_TYPES = ("quantitative", "temporal", "nominal", "ordinal")
_DATE = re.compile(r"\d{4}-\d\d(-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?)?\Z")
_KEY = re.compile(r"(^|[_\s])(id|key|code|zip|phone|uuid)$|(?<=[a-z])I[Dd]$|^id_", re.IGNORECASE)
_YEAR = re.compile(r"year|^%Y|strftime\('%Y'", re.IGNORECASE)
_LONGEST = 80


def choose_chart(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> dict[str, Any] | None:
    """The Vega-Lite specification for a result, or None where no chart fits.

    Args:
        columns: Names of the columns.
        rows: Cells of each row, None, numbers or text.
        title: Over the chart, such as the question.
    """
    if len(rows) < 2 or len(columns) < 2 or len(columns) > 6 or any(len(row) != len(columns) for row in rows):
        return None
    drawn = [list(row) for row in rows[:MOST_POINTS]]
    kinds = [_kind(name, [row[i] for row in drawn]) for i, name in enumerate(columns)]
    numbers, dates, texts = ([i for i, kind in enumerate(kinds) if kind == k] for k in ("number", "date", "text"))
    if not numbers:
        return None
    picked = _picked(drawn, numbers, dates, texts, len(rows) > MOST_POINTS)
    if picked is None:
        return None
    mark, channels = picked
    used = sorted(set(channels.values()))
    encoding = {name: _channel(name, columns[i], i, kinds[i], mark) for name, i in channels.items()}
    values = [{f"c{i}": _cell(row[i]) for i in used} for row in drawn]
    return {
        "$schema": _SCHEMA, "title": _words(title), "data": {"values": values}, "mark": {"type": mark},
        "encoding": encoding,
    }  # fmt: skip


def _picked(
    rows: Sequence[Sequence[Any]], numbers: list[int], dates: list[int], texts: list[int], cut: bool
) -> tuple[str, dict[str, int]] | None:
    """Mark and channel -> column."""
    value = numbers[0]
    if len(dates) == 1 and len(texts) <= 1:
        channels = {"x": dates[0], "y": value}
        if texts:
            few = len({row[texts[0]] for row in rows}) <= MOST_COLOURS
            pairs = {(row[dates[0]], row[texts[0]]) for row in rows}
            return ("line", {**channels, "color": texts[0]}) if few and len(pairs) == len(rows) else None
        return ("line", channels) if len({row[dates[0]] for row in rows}) == len(rows) else None
    if dates or len(texts) > 2:
        return None
    if texts:
        names = {tuple(row[i] for i in texts) for row in rows}
        first = {row[texts[0]] for row in rows}
        if len(names) < len(rows) or len(first) > MOST_BARS or cut:
            return None
        if len(texts) == 2:
            few = len({row[texts[1]] for row in rows}) <= MOST_COLOURS
            return ("bar", {"x": texts[0], "y": value, "color": texts[1]}) if few else None
        if _shares([row[value] for row in rows]):
            return "arc", {"theta": value, "color": texts[0]}
        return "bar", {"x": texts[0], "y": value}
    return ("point", {"x": numbers[0], "y": numbers[1]}) if len(numbers) == 2 and len(rows) > 2 else None


def _kind(name: str, cells: Sequence[Any]) -> str:
    """number, date, text, key, flag (0 and 1 alone), other or empty."""
    present = [c for c in cells if c is not None]
    if not present:
        return "empty"
    if all(isinstance(c, int | float) and not isinstance(c, bool) and math.isfinite(c) for c in present):
        years = all(isinstance(c, int) and 1000 <= c <= 2999 for c in present)
        if years and _YEAR.search(name):
            return "date"
        if len(present) > 2 and set(present) <= {0, 1}:
            return "flag"
        return "key" if _KEY.search(name.strip()) else "number"
    if all(isinstance(c, str) and _DATE.match(c) for c in present):
        return "date"
    if all(isinstance(c, str) and re.fullmatch(r"[12]\d{3}", c) for c in present):
        return "date"
    return "text" if all(isinstance(c, str) and len(c) <= _LONGEST for c in present) else "other"


def _shares(cells: Sequence[Any]) -> bool:
    if not 2 <= len(cells) <= 6 or any(c is None or c < 0 for c in cells):
        return False
    total = sum(cells)  # whole numbers that happen to add up are counts
    wholes = (1.0, 100.0) if any(isinstance(c, float) for c in cells) else ()
    return any(math.isclose(total, whole, rel_tol=0.005) for whole in wholes)


def _channel(name: str, column: str, at: int, kind: str, mark: str) -> dict[str, Any]:
    made: dict[str, Any] = {"field": f"c{at}", "type": "quantitative" if kind == "number" else "nominal"}
    if kind == "date":
        made["type"] = "ordinal"  # years and months as they are written: no time zone moves them
    if mark == "bar" and name == "x":
        made["sort"] = None  # the query has sorted them
    return {**made, "title": _words(column)}


def _cell(value: Any) -> Any:
    return visible(value, _LONGEST, line=True) if isinstance(value, str) else value


def _words(text: str) -> str:
    return visible(text, 200, line=True)


def check_chart(chart: Mapping[str, Any]) -> None:
    """Nothing for a specification of the closed set.

    Raises:
        DataError: it has a key, mark, channel or value that no chart of ours has.
    """
    wrong = sorted(set(chart) ^ {"$schema", "title", "data", "mark", "encoding"})
    mark = chart.get("mark")
    if wrong or not isinstance(mark, Mapping) or set(mark) != {"type"} or mark["type"] not in MARKS:
        raise _strange(f"keys {wrong} or mark {mark!r}")
    if chart["$schema"] != _SCHEMA or not isinstance(chart["title"], str) or set(chart["data"]) != {"values"}:
        raise _strange("schema, title or data")
    encoding, fields = chart["encoding"], set[str]()
    if not set(encoding) <= _CHANNELS[mark["type"]]:
        raise _strange(f"channels {sorted(encoding)} of {mark['type']}")
    for channel in encoding.values():
        known = set(channel) <= {"field", "type", "title", "sort"} and channel.get("sort") is None
        if not known or channel["type"] not in _TYPES or not re.fullmatch(r"c\d", channel["field"]):
            raise _strange(f"channel {channel!r}")
        if not isinstance(channel["title"], str):
            raise _strange(f"title {channel['title']!r}")
        fields.add(channel["field"])
    for row in chart["data"]["values"]:
        if set(row) != fields or not all(c is None or isinstance(c, int | float | str) for c in row.values()):
            raise _strange(f"row {row!r}")


def _strange(what: str) -> DataError:
    return DataError(f"not a chart of ours: {what}", where="chart", todo="use choose_chart")


def text_chart(chart: Mapping[str, Any], width: int = 60, most: int = 20, *, block: str = "█") -> str:
    """A chart as lines of text: a bar for each row; points as pairs are none, which gives an empty text.

    Args:
        chart: From `choose_chart`.
        width: Characters of a line.
        most: Rows shown.
        block: What a bar is made of.
    """
    encoding, rows = chart["encoding"], chart["data"]["values"]
    if chart["mark"]["type"] == "point":
        return ""
    value = encoding["theta" if "theta" in encoding else "y"]["field"]
    names = [encoding[c]["field"] for c in ("x", "color") if c in encoding]
    shown = [(" / ".join("NULL" if r[n] is None else str(r[n]) for n in names), r[value]) for r in rows[:most]]
    longest = min(max((len(label) for label, _ in shown), default=0), width // 2)
    figures = [f"{n:,.6g}" if isinstance(n, float) else "NULL" if n is None else f"{n:,}" for _, n in shown]
    room = max(width - longest - max(map(len, figures), default=0) - 3, 4)
    top = max((abs(n) for _, n in shown if n is not None), default=0) or 1
    lines = []
    for (label, n), figure in zip(shown, figures, strict=True):
        bar = block * max(round(abs(n or 0) / top * room), int(bool(n)))
        lines.append(f"{visible(label, longest, line=True):<{longest}} {'-' if (n or 0) < 0 else ''}{bar} {figure}")
    if len(rows) > most:
        lines.append(f"... {len(rows) - most} more")
    return "\n".join(lines)


__all__ = ["MARKS", "MOST_BARS", "MOST_COLOURS", "MOST_POINTS", "check_chart", "choose_chart", "text_chart"]
