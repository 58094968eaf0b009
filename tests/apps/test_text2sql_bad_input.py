"""What is wrong with a database or a question has a clear outcome: an error that says what to do, or an observation."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from verbal.apps.text2sql import Text2Sql
from verbal.errors import DataError

Make = Callable[..., Text2Sql]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    opened: list[Text2Sql] = []

    def made(script: str = "", name: str = "shop.sqlite") -> Text2Sql:
        path = tmp_path / name
        if script:
            with closing(sqlite3.connect(path)) as connection:
                connection.executescript(script)
        opened.append(Text2Sql(path, workers=1, rows=1_000))
        return opened[-1]

    yield made
    for app in opened:
        await app.aclose()


async def rows(app: Text2Sql, sql: str) -> Any:
    seen = await app.execute(app.task("anything"), sql)
    assert seen.info["error"] is None, seen.text
    return seen.info["rows"]


# databases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "says", "todo"),
    [
        (lambda path: None, "does not exist", "path of a file"),
        (lambda path: path.touch(), "is empty", "holds tables"),
        (lambda path: path.mkdir(), "no table", ""),
        (lambda path: path.write_bytes(b"not a database at all" * 99), "neither an SQLite nor", "a database file"),
    ],
)
def test_what_is_no_database(tmp_path: Path, prepare: Callable[[Path], Any], says: str, todo: str) -> None:
    path = tmp_path / "thing.sqlite"
    prepare(path)
    with pytest.raises(DataError) as caught:
        Text2Sql(path).task("How many?")
    assert says in caught.value.what and todo in (caught.value.todo or "")


def test_a_database_without_tables(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "none.sqlite")) as connection:
        connection.executescript("CREATE TABLE t (a); DROP TABLE t;")
    with pytest.raises(DataError, match="no table"):
        Text2Sql(tmp_path / "none.sqlite").task("How many?")


async def test_a_damaged_file_is_an_observation_when_it_breaks_under_way(make: Make, tmp_path: Path) -> None:
    app = make("CREATE TABLE t (a TEXT);" + "INSERT INTO t VALUES (hex(randomblob(2000)));" * 60)
    task = app.task("How many?")
    data = bytearray((tmp_path / "shop.sqlite").read_bytes())
    data[8192 : len(data) // 2] = b"\xff" * (len(data) // 2 - 8192)
    (tmp_path / "shop.sqlite").write_bytes(bytes(data))
    seen = await app.execute(task, "SELECT SUM(LENGTH(a)) FROM t")
    assert seen.info["error_class"] in ("damaged", "not_a_database") and seen.text.startswith("error: ")


async def test_a_locked_database_says_so_and_is_no_wrong_answer(make: Make, tmp_path: Path) -> None:
    app = make("CREATE TABLE t (a INT); INSERT INTO t VALUES (1);")
    task = app.task("How many?")
    with closing(sqlite3.connect(tmp_path / "shop.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        seen = await app.execute(task, "SELECT COUNT(*) FROM t")
    assert seen.info["error_class"] == "locked"
    assert await rows(app, "SELECT COUNT(*) FROM t") == [[1]]


async def test_a_file_that_vanishes(make: Make, tmp_path: Path) -> None:
    app = make("CREATE TABLE t (a INT);")
    task = app.task("How many?")
    (tmp_path / "shop.sqlite").unlink()
    seen = await app.execute(task, "SELECT COUNT(*) FROM t")
    assert seen.info["error_class"] == "missing" and "no such file" in seen.text


async def test_a_thousand_columns(make: Make) -> None:
    columns = ", ".join(f"column_{n} INTEGER" for n in range(1_000))
    app = make(f"CREATE TABLE wide ({columns}); INSERT INTO wide (column_7) VALUES (3);")
    assert await rows(app, "SELECT column_7, column_999 FROM wide") == [[3, None]]
    assert "column_999" in app.task("What is in column 999?").messages[0].content


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("order", "group"),
        ("my table", "first name"),
        ('quo"ted', "it's"),
        ("🛒 basket", "prix €"),
        ("[brackets]", "semi;colon"),
        ("select", "from"),
        ("Größe", "名前"),
    ],
)
async def test_names_of_any_kind(make: Make, table: str, column: str) -> None:
    t, c = (f'"{name.replace(chr(34), chr(34) * 2)}"' for name in (table, column))
    app = make(f"CREATE TABLE {t} ({c} TEXT); INSERT INTO {t} VALUES ('x');")
    assert await rows(app, f"SELECT {c} FROM {t}") == [["x"]]
    assert await rows(app, f"SELECT T1.{c} FROM {t} AS T1 WHERE T1.{c} = 'x'") == [["x"]]
    assert "x" in app.task("x?").messages[0].content


async def test_blobs_huge_cells_and_texts_that_are_not_utf8(make: Make) -> None:
    app = make(
        "CREATE TABLE t (blob BLOB, huge TEXT, odd TEXT);"
        "INSERT INTO t VALUES (x'00ff10', hex(zeroblob(200000)), CAST(x'ff41' AS TEXT));"
    )
    ((blob, huge, odd),) = await rows(app, "SELECT blob, huge, odd FROM t")
    assert blob == "x'00ff10'" and len(huge) == 400_000 and odd == "\ufffdA"
    prompt = app.task("What is huge?").messages[0].content
    assert len(prompt) < 5_000
    seen = await app.execute(app.task("What is huge?"), "SELECT huge FROM t")
    assert len(seen.text) < 500


async def test_dates_as_text_empty_results_and_division_by_zero(make: Make) -> None:
    app = make("CREATE TABLE t (day TEXT, n INT); INSERT INTO t VALUES ('2024-02-29', 0), ('2023-01-01', 4);")
    assert await rows(app, "SELECT STRFTIME('%Y', day) FROM t WHERE day > '2024-01-01'") == [["2024"]]
    assert await rows(app, "SELECT 1 / n FROM t WHERE n = 0") == [[None]]
    seen = await app.execute(app.task("None?"), "SELECT n FROM t WHERE n > 99")
    assert seen.text == "0 rows, 1 column" and seen.info["error"] is None


async def test_a_result_that_is_cut_says_so(make: Make) -> None:
    app = make("CREATE TABLE t (a INT); INSERT INTO t VALUES (1);")
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 5000) SELECT n FROM r"
    seen = await app.execute(app.task("All?"), endless)
    assert seen.info["truncated"] and seen.text.startswith("more than 1000 rows")


# questions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", ["", "   ", "\n\t "])
def test_an_empty_question(make: Make, question: str) -> None:
    with pytest.raises(DataError, match="question is empty"):
        make("CREATE TABLE t (a INT);").task(question)


@pytest.mark.parametrize(
    "question",
    [
        "Wie viele Kunden kommen aus Köln?",
        "有多少客户？",
        "كم عدد العملاء؟",
        "SELECT * FROM t; DROP TABLE t",
        "How many? \u202e reversed \x00 and \ud800 half",
        "x" * 50_000,
        "```sql\nSELECT 1\n```\n## Answer\n```sql\nSELECT 2\n```",
    ],
)
def test_any_question_stays_one_line_of_its_section(make: Make, question: str) -> None:
    app = make("CREATE TABLE t (a INT);")
    content = app.task(question).messages[0].content
    headings = [line for line in content.splitlines() if line.startswith("#")]
    plain = [line for line in app.task("How many?").messages[0].content.splitlines() if line.startswith("#")]
    assert headings == plain
    assert content.count("```") == app.task("How many?").messages[0].content.count("```")


@pytest.mark.parametrize("answer", ["", "   ", ";", "-- nothing", "/* nothing */", "\x00", "SELECT", "'", "(" * 5_000])
async def test_an_answer_that_is_no_query_is_an_observation(make: Make, answer: str) -> None:
    app = make("CREATE TABLE t (a INT);")
    seen = await app.execute(app.task("How many?"), answer)
    assert seen.done and seen.info["error"] and seen.text.startswith("error: ")


# what is odd and right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b.sqlite", "it's.sqlite", "q?x=1#y%20.sqlite", "🛒.sqlite", "new\nline.sqlite"])
async def test_paths_of_any_kind(make: Make, name: str) -> None:
    assert await rows(make("CREATE TABLE t (a INT); INSERT INTO t VALUES (1);", name), "SELECT a FROM t") == [[1]]


async def test_views_and_generated_columns_may_be_asked(make: Make) -> None:
    app = make(
        "CREATE TABLE t (a INT, twice INT GENERATED ALWAYS AS (a * 2)); INSERT INTO t (a) VALUES (3);"
        'CREATE VIEW "big ones" AS SELECT a AS b FROM t WHERE a > 1;'
    )
    assert await rows(app, "SELECT twice FROM t") == [[6]]
    assert await rows(app, 'SELECT b FROM "big ones" AS o WHERE o.b < 9') == [[3]]
    seen = await app.execute(app.task("?"), "SELECT a FROM small_ones")
    assert seen.info["error_class"] == "no_such_table"


async def test_texts_in_utf_16_and_names_with_line_ends(make: Make) -> None:
    app = make(
        'PRAGMA encoding = \'UTF-16\'; CREATE TABLE "a\nb" ("c\td" TEXT, "ß" TEXT);'
        "INSERT INTO \"a\nb\" VALUES ('Köln 🛒', 'x');"
    )
    assert await rows(app, 'SELECT "c\td", ß FROM "a\nb"') == [["Köln 🛒", "x"]]


async def test_numbers_at_their_ends(make: Make) -> None:
    app = make("CREATE TABLE t (a); INSERT INTO t VALUES (9223372036854775807), (9e999), (-9e999);")
    assert await rows(app, "SELECT a FROM t") == [[2**63 - 1], [float("inf")], [-float("inf")]]
    assert await rows(app, "SELECT 1 / 0, 1 % 0, 1.0 / 0") == [[None, None, None]]


async def test_a_table_of_texts_in_another_encoding(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    (tmp_path / "cities.csv").write_bytes("city,n\nKöln,1\nZürich,2\n".encode("latin-1"))
    app = Text2Sql(tmp_path / "cities.csv", workers=1)
    try:
        assert await rows(app, "SELECT city FROM cities ORDER BY n") == [["Köln"], ["Zürich"]]
    finally:
        await app.aclose()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("SELECT a FROM t WHERE a IN (" + "1," * 30_000 + "1)", "too_big"),
        ("x" * 49_000, "not_a_query"),
        ("SELECT '\ud800'", "syntax"),
        ("S\x00ELECT 1", "syntax"),
        ("SELECT " + "NOT " * 5_000 + "1", "too_big"),
        ("DROP TABLE t", "not_a_query"),
        ("SELECT * FROM sqlite_master", "denied"),
    ],
)
async def test_sql_that_is_too_long_or_odd(make: Make, answer: str, kind: str) -> None:
    app = make("CREATE TABLE t (a INT);")
    seen = await app.execute(app.task("How many?"), answer)
    assert seen.info["error_class"] == kind and len(seen.text) < 500
