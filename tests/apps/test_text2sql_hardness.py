"""Hardness of gold queries: golden values at each border of Spider's definition, and its published labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.hardness import LEVELS, UNKNOWN, Counts, counts, hardness


@pytest.mark.parametrize(
    ("sql", "wanted", "level"),
    [
        ("SELECT a FROM t", (0, 0, 0), "easy"),
        ("SELECT a FROM t WHERE b = 1", (1, 0, 0), "easy"),
        ("SELECT count(*) FROM t GROUP BY a", (1, 0, 0), "easy"),
        ("SELECT a, b FROM t", (0, 0, 1), "medium"),
        ("SELECT a FROM t WHERE b = 1 ORDER BY c", (2, 0, 0), "medium"),
        ("SELECT a, count(*), max(b) FROM t WHERE c = 1", (1, 0, 2), "medium"),
        ("SELECT a, b FROM t JOIN u ON t.id = u.id WHERE c = 1", (2, 0, 1), "medium"),
        ("SELECT a, count(*), max(b) FROM t WHERE c = 1 AND d = 2", (1, 0, 3), "hard"),
        ("SELECT a, b FROM t JOIN u ON t.id = u.id WHERE c = 1 AND d = 2 GROUP BY e", (3, 0, 2), "hard"),
        ("SELECT a FROM t WHERE b IN (SELECT c FROM u WHERE d = 1 OR e = 2)", (1, 1, 0), "hard"),
        ("SELECT a FROM t EXCEPT SELECT a FROM u", (0, 1, 0), "hard"),
        ("SELECT a FROM t WHERE b LIKE '%x%' ORDER BY c LIMIT 1", (4, 0, 0), "extra"),
        ("SELECT a FROM t WHERE b IN (SELECT c FROM u) ORDER BY d", (2, 1, 0), "extra"),
        ("SELECT a, b FROM t INTERSECT SELECT a, b FROM u", (0, 1, 1), "extra"),
        # what surprises: NOT counts as an aggregate, FROM never nests, ORDER BY of a union is its last's
        ("SELECT max(a) FROM t WHERE b NOT IN (1, 2)", (1, 0, 1), "medium"),
        ("SELECT a FROM (SELECT a FROM t WHERE b = 1 AND c = 2)", (0, 0, 0), "easy"),
        ("SELECT a FROM t UNION SELECT a FROM u ORDER BY a LIMIT 3", (0, 1, 0), "hard"),
        ("SELECT a FROM t WHERE b IS NOT NULL", (1, 0, 0), "easy"),
    ],
)
def test_golden(sql: str, wanted: tuple[int, int, int], level: str) -> None:
    found = counts(sql)
    assert found == Counts(*wanted)
    assert hardness(sql) == level


@pytest.mark.parametrize("sql", ["", None, "not SQL (", "SELECT 1; SELECT 2", "DELETE FROM t", "(" * 5000])
def test_what_is_no_query_is_unknown(sql: str | None) -> None:
    assert hardness(sql) == UNKNOWN


@given(st.text(max_size=60))
def test_any_text_has_a_level(text: str) -> None:
    assert hardness(text) in (*LEVELS, UNKNOWN)


def test_the_published_labels_of_spider_dev(real_data: Path) -> None:
    source = real_data / "intercode" / "ic_sql_react_10_turns.json"
    if not source.is_file():
        pytest.skip("skipped: no data")
    lines = (real_data / "spider" / "dev.jsonl").read_text("utf-8").splitlines()
    gold = {(d["db_id"], d["question"]): d["query"] for d in map(json.loads, lines)}
    rows = json.loads(source.read_text("utf-8")).values()
    labels = {(r["db_id"], r["query"]): r["hardness"] for r in rows if (r["db_id"], r["query"]) in gold}
    assert len(labels) > 500
    assert {k: hardness(gold[k]) for k in labels} == labels
