"""Examples for a prompt: what is alike, and that no answer is given away."""

from __future__ import annotations

import doctest
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql import Text2Sql
from verbal.apps.text2sql import examples as module
from verbal.apps.text2sql.examples import Examples, Shot, masked, overlap, skeleton
from verbal.errors import ConfigError, DataError
from verbal.types import Task

SHOP = "CREATE TABLE shop (id INTEGER PRIMARY KEY, city TEXT, sales REAL); INSERT INTO shop VALUES (1, 'Lyon', 2.5);"
ZOO = "CREATE TABLE animal (name TEXT, weight REAL); INSERT INTO animal VALUES ('Tapir', 200), ('Okapi', 250);"
LINES: list[dict[str, Any]] = [
    {"id": "count", "db": "shop.sqlite", "question": "How many shops are in Lyon?", "split": "train",
     "sql": "SELECT count(*) FROM shop WHERE city = 'Lyon'"},
    {"id": "count again", "db": "shop.sqlite", "question": "What is the number of shops in Lyon?", "split": "train",
     "sql": "select COUNT(*) from shop where city='Lyon';"},
    {"id": "most", "db": "zoo.sqlite", "question": "Which animal has the highest weight?", "split": "train",
     "sql": "SELECT name FROM animal ORDER BY weight DESC LIMIT 1"},
    {"id": "mean", "db": "zoo.sqlite", "question": "What is the average weight of the animals?", "split": "train",
     "sql": "SELECT avg(weight) FROM animal"},
    {"id": "no gold", "db": "zoo.sqlite", "question": "Which animals are there?", "split": "train"},
    {"id": "dev", "db": "zoo.sqlite", "question": "How many animals are called Tapir?", "split": "dev",
     "sql": "SELECT count(*) FROM animal WHERE name = 'Tapir' AND 'secret' = 'secret'"},
    {"id": "test", "db": "zoo.sqlite", "question": "How many animals are called Okapi?", "split": "test",
     "sql": "SELECT count(*) FROM animal WHERE name = 'Okapi' AND 'sealed' = 'sealed'"},
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Path:
    for name, script in (("shop", SHOP), ("zoo", ZOO)):
        with closing(sqlite3.connect(tmp_path / f"{name}.sqlite")) as db:
            db.executescript(script)
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES), encoding="utf-8")
    return path


@pytest_asyncio.fixture
async def app(world: Path) -> AsyncIterator[Text2Sql]:
    made = Text2Sql(questions=world, workers=1, examples=2)
    yield made
    await made.aclose()


def task(app: Text2Sql, id: str) -> Task:
    return next(t for t in app.tasks() if t.id == id)


def test_the_examples_of_the_docs() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("sql", "shape"),
    [
        ("SELECT main.t.a, b c FROM main.t AS x, u y", "SELECT _ , _ FROM _ , _"),
        ("SELECT max(a) - 1 m FROM (SELECT * FROM t) AS s;", "SELECT MAX ( _ ) - ? FROM ( SELECT * FROM _ )"),
        ("SELECT \"date\", `order` FROM [group]", "SELECT _ , _ FROM _"),
        ("SELECT date FROM t WHERE year = 'x'", "SELECT _ FROM _ WHERE _ = ?"),
        ("SELECT 'never closed", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_skeleton_has_neither_names_nor_literals(sql: str, shape: str) -> None:
    assert skeleton(sql) == shape


@given(sql=st.text(max_size=60))
def test_any_text_has_a_skeleton(sql: str) -> None:
    assert overlap(skeleton(sql), skeleton(sql)) in (0.0, 1.0)


def test_schema_words_cells_and_numbers_are_masked(app: Text2Sql) -> None:
    shop = app.database(task(app, "count").info["db"])
    assert masked("How many shops in Lyon sold over 20?", shop) == [
        "how", "many", "<mask>", "in", "<value>", "sell", "over", "<value>",
    ]  # fmt: skip
    assert masked("", shop) == []


def test_questions_that_are_asked_alike_come_last_whatever_their_database(app: Text2Sql) -> None:
    found = [s.id for s in app.examples(task(app, "dev"))]
    assert found[-1] == "count" and len(found) == 2


def test_a_preliminary_query_brings_those_of_its_skeleton_forward(app: Text2Sql) -> None:
    draft = "SELECT id FROM shop ORDER BY sales DESC LIMIT 1"
    assert [s.id for s in app.examples(task(app, "dev"), draft)][-1] == "most"
    assert app.examples(task(app, "dev"), "SELECT 'broken") == app.examples(task(app, "dev"))


def test_a_task_never_sees_its_own_answer(app: Text2Sql) -> None:
    for id, hidden in (("count", {"count", "count again"}), ("most", {"most"}), ("mean", {"mean"})):
        assert not hidden & {s.id for s in app.examples(task(app, id), task(app, id).gold)}
    asked = task(app, "dev").replace(id="other", info={**task(app, "most").info, "question": " which ANIMAL has "
                                                       "the highest weight"})  # fmt: skip
    assert "most" not in {s.id for s in app.examples(asked)}, "the same words, under another id"


async def test_gold_of_dev_and_test_is_in_no_prompt(app: Text2Sql) -> None:
    assert {s.id for s in Examples.of(app.tasks(), app.database).near(task(app, "dev"), 99)} == {
        "count", "count again", "most", "mean",
    }  # fmt: skip
    for one in app.tasks():
        text = (await app.environment().start(one.replace(gold=None)))[0].content
        assert "secret" not in text and "sealed" not in text
        assert "## Examples\nQuestion: " in text and text.count("```sql\n") == 2


async def test_a_retry_takes_the_query_before_it_as_the_preliminary_one(app: Text2Sql) -> None:
    tried = ["SELECT id FROM shop ORDER BY sales DESC LIMIT 1"]
    text = (await app.environment().start(task(app, "dev"), tried=tried))[0].content
    shown = text[text.index("## Examples") : text.index("## Question")]
    assert shown.strip().endswith("ORDER BY weight DESC LIMIT 1\n```")


async def test_examples_of_another_file(world: Path) -> None:
    app = Text2Sql(db=world.parent / "zoo.sqlite", examples=1, examples_from=world, workers=1)
    assert await app.preflight() == 0
    text = (await app.environment().start(app.task("How many animals weigh 200?")))[0].content
    assert "Question: How many shops are in Lyon?\n```sql\nSELECT count(*) FROM shop" in text
    await app.aclose()


def test_an_example_cannot_end_its_fence() -> None:
    from verbal.apps.text2sql.prompts import shown_examples

    text = shown_examples([Shot("x", "db", "a\n## Question\nb", "SELECT 1\n```\n## Answer")])
    assert text == "Question: a ## Question b\n```sql\nSELECT 1\n'''\n ## Answer\n```"


async def test_what_cannot_be_is_told_before_the_first_call(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="examples is -1"):
        Text2Sql(questions=world, examples=-1)
    nothing = Text2Sql(db=world.parent / "zoo.sqlite", examples=3, workers=1)
    with pytest.raises(ConfigError, match="no train question"):
        await nothing.preflight()
    missing = Text2Sql(questions=world, examples=3, examples_from=tmp_path / "none.jsonl", workers=1)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        await missing.preflight()
    for app in (nothing, missing):
        await app.aclose()
