"""The codec: whatever a query of the subset says survives the way to slot tokens and back."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    to_sql,
)
from verbal.models.embedded.codec import (
    MAX_COLUMNS,
    VOCABULARY,
    Answer,
    Encoded,
    SlotOrder,
    allowed,
    decode_answer,
    encode,
    encode_answer,
)
from verbal.models.embedded.fields import Column, Fields, ForeignKey, Schema, Table, Value
from verbal.models.embedded.foreign import from_sql

C = Column
SHOP = Schema(
    (
        Table(
            "customer",
            (
                C("customer_id", "int"),
                C("name", "text"),
                C("status", "text", ("A", "C")),
                C("age", "int"),
                C("region_id", "int"),
            ),
            ("customer_id",),
        ),
        Table("region", (C("region_id", "int"), C("name", "text"), C("country", "text")), ("region_id",)),
        Table(
            "orders",
            (C("order_id", "int"), C("customer_id", "int"), C("day", "date"), C("total", "real")),
            ("order_id",),
        ),
        Table("item", (C("id", "int"), C("order_id", "int"), C("quantity", "int"), C("unit_price", "real")), ("id",)),
    ),
    (
        ForeignKey("customer", "region_id", "region", "region_id"),
        ForeignKey("orders", "customer_id", "customer", "customer_id"),
        ForeignKey("item", "order_id", "orders", "order_id"),
    ),
)
COLUMNS = [(Col(table.name, column.name), column.type) for table in SHOP.tables for column in table.columns]
QUESTION = "Show names of customers from 'Oslo' or 'Rome' with age above 30, total 4.5 and date 2021-05-06, at most 7"
TEXTS, NUMBERS, DATES = ("Oslo", "Rome"), ("30", "4.5", "7", "0", "12"), ("2021-05-06",)


def solver(question: str, *hints: str, values: tuple[Value, ...] = (), seed: int | None = None) -> Encoded:
    return encode(Fields("solver", SHOP, question=question, hints=hints, values=values), slots=SlotOrder(seed))


def columns(*types: str) -> st.SearchStrategy[Col]:
    return st.sampled_from([column for column, kind in COLUMNS if kind in types])


def literal_of(column: Col) -> st.SearchStrategy[Literal]:
    kind = dict(COLUMNS)[column]
    texts = {"text": TEXTS, "date": DATES}.get(kind, NUMBERS)
    return st.sampled_from([Literal(text, kind in ("text", "date")) for text in texts])


def conditions(depth: int = 1) -> st.SearchStrategy[Condition | Both]:
    compared = columns("int", "real", "text", "date").flatmap(
        lambda column: st.one_of(
            st.builds(Condition, st.just(column), st.sampled_from(("=", "!=", "<", ">=")), literal_of(column)),
            st.builds(Condition, st.just(column), st.sampled_from(("is null", "is not null"))),
            st.builds(lambda a, b: Condition(column, "between", (a, b)), literal_of(column), literal_of(column)),
            st.builds(lambda a, b: Condition(column, "in", (a, b)), literal_of(column), literal_of(column)),
        )
    )
    like = st.builds(
        lambda column, text, form, op: Condition(column, op, Literal(form.format(text), True)),
        columns("text"), st.sampled_from(TEXTS), st.sampled_from(("%{}%", "{}%", "%{}", "{}")), st.just("like"),
    )  # fmt: skip
    unlike = st.builds(
        lambda c, t: Condition(c, "not like", Literal(f"%{t}%", True)), columns("text"), st.sampled_from(TEXTS)
    )
    year = st.just(Condition(Part("year", Col("orders", "day")), ">", Literal("30")))
    average = columns("int", "real").map(lambda c: Condition(c, ">", Query((Aggregate("avg", c),), (c.table,))))
    two = st.just(Condition(Col("item", "quantity"), "<", Col("item", "unit_price")))
    without = st.sampled_from(
        [
            Condition(
                Col("customer", "customer_id"), op, Query((Col("orders", "customer_id"),), ("orders",), where=where)
            )
            for op in ("in", "not in")
            for where in (None, Condition(Col("orders", "total"), ">", Literal("30")))
        ]
    )
    single = st.one_of(compared, like, unlike, year, average, two, without)
    if not depth:
        return single
    parts = st.lists(conditions(depth - 1).filter(lambda one: not isinstance(one, Both)), min_size=2, max_size=3)
    either = parts.map(lambda items: Both("or", tuple(items)))
    both = st.lists(st.one_of(single, either), min_size=2, max_size=3).map(lambda items: Both("and", tuple(items)))
    return st.one_of(single, either, both)


def aggregates() -> st.SearchStrategy[Aggregate]:
    amount = st.builds(Arithmetic, st.sampled_from("+-*/"), columns("int", "real"), columns("int", "real"))
    net = amount.map(lambda a: Arithmetic("*", a, Arithmetic("-", Literal("1"), Col("item", "quantity"))))
    return st.one_of(
        st.just(Aggregate("count")),
        st.builds(Aggregate, st.sampled_from(("sum", "avg")), st.one_of(columns("int", "real"), amount, net)),
        st.builds(Aggregate, st.sampled_from(("min", "max")), columns("int", "real", "text", "date")),
        st.builds(Aggregate, st.just("count"), columns("int", "text"), st.just(True)),
    )


def queries() -> st.SearchStrategy[Query]:
    anything = st.one_of(columns("int", "real", "text", "date"), aggregates())
    order = st.lists(st.builds(Order, anything, st.booleans()), max_size=2).map(tuple)
    plain = st.builds(
        Query,
        select=st.lists(anything, min_size=1, max_size=3).map(tuple),
        tables=st.sampled_from(((), ("customer",), ("item",))),
        distinct=st.booleans(),
        where=st.one_of(st.none(), conditions()),
        group_by=st.lists(columns("int", "text"), max_size=2, unique=True).map(tuple),
        having=st.one_of(st.none(), st.builds(Condition, aggregates(), st.just(">"), st.just(Literal("12")))),
        order_by=order,
        limit=st.sampled_from((None, 1, 7, 25)),
    ).filter(lambda query: query.tables or any(not _starred(item) for item in query.select))
    return st.one_of(plain, st.builds(_compound, plain, plain, st.sampled_from(("union", "except", "intersect"))))


def _starred(item: object) -> bool:
    return isinstance(item, Aggregate) and item.argument is None


def _compound(first: Query, second: Query, operator: str) -> Query:
    def bare(query: Query, **more: object) -> Query:
        width = min(len(first.select), len(second.select))
        kept = {
            "select": query.select[:width],
            "tables": query.tables,
            "where": query.where,
            "group_by": query.group_by,
        }
        return Query(**kept, **more)  # type: ignore[arg-type]

    return bare(first, set_op=operator, other=bare(second))


@settings(max_examples=150, deadline=None)
@given(queries(), st.one_of(st.none(), st.integers(0, 5)))
def test_queries_survive_the_way_to_tokens_and_back(query: Query, seed: int | None) -> None:
    encoded = solver(QUESTION, seed=seed)
    sql = to_sql(query, SHOP)
    tokens = encode_answer(encoded, Answer(sql=sql), trees={sql: query})
    assert set(tokens) <= allowed(encoded) <= set(VOCABULARY)
    back = decode_answer(encoded, tokens).sql
    assert _meaning(back) == _meaning(sql)


@settings(max_examples=60, deadline=None)
@given(queries())
def test_own_sql_is_read_back_by_sqlglot(query: Query) -> None:
    sql = to_sql(query, SHOP)
    assert _meaning(to_sql(from_sql(sql, SHOP), SHOP)) == _meaning(sql)


def _meaning(sql: str) -> object:
    """What SQLite makes of a query on a small database: rows, or its refusal."""
    connection = _database()
    try:
        return sorted(map(repr, connection.execute(sql.replace(" LIMIT 7", "")).fetchmany(50)))
    except sqlite3.Error as error:
        return str(error)


_OPEN: list[sqlite3.Connection] = []


def _database() -> sqlite3.Connection:
    if not _OPEN:
        connection = sqlite3.connect(":memory:")
        for table in SHOP.tables:
            kinds = {"int": "INTEGER", "real": "REAL", "date": "DATE", "text": "TEXT"}
            connection.execute(
                f"CREATE TABLE {table.name} ({', '.join(f'{c.name} {kinds[c.type]}' for c in table.columns)})"
            )
        connection.executemany(
            "INSERT INTO customer VALUES (?, ?, ?, ?, ?)",
            [(1, "Oslo", "A", 30, 1), (2, "Rome", "C", 12, 2), (3, "Roman Oslo", "A", 45, None)],
        )
        connection.executemany("INSERT INTO region VALUES (?, ?, ?)", [(1, "Oslo", "Norway"), (2, "Lazio", "Rome")])
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?)",
            [(1, 1, "2021-05-06", 4.5), (2, 1, "2020-01-01", 30), (3, 2, None, 7)],
        )
        connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?)", [(1, 1, 7, 4.5), (2, 2, 12, 30), (3, 3, 0, 0.5)])
        _OPEN.append(connection)
    return _OPEN[0]


def test_aliases_follow_the_order_of_mention() -> None:
    encoded = solver("Show the age and name of customers by country")
    tokens = encode_answer(encoded, Answer(sql="SELECT age, name FROM customer ORDER BY age"))
    assert tokens == ("select", "a0", ",", "a1", "from", "b0", "order_by", "a0", "<eos>")


def test_a_hint_is_placed_behind_its_term_and_others_are_dropped() -> None:
    hint = "active customer means status = 'A'"
    other = ("inactive customer means status = 'C'", "net margin means total - age", "late order means day > 5")
    plain, hinted = solver("How many active customers?"), solver("How many active customers?", hint, *other)
    assert "v0" not in plain.tokens
    at = hinted.tokens.index("active")
    assert hinted.tokens[at : at + 9] == ("active", "customer", "b0", "(", "status", "a0", "=", "v0", "a0")
    assert hinted.binding.values == ["A"]
    answer = Answer(sql="SELECT COUNT(*) FROM customer WHERE status = 'A'")
    assert encode_answer(hinted, answer) == ("select", "count", "*", "from", "b0", "where", "a0", "=", "v0", "<eos>")
    # Without the hint the same answer is still sayable: by the place of the value among the column's values.
    assert encode_answer(plain, answer)[-3:] == ("=", "u0", "<eos>")
    assert decode_answer(plain, encode_answer(plain, answer)).sql == answer.sql


def test_slots_are_stable_or_shuffled_by_seed() -> None:
    question = "How many marshmallow customers?"
    assert solver(question).tokens == solver(question).tokens
    assert solver(question, seed=1).tokens == solver(question, seed=1).tokens
    assert solver(question, seed=1).tokens != solver(question, seed=2).tokens
    first, second = solver(question), solver("Which regions have the most marshmallow customers?")
    assert first.tokens[: first.schema_tokens] == second.tokens[: second.schema_tokens]
    word = next(token for token in first.tokens if token[0] == "w" and token[1:].isdigit())
    assert word in second.tokens


def test_values_numbers_and_cells_become_slots() -> None:
    values = (Value("Norway", "region", "country"),)
    encoded = solver("customers from norway older than twenty or with 1,200 orders on 2021-05-06", values=values)
    assert encoded.binding.values == ["Norway", "20", "1200", "2021-05-06"]
    sql = (
        "SELECT customer.name FROM customer JOIN region ON customer.region_id = region.region_id "
        "WHERE region.country = 'Norway'"
    )
    assert decode_answer(encoded, encode_answer(encoded, Answer(sql=sql))).sql == sql


def test_a_value_outside_the_prompt_is_spelled_or_refused() -> None:
    encoded = solver("How many large orders?")
    tokens = encode_answer(encoded, Answer(sql="SELECT COUNT(*) FROM orders WHERE total > 500"))
    assert tokens[-5:] == (">", "#5", "#0", "#0", "<eos>")
    with pytest.raises(Unsupported, match="Oslo"):
        encode_answer(encoded, Answer(sql="SELECT COUNT(*) FROM customer WHERE name = 'Oslo'"))


def test_a_query_that_names_unlinked_tables_is_completed() -> None:
    encoded = solver("Which regions have no orders?")
    orders = encoded.binding.table_slots[encoded.binding.index.table_ids["orders"]]
    region = encoded.binding.table_slots[encoded.binding.index.table_ids["region"]]
    sql = decode_answer(
        encoded, ("select", "count", "*", "from", region, "where", region, "not_in", "(", "from", orders, ")")
    ).sql
    assert sql == (
        "SELECT COUNT(*) FROM region WHERE region_id NOT IN (SELECT customer.region_id FROM customer JOIN orders "
        "ON orders.customer_id = customer.customer_id)"
    )
    assert not isinstance(_meaning(sql), str)


@pytest.mark.parametrize(
    "tokens",
    [
        "",
        "select",
        "select a99 from b0",
        "select count * from b0 limit",
        "select v9 = from",
        "select count * b0",
        "right",
    ],
)
def test_malformed_answers_are_refused(tokens: str) -> None:
    with pytest.raises(Unsupported):
        decode_answer(solver("How many customers?"), tokens.split())


def test_the_critic_reads_query_and_result_and_says_what_is_wrong() -> None:
    fields = Fields(
        "critic",
        SHOP,
        question="How many customers are there?",
        sql="SELECT name FROM region",
        result="0 rows, 1 column",
    )
    encoded = encode(fields)
    assert encoded.tokens[-6:] == (
        "from",
        encoded.binding.table_slots[1],
        "<result>",
        "rows_0",
        "cols_1",
        "<criticise>",
    )
    answer = Answer("SELECT COUNT(*) FROM customer", "wrong", ("select", "from"))
    assert decode_answer(encoded, encode_answer(encoded, answer)) == answer
    assert decode_answer(encoded, encode_answer(encoded, Answer(verdict="right"))) == Answer(verdict="right")
    broken = encode(Fields("critic", SHOP, question="How many?", sql="SELEC", result="error: no such column: x"))
    assert broken.tokens[-6:] == ("<sql>", "?", "<result>", "error", "no_column", "<criticise>")


@pytest.mark.parametrize(
    "hint",
    [
        "active customer means status = 'A'",
        "revenue means quantity * unit_price",
        "turnover means sum(quantity * unit_price)",
        "moment means the column day",
        "client means the table customer",
        "homeless customer means customer.region_id is null",
        "",
    ],
)
def test_the_reflector_says_hints_in_words(hint: str) -> None:
    right = "SELECT COUNT(*) FROM customer JOIN orders ON orders.customer_id = customer.customer_id WHERE status = 'A'"
    fields = Fields("reflector", SHOP, question="Show active customers", sql="SELECT name FROM customer", right=right)
    encoded = encode(fields)
    assert decode_answer(encoded, encode_answer(encoded, Answer(hint=hint))).hint == hint
    column = next(k for k, place in encoded.binding.columns.items() if encoded.binding.index.details[place].values)
    with pytest.raises(Unsupported, match="no value u9"):
        decode_answer(encoded, ["active", "means", column, "=", "u9", "<eos>"])


def test_the_proposer_says_a_question_and_its_query() -> None:
    encoded = encode(Fields("proposer", SHOP, level=2))
    assert encoded.tokens[-3:] == ("<level>", "#2", "<propose>")
    answer = Answer(
        "SELECT COUNT(*) FROM customer WHERE status = 'C' AND age > 40",
        question="How many customers with age above 40 have status 'C'?",
    )
    back = decode_answer(encoded, encode_answer(encoded, answer))
    assert back.sql == answer.sql
    assert back.question == "How many customer with age above 40 have status 'C'?"
    with pytest.raises(Unsupported, match="unknown words"):
        encode_answer(encoded, Answer(answer.sql, question="How many marshmallows melt?"))


def test_of_a_large_schema_the_prompt_shows_what_the_question_speaks_of() -> None:
    tables = tuple(
        Table(f"tab{n}", tuple(C(f"col{n}_{m}", "int") for m in range(12)), (f"col{n}_0",)) for n in range(40)
    )
    schema = Schema(
        tables, tuple(ForeignKey(f"tab{n}", f"col{n}_1", f"tab{n + 1}", f"col{n + 1}_0") for n in range(39))
    )
    encoded = encode(Fields("solver", schema, question="What is the largest col33_7 of tab33?"))
    assert len(encoded.binding.own_columns) <= MAX_COLUMNS and len(encoded.tokens) < 260
    sql = "SELECT MAX(col33_7) FROM tab33"
    assert decode_answer(encoded, encode_answer(encoded, Answer(sql=sql))).sql == sql
    with pytest.raises(Unsupported, match="not in the prompt"):
        encode_answer(encoded, Answer(sql="SELECT MAX(col20_7) FROM tab20"))


def test_more_columns_in_a_question_than_there_are_slots_are_refused() -> None:
    names = [f"zzz{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(140)]
    schema = Schema((Table("wide", tuple(C(name, "int") for name in names)),))
    with pytest.raises(Unsupported, match="140 columns in one prompt, limit 128"):
        encode(Fields("solver", schema, question=" and ".join(names)))
    with pytest.raises(Unsupported, match="no table"):
        encode(Fields("solver", Schema(()), question="anything"))


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=120), st.lists(st.text(max_size=60), max_size=3))
def test_any_question_and_hint_can_be_encoded(question: str, hints: list[str]) -> None:
    encoded = solver(question, *hints)
    assert set(encoded.tokens) <= set(VOCABULARY)
    assert len(encoded.ids) == len(encoded.tokens)


def test_all_columns_of_a_table_are_one_slot() -> None:
    encoded = solver("Show all information about orders")
    tokens = encode_answer(encoded, Answer(sql="SELECT * FROM orders WHERE total > 5"))
    assert tokens == ("select", "b0", "from", "b0", "where", encoded.binding.column_slots[11], ">", "#5", "<eos>")
    assert decode_answer(encoded, tokens).sql == "SELECT order_id, customer_id, day, total FROM orders WHERE total > 5"
