"""Sections of the page that show the evidence of a run: decisions of the gate, versions, sealed tests, cost of a gain.

Each function takes what the results of a run hold under one key (see `verbal.report.page`) and how much may be shown,
and gives ready HTML. The pieces that every section of the page is made of are here too.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from verbal import svg
from verbal.tables import ACTIONS, VERDICTS, amount, estimate_words, moment, number, points
from verbal.text import clock, money, percent, visible
from verbal.types import Usage

OPEN = 5
"""Decisions of the gate that are shown unfolded: the latest."""

_ARMS = {"base": "control", "retry": "control", "shuffled": "control", "memory": "memory", "distilled": "weights"}
_ARMS |= {"distilled+memory": "both"}
_CLASSES = {"accept": "accept", "reject": "reject"}


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of long lists and texts a page shows.

    Args:
        items: Items of a list.
        chars: Characters of a text.
    """

    items: int
    chars: int

    def words(self, value: object, default: str = "–") -> str:
        """Text of at most `chars` characters, not yet escaped."""
        return visible(default if value is None else value, self.chars)

    def text(self, value: object, default: str = "–") -> str:
        """Escaped text of at most `chars` characters."""
        return html.escape(self.words(value, default))

    def some(self, values: Sequence[Any]) -> Sequence[Any]:
        """The first `items`."""
        return values[: self.items]

    def last(self, values: Sequence[Any]) -> Sequence[Any]:
        """The latest `items` of a list that begins with the oldest."""
        return values[-self.items :]

    def rest(self, values: Sequence[Any], noun: str) -> str:
        """A line that says how many are not shown, or nothing."""
        left = len(values) - self.items
        return f'<p class="quiet">{left:,} more {noun} are not shown.</p>' if left > 0 else ""


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table in a box that scrolls on a phone.

    Args:
        caption: What it shows, ready HTML as all that follows.
        columns: Headings.
        rows: The cells.
        words: So many columns from the left hold words, the others numbers.
    """
    kinds = ["" if at < words else ' class="n"' for at in range(len(columns))]
    head = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(columns, kinds, strict=True))
    body = ""
    for row in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
        body += f'<tr><th scope="row">{row[0]}</th>{cells}</tr>'
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def interval(item: Mapping[str, Any], form: Callable[[float | None], str] = points) -> str:
    """`low` and `high` of an item in brackets, or nothing when one is not known."""
    low, high = number(item.get("low")), number(item.get("high"))
    return f"[{form(low)}, {form(high)}]" if low is not None and high is not None else ""


def plain_percent(share: float | None) -> str:
    """A share as per cent without the sign."""
    return percent(share).removesuffix(" %")


def point_tick(share: float) -> str:
    """A tick of an axis in points."""
    return f"{100 * share:+.3g}".replace("-", "−") if share else "0"


def arm_kind(name: object) -> str:
    """The class that colours an arm."""
    return f"c-{_ARMS.get(str(name), 'control')}"


def gates(decisions: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """Decisions of the evidence gate, oldest first: verdict, wealth, gain, guard; all but the latest are folded."""
    shown = cut.last(decisions)
    counts = Counter(VERDICTS.get(str(d.get("verdict")), ("?", str(d.get("verdict"))))[1] for d in shown)
    lead = ", ".join(f"{count:,} {cut.text(word)}" for word, count in counts.items())
    kept = "they are the latest" if len(shown) < len(decisions) else "from the oldest to the latest"
    noun = "decision" if len(shown) == 1 else "decisions"
    lead = f'<p class="lead">{len(shown):,} {noun}, {kept}: {lead}.</p>' if len(decisions) > 1 else ""
    drawn = [_decision(d, cut) for d in shown]
    older = "".join(drawn[:-OPEN])
    if older:
        older = f"<details><summary>{len(drawn) - OPEN:,} older decisions</summary>{older}</details>"
    note = (
        '<p class="quiet">Wealth is what a bet on a gain has won. It starts at 1, and without a gain the chance '
        "that it ever reaches N is at most 1 in N. Intervals here hold at whatever task one looks.</p>"
    )
    return f"{lead}{cut.rest(decisions, 'decisions')}{older}{''.join(drawn[-OPEN:])}{note}{_gate_table(shown, cut)}"


def _gain_span(gate: Mapping[str, Any]) -> tuple[float, float]:
    """One axis for gain, guard and what decides; before the first task an interval is all there can be: left aside."""
    guard, ends = gate.get("guard") or {}, [0.0]
    for part in (gate.get("gain") or {}, guard):
        ends += [v for v in _ends(part) if v is not None and part.get("mean") is not None]
    ends += [v for v in (number(gate.get("margin")), _floor(guard)) if v is not None]
    pad = max((max(ends) - min(ends)) * 0.06, 0.01)
    return (max(min(ends) - pad, -1.05), min(max(ends) + pad, 1.05))


def _ends(item: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    mean, low, high = (number(item.get(name)) for name in ("mean", "low", "high"))
    return mean, low, high


def _floor(guard: Mapping[str, Any]) -> float | None:
    """Where the guard breaks: a loss as large as its margin, whatever sign the margin was written with."""
    margin = number(guard.get("margin"))
    return None if margin is None else -abs(margin)


def _sentence(text: str) -> str:
    """A reason begins small, because a table shows it after other words; alone it is a sentence."""
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".!?…" else ".")


def _badge(verdict: object, cut: Cut) -> str:
    sign, word = VERDICTS.get(str(verdict), ("?", cut.text(verdict, "undecided")))
    return f'<span class="verdict {_CLASSES.get(str(verdict), "more")}"><i aria-hidden="true">{sign}</i>{word}</span>'


def _decision(gate: Mapping[str, Any], cut: Cut) -> str:
    span, said = _gain_span(gate), cut.words(gate.get("reason") or "")
    candidate, incumbent = cut.text(gate.get("candidate")), cut.text(gate.get("incumbent"))
    reason = f'<p class="reason">{html.escape(_sentence(said))}</p>' if said else ""
    rows = [_gain_row(gate, span)]
    if gate.get("guard"):
        rows.append(_guard_row(gate["guard"], span, said, cut))
    rows.append(svg.axis(svg.ticks(*span), span, point_tick))
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _facts(gate, cut) if value)
    return (
        f'<article class="decision"><h3>{_badge(gate.get("verdict"), cut)}<span>{candidate} '
        f'<small>over {incumbent}</small></span></h3>{reason}<figure class="curve">{_wealth(gate, cut)}</figure>'
        f'<figure><ol class="rows">{"".join(rows)}</ol></figure><dl>{facts}</dl></article>'
    )


def _wealth(gate: Mapping[str, Any], cut: Cut) -> str:
    # a bool would pass for a number; what is no number at all is refused by float()
    values = [None if w is None else float(w) for w in gate.get("wealth") or ()]
    known = [w for w in values if w is not None and w == w]
    if not known:
        return '<p class="quiet">No task was played, so there is no wealth to show.</p>'
    needed, tasks = number(gate.get("threshold")), number(gate.get("tasks")) or 0.0
    # all tasks there are, so that stopping early is seen, unless that would press the curve against the left edge
    width = tasks if len(values) <= tasks <= 4 * len(values) else float(len(values))
    last, best = (amount(w) for w in (known[-1], max(known)))
    need = "no threshold known" if needed is None else f"{amount(needed)} needed"
    label = f"Wealth over {len(values):,} tasks on a log scale: highest {best}, at the end {last}, {need}"
    name = f"Wealth <small>{last} after {len(values):,} tasks, {need}</small>"
    return svg.wealth(name, label, values, needed, width, min(max(cut.items, 20), 120))


def _gain_row(gate: Mapping[str, Any], span: tuple[float, float]) -> str:
    gain = gate.get("gain") or {}
    (mean, low, high), margin = _ends(gain), number(gate.get("margin"))
    bar = margin or 0.0
    kind, word = "c-control", f"not shown to be above {points(bar)} points" if bar else "cannot be told from zero"
    if low is not None and low > bar:
        kind, word = "c-memory", f"above {points(bar)} points" if bar else "above zero"
    elif high is not None and high < bar:
        kind, word = "c-bad", f"below {points(bar)} points" if bar else "below zero"
    marks = (svg.limit(bar, span) if bar else "") + ("" if mean is None else svg.whisker(mean, low, high, span))
    ends = interval(gain)
    label = f"Gain: {points(mean)} points, interval {ends or 'not known'}, {word}"
    track = svg.track(label, svg.ticks(*span), span, marks)
    return svg.row(kind, "Gain", word, track, points(mean), ends)


def _guard_row(guard: Mapping[str, Any], span: tuple[float, float], said: str, cut: Cut) -> str:
    (mean, low, high), floor = _ends(guard), _floor(guard)
    kind, word = ("c-memory", "✓ held") if guard.get("passed") else ("c-bad", "✗ broken")
    if guard.get("passed") is None:
        kind, word = "c-control", "… open"
    marks = ("" if floor is None else svg.limit(floor, span)) + (
        "" if mean is None else svg.whisker(mean, low, high, span)
    )
    may = "" if floor is None else f", may lose at most {100 * -floor:.3g} points"
    tasks = guard.get("used", guard.get("tasks"))
    count = "" if tasks is None else f" on {int(tasks):,} tasks"
    name, ends, reason = cut.words(guard.get("name") or ""), interval(guard), cut.words(guard.get("reason") or "")
    name = f"Guard: {name}" if name and name != "guard" else "Guard"
    label = f"{name}: {points(mean)} points{count}, interval {ends or 'not known'}{may}: {word}"
    about = f"{word}{count}{may}"
    if reason and reason not in said and not guard.get("passed"):
        about = html.escape(f"{about}. {_sentence(reason)}")
    track = svg.track(label, svg.ticks(*span), span, marks)
    return svg.row(kind, html.escape(name), about, track, points(mean), ends)


def _facts(gate: Mapping[str, Any], cut: Cut) -> list[tuple[str, str]]:
    """What a decision rests on, as pairs of a name and ready HTML; an empty one is left out."""
    proposal, uses, cost = gate.get("proposal"), gate.get("dev_uses"), gate.get("cost")
    before = "" if gate.get("accepted_before") is None else f", {int(gate['accepted_before']):,} accepted before"
    times = "" if uses is None else "once" if int(uses) == 1 else f"{int(uses):,} times"
    of = "" if gate.get("tasks") is None else f" of {int(gate['tasks']):,}"
    out = f", {int(gate['left_out']):,} left out" if gate.get("left_out") is not None else ""
    alpha, fdr, used = number(gate.get("alpha")), number(gate.get("fdr")), Usage(**cost) if cost else None
    all_accepted = "" if fdr is None else f", {100 * fdr:.3g} % of all accepted"
    return [
        ("proposal", "" if proposal is None else f"{int(proposal):,}{before}"),
        ("dev set used", times),
        ("tasks used", "" if gate.get("used") is None else f"{int(gate['used']):,}{of}{out}"),
        ("error allowed", "" if alpha is None else f"{100 * alpha:.3g} %{all_accepted}"),
        ("cost", "" if used is None else f"{used.calls:,} calls, {money(used.cost)}"),
        ("decided", html.escape(moment(gate["at"])) if gate.get("at") else ""),
        ("id", cut.text(gate["id"]) if gate.get("id") else ""),
    ]


def _gate_table(decisions: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    rows = []
    for gate in decisions:
        gain, guard = gate.get("gain") or {}, gate.get("guard") or {}
        known = [float(w) for w in gate.get("wealth") or () if w is not None and w == w]
        needed, low = number(gate.get("threshold")), number(guard.get("low"))
        rows.append(
            (
                cut.text(gate.get("candidate")),
                cut.text(VERDICTS.get(str(gate.get("verdict")), ("", gate.get("verdict")))[1]),
                f"{points(number(gain.get('mean')))} {interval(gain)}",
                amount(known[-1]) if known else "–",
                "–" if needed is None else amount(needed),
                "–" if low is None else f"{points(low)} or more",
                cut.text(gate.get("used")),
            )
        )
    columns = ("Candidate", "Verdict", "Gain (points)", "Wealth", "Needed", "Guard (points)", "Tasks used")
    numbers = table("The decisions as a table", columns, rows, words=2)
    return f"<details><summary>All numbers</summary>{numbers}</details>"


def versions(adopted: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """Adopted versions as a line through time, oldest first; the active one is marked."""
    items = []
    for version in cut.last(adopted):
        active, action = bool(version.get("active")), str(version.get("action"))
        sign, word = ACTIONS.get(action, ("?", cut.text(action)))
        facts = [f'<i aria-hidden="true">{sign}</i> {word}', html.escape(moment(version.get("at")))]
        if version.get("evidence"):
            facts.append(f"evidence {cut.text(version['evidence'])}")
        elif action == "promote":
            facts.append("without a decision of the gate")
        use = '<span class="verdict accept"><i aria-hidden="true">●</i>in use</span>' if active else ""
        items.append(
            f'<li{" class=" + chr(34) + "active" + chr(34) if active else ""}><b class="number">'
            f"{cut.text(version.get('number'))}</b><div><p>{cut.text(version.get('policy'))} {use}</p>"
            f'<p class="facts">{" · ".join(facts)}</p></div></li>'
        )
    return f'{cut.rest(adopted, "versions")}<ol class="timeline">{"".join(items)}</ol>'


def sealed(uses: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """Uses of the sealed test, one line each."""
    ticks, rows = svg.ticks(0, 1), []
    for use in cut.last(uses):
        (mean, low, high), ends = _ends(use), interval(use, plain_percent)
        name = cut.words(f"Version {use.get('version', '–')}")
        facts = [moment(use.get("at")), cut.words(use.get("run") or "")]
        facts.append("" if use.get("tasks") is None else f"{int(use['tasks']):,} tasks")
        marks = "" if mean is None else svg.whisker(mean, low, high, (0, 1))
        label = f"{name}: {percent(mean)} solved, interval {ends or 'not known'}"
        track = svg.track(label, ticks, (0, 1), marks)
        about = html.escape(" · ".join(f for f in facts if f))
        rows.append(svg.row("c-memory", html.escape(name), about, track, percent(mean), ends))
    rows.append(svg.axis(ticks, (0, 1), partial(percent, digits=0)))
    times = "once" if len(uses) == 1 else f"{len(uses):,} times"
    caption = f"The sealed test was used {times}. Each further look makes it weaker evidence."
    lines = f'<figure><ol class="rows">{"".join(rows)}</ol><figcaption>{caption}</figcaption></figure>'
    return f"{cut.rest(uses, 'uses')}{lines}"


def cost_gain(arms: Sequence[Mapping[str, Any]], cut: Cut) -> str:
    """What each arm cost against what it gained: numbered dots, and the same as a table."""
    shown = cut.some(arms)
    paid = any((number(a.get("cost")) or 0) > 0 for a in shown)
    dots, rows, missing = [], [], 0
    for sign, arm in enumerate(shown, 1):
        spent, gain = number(arm.get("cost" if paid else "tokens")), number(arm.get("gain"))
        low, high = number(arm.get("low")), number(arm.get("high"))
        if spent is None or gain is None:
            missing += 1
        else:
            dots.append((arm_kind(arm.get("arm") or arm.get("name")), str(sign), spent, gain, low, high))
        each = money(spent / (100 * gain)) if paid and spent is not None and gain and gain > 0 else "–"
        cells = [f'<span class="number">{sign}</span> {cut.text(arm.get("name"))}', points(gain), interval(arm) or "–"]
        cells += [money(number(arm.get("cost"))), *([each] if paid else [])]
        cells += ["–" if arm.get(n) is None else f"{int(arm[n]):,}" for n in ("tokens", "calls")]
        rows.append(cells)
    columns = ["Arm", "Gain (points)", "Interval", "Cost", *(["Cost per point"] if paid else []), "Tokens", "Calls"]
    numbers = table("What each arm cost and gained", columns, rows)
    return _cost_plot(dots, missing, paid=paid) + numbers + cut.rest(arms, "arms")


def _cost_plot(
    dots: Sequence[tuple[str, str, float, float, float | None, float | None]], missing: int, *, paid: bool
) -> str:
    if not dots:
        return ""
    ends = [v for dot in dots for v in dot[3:] if v is not None] + [0.0]
    pad = max((max(ends) - min(ends)) * 0.08, 0.01)
    top = max(dot[2] for dot in dots)
    spans = ((0.0, top * 1.08 if top > 0 else 1.0), (min(ends) - pad, max(ends) + pad))
    unit = "US dollars" if paid else "tokens"
    label = f"Gain in points against {unit}: " + "; ".join(
        f"{sign} at {money(x) if paid else f'{x:,.0f} tokens'}, {points(y)} points" for _, sign, x, y, *_ in dots
    )
    plot = svg.scatter(label, dots, spans, (_dollars if paid else _count, point_tick))
    left = (
        f" {missing:,} without a known {'cost' if paid else 'use'} or gain {'is' if missing == 1 else 'are'} not drawn."
    )
    caption = f"Upwards: gain in points, with its interval. To the right: {unit}.{left if missing else ''}"
    return f'<figure class="curve">{plot}<figcaption>{caption}</figcaption></figure>'


def _dollars(value: float) -> str:
    return f"${value:,.2f}" if round(value, 2) == value else f"${value:g}"


def _count(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:,.0f}"


def usage(used: Mapping[str, Mapping[str, Any]], estimate: Mapping[str, Any] | None, cut: Cut) -> str:
    """Model calls by role with each role's share; above it what had been estimated."""
    read = {str(role): Usage(**use) for role, use in used.items()}
    total = sum(read.values(), Usage())
    name, whole = "cost", total.cost
    if not whole:
        name, whole = "tokens", float(total.tokens)
    rows = []
    for role, use in [*list(read.items())[: cut.items], *([("all together", total)] if len(read) > 1 else [])]:
        part = use.cost if name == "cost" else float(use.tokens)
        share = part / whole if whole and part is not None else None
        tokens = (f"{use.prompt_tokens:,}", f"{use.completion_tokens:,}")
        bar = "" if use is total else svg.cell(share, "c-both")
        calls = (f"{use.calls:,}", *tokens, money(use.cost), clock(use.seconds))
        rows.append((cut.text(role), percent(share, 0) + bar, *calls))
    columns = ("Role", f"Share of {name}", "Calls", "Prompt tokens", "Completion tokens", "Cost", "Model time")
    return _estimated(estimate, total) + table("Model calls by role", columns, rows) + cut.rest(list(used), "roles")


def _estimated(estimate: Mapping[str, Any] | None, total: Usage) -> str:
    """One line: what was estimated, what was used, and whether that is within."""
    words = estimate_words(estimate, minutes=False) if estimate else ""
    if estimate is None or not words:
        return ""
    spent = estimate_words({"calls_low": total.calls, "cost_low": total.cost})
    above, below = [], []
    for name, value in (("calls", total.calls), ("cost", total.cost)):
        low, high = number(estimate.get(f"{name}_low")), number(estimate.get(f"{name}_high"))
        if value is not None and high is not None:
            above.append(value > high)
            below.append(low is not None and value < low)
    place, kind = "✓ within the estimate", "good"
    if any(above) or (below and all(below)):
        place, kind = "above the estimate" if any(above) else "below the estimate", "over"
    mark = f' <span class="{kind}">{place}</span>' if above else ""
    return f'<p class="lead">Estimated {html.escape(words)}; used {html.escape(spent)}.{mark}</p>'
