"""Rules of the web app that need no server: who sees what, what is told, what a spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import doctest
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.chat.session import memory_of
from verbal.apps.web import databases, faults, results, scopes
from verbal.apps.web.chats import markdown
from verbal.apps.web.databases import split_name
from verbal.apps.web.faults import Fault, clean
from verbal.apps.web.people import Person, Tries
from verbal.apps.web.results import Result, Results, cell, csv_text, guarded
from verbal.apps.web.scopes import may_read, may_see_run, may_write, own_memory
from verbal.apps.web.talks import chat_of
from verbal.errors import ConfigError
from verbal.store_access import checked_name

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)


@given(NAMES, NAMES, NAMES)
def test_a_person_sees_their_own_memories_and_nobody_elses(me, other, database):
    ann, bob = Person(me, "t1"), Person(other, "t2")
    run = {"id": "eval-1", "info": {"command": "eval", "memories": {"0": [f"chat-user-{other}", 3]}}}
    assert may_see_run(ann, run) is (me == other) and may_see_run(Person("r", admin=True), run)
    theirs = [own_memory(bob, "user"), own_memory(bob, "team"), f"sql-of-{other}:{database}", f"chat-x-{other}"]
    if me != other:
        assert not any(may_read(ann, name) or may_write(ann, name) for name in theirs)
    assert all(may_read(ann, own_memory(ann, s)) for s in ("user", "team", "global"))
    assert (
        may_write(ann, own_memory(ann, "user")) and not may_write(ann, "chat-global") and not may_write(ann, "sql-shop")
    )
    assert may_read(ann, "sql-shop") and may_read(ann, f"sql-of-{me}:{database}")
    assert all(may_read(Person("r", admin=True), name) for name in theirs)


@given(st.text(alphabet="ab/.~: '", max_size=30))
def test_no_folder_is_told(text):
    assert "/home" not in clean(f"{text} /home/ann/secret/shop.db {text}")


def test_a_key_is_never_told():
    assert "sk-abcdefghijklmnopqrstuvwxyz123456" not in clean("refused: sk-abcdefghijklmnopqrstuvwxyz123456")


@given(st.lists(st.sampled_from(["fail", "wait", "clear"]), max_size=40))
def test_who_fails_often_waits_longer_and_never_for_ever(steps):
    now = [0.0]
    tries, failed = Tries(3, clock=lambda: now[0]), 0
    for step in steps:
        if step == "fail":
            before = tries.wait("a")
            tries.failed("a")
            failed += 1
            assert tries.wait("a") >= min(before, 1.0) and tries.wait("a") <= 900.0
        elif step == "wait":
            now[0] += tries.wait("a")
            assert tries.wait("a") == 0.0
        else:
            tries.clear("a")
            failed = 0
        assert (tries.wait("a") > 0) <= (failed >= 3) and tries.wait("b") == 0.0


@pytest.mark.parametrize("module", [databases, faults, results, scopes])
def test_examples_in_the_docs_are_true(module):
    made = doctest.testmod(module)
    assert made.attempted and not made.failed


# results --------------------------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(["=1+1", "-3", "@x", "+"])
)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=6))
def test_no_cell_of_a_file_is_a_formula_and_none_is_lost(rows):
    made = Result.of(["=a", "b"], rows)
    read = list(csv.reader(io.StringIO(csv_text(made.columns, made.rows), newline="")))
    assert read[0] == ["'=a", "b"] and len(read) == len(rows) + 1
    for row, back in zip(made.rows, read[1:], strict=True):
        for was, now in zip(row, back, strict=True):
            assert now == ("" if was is None else str(guarded(was)))
            dangerous = now[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
            assert not dangerous or isinstance(was, int | float) or float(now) is not None
            if isinstance(was, str):
                assert now.removeprefix("'") == was or now == was


@pytest.mark.parametrize(
    "start", ["", " ", "\u00a0", "\u200b", "\ufeff", "\u3000", "\x00", "\u202e", "\x0b", " \t\u2009"]
)
@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
def test_what_is_not_seen_hides_no_formula(start, sign):
    assert guarded(f"{start}{sign}cmd|' /C calc'!A0").startswith("'")
    assert guarded(f"{start}a{sign}b") == f"{start}a{sign}b" or start.startswith("\t")


def test_a_number_stays_a_number():
    assert [guarded(x) for x in (-5, "-5", "-5.5e3", "+.5", "-5x", "=5", " =5", "- 5", "--5")] == [
        -5, "-5", "-5.5e3", "+.5", "'-5x", "'=5", "' =5", "'- 5", "'--5",
    ]  # fmt: skip


@given(st.one_of(CELLS, st.binary(max_size=4), st.booleans()))
def test_a_cell_is_json_that_a_browser_reads_exactly(value):
    made = cell(value)
    assert made is None or isinstance(made, int | float | str)
    if isinstance(made, int):
        assert abs(made) < 2**53 and made == int(value)
    if isinstance(made, float):
        assert made == made and abs(made) != float("inf")


def test_kinds_of_columns():
    made = Result.of(
        ["n", "d", "t", "mixed", "none"], [[1, "2024-01", "x", 1, None], [2.5, "2024-02-03", "y", "z", None]]
    )
    assert made.types == ["number", "date", "text", "text", "text"]
    assert made.first()["row_count"] == 2
    long = Result.of(["t"], [["x" * 10_000]])
    assert long.first()["rows"] == [["x" * 2_000 + "… (10,000 characters)"]] and len(long.rows[0][0]) == 10_000


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60)), max_size=40))
def test_results_take_a_bounded_number_of_bytes(steps):
    kept = Results(most=50_000)
    for name, size in steps:
        kept.keep(name, Result.of(["a", "b"], [[1, "x" * size]] * size))
        assert kept.get(name) is not None
        assert kept._weight == sum(r.weight for r in kept._kept.values())
        assert kept._weight <= 50_000 or len(kept._kept) == 1
    for name, _ in steps:
        kept.drop(name)
    assert kept._weight == 0


# names ----------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.sampled_from([".csv", ".DB", ".parquet", ".sqlite3", ".duckdb"]))
def test_the_name_of_a_file_leads_nowhere(stem, ending):
    name, kind = split_name(stem + ending)
    assert kind == ending.lower() and name and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


@pytest.mark.parametrize("name", ["", "x", "x.exe", "x.csv.exe", ".htaccess", "x.py", "csv", "a\x00.csv.sh"])
def test_other_files_are_not_taken(name):
    with pytest.raises(Fault) as refused:
        split_name(name)
    assert refused.value.status == 415


def test_the_chat_of_an_id():
    assert [chat_of(x) for x in ("3fa9c-1", "chat-3fa9c-1", "ask-3fa9c-2", "", "x")] == [
        "ask-3fa9c", "chat-3fa9c", "ask-3fa9c", "ask-", "ask-",
    ]  # fmt: skip


def test_an_exported_chat_keeps_words_and_data_apart():
    turn = {
        "text": "two\nlines", "reply": "ok", "sql": "SELECT '```'", "columns": ["a|b"], "rows": [["x|y\n# z"], [None]],
        "row_count": 30, "lessons": [{"id": "r1", "text": "t", "used": True}], "limits": ["cut"],
        "corrections": [{"kind": "up", "words": "", "undone": False}, {"kind": "down", "words": "", "undone": True}],
    }  # fmt: skip
    made = markdown("a\n# title", [turn])
    assert made.startswith("# a # title\n") and "> two\n> lines" in made and "````sql\nSELECT '```'\n````" in made
    turn["rows"] = [["![x](http://evil.example/?a) <img src=x onerror=alert(1)> `b`"]]
    assert "\\!" not in (shown := markdown("t", [turn])) and "![" not in shown.replace("!\\[", "") and "\\<img" in shown
    assert "| a\\|b |" in made and "| x\\|y # z |" in made and "and 10 more rows" in made
    assert "* used r1: t" in made and "* said: up" in made and "down" not in made


@given(st.from_regex(r"[a-z0-9._-]{1,66}", fullmatch=True) | st.text(max_size=8))
def test_whoever_has_an_account_can_chat(name):
    try:
        checked_name(name, "user")
    except ConfigError:
        return
    assert memory_of("user", name) == f"chat-user-{name}" and name not in (".", "..") and "\n" not in name


@pytest.mark.parametrize("name", ["a.", "a..", "a..b", "..", ".", "-a", "a-", "", "a" * 65, "Ann", "ann\n", "änn"])
def test_names_that_nobody_gets(name):
    with pytest.raises(ConfigError):
        checked_name(name, "user")
