"""Whether a lesson fits a message: its situation, whom is written to, boundaries, messages that go on."""

from __future__ import annotations

import pytest
from chat_world import agent, turn
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.chat import Understanding
from verbal.apps.chat.fit import Fitting, expanded, fits, goes_on
from verbal.apps.chat.wording import says, told
from verbal.errors import UnknownName
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.store import Store
from verbal.types import MemoryOp, Reflection


def item(when, boundary="", id="r1", text="no emojis"):
    return Reflection(id=id, text=text, when=when, boundary=boundary)


BOSS, CUSTOMERS = "you write to my boss", "mails to customers"


@pytest.mark.parametrize(
    ("when", "message", "fit"),
    [
        (BOSS, "Write a mail to my boss that I am late", True), (BOSS, "Tell my boss in a message that I'm ill", True),
        (BOSS, "Write an email to my manager", True), (BOSS, "Send my boss a short status", True),
        (BOSS, "Write a story about a boss who learns", False), (BOSS, "Write a mail to my sister", False),
        (BOSS, "What does my boss earn?", False), (BOSS, "Write a mail to my sister about my boss", False),
        (CUSTOMERS, "write to our clients that we moved", True),
        (CUSTOMERS, "How many customers opened the mail?", False),
        (CUSTOMERS, "Write a letter to my cousin about our customers", False),
        ("you write code", "Show me a function that sorts", True), ("answers", "What is 2+2?", True),
        ("", "anything", True),
        ("mails to my boss; letters to friends", "Draft a letter to an old friend", True),
        ("summaries", "Please summarise this", True), ("recipes", "Write a poem", False),
    ],
)  # fmt: skip
def test_a_situation_fits_by_its_telling_words(when, message, fit):
    assert fits(item(when), message) is fit


def test_boundaries_shut_out_and_a_turn_that_goes_on_carries():
    bound = item("mails to my boss", "a birthday; thank-you cards")
    assert fits(bound, "Write a mail to my boss") and not fits(bound, "Write a mail to my boss for her birthday")
    assert not fits(item("", "poems"), "Write poems about rain") and fits(item("", "poems"), "Write a list")
    assert fits(bound, "shorter please", carried=True) and not fits(bound, "for her birthday, please", carried=True)
    for text in ("make it shorter", "and in German?", "again please", "try once more"):
        assert goes_on(text), text
    for text in (
        "What is the capital of France?",
        "And a mail to my sister",
        "Write a poem about that old house by the sea",
    ):
        assert not goes_on(text), text
    assert "boss" in expanded("my manager") and expanded("rain") == "rain"


@given(st.text(max_size=120), st.text(max_size=60), st.text(max_size=60))
def test_any_words_can_be_tried(message, when, boundary):
    assert fits(item(when, boundary), message) in (True, False)
    expanded(message)
    goes_on(message)
    told(item(when, boundary), "u1", "team")


async def test_the_newest_come_first_and_so_do_those_with_a_situation(tmp_path):
    with Store(tmp_path / "v.db") as store:
        memory = make_part("memory", "exact", store=store, name="m", quarantine=True)
        lessons = [item("", text="be kind"), item("recipes", text="use grams"), item("recipes", text="use cups")]
        lessons.append(item("code", text="use tabs"))
        await memory.apply([MemoryOp(op="ADD", item=x.replace(id=""), author="user") for x in lessons])
        mine = Fitting(memory, newest=True)
        asked = "Give me a recipe for soup"
        assert [r.text for r in await mine.search(asked, 9, status="quarantined")] == [
            "use cups",
            "use grams",
            "be kind",
        ]
        assert await mine.search(asked, 9) == [] and len(await mine.search(asked, 1, status="quarantined")) == 1
        judged = Fitting(memory, judged=True)
        assert len(await judged.search(asked, 9, status="quarantined")) == 4
        carried = Fitting(memory, {"r4"})
        assert {r.id for r in await carried.search("shorter", 9, status="quarantined")} == {"r1", "r4"}
        memory.close()


async def test_the_judgement_may_be_left_to_the_model(tmp_path):
    recipe = load_recipe("chat", ["app.options={fit='model'}"])
    with Store(tmp_path / "v.db") as store:
        async with agent(store, recipe=recipe) as made:
            await turn(made, "don't use emojis when you write to my boss")
            assert [x["when"] for x in (await turn(made, "Tell me a joke")).lessons] == ["you write to my boss"]
        with pytest.raises(UnknownName, match="judge of fit"):
            agent(store, recipe=load_recipe("chat", ["app.options={fit='oracle'}"]))


def test_what_is_said_of_nothing():
    assert "nothing was changed" in says(Understanding(kind="forget"), None, "")
    assert told(item("you write to my boss", "birthdays"), "t1", "team").startswith(
        "t1 your team's no emojis | when I write"
    )
