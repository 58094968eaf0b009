"""Plots as inline SVG: rows with dots and whiskers, curves, wealth on a log scale, dots against two axes.

Positions are in per cent, so that a plot follows the width of the page while text and dots keep their size; colours
come from the page's style sheet. Words given as ready HTML are escaped by the caller.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence


def at(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """The place of a value between low and high as per cent of the width, clipped to the ends.

    >>> at(0.25), at(7, 0, 5)
    ('25.00%', '100.00%')
    """
    share = (value - low) / (high - low) if high != low else 0.0
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover low to high.

    >>> ticks(-0.04, 0.41)
    [0.0, 0.1, 0.2, 0.3, 0.4]
    """
    size = max(high - low, 1e-9) / count
    base = 10 ** math.floor(math.log10(size))
    step = next(base * m for m in (1, 2, 5, 10) if base * m >= size * 0.999)
    return [round(i * step, 10) + 0.0 for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def track(label: str, ticks: Iterable[float], span: tuple[float, float], marks: str) -> str:
    """The picture of one row: grid lines at the ticks and the marks, described by `label` for who cannot see it."""
    lines = "".join(
        f'<line class="{"zero" if t == 0 else "grid"}" x1="{at(t, *span)}" x2="{at(t, *span)}" y1="0" y2="100%"/>'
        for t in ticks
    )
    return f'<svg class="track" role="img" aria-label="{html.escape(label)}">{lines}{marks}</svg>'


def whisker(mean: float, low: float | None, high: float | None, span: tuple[float, float]) -> str:
    """A dot at the mean and a line with caps from low to high."""
    mark = f'<circle class="mean" cx="{at(mean, *span)}" cy="50%" r="5.5"/>'
    if low is None or high is None:
        return mark
    a, b = at(low, *span), at(high, *span)
    caps = "".join(f'<line x1="{x}" x2="{x}" y1="37%" y2="63%"/>' for x in (a, b))
    return f'<g class="whisker"><line x1="{a}" x2="{b}" y1="50%" y2="50%"/>{caps}</g>{mark}'


def limit(value: float, span: tuple[float, float]) -> str:
    """A dashed line across one row, at a value that decides; nothing when it lies outside the picture."""
    x = at(value, *span)
    return f'<line class="limit" x1="{x}" x2="{x}" y1="0" y2="100%"/>' if span[0] <= value <= span[1] else ""


def axis(ticks: Iterable[float], span: tuple[float, float], form: Callable[[float], str]) -> str:
    """The last row of a plot: the ticks in words."""
    words = ""
    for t in ticks:
        x = float(at(t, *span)[:-1])
        edge = ' class="first"' if x < 4 else ' class="last"' if x > 96 else ""
        words += f'<text{edge} x="{x:.2f}%" y="14">{form(t)}</text>'
    return f'<li class="row axis" aria-hidden="true"><span></span><svg class="track">{words}</svg><span></span></li>'


def row(kind: str, name: str, about: str, track: str, value: str, interval: str) -> str:
    """One row of a plot: name, picture, value; all are ready HTML, `kind` is the class that colours it."""
    about = f"<small>{about}</small>" if about else ""
    return (
        f'<li class="row {kind}"><div class="name"><b>{name}</b>{about}</div>{track}'
        f'<div class="value"><b>{value}</b><small>{interval}</small></div></li>'
    )


def cell(share: float | None, kind: str) -> str:
    """A small bar for a table cell; nothing but its rail when there is no share."""
    bar = f'<rect width="{at(share)}" height="100%" rx="2"/>' if share is not None else ""
    rail = '<rect class="rail" width="100%" height="100%" rx="2"/>'
    return f'<svg class="cell {kind}" aria-hidden="true">{rail}{bar}</svg>'


def panel(
    name: str,
    label: str,
    points: Sequence[tuple[float, float]],
    span: tuple[float, float],
    marks: Sequence[float],
    form: Callable[[float], str],
    width: float,
) -> str:
    """One panel of a curve over the same horizontal axis as its siblings.

    Args:
        name: Heading, ready HTML.
        label: The picture in words.
        points: Pairs (x, value), by x; one at least.
        span: Values at the bottom and at the top.
        marks: Values with a line and a word.
        form: A tick in words.
        width: The x of the right end.
    """
    heights = [(_up(t, span), form(t)) for t in marks]
    feet = [(at(t, 0, width), f"{t:,.0f}") for t in ticks(0, width)]
    places = [(float(at(x, 0, width)[:-1]), 100 - float(at(v, *span)[:-1])) for x, v in points]
    line = " ".join(f"{a:.2f},{b:.2f}" for a, b in places)
    area = f'<polygon points="{places[0][0]:.2f},100 {line} {places[-1][0]:.2f},100"/>'
    dots = "".join(f'<circle cx="{a:.2f}%" cy="{b:.2f}%" r="3.2"/>' for a, b in places) if len(places) <= 60 else ""
    return _frame(name, label, heights, feet, _stretched(f'{area}<polyline points="{line}"/>') + dots)


def lines(
    label: str,
    series: Sequence[tuple[str, Sequence[tuple[float, float, float | None, float | None]]]],
    spans: tuple[tuple[float, float], tuple[float, float]],
    marks: tuple[Sequence[float], Sequence[float]],
    forms: tuple[Callable[[float], str], Callable[[float], str]],
) -> str:
    """Several lines against the same two axes, each with the band of its interval.

    Args:
        label: The picture in words.
        series: (classes that colour it, points (x, y, low, high) by x) of each; the last one is drawn on top.
        spans: (left, right) and (bottom, top).
        marks: Values with a word on the horizontal, and with a line and a word on the vertical axis.
        forms: A tick of the horizontal and of the vertical axis in words.
    """
    across, up = spans
    feet = [(at(t, *across), forms[0](t)) for t in marks[0]]
    heights = [(_up(t, up), forms[1](t)) for t in marks[1]]
    drawn = dots = ""
    for kind, points in series:
        band = [(x, low, high) for x, _, low, high in points if low is not None and high is not None]
        edge = [_place(x, high, across, up) for x, _, high in band]
        edge += [_place(x, low, across, up) for x, low, _ in reversed(band)]
        area = f'<polygon points="{" ".join(edge)}"/>' if len(band) > 1 else ""
        line = " ".join(_place(x, y, across, up) for x, y, _, _ in points)
        drawn += f'<g class="{html.escape(kind)}">{area}<polyline points="{line}"/></g>'
        marked = points if len(points) <= 30 else points[-1:]
        circles = "".join(f'<circle cx="{at(x, *across)}" cy="{_up(y, up)}" r="3.2"/>' for x, y, _, _ in marked)
        bars = ""
        if len(points) == 1 and band:  # one point has no band
            a, (_, low, high) = at(band[0][0], *across), band[0]
            bars = f'<line x1="{a}" x2="{a}" y1="{_up(low, up)}" y2="{_up(high, up)}"/>'
        dots += f'<g class="{html.escape(kind)}">{bars}{circles}</g>'
    return _frame("", label, heights, feet, _stretched(drawn) + dots, "lines")


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names beside a piece of their line: (classes that colour it, name), ready HTML."""
    line = '<svg aria-hidden="true" viewBox="0 0 26 10"><polyline points="0,5 26,5"/></svg>'
    items = "".join(f'<li class="{html.escape(kind)}">{line}{name}</li>' for kind, name in entries)
    return f'<ul class="legend">{items}</ul>'


def wealth(
    name: str, label: str, values: Sequence[float | None], needed: float | None, width: float, most: int = 120
) -> str:
    """Wealth after each task as a line on a log scale that starts at 1, with a dashed line at what is needed.

    What is no number leaves a gap of one task. Wealth far beyond what decides (infinite, zero) stands at the edge, so
    that it does not press the rest flat.

    Args:
        name: Heading, ready HTML.
        label: The picture in words.
        values: Wealth after task 1, 2, ...
        needed: The threshold; None draws no line.
        width: The task at the right end.
        most: Points drawn at most; the last one is always drawn.
    """
    read = [(0.0, 0.0)] + [(i, _log(w)) for i, w in enumerate(values, 1) if w is not None and w == w]
    read = read[::-1][:: math.ceil(len(read) / most)][::-1]
    limit = math.log10(needed) if needed and 0 < needed < math.inf else None
    reach = (-9.0, (limit or 0.0) + 3.0)
    known = [v for _, v in read if reach[0] <= v <= reach[1]] + [0.0, 1.0] + ([limit] if limit is not None else [])
    step = max(math.ceil((max(known) - min(known)) / 4), 1)
    span = (float(math.floor(min(known) / step) * step), float(math.ceil(max(known) / step) * step))
    heights = [(_up(t, span), _power(int(t))) for t in range(int(span[0]), int(span[1]) + 1, step)]
    feet = [(at(t, 0, width), f"{t:,.0f}") for t in ticks(0, width)]
    line = " ".join(f"{at(x, 0, width)[:-1]},{_up(v, span)[:-1]}" for x, v in read)
    over = ""
    if limit is not None and needed is not None:
        y = _up(limit, span)
        over = f'<line class="limit" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        word = f"{needed:,.0f}" if needed >= 100 else f"{needed:.3g}"
        over += f'<text class="needed" x="6" y="{y}" dy="15">{word} needed</text>'
    x, end = read[-1]
    over += f'<circle cx="{at(x, 0, width)}" cy="{_up(end, span)}" r="4"/>'
    return _frame(name, label, heights, feet, _stretched(f'<polyline points="{line}"/>') + over, "wealth")


def scatter(
    label: str,
    dots: Sequence[tuple[str, str, float, float, float | None, float | None]],
    spans: tuple[tuple[float, float], tuple[float, float]],
    forms: tuple[Callable[[float], str], Callable[[float], str]],
) -> str:
    """Numbered dots against two axes, with a whisker upwards and downwards where an interval is known.

    Args:
        label: The picture in words.
        dots: (class that colours it, sign in the dot, x, y, low, high) of each.
        spans: (left, right) and (bottom, top).
        forms: A tick of the horizontal and of the vertical axis in words.
    """
    across, up = spans
    feet = [(at(t, *across), forms[0](t)) for t in ticks(*across, 4)]
    heights = [(_up(t, up), forms[1](t)) for t in ticks(*up, 4)]
    zero = f'<line class="zero" x1="0" x2="100%" y1="{_up(0, up)}" y2="{_up(0, up)}"/>' if up[0] <= 0 <= up[1] else ""
    marks = ""
    for kind, sign, x, y, low, high in dots:
        place = at(x, *across)
        bar = ""
        if low is not None and high is not None:
            bar = f'<line x1="{place}" x2="{place}" y1="{_up(low, up)}" y2="{_up(high, up)}"/>'
        dot = f'<circle cx="{place}" cy="{_up(y, up)}" r="10"/>'
        text = f'<text x="{place}" y="{_up(y, up)}" dy="4">{html.escape(sign)}</text>'
        marks += f'<g class="dot {html.escape(kind)}">{bar}{dot}{text}</g>'
    return _frame("", label, heights, feet, zero + marks, "scatter")


def _place(x: float, y: float, across: tuple[float, float], up: tuple[float, float]) -> str:
    return f"{at(x, *across)[:-1]},{_up(y, up)[:-1]}"


def _up(value: float, span: tuple[float, float]) -> str:
    """The height of a value as per cent from the top."""
    return f"{100 - float(at(value, *span)[:-1]):.2f}%"


def _log(value: float) -> float:
    return math.log10(value) if 0 < value < math.inf else math.copysign(math.inf, value - 1)


def _power(exponent: int) -> str:
    """A power of ten in few characters."""
    if -3 <= exponent <= 4:
        return f"{10.0**exponent:,g}" if exponent < 4 else "10,000"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _stretched(marks: str) -> str:
    """Lines that fill the panel whatever its width."""
    return f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{marks}</svg>'


def _frame(
    name: str,
    label: str,
    heights: Iterable[tuple[str, str]],
    feet: Iterable[tuple[str, str]],
    inner: str,
    kind: str = "",
) -> str:
    """A panel: its heading, lines and words at the heights, words below, and what is drawn in it."""
    grid = words = ""
    for y, word in heights:
        grid += f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        words += f'<text class="y" x="-8" y="{y}" dy="4">{word}</text>'
    words += "".join(f'<text class="x" x="{x}" y="100%" dy="18">{word}</text>' for x, word in feet)
    head = f'<p class="panel-name">{name}</p>' if name else ""
    return (
        f'{head}<div class="{f"panel {kind}" if kind else "panel"}">'
        f'<svg role="img" aria-label="{html.escape(label)}">{grid}{words}{inner}</svg></div>'
    )
