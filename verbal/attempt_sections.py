"""Sections of the page that show attempts: the most instructive ones, before and after, the turns of a session.

Each function takes what the results of a run hold under one key (see `verbal.report.page`) and how much may be shown,
and gives ready HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from verbal.sections import Cut
from verbal.text import visible

_SQL = re.compile(
    r"(?P<text>'(?:[^']|'')*'|\"[^\"]*\")|\b(?P<word>select|distinct|from|where|join|left|inner|outer|cross|on|group|"
    r"order|by|having|limit|offset|union|all|except|intersect|with|as|and|or|not|in|is|null|like|between|exists|case|"
    r"when|then|else|end|asc|desc|cast|over|partition)\b",
    re.IGNORECASE,
)


def examples(items: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """Answers to the same question before and after, and what was shown from memory."""
    articles = []
    for example in cut.some(items):
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
    return "".join(articles) + cut.rest(items, "examples")


def _side(name: str, answer: Mapping[str, Any], cut: Cut, head: str = "") -> str:
    right = bool(answer.get("ok"))
    badge = f'<span class="badge {"right" if right else "wrong"}">{"✓ right" if right else "✗ wrong"}</span>'
    result = f'<p class="label">Result</p><pre>{cut.text(answer["result"])}</pre>' if answer.get("result") else ""
    code = f"<pre><code>{marked_sql(str(answer.get('sql') or ''), cut)}</code></pre>"
    return f'<div><p class="label">{name} {badge}</p>{head}{code}{result}</div>'


def marked_sql(query: str, cut: Cut) -> str:
    """Escaped SQL with its keywords and texts marked."""
    query, out, end = visible(query, cut.chars), [], 0
    for found in _SQL.finditer(query):
        tag = "i" if found["text"] else "b"
        out += [html.escape(query[end : found.start()]), f"<{tag}>{html.escape(found[0])}</{tag}>"]
        end = found.end()
    return "".join(out) + html.escape(query[end:])


def instructive(items: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """A failed attempt, what was said of it and what it taught, and the right attempt that read that."""
    articles = []
    for item in cut.some(items):
        lesson, after = item.get("lesson") or {}, item.get("after") or {}
        said = "".join(
            f"<li><b>{cut.text(s.get('who'))}</b> {cut.text(s.get('text'))}</li>"
            for s in cut.some(item.get("said") or ())
        )
        said = f'<ul class="said">{said}</ul>' if said else ""
        facts = [cut.text(lesson[k]) for k in ("id", "status") if lesson.get(k)]
        facts += [f"helped {int(lesson['helped']):,}"] if lesson.get("helped") else []
        told = (
            f'<div><p class="label">What was said of it</p>{said}<p class="label">The lesson</p>'
            f'<blockquote><p>{cut.text(lesson.get("text"))}</p><p class="facts">{" · ".join(facts)}</p>'
            "</blockquote></div>"
        )
        other = f'<p class="other">{cut.text(after["question"])}</p>' if after.get("question") else ""
        sides = (
            _side("Before", _shown(item.get("before") or {}), cut) + told + _side("After", _shown(after), cut, other)
        )
        articles.append(
            f'<article class="lesson-story"><h3>{cut.text(item.get("question"))}</h3><div class="sides three">{sides}'
            f'</div><p class="quiet">After: {cut.text(item.get("about"))}.</p></article>'
        )
    return "".join(articles) + cut.rest(items, "attempts")


def turns(items: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """The turns of a session, the latest last: what was asked, what was answered, what a person said of it."""
    shown = cut.last(items)
    articles = []
    for turn in shown:
        said = "".join(
            f"<li><b>{cut.text(s.get('who'))}</b> {cut.text(s.get('text'))}</li>"
            for s in cut.some(turn.get("said") or ())
        )
        said = f'<p class="label">What was said of it</p><ul class="said">{said}</ul>' if said else ""
        status = f"<small>{cut.text(turn['status'])}</small>" if turn.get("status") else ""
        text = str(turn.get("answer") or "")
        answer = (
            f"<pre><code>{marked_sql(text, cut) if turn.get('sql') else cut.text(text)}</code></pre>" if text else ""
        )
        result = f'<p class="label">Result</p><pre>{cut.text(turn["result"])}</pre>' if turn.get("result") else ""
        articles.append(f"<article><h3>{cut.text(turn.get('question'))} {status}</h3>{answer}{result}{said}</article>")
    return cut.rest(items, "earlier turns") + "".join(articles)


def _shown(side: Mapping[str, Any]) -> dict[str, Any]:
    return {"sql": side.get("answer"), "ok": side.get("ok"), "result": side.get("result")}


__all__ = ["examples", "instructive", "marked_sql", "turns"]
