"""The SQL subset as a tree: text, joins along foreign keys, foreign SQL read back."""

import sqlite3

import pytest

from verbal.models.embedded.ast import (
    Aggregate,
    Arithmetic,
    Both,
    Col,
    Condition,
    Literal,
    Order,
    Part,
    Query,
    Unsupported,
    differing_clauses,
    join_tree,
    to_sql,
    used_tables,
)
from verbal.models.embedded.fields import Column, ForeignKey, Schema, Table
from verbal.models.embedded.foreign import from_sql

C = Column
SHOP = Schema(
    (
        Table("customer", (C("id", "int"), C("name", "text"), C("region_id", "int")), ("id",)),
        Table("region", (C("id", "int"), C("name", "text")), ("id",)),
        Table("order", (C("id", "int"), C("customer_id", "int"), C("day", "date"), C("ship to", "text")), ("id",)),
        Table("item", (C("id", "int"), C("order_id", "int"), C("n", "int"), C("price", "real")), ("id",)),
        Table("flight", (C("no", "int"), C("source", "text"), C("target", "text")), ("no",)),
        Table("airport", (C("code", "text"), C("city", "text")), ("code",)),
    ),
    (
        ForeignKey("customer", "region_id", "region", "id"),
        ForeignKey("order", "customer_id", "customer", "id"),
        ForeignKey("item", "order_id", "order", "id"),
        ForeignKey("flight", "source", "airport", "code"),
        ForeignKey("flight", "target", "airport", "code"),
    ),
)
NAME, PRICE, N = Col("customer", "name"), Col("item", "price"), Col("item", "n")


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    for table in SHOP.tables:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        connection.execute(f'CREATE TABLE "{table.name}" ({names})')
    return connection


def test_tables_between_are_joined_along_foreign_keys() -> None:
    query = Query((Col("region", "name"), Aggregate("sum", Arithmetic("*", N, PRICE))), group_by=(Col("region", "id"),))
    text = to_sql(query, SHOP)
    assert text == (
        "SELECT region.name, SUM(item.n * item.price) FROM region JOIN customer ON customer.region_id = region.id "
        'JOIN "order" ON "order".customer_id = customer.id JOIN item ON item.order_id = "order".id GROUP BY region.id'
    )
    connect().execute(text)


def test_a_named_key_decides_between_two() -> None:
    assert "flight.source = airport.code" in to_sql(Query((Col("airport", "city"), Col("flight", "no"))), SHOP)
    query = Query((Col("airport", "city"), Col("flight", "no")), via=(Col("flight", "target"),))
    assert "flight.target = airport.code" in to_sql(query, SHOP)


def test_tables_without_a_path_are_refused() -> None:
    with pytest.raises(Unsupported, match="no foreign key path from customer to airport"):
        join_tree(SHOP, ("customer", "airport"))


def test_every_construct_becomes_sql_that_runs() -> None:
    inner = Query((Aggregate("avg", PRICE),), ("item",))
    query = Query(
        (NAME, Aggregate("count", Col("order", "id"), True)),
        distinct=True,
        where=Both(
            "and",
            (
                Condition(PRICE, ">", inner),
                Both(
                    "or",
                    (Condition(NAME, "like", Literal("%O'H%", True)), Condition(Col("order", "ship to"), "is null")),
                ),
                Condition(N, "between", (Literal("1"), Literal("5"))),
                Condition(Part("year", Col("order", "day")), "=", Literal("2021")),
                Condition(NAME, "not in", (Literal("a", True), Literal("b", True))),
            ),
        ),
        group_by=(NAME,),
        having=Condition(Aggregate("count"), ">=", Literal("2")),
        order_by=(Order(Aggregate("max", PRICE), True), Order(NAME)),
        limit=3,
    )
    text = to_sql(query, SHOP)
    connect().execute(text)
    assert "LIKE '%O''H%' OR" in text and '"order"."ship to" IS NULL)' in text
    again = from_sql(text, SHOP)
    assert to_sql(again, SHOP) == text
    assert again.where == query.where and again.having == query.having and again.order_by == query.order_by


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SELECT name FROM (SELECT name FROM customer)", "subquery in FROM"),
        ("SELECT a.name FROM customer a JOIN customer b ON a.id = b.id", "self-join"),
        ("SELECT CASE WHEN n > 1 THEN 1 ELSE 0 END FROM item", "CASE"),
        ("SELECT name, ROW_NUMBER() OVER (ORDER BY id) FROM customer", "window"),
        ("SELECT name FROM customer LEFT JOIN region ON customer.region_id = region.id", "LEFT"),
        ("SELECT name FROM customer UNION ALL SELECT name FROM region", "UNION ALL"),
        ("SELECT nothing FROM customer", "nothing"),
        ("SELECT name FROM nowhere", "nowhere"),
        ("DELETE FROM customer", "DELETE"),
        ("SELECT name FROM customer; DROP TABLE customer", "one SQL statement"),
        ("SELECT FROM WHERE", "parsed"),
        ("SELECT customer.name FROM customer JOIN item ON customer.id = item.n", "no foreign key"),
        ("WITH x AS (SELECT 1) SELECT name FROM customer", "WITH"),
    ],
)
def test_what_the_tree_cannot_say_is_named(sql: str, word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        from_sql(sql, SHOP)


def test_foreign_sql_with_aliases_quotes_and_loose_case_is_read() -> None:
    text = """select T1.NAME, count(*) from customer as T1 join "order" t2 on T1.id = t2.customer_id
              where t1.name != "Ann" group by t1.id order by count(*) desc limit 2"""
    query = from_sql(text, SHOP)
    assert query.select == (NAME, Aggregate("count"))
    assert query.where == Condition(NAME, "!=", Literal("Ann", True))
    assert query.limit == 2 and query.order_by[0].descending and used_tables(query) == ("customer", "order")


def test_clauses_that_differ_are_named() -> None:
    first = Query((NAME,), where=Condition(NAME, "=", Literal("a", True)), limit=1)
    assert differing_clauses(first, Query((NAME, N), limit=2)) == ("select", "from", "where", "limit")
    assert differing_clauses(first, first) == ()
