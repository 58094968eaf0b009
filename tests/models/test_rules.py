"""An app's player by rules as a model: every role answered, offline, the same every time, free."""

from __future__ import annotations

import pytest

from verbal.apps.social import Social
from verbal.contracts import Model, Observation, Sampling
from verbal.errors import ConfigError, UnknownName
from verbal.models import ModelCalls, open_model, parse_model
from verbal.types import Message, Reflection

APP = Social()
TASK = APP.tasks()[0]
SEEN = Observation(text="Goodbye. (left)", done=True)


def test_it_is_named_by_its_app() -> None:
    made = open_model("rules:social")
    assert isinstance(made, Model) and made.name == "scripted/rules-social"
    assert made.fingerprint == open_model("rules:social").fingerprint != ""  # type: ignore[attr-defined]
    assert parse_model("rules:social").config == {"app": "social"}
    price = ModelCalls(made).price
    assert price is not None and price.prompt == price.completion == 0.0


@pytest.mark.parametrize("name", ["rules:", "rules:a/b", "rules"])
def test_other_forms_are_no_model(name: str) -> None:
    with pytest.raises(ConfigError):
        parse_model(name)


def test_an_app_that_is_not_there_or_plays_by_no_rules() -> None:
    with pytest.raises(UnknownName):
        open_model("rules:socal")
    with pytest.raises(ConfigError, match="plays by no rules"):
        open_model("rules:text2sql")


@pytest.mark.parametrize(
    ("role", "fields"),
    [
        ("solver", {}),
        ("critic", {"attempt": TASK.gold, "observation": SEEN}),
        ("reflector", {"attempt": TASK.gold, "observation": SEEN, "correction": ""}),
        ("proposer", {"level": 3}),
        ("judge", {"answers": [TASK.gold]}),
    ],
)
async def test_every_role_is_answered_in_its_form_and_alike(role, fields) -> None:
    prompt = APP.messages(role, TASK, **fields)
    first, again = [(await open_model("rules:social").generate(prompt, 1, Sampling(seed=5)))[0].text for _ in range(2)]
    assert first == again and APP.parse(role, first, n=1) is not None


async def test_words_decide_what_the_solver_says() -> None:
    model = open_model("rules:social")
    hint = Reflection(id="r1", text="With such a person: first listening, question; never reason.")
    opening = APP.messages("solver", TASK, hints=[hint])
    (reply,) = await model.generate(opening, 1, Sampling(seed=1))
    assert reply.text == "I hear you, and there is no hurry."
    talk = [*opening, Message(role="assistant", content=reply.text), Message(role="user", content="Hm.")]
    (second,) = await model.generate(talk, 1, Sampling(seed=1))
    assert second.text == "What would have to be different for you?"
