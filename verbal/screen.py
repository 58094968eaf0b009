"""What a person sees in the terminal: live progress, tables, errors.

Progress goes to standard error and what a command says to standard output, so that a pipe gets the results alone. On a
terminal the progress is live; elsewhere it is a plain line now and then; with `quiet` (the flag `--json`) nothing is
written. rich is imported when the first thing is drawn. Text from data (model output, cells) is shown, never obeyed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

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
from verbal.tables import (
    arms_table,
    diff_table,
    estimate_line,
    gates_table,
    lessons_table,
    literal,
    rows_table,
    usage_table,
    versions_table,
)
from verbal.text import clock, money, percent, visible
from verbal.types import Usage

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.panel import Panel
    from rich.spinner import Spinner

    from verbal.run import Progress

__all__ = [
    "PLAIN_EVERY",
    "Screen",
    "arms_table",
    "diff_table",
    "error_panel",
    "estimate_line",
    "gates_table",
    "lessons_table",
    "rows_table",
    "usage_table",
    "versions_table",
]

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
        if (p := self._latest) is not None and p.done and p.solved is not None:
            kept = f", {p.kept:,} kept from before" if p.kept else ""
            facts.append(f"{percent(p.solved / p.done, 0)} solved ({p.solved:,} of {p.done:,}{kept})")
        if usage.calls:
            facts += [f"{usage.calls:,} calls", f"{_short(usage.tokens)} tokens"]
        if usage.calls or usage.cost:
            facts.append(money(usage.cost))
        return facts

    def _line(self) -> str:
        p = self._latest
        tasks = [f"{p.done:,}/{p.total:,} {p.unit}"] if p else []
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
            lines.add_row(name, literal(value, 2000))
    return Panel(
        lines, title=literal(heading, style="bold red"), title_align="left", border_style="red", padding=(1, 2)
    )


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    # a terminal that cannot show a character must not stop a run that costs money
    if (stream.encoding or "").lower().replace("-", "") != "utf8" and (change := getattr(stream, "reconfigure", None)):
        change(errors="replace")
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _short(count: int) -> str:
    return f"{count:,}" if count < 10_000 else f"{count / 1000:,.1f}k" if count < 1e6 else f"{count / 1e6:,.2f}M"


def _minus(a: Usage, b: Usage) -> Usage:
    cost = None if a.cost is None or b.cost is None else a.cost - b.cost
    tokens = {"prompt_tokens": a.prompt_tokens - b.prompt_tokens, "completion_tokens": a.completion_tokens}
    tokens["completion_tokens"] -= b.completion_tokens
    return Usage(calls=a.calls - b.calls, cost=cost, seconds=a.seconds - b.seconds, **tokens)
