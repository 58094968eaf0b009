"""Charts come from a closed set of forms, whatever a result holds; and the right form for plain cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.charts import MOST_POINTS, check_chart, choose_chart, text_chart
from verbal.errors import DataError

PLAIN = [
    (["city", "n"], [("Rome", 3), ("Oslo", 5)], "bar"),
    (["month", "total"], [("2024-01", 3.5), ("2024-02", 4.0)], "line"),
    (["year", "total"], [(2001, 3), (2002, 4)], "line"),
    (["kind", "share"], [("a", 0.25), ("b", 0.75)], "arc"),
    (["height", "weight"], [(1.5, 50), (1.8, 80), (1.7, 70)], "point"),
    (["month", "city", "n"], [("2024-01", "Rome", 1), ("2024-01", "Oslo", 2), ("2024-02", "Rome", 3)], "line"),
    (["city", "kind", "n"], [("Rome", "a", 1), ("Rome", "b", 2)], "bar"),
    (["n"], [(1,), (2,)], None),
    (["city", "n"], [("Rome", 3)], None),
    (["city", "n"], [("Rome", 3), ("Rome", 4)], None),
    (["city", "customer_id"], [("Rome", 3), ("Oslo", 4)], None),
    (["city", "CustomerId"], [("Rome", 3), ("Oslo", 4)], None),
    (["city", "street"], [("Rome", "a"), ("Oslo", "b")], None),
    (["city", "n"], [(f"c{i}", i) for i in range(60)], None),
    (["a", "b"], [(1, 2), (3, 4)], None),
    (["kind", "count"], [("a", 40), ("b", 60)], "bar"),
    (["city", "n"], [("Rome", float("nan")), ("Oslo", 1.0)], None),
]


@pytest.mark.parametrize(("columns", "rows", "mark"), PLAIN)
def test_the_form_that_fits(columns: list[str], rows: list[tuple[Any, ...]], mark: str | None) -> None:
    made = choose_chart(columns, rows, "title")
    assert (made["mark"]["type"] if made else None) == mark
    if made:
        check_chart(made)


CELLS = st.none() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=12) | st.sampled_from(
    ["2024-01-02", "2024-05", "{signal: alert(1)}", "<script>", "http://x", "datum.c0"]
)  # fmt: skip


@given(st.integers(1, 4).flatmap(lambda w: st.tuples(
    st.lists(st.text(max_size=12) | st.sampled_from(["a.b", "x[0]", "year", "id", "url"]), min_size=w, max_size=w),
    st.lists(st.lists(CELLS, min_size=w, max_size=w), max_size=12),
)))  # fmt: skip
def test_any_result_gives_a_chart_of_the_closed_set_or_none(made: tuple[list[str], list[list[Any]]]) -> None:
    columns, rows = made
    chart = choose_chart(columns, rows, columns[0])
    if chart is not None:
        check_chart(chart)
        json.dumps(chart, allow_nan=False)
        assert all(len(line) < 200 and "\x1b" not in line for line in text_chart(chart).splitlines())


@pytest.mark.parametrize(
    "change",
    [
        {"transform": [{"calculate": "datum.x"}]},
        {"mark": {"type": "image"}},
        {"mark": {"type": "bar", "href": "x"}},
        {"data": {"url": "http://x"}},
        {"title": {"signal": "x"}},
        {"encoding": {"href": {"field": "c0", "type": "nominal", "title": ""}}},
        {"encoding": {"x": {"field": "c0", "type": "nominal", "title": "", "axis": {"labelExpr": "x"}}}},
        {"encoding": {"x": {"field": "a.b", "type": "nominal", "title": ""}}},
    ],
)
def test_what_is_not_of_the_set_is_refused(change: dict[str, Any]) -> None:
    made = choose_chart(["city", "n"], [("Rome", 3), ("Oslo", 5)])
    assert made is not None
    with pytest.raises(DataError, match="not a chart of ours"):
        check_chart({**made, **change})


def test_text_bars_and_cut_points() -> None:
    made = choose_chart(["city", "n"], [("Rome", 10), ("Oslo", 5), ("Bonn", None)])
    assert made is not None
    lines = text_chart(made, width=30, block="#").splitlines()
    bars = [line.count("#") for line in lines]
    assert bars[0] > bars[1] > 0 and abs(bars[0] - 2 * bars[1]) <= 1
    assert lines[2].endswith("NULL") and "#" not in lines[2]
    many = choose_chart(["day", "n"], [(f"{1000 + i // 28:04}-01-{i % 28 + 1:02}", i) for i in range(MOST_POINTS + 5)])
    assert many is not None and len(many["data"]["values"]) == MOST_POINTS
