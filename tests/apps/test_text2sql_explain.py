"""A query in plain words: what is told, that nothing is left out, and that odd input gives words or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.explain import LONGEST, explain, plural, readable, tables_in, warnings

WORDS = [
    ("SELECT COUNT(*) FROM singer WHERE Country = 'France'", "counts the singers whose country is France"),
    ("SELECT COUNT(DISTINCT country) FROM singer", "counts the different countries of the singers"),
    ("SELECT * FROM t1", "lists everything of the t1"),
    ("SELECT AVG(age) FROM singer", "works out the average age of the singers"),
    (
        "SELECT name FROM singer WHERE age > 20 AND NOT (country = 'US' OR country = 'UK')",
        "lists the name of the singers where age is more than 20 and not",
    ),
    (
        "SELECT a.Name, COUNT(*) FROM Artist a JOIN Album b ON a.Id = b.ArtistId GROUP BY a.Name "
        "HAVING COUNT(*) >= 3 ORDER BY 2 DESC LIMIT 5",
        "lists the artist name and the number of rows of the artists with their albums, for each artist name, keeping "
        "those where the number of rows is at least 3, sorted by the number of rows, highest first, only the first 5",
    ),
    (
        "SELECT name FROM stadium WHERE id NOT IN (SELECT stadium_id FROM concert)",
        "lists the name of the stadiums where id is not among what (lists the stadium id of the concerts) gives",
    ),
    ("SELECT name FROM song WHERE title LIKE '%love%'", "lists the name of the songs whose title contains love"),
    (
        "SELECT name FROM song WHERE title NOT LIKE 'A%'",
        "whose title does not start with A",
    ),
    ("SELECT name FROM song WHERE title LIKE 'A_b%'", "lists the name of the songs whose title matches `'A_b%'`"),
    ("SELECT name FROM song WHERE year IS NOT NULL", "lists the name of the songs where year is not empty"),
    ("SELECT name FROM a1 EXCEPT SELECT name FROM b1", "lists the name of the a1, but without what it lists the name"),
    ("WITH top AS (SELECT MAX(age) m FROM singer) SELECT m FROM top", "first works out top (works out the largest age"),
    ("SELECT strftime('%Y', d), SUM(x) FROM sale GROUP BY 1", "for each year of d"),
    ("SELECT CASE WHEN a > 1 THEN 2 END FROM thing", "`CASE WHEN a > 1 THEN 2 END`"),
    ("SELECT a, b, c, d, e, f, g, h, i FROM thing", "lists 9 columns (a, b, c, ...) of the things"),
]


@pytest.mark.parametrize(("sql", "words"), WORDS)
def test_words(sql: str, words: str) -> None:
    assert words in explain(sql)


@pytest.mark.parametrize("sql", ["", "SELEC x FROM", "DROP TABLE t", "((((", "SELECT " + "(" * 3000])
def test_what_is_no_query_has_no_words(sql: str) -> None:
    assert explain(sql) == ""
    assert tables_in(sql) == [] or sql.startswith("DROP")
    assert warnings(sql) == []


def test_warnings_name_samples_and_limits_without_an_order() -> None:
    assert warnings("SELECT a FROM t ORDER BY a LIMIT 3") == []
    assert "without an order" in warnings("SELECT a FROM t LIMIT 3")[0]
    assert "sampled" in warnings("SELECT a FROM t ORDER BY RANDOM() LIMIT 3")[0]
    assert "sampled" in warnings("SELECT a FROM t USING SAMPLE 10", "duckdb")[0]


def test_tables_of_a_query_leave_its_own_names_out() -> None:
    assert tables_in("WITH x AS (SELECT 1 FROM a) SELECT * FROM x JOIN b ON 1 = 1 WHERE y IN (SELECT z FROM c)") == [
        "b", "a", "c"
    ]  # fmt: skip


@given(st.text(max_size=60))
def test_any_text_gives_one_line_of_bounded_length(text: str) -> None:
    for sql in (text, f"SELECT \"{text.replace(chr(34), '')}\" FROM t WHERE a = '{text.replace(chr(39), '')}'"):
        said = explain(sql)
        assert len(said) <= LONGEST and "\n" not in said


def test_names() -> None:
    assert readable("SupportRepId") == "support rep id" and readable("_") == "_"
    assert [plural(n) for n in ("box", "day", "class", "city", "ab")] == ["boxes", "days", "classes", "cities", "ab"]
