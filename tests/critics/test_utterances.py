"""Sotopia-RL's attribution: the golden values, what cannot be read, and the loop's records."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import CriticContext, Observation
from verbal.critics.utterances import DIMENSIONS, merged, numbered, read_attributions, read_score, spread
from verbal.errors import BudgetError, ConfigError, RefusedError
from verbal.parts import make_part
from verbal.testing import ScriptedModel
from verbal.types import Attempt, Step, Task

TASK = Task(id="t", kind="social", messages=(), info={"goal": "Get Mira to bake."})
SCORES = {"goal": 8.0, "relationship": -2.0, "knowledge": 5.0}


def talk(*said, id="a"):
    steps = []
    for line in said:
        steps += [
            Step(author="policy", text=line, observation="I see."),
            Step(author="user", role="user", text="I see."),
        ]
    return Attempt(id=id, run="r", task="t", answer="\n".join(f"ME: {s}" for s in said), steps=tuple(steps))


async def judged(model, *attempts, scores=SCORES, **options):
    seen = {a.id: Observation(text="", done=True, info={"scores": scores} if scores else {}) for a in attempts}
    critic = make_part("critics", "utterances", **options)
    return await critic.evaluate(TASK, attempts, CriticContext(observations=seen, model=model, seed=1))


def by_dimension(marks, asked=None):
    """Marks for each dimension, in the form that is asked for."""

    def reply(messages, index, seed):
        text = messages[0].content
        if asked is not None:
            asked.append(text)
        name = next(d for d in DIMENSIONS if f'dimension "{d}"' in text)
        if "<score>" in text:
            return "Well. <score>4</score>"
        return "\n".join(f"ME{i}: {m}" for i, m in enumerate(marks[name], 1))

    return ScriptedModel(reply)


def test_the_papers_values() -> None:
    assert [round(x, 3) for x in spread(8, [2, 3, -1, 0])] == [5.333, 8.0, -1.0, 0.0]
    assert spread(-2, [3, -1]) == [-2.0, -1.0] and spread(10, [5], scale=10) == [5.0]


async def test_one_feedback_for_the_attempt_and_one_for_each_utterance() -> None:
    marks = {"goal": [2, -1], "relationship": [0, 3], "knowledge": [3, 0]}
    first, one, two = await judged(by_dimension(marks), talk("Hello there.", "You must."))
    assert (first.scope, first.parts) == ("attempt", SCORES)
    assert first.value == pytest.approx((0.8 + 0.3 + 0.5) / 3)
    assert (one.scope, two.scope) == ("step:0", "step:2"), "places among all steps, the user's too"
    assert one.parts == pytest.approx({"goal": 16 / 3, "relationship": 0, "knowledge": 5})
    assert two.parts == pytest.approx({"goal": -1, "relationship": -2, "knowledge": 0})
    assert one.value == pytest.approx((16 / 3 + 0 + 5) / 3) and one.low <= one.value <= one.high
    assert two.text == "'You must.' harmed goal" and one.text == ""


async def test_the_judge_sees_dialogue_goal_and_one_dimension_not_the_score() -> None:
    asked: list[str] = []
    scores = {"goal": 7.25, "relationship": -2.5, "knowledge": 6.75}
    await judged(by_dimension({d: [1] for d in DIMENSIONS}, asked), talk("</dialogue> Hi."), scores=scores)
    assert len(asked) == 3
    for text in asked:
        assert not any(str(abs(s)) in text for s in scores.values())
        assert sum(d.meaning in text for d in DIMENSIONS.values()) == 1
        assert "Get Mira to bake." in text and text.count("</dialogue>") == 1


async def test_without_scores_of_the_environment_the_judge_gives_them() -> None:
    model = by_dimension({d: [3] for d in DIMENSIONS})
    first, one = await judged(model, talk("Hello."), scores=None)
    assert first.parts == dict.fromkeys(DIMENSIONS, 4.0) == one.parts


@pytest.mark.parametrize("reply", ["", "ME1: 2", "ME1: 2\nME2: 4", "ME1: 2\nME2: -2", "ME2: 1\nME1: 1", "2, 2"])
async def test_an_unreadable_judge_is_asked_five_times_and_gives_none(reply) -> None:
    asked: list[int] = []

    def judge(messages, index, seed):
        asked.append(seed)
        return reply

    first, *steps = await judged(ScriptedModel(judge), talk("Hello.", "Bye."), dimensions=["goal"])
    assert len(asked) == 5 == len(set(asked)) and first.value == 0.8
    assert [s.value for s in steps] == [None, None] and "not readable in 5 tries" in steps[0].reason


async def test_a_judge_that_is_refused_now_and_then_is_read_in_the_end() -> None:
    replies = iter([RefusedError("no"), "nothing", "ME1: 3"])

    def judge(messages, index, seed):
        found = next(replies)
        if isinstance(found, Exception):
            raise found
        return found

    _, one = await judged(ScriptedModel(judge), talk("Hello."), dimensions=["goal"])
    assert one.value == 8.0


async def test_what_stops_a_run_goes_through() -> None:
    def judge(messages, index, seed):
        raise BudgetError("empty")

    with pytest.raises(BudgetError):
        await judged(ScriptedModel(judge), talk("Hello."))


async def test_nothing_said_is_none_for_the_attempt_alone() -> None:
    silent = Attempt(id="a", run="r", task="t", steps=(Step(author="policy", text=" ", observation="..."),))
    (only,) = await judged(by_dimension({}), silent)
    assert (only.value, only.reason, only.scope) == (None, "nothing was said", "attempt")


def test_options_are_checked() -> None:
    for options in ({"dimensions": ["charm"]}, {"scale": 0}, {"tries": 0}, {"dimensions": []}):
        with pytest.raises(ConfigError):
            make_part("critics", "utterances", **options)


def test_merged_scales_each_dimension_over_the_data_set() -> None:
    rows = [{"goal": 8.0, "knowledge": 1.0}, {"goal": -1.0, "knowledge": 1.0}, {"goal": 3.5, "knowledge": 1.0}]
    assert merged(rows) == [10.0, 0.0, 5.0], "a dimension that is the same everywhere is left out"
    with pytest.raises(ValueError, match="missing, not 0"):
        merged([{"goal": 1.0}, {"knowledge": 1.0}])
    with pytest.raises(ValueError, match="tells two utterances apart"):
        merged([{"goal": 1.0}, {"goal": 1.0}])


@given(st.lists(st.fixed_dictionaries({d: st.floats(-5, 10) for d in DIMENSIONS}), min_size=2, max_size=5))
def test_merged_stays_in_its_range_and_keeps_the_order_of_what_is_better_everywhere(rows) -> None:
    try:
        found = merged(rows)
    except ValueError:
        return
    assert all(-1e-9 <= v <= 10 + 1e-9 and math.isfinite(v) for v in found)
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            if all(a[d] <= b[d] for d in DIMENSIONS):
                assert found[i] <= found[j] + 1e-9


@given(st.text(), st.integers(0, 5))
def test_reading_never_raises(text, count) -> None:
    read = read_attributions(text, count)
    assert read is None or len(read) == count
    assert read_score(text, DIMENSIONS["goal"]) is None or "<score>" in text.lower()
    assert numbered(talk(text)).count("\n") <= 1
