"""When two results are the same, and the words when they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.rows import compare, fingerprint, is_ordered, normal, same

CELLS = st.none() | st.integers(-2, 2) | st.text("ab", max_size=1) | st.sampled_from([0.5, 1.0, 1 / 3])
TABLES = st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=5))


def table(rows: Sequence[Sequence[Any]], width: int | None = None) -> dict[str, Any]:
    count = width if width is not None else len(rows[0])
    return {"columns": [f"c{i}" for i in range(count)], "rows": [tuple(row) for row in rows]}


@given(TABLES, TABLES, st.booleans())
def test_verdict_and_words_agree_and_both_ways_round(first: list[Any], second: list[Any], ordered: bool) -> None:
    said = compare(table(first), table(second), ordered=ordered).match
    assert said == compare(table(second), table(first), ordered=ordered).match
    if len(first[0]) == len(second[0]):
        assert said == same(first, second, ordered=ordered)
    assert not ordered or not said or compare(table(first), table(second)).match


@given(TABLES, st.permutations(range(3)), st.randoms())
def test_rows_and_columns_in_any_order(rows: list[Any], columns: list[int], random: Any) -> None:
    order = [i for i in columns if i < len(rows[0])]
    moved = [tuple(row[i] for i in order) for row in rows]
    assert same(moved, rows, ordered=True) and same(moved, rows, exact=True)
    random.shuffle(moved)
    assert same(moved, rows) and same(moved, rows, exact=True)


@given(TABLES, st.integers(0, 4))
def test_one_row_more_or_fewer_breaks(rows: list[Any], place: int) -> None:
    more = [*rows, rows[place % len(rows)]]
    assert not same(more, rows) and not same(rows, more) and not compare(table(more), table(rows)).match


@given(TABLES, st.integers(0, 4), st.integers(0, 2))
def test_one_other_cell_breaks(rows: list[Any], row: int, column: int) -> None:
    other = [list(r) for r in rows]
    other[row % len(rows)][column % len(rows[0])] = "something else"
    said = compare(table(other), table(rows))
    assert not said.match and not same([tuple(r) for r in other], rows, exact=True)
    assert said.parts["rows"] < 1.0


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (0.1 + 0.2, 0.3, True), (1e6 + 1e-7, 1e6, True), (12345678.00, 12345678.01, False), (1.0, 1, True),
        (2**53 + 1, float(2**53), True), (2**53 + 1, 2**53, False),
        (1e-12, 0.0, True), ("1", 1, False), (b"a", "a", False), (None, 0, False),
        (float("inf"), float("inf"), True), (float("nan"), float("nan"), True), (1e300 * 10, -1e300 * 10, False),
    ],
)  # fmt: skip
def test_what_is_the_same_number(first: Any, second: Any, equal: bool) -> None:
    assert same([(first, "x")], [(second, "x")]) is equal
    assert same([(first, 0.5), (5, 1.5)], [(second, 0.5), (5, 1.5)], ordered=True) is equal


def test_exact_has_no_tolerance() -> None:
    assert not same([(0.1 + 0.2,)], [(0.3,)], exact=True) and same([(1,)], [(1.0,)], exact=True)


def test_the_order_of_columns_is_found_where_columns_have_the_same_values() -> None:
    right = [(1, 2), (2, 1)]
    assert same([(2, 1), (1, 2)], right, ordered=True), "the columns stand the other way round"
    assert not same([(1, 2), (1, 2)], right) and not same([(1, 1), (2, 2)], right)
    wide = [tuple(int(i == j) for i in range(9)) for j in range(9)]
    assert same([row[::-1] for row in wide], wide)


@pytest.mark.parametrize(
    ("rows", "gold", "words"),
    [
        ([[1, "a"], [2, "b"], [3, "c"]], [[1, "a"], [2, "b"]], "too many rows, the others are right: a condition is"),
        ([[1, "a"]], [[1, "a"], [2, "b"]], "too few rows, the others are right: a condition or a join"),
        ([[1, "a"], [1, "a"], [2, "b"]], [[1, "a"], [2, "b"]], "duplicate rows"),
        ([[1, "a"], [2, "b"]], [[1, "a"], [1, "a"], [2, "b"]], "lacks duplicate rows"),
        ([[1], [2]], [[1, "a"], [2, "b"]], "1 column missing in the result, the others are right"),
        ([[1, "a", 7], [2, "b", 7]], [[1, "a"], [2, "b"]], "not asked for is column 3 (c2)"),
        ([[1, "b"], [2, "a"]], [[1, "a"], [2, "b"]], "cells of different rows are mixed up"),
        ([[1, "a"], [2, "c"]], [[1, "a"], [2, "b"]], "values are wrong in column 2 (c1)"),
    ],
)
def test_words_name_the_first_difference(rows: list[Any], gold: list[Any], words: str) -> None:
    assert words in compare(table(rows), table(gold)).text


@given(TABLES, TABLES)
def test_words_show_no_gold(first: list[Any], second: list[Any]) -> None:
    secret = [tuple("hidden" if isinstance(cell, str) else cell for cell in row) for row in second]
    gold = {"columns": [f"secret{i}" for i in range(len(secret[0]))], "rows": secret}
    text = compare(table(first), gold).text
    assert "hidden" not in text and "secret" not in text


def test_empty_results_need_the_same_columns() -> None:
    assert compare(table([], 2), table([], 2)).match and not compare(table([], 1), table([], 2)).match
    assert normal([[0.1 + 0.2, None]]) == [(0.3, None)] and is_ordered("SELECT [order by] FROM t ORDER\nBY 1")


def test_a_large_integer_equals_its_float_where_columns_stand_otherwise() -> None:
    number = 1234567890123
    assert same([("a", number)], [(float(number), "a")]) and same([("a", number)], [("a", number + 1e-3)])
    assert not same([("a", number)], [(number + 1, "a")])
    assert compare(table([("a", number)]), table([(float(number), "a")])).match


def test_a_fingerprint_is_one_for_what_is_the_same_result() -> None:
    def one(rows: list[Any], width: int | None = None) -> str | None:
        return fingerprint(table(rows, width))

    assert one([(5,)]) == one([(5.0,)]) != one([("5",)])
    assert one([(0.1 + 0.2,)]) == one([(0.3,)]) and one([(True,)]) == one([(1,)]) and one([(-0.0,)]) == one([(0,)])
    assert one([(1, "x"), (2, "y")]) == one([("y", 2), ("x", 1.0)]) != one([("y", 1), ("x", 2)])
    assert one([(1234567890,)]) != one([(1234567891,)]) and one([(10**20,)]) == one([(1e20,)])
    assert one([(1, 2, "a"), (2, 1, "b")]) == one([(2, 1, "a"), (1, 2, "b")]), "the columns stand the other way round"
    turning = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    assert one(turning) == one([(a, c, b) for a, b, c in turning])
    assert one([], 1) != one([], 2) and one([(None, "\ud800", float("nan"), b"a")])
    assert fingerprint({"columns": ["a"], "rows": [(1,)], "error": "no"}) is fingerprint({}) is None


@given(TABLES, TABLES, st.permutations(range(3)), st.randoms())
def test_fingerprints_agree_with_the_verdict(
    first: list[Any], second: list[Any], columns: list[int], random: Any
) -> None:
    moved = [tuple(row[i] for i in columns if i < len(row)) for row in first]
    random.shuffle(moved)
    assert fingerprint(table(moved)) == fingerprint(table(first))
    if len(first[0]) == len(second[0]):
        assert (fingerprint(table(first)) == fingerprint(table(second))) is same(first, second)
