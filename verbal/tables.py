"""Tables and lines for the terminal: arms, lessons, what was used, decisions of the gate, versions, differences.

Each function makes something rich can print, or a line of text. rich is imported when the first one is drawn. Text from
data (model output, cells, names) is taken literally, and control characters are shown, never obeyed.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from verbal.text import clock, money, percent, visible
from verbal.types import Reflection, Usage

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

VERDICTS = {"accept": ("✓", "accepted"), "reject": ("✗", "rejected"), "need_more": ("…", "needs more")}
"""Verdict of the gate -> its sign and its words; a verdict that is not here is shown as it is, with a question mark."""

ACTIONS = {"start": ("•", "served first"), "promote": ("↑", "promoted"), "rollback": ("↩", "rolled back")}
"""What made a version the active one -> its sign and its words."""

ENDLESS = 1e300
"""Wealth from here on is shown as infinite; the gate writes no more, because JSON has no infinity."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLORS = {"accept": "green", "reject": "red", "need_more": "yellow"}


def number(value: Any) -> float | None:
    """A finite number, or None when there is none (missing, not a number, without end).

    >>> number(0.5), number(None), number(float("nan"))
    (0.5, None, None)
    """
    read = None if value is None else float(value)
    return read if read is not None and math.isfinite(read) else None


def points(share: float | None) -> str:
    """A difference of shares in points, always with its sign; a dash when there is none.

    >>> points(0.0824), points(-0.01), points(None)
    ('+8.2', '−1.0', '–')
    """
    return "–" if share is None else f"{100 * share:+.1f}".replace("-", "−")


def amount(wealth: float | None) -> str:
    """Wealth in few characters; a dash when there is none.

    >>> amount(0.396), amount(61.32), amount(5230.0), amount(1e12), amount(math.inf), amount(None)
    ('0.4', '61.3', '5,230', '1e+12', '∞', '–')
    """
    if wealth is None or wealth >= ENDLESS:
        return "–" if wealth is None else "∞"
    return f"{wealth:,.0f}" if 100 <= wealth < 1e6 else f"{wealth:.2g}" if wealth < 10 else f"{wealth:.3g}"


def moment(at: Any) -> str:
    """An ISO time to the minute, in UTC when it knows its zone; what is not a time stays as it is.

    >>> moment("2026-03-04T11:20:31.5+02:00"), moment("2026-03-04T11:20"), moment("soon"), moment(None)
    ('2026-03-04 09:20 UTC', '2026-03-04 11:20', 'soon', '–')
    """
    if at is None or at == "":
        return "–"
    try:
        read = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
        return f"{read.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if read.tzinfo else f"{read:%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return visible(at, 40, line=True)


def estimate_words(estimate: Mapping[str, Any], *, minutes: bool = True) -> str:
    """What is expected to be used, in words: calls, dollars, minutes; ranges whose ends read the same collapse.

    Args:
        estimate: Any of `calls_low calls_high cost_low cost_high minutes_low minutes_high`; what is missing is left
            out, except that a cost of None is said to be unknown.
        minutes: Also names the time.

    >>> estimate_words({"calls_low": 220, "calls_high": 260, "cost_low": 0.31, "cost_high": 0.44})
    '220 to 260 calls, 0.31 to 0.44 USD'
    >>> estimate_words({"calls_low": 1, "cost_low": 0, "cost_high": 0, "minutes_low": 5.2, "minutes_high": 5.4})
    '1 call, no cost, 5 min'
    """
    parts = []
    if calls := _ends(estimate, "calls", "{:,.0f}".format):
        parts.append(f"{calls} {'call' if calls == '1' else 'calls'}")
    costs = [number(estimate.get(f"cost_{end}")) for end in ("low", "high")]
    if any(costs) or any(c is not None for c in costs):
        cost = _ends(estimate, "cost", lambda c: money(c).replace("$", ""))
        parts.append(f"{cost} USD" if any(costs) else "no cost")
    elif "cost_low" in estimate or "cost_high" in estimate:
        parts.append("no price known")
    if minutes and (time := _ends(estimate, "minutes", lambda m: f"{m:,.0f}" if m >= 1 else "under 1")):
        parts.append(f"{time} min")
    return ", ".join(parts)


def estimate_line(estimate: Mapping[str, Any]) -> str:
    """`estimate_words` as a line that says it is an estimate.

    >>> estimate_line({"calls_low": 240, "calls_high": 240, "cost_low": 0.31, "cost_high": 0.44, "minutes_low": 6})
    'about 240 calls, 0.31 to 0.44 USD, 6 min'
    """
    words = estimate_words(estimate)
    return f"about {words}" if words else "no estimate"


def _ends(estimate: Mapping[str, Any], name: str, form: Callable[[float], str]) -> str:
    ends = [number(estimate.get(f"{name}_{end}")) for end in ("low", "high")]
    return " to ".join(dict.fromkeys(form(end) for end in ends if end is not None))


def sparkline(wealth: Sequence[float | None], threshold: float | None, width: int = 12) -> str:
    """The wealth of a decision as one line of blocks on a log scale; the highest block means the threshold is reached.

    Args:
        wealth: Wealth after each task; may hold inf; what is no number is left out.
        threshold: The wealth that is needed.
        width: Characters at most.

    >>> sparkline([1, 3, 10, 40, 100], 100.0)
    '▁▂▄▆█'
    """
    logs = [math.log10(max(w, 1e-12)) for w in wealth if w is not None and w == w]
    if not logs:
        return ""
    top = math.log10(threshold) if threshold and threshold > 0 and math.isfinite(threshold) else max(logs)
    step = max(len(logs) / width, 1.0)
    picked = [logs[min(math.ceil((i + 1) * step) - 1, len(logs) - 1)] for i in range(min(width, len(logs)))]
    low, out = max(min(0.0, *logs), -3.0), ""
    for value in picked:
        # the highest block is kept for what reached the threshold, so that nearly enough never looks like enough
        share = (value - low) / (top - low) if top > low and math.isfinite(value) else 1.0
        out += _BLOCKS[-1] if value >= top else _BLOCKS[min(max(int(7 * share), 0), 6)]
    return out


def gates_table(gates: Sequence[Mapping[str, Any]], limit: int = 20) -> Table:
    """Decisions of the evidence gate, oldest first: verdict, reason, gain with its interval, wealth, tasks used.

    Args:
        gates: What `verbal.report` shows under `gates`.
        limit: The latest that are shown at most.
    """
    from rich.text import Text

    table = _table("Decisions of the gate", shown=min(limit, len(gates)), total=len(gates), noun="decisions")
    table.leading = 1
    table.add_column("", justify="right", no_wrap=True, style="dim")
    table.add_column("verdict, wealth", no_wrap=True)
    table.add_column("candidate, reason", overflow="fold", ratio=1)
    table.add_column("gain, points", no_wrap=True, justify="right")
    for gate in gates[-limit:] if limit > 0 else ():
        verdict = str(gate.get("verdict"))
        sign, word = VERDICTS.get(verdict, ("?", verdict))
        wealth, needed = gate.get("wealth") or (), number(gate.get("threshold"))
        state = literal(f"{sign} {word}", 20, style=f"bold {_COLORS.get(verdict, 'magenta')}")
        state.append(f"\n{sparkline(wealth, needed)}", "cyan")
        last = next((w for w in reversed(wealth) if w is not None and w == w), None)
        state.append(f"\n{amount(last)} of {amount(needed)}", "dim")
        name = f"{gate.get('candidate') or '–'} over {gate.get('incumbent') or '–'}"
        words = Text.assemble((visible(name, 160, line=True), "bold"), "\n")
        words.append(visible(gate.get("reason") or "", 400, line=True))
        if guard := gate.get("guard"):
            held = {True: "held", False: "broken"}.get(guard.get("passed"), "open")
            name = visible(guard.get("name") or "", 60, line=True)
            words.append(f"\nguard{f' {name}' if name not in ('', 'guard') else ''}: {held}", "dim")
        gain = gate.get("gain") or {}
        low, high = number(gain.get("low")), number(gain.get("high"))
        side = literal(points(number(gain.get("mean"))), style="bold")
        side.append(f"\n{points(low)} to {points(high)}" if low is not None and high is not None else "\n–", "dim")
        side.append_text(literal(f"\n{gate.get('used', '–')} of {gate.get('tasks', '–')} tasks", 40, style="dim"))
        table.add_row(literal(gate.get("proposal", "–"), 6), state, words, side)
    return table


def versions_table(versions: Sequence[Mapping[str, Any]], limit: int = 20) -> Table:
    """Adopted versions, oldest first: what happened, the policy, its evidence, when; the active one is marked.

    Args:
        versions: What `verbal.report` shows under `versions`.
        limit: The latest that are shown at most.
    """
    table = _table("Versions", shown=min(limit, len(versions)), total=len(versions), noun="versions")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("policy", overflow="fold", ratio=2)
    table.add_column("evidence", overflow="fold", ratio=1)
    table.add_column("when", no_wrap=True, style="dim")
    for version in versions[-limit:] if limit > 0 else ():
        active = bool(version.get("active"))
        action = str(version.get("action"))
        sign, word = ACTIONS.get(action, ("?", action))
        state = literal(f"{sign} {word}", 20, style="yellow" if action == "rollback" else "")
        state.append("\n● in use" if active else "", "bold green")
        table.add_row(
            literal(version.get("number", "–"), 6),
            state,
            literal(visible(version.get("policy") or "–", 160, line=True), style="bold" if active else ""),
            literal(visible(version.get("evidence") or "–", 40, line=True), style="dim"),
            moment(version.get("at")),
        )
    return table


def diff_table(rows: Sequence[Mapping[str, Any]], left: str = "left", right: str = "right", limit: int = 60) -> Table:
    """Two runs side by side; what differs is bold and has a sign, what is equal is dim.

    Args:
        rows: `what left right` each; None is shown as a dash.
        left: Name of the left run.
        right: Name of the right run.
        limit: Rows shown at most.
    """
    differ = sum(row.get("left") != row.get("right") for row in rows)
    table = _table(f"{differ:,} of {len(rows):,} differ", shown=min(limit, len(rows)), total=len(rows), noun="rows")
    table.add_column("")
    table.add_column("what", overflow="fold", ratio=2)
    for name in (left, right):
        table.add_column(literal(visible(name, 60, line=True)), overflow="fold", ratio=3)
    for row in rows[:limit]:
        same = row.get("left") == row.get("right")
        style = "dim" if same else "bold"
        cells = ("–" if row.get(side) is None else row[side] for side in ("left", "right"))
        table.add_row(
            literal("" if same else "≠", style="yellow"),
            literal(visible(row.get("what", "–"), 120, line=True), style="dim" if same else ""),
            *(literal(cell, 400, style=style) for cell in cells),
        )
    return table


def arms_table(results: Mapping[str, Any]) -> Table:
    """The arms of a comparison: share solved with its interval, each seed, attempts per task (`verbal.report`)."""
    from rich.bar import Bar

    table = _table("Share of tasks solved, with its 95 % interval")
    table.add_column("arm", overflow="fold", ratio=3)
    table.add_column("")
    table.add_column("solved", justify="right", no_wrap=True)
    table.add_column("interval", justify="right", no_wrap=True)
    table.add_column("each seed", overflow="fold", ratio=2)
    table.add_column("tries", justify="right")
    for arm in results.get("arms", ()):
        mean = arm.get("mean")
        known = mean is not None and mean == mean
        color = "cyan" if arm.get("name") in ("memory", "distilled", "distilled+memory") else "bright_black"
        attempts = arm.get("attempts")
        table.add_row(
            literal(arm.get("label") or arm.get("name", ""), 80),
            Bar(1.0, 0.0, min(max(mean, 0.0), 1.0) if known else 0.0, width=12, color=color),
            literal(percent(mean), style="bold"),
            literal(f"{_share(arm.get('low'))} to {_share(arm.get('high'))}"),
            literal(" ".join(_share(v, 0) for v in arm.get("per_seed", ())), 60, style="dim"),
            literal("–" if attempts is None else f"{attempts:.1f}"),
        )
    return table


def lessons_table(lessons: Sequence[Mapping[str, Any] | Reflection], limit: int = 20) -> Table:
    """Lessons in words, where each comes from and how often it was shown; `limit` rows at most."""
    table = _table("Lessons learned", shown=min(limit, len(lessons)), total=len(lessons), noun="lessons")
    table.add_column("id", style="dim", no_wrap=True)
    table.add_column("lesson", overflow="fold", ratio=3)
    table.add_column("learned from", overflow="fold", ratio=2, style="dim")
    table.add_column("shown", justify="right")
    table.add_column("status", no_wrap=True)
    for lesson in lessons[:limit]:
        if isinstance(lesson, Reflection):
            of = {"id": lesson.id, "text": lesson.text, "question": lesson.when, "status": lesson.status}
            of["shown"] = str(lesson.counters.shown)
        else:
            of = {**lesson}
        names = (("id", 16), ("text", 400), ("question", 160), ("shown", 9), ("status", 12))
        table.add_row(*(literal(of.get(name, "–"), size) for name, size in names))
    return table


def usage_table(usage: Mapping[str, Usage | Mapping[str, Any]]) -> Table:
    """Calls, tokens, cost and model seconds of each role, and their sum."""
    table = _table("What it cost")
    table.add_column("role")
    for name in ("calls", "tokens in", "tokens out", "cost", "model time"):
        table.add_column(name, justify="right")
    read = {role: u if isinstance(u, Usage) else Usage(**u) for role, u in usage.items()}
    total = {"all": sum(read.values(), Usage())} if len(read) > 1 else {}
    for role, u in {**read, **total}.items():
        table.add_section() if role in total else None
        cells = (f"{u.calls:,}", f"{u.prompt_tokens:,}", f"{u.completion_tokens:,}", money(u.cost), clock(u.seconds))
        table.add_row(literal(role, 24), *cells)
    return table


def rows_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], limit: int = 20, *, width: int = 0) -> Table:
    """Rows of a query result: NULL stands out, numbers to the right, long cells and whole tables cut with a word.

    Args:
        columns: Names of the columns.
        rows: One sequence of cells each.
        limit: Rows shown at most.
        width: Characters there are for the table, which decides how many columns are shown; the terminal's when 0.
    """
    cells = [[_cell(c) for c in row] for row in rows[:limit]]
    columns = [visible(name, 40, line=True) for name in columns]
    wide, room = 0, width or shutil.get_terminal_size().columns
    for at, name in enumerate(columns):
        # a column may be folded down to 20 characters before it is worth leaving one out
        room -= min(max([len(name), *(len(r[at]) for r in cells if at < len(r))]), 20) + 3
        wide += room >= 0 or at == 0
    table = _table("", shown=min(limit, len(rows)), total=len(rows), noun="rows")
    if hidden := columns[wide:]:
        note = f"{len(hidden)} more columns: {', '.join(hidden)}"
        table.caption = literal(f"{table.caption}; {note}" if table.caption else note, 300)
    for at, name in enumerate(columns[:wide]):
        values = [row[at] for row in rows[:limit] if at < len(row) and row[at] is not None]
        numbers = bool(values) and all(isinstance(v, int | float) for v in values)
        table.add_column(literal(name), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*row[:wide])
    return table


def _table(title: str, *, shown: int = 0, total: int = 0, noun: str = "") -> Table:
    from rich import box
    from rich.table import Table

    caption = (
        f"{shown:,} of {total:,} {noun} shown" if total > shown else ("no " + noun if noun and not total else None)
    )
    return Table(
        title=title or None,
        caption=caption,
        box=box.SIMPLE_HEAD,
        min_width=len(caption or "") + 2,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        header_style="bold",
        pad_edge=False,
    )


def literal(value: object, limit: int | None = None, *, style: str = "") -> Text:
    """Text for rich that is taken as it is: no markup, control characters visible, `limit` characters at most."""
    from rich.text import Text

    return Text(visible(value, limit), style=style)


def _cell(value: Any) -> Text:
    if value is None:
        return literal("NULL", style="dim italic")
    if isinstance(value, bytes):
        return literal(f"<{len(value):,} bytes>", style="dim")
    return literal(f"{value:.12g}" if isinstance(value, float) else visible(value, 80, line=True))


def _share(share: float | None, digits: int = 1) -> str:
    return percent(share, digits).removesuffix(" %")
