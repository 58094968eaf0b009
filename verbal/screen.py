"""What a person sees in the terminal: live progress, tables, errors.

Progress goes to standard error and what a command says to standard output, so that a pipe gets the results alone. On a
terminal the progress is live; elsewhere it is a plain line now and then; with `quiet` (the flag `--json`) nothing is
written. rich is imported when the first thing is drawn. Text from data (model output, cells) is shown, never obeyed.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from verbal.errors import (
    BudgetError,
    ConfigError,
    CriticError,
    DataError,
    EnvironmentFault,
    MissingExtra,
    RefusedError,
    StoreError,
    TrainError,
    TransientError,
    VerbalError,
)
from verbal.text import clock, money, percent, visible
from verbal.types import Reflection, Usage

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.panel import Panel
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    from verbal.run import Progress

PLAIN_EVERY = 10.0
"""Seconds between two progress lines where there is no terminal."""

_HEADINGS: tuple[tuple[type[VerbalError], str], ...] = (
    (BudgetError, "A limit was reached, so it stopped. What is finished is kept"),
    (TransientError, "The model cannot be reached. What is finished is kept"),
    (RefusedError, "The model's provider refused"),
    (MissingExtra, "A package is missing. Nothing was started"),
    (ConfigError, "Something in the settings is not right. Nothing was started"),
    (DataError, "The data cannot be used"),
    (StoreError, "A file cannot be read or written"),
    (TrainError, "The training did not work"),
    (EnvironmentFault, "The environment broke. The model is not to blame"),
    (CriticError, "A critic broke"),
)


class Screen:
    """Progress and words of one command, as a context manager; `show` is the listener of a `Progress`.

    Args:
        title: Name of the command, shown above the progress.
        quiet: Write nothing at all (`--json`).
        out: Where words and tables go; standard output when not given.
        err: Where progress goes; standard error when not given.
        now: The clock, in seconds.
    """

    def __init__(
        self,
        title: str,
        *,
        quiet: bool = False,
        out: Console | None = None,
        err: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.quiet = visible(title, line=True), quiet
        self._out, self._err, self._now = out, err, now
        self._live: Live | None = None
        self._spinner: Spinner | None = None
        self._stage = ""
        self._seen: dict[int, Progress] = {}
        self._latest: Progress | None = None
        self._began = self._stage_began = self._told = now()
        self._before = Usage()

    def __enter__(self) -> Self:
        from rich.live import Live
        from rich.spinner import Spinner

        if self.quiet:
            return self
        self._out = self._out or _console(sys.stdout)
        self._err = self._err or _console(sys.stderr)
        self._began = self._stage_began = self._now()
        if self._err.is_terminal:
            # standard output is left alone: when it is a pipe, live output must not take what belongs there
            self._spinner = Spinner("dots", style="cyan")
            self._live = Live(
                get_renderable=self._draw,
                console=self._err,
                refresh_per_second=5,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.quiet:
            return
        self._close_stage(stopped=kind is not None)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, progress: Progress) -> None:
        """Takes note of how far a run is; several may take turns, their calls and cost are added up."""
        self._seen[id(progress)] = progress
        if progress.total:
            self._latest = progress
        if self.quiet or self._err is None or self._err.is_terminal:
            return
        if self._now() - self._told >= PLAIN_EVERY:
            self._tell(self._line())

    def stage(self, name: str) -> None:
        """Names what happens next; the stage before gets its closing line. An empty name only closes."""
        if self.quiet or self._err is None:
            return
        self._close_stage()
        self._stage, self._latest = visible(name, line=True), None
        self._stage_began, self._before = self._now(), self._usage()
        if self._stage and not self._err.is_terminal:
            self._tell(f"{self.title}: {self._stage}")

    def print(self, *things: RenderableType, style: str = "") -> None:
        """Writes text or tables to standard output, above the live progress; text is taken literally."""
        if self.quiet or self._out is None:
            return
        both = self._live is not None and self._out.is_terminal and self._err is not None
        console = self._err if both and self._err is not None else self._out
        from rich.text import Text

        for thing in things or ("",):
            console.print(Text(visible(thing), style=style) if isinstance(thing, str) else thing)

    def _usage(self) -> Usage:
        return sum((p.usage for p in list(self._seen.values())), Usage())

    def _facts(self, usage: Usage) -> list[str]:
        """Share solved, calls, tokens and cost in words."""
        facts = []
        if (p := self._latest) is not None and p.done:
            kept = f", {p.kept:,} kept from before" if p.kept else ""
            facts.append(f"{percent(p.solved / p.done, 0)} solved ({p.solved:,} of {p.done:,}{kept})")
        if usage.calls:
            facts += [f"{usage.calls:,} calls", f"{_short(usage.tokens)} tokens", money(usage.cost)]
        return facts

    def _line(self) -> str:
        p = self._latest
        tasks = [f"{p.done:,}/{p.total:,} tasks"] if p else []
        note = [visible(p.note, 100, line=True)] if p and p.note else []
        facts = [*tasks, *self._facts(self._usage()), *note, f"{clock(self._now() - self._began)} elapsed"]
        return f"{self._stage or self.title}: {', '.join(facts)}"

    def _tell(self, line: str) -> None:
        if self._err is not None:
            self._told = self._now()
            self._err.print(line, markup=False, highlight=False, soft_wrap=True)

    def _close_stage(self, *, stopped: bool = False) -> None:
        name = self._stage or (self.title if self._latest else "")
        if not name or self._err is None:
            return
        now, spent = self._now(), self._usage()
        facts = self._facts(_minus(spent, self._before))
        mark = ("stopped", "yellow") if stopped else ("done", "green")
        words = " · ".join([*facts, clock(now - self._stage_began)])
        if self._err.is_terminal:
            from rich.text import Text

            sign = ("■ " if stopped else "✓ ", mark[1])
            gap = "  " if len(name) + len(words) + 4 <= self._err.width else "\n  "
            self._err.print(Text.assemble(sign, (name, "bold"), gap, (words, "dim")))
        else:
            self._tell(f"{name}: {mark[0]}, {words.replace(' · ', ', ')}")
        self._stage, self._latest = "", None

    def _draw(self) -> RenderableType:
        """The live lines: stage and bar, what was used, the last note."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now, p = self._now(), self._latest
        head = Table.grid(padding=(0, 1))
        head.add_row(self._spinner or "", Text(self._stage or self.title, style="bold", overflow="ellipsis"))
        lines: list[RenderableType] = [head]
        elapsed = clock(now - self._stage_began)
        if p is not None:
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=max(p.total, 1), completed=p.done, width=28)
            row.add_row(" ", bar, Text(f"{p.done:,}/{p.total:,}"), Text(f"{elapsed}{self._left(now)}", style="dim"))
            lines.append(row)
        facts = self._facts(self._usage()) + ([] if p else [elapsed])
        lines.append(Text("  " + " · ".join(facts), style="dim"))
        if p is not None and p.note:
            lines.append(
                Text("  " + visible(p.note, 200, line=True), style="italic", no_wrap=True, overflow="ellipsis")
            )
        return Group(*lines)

    def _left(self, now: float) -> str:
        p = self._latest
        made = p.done - p.kept if p else 0
        if p is None or made < 3:
            return ""
        left = (now - self._stage_began) / made * (p.total - p.done)
        return f", about {clock(left)} left" if left >= 2 else ""


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
            _text(arm.get("label") or arm.get("name", ""), 80),
            Bar(1.0, 0.0, min(max(mean, 0.0), 1.0) if known else 0.0, width=12, color=color),
            _text(percent(mean), style="bold"),
            _text(f"{_number(arm.get('low'))} to {_number(arm.get('high'))}"),
            _text(" ".join(_number(v, 0) for v in arm.get("per_seed", ())), 60, style="dim"),
            _text("–" if attempts is None else f"{attempts:.1f}"),
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
        table.add_row(*(_text(of.get(name, "–"), size) for name, size in names))
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
        table.add_row(_text(role, 24), *cells)
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
        table.caption = _text(f"{table.caption}; {note}" if table.caption else note, 300)
    for at, name in enumerate(columns[:wide]):
        values = [row[at] for row in rows[:limit] if at < len(row) and row[at] is not None]
        numbers = bool(values) and all(isinstance(v, int | float) for v in values)
        table.add_column(_text(name), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*row[:wide])
    return table


def error_panel(error: VerbalError) -> Panel:
    """An error for a tired person: what failed, where it came from, what to do."""
    from rich.panel import Panel
    from rich.table import Table

    heading = next((words for kind, words in _HEADINGS if isinstance(error, kind)), "That did not work")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in (("what", error.what), ("where", error.where), ("to do", error.todo)):
        if value:
            lines.add_row(name, _text(value, 2000))
    return Panel(lines, title=_text(heading, style="bold red"), title_align="left", border_style="red", padding=(1, 2))


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    # a terminal that cannot show a character must not stop a run that costs money
    if (stream.encoding or "").lower().replace("-", "") != "utf8" and (change := getattr(stream, "reconfigure", None)):
        change(errors="replace")
    return Console(file=stream, highlight=False, markup=False, emoji=False)


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


def _text(value: object, limit: int | None = None, *, style: str = "") -> Text:
    from rich.text import Text

    return Text(visible(value, limit), style=style)


def _cell(value: Any) -> Text:
    if value is None:
        return _text("NULL", style="dim italic")
    if isinstance(value, bytes):
        return _text(f"<{len(value):,} bytes>", style="dim")
    return _text(f"{value:.12g}" if isinstance(value, float) else visible(value, 80, line=True))


def _number(share: float | None, digits: int = 1) -> str:
    return percent(share, digits).removesuffix(" %")


def _short(count: int) -> str:
    return f"{count:,}" if count < 10_000 else f"{count / 1000:,.1f}k" if count < 1e6 else f"{count / 1e6:,.2f}M"


def _minus(a: Usage, b: Usage) -> Usage:
    cost = None if a.cost is None or b.cost is None else a.cost - b.cost
    tokens = {"prompt_tokens": a.prompt_tokens - b.prompt_tokens, "completion_tokens": a.completion_tokens}
    tokens["completion_tokens"] -= b.completion_tokens
    return Usage(calls=a.calls - b.calls, cost=cost, seconds=a.seconds - b.seconds, **tokens)
