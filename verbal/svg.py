"""Plots as inline SVG: rows with dots and whiskers, and curves.

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
    return f"{100 * min(max((value - low) / (high - low), 0.0), 1.0):.2f}%"


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
    heights = [(t, f"{100 - float(at(t, *span)[:-1]):.2f}%") for t in marks]
    grid = "".join(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>' for _, y in heights)
    words = "".join(f'<text class="y" x="-8" y="{y}" dy="4">{form(t)}</text>' for t, y in heights)
    words += "".join(f'<text class="x" x="{at(t, 0, width)}" y="100%" dy="18">{t:,.0f}</text>' for t in ticks(0, width))
    places = [(float(at(x, 0, width)[:-1]), 100 - float(at(v, *span)[:-1])) for x, v in points]
    line = " ".join(f"{a:.2f},{b:.2f}" for a, b in places)
    area = f'<polygon points="{places[0][0]:.2f},100 {line} {places[-1][0]:.2f},100"/>'
    dots = "".join(f'<circle cx="{a:.2f}%" cy="{b:.2f}%" r="3.2"/>' for a, b in places) if len(places) <= 60 else ""
    return (
        f'<p class="panel-name">{name}</p><div class="panel">'
        f'<svg role="img" aria-label="{html.escape(label)}">{grid}{words}'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{area}'
        f'<polyline points="{line}"/></svg>{dots}</svg></div>'
    )
