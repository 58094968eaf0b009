"""Sections of the page about what changed: curves over attempts and tasks, the memory before and after, a training.

Each function takes what the results of a run hold under one key (see `verbal.report.page`) and how much may be shown,
and gives ready HTML.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from verbal import svg
from verbal.sections import Cut, arm_kind, interval, plain_percent, table
from verbal.tables import number
from verbal.text import percent

_DASHES = ("", " dashed", " dotted")
_SIGNS = {
    "added": ("+", "added"), "reworded": ("≈", "put in other words"), "believed": ("✓", "believed now"),
    "doubted": ("?", "on trial again"), "retired": ("−", "retired"),
}  # fmt: skip
_CURVES = (
    ("loss", "Loss"), ("reward", "Reward"), ("entropy", "Entropy, nats a token"), ("kl", "KL to the start, nats"),
)  # fmt: skip
_Point = tuple[float, float, float | None, float | None]


def attempt_curves(curves: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """Share solved within one attempt, two, ..., by arm."""
    read = [(c, _points(c, cut)) for c in cut.some(curves)]
    read = [(c, points) for c, points in read if points]
    if not read:
        return '<p class="quiet">No arm has finished a task yet.</p>'
    most = max(x for _, points in read for x, *_ in points)
    caption = "Upwards: share of tasks solved. To the right: attempts that were allowed. Bands: 95 % intervals."
    return _figure(read, (0.8, most + 0.2), _whole(most), "Attempts", caption, cut) + cut.rest(curves, "arms")


def learning_curves(curves: Sequence[Mapping[str, Any]], lessons: Sequence[Mapping[str, Any]] | None, cut: Cut) -> str:
    """Share solved while tasks were worked through, and how many lessons were known."""
    read = [(c, points) for c in cut.some(curves) if (points := _points(c, cut))]
    if not read:
        return '<p class="quiet">No task is finished yet.</p>'
    most = max(x for _, points in read for x, *_ in points)
    caption = "To the right: tasks worked through, as many a point as stand between two. Bands: 95 % intervals."
    drawn = _figure(read, (0.0, most), svg.ticks(0, most), "Tasks", caption, cut)
    return drawn + _lesson_panel(lessons or (), cut)


def _lesson_panel(lessons: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    step = -(-len(lessons) // max(cut.items, 2)) if lessons else 1
    thin = list(lessons)[::-1][::step][::-1]
    series: list[tuple[str, list[_Point]]] = []
    for kind, key in (("c-control dashed", "quarantined"), ("c-memory", "active")):
        series.append((kind, [(float(p["x"]), float(p.get(key) or 0), None, None) for p in thin]))
    if not thin:
        return ""
    top = max([1.0, *(y for _, points in series for _, y, _, _ in points)])
    last = thin[-1]
    label = f"Lessons: {int(last.get('active') or 0):,} believed and {int(last.get('quarantined') or 0):,} on trial"
    width = max(float(p["x"]) for p in thin)
    plot = svg.lines(
        f"{label} at the end", series, ((0.0, max(width, 1.0)), (0.0, top * 1.08)),
        (svg.ticks(0, max(width, 1.0)), svg.ticks(0, top, 3)), (_count, _count),
    )  # fmt: skip
    legend = svg.legend([("c-memory", "lessons believed"), ("c-control dashed", "lessons on trial")])
    return f'<figure class="curve second">{legend}{plot}</figure>'


def _figure(
    read: Sequence[tuple[Mapping[str, Any], Sequence[_Point]]],
    across: tuple[float, float],
    feet: Sequence[float],
    noun: str,
    caption: str,
    cut: Cut,
) -> str:
    kinds = _kinds([str(c.get("arm")) for c, _ in read])
    names = [cut.text(c.get("label") or c.get("arm")) for c, _ in read]
    told = "; ".join(
        f"{html.unescape(name)} from {percent(points[0][1], 0)} to {percent(points[-1][1], 0)}"
        for name, (_, points) in zip(names, read, strict=True)
    )
    series = [(kind, points) for kind, (_, points) in zip(kinds, read, strict=True)]
    plot = svg.lines(
        f"Share solved: {told}", series, (across, (0.0, 1.0)), (feet, [0, 0.25, 0.5, 0.75, 1]),
        (_count, partial(percent, digits=0)),
    )  # fmt: skip
    rows = [
        [f"{x:,.0f}", name, percent(y), interval({"low": low, "high": high}, plain_percent) or "–"]
        for name, (_, points) in zip(names, read, strict=True)
        for x, y, low, high in points
    ]
    numbers = table(f"Share solved by {noun.lower()}, as a table", (noun, "Line", "Solved", "Interval"), rows, words=2)
    return (
        f'<figure class="curve">{svg.legend(list(zip(kinds, names, strict=True)))}{plot}<figcaption>{caption}'
        f"</figcaption></figure><details><summary>All numbers</summary>{numbers}</details>"
    )


def _kinds(arms: Sequence[str]) -> list[str]:
    """The class of each line; lines of one colour are told apart by their dashes."""
    seen: dict[str, int] = {}
    found = []
    for arm in arms:
        color = {"first": "c-control", "within": "c-memory"}.get(arm) or arm_kind(arm)
        found.append(color + _DASHES[min(seen.get(color, 0), len(_DASHES) - 1)])
        seen[color] = seen.get(color, 0) + 1
    return found


def _points(curve: Mapping[str, Any], cut: Cut) -> list[_Point]:
    read = [
        (float(p["x"]), y, number(p.get("low")), number(p.get("high")))
        for p in curve.get("points") or ()
        if (y := number(p.get("y"))) is not None
    ]
    step = -(-len(read) // max(cut.items, 2)) if read else 1
    return sorted(read, key=lambda p: p[0])[::-1][::step][::-1]


def _whole(most: float) -> list[float]:
    return [t for t in svg.ticks(1, most, 8) if t == int(t)] if most > 1 else [1.0]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def changes(memories: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """What a run added to its memories, changed and retired, with the words; all but the first memory are folded."""
    drawn = [_memory(memory, cut) for memory in cut.some(memories)]
    rest = "".join(drawn[1:])
    if rest:
        noun = "memory" if len(drawn) == 2 else "memories"
        rest = f"<details><summary>{len(drawn) - 1:,} more {noun}, of the other seeds</summary>{rest}</details>"
    return f"{''.join(drawn[:1])}{rest}{cut.rest(memories, 'memories')}"


def _memory(memory: Mapping[str, Any], cut: Cut) -> str:
    counts = memory.get("counts") or {}
    told = ", ".join(f"{counts[k]:,} {word}" for k, (_, word) in _SIGNS.items() if counts.get(k))
    items = "".join(_change(item, cut) for item in cut.some(memory["items"]))
    return (
        f'<p class="lead">Memory <b>{cut.text(memory.get("memory"))}</b>, version {int(memory.get("from", 0)):,} to '
        f'{int(memory.get("to", 0)):,}: {told or "nothing changed"}.</p><ul class="lessons changes">{items}</ul>'
        f"{cut.rest(memory['items'], 'lessons')}"
    )


def _change(item: Mapping[str, Any], cut: Cut) -> str:
    change = str(item.get("change"))
    sign, word = _SIGNS.get(change, ("•", cut.text(change)))
    if change == "added":
        word = {"active": "added, believed", "quarantined": "added, on trial"}.get(str(item.get("status")), word)
    before = f'<p class="source">Before: <del>{cut.text(item["before"])}</del></p>' if item.get("before") else ""
    where = "".join(
        f'<p class="source">{name}: {cut.text(item[key])}</p>'
        for key, name in (("when", "When"), ("boundary", "Not for"))
        if item.get(key)
    )
    facts = [cut.text(item.get("id")), "" if change == "added" else cut.text(item.get("status") or "")]
    if item.get("shown"):
        count = int(item["shown"])
        facts.append(f"shown {'once' if count == 1 else f'{count:,} times'}, helped {int(item.get('helped') or 0):,}")
    facts.append(cut.text(item.get("why") or ""))
    kind = change if change in _SIGNS else "added"
    text = f"<del>{cut.text(item.get('text'))}</del>" if change == "retired" else cut.text(item.get("text"))
    return (
        f'<li class="change {kind}"><p class="what"><i aria-hidden="true">{sign}</i> {word}</p><p>{text}</p>{before}'
        f'{where}<p class="facts">{" · ".join(f for f in facts if f)}</p></li>'
    )


def training(papers: Mapping[str, Any], cut: Cut) -> str:
    """A training of weights: what was trained on what, how far it is, and its curves."""
    names = ("checkpoint", "base", "method", "rows", "step", "steps", "seconds", "folder")
    facts = [(name, papers.get(name)) for name in names if papers.get(name) not in (None, "")]
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{f'{v:,.6g}' if isinstance(v, int | float) else cut.text(v)}</dd></div>"
        for name, v in facts
    )
    panels = ""
    for key, name in _CURVES:
        read = [(step, v) for p in papers.get("curve") or () if (v := number(p.get(key))) is not None
                and (step := number(p.get("step"))) is not None]  # fmt: skip
        if len(read) > 1:
            thin = read[::-1][:: -(-len(read) // 120)][::-1]
            low, high = min(v for _, v in thin), max(v for _, v in thin)
            pad = max((high - low) * 0.08, 1e-6)
            label = f"{name}: {thin[0][1]:.4g} at first, {thin[-1][1]:.4g} at the end"
            span = (low - pad, high + pad)
            panels += svg.panel(name, label, thin, span, svg.ticks(*span, 4), "{:.3g}".format, max(thin[-1][0], 1.0))
    figure = f'<figure class="curve">{panels}<figcaption>To the right: steps.</figcaption></figure>' if panels else ""
    return f"<dl>{shown}</dl>{figure}"


__all__ = ["attempt_curves", "changes", "learning_curves", "training"]
