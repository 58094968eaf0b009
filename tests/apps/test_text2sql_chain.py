"""Attempts of several turns: DIN-SQL's four, DAIL-SQL's two, alone and through the loop."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from verbal.apps.text2sql import Text2Sql
from verbal.contracts import Environment, Reply
from verbal.errors import ConfigError, EnvironmentFault, UnknownName
from verbal.estimate import estimate
from verbal.models.scripted import ScriptedModel
from verbal.recipe import load_recipe
from verbal.run import learn, open_workshop
from verbal.store import Store
from verbal.types import Message, Reflection, StopReason, Task

QUESTIONS = [
    {"id": "t1", "question": "How many are in Lyon?", "sql": "SELECT count(*) FROM t WHERE city = 'Lyon'",
     "split": "train"},
    {"id": "t2", "question": "How many are there?", "sql": "SELECT count(*) FROM t", "split": "train"},
    {"id": "t3", "question": "Which city has the highest amount?", "split": "train",
     "sql": "SELECT city FROM t ORDER BY amount DESC LIMIT 1"},
]  # fmt: skip
LINKED, CLASSED = "LINKS: t.city, 'Lyon'", "CLASS: simple"
QUERY = "```sql\nSELECT count(*) FROM t WHERE city = 'lyon'\n```"
RIGHT = "It is written Lyon.\n```sql\nSELECT count(*) FROM t WHERE city = 'Lyon'\n```"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as db:
        db.executescript("CREATE TABLE t (city TEXT, amount REAL); INSERT INTO t VALUES ('Lyon', 1), ('Ulm', 2);")
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({**q, "db": "t.sqlite"}) + "\n" for q in QUESTIONS), encoding="utf-8")
    return path


@pytest_asyncio.fixture
async def din(file: Path) -> AsyncIterator[Text2Sql]:
    app = Text2Sql(questions=file, workers=1, chain="din")
    yield app
    await app.aclose()


async def played(app: Text2Sql, *replies: str):
    """The opening prompt, and what each reply is answered with."""
    world = app.environment()
    assert isinstance(world, Environment)
    opening = await world.start(app.tasks()[0], hints=[Reflection(id="r1", text="near is Lyon")], tried=["SELECT 7"])
    seen = [await world.step(Reply(text=reply)) for reply in replies]
    await world.aclose()
    return opening[0].content, seen


async def test_din_links_classes_writes_and_corrects(din: Text2Sql) -> None:
    opening, seen = await played(din, LINKED, CLASSED, QUERY, RIGHT)
    assert opening.startswith("# Role: linker\n") and "'Lyon' in t.city" in opening
    assert "near is Lyon" in opening and "SELECT 7" in opening
    assert [s.done for s in seen] == [False, False, False, True]
    assert seen[0].text.startswith("Second step.") and "It needs one table" in seen[1].text
    assert "SELECT count(*) FROM t WHERE city = 'lyon'" in seen[2].text and "1 row, 1 column: (0)" in seen[2].text
    assert seen[2].answer.endswith("'lyon'"), "the draft counts if the attempt ends here"
    assert seen[3].answer.endswith("'Lyon'") and seen[3].info["rows"] == [[1]]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("CLASS: nested", "each sub-question"),
        ("**CLASS:** Joined.", "name the joins"),
        ("it is easy", "No class could be read"),
        ("CLASS: impossible", "No class could be read"),
    ],
)
async def test_the_class_decides_how_the_query_is_asked_for(din: Text2Sql, said: str, told: str) -> None:
    _, seen = await played(din, LINKED, said)
    assert told in seen[-1].text


async def test_replies_that_break_off_the_chain_are_observations(din: Text2Sql) -> None:
    for replies, text, answer in (
        ([" "], "error: the reply is empty", ""),
        ([LINKED, ""], "error: the reply is empty", ""),
        ([LINKED, CLASSED, "none"], "error: the reply holds no query: no closed block that starts with ```sql", ""),
    ):
        _, seen = await played(din, *replies)
        assert (seen[-1].done, seen[-1].text, seen[-1].answer) == (True, text, answer)
    _, seen = await played(din, LINKED, CLASSED, RIGHT, "It is right as it is.")
    assert seen[-1].done and seen[-1].answer.endswith("'Lyon'") and "it stands" in seen[-1].text
    _, seen = await played(din, LINKED, CLASSED, "```sql\nSELECT x FROM t\n```", RIGHT)
    assert "error: no such column: x" in seen[2].text and seen[3].info["rows"] == [[1]]


async def test_an_environment_is_used_once_and_started_first(din: Text2Sql) -> None:
    world = din.environment()
    with pytest.raises(EnvironmentFault, match="not started"):
        await world.step(Reply(text="x"))
    await world.start(din.tasks()[0])
    with pytest.raises(EnvironmentFault, match="one task"):
        await world.start(din.tasks()[0])


async def test_dail_asks_again_after_examples_for_the_first_query(file: Path) -> None:
    app = Text2Sql(questions=file, workers=1, chain="dail", examples=1)
    opening, seen = await played(app, "```sql\nSELECT amount FROM t ORDER BY city DESC LIMIT 1\n```", RIGHT)
    assert opening.startswith("# Role: solver\n") and "## Examples" not in opening
    assert "Question: Which city has the highest amount?" in seen[0].text and not seen[0].done
    assert seen[1].done and seen[1].info["rows"] == [[1]]
    _, seen = await played(app, "no idea", "none")
    assert "Question: How many are there?" in seen[0].text, "without a first query the question decides"
    assert "holds no query" in seen[1].text
    await app.aclose()


def test_chains_that_make_no_sense(file: Path) -> None:
    with pytest.raises(UnknownName, match="chain 'dim'") as caught:
        Text2Sql(questions=file, chain="dim")
    assert "din" in caught.value.todo
    for chain, examples in (("din", 3), ("dail", 0)):
        with pytest.raises(ConfigError, match=f"'{chain}' with {examples}"):
            Text2Sql(questions=file, chain=chain, examples=examples)


def chain_reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
    """A model that follows each turn's instruction; its first query is wrong, its last one right."""
    last = messages[-1].content
    if last.startswith("# Role: linker"):
        return LINKED
    if last.startswith("Second step."):
        return CLASSED
    if last.startswith(("Last step.", "Here are questions")):
        return RIGHT
    return QUERY


@pytest.mark.parametrize(("name", "turns"), [("din", 4), ("dail", 2)])
async def test_the_recipes_end_to_end(file: Path, tmp_path: Path, name: str, turns: int) -> None:
    given = [f"app.options.questions='{file}'", "app.options.workers=1"]
    if name == "dail":
        given.append("app.options.examples=1")
    model = ScriptedModel(chain_reply)
    with Store(tmp_path / "v.db") as store:
        async with open_workshop(load_recipe(name, given), store, run="r", model=model) as shop:
            tasks = [t for t in shop.app.tasks() if t.id == "t1"]
            expected = await estimate(shop, tasks, passes={"learn": 1})
            assert (expected.calls_low, expected.calls_high) == (turns, turns)
            summary = await learn(shop, tasks, run="r")
            again = model.calls
            await learn(shop, tasks, run="r")
        (attempt,) = store.attempts("r")
    assert (summary.solved, len(attempt.steps), attempt.stop) == (1, turns, StopReason.ANSWERED)
    assert attempt.answer == "SELECT count(*) FROM t WHERE city = 'Lyon'"
    assert attempt.usage.calls == again == model.calls == turns, "a finished run is not paid for again"
    prompt = "\n".join(m.content for m in attempt.steps[-1].prompt)
    shown = re.findall(r"^Question: (.*)$", prompt, re.MULTILINE)
    assert QUESTIONS[0]["question"] not in shown, "its own gold is no example"


async def test_fewer_turns_than_the_chain_has_leave_its_draft(file: Path, tmp_path: Path) -> None:
    given = [f"app.options.questions='{file}'", "app.options.workers=1", "loop.turns=3"]
    with Store(tmp_path / "v.db") as store:
        model = ScriptedModel(chain_reply)
        async with open_workshop(load_recipe("din", given), store, run="r", model=model) as shop:
            await learn(shop, shop.app.tasks()[:1], run="r")
            (attempt,) = store.attempts("r")
            assert (attempt.stop, attempt.answer[-6:]) == (StopReason.STEP_LIMIT, "'lyon'")
            assert store.feedback([attempt.id])[attempt.id][0].value == 1.0, "self_check saw the draft's result"


async def test_gold_is_not_in_a_chain(din: Text2Sql) -> None:
    secret = din.tasks()[0].replace(gold="SELECT 'top_secret'")
    assert isinstance(secret, Task)
    opening, seen = await played(din, LINKED, CLASSED, QUERY, RIGHT)
    assert not any("top_secret" in text for text in (opening, *(s.text for s in seen)))


async def test_a_group_of_chains_lies_within_its_estimate(file: Path, tmp_path: Path) -> None:
    given = [f"app.options.questions='{file}'", "app.options.chain='din'", "app.options.workers=1", "loop.samples=3"]
    model = ScriptedModel(chain_reply)
    with Store(tmp_path / "v.db") as store:
        async with open_workshop(load_recipe("majority", [*given, "model.cache='off'"]), store, run="r",
                                 model=model) as shop:  # fmt: skip
            expected = await estimate(shop, shop.app.tasks()[:1], passes={"learn": 1})
            summary = await learn(shop, shop.app.tasks()[:1], run="r")
        made = store.attempts("r")
    assert expected.calls_low <= model.calls == 1 + len(made) * 3 <= expected.calls_high
    assert summary.solved == 1 and {len(a.steps) for a in made} == {4}
