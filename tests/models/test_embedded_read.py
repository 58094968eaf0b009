"""Prompts as text: the package's own templates, filled, come back as the fields they were filled with."""

import sqlite3

import pytest

from verbal.apps.text2sql.prompts import Prompts
from verbal.apps.text2sql.values import Database
from verbal.contracts import Observation
from verbal.models.embedded.ast import Unsupported
from verbal.models.embedded.codec import Answer
from verbal.models.embedded.fields import Column, ForeignKey, Value
from verbal.models.embedded.read import fences, read_prompt, read_schema, write_reply
from verbal.types import Message, Reflection, Task

HINTS = [
    Reflection(id="r1", text="active customer means status = 'A'", task="t1"),
    Reflection(id="r2", text="big order means total < 5 </hint> & more", task="t1", boundary="returns"),
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("""
        CREATE TABLE region (code TEXT PRIMARY KEY, "the name" VARCHAR(20));
        CREATE TABLE customer (
          customer_id INTEGER PRIMARY KEY, status TEXT, joined DATE, region TEXT REFERENCES region (code),
          total DECIMAL(10, 2), note TEXT);
        CREATE TABLE visit (visit_id INTEGER PRIMARY KEY, customer_id INTEGER);
        INSERT INTO region VALUES ('N', 'O''Neil, North'), ('S', 'South');
    """)
    cells = [(n, "ACP"[n % 3], f"20{10 + n}-01-04", "NS"[n % 2], n * 1.5, f"note {n}") for n in range(1, 15)]
    connection.executemany("INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?)", cells)
    connection.execute("INSERT INTO visit VALUES (1, 2)")
    connection.commit()
    connection.close()
    return Database(path)


def task(question: str) -> Task:
    return Task(id="t", kind="text2sql", messages=(), info={"question": question})


def told(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


def test_schema_text_becomes_tables_with_types_values_and_keys(database: Database) -> None:
    schema = read_schema(database.schema)
    region, customer, visit = schema.tables
    assert region.columns == (
        Column("code", "text", ("N", "S")),
        Column("the name", "text", ("O'Neil, North", "South")),
    )
    assert customer.primary_key == ("customer_id",)
    assert [(column.name, column.type) for column in customer.columns] == [
        ("customer_id", "int"), ("status", "text"), ("joined", "date"), ("region", "text"), ("total", "real"),
        ("note", "text"),
    ]  # fmt: skip
    assert customer.columns[1].values == ("A", "C", "P") and customer.columns[5].values == ()
    declared = ForeignKey("customer", "region", "region", "code")
    inferred = ForeignKey("visit", "customer_id", "customer", "customer_id")
    assert schema.foreign_keys == (declared, inferred) and visit.name == "visit"


def test_solver_prompt(database: Database) -> None:
    asked = task("How many active customers are in the South?")
    fields = read_prompt(told(Prompts().solver(database, asked, HINTS, ["SELECT 1", "SELECT *\nFROM customer"])))
    assert fields.role == "solver" and fields.question == "How many active customers are in the South?"
    assert fields.hints == ("active customer means status = 'A'", "big order means total < 5 </hint> & more")
    assert fields.tried == ("SELECT 1", "SELECT *\nFROM customer")
    assert Value("South", "region", "the name") in fields.values
    assert fields.schema == read_schema(database.schema)


def test_answers_given_earlier_in_the_conversation_count_as_tried(database: Database) -> None:
    messages = Prompts().solver(database, task("How many?"))
    talk = [*told(messages), ("assistant", "```sql\nSELECT 2\n```"), ("user", "That was wrong. Try again.")]
    assert read_prompt(talk).tried == ("SELECT 2",)
    assert read_prompt(told(messages)).tried == ()


def test_critic_reflector_proposer_and_judge_prompts(database: Database) -> None:
    asked, seen = task("How many customers?"), Observation(text="1 row, 1 column: (14)", done=True)
    critic = read_prompt(told(Prompts().critic(database, asked, "SELECT COUNT(*) FROM visit", seen, HINTS[:1])))
    assert (critic.role, critic.sql, critic.result) == ("critic", "SELECT COUNT(*) FROM visit", "1 row, 1 column: (14)")
    reflector = read_prompt(
        told(Prompts().reflector(database, asked, "SELECT 1", seen, "SELECT COUNT(*)\nFROM customer"))
    )
    assert (reflector.role, reflector.sql, reflector.right) == (
        "reflector",
        "SELECT 1",
        "SELECT COUNT(*)\nFROM customer",
    )
    proposer = read_prompt(told(Prompts().proposer(database, 4)))
    assert (proposer.role, proposer.level) == ("proposer", 4)
    judge = read_prompt(told(Prompts().judge(database, asked, ["SELECT 1", "SELECT\n2"])))
    assert (judge.role, judge.candidates) == ("judge", ("SELECT 1", "SELECT 2"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Write a poem.", "# Role"),
        ("# Role: pirate\n## Schema\nCREATE TABLE a (\n  b INT\n);", "pirate"),
        ("# Role: solver\n## Schema\nnone\n## Question\nHow?", "CREATE TABLE"),
    ],
)
def test_other_prompts_are_refused(text: str, word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        read_prompt([("user", text)])


def test_replies_follow_the_form_that_each_role_asks_for() -> None:
    fence = "```sql\nSELECT 1\n```"
    assert write_reply("solver", Answer("SELECT 1")) == fence
    assert write_reply("critic", Answer(verdict="right")) == "VERDICT: right"
    wrong = Answer("SELECT 1", "wrong", ("where", "select"))
    assert write_reply("critic", wrong) == f"VERDICT: wrong\nCLAUSES: where, select\n{fence}"
    assert write_reply("reflector", Answer(hint="a means b")) == "HINT: a means b"
    assert write_reply("reflector", Answer()) == "HINT: none"
    assert write_reply("proposer", Answer("SELECT 1", question="Why?")) == f"QUESTION: Why?\n{fence}"
    assert fences(f"text\n{fence}\nmore\n```\nSELECT 2\n```") == ["SELECT 1", "SELECT 2"]
