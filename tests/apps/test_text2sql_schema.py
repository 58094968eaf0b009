"""The schema reader and the value index, on any SQLite file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.schema import literal, read_tables, schema_text
from verbal.apps.text2sql.values import Database
from verbal.errors import DataError

SCRIPT = """
CREATE TABLE region (region_id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE customer (
  customer_id INTEGER PRIMARY KEY, "full name" TEXT, status TEXT, joined DATE, points REAL, note, photo BLOB,
  region_id INTEGER REFERENCES region);
CREATE TABLE "order" (a INTEGER, b INTEGER, x TEXT, PRIMARY KEY (a, b), FOREIGN KEY (a) REFERENCES gone (id));
INSERT INTO region VALUES (1, 'North Sea'), (2, 'Alps');
INSERT INTO customer VALUES (1, 'Ann O''Hara', 'A', '2021-01-04', 1.5, NULL, x'00', 1),
  (2, 'Bob
## Hints', 'C', '2024-12-30', 22.25, NULL, NULL, 2), (3, NULL, 'A', NULL, NULL, NULL, NULL, 1);
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("schema") / "a.sqlite", SCRIPT)


def build(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def test_the_text_of_a_schema(path: Path) -> None:
    assert schema_text(read_tables(path)) == (
        "CREATE TABLE region (\n"
        "  region_id INTEGER PRIMARY KEY, -- 1 to 2\n"
        "  name TEXT -- one of 'Alps', 'North Sea'\n"
        ");\n"
        "CREATE TABLE customer (\n"
        "  customer_id INTEGER PRIMARY KEY, -- 1 to 3\n"
        "  \"full name\" TEXT, -- one of 'Ann O''Hara', 'Bob ## Hints'\n"
        "  status TEXT, -- one of 'A', 'C'\n"
        "  joined DATE, -- '2021-01-04' to '2024-12-30'\n"
        "  points REAL, -- 1.5 to 22.25\n"
        "  note TEXT, -- always NULL\n"
        "  photo BLOB,\n"
        "  region_id INTEGER,\n"
        "  FOREIGN KEY (region_id) REFERENCES region (region_id)\n"
        ");\n"
        'CREATE TABLE "order" (\n'
        "  a INTEGER, -- always NULL\n"
        "  b INTEGER, -- always NULL\n"
        "  x TEXT, -- always NULL\n"
        "  PRIMARY KEY (a, b)\n"
        ");"
    )


def test_text_columns_with_many_values_show_two(tmp_path: Path) -> None:
    rows = ", ".join(f"('name {n}', '{'long ' * 20}{n}')" for n in range(30))
    made = build(tmp_path / "b.sqlite", f"CREATE TABLE t (a VARCHAR(9), b TEXT); INSERT INTO t VALUES {rows};")
    (table,) = read_tables(made)
    assert table.columns[0].comment == "such as 'name 0', 'name 1'"
    assert table.columns[1].comment == f"such as '{'long ' * 8}...', '{'long ' * 8}...'"


def test_the_text_is_valid_sql_that_makes_the_same_tables(path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema_text(read_tables(path)))
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert names == ["region", "customer", "order"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), (b"", "is empty"), (b"not a database at all" * 60, "not an SQLite database")],
)
def test_a_file_that_is_no_database_is_a_data_error(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        Database(path)
    assert str(path) in caught.value.what and caught.value.todo


def test_a_folder_and_a_database_without_tables_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        Database(tmp_path)
    with pytest.raises(DataError, match="holds no table"):
        Database(build(tmp_path / "v.sqlite", "CREATE TABLE a (x); DROP TABLE a;"))


def test_a_damaged_database_is_a_data_error(tmp_path: Path) -> None:
    rows = ", ".join(f"({n}, '{'x' * 200}')" for n in range(500))
    path = build(tmp_path / "d.sqlite", f"CREATE TABLE t (a, b); INSERT INTO t VALUES {rows};")
    data = bytearray(path.read_bytes())
    data[4096:40960] = b"\xff" * 36864
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        Database(path)


def test_a_locked_database_is_a_data_error(tmp_path: Path) -> None:
    path = build(tmp_path / "l.sqlite", SCRIPT)
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match="is locked"):
            Database(path)
        owner.execute("ROLLBACK")
    assert Database(path).tables


def test_reading_leaves_the_file_and_its_folder_alone(path: Path) -> None:
    before, names = path.read_bytes(), sorted(path.parent.iterdir())
    Database(path).values(["North Sea"])
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == (before, names)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("How many customers are in the north sea?", ["'North Sea' in region.name"]),
        ("Points of ann o'hara", ["'Ann O''Hara' in customer.\"full name\""]),
        ("status = 'A'", ["'A' in customer.status"]),
        ("A customer", []),
        ("Customers of the Alp", []),
        ("", []),
        ("'Alps' and 'North Sea'", ["'Alps' in region.name", "'North Sea' in region.name"]),
    ],
)
def test_cells_that_a_text_mentions(path: Path, text: str, found: list[str]) -> None:
    assert [str(cell) for cell in Database(path).values([text])] == found


def test_plural_and_longest_mention_first_and_the_named_column(tmp_path: Path) -> None:
    script = """CREATE TABLE t (kind TEXT, maker TEXT); CREATE TABLE u (city TEXT, name TEXT);
    INSERT INTO t VALUES ('Laptop', 'Berlin Works'), ('Battery', 'Berlin');
    INSERT INTO u VALUES ('Paris', 'Paris');"""
    database = Database(build(tmp_path / "p.sqlite", script))
    assert [str(c) for c in database.values(["laptops and batteries by berlin works"])] == [
        "'Laptop' in t.kind", "'Battery' in t.kind", "'Berlin Works' in t.maker",
    ]  # fmt: skip
    assert [str(c) for c in database.values(["the city Paris"])] == ["'Paris' in u.city"]
    assert [str(c) for c in database.values(["Paris"])] == ["'Paris' in u.city", "'Paris' in u.name"]


def test_tens_of_thousands_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "big.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, kind TEXT)")
        rows = [(n, f"person {n}", "abc"[n % 3]) for n in range(40_000)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        connection.commit()
    database = Database(path)
    assert [cell.text for cell in database.values(["who is Person 17 and person 123?"])] == ["person 17", "person 123"]
    started = time.perf_counter()
    for _ in range(100):
        database.values(["who is Person 17 and person 123 or somebody else of many words in a question?"])
    print(f"{(time.perf_counter() - started) * 10:.2f} ms a look-up")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    script = "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'4dfc6e636865' AS TEXT)), ('ok');"
    database = Database(build(tmp_path / "n.sqlite", script))
    assert "one of 'M\ufffdnche', 'ok'" in database.schema


@given(st.text())
def test_a_literal_is_one_line_that_sqlite_reads_back(value: str) -> None:
    text = literal(value)
    assert len(text.splitlines()) == 1
    with closing(sqlite3.connect(":memory:")) as connection:
        if not any("\ud800" <= c <= "\udfff" for c in value):
            (found,) = connection.execute(f"SELECT {text}").fetchone()
            assert found == text[1:-1].replace("''", "'")


@given(st.lists(st.sampled_from(["a b", "Tab\te", "x;y", 'q"uote', "sel-ect", "ünï", "1st"]), min_size=1, unique=True))
def test_odd_names_survive(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("odd") / "o.sqlite"
    columns = ", ".join('"' + name.replace('"', '""') + '" TEXT' for name in names)
    database = Database(build(path, f'CREATE TABLE "t {len(names)}" ({columns});'))
    assert [column.name for column in database.tables[0].columns] == names


@pytest.mark.parametrize("name", ["chinook", "northwind"])
def test_known_databases(real_data: Path, name: str) -> None:
    database = Database(real_data / "extra" / f"{name}.sqlite")
    assert len(database.tables) >= 10
    assert database.values(["customers from Berlin"])
