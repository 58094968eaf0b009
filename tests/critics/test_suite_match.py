"""Suite match: what the app says of all states, as feedback."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from verbal.contracts import CriticContext, Match
from verbal.critics.suite_match import SuiteMatch
from verbal.types import Attempt, Feedback, StopReason, Task

TASK = Task(id="t", kind="text2sql", messages=(), gold="SELECT secret FROM t", split="train")


async def judge(
    verdicts: Sequence[Match], answers: Sequence[str], task: Task = TASK, **options: bool
) -> list[Feedback]:
    asked: list[list[str]] = []

    async def match(seen: Task, texts: Sequence[str]) -> list[Match]:
        asked.append(list(texts))
        return list(verdicts)

    group = [Attempt(id=str(i), run="r", task="t", answer=text) for i, text in enumerate(answers)]
    said = await SuiteMatch(**options).evaluate(task, group, CriticContext(match=match))
    assert asked in ([], [[text for text in answers if text.strip()]]), "one question for the whole group"
    return said


async def test_values_words_and_states() -> None:
    wrong = Match(
        False, "on another state of the database (b.sqlite): the query returns no rows", 2, "b.sqlite", {"rows": 0}
    )
    said = await judge([Match(True, "right", 3, parts={"rows": 1}), wrong], ["SELECT 1", " ", "SELECT 2"])
    assert [f.value for f in said] == [1.0, 0.0, 0.0]
    assert said[0].parts == {"rows": 1.0, "states": 3.0} and said[2].parts["states"] == 2.0
    assert said[1].text == "there is no query" and "b.sqlite" in said[2].text
    assert all(f.oracle and f.source == "gold" and not f.correction for f in said)


async def test_what_cannot_be_said_is_none_with_a_reason() -> None:
    assert (await judge([Match(None, "the gold query does not run")], ["SELECT 1"]))[0].reason.startswith("the gold")
    assert (await judge([], ["SELECT 1"], TASK.replace(gold=" ")))[0].reason == "the task has no gold answer"
    alone = Attempt(id="a", run="r", task="t", answer="SELECT 1")
    (said,) = await SuiteMatch().evaluate(TASK, [alone], CriticContext())
    assert said.value is None and "no match in the context" in said.reason
    broken = alone.replace(answer="", stop=StopReason.ERROR, error="server down")
    (said,) = await SuiteMatch().evaluate(TASK, [broken], CriticContext())
    assert said.reason == "the attempt ended without an answer: server down"


@pytest.mark.parametrize(("split", "shown"), [("train", True), ("dev", True), ("test", False)])
async def test_gold_is_shown_only_where_asked_and_never_of_a_test_task(split: str, shown: bool) -> None:
    task = TASK.replace(split=split)
    (said,) = await judge([Match(False, "wrong")], ["SELECT 1"], task, show_gold=True)
    assert bool(said.correction) is shown and "secret" not in said.text
    (said,) = await judge([Match(True, "right")], ["SELECT 1"], task, show_gold=True)
    assert not said.correction
