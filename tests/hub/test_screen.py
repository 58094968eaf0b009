"""What a person sees: live lines on a terminal, plain lines elsewhere, nothing with --json."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from verbal.errors import BudgetError, ConfigError, StoreError, TransientError, UnknownName, VerbalError
from verbal.run import Progress
from verbal.screen import (
    Screen,
    arms_table,
    diff_table,
    error_panel,
    estimate_line,
    gates_table,
    lessons_table,
    rows_table,
    usage_table,
    versions_table,
)
from verbal.tables import sparkline
from verbal.text import clock, money, percent, visible
from verbal.types import Counters, Reflection, Usage

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]x[/red]\x9b31m\u202eabc\r\x08"
USAGE = Usage(calls=12, prompt_tokens=9_000, completion_tokens=2_500, cost=0.0321, seconds=4.0)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def console(*, terminal: bool = False, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, markup=False)


def written(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def drawn(thing: Any, width: int = 80) -> str:
    out = console(width=width)
    out.print(thing)
    return written(out)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def harmless(text: str) -> bool:
    return not any((c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" or c == "\u202e" for c in text)


def test_plain_lines_come_at_most_every_ten_seconds() -> None:
    out, err, now = console(), console(width=30), Clock()
    with Screen("verbal learn", out=out, err=err, now=now) as screen:
        screen.stage("Learning on train")
        progress = Progress(total=100, changed=screen.show)
        for i in range(1, 101):
            now.seconds += 0.25
            progress.update(done=i, solved=i // 2, usage=progress.usage + Usage(calls=1, prompt_tokens=100, cost=0.001))
    lines = written(err).splitlines()
    assert lines[0] == "verbal learn: Learning on train"
    assert lines[1] == (
        "Learning on train: 40/100 tasks, 50 % solved (20 of 40), 40 calls, 4,000 tokens, $0.0400, 0:10 elapsed"
    )
    assert lines[2].startswith("Learning on train: 80/100 tasks") and len(lines) == 4
    assert lines[3] == "Learning on train: done, 50 % solved (50 of 100), 100 calls, 10.0k tokens, $0.10, 0:25"
    assert written(out) == ""


def test_a_stage_counts_its_own_calls_and_a_stopped_one_says_so() -> None:
    err, now = console(), Clock()
    with pytest.raises(KeyboardInterrupt), Screen("demo", out=console(), err=err, now=now) as screen:
        first, second = Progress(total=2, changed=screen.show), Progress(total=4, changed=screen.show)
        screen.stage("one")
        first.update(done=2, solved=2, usage=USAGE)
        screen.stage("two")
        second.update(done=1, kept=1, usage=USAGE + USAGE)
        now.seconds = 11
        second.update(note="the server\x1b[2J is slow")
        raise KeyboardInterrupt
    lines = written(err).splitlines()
    assert "one: done, 100 % solved (2 of 2), 12 calls, 11.5k tokens, $0.0321, 0:00" in lines
    assert "two: 1/4 tasks, 0 % solved (0 of 1, 1 kept from before), 36 calls" in written(err)
    assert "the server␛[2J is slow" in written(err)
    assert lines[-1] == "two: stopped, 0 % solved (0 of 1, 1 kept from before), 24 calls, 23.0k tokens, $0.0642, 0:11"


def test_progress_without_a_stage_is_closed_under_the_title_and_an_empty_stage_only_closes() -> None:
    err = console()
    with Screen("verbal learn", out=console(), err=err, now=Clock()) as screen:
        Progress(total=2, changed=screen.show).update(done=2, solved=1)
        screen.stage("")
    assert written(err).splitlines() == ["verbal learn: done, 50 % solved (1 of 2), 0:00"]


def test_an_unknown_price_is_not_a_number() -> None:
    err, now = console(), Clock()
    with Screen("demo", out=console(), err=err, now=now) as screen:
        screen.stage("one")
        Progress(total=1, changed=screen.show).update(done=1, usage=Usage(calls=1, cost=None))
    assert "no price known" in written(err) and "$" not in written(err)


def test_quiet_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen("demo", quiet=True) as screen:
        screen.stage("one")
        Progress(total=1, changed=screen.show).update(done=1)
        screen.print("words", usage_table({"solver": USAGE}))
    assert capsys.readouterr() == ("", "")


def test_words_go_to_standard_output_and_progress_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen("demo") as screen:
        screen.stage("one")
        screen.print("[bold]as it is[/bold] 1.5 :smile:", style="bold")
        screen.print()
    out, err = capsys.readouterr()
    assert out == "[bold]as it is[/bold] 1.5 :smile:\n\n"
    assert err.startswith("demo: one\n") and "as it is" not in err


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_live_lines_and_a_closing_line(width: int) -> None:
    both, now = console(terminal=True, width=width), Clock()
    with Screen("demo", out=both, err=both, now=now) as screen:
        screen.stage("Learning on train, seed 1 of 3")
        progress = Progress(total=40, changed=screen.show)
        now.seconds = 20
        progress.update(done=10, solved=6, usage=USAGE, note=f"2 lessons added {HOSTILE}")
        live = drawn(screen._draw(), width)
        screen.print("between")
    for text in (
        "Learning on train",
        "10/40",
        "0:20, about 1:00 left",
        "60 % solved (6 of 10)",
        "12 calls",
        "11.5k tokens",
    ):
        assert text in live, text
    assert "$0.0321" in live and "2 lessons added ␛[2J" in live and harmless(live)
    assert all(len(line) <= width for line in live.splitlines())
    shown = plain(written(both))
    assert "between" in shown and "✓ Learning on train, seed 1 of 3" in shown
    assert "\x1b]0" not in written(both)


def test_live_lines_before_any_task_show_time_only() -> None:
    both, now = console(terminal=True), Clock()
    with Screen("verbal \x1b[2Jdoctor", out=both, err=both, now=now) as screen:
        now.seconds = 65
        live = drawn(screen._draw())
    assert "verbal ␛[2Jdoctor" in live and "1:05" in live and "/" not in live


def test_piped_output_is_not_taken_by_the_live_terminal() -> None:
    out, err = console(), console(terminal=True)
    with Screen("demo", out=out, err=err) as screen:
        screen.stage("one")
        screen.print("the result")
    assert written(out) == "the result\n" and "the result" not in written(err)


def test_an_ascii_terminal_does_not_break_a_run() -> None:
    code = "from verbal.screen import Screen\nwith Screen('d') as s: s.stage('é'); s.print('naïve ✓ 日本')"
    env = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "na?ve ? ??"


def test_importing_the_screen_does_not_load_rich() -> None:
    code = "import sys, verbal.screen\nprint({m.split('.')[0] for m in sys.modules} & {'rich', 'langgraph', 'numpy'})"
    env = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_arms_table_shows_numbers_and_dashes() -> None:
    arms = [
        {
            "name": "base",
            "label": f"No memory {HOSTILE}",
            "mean": 0.302,
            "low": 0.25,
            "high": 0.36,
            "per_seed": [0.3, 0.31],
        },
        {"name": "memory", "mean": 0.714, "low": 0.65, "high": 0.78, "per_seed": [0.7], "attempts": 1.62},
        {"name": "distilled", "mean": float("nan"), "low": None, "high": None},
    ]
    text = drawn(arms_table({"arms": arms}))
    for word in ("30.2 %", "25.0 to 36.0", "30 31", "71.4 %", "1.6", "memory", "– to –"):
        assert word in text, word
    assert harmless(text) and max(map(len, text.splitlines())) <= 80


def test_lessons_table_takes_records_and_plain_data() -> None:
    record = Reflection(id="r1", text="Active means [b]lately[/b]", when="Who?", counters=Counters(shown=7))
    text = drawn(lessons_table([record, {"id": "r2", "text": HOSTILE, "shown": 3}, {"id": "r3"}], limit=2), 100)
    assert "[b]lately[/b]" in text and " 7 " in text and "Who?" in text and "r2" in text and "r3" not in text
    assert "2 of 3 lessons shown" in text and harmless(text)
    assert "no lessons" in drawn(lessons_table([]))


def test_usage_table_adds_up_and_keeps_an_unknown_price_unknown() -> None:
    text = drawn(usage_table({"solver": USAGE, "judge": {"calls": 1_000, "cost": None, "seconds": 60}}))
    assert "$0.03" in text and text.count("no price known") == 2 and "1,012" in text and "1:04" in text
    assert "all " in text and "all " not in drawn(usage_table({"solver": USAGE}))


def test_rows_table_shows_nulls_bytes_and_what_is_left_out() -> None:
    rows = [("Ada", 12.5, None), (HOSTILE, 3, b"abc")] * 40
    text = drawn(rows_table(["name", "total [x]", "note"], rows, limit=4))
    assert "4 of 80 rows shown" in text and "NULL" in text and "<3 bytes>" in text and "total [x]" in text
    assert " 12.5 " in text and harmless(text)
    assert "no rows" in drawn(rows_table(["n"], []))
    wide = drawn(rows_table([f"column_{i}" for i in range(30)], [range(30)], width=80))
    assert "more columns: " in wide and "column_29" in wide and max(map(len, wide.splitlines())) <= 80
    assert "column_29" in drawn(rows_table(["column_29"], [[1]], width=3))


@given(st.lists(st.lists(st.text() | st.none() | st.floats() | st.binary() | st.integers(), max_size=4), max_size=4))
def test_rows_table_takes_any_cell(rows: list[list[Any]]) -> None:
    assert harmless(drawn(rows_table(["a", "b\n", "c\x1b"], rows)))


GATE: dict[str, Any] = {
    "candidate": "14 lessons",
    "incumbent": "no memory",
    "verdict": "accept",
    "reason": "it is better [b]by far[/b]",
    "threshold": 60.0,
    "proposal": 2,
    "tasks": 80,
    "used": 5,
    "gain": {"mean": 0.182, "low": 0.041, "high": 0.31},
    "wealth": [1.4, 0.5, 10.0, 20.0, 61.3],
    "guard": {"name": "old tasks", "passed": False},
}


@pytest.mark.parametrize("width", [80, 120])
def test_gates_table_shows_verdict_reason_gain_and_wealth(width: int) -> None:
    more = {"verdict": "need_more", "wealth": [math.inf], "guard": {"name": HOSTILE, "passed": None}}
    text = drawn(gates_table([GATE, {**GATE, "candidate": HOSTILE * 9, "verdict": HOSTILE}, more, {}]), width)
    for part in ("✓ accepted", "14 lessons over no memory", "it is better [b]by far[/b]", "+18.2", "+4.1 to +31.0",
                 "61.3 of 60", "5 of 80 tasks", "▂▁▅▆█", "guard old tasks: broken", "… needs more", "∞ of –", ": open",
                 "– of – tasks", "? None", "– over –"):  # fmt: skip
        assert part in text, part
    assert harmless(text) and max(map(len, text.splitlines())) <= width and "nan" not in text


def test_tables_show_the_latest_and_say_how_many_there_are() -> None:
    gates = drawn(gates_table([{**GATE, "candidate": f"c{i}"} for i in range(30)], limit=2))
    assert "2 of 30 decisions shown" in gates and "c29" in gates and "c28" in gates and "c27" not in gates
    versions = drawn(versions_table([{"number": i, "policy": f"p{i}"} for i in range(30)], limit=2))
    assert "2 of 30 versions shown" in versions and "p29" in versions and "p0" not in versions
    assert "no decisions" in drawn(gates_table([])) and "no versions" in drawn(versions_table([]))
    assert "no rows" in drawn(diff_table([])) and "0 of 3 decisions" in drawn(gates_table([GATE] * 3, limit=0))


def test_versions_table_marks_the_one_in_use() -> None:
    versions = [
        {
            "number": 1,
            "at": "2026-03-04T12:21:00+01:00",
            "action": "promote",
            "policy": "14 lessons",
            "evidence": "g-7",
        },
        {"number": 2, "at": "", "action": "rollback", "policy": HOSTILE, "evidence": "", "active": True},
        {"number": 3, "at": HOSTILE, "action": HOSTILE},
    ]
    text = drawn(versions_table(versions))
    first, second = text[: text.index("↩ rolled back")], text[text.index("↩ rolled back") :]
    assert "↑ promoted" in first and "g-7" in first and "2026-03-04 11:21 UTC" in first and "● in use" not in first
    assert "● in use" in second and harmless(text) and max(map(len, text.splitlines())) <= 80


def test_diff_table_marks_what_differs() -> None:
    rows = [
        {"what": "model", "left": "tiny", "right": "tiny"},
        {"what": "lessons", "left": 14, "right": 21},
        {"what": "cost", "left": None, "right": HOSTILE},
    ]
    text = drawn(diff_table(rows, "run-a", "run-b\x1b"))
    lines = {line.split()[0] + line.split()[1]: line for line in text.splitlines() if len(line.split()) > 2}
    assert "2 of 3 differ" in text and "run-a" in text and "run-b␛" in text and harmless(text)
    assert "≠lessons" in lines and "≠cost" in lines and "modeltiny" in lines and "–" in lines["≠cost"]
    assert "1 of 3 rows shown" in drawn(diff_table(rows, limit=1))


@pytest.mark.parametrize(
    ("estimate", "line"),
    [
        ({"calls_low": 240, "calls_high": 240, "cost_low": 0.31, "cost_high": 0.44, "minutes_low": 5.6,
          "minutes_high": 6.2}, "about 240 calls, 0.31 to 0.44 USD, 6 min"),
        ({"calls_low": 1200, "calls_high": 2600, "cost_low": 0, "cost_high": 0, "minutes_low": 0.2, "minutes_high": 3},
         "about 1,200 to 2,600 calls, no cost, under 1 to 3 min"),
        ({"calls_low": 1, "calls_high": 1, "cost_low": None, "cost_high": None}, "about 1 call, no price known"),
        ({"calls_low": 2, "cost_low": 0.0, "cost_high": 0.00001}, "about 2 calls, 0.00 to < 0.0001 USD"),
        ({"calls_low": math.nan, "calls_high": math.inf, "minutes_high": 9}, "about 9 min"),
        ({}, "no estimate"),
    ],
)  # fmt: skip
def test_an_estimate_is_one_line(estimate: dict[str, Any], line: str) -> None:
    assert estimate_line(estimate) == line


@given(st.lists(st.floats(min_value=0) | st.none() | st.just(math.nan), max_size=40), st.floats() | st.none())
def test_a_sparkline_is_full_only_where_the_threshold_is_reached(wealth: list[Any], threshold: float | None) -> None:
    line = sparkline(wealth, threshold)
    assert len(line) <= 12 and set(line) <= set("▁▂▃▄▅▆▇█")
    if threshold is not None and 1 < threshold < math.inf and line:
        last = [w for w in wealth if w is not None and w == w][-1]
        assert (line[-1] == "█") == (math.log10(max(last, 1e-12)) >= math.log10(threshold))


@pytest.mark.parametrize(
    ("error", "heading"),
    [
        (ConfigError("unknown key 'lrr'", where="my.toml, line 3", todo="did you mean 'lr'?"), "Nothing was started"),
        (UnknownName.of("critic", "jugde", ["judge"]), "Nothing was started"),
        (BudgetError("the next call could cost $1", todo="raise --max-cost"), "is kept"),
        (TransientError("no answer"), "cannot be reached"),
        (StoreError("disk full", where="/x"), "cannot be read or written"),
        (VerbalError(f"odd {HOSTILE}"), "That did not work"),
    ],
)
def test_error_panel_says_what_where_and_what_to_do(error: VerbalError, heading: str) -> None:
    text = drawn(error_panel(error))
    assert heading in text and harmless(text)
    assert visible(error.what)[:12] in text
    assert ("where" in text) == bool(error.where) and ("to do" in text) == bool(error.todo)


@given(st.text(), st.integers(1, 50))
def test_visible_text_is_harmless_short_and_stable(text: str, limit: int) -> None:
    shown = visible(text, limit)
    assert harmless(shown) and len(shown) <= limit
    assert visible(visible(text)) == visible(text)
    assert "\n" not in visible(text, line=True)
    shown.encode()


def test_visible_text_keeps_what_is_ordinary() -> None:
    text = "naïve 日本 👩‍👧 a\tb\nc"
    assert visible(text) == text
    assert visible("a\ud800b").encode() == "a\ufffdb".encode()


def test_numbers_in_words() -> None:
    assert [percent(x) for x in (0.0, 1.0, float("nan"))] == ["0.0 %", "100.0 %", "–"]
    assert [money(x) for x in (0.00001, 0.05, 1234.5)] == ["< $0.0001", "$0.0500", "$1,234.50"]
    assert [clock(x) for x in (-1, 59.9, 60, 36_000)] == ["0:00", "0:59", "1:00", "10:00:00"]
