"""Checks without gold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from verbal.contracts import Critic, CriticContext, Observation
from verbal.critics.self_check import RUNS
from verbal.parts import make_part
from verbal.types import Attempt, Feedback, StopReason, Task


def check(
    question: str, rows: list[list[Any]], columns: list[str] | None = None, *, answer: str = "SELECT 1", **info: Any
) -> Feedback:
    critic = make_part("critics", "self_check")
    assert isinstance(critic, Critic) and critic.oracle is False
    names = columns or [f"c{i}" for i in range(len(rows[0]) if rows else 1)]
    made = {"columns": names, "rows": rows, "error": None, "truncated": False, **info}
    task = Task(id="t", kind="text2sql", messages=(), gold="SELECT secret", info={"question": question})
    attempt = Attempt(id="a", run="r", task="t", answer=answer)
    context = CriticContext(observations={"a": Observation(text="", done=True, info=made)})
    (feedback,) = asyncio.run(critic.evaluate(task, [attempt], context))
    assert "secret" not in feedback.text and feedback.oracle is False
    assert feedback.value is None or 0.0 <= feedback.value <= 1.0
    return feedback


def test_a_plausible_answer_gets_1() -> None:
    feedback = check("How many customers are there?", [[12]])
    assert feedback.value == 1.0
    assert feedback.text == "the query runs and its result has a plausible shape"
    assert feedback.parts == {"runs": 1, "rows": 1, "values": 1, "columns": 1, "whole": 1, "count": 1}


@pytest.mark.parametrize(
    ("question", "rows", "columns", "info", "check_name", "words"),
    [
        ("Names?", [], None, {}, "rows", "the result is empty"),
        ("Names?", [[None], [None]], None, {}, "values", "every cell is NULL"),
        ("Names?", [[1, 2]], ["a", "a"], {}, "columns", "columns of the same name"),
        ("Names?", [list(range(20))], None, {}, "columns", "very many"),
        ("Names?", [[1]], None, {"truncated": True}, "whole", "longer than what is fetched"),
        ("How many are there?", [[1], [2]], None, {}, "count", "not one number"),
        ("What is the number of orders?", [["x"]], None, {}, "count", "not one number"),
        ("What is the average price?", [["x"]], None, {}, "number", "no column is a number"),
        ("Show the names of the three oldest.", [["a"]] * 4, None, {}, "top", "asks for 3"),
        ("Show the top 2 products.", [["a"]] * 4, None, {}, "top", "asks for 2"),
    ],
)
def test_what_is_odd_lowers_the_value_and_is_said(
    question: str, rows: list[list[Any]], columns: list[str] | None, info: dict[str, Any], check_name: str, words: str
) -> None:
    feedback = check(question, rows, columns, **info)
    assert feedback.value is not None and RUNS <= feedback.value < 1.0
    assert words in feedback.text
    assert feedback.parts[check_name] == 0.0


@pytest.mark.parametrize(
    "question",
    ["How many orders are there for each city?", "How many products does each have? List the name and number."],
)
def test_a_count_for_each_is_not_one_number(question: str) -> None:
    assert check(question, [["a", 1], ["b", 2]]).value == 1.0


def test_failing_and_missing_answers() -> None:
    failed = check("a", [], error="no such table: x")
    assert (failed.value, failed.text, failed.parts) == (0.0, "the query fails: no such table: x", {"runs": 0.0})
    assert check("a", [[1]], answer=" ").value == 0.0


async def test_attempts_without_answer_or_observation() -> None:
    critic = make_part("critics", "self_check")
    task = Task(id="t", kind="text2sql", messages=())
    broken = Attempt(id="a", run="r", task="t", stop=StopReason.ERROR, error="server down")
    unseen = Attempt(id="b", run="r", task="t", answer="SELECT 1")
    said = await critic.evaluate(task, [broken, unseen], CriticContext())
    assert [(feedback.value, bool(feedback.reason)) for feedback in said] == [(None, True), (None, True)]

    async def execute(task: Task, sql: str) -> Observation:
        return Observation(text="", done=True, info={"columns": ["a"], "rows": [[1]], "error": None})

    (feedback,) = await critic.evaluate(task, [unseen], CriticContext(execute=execute))
    assert feedback.value == 1.0
