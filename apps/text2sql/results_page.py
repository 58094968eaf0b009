"""The page of an evaluation: scores with intervals, where they come from, every wrong answer beside the gold one.

Self-contained, in the styles of `verbal.report`; every word from data (questions, queries, cells) is escaped. A sealed
test split is shown without wrong answers: its gold stands in no page.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from verbal import svg
from verbal.attempt_sections import marked_sql
from verbal.report import document, write_page
from verbal.sections import Cut, interval, plain_percent, table, usage
from verbal.tables import number
from verbal.text import percent

from .evaluation import LABELS

MOST_WRONG = 1_500
"""Wrong answers that a page shows at most."""

_CUT = Cut(60, 4_000)
_CELL = Cut(1, 80)
_KINDS = {
    "ex": "c-memory", "ex_official": "c-control", "suite": "c-both", "suite_official": "c-control",
    "partial_faithful": "c-control", "partial_hardened": "c-weights",
}  # fmt: skip
_STYLE = """
.chips { display: flex; flex-wrap: wrap; gap: 0.4rem 0.9rem; margin: 0 0 1rem; padding: 0; list-style: none; }
.row.group .track { height: 2.6rem; } .row.group { min-height: 2.75rem; }
.wrong summary { font-size: 1rem; color: var(--ink); padding: 0.55rem 0; }
.wrong { margin: 0; border-top: 1px solid var(--rule); } .wrong:first-of-type { border-top: 0; }
.wrong article { padding: 1.1rem 0 0.3rem; }
.wrong h4 { margin: 0 0 0.35rem; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
.differs { margin: 0 0 0.8rem; }
.result { font-size: 0.8125rem; width: auto; max-width: 100%; }
.result th, .result td { padding: 0.2rem 0.6rem 0.2rem 0; white-space: nowrap; }
.result tbody th { min-width: 0; }
.result .null { color: var(--soft); font-style: italic; }
.sides > div { min-width: 0; padding-bottom: 0.6rem; }
.causes .row { grid-template-columns: 17rem minmax(0, 1fr) 7.5rem; }
.causes .value b, .causes .value small { display: inline; margin-left: 0.4rem; }
.causes .track { height: 2.2rem; } .causes .row { min-height: 2.3rem; }
.chart-name { font-size: 0.9375rem; margin: 1.6rem 0 0.4rem; }
@media (max-width: 44rem) {
  .causes .row { grid-template-columns: minmax(0, 1fr) auto; padding-bottom: 0.2rem; }
  .causes .row .track, .row.group .track { height: 1.5rem; }
}
"""


def write_results_page(results: Mapping[str, Any], path: str | Path) -> Path:
    """The path of the page, written whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    return write_page(results_page(results), path)


def results_page(results: Mapping[str, Any]) -> str:
    """The page as text; `results` as `evaluation.summarise` gives them."""
    sections = [
        ("scores", "How many are right", _scores(results)),
        ("hardness", "By hardness", _groups(results["by_hardness"], results["scores"])),
        ("databases", "By database", _groups(results["by_database"], results["scores"])),
        ("causes", "Why answers are wrong", _causes(results["causes"])),
        ("wrong", "Every wrong answer", _wrong(results)),
        ("gold", "Gold queries that do not run", _gold(results)),
        ("usage", "What it cost", usage(results["usage"], None, _CUT) if results["usage"] else ""),
        ("notes", "Notes", _notes(results["notes"])),
    ]
    shown = [(key, heading, body) for key, heading, body in sections if body]
    nav = "".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in shown)
    main = "\n".join(
        f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{heading}</h2>{body}</section>'
        for key, heading, body in shown
    )
    foot = "Intervals are 95 % bootstrap intervals over questions. Written by verbal."
    header = f'{_head(results)}<nav aria-label="Sections">{nav}</nav>'
    return document(_CUT.text(results["title"]), header, main, foot, _STYLE)


def _head(results: Mapping[str, Any]) -> str:
    facts = [(name, results.get(name)) for name in ("model", "run", "split")]
    facts.append(("scored", f"{results['counted']:,} of {results['questions']:,} questions"))
    shown = "".join(f"<div><dt>{name}</dt><dd>{_CUT.text(value)}</dd></div>" for name, value in facts if value)
    return (
        f"<h1>{_CUT.text(results['title'])}</h1>"
        f'<p class="subtitle">{_CUT.text(results["subtitle"])}</p><dl>{shown}</dl>'
    )


def _scores(results: Mapping[str, Any]) -> str:
    rows = [_row(_KINDS[n], *LABELS[n], s) for n, s in results["scores"].items()]
    rows += [
        _row(_KINDS[n], f"{LABELS[n][0]} pass@{each['k']}", f"one of {each['k']} samples is right", each[n])
        for each in results["pass_at_k"] for n in ("ex", "suite") if n in each
    ]  # fmt: skip
    return _figure(rows, "Share of the questions. Line: 95 % interval over questions.") if rows else ""


def _row(kind: str, name: str, about: str, score: Mapping[str, Any], extra: str = "") -> str:
    mean, low, high = (number(score.get(k)) for k in ("mean", "low", "high"))
    marks = ""
    if mean is not None:
        bar = f'<rect class="bar" x="0" y="34%" width="{svg.at(mean)}" height="32%" rx="3"/>'
        marks = bar + svg.whisker(mean, low, high, (0, 1))
    ends = interval(score, plain_percent)
    label = f"{name}: {percent(mean)}, interval {ends or 'not known'}, {score['questions']} questions"
    track = svg.track(label, svg.ticks(0, 1), (0, 1), marks)
    row = svg.row(kind, _CUT.text(name), _CUT.text(about), track, percent(mean), ends)
    return row.replace('class="row ', f'class="row {extra} ', 1) if extra else row


def _figure(rows: Sequence[str], caption: str) -> str:
    axis = svg.axis(svg.ticks(0, 1), (0, 1), partial(percent, digits=0))
    return f'<figure><ol class="rows">{"".join(rows)}{axis}</ol><figcaption>{caption}</figcaption></figure>'


def _groups(groups: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]) -> str:
    """Bars of the strictest match of each group, and every score as a table."""
    if not groups:
        return ""
    rows = []
    for group in groups:
        key = "suite" if "suite" in group["scores"] else "ex"
        score = group["scores"].get(key) or {"questions": 0}
        about = f"{score['questions']:,} questions{', EX: no suite' if key == 'ex' and 'suite' in scores else ''}"
        rows.append(_row(_KINDS[key], group["name"], about, score, "group"))
    what = "Suite accuracy" if "suite" in scores else "EX"
    cells = []
    for group in groups:
        shares = [group["scores"].get(n) for n in scores]
        cells.append([_CUT.text(group["name"]), f"{group['questions']:,}", *map(_share, shares)])
    columns = ["", "Questions", *(LABELS[n][0] for n in scores)]
    numbers = table("The same numbers as a table", columns, cells)
    figure = _figure(rows, f"{what} with its 95 % interval.")
    return f"{figure}<details><summary>All numbers</summary>{numbers}</details>"


def _share(score: Mapping[str, Any] | None) -> str:
    return "–" if not score else f"{plain_percent(score['mean'])} {interval(score, plain_percent)}"


def _causes(causes: Sequence[Mapping[str, Any]]) -> str:
    total = sum(c["count"] for c in causes)
    if not total:
        return ""
    top = max(c["count"] for c in causes)
    rows = []
    for cause in causes:
        share, name = cause["count"] / total, _CUT.text(cause["cause"])
        bar = f'<rect class="bar" x="0" y="22%" width="{svg.at(cause["count"], 0, top)}" height="56%" rx="3"/>'
        label = f"{cause['cause']}: {cause['count']} of {total} wrong answers"
        track = svg.track(label, (), (0, 1), bar)
        rows.append(svg.row("c-bad", name, "", track, f"{cause['count']:,}", percent(share)))
    caption = f"{total:,} wrong answers, one primary cause each: the first thing in which answer and gold differ."
    return f'<figure class="causes"><ol class="rows">{"".join(rows)}</ol><figcaption>{caption}</figcaption></figure>'


def _wrong(results: Mapping[str, Any]) -> str:
    """Wrong answers by cause, the most frequent cause first and open."""
    if results["split"] == "test":
        return '<p class="quiet">The test split is sealed: no gold query and no answer is shown.</p>'
    shown = results["wrong"][:MOST_WRONG]
    groups: dict[str, list[Mapping[str, Any]]] = {c["cause"]: [] for c in results["causes"]}
    for wrong in shown:
        groups.setdefault(wrong["cause"], []).append(wrong)
    drawn = [
        f'<details class="wrong"{" open" if at == 0 else ""}><summary>{_CUT.text(cause or "other")} '
        f"<small>{len(items):,}</small></summary>{''.join(map(_article, items))}</details>"
        for at, (cause, items) in enumerate((c, i) for c, i in groups.items() if i)
    ]
    left = len(results["wrong"]) - len(shown)
    more = f'<p class="quiet">{left:,} more wrong answers are not shown.</p>' if left else ""
    return "".join(drawn) + more


def _article(wrong: Mapping[str, Any]) -> str:
    facts = [wrong["id"], wrong["db_id"], wrong["hardness"]]
    facts.append("right on the database asked, wrong on another state" if wrong["right"] else "")
    evidence = f'<p class="source">Evidence: {_CUT.text(wrong["evidence"])}</p>' if wrong["evidence"] else ""
    said = [wrong["differs"], wrong["text"] if wrong["text"] not in wrong["differs"] else ""]
    differs = f'<p class="differs quiet">{_CUT.text("; ".join(s for s in said if s))}</p>'
    sides = _side("Answer", "wrong", "✗ wrong", wrong["sql"], wrong["result"])
    sides += _side("Gold", "right", "", wrong["gold"], wrong["gold_result"])
    return (
        f"<article><h4>{_CUT.text(wrong['question'])}</h4>{evidence}"
        f'<p class="facts">{" · ".join(_CUT.text(f) for f in facts if f)}</p>{differs}'
        f'<div class="sides">{sides}</div></article>'
    )


def _side(name: str, kind: str, word: str, sql: str, result: Mapping[str, Any] | None) -> str:
    code = f"<pre><code>{marked_sql(sql, _CUT)}</code></pre>" if sql.strip() else "<pre>no query</pre>"
    badge = f'<span class="badge {kind}">{word}</span>' if word else ""
    return f'<div><p class="label">{name} {badge}</p>{code}{_rows(result or {})}</div>'


def _rows(result: Mapping[str, Any]) -> str:
    """The first rows of a result as a small table."""
    if result.get("error"):
        return f'<p class="label">{_CUT.text(result["error"])}</p>'
    count, wide = result.get("row_count", 0), result.get("column_count", 0)
    words = f"{count:,} row{'' if count == 1 else 's'}, {wide:,} column{'' if wide == 1 else 's'}"
    if not count:
        return f'<p class="label">{words}</p>'
    head = "".join(f'<th scope="col">{_CELL.text(c)}</th>' for c in result["columns"])
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in result["rows"])
    more = "<tr><td>…</td></tr>" if count > len(result["rows"]) else ""
    return (
        f'<p class="label">{words}</p><div class="scroll" role="region" tabindex="0" aria-label="First rows">'
        f'<table class="result"><thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table></div>'
    )


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="null">NULL</td>'
    return f"<td>{html.escape(f'{value:.12g}')}</td>" if isinstance(value, float) else f"<td>{_CELL.text(value)}</td>"


def _gold(results: Mapping[str, Any]) -> str:
    rows = [
        (_CUT.text(g["id"]), _CUT.text(g["db_id"]), _CUT.text(g["error"]), f"<code>{_CUT.text(g['gold'])}</code>")
        for g in results["gold_failed"]
    ]
    return table("Left out of every share", ("Question", "Database", "Error", "Query"), rows, words=4) if rows else ""


def _notes(notes: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_CUT.text(n)}</li>' for n in notes)}</ul>" if notes else ""


__all__ = ["MOST_WRONG", "results_page", "write_results_page"]
