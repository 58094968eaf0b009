"""Refine and Imitate: the table of rewards, what the detectors find, the refining step, and groups of candidates."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import CriticContext
from verbal.critics.persuasion import LONG, SHORT, Checked, check, refine, reward, standardised
from verbal.parts import make_part
from verbal.types import Attempt, Step, Task

TASK = Task(id="t", kind="social", messages=(), info={"goal": "g", "opening": "Yes?"})
PLAIN = Checked(False, False, False, (), 8)


@pytest.mark.parametrize(
    ("checked", "options", "value"),
    [
        (PLAIN, {"human": True}, 10.0),
        (PLAIN, {}, 2.0),
        (PLAIN._replace(strategies=("logical",)), {}, 4.0),
        (PLAIN._replace(strategies=("inquiry",)), {}, 2.0),
        (PLAIN._replace(strategies=("inquiry", "story")), {}, 4.0),
        (PLAIN._replace(repeats=True), {"fallback": True}, 0.5),
        (PLAIN._replace(repeats=True), {}, -2.0),
        (PLAIN._replace(contradicts=True, strategies=("logical",)), {}, -2.0),
        (PLAIN._replace(beside=True), {}, -2.0),
        (PLAIN._replace(words=60), {}, -3.0),
        (PLAIN._replace(words=51), {"human": True}, -3.0),
        (PLAIN._replace(words=50), {}, 2.0),
        (PLAIN._replace(words=2, repeats=True), {"fallback": True}, -3.0),
        (PLAIN._replace(words=3), {}, 2.0),
    ],
)
def test_the_table(checked, options, value) -> None:
    assert reward(checked, **options) == value


def test_the_detectors() -> None:
    said = ["The shelter feeds forty people every night."]
    assert check("Every night the shelter feeds forty people.", said).repeats
    assert check("The shelter does not feed people every night.", said).contradicts
    assert not check("What would help you to decide?", said).repeats
    assert check("Cats like warm milk.", (), "How much money do you need?").beside
    assert not check("The money needed is small.", (), "How much money do you need?").beside
    assert not check("Because of the roof.", (), "Why now?").beside
    assert check("It was measured: costs fell by a third. Would you?").strategies == ("logical", "inquiry")


def test_refining_says_the_best_candidate_and_one_stands_in_where_none_passes() -> None:
    said = ["Please give us a little money today."]
    again, asks, told = (
        "Please give us a little money today.",
        "What holds you back?",
        "It was measured in three towns.",
    )
    assert refine([again, asks, told], said) == (2, [-2.0, 2.0, 4.0])
    assert refine([again, asks, told], said, human=asks) == (1, [-2.0, 10.0, 4.0])
    assert refine([again, again + " Please."], said) == (0, [0.5, -2.0])
    assert refine([again, again, told], said, least=3) == (2, [0.5, 0.5, 4.0])
    assert refine(["Yes.", again], said) == (1, [-3.0, 0.5])
    with pytest.raises(ValueError, match="no candidate"):
        refine([])


def test_a_batch_is_standardised() -> None:
    found = standardised([4.0, 2.0, -2.0, -3.0])
    assert fmean(found) == pytest.approx(0) and fmean(x * x for x in found) == pytest.approx(1)
    assert standardised([2.0, 2.0]) == [0.0, 0.0] and standardised([1.0]) == [0.0]


@given(st.text(), st.lists(st.text(), max_size=3), st.text(), st.booleans(), st.booleans())
def test_every_text_has_a_reward_of_the_table(text, said, heard, human, fallback) -> None:
    found = check(text, said, heard)
    value = reward(found, human=human, fallback=fallback)
    assert value in (10.0, 4.0, 2.0, 0.5, -2.0, -3.0)
    assert (value == -3.0) == (found.words <= SHORT or found.words > LONG)


def attempt(id, *pairs):
    steps = tuple(
        itertools.chain.from_iterable(
            (Step(author="policy", text=a, observation=b), Step(author="user", role="user", text=b)) for a, b in pairs
        )
    )
    return Attempt(id=id, run="r", task="t", steps=steps)


async def test_sentences_after_the_same_dialogue_are_candidates_for_one_turn() -> None:
    yes = ("We have three figures for you.", "I see.")
    group = [
        attempt("one", yes, ("We have three figures for you.", "Again?")),
        attempt("two", yes, ("A friend of mine stood there.", "Hm.")),
        attempt("alone", ("What matters to you?", "Time."), ("What matters to you?", "I said it.")),
        attempt("none"),
    ]
    found = await make_part("critics", "persuasion").evaluate(TASK, group, CriticContext())
    values = {(f.attempt, f.scope): f.value for f in found}
    assert values["one", "step:2"] == -2.0, "another candidate of that turn passes"
    assert values["two", "step:2"] == 4.0 == values["one", "step:0"]
    assert values["alone", "step:2"] == 0.5, "nobody else says anything there"
    assert values["none", "attempt"] is None and values["one", "attempt"] == 1.0
    assert [f.attempt for f in found if f.scope == "attempt"] == ["one", "two", "alone", "none"]
    assert next(f for f in found if f.attempt == "one").text == "repeats in 50% of the sentences"
