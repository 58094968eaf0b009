"""Runs, attempts and reflections as a notebook shows them: small cards of HTML, in the colours of the notebook itself.

A record shows itself (`_repr_html_`); `Run` is a run of a store: `verbal.notebook.Run("runs/verbal.db", "run")`. No
script, nothing loaded; what comes from data is escaped and cut. Colours are mixed from the text colour around a card,
so that it reads on a light and on a dark ground.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.errors import UnknownName
from verbal.records import Record
from verbal.store import Store
from verbal.tables import number
from verbal.text import money, percent, visible
from verbal.types import Attempt, Feedback, Group, MemoryOp, Message, Reflection, Step, Task, Usage

LONGEST = 2_000
"""Characters of a text in a card."""
MOST = 12
"""Steps, fields or lines of a card."""

_STYLE = """<style>.verbal{--v:color-mix(in srgb,currentColor 14%,transparent);
--w:color-mix(in srgb,currentColor 62%,transparent);border:1px solid var(--v);border-radius:8px;padding:.7em 1em;
max-width:60em;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
.verbal h4{margin:0 0 .3em;font-size:1em}.verbal p{margin:.2em 0}.verbal small,.verbal dt{color:var(--w)}
.verbal pre{margin:.4em 0;padding:.5em .7em;background:var(--v);border-radius:6px;max-height:18em;overflow:auto;
white-space:pre-wrap;font:12px/1.5 ui-monospace,Consolas,"DejaVu Sans Mono",monospace;color:inherit}
.verbal dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;margin:.4em 0}.verbal dd{margin:0}
.verbal table{border-collapse:collapse;margin:.4em 0;color:inherit;background:none;font-size:inherit}
.verbal td,.verbal th{padding:.2em .9em .2em 0;text-align:left;border-bottom:1px solid var(--v);background:none}
.verbal .bar{display:inline-block;height:.55em;border-radius:3px;background:var(--w)}
.verbal b.right::before{content:"✓ "}.verbal b.wrong::before{content:"✗ "}</style>"""


class Run:
    """A run for a notebook: it shows its arms, its progress and its newest lessons, and gives its page.

    Args:
        store: An open store, or the path or URL of one (opened for each look).
        run: Id of the run.

    Raises:
        UnknownName: the store has no such run.
    """

    def __init__(self, store: Store | str | Path, run: str) -> None:
        self._given, self.id = store, run
        self._look(lambda store: None)

    def _look(self, work: Any) -> Any:
        store = self._given if isinstance(self._given, Store) else Store(self._given)
        try:
            if store.run(self.id) is None:
                raise UnknownName.of("run", self.id, [r["id"] for r in store.runs()], where=store.where)
            return work(store)
        finally:
            if store is not self._given:
                store.close()

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    @property
    def results(self) -> dict[str, Any]:
        """What the page of the run shows, read now."""
        from verbal.run_results import run_results

        found: dict[str, Any] = self._look(lambda store: run_results(store, store.run(self.id) or {}))
        return found

    def figures(self) -> dict[str, dict[str, Any]]:
        """Name -> Vega-Lite specification of each plot."""
        from verbal.figures import figures

        return figures(self.results)

    def report(self, path: str | Path) -> Path:
        """Writes the page of the run; gives its path."""
        from verbal.report import write_report

        return write_report(self.results, path)

    def attempts(self, latest: int = 20) -> list[Attempt]:
        """The attempts that were kept last, the newest first."""
        found: list[Attempt] = self._look(lambda store: store.latest_attempts(self.id, latest))
        return found

    def _repr_html_(self) -> str:
        from verbal.watch import Watched

        seen = self._look(lambda store: Watched(store, self.id).snapshot())
        return run_card(seen, self.results)


def run_card(seen: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """A run as a card: how far it is, its arms, what it cost, what was learned last.

    Args:
        seen: What `verbal.watch.Watched.snapshot` gives.
        results: What `verbal.run_results.run_results` gives.
    """
    rows = [
        (_text(a.get("label") or a.get("name"), 60), _bar(number(a.get("mean"))), _interval(a))
        for a in list(results.get("arms") or ())[:MOST]
    ] or [
        (_text(p["run"], 60), _bar(p["share"][0] if p["share"] else None),
         f"{p['done']:,}" + (f" of {p['total']:,}" if p["total"] else ""))
        for p in seen["phases"][:MOST]
    ]  # fmt: skip
    table = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    claim = f"<p>{_text(results['claim'], 300)}</p>" if results.get("claim") else ""
    used = sum((Usage(**u) for u in seen["usage"].values()), Usage())
    lessons = "".join(f"<li>{_text(x['text'], 160)}</li>" for x in seen["lessons"][:5])
    lessons = f"<p><small>newest lessons</small></p><ul>{lessons}</ul>" if lessons else ""
    head = f"{_text(seen['command'], 30)}, {_text(seen['status'], 30)} · {_text(seen['model'], 80)}"
    cost = f"{used.calls:,} calls, {used.tokens:,} tokens, {money(used.cost)}"
    return _card(f"Run {_text(seen['run'], 80)}", head, f"{claim}<table>{table}</table><small>{cost}</small>{lessons}")


def record_card(record: Record) -> str:
    """A record as a card."""
    if isinstance(record, Attempt):
        return _attempt(record)
    if isinstance(record, Reflection):
        return _reflection(record)
    if isinstance(record, Task):
        asked = "".join(f"<p><small>{_text(m.role)}</small></p>{_pre(m.content)}" for m in record.messages[-3:])
        return _card(f"Task {_text(record.id, 80)}", f"{_text(record.kind)}, split {_text(record.split)}", asked)
    if isinstance(record, Feedback):
        value = "no value" if record.value is None else f"{record.value:g}"
        return _card(
            f"{_text(record.critic, 80)}: {value}", _text(record.attempt, 120), _pre(record.text or record.reason)
        )
    if isinstance(record, Step | Message):
        who = record.author if isinstance(record, Step) else record.role
        return _card(
            _text(who), type(record).__name__, _pre(record.text if isinstance(record, Step) else record.content)
        )
    names = {MemoryOp: "Operation", Group: "Group", Usage: "Used"}
    fields = [(k, v) for k, v in record.to_dict().items() if k != "v" and v not in (None, "", [], {})][:MOST]
    return _card(names.get(type(record), type(record).__name__), "", _facts(fields))


def _attempt(attempt: Attempt) -> str:
    head = f"{_text(attempt.task, 80)} · arm {_text(attempt.arm)}, round {attempt.round} · {_text(attempt.stop)}"
    steps = "".join(
        f"<details><summary><small>{_text(s.role)} ({_text(s.author)})</small></summary>{_pre(s.text)}"
        f"{f'<small>saw</small>{_pre(s.observation)}' if s.observation else ''}</details>"
        for s in attempt.steps[:MOST]
    )
    more = f"<small>{len(attempt.steps) - MOST} more steps</small>" if len(attempt.steps) > MOST else ""
    error = f"<p><b class=wrong>{_text(attempt.error, 300)}</b></p>" if attempt.error else ""
    used = f"{attempt.usage.tokens:,} tokens, {money(attempt.usage.cost)} · {_text(attempt.model, 80)}"
    body = f"{_pre(attempt.answer) if attempt.answer else ''}{error}{steps}{more}<small>{used}</small>"
    return _card(f"Attempt {_text(attempt.id, 120)}", head, body)


def _reflection(item: Reflection) -> str:
    counts = item.counters
    facts: list[tuple[str, Any]] = [("when", item.when), ("not for", item.boundary), ("rival", item.rival)]
    if counts.shown:
        facts.append(("shown", f"{counts.shown:,} times, helped {counts.helped:,}, harmed {counts.harmed:,}"))
    facts += [("value", item.value), ("learned from", ", ".join(item.attempts[:3]))]
    avoid = "Do not: " if item.polarity == "avoid" else ""
    head = f"{_text(item.kind)}, {_text(item.status)}, version {item.version:,}"
    title = f"{_text(item.title, 120)}: " if item.title else ""
    return _card(f"Reflection {_text(item.id, 60)}", head, f"<p>{title}{avoid}{_text(item.text)}</p>" + _facts(facts))


def _card(title: str, about: str, body: str) -> str:
    """A card; all are ready HTML."""
    about = f" <small>{about}</small>" if about else ""
    return f'{_STYLE}<div class="verbal"><h4>{title}{about}</h4>{body}</div>'


def _facts(facts: Sequence[tuple[str, Any]]) -> str:
    shown = [(k, v) for k, v in facts if v not in (None, "", [], {})]
    rows = "".join(f"<dt>{_text(k, 60)}</dt><dd>{_text(v, 300)}</dd>" for k, v in shown)
    return f"<dl>{rows}</dl>" if rows else ""


def _bar(share: float | None) -> str:
    width = 8 * min(max(share or 0.0, 0.0), 1.0)
    return f'<span class="bar" style="width:{width:.2f}em"></span> {percent(share)}' if share is not None else "–"


def _interval(item: Mapping[str, Any]) -> str:
    low, high = number(item.get("low")), number(item.get("high"))
    return f"<small>[{100 * low:.1f}, {100 * high:.1f}]</small>" if low is not None and high is not None else ""


def _pre(text: str) -> str:
    return f"<pre>{_text(text)}</pre>" if text else ""


def _text(value: object, most: int = LONGEST) -> str:
    return html.escape(visible(value, most))


__all__ = ["LONGEST", "MOST", "Run", "record_card", "run_card"]
