"""One self-contained HTML page about a run: what was claimed, how sure it is, what was learned, what it cost.

No script and nothing loaded from elsewhere: styles and plots are inline, so that the page can be mailed and kept.
Everything that comes from data is escaped. `verbal.svg` draws the plots; the styles are in `report.css`.
"""

from __future__ import annotations

import contextlib
import html
import math
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from verbal import svg
from verbal.errors import DataError, StoreError
from verbal.text import clock, money, percent, visible
from verbal.types import Usage

MAX_BYTES = 300_000
"""Size of the largest page; long lists and texts are cut, and say so, until it fits."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_ARMS = {"base": "control", "retry": "control", "shuffled": "control", "memory": "memory", "distilled": "weights"}
_SQL = re.compile(
    r"(?P<text>'(?:[^']|'')*'|\"[^\"]*\")|\b(?P<word>select|distinct|from|where|join|left|inner|outer|cross|on|group|"
    r"order|by|having|limit|offset|union|all|except|intersect|with|as|and|or|not|in|is|null|like|between|exists|case|"
    r"when|then|else|end|asc|desc|cast|over|partition)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How much of long lists and texts a page shows."""

    items: int
    chars: int

    def text(self, value: object, default: str = "–") -> str:
        """Escaped text of at most `chars` characters."""
        return html.escape(visible(default if value is None else value, self.chars))

    def some(self, values: Sequence[Any]) -> Sequence[Any]:
        """The first `items`."""
        return values[: self.items]

    def rest(self, values: Sequence[Any], noun: str) -> str:
        """A line that says how many are not shown, or nothing."""
        left = len(values) - self.items
        return f'<p class="quiet">{left:,} more {noun} are not shown.</p>' if left > 0 else ""


_CUTS = (_Cut(200, 2000), _Cut(100, 800), _Cut(50, 400), _Cut(20, 200), _Cut(8, 100))


def write_report(results: Mapping[str, Any], path: str | Path) -> Path:
    """The path of the page, written whole or not at all.

    Args:
        results: What `page` shows.
        path: The HTML file; its folder is made when it does not exist.

    Raises:
        DataError: the results have no title, or a value is not of the kind its place needs.
        StoreError: the file cannot be written; an older page at the path is left as it was.
    """
    text, path = page(results), Path(path)
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
        results: `title`, and any of `subtitle model run seeds claim claim_holds arms differences by_kind curve lessons
            examples usage timing notes command`. Shares are fractions of 1. A section without data is left out.

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


def _page(results: Mapping[str, Any], cut: _Cut) -> str:
    parts, links = [], []
    for key, heading, draw in _SECTIONS:
        if not results.get(key):
            continue
        try:
            body = draw(results[key], cut)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"{key!r} cannot be shown: {error!r}", where=visible(results[key], 200), todo="see verbal.report.page"
            ) from error
        links.append(f'<a href="#{key}">{heading}</a>')
        parts.append(f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{heading}</h2>{body}</section>')
    nav = f'<nav aria-label="Sections">{"".join(links)}</nav>' if len(links) > 2 else ""
    main = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{cut.text(results["title"])}</title>'
        f"<style>{files('verbal').joinpath('report.css').read_text('utf-8')}</style></head><body>"
        f'<header>{_head(results, cut)}{nav}</header>\n<main id="main">{main}</main>\n'
        "<footer><p>Intervals are 95 % bootstrap intervals over seeds and tasks. Written by verbal.</p></footer>"
        "</body></html>\n"
    )


def _head(results: Mapping[str, Any], cut: _Cut) -> str:
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


def _share(value: Any) -> float | None:
    """A number, or None when there is none (missing, not a number)."""
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) else None


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in a box that scrolls on a phone; cells are ready HTML, all columns but the first hold numbers."""
    names = "".join(f'<th scope="col" class="n">{name}</th>' for name in columns[1:])
    head = f'<th scope="col">{columns[0]}</th>{names}'
    body = ""
    for row in rows:
        cells = "".join(f'<td class="n">{cell}</td>' for cell in row[1:])
        body += f'<tr><th scope="row">{row[0]}</th>{cells}</tr>'
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _interval(item: Mapping[str, Any], form: Callable[[float | None], str]) -> str:
    low, high = _share(item.get("low")), _share(item.get("high"))
    return f"[{form(low)}, {form(high)}]" if low is not None and high is not None else ""


def _plain(share: float | None) -> str:
    return percent(share).removesuffix(" %")


def _arm_kind(name: str) -> str:
    return f"c-{_ARMS.get(name, 'both' if name == 'distilled+memory' else 'control')}"


def _arms(arms: Sequence[Mapping[str, Any]], cut: _Cut) -> str:
    ticks, rows, cells = svg.ticks(0, 1), [], []
    for arm in cut.some(arms):
        mean, low, high = (_share(arm.get(k)) for k in ("mean", "low", "high"))
        seeds = [_share(s) for s in cut.some(arm.get("per_seed") or ())]
        name, about = cut.text(arm.get("label") or arm.get("name")), cut.text(arm.get("about") or "")
        interval, each = _interval(arm, _plain), ", ".join(_plain(s) for s in seeds)
        marks = ""
        if mean is not None:
            bar = f'<rect class="bar" x="0" y="34%" width="{svg.at(mean)}" height="32%" rx="3"/>'
            dots = "".join(f'<circle class="seed" cx="{svg.at(s)}" cy="84%" r="2.6"/>' for s in seeds if s is not None)
            marks = bar + svg.whisker(mean, low, high, (0, 1)) + dots
        label = (
            f"{html.unescape(name)}: {percent(mean)} solved, interval {interval or 'not known'}, seeds {each or '–'}"
        )
        rows.append(
            svg.row(
                _arm_kind(arm.get("name", "")),
                name,
                about,
                svg.track(label, ticks, (0, 1), marks),
                percent(mean),
                interval,
            )
        )
        attempts, tasks = _share(arm.get("attempts")), arm.get("tasks")
        tries = "–" if attempts is None else f"{attempts:.2f}"
        cells.append((name, percent(mean), interval, each, tries, "–" if tasks is None else f"{int(tasks):,}"))
    rows.append(svg.axis(ticks, (0, 1), partial(percent, digits=0)))
    caption = "Share of tasks solved. Line: 95 % interval over seeds and tasks. Small dots: single seeds."
    columns = ("Arm", "Solved", "Interval", "Each seed (%)", "Attempts per task", "Tasks")
    numbers = _table("The same numbers as a table", columns, cells)
    figure = f'<figure><ol class="rows">{"".join(rows)}</ol><figcaption>{caption}</figcaption></figure>'
    return f"{figure}{cut.rest(arms, 'arms')}<details><summary>All numbers</summary>{numbers}</details>"


def _differences(items: Sequence[Mapping[str, Any]], cut: _Cut) -> str:
    read = [(i, *(_share(i.get(k)) for k in ("mean", "low", "high"))) for i in cut.some(items)]
    ends = [v for _, *values in read for v in values if v is not None] + [0.0]
    pad = max((max(ends) - min(ends)) * 0.06, 0.01)
    span = (min(ends) - pad, max(ends) + pad)
    ticks, rows = svg.ticks(*span), []
    for item, mean, low, high in read:
        name = cut.text(item.get("name"))
        known = low is not None and high is not None
        kind, word = ("c-control", "cannot be told from zero" if known else "no interval")
        if low is not None and low > 0:
            kind, word = "c-memory", "above zero"
        elif high is not None and high < 0:
            kind, word = "c-bad", "below zero"
        marks = "" if mean is None else svg.whisker(mean, low, high, span)
        interval = _interval(item, _points)
        label = f"{html.unescape(name)}: {_points(mean)} points, interval {interval or 'not known'}, {word}"
        rows.append(svg.row(kind, name, word, svg.track(label, ticks, span, marks), _points(mean), interval))
    rows.append(svg.axis(ticks, span, lambda t: f"{100 * t:+.3g}".replace("-", "−") if t else "0"))
    caption = "Paired differences on the same tasks and seeds, in points (1 point = 1 % of the tasks)."
    figure = f'<figure><ol class="rows">{"".join(rows)}</ol><figcaption>{caption}</figcaption></figure>'
    return figure + cut.rest(items, "differences")


def _by_kind(kinds: Sequence[Mapping[str, Any]], cut: _Cut) -> str:
    names = list(dict.fromkeys(name for kind in cut.some(kinds) for name in kind.get("arms", {})))[: cut.items]
    rows = []
    for kind in cut.some(kinds):
        cells = [cut.text(kind.get("kind")), "–" if kind.get("tasks") is None else f"{int(kind['tasks']):,}"]
        for name in names:
            share = _share(kind.get("arms", {}).get(name))
            cells.append(percent(share, 0) + svg.cell(share, _arm_kind(name)))
        rows.append(cells)
    table = _table("Share of tasks solved, by kind of question", ["Kind", "Tasks", *map(cut.text, names)], rows)
    return table + cut.rest(kinds, "kinds")


def _curve(points: Sequence[Mapping[str, Any]], cut: _Cut) -> str:
    read = [(float(p["tasks"]), _share(p.get("share")), _share(p.get("lessons"))) for p in points]
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


def _lessons(lessons: Sequence[Mapping[str, Any]], cut: _Cut) -> str:
    items = []
    for lesson in cut.some(lessons):
        shown = lesson.get("shown")
        facts = [cut.text(lesson.get("id")), cut.text(lesson.get("status") or "")]
        facts.append("" if shown is None else f"shown {int(shown):,} times")
        source = f'<p class="source">From: {cut.text(lesson["question"])}</p>' if lesson.get("question") else ""
        text = f"<p>{cut.text(lesson.get('text'))}</p>{source}"
        items.append(f'<li>{text}<p class="facts">{" · ".join(f for f in facts if f)}</p></li>')
    return f'<ul class="lessons">{"".join(items)}</ul>{cut.rest(lessons, "lessons")}'


def _examples(examples: Sequence[Mapping[str, Any]], cut: _Cut) -> str:
    articles = []
    for example in cut.some(examples):
        sides = "".join(
            _side(name, example[key], cut)
            for key, name in (("before", "Before"), ("after", "After"))
            if example.get(key)
        )
        hints = "".join(f"<li>{cut.text(h)}</li>" for h in cut.some(example.get("hints") or ()))
        hints = f'<p class="label">Shown to it from memory</p><ul class="hints">{hints}</ul>' if hints else ""
        articles.append(
            f'<article><h3>{cut.text(example.get("question"))}</h3>{hints}<div class="sides">{sides}</div></article>'
        )
    return "".join(articles) + cut.rest(examples, "examples")


def _side(name: str, answer: Mapping[str, Any], cut: _Cut) -> str:
    right = bool(answer.get("ok"))
    badge = f'<span class="badge {"right" if right else "wrong"}">{"✓ right" if right else "✗ wrong"}</span>'
    result = f'<p class="label">Result</p><pre>{cut.text(answer["result"])}</pre>' if answer.get("result") else ""
    code = f"<pre><code>{_sql(str(answer.get('sql') or ''), cut)}</code></pre>"
    return f'<div><p class="label">{name} {badge}</p>{code}{result}</div>'


def _sql(query: str, cut: _Cut) -> str:
    """Escaped SQL with its keywords and texts marked."""
    query, out, end = visible(query, cut.chars), [], 0
    for found in _SQL.finditer(query):
        tag = "i" if found["text"] else "b"
        out += [html.escape(query[end : found.start()]), f"<{tag}>{html.escape(found[0])}</{tag}>"]
        end = found.end()
    return "".join(out) + html.escape(query[end:])


def _usage(usage: Mapping[str, Mapping[str, Any]], cut: _Cut) -> str:
    read = {str(role): Usage(**use) for role, use in list(usage.items())[: cut.items]}
    total = {"all together": sum(read.values(), Usage())} if len(read) > 1 else {}
    rows = [
        (
            cut.text(r),
            f"{u.calls:,}",
            f"{u.prompt_tokens:,}",
            f"{u.completion_tokens:,}",
            money(u.cost),
            clock(u.seconds),
        )
        for r, u in {**read, **total}.items()
    ]
    columns = ("Role", "Calls", "Prompt tokens", "Completion tokens", "Cost", "Model time")
    return _table("Model calls by role", columns, rows) + cut.rest(list(usage), "roles")


def _timing(stages: Sequence[Mapping[str, Any]], cut: _Cut) -> str:
    total = sum(float(s["seconds"]) for s in stages)
    rows = []
    for stage in cut.some(stages):
        seconds = float(stage["seconds"])
        bar = svg.cell(seconds / total if total > 0 else 0.0, "c-control")
        rows.append((cut.text(stage.get("stage")), f"{seconds:,.1f} s{bar}"))
    rows.append(("all together", f"{total:,.1f} s"))
    return _table("Seconds by stage, wall clock", ("Stage", "Time"), rows) + cut.rest(stages, "stages")


def _notes(notes: Sequence[object], cut: _Cut) -> str:
    return f"<ul>{''.join(f'<li>{cut.text(n)}</li>' for n in cut.some(notes))}</ul>{cut.rest(notes, 'notes')}"


def _command(command: object, cut: _Cut) -> str:
    return f"<pre><code>{cut.text(command)}</code></pre>"


_SECTIONS: tuple[tuple[str, str, Callable[[Any, _Cut], str]], ...] = (
    ("arms", "How much it solves", _arms),
    ("differences", "What made the difference", _differences),
    ("by_kind", "Where it helps", _by_kind),
    ("curve", "While learning", _curve),
    ("lessons", "What it learned", _lessons),
    ("examples", "Before and after", _examples),
    ("usage", "What it cost", _usage),
    ("timing", "How long it took", _timing),
    ("notes", "Notes", _notes),
    ("command", "Do it again", _command),
)
