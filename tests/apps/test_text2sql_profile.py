"""Profiles of columns: what they say, on which engines, how little they read, and how they are kept on disk."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from sql_places import SERVERS, duckdb_place, files_place, sqlite_place

from verbal.apps.text2sql import profile as profiles
from verbal.apps.text2sql import profile_cache
from verbal.apps.text2sql.linking import link
from verbal.apps.text2sql.profile import catalog_tables, profile, profile_file
from verbal.apps.text2sql.profile_cache import content_hash, from_json, kept, to_json
from verbal.apps.text2sql.schema import Column, Table, schema_text
from verbal.apps.text2sql.sources import Source
from verbal.apps.text2sql.values import Database
from verbal.apps.text2sql.worker import Limits, Pool
from verbal.errors import DataError

SCRIPT = """
CREATE TABLE airport (code TEXT PRIMARY KEY, city TEXT NOT NULL);
CREATE TABLE flight (flight_id INTEGER PRIMARY KEY, source_airport TEXT, airport_code TEXT, price, day TEXT, seats,
  photo BLOB, note TEXT, city TEXT);
INSERT INTO airport VALUES ('TXL', 'Berlin'), ('CDG', 'Paris'), ('LHR', 'London');
INSERT INTO flight VALUES (1, 'TXL', 'CDG', 10.5, '2024-01-02', 7, x'00ff', NULL, 'Rome'),
  (2, 'CDG', 'LHR', 99, '2024-03-04', NULL, NULL, NULL, 'Bonn'),
  (3, 'TXL', 'CDG', 99, '2023-12-31', 7, x'01', NULL, 'Bonn');
"""


def build(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build(tmp_path / "a.sqlite", SCRIPT)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    profile_cache._hashes.clear()
    return tmp_path / "cache"


def test_what_a_profile_says(path: Path, cache: Path) -> None:
    airport, flight = profile_file(path, cache).profiles
    code, city = airport.columns
    assert (code.kind, code.distinct, code.nulls, code.examples) == ("text", 3, 0.0, ("CDG", "LHR", "TXL"))
    assert (city.nullable, code.nullable, airport.rows, airport.whole) == (False, True, 3, True)
    found = {c.name: (c.kind, c.low, c.high, c.distinct, round(c.nulls, 2)) for c in flight.columns}
    assert found == {
        "flight_id": ("number", 1, 3, 3, 0.0),
        "source_airport": ("text", "CDG", "TXL", 2, 0.0),
        "airport_code": ("text", "CDG", "LHR", 2, 0.0),
        "price": ("number", 10.5, 99, 2, 0.0),
        "day": ("date", "2023-12-31", "2024-03-04", 3, 0.0),
        "seats": ("number", 7, 7, 1, 0.33),
        "photo": ("blob", None, None, 0, 0.33),
        "note": ("empty", None, None, 0, 1.0),
        "city": ("text", "Bonn", "Rome", 2, 0.0),
    }


def test_keys_that_nobody_declared_need_a_name_and_values_that_fit(path: Path, cache: Path) -> None:
    keys = profile_file(path, cache).profiles[1].foreign_keys
    assert [(k.columns, k.target, k.target_columns, k.declared) for k in keys] == [
        (("airport_code",), "airport", ("code",), False),
        (("source_airport",), "airport", ("code",), False),
    ]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE flight SET source_airport = 'XXX' WHERE flight_id = 1")
        connection.execute("UPDATE flight SET airport_code = 'YYY'")
        connection.commit()
    assert profile_file(path, cache).profiles[1].foreign_keys == ()


def test_the_full_text_says_nothing_of_a_probable_key(path: Path, cache: Path) -> None:
    tables = profile_file(path, cache).tables()
    assert "FOREIGN KEY" not in schema_text(tables)
    assert "airport_code -> airport.code?" in schema_text(tables, style="compact")


def test_a_profile_survives_json_and_restarts(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = profile_file(path, cache)
    assert from_json(to_json(made)) == made
    (file,) = cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setattr(profiles, "profile", lambda *given: pytest.fail("it was made again"))
    profile_cache._hashes.clear()
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    assert profile_file(path, cache) == profile_file(copy, cache) == made


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"{}", b"0\n{}", None])
def test_a_damaged_profile_is_made_again(path: Path, cache: Path, damage: bytes | None) -> None:
    made = profile_file(path, cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"Berlin", b"Bremen") if damage is None else damage)
    assert profile_file(path, cache) == made
    assert file.read_bytes() == whole


def test_a_change_of_the_file_or_of_its_log_is_a_new_content(path: Path, cache: Path) -> None:
    before = content_hash(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        assert (wal := content_hash(path)) != before
        connection.execute("INSERT INTO airport VALUES ('MUC', 'Munich')")
        connection.commit()
        assert content_hash(path) != wal
        assert profile_file(path, cache).profiles[0].rows == 4


def test_a_profile_of_a_file_that_changed_meanwhile_is_not_kept(path: Path, cache: Path) -> None:
    found = profile_file(path, cache)
    (file,) = cache.iterdir()
    file.unlink()

    def slow() -> profiles.Profile:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM flight")
            connection.commit()
        return found

    assert kept(path, slow, cache) is found and list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_time_only(path: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert profile_file(path, blocked / "below").profiles[0].name == "airport"


def test_two_processes_at_once(path: Path, cache: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.starmap(profile_file, [(path, cache)] * 8)
    assert all(one == found[0] for one in found)
    assert [file.suffix for file in cache.iterdir()] == [".json"]


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Database(path).profile.dialect == "sqlite"
    assert len(list((tmp_path / "xdg" / "verbal" / "profiles").glob("*.json"))) == 1


def test_a_file_that_is_no_database(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        profile_file(tmp_path / "gone.sqlite", cache)
    (tmp_path / "x.sqlite").write_bytes(b"nothing of the kind" * 90)
    with pytest.raises(DataError, match="not an SQLite database"):
        profile_file(tmp_path / "x.sqlite", cache)
    assert not cache.exists() or not list(cache.iterdir())


def test_big_tables_are_read_in_part(path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(profiles, "LEAST_ROWS", 2)
    monkeypatch.setattr(profiles, "SCANNED_CELLS", 4)
    airport, flight = profile_file(path, cache).profiles
    assert (airport.rows, airport.whole, flight.rows, flight.whole) == (2, False, 2, False)
    assert airport.columns[0].distinct == 2


def _sqlite(path: Path) -> Callable[[str], Sequence[Sequence[Any]]]:
    connection = sqlite3.connect(path)

    def query(sql: str) -> list[Any]:
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.Error as error:
            raise DataError(str(error)) from error

    return query


def test_what_cannot_be_read_is_unread(path: Path) -> None:
    catalog = [Table("airport", (Column("code", "TEXT"), Column("gone", "TEXT"))), Table("lost", (Column("a", ""),))]
    query = _sqlite(path)

    def refusing(sql: str) -> Sequence[Sequence[Any]]:
        if '"gone"' in sql:
            raise DataError("permission denied")
        return query(sql)

    airport, lost = profile(refusing, catalog, "sqlite").profiles
    assert [c.kind for c in (*airport.columns, *lost.columns)] == ["text", "unread", "unread"]
    with pytest.raises(DataError, match="holds no table"):
        profile(query, {"tables": []}, "sqlite")


HARD = {
    "reserved": ("order", "group"),
    "blanks": ("my table", "a column"),
    "quotes": ('sa"id', "o'clock"),
    "emoji": ("🛒 cart", "naïve é"),
    "lines": ("a\n## Heading", "b\r\n```sql"),
    "tags": ("<hint>", "</hint>"),
    "dots": ("a.b", "c.d"),
    "dashes": ("a--b", "/*c*/"),
}


@pytest.mark.parametrize("kind", HARD)
def test_odd_names(tmp_path: Path, cache: Path, kind: str) -> None:
    table, column = (('"' + name.replace('"', '""') + '"') for name in HARD[kind])
    script = f"CREATE TABLE {table} (id INTEGER, {column} TEXT); INSERT INTO {table} VALUES (1, 'Anna'), (2, 'Bob');"
    database = Database(build(tmp_path / "o.sqlite", script))
    found = profile_file(database.path, cache).profiles[0]
    assert (found.name, found.columns[1].name, found.columns[1].examples) == (*HARD[kind], ("Anna", "Bob"))
    assert [(c.table, c.column) for c in database.values(["Anna"])] == [HARD[kind]]
    for style in ("full", "compact"):
        lines = schema_text(database.tables, style=style).splitlines()
        assert not any(line.startswith(("#", "```")) for line in lines)
        assert "<hint" not in " ".join(lines) and "</hint" not in " ".join(lines)
        assert len(lines) == (4 if style == "full" else 1)
    assert "\n" not in str(database.values(["Anna"])[0])


def test_a_thousand_columns(tmp_path: Path, cache: Path) -> None:
    columns = ", ".join(f"column_{n} TEXT" for n in range(1000))
    values = ", ".join(f"'cell {n % 7}'" for n in range(1000))
    path = build(tmp_path / "w.sqlite", f"CREATE TABLE wide ({columns}); INSERT INTO wide VALUES ({values});")
    (table,) = profile_file(path, cache).profiles
    assert len(table.columns) == 1000
    assert {c.distinct for c in table.columns} == {1}


def test_blobs_huge_cells_wrong_encoding_and_dates_as_text(tmp_path: Path, cache: Path) -> None:
    path = build(tmp_path / "h.sqlite", "CREATE TABLE t (a TEXT, b BLOB, c TEXT, d TEXT, e TEXT);")
    with closing(sqlite3.connect(path)) as connection:
        huge = "x" * 3_000_000
        connection.execute(
            "INSERT INTO t VALUES (?, ?, CAST(x'4dfc6e' AS TEXT), '2024-01-01', '1.2.2024')", (huge, b"\x00" * 99)
        )
        connection.execute("INSERT INTO t VALUES (?, NULL, 'ok', '2024-12-31 10:00:00', '31.12.2024')", (huge + "y",))
        connection.commit()
    a, b, c, d, e = profile_file(path, cache).profiles[0].columns
    assert (a.kind, len(str(a.low)), len(a.examples[0])) == ("text", profiles.SHOWN, profiles.SHOWN)
    assert (b.kind, b.examples) == ("blob", ())
    assert c.examples == ("M\ufffdn", "ok")
    assert (d.kind, d.low, d.high) == ("date", "2024-01-01", "2024-12-31 10:00:00")
    assert e.kind == "text"
    assert os.path.getsize(next(cache.iterdir())) < 5_000


def test_duckdb_by_a_query_and_a_catalog() -> None:
    duckdb = pytest.importorskip("duckdb")
    with closing(duckdb.connect()) as connection:
        connection.execute(
            """CREATE SCHEMA sales;
            CREATE TABLE customer (id INTEGER PRIMARY KEY, "full name" VARCHAR NOT NULL, vip BOOLEAN,
            joined DATE, tags VARCHAR[], photo BLOB, price DECIMAL(9,2), mood ENUM('Good','bad'));
            INSERT INTO customer SELECT i, 'Name ' || i, i % 2 = 0, DATE '2020-01-01' + CAST(i AS INT), ['x'],
            'ab'::BLOB, i * 1.5, 'Good' FROM range(40) t(i);
            CREATE TABLE sales.orders (order_id INT, customer_id INT, status VARCHAR);
            INSERT INTO sales.orders SELECT i, i % 40, ['new', 'paid', 'sent'][i % 3 + 1] FROM range(90) t(i);"""
        )

        def query(sql: str) -> list[Any]:
            try:
                return connection.execute(sql).fetchall()
            except duckdb.Error as error:
                raise DataError(str(error)) from error

        found = profile(query, _catalog(), "duckdb")
        database = Database.of("shop.duckdb", found, query)
        assert str(database.values(["orders that are paid"])[0]) == "'paid' in sales.orders.status"
        assert str(database.values(["Nmae 17"], fuzzy=True)[0]) == "'Name 17' in customer.\"full name\""
        linked = link(database, "orders by vip customers")
    assert {score.table for score in linked.tables[:2]} == {"customer", "sales.orders"}
    assert schema_text(database.tables, style="compact") == (
        "customer (id INTEGER KEY, \"full name\" VARCHAR e.g. 'Name 0' -- 'who ## buys', vip BOOLEAN, joined DATE "
        "'2020-01-01'..'2020-02-09', tags VARCHAR[] in '[x]', photo BLOB, price DECIMAL 0..58.5, mood "
        "ENUM('Good', 'bad') in 'Good')\n"
        "sales.orders (order_id INTEGER 0..89, customer_id -> customer.id?, status VARCHAR in 'new' 'paid' 'sent')"
    )
    assert not found.profiles[0].columns[1].nullable


def _catalog() -> dict[str, Any]:
    kinds = {
        "id": "INTEGER", "full name": "VARCHAR", "vip": "BOOLEAN", "joined": "DATE", "tags": "VARCHAR[]",
        "photo": "BLOB", "price": "DECIMAL(9,2)", "mood": "ENUM('Good', 'bad')",
    }  # fmt: skip
    customer = [{"name": name, "type": kind, "nullable": name != "full name"} for name, kind in kinds.items()]
    customer[1]["comment"] = "who\n## buys"
    orders = [
        {"name": n, "type": k}
        for n, k in {"order_id": "INTEGER", "customer_id": "INTEGER", "status": "VARCHAR"}.items()
    ]
    return {
        "tables": [
            {"name": "customer", "schema": "", "columns": customer, "primary_key": ["id"], "foreign_keys": []},
            {"name": "orders", "schema": "sales", "columns": orders, "primary_key": [], "foreign_keys": []},
        ]
    }


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "files", *SERVERS])
def test_any_engine_through_the_pool(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind in SERVERS:
            place = stack.enter_context(SERVERS[kind]())
        else:
            place = {"sqlite": sqlite_place, "duckdb": duckdb_place, "files": files_place}[kind](tmp_path)
        source, pool = Source.of(place.db), stack.enter_context(closing(Pool(1, Limits())))

        def query(sql: str) -> list[Any]:
            result = pool.run_now(source, sql)
            if result.error is not None:
                raise DataError(f"{sql}: {result.error}")
            return list(result.rows)

        before = place.state()
        found = profile(query, pool.catalog_now(source), source.dialect)
        database = Database.of(source.location, found, query)
        cells = database.values(["'x' or 'y'"])
        assert place.state() == before
    t, u = found.profiles
    assert [(c.name, c.kind, c.low, c.high, c.distinct, round(c.nulls, 2)) for c in t.columns] == [
        ("a", "number", 1, 3, 3, 0.0), ("b", "text", "x", "y", 2, 0.33), ("c", "number", 0.5, 1.5, 2, 0.33),
    ]  # fmt: skip
    assert t.columns[1].examples == ("x", "y") and (t.rows, t.whole) == (3, True)
    assert [str(cell) for cell in cells] == ["'x' in t.b", "'y' in t.b"]
    if place.keys:
        assert [(k.columns, k.target, k.declared) for k in u.foreign_keys] == [(("a",), "t", True)]


def test_a_catalog_with_keys_across_schemas() -> None:
    columns = [{"name": "id", "type": "INT"}]
    key = {"columns": ["id"], "table": "a", "target_columns": ["id"]}
    lost = {"columns": ["id"], "table": "gone", "target_columns": ["id"]}
    tables = catalog_tables(
        {
            "tables": [
                {"name": "a", "schema": "s", "columns": columns},
                {"name": "b", "schema": "s", "columns": columns, "foreign_keys": [key, lost], "comment": "two"},
                {"name": "empty", "columns": []},
            ]
        }
    )
    assert [table.name for table in tables] == ["s.a", "s.b"]
    assert [link.target for link in tables[1].foreign_keys] == ["s.a"] and tables[1].note == "two"
