"""One self-contained HTML page about a run: what was claimed, how sure it is, what was learned, what it cost.

No script and nothing loaded from elsewhere: styles and plots are inline, so that the page can be mailed and kept.
Everything that comes from data is escaped. `verbal.sections` draws the evidence (decisions of the gate, versions,
cost), `verbal.svg` the plots; the styles are in `report.css`.
"""

from __future__ import annotations

import contextlib
import html
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from verbal import svg
from verbal.attempt_sections import examples, instructive, turns
from verbal.errors import DataError, StoreError
from verbal.learned_sections import attempt_curves, changes, learning_curves, training
from verbal.sections import (
    Cut,
    arm_kind,
    cost_gain,
    gates,
    interval,
    plain_percent,
    point_tick,
    sealed,
    table,
    usage,
    versions,
)
from verbal.tables import number, points
from verbal.text import percent, visible

MAX_BYTES = 300_000
"""Size of the largest page; long lists and texts are cut, and say so, until it fits."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CUTS = (Cut(200, 2000), Cut(100, 800), Cut(50, 400), Cut(20, 200), Cut(8, 100))


def write_report(results: Mapping[str, Any], path: str | Path) -> Path:
    """The path of the page, written whole or not at all.

    Args:
        results: What `page` shows.
        path: The HTML file; its folder is made when it does not exist.

    Raises:
        DataError: the results have no title, or a value is not of the kind its place needs.
        StoreError: the file cannot be written; an older page at the path is left as it was.
    """
    return write_page(page(results), path)


def write_page(text: str, path: str | Path) -> Path:
    """The path of a page, written whole or not at all.

    Raises:
        StoreError: the file cannot be written; an older page at the path is left as it was.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        todo = "give a path in a folder that can be written, on a disk with room"
        raise StoreError(f"cannot write the report: {error.strerror or error}", where=str(path), todo=todo) from error
    return path


def page(results: Mapping[str, Any]) -> str:
    """The page as text, less than `MAX_BYTES` long in UTF-8.

    Args:
        results: `title`, and any of `subtitle model run seeds claim claim_holds arms differences by_kind attempt_curves
            training turns gates versions sealed curve learning_curves lesson_counts changes lessons instructive
            examples cost_gain usage estimate timing notes command`. Shares are fractions of 1. A
            section without data is left out; the estimate is told beside the usage.

    Raises:
        DataError: there is no title, or a value is not of the kind its place needs.
    """
    if not results.get("title"):
        raise DataError("the results of a report need a 'title'", where=f"keys: {', '.join(map(str, results))[:200]}")
    text = ""
    for cut in _CUTS:
        text = _page(results, cut)
        if len(text.encode()) < MAX_BYTES:
            return text
    raise DataError(f"the report is {len(text.encode()):,} bytes even when cut", todo="give fewer arms and kinds")


def _page(results: Mapping[str, Any], cut: Cut) -> str:
    parts, links = [], []
    for keys, heading, draw in _SECTIONS:
        key, *others = keys.split()
        if not results.get(key) or (key == "curve" and results.get("learning_curves")):
            continue  # the newer curves tell the same, with intervals
        values = [results[key], *(results.get(name) or None for name in others)]
        try:
            body = draw(*values, cut)
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            raise DataError(
                f"{' or '.join(map(repr, (key, *others)))} cannot be shown: {error!r}",
                where=visible(values, 200),
                todo="see verbal.report.page",
            ) from error
        links.append(f'<a href="#{key}">{heading}</a>')
        parts.append(f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{heading}</h2>{body}</section>')
    nav = f'<nav aria-label="Sections">{"".join(links)}</nav>' if len(links) > 2 else ""
    foot = "Intervals are 95 % bootstrap intervals over seeds and tasks, unless said otherwise. Written by verbal."
    return document(cut.text(results["title"]), f"{_head(results, cut)}{nav}", "\n".join(parts), foot)


def document(title: str, header: str, main: str, foot: str, style: str = "") -> str:
    """A page of its own: the house's styles inline, nothing loaded, no script; all words are ready HTML.

    Args:
        title: Of the window.
        header: What stands above the sections.
        main: The sections.
        foot: The last line.
        style: Further rules.
    """
    css = files("verbal").joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title>'
        f"<style>{css}{style}</style></head><body>"
        f'<header>{header}</header>\n<main id="main">{main}</main>\n'
        f"<footer><p>{foot}</p></footer></body></html>\n"
    )


def _head(results: Mapping[str, Any], cut: Cut) -> str:
    facts = [(name, results.get(name)) for name in ("model", "run")]
    facts.append(("seeds", ", ".join(map(str, cut.some(results.get("seeds") or ())))))
    shown = "".join(f"<div><dt>{name}</dt><dd>{cut.text(value)}</dd></div>" for name, value in facts if value)
    subtitle = f'<p class="subtitle">{cut.text(results["subtitle"])}</p>' if results.get("subtitle") else ""
    claim = ""
    if results.get("claim"):
        holds = bool(results.get("claim_holds"))
        sign = '<path d="M5 12.5l4.5 4.5L19 7.5"/>' if holds else '<path d="M6 12h12"/>'
        word = "The claim holds" if holds else "The claim is not shown"
        claim = (
            f'<div class="claim {"holds" if holds else "open"}"><svg viewBox="0 0 24 24" aria-hidden="true">'
            f'<circle cx="12" cy="12" r="11"/>{sign}</svg><div><p class="word">{word}</p>'
            f"<p>{cut.text(results['claim'])}</p></div></div>"
        )
    return f"<h1>{cut.text(results['title'])}</h1>{subtitle}{claim}" + (f"<dl>{shown}</dl>" if shown else "")


def _arms(arms: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    ticks, rows, cells = svg.ticks(0, 1), [], []
    for arm in cut.some(arms):
        mean, low, high = (number(arm.get(k)) for k in ("mean", "low", "high"))
        seeds = [number(s) for s in cut.some(arm.get("per_seed") or ())]
        name, about = cut.text(arm.get("label") or arm.get("name")), cut.text(arm.get("about") or "")
        ends, each = interval(arm, plain_percent), ", ".join(plain_percent(s) for s in seeds)
        marks = ""
        if mean is not None:
            bar = f'<rect class="bar" x="0" y="34%" width="{svg.at(mean)}" height="32%" rx="3"/>'
            dots = "".join(f'<circle class="seed" cx="{svg.at(s)}" cy="84%" r="2.6"/>' for s in seeds if s is not None)
            marks = bar + svg.whisker(mean, low, high, (0, 1)) + dots
        label = f"{html.unescape(name)}: {percent(mean)} solved, interval {ends or 'not known'}, seeds {each or '–'}"
        rows.append(
            svg.row(
                arm_kind(arm.get("name", "")),
                name,
                about,
                svg.track(label, ticks, (0, 1), marks),
                percent(mean),
                ends,
            )
        )
        attempts, tasks = number(arm.get("attempts")), arm.get("tasks")
        tries = "–" if attempts is None else f"{attempts:.2f}"
        cells.append((name, percent(mean), ends, each, tries, "–" if tasks is None else f"{int(tasks):,}"))
    rows.append(svg.axis(ticks, (0, 1), partial(percent, digits=0)))
    caption = "Share of tasks solved. Line: 95 % interval over seeds and tasks. Small dots: single seeds."
    columns = ("Arm", "Solved", "Interval", "Each seed (%)", "Attempts per task", "Tasks")
    numbers = table("The same numbers as a table", columns, cells)
    figure = f'<figure><ol class="rows">{"".join(rows)}</ol><figcaption>{caption}</figcaption></figure>'
    return f"{figure}{cut.rest(arms, 'arms')}<details><summary>All numbers</summary>{numbers}</details>"


def _differences(items: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    read = [(i, *(number(i.get(k)) for k in ("mean", "low", "high"))) for i in cut.some(items)]
    known = [v for _, *values in read for v in values if v is not None] + [0.0]
    pad = max((max(known) - min(known)) * 0.06, 0.01)
    span = (min(known) - pad, max(known) + pad)
    ticks, rows = svg.ticks(*span), []
    for item, mean, low, high in read:
        name = cut.text(item.get("name"))
        sure = low is not None and high is not None
        kind, word = ("c-control", "cannot be told from zero" if sure else "no interval")
        if low is not None and low > 0:
            kind, word = "c-memory", "above zero"
        elif high is not None and high < 0:
            kind, word = "c-bad", "below zero"
        marks = "" if mean is None else svg.whisker(mean, low, high, span)
        ends = interval(item)
        label = f"{html.unescape(name)}: {points(mean)} points, interval {ends or 'not known'}, {word}"
        rows.append(svg.row(kind, name, word, svg.track(label, ticks, span, marks), points(mean), ends))
    rows.append(svg.axis(ticks, span, point_tick))
    caption = "Paired differences on the same tasks and seeds, in points (1 point = 1 % of the tasks)."
    figure = f'<figure><ol class="rows">{"".join(rows)}</ol><figcaption>{caption}</figcaption></figure>'
    return figure + cut.rest(items, "differences")


def _by_kind(kinds: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    names = list(dict.fromkeys(name for kind in cut.some(kinds) for name in kind.get("arms", {})))[: cut.items]
    rows = []
    for kind in cut.some(kinds):
        cells = [cut.text(kind.get("kind")), "–" if kind.get("tasks") is None else f"{int(kind['tasks']):,}"]
        for name in names:
            share = number(kind.get("arms", {}).get(name))
            cells.append(percent(share, 0) + svg.cell(share, arm_kind(name)))
        rows.append(cells)
    shares = table("Share of tasks solved, by kind of question", ["Kind", "Tasks", *map(cut.text, names)], rows)
    return shares + cut.rest(kinds, "kinds")


def _curve(points: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    read = [(float(p["tasks"]), number(p.get("share")), number(p.get("lessons"))) for p in points]
    step = math.ceil(len(read) / max(cut.items, 2))
    read = sorted(read, key=lambda p: p[0])[::-1][::step][::-1]
    width = max(read[-1][0], 1.0)
    shares = [(x, s) for x, s, _ in read if s is not None]
    lessons = [(x, n) for x, _, n in read if n is not None]
    first, last = (percent(s, 0) for s in (shares[0][1], shares[-1][1])) if shares else ("–", "–")
    panels = ""
    if shares:
        label = f"Share solved, from {first} in the first batch to {last} in the last"
        panels += svg.panel(
            "Share solved", label, shares, (0, 1), [0, 0.25, 0.5, 0.75, 1], partial(percent, digits=0), width
        )
    if lessons:
        top = max(*(n for _, n in lessons), 1.0) if len(lessons) > 1 else max(lessons[0][1], 1.0)
        label = f"Lessons kept, {lessons[-1][1]:,.0f} at the end"
        panels += svg.panel(
            "Lessons kept", label, lessons, (0, top * 1.05), svg.ticks(0, top, 2), "{:,.0f}".format, width
        )
    caption = "From left to right: training tasks worked through, batch by batch."
    return f'<figure class="curve">{panels}<figcaption>{caption}</figcaption></figure>'


def _lessons(lessons: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    items = []
    for lesson in cut.some(lessons):
        shown = lesson.get("shown")
        facts = [cut.text(lesson.get("id")), cut.text(lesson.get("status") or "")]
        facts.append("" if shown is None else f"shown {int(shown):,} times")
        facts.append(cut.text(lesson.get("evidence") or ""))
        source = f'<p class="source">From: {cut.text(lesson["question"])}</p>' if lesson.get("question") else ""
        text = f"<p>{cut.text(lesson.get('text'))}</p>{source}"
        items.append(f'<li>{text}<p class="facts">{" · ".join(f for f in facts if f)}</p></li>')
    return f'<ul class="lessons">{"".join(items)}</ul>{cut.rest(lessons, "lessons")}'


def _timing(stages: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    total = sum(float(s["seconds"]) for s in stages)
    rows = []
    for stage in cut.some(stages):
        seconds = float(stage["seconds"])
        bar = svg.cell(seconds / total if total > 0 else 0.0, "c-control")
        rows.append((cut.text(stage.get("stage")), f"{seconds:,.1f} s{bar}"))
    rows.append(("all together", f"{total:,.1f} s"))
    return table("Seconds by stage, wall clock", ("Stage", "Time"), rows) + cut.rest(stages, "stages")


def _notes(notes: Sequence[object], cut: Cut) -> str:
    return f"<ul>{''.join(f'<li>{cut.text(n)}</li>' for n in cut.some(notes))}</ul>{cut.rest(notes, 'notes')}"


def _command(command: object, cut: Cut) -> str:
    return f"<pre><code>{cut.text(command)}</code></pre>"


_SECTIONS: tuple[tuple[str, str, Callable[..., str]], ...] = (
    ("arms", "How much it solves", _arms),
    ("differences", "What made the difference", _differences),
    ("by_kind", "Where it helps", _by_kind),
    ("attempt_curves", "What more attempts bring", attempt_curves),
    ("training", "The training", training),
    ("turns", "What was asked", turns),
    ("gates", "What the evidence decided", gates),
    ("versions", "What was adopted", versions),
    ("sealed", "The sealed test", sealed),
    ("curve", "While learning", _curve),
    ("learning_curves lesson_counts", "While learning", learning_curves),
    ("changes", "What it remembers now", changes),
    ("lessons", "What it learned", _lessons),
    ("instructive", "The most instructive attempts", instructive),
    ("examples", "Before and after", examples),
    ("cost_gain", "What a gain costs", cost_gain),
    ("usage estimate", "What it cost", usage),
    ("timing", "How long it took", _timing),
    ("notes", "Notes", _notes),
    ("command", "Do it again", _command),
)
"""Keys of the results, heading and drawing of each section; the first key names it and must hold something."""
