"""Replies are read strictly: the form or None."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.replies import (
    Proposal,
    Verdict,
    parse_hint,
    parse_proposal,
    parse_scores,
    parse_sql,
    parse_verdict,
)

BLOCK = "```sql\nSELECT 1\n```"


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        (BLOCK, "SELECT 1"),
        ("```SQL\nSELECT 1;\n```\n", "SELECT 1"),
        ("```sqlite\nSELECT 1\n```", "SELECT 1"),
        ("  ```sql  \n  SELECT\n    1 ;;\n  ```  ", "SELECT\n    1"),
        (f"First\n{BLOCK}\nno, rather\n```sql\nSELECT 2\n```\nDone.", "SELECT 2"),
        ("Inline ```sql SELECT 3``` works", "SELECT 3"),
        (f"Draft ```sql SELECT 3``` then\n{BLOCK}", "SELECT 1"),
        (f"{BLOCK}\n```\nnot a query\n```", "SELECT 1"),
        (f"```python\nprint('x')\n```\n{BLOCK}", "SELECT 1"),
        (f"```text\nunclosed\n{BLOCK}", "SELECT 1"),
        ("```sql\r\nSELECT 1\r\n```\r\n", "SELECT 1"),
        ("", None),
        ("   \n", None),
        ("SELECT 1", None),
        ("I cannot answer that.", None),
        ("```\nSELECT 1\n```", None),
        ("```sql\n```", None),
        ("```sql\n;\n```", None),
        ("```sql\nSELECT 1", None),
        (f"{BLOCK}\n```sql\nSELECT 2 FROM", None),
        (f"{BLOCK} or ```sql SEL", None),
        ("```json\n{}\n```", None),
    ],
)
def test_sql(text: str, sql: str | None) -> None:
    assert parse_sql(text) == sql


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("VERDICT: right", Verdict(right=True)),
        ("**Verdict:** Right.", Verdict(right=True)),
        ("VERDICT: right\nCLAUSES: where\n" + BLOCK, Verdict(right=True)),
        (
            f"Let me see.\nVERDICT: wrong\nCLAUSES: where, SELECT\n{BLOCK}",
            Verdict(right=False, clauses=("select", "where"), answer="SELECT 1"),
        ),
        ("VERDICT: wrong", Verdict(right=False)),
        ("VERDICT: wrong\nCLAUSES: everything", Verdict(right=False)),
        ("VERDICT: right\nVERDICT: right", Verdict(right=True)),
        ("VERDICT: right\nVERDICT: wrong", None),
        ("VERDICT: maybe", None),
        ("VERDICT: not right", None),
        ("The query is right", None),
        ("", None),
    ],
)
def test_verdict(text: str, verdict: Verdict | None) -> None:
    assert parse_verdict(text) == verdict


def test_verdict_in_words() -> None:
    assert Verdict(right=True).text == "the query is right"
    assert Verdict(right=False, clauses=("where", "order")).text == "the query is wrong in: where, order"
    assert Verdict(right=False).text == "the query is wrong"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("HINT: active customer means status = 'A'", "active customer means status = 'A'"),
        ("Sure.\n**HINT:** client   means the table customer\n", "client means the table customer"),
        ("- hint: x", "x"),
        ("HINT:", None),
        ("HINT: a\nHINT: b", None),
        ("HINT: " + "x" * 500, None),
        ("no lesson", None),
        ("", None),
    ],
)
def test_hint(text: str, hint: str | None) -> None:
    assert parse_hint(text) == hint


def test_proposal() -> None:
    assert parse_proposal(f"QUESTION: How  many?\n{BLOCK}") == Proposal(question="How many?", answer="SELECT 1")
    for text in ("", BLOCK, "QUESTION: How many?", f"QUESTION: a?\nQUESTION: b?\n{BLOCK}", f"QUESTION:\n{BLOCK}"):
        assert parse_proposal(text) is None, text


@pytest.mark.parametrize(
    ("text", "n", "scores"),
    [
        ("SQL0: 0.87\nSQL1: 1.00", 2, (0.87, 1.0)),
        ("thoughts\nSQL1: .5\n**SQL0:** 0\n", 2, (0.0, 0.5)),
        ("SQL0: 1", 1, (1.0,)),
        ("SQL0: 0.87", 2, None),
        ("SQL0: 0.87\nSQL0: 0.5", 1, None),
        ("SQL0: 0.87\nSQL2: 0.5", 2, None),
        ("SQL0: 1.2", 1, None),
        ("SQL0: -0.2", 1, None),
        ("SQL0: 85%", 1, None),
        ("SQL0: 0.85%", 1, None),
        ("SQL0: < 0.5", 1, None),
        ("SQL0: 8/10", 1, None),
        ("SQL0: high", 1, None),
        ("SQL0: 0.5\nSQL1: 0.5\nSQL2: 0.5", 2, None),
        ("", 1, None),
        ("", 0, None),
    ],
)
def test_scores(text: str, n: int, scores: tuple[float, ...] | None) -> None:
    assert parse_scores(text, n) == scores


@given(
    st.text()
    | st.lists(st.sampled_from(["```", "sql", "\n", "SELECT 1", "VERDICT:", "SQL0:", "0.5", " "])).map("".join)
)
def test_no_reply_breaks_the_readers(text: str) -> None:
    sql = parse_sql(text)
    assert sql is None or (sql == sql.strip() and sql)
    parse_verdict(text), parse_hint(text), parse_proposal(text)
    scores = parse_scores(text, 1)
    assert scores is None or 0 <= scores[0] <= 1


@given(st.text(st.characters(exclude_characters="`\r", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_any_query_comes_back_out_of_its_fence(sql: str) -> None:
    wanted = sql.strip().rstrip(";").strip()
    assert parse_sql(f"Thinking.\n```sql\n{sql}\n```\n") == (wanted or None)


@pytest.mark.parametrize("text", ["```x\n" * 20_000, "```sql " * 20_000, "\n" * 100_000, "verdict" + ":" * 100_000])
def test_long_malformed_replies_are_read_in_one_pass(text: str) -> None:
    assert parse_sql(text) is None
    assert parse_verdict(text) is None
    assert parse_hint(text) is None
    assert parse_scores(text, 3) is None
