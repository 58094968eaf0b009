"""Schema linking, and cells that a question nearly mentions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql import fuzzy, values
from verbal.apps.text2sql.compact import tokens
from verbal.apps.text2sql.fuzzy import NearCells, allowed
from verbal.apps.text2sql.linking import LADDER, Linker, fit, link
from verbal.apps.text2sql.schema import Column, ForeignKey, Table
from verbal.apps.text2sql.values import Cell, Database
from verbal.errors import ConfigError

SCRIPT = """
CREATE TABLE customers (customer_id INTEGER PRIMARY KEY, customer_name TEXT, cust_addr TEXT, city TEXT);
CREATE TABLE orders (order_id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers, order_date TEXT);
CREATE TABLE order_items (order_id INTEGER REFERENCES orders, product_id INTEGER REFERENCES products, qty INTEGER);
CREATE TABLE products (product_id INTEGER PRIMARY KEY, title TEXT, price REAL);
CREATE TABLE staff (staff_id INTEGER PRIMARY KEY, hireDate TEXT, phonenumber TEXT);
CREATE TABLE audit_log (log_id INTEGER PRIMARY KEY, happened TEXT, detail TEXT);
INSERT INTO customers VALUES (1, 'Łukasz Brönner', 'Main St 1', 'São Paulo'),
  (2, 'Ann Smith', 'Side St 2', 'Philadelphia'), (3, 'Room 12', 'x', 'Berlin');
INSERT INTO products VALUES (1, 'Espresso Machine', 99.5), (2, 'Paper Cups', 3), (3, 'Customer', 1);
INSERT INTO orders VALUES (1, 1, '2024-01-02'); INSERT INTO order_items VALUES (1, 1, 2);
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    path = tmp_path_factory.mktemp("linking") / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCRIPT)
    made = Database(path)
    made._linker = Linker(made.tables)  # without a profile in the user's cache folder
    return made


@pytest.mark.parametrize(
    ("question", "tables", "columns"),
    [
        ("How many customers are there?", ["customers"], []),
        ("When were the workers hired?", ["staff"], [("staff", "hireDate")]),
        ("Addresses of clients", ["customers"], [("customers", "cust_addr")]),
        ("What is the phone number of each employee?", ["staff"], [("staff", "phonenumber")]),
        ("pricee of prodcts", ["products"], [("products", "price")]),
        ("Which customers bought paper cups?", ["customers", "products"], [("products", "title")]),
        ("Names of customers and the price of what they ordered", ["customers", "products", "order_items", "orders"],
         [("customers", "customer_name"), ("products", "price")]),
        ("quantity per order", ["order_items"], [("order_items", "qty")]),
        ("Who lives in Philadelpia?", ["customers"], [("customers", "city")]),
    ],
)  # fmt: skip
def test_what_a_question_is_about(
    database: Database, question: str, tables: list[str], columns: list[tuple[str, str]]
) -> None:
    linked = link(database, question)
    best = {score.table for score in linked.tables[: max(len(tables), 2)]}
    assert set(tables) <= best
    assert set(columns) <= {(c.table, c.column) for c in linked.columns[: 3 * len(columns) + 1]}
    assert "audit_log" not in best


def test_all_tables_and_columns_are_ranked_once_and_always_alike(database: Database) -> None:
    linked = link(database, "price of cups in Berlin", table_count=2, column_count=3)
    assert sorted(s.table for s in linked.tables) == sorted(t.name for t in database.tables)
    assert len({(c.table, c.column) for c in linked.columns}) == len(linked.columns) == 19
    assert [s.score for s in linked.tables] == sorted((s.score for s in linked.tables), reverse=True)
    assert link(database, "price of cups in Berlin", table_count=2, column_count=3) == linked
    assert len(linked.kept_tables) == 2
    assert {table for table, _ in linked.kept_columns} <= linked.kept_tables
    assert ("customers", "city") in linked.kept_columns  # its cell is mentioned


@pytest.mark.parametrize(
    "question", ["", "?!", "日本の顧客は何人ですか", "SELECT * FROM products", "word " * 10_000, "\x00"]
)
def test_any_question_links(database: Database, question: str) -> None:
    linked = link(database, question)
    assert len(linked.tables) == 6
    if "products" in question:
        assert linked.tables[0].table == "products"


def test_hints_count_less_than_the_question(database: Database) -> None:
    told = link(database, "How much revenue was there?", hints=["revenue means price of products"])
    assert told.tables[0].table == "products"
    assert link(database, "staff", hints=["products"]).tables[0].table == "staff"


def test_tables_can_be_given(database: Database) -> None:
    tables = database.tables[-2:]
    assert {s.table for s in link(database, "customers", tables).tables} == {"staff", "audit_log"}
    assert link(database, "customers", (), cells=()).tables == ()


def test_a_schema_that_fits_is_shown_in_full_and_another_around_the_question(database: Database) -> None:
    question = "What do paper cups cost?"
    whole = fit(database, question, 1_000)
    assert whole.text == database.schema and len(whole.columns) == 19 and len(whole.tables) == 6
    sizes = [fit(database, question, budget) for budget in (200, 100, 60, 40)]
    for budget, found in zip((200, 100, 60, 40), sizes, strict=True):
        assert tokens(found.text) <= found.tokens <= budget
        assert ("products", "title") in found.columns and "products (" in found.text
    assert len(sizes[0].columns) > len(sizes[-1].columns) >= LADDER[-1][1]
    with pytest.raises(ConfigError, match="the linked part of the schema needs"):
        fit(database, question, 10)


def test_a_key_to_a_table_that_is_not_there() -> None:
    lone = Table("a", (Column("b_id", "INT"),), (), (ForeignKey(("b_id",), "b", ("id",)),))
    assert Linker([lone]).link("all of a").tables[0].table == "a"


@given(st.text(max_size=80))
def test_linking_never_fails(question: str) -> None:
    tables = [Table("t", (Column("a b", "TEXT"),)), Table("ünï", (Column("", "TEXT"),)), Table("", (Column("1", ""),))]
    found = Linker(tables).link(question)
    assert len(found.tables) == 3 and all(s.score >= 0 for s in found.tables)


# near cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("customers in Philadelpia", ["Philadelphia"]),
        ("customers in Philadlephia", ["Philadelphia"]),
        ("orders of sao paulo", ["São Paulo"]),
        ("who is lukasz bronner", ["Łukasz Brönner"]),
        ("where does Smith Ann live", ["Ann Smith"]),
        ("the price of expresso machines", ["Espresso Machine"]),
        ("the price of PAPER CUP", ["Paper Cups"]),
        ("customers in room 13", []),
        ("custmers of Berlni", ["Berlin"]),
        ("names of customers by order date", []),
        ("Hamburg or Munich", []),
        ("", []),
    ],
)
def test_cells_that_a_text_nearly_mentions(database: Database, text: str, found: list[str]) -> None:
    near = [cell.text for cell in database.values([text], fuzzy=True)]
    assert [one for one in near if one != "Customer"] == found


def test_exact_mentions_come_first_and_alone_by_default(database: Database) -> None:
    text = "Berlin and Philadelpia"
    assert [c.text for c in database.values([text])] == ["Berlin"]
    assert [c.text for c in database.values([text], fuzzy=True)] == ["Berlin", "Philadelphia"]
    assert [c.text for c in database.values([text], 1, fuzzy=True)] == ["Berlin"]


def test_a_longer_near_mention_around_an_exact_one() -> None:
    cells = {text.casefold(): [Cell(text, "t", "school")] for text in ("San Jose", "San Jose State University")}
    near = NearCells(cells, ()).mentions("students of San Jose State Universiy", [(12, 20)])
    assert [[cell.text for cell in found] for found in near] == [["San Jose State University"]]


def test_names_of_the_schema_are_not_taken_for_misspelled_cells() -> None:
    tables = [Table("country", (Column("singers", "TEXT", text=True),))]
    near = NearCells(
        {"county": [Cell("County", "country", "singers")], "ginger": [Cell("Ginger", "country", "singers")]}, tables
    )
    assert near.mentions("which singer is of which country") == []
    assert len(near.mentions("Gingar Counte")) == 2


def test_many_cells_of_one_length_are_narrowed_by_their_first_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzy, "MOST_COMPARED", 3)
    words = ["alphas", "betass", "gammas", "deltas", "gemmas"]
    near = NearCells({word: [Cell(word, "t", "c")] for word in words}, ())
    assert [c.text for found in near.mentions("gamnas") for c in found] == ["gammas"]


def test_an_index_has_a_limit_of_cells_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MOST_CELLS", 60)
    monkeypatch.setattr(values, "LEAST_VALUES", 5)
    path = tmp_path / "m.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        for name in "abc":
            connection.execute(f"CREATE TABLE {name} (v TEXT)")
            connection.executemany(f"INSERT INTO {name} VALUES (?)", [(f"{name} value {n}",) for n in range(50)])
        connection.commit()
    assert len(Database(path)._values()) == 60


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=12), max_size=6))
def test_near_look_up_never_fails_and_stays_near(text: str, cells: Sequence[str]) -> None:
    index = {" ".join(cell.casefold().split()): [Cell(cell, "t", "c")] for cell in cells if cell.strip()}
    for found in NearCells(index, ()).mentions(text):
        assert found and all(cell.text in cells for cell in found)


@given(st.integers(0, 500))
def test_more_edits_are_allowed_in_longer_words(length: int) -> None:
    assert allowed(length) <= allowed(length + 1) <= 3
    assert allowed(length) <= max(0, length - 4)
