"""The 2 x 2 of memory and weights as a picture that stands alone, and as a table for the terminal.

The picture is one SVG file: no script, no font, nothing loaded; its colours are those of the report's page and follow
whether the reader's screen is dark or light.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from verbal.svg import at, ticks, whisker
from verbal.tables import literal, points
from verbal.text import percent

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_COLORS = {"retry": "control", "memory": "memory", "distilled": "weights", "distilled+memory": "both"}
_STYLE = """
svg { --card: #ffffff; --ink: #17202b; --soft: #55606e; --rule: #dfe3e8;
  --control: #6a7685; --memory: #0b7a75; --weights: #6250b5; --both: #1d5fbf; }
@media (prefers-color-scheme: dark) { svg { --card: #1a2027; --ink: #e7ebf0; --soft: #a3aebb; --rule: #3a4450;
  --control: #93a0af; --memory: #3fbdb3; --weights: #a99af0; --both: #74a9f7; } }
text { fill: var(--ink); font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
.soft { fill: var(--soft); font-size: 13px; } .title { font-size: 20px; font-weight: 650; }
.head { font-weight: 600; } .mean { font-size: 34px; font-weight: 650; fill: var(--c); }
.c-control { --c: var(--control); } .c-memory { --c: var(--memory); } .c-weights { --c: var(--weights); }
.c-both { --c: var(--both); } .card { fill: var(--card); } .fill { fill: var(--c); }
.edge { fill: none; stroke: var(--c); }
.rail { stroke: var(--c); stroke-opacity: 0.3; } .zero { stroke: var(--soft); } .grid { stroke: var(--rule); }
.whisker line { stroke: var(--c); stroke-width: 2; } circle.mean { fill: var(--c); }
.middle { text-anchor: middle; } .end { text-anchor: end; }
"""
_LEFT, _TOP, _WIDE, _HIGH, _GAP = 118, 112, 300, 132, 14
_FULL = _LEFT + 2 * _WIDE + _GAP + 28
_PLOT, _PLOTTED = 304, 236
_EFFECTS = {
    "memory": ("memory", "what it adds, mean of both weights"),
    "weights": ("weights", "what they add, mean of both memories"),
    "interaction": ("both", "above or below the sum of the two"),
}


def figure(results: Mapping[str, Any]) -> str:
    """The picture as the text of an SVG file.

    Args:
        results: What `verbal.two_by_two.cross` gives: title, subtitle, `two_by_two`, `arms` for the controls.
    """
    square = results["two_by_two"]
    shapes = [_cell(cell) for cell in square["cells"]]
    top = _TOP + 2 * _HIGH + _GAP + 52
    effects = [e for e in square["effects"] if e["name"] in _EFFECTS]
    span = _span(effects)
    foot = top + 46 * len(effects)
    shapes.append(_axis(span, top - 22, foot - 22))
    shapes += [_effect(effect, top + 46 * i, span) for i, effect in enumerate(effects)]
    lines = _controls(results.get("arms", ()))
    height = foot + 36 + 20 * len(lines)
    shapes += [_text(28, foot + 34 + 20 * i, line, "soft") for i, line in enumerate(lines)]
    for name, x in (("memory off", _LEFT), ("memory on", _LEFT + _WIDE + _GAP)):
        shapes.append(_text(x + _WIDE / 2, _TOP - 12, name, "head middle"))
    for row, name in enumerate(("base", "distilled")):
        y = _TOP + row * (_HIGH + _GAP) + _HIGH / 2
        shapes += [_text(_LEFT - 16, y - 2, name, "head end"), _text(_LEFT - 16, y + 16, "weights", "soft end")]
    title, about = str(results.get("title", "Memory and weights")), str(results.get("subtitle", ""))
    shapes += [_text(28, 40, title, "title"), _text(28, 64, about, "soft")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_FULL} {height}" width="{_FULL}" height="{height}" '
        f'role="img" aria-labelledby="t d"><title id="t">{html.escape(title)}</title>'
        f'<desc id="d">{html.escape(str(square.get("words", "")))}</desc><style>{_STYLE}</style>'
        f'<rect class="card" width="100%" height="100%" rx="10"/>{"".join(shapes)}</svg>\n'
    )


def _cell(cell: Mapping[str, Any]) -> str:
    """One of the four: its share, its interval, and both on a scale from nothing to everything."""
    x = _LEFT + (cell["memory"] == "on") * (_WIDE + _GAP)
    y = _TOP + (cell["weights"] == "distilled") * (_HIGH + _GAP)
    mean, low, high = cell["mean"], cell["low"], cell["high"]
    ends = f"{100 * low:.1f} to {100 * high:.1f}"
    seeds = " ".join(f"{100 * v:.0f}" for v in cell["per_seed"][:8])
    shade = 0.06 + 0.26 * min(max(mean, 0.0), 1.0)
    box = f'x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="8"'
    track = (
        f'<svg x="{x + 22}" y="{y + 92}" width="{_WIDE - 44}" height="24" overflow="visible">'
        f'<line class="rail" x1="0" x2="100%" y1="50%" y2="50%"/>{whisker(mean, low, high, (0.0, 1.0))}</svg>'
    )
    return (
        f'<g class="c-{_COLORS[cell["arm"]]}"><rect class="fill" {box} fill-opacity="{shade:.3f}"/>'
        f'<rect class="edge" {box} stroke-opacity="0.45"/>{_text(x + 22, y + 52, percent(mean), "mean")}'
        f"{_text(x + 22, y + 77, ends, 'soft')}{_text(x + _WIDE - 22, y + 77, f'seeds {seeds}', 'soft end')}{track}</g>"
    )


def _effect(effect: Mapping[str, Any], y: float, span: tuple[float, float]) -> str:
    color, about = _EFFECTS[effect["name"]]
    mean, low, high = effect["mean"], effect["low"], effect["high"]
    value, place = f"{points(mean)}  [{points(low)}, {points(high)}]", f'x="{_PLOT}" y="{y - 10}"'
    return (
        f'<g class="c-{color}">{_text(28, y, effect["name"], "head")}{_text(28, y + 16, about, "soft")}'
        f'<svg {place} width="{_PLOTTED}" height="24" overflow="visible">{whisker(mean, low, high, span)}</svg>'
        f"{_text(_FULL - 28, y + 6, value, 'head end')}</g>"
    )


def _span(effects: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """From below the lowest end to above the highest, zero included."""
    low, high = min(0.0, *(e["low"] for e in effects)), max(0.0, *(e["high"] for e in effects))
    room = max(0.05 * (high - low), 0.02)
    return low - room, high + room


def _axis(span: tuple[float, float], top: float, foot: float) -> str:
    """Lines at round differences, from the first effect to the last, with their points below."""
    made = ""
    for t in ticks(*span, 4):
        place = _PLOT + _PLOTTED * float(at(t, *span)[:-1]) / 100
        kind = "zero" if t == 0 else "grid"
        made += f'<line class="{kind}" x1="{place:.1f}" x2="{place:.1f}" y1="{top}" y2="{foot}"/>'
        made += _text(place, foot + 18, points(t).removesuffix(".0") if t else "0 points", "soft middle")
    return made


def _controls(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The arms with several attempts in words, two lines at most."""
    known = {a["name"]: a for a in arms}
    told = [
        f"{known[n]['label']} {100 * known[n]['mean']:.1f} [{100 * known[n]['low']:.1f}, {100 * known[n]['high']:.1f}]"
        for n in ("retry", "shuffled", "memory", "distilled", "distilled+memory")
        if n in known
    ]
    if not told:
        return []
    lines = [f"Solved within all attempts, controls first: {'; '.join(told[:2])}", "; ".join(told[2:])]
    return [line for line in lines if line]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{html.escape(text)}</text>'


def square_table(square: Mapping[str, Any]) -> Table:
    """The four cells with their intervals, in per cent, and what each side adds to the other, in points."""
    title = f"Solved by the first attempt: {square['tasks']} tasks, {square['seeds']} seeds, 95 % intervals"
    table = _table(title, "weights", "memory off", "memory on", "memory adds")
    effects = {e["name"]: e for e in square["effects"]}
    cells = {(c["weights"], c["memory"]): c for c in square["cells"]}
    for weights in ("base", "distilled"):
        row = [_share(cells[weights, memory]) for memory in ("off", "on")]
        table.add_row(weights, *row, _gain(effects[f"memory, {weights} weights"]))
    table.add_section()
    adds = [_gain(effects[f"weights, memory {memory}"]) for memory in ("off", "on")]
    table.add_row("weights add", *adds, "")
    return table


def effects_table(square: Mapping[str, Any]) -> Table:
    """The two main effects and the interaction, in points."""
    table = _table("Effects", "", "points", "")
    for effect in square["effects"]:
        if effect["name"] in _EFFECTS:
            table.add_row(effect["name"], _gain(effect), literal(_EFFECTS[effect["name"]][1], style="dim"))
    return table


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _share(cell: Mapping[str, Any]) -> Text:
    told = literal(f"{100 * cell['mean']:.1f}", style="bold cyan")
    return told.append(f" [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]", "dim")


def _gain(effect: Mapping[str, Any]) -> Text:
    told = literal(points(effect["mean"]), style="bold")
    return told.append(f" [{points(effect['low'])}, {points(effect['high'])}]", "dim")


__all__ = ["effects_table", "figure", "square_table"]
