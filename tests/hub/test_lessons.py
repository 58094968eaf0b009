"""The reader of reflectors' replies: every documented form is read, nothing else is taken for a lesson."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.lessons import MAX_CHARACTERS, MAX_LESSONS, Lesson, read_lessons, tag_ops

words = st.text(alphabet=string.ascii_letters + string.digits + " '=<>.,()", min_size=1, max_size=60).map(
    lambda t: " ".join(t.split()) or "x"
)
taught = words.filter(lambda t: t.strip(" .").lower() not in ("", "none", "n/a", "-"))


def test_one_line_is_what_the_small_model_writes() -> None:
    assert read_lessons("HINT: active customer means status = 'A'") == (Lesson("active customer means status = 'A'"),)


def test_fields_stand_around_their_hint() -> None:
    text = (
        "Let me think.\nTITLE: Refunds\nWHEN: net sales are asked\nHINT: subtract refunds once.\nNOT FOR: gross sales\n"
        "TITLE: Ties\nHINT: keep ties.\n\nWHEN: dates are compared\nHINT: compare dates as text.\n"
        "TAGS: r3 helpful, r5 harmful"
    )
    first, second, third = read_lessons(text)
    assert first == Lesson(
        "subtract refunds once.",
        "Refunds",
        "net sales are asked",
        "gross sales",
        (("r3", "helpful"), ("r5", "harmful")),
    )
    assert second == Lesson("keep ties.", "Ties")
    assert third == Lesson("compare dates as text.", when="dates are compared")


def test_a_field_after_its_hint_belongs_to_it() -> None:
    one, two = read_lessons("HINT: a\nWHEN: w\nHINT: b\nNOT FOR: n")
    assert (one, two) == (Lesson("a", when="w"), Lesson("b", boundary="n"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "HINT:",
        "HINT: none",
        "HINT: None.",
        "no hint here",
        "the HINT: is inside",
        "TITLE: alone",
        "HINTS: x",
    ],
)
def test_what_teaches_nothing_is_nothing(text: str) -> None:
    assert read_lessons(text) == ()


def test_decorated_lines_are_read_and_thoughts_are_not() -> None:
    text = "<think>\nHINT: a draft\n</think>\n- **HINT:** quote 'A'\n2. HINT: two"
    assert [x.text for x in read_lessons(text)] == ["quote 'A'", "two"]
    assert read_lessons("<think>HINT: never closed\nHINT: cut") == ()


def test_a_reply_that_only_tags_has_a_lesson_without_words() -> None:
    assert read_lessons("TAGS: r1 helpful; sai-00002: harmful, r4 neutral") == (
        Lesson("", tags=(("r1", "helpful"), ("sai-00002", "harmful"), ("r4", "neutral"))),
    )
    assert read_lessons("TAGS: r1 helpful, r1 harmful, r2 maybe") == ()


def test_too_long_and_too_many_are_passed_over() -> None:
    assert read_lessons(f"HINT: {'x' * (MAX_CHARACTERS + 1)}\nHINT: short") == (Lesson("short"),)
    assert len(read_lessons("\n".join(f"HINT: lesson {i}" for i in range(100)))) == MAX_LESSONS


def test_only_what_was_cited_is_counted() -> None:
    said = read_lessons("HINT: x\nTAGS: r1 helpful, r2 harmful, r3 neutral, r9 helpful")
    ops = tag_ops(said, cited=("r1", "r2", "r3"))
    assert [(op.op, op.reflection, op.tag, op.author) for op in ops] == [
        ("TAG", "r1", "helped", "reflector"),
        ("TAG", "r2", "harmed", "reflector"),
    ]
    assert tag_ops(said, cited=()) == []


@given(st.lists(st.tuples(taught, st.none() | words, st.none() | words, st.none() | words), max_size=MAX_LESSONS))
def test_what_is_written_in_the_form_is_read_back(rows: list[tuple[str, str | None, str | None, str | None]]) -> None:
    lines = []
    for hint, title, when, boundary in rows:
        named = (("TITLE", title), ("WHEN", when), ("NOT FOR", boundary), ("HINT", hint))
        lines += [f"{k}: {v}" for k, v in named if v is not None] + [""]
    read = read_lessons("\n".join(lines))
    assert [x.text for x in read] == [row[0] for row in rows]
    nothing = ("", "none", "n/a", "-")
    for lesson, row in zip(read, rows, strict=True):
        expected = ["" if v is None or v.strip(" .").lower() in nothing else v for v in row[1:]]
        assert [lesson.title, lesson.when, lesson.boundary] == expected


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error_and_each_lesson_is_one_line_of_it(text: str) -> None:
    for lesson in read_lessons(text):
        assert "\n" not in lesson.text and len(lesson.text) <= MAX_CHARACTERS
        assert "".join(lesson.text.split()) in "".join(text.split())
