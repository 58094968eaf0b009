"""Which of the shown reflections a reply names."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal import citations
from verbal.citations import cited

SHOWN = ["r1", "r3", "r12", "new:t1/0.0", "run/1/t1"]


def test_the_examples_of_the_docs() -> None:
    assert doctest.testmod(citations).failed == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("USED: r3, r12", ["r3", "r12"]),
        ("USED:r12,r3", ["r3", "r12"]),
        ("as [r3] says", ["r3"]),
        ("(hint r12)", ["r12"]),
        ("hint:r12.", ["r12"]),
        ('<hint id="r3">', ["r3"]),
        ("**r3**, _r1_ and `r12`", ["r1", "r3", "r12"]),
        ("R3 applies", ["r3"]),
        ("r3/r12", ["r3", "r12"]),
        ("According to r12: yes", ["r12"]),
        ("根据r3和r12。", ["r3", "r12"]),
        ("USED: none", []),
        ("r2, r123, xr1, r1x, r1-r, r_1", []),
        ("SELECT r1.name FROM t", []),
        ("```sql\nSELECT r1 FROM r3\n``` (r12)", ["r12"]),
        ("```sql\nSELECT r1 -- never closed r12", []),
        ("````\nr1 ``` r3\n```` r12", ["r12"]),
        ("~~~\nr1\n~~~\nr3", ["r3"]),
        ("new:t1/0.0", ["new:t1/0.0"]),
        ("hints new:t1_0.0 and run_1_t1", ["new:t1/0.0", "run/1/t1"]),
        ("run/1/t1", ["run/1/t1"]),
        ("run/2/r1", []),
        ("", []),
    ],
)
def test_forms(text: str, named: list[str]) -> None:
    assert list(cited(text, SHOWN)) == named


def test_a_form_that_fits_two_names_none_and_the_exact_one_counts() -> None:
    assert cited("a_b", ["a/b", "a b"]) == ()
    assert cited("a_b", ["a/b", "a_b"]) == ("a_b",)
    assert cited("R1 and r1", ["r1", "R1"]) == ("r1", "R1")
    assert cited("r1", ["R1", "r1"]) == ("r1",)
    assert cited("r3 r3", ["r3", "r3"]) == ("r3",)
    assert cited("anything", [""]) == ()


@given(text=st.text(), shown=st.lists(st.text(min_size=1, max_size=5)))
def test_only_what_was_shown_and_in_that_order(text: str, shown: list[str]) -> None:
    found = cited(text, shown)
    assert list(found) == [i for i in dict.fromkeys(shown) if i in found]


NUMBERS = st.integers(1, 300)


@given(
    named=st.lists(NUMBERS, max_size=6),
    shown=st.sets(NUMBERS),
    form=st.sampled_from(["r{}", "[r{}]", "(hint r{})", "hint r{}", "`r{}`", "r{}:", "R{}"]),
    code=st.lists(NUMBERS, max_size=4),
)
def test_numbers_are_read_whole_and_code_is_not_read(
    named: list[int], shown: set[int], form: str, code: list[int]
) -> None:
    text = "USED: " + ", ".join(form.format(n) for n in named) + "\n```\n" + " ".join(f"r{n}" for n in code) + "\n```\n"
    assert set(cited(text, [f"r{n}" for n in sorted(shown)])) == {f"r{n}" for n in named if n in shown}


def test_long_replies_are_read() -> None:
    assert cited("`" * 100_000 + " r3", ["r3"]) == ()
    assert cited("r/" * 50_000 + " r3", ["r3"]) == ("r3",)
    assert cited("x " * 50_000 + "```" * 3 + " r3", ["r3", "x"]) == ("x",)
