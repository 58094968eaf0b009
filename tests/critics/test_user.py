"""Feedback of a person, real or simulated."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from verbal.contracts import CriticContext, Observation
from verbal.critics.user import User, read_corrections
from verbal.errors import ConfigError, CriticError, DataError
from verbal.types import Attempt, Feedback, Task

GOLD = "SELECT a FROM t WHERE a > 1 ORDER BY a"
TASK = Task(id="t1", kind="text2sql", messages=(), gold=GOLD)


async def execute(task: Task, answer: str) -> Observation:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript("CREATE TABLE t (a REAL); INSERT INTO t VALUES (1), (2), (3.0000000001), (NULL)")
        try:
            cursor = db.execute(answer)
            rows = [list(row) for row in cursor]
            info = {"columns": [d[0] for d in cursor.description], "rows": rows, "row_count": len(rows), "error": None}
        except sqlite3.Error as error:
            info = {"columns": [], "rows": [], "row_count": 0, "error": str(error)}
    return Observation(text="", done=True, info=info)


async def said(critic: User, answer: str, task: Task = TASK, run: bool = True) -> Feedback:
    attempt = Attempt(id="a", run="r", task=task.id, answer=answer)
    seen = {"a": await execute(task, answer)} if run and answer else {}
    context = CriticContext(observations=seen, execute=execute if run else None)
    (feedback,) = await critic.evaluate(task, [attempt], context)
    return feedback


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (GOLD, 1.0),
        ("select a from t where a >= 2 order by 1", 1.0),
        ("SELECT a FROM t WHERE a > 1 ORDER BY a DESC", 0.0),
        ("SELECT a, a FROM t WHERE a > 1 ORDER BY a", 0.0),
        ("SELECT a FROM t WHERE a > 99", 0.0),
        ("SELECT b FROM t", 0.0),
        ("SELECT round(a) FROM t WHERE a > 1 ORDER BY a", 1.0),
    ],
)
async def test_a_simulated_user_corrects_what_is_wrong(answer: str, value: float) -> None:
    feedback = await said(User(simulated=True), answer)
    assert feedback.value == value
    assert feedback.correction == ("" if value == 1.0 else GOLD)
    assert feedback.oracle and feedback.source == "user"


@pytest.mark.parametrize("split", ["dev", "test"])
async def test_a_simulated_user_knows_train_tasks_only(split: Any) -> None:
    feedback = await said(User(simulated=True), "SELECT 1", TASK.replace(split=split))
    assert feedback.value is None and not feedback.correction and not feedback.oracle
    assert split in feedback.reason or "train tasks only" in feedback.reason


async def test_nothing_is_learned_from_a_test_task_whoever_speaks() -> None:
    feedback = await said(User(lambda task, attempt: GOLD), "SELECT 1", TASK.replace(split="test"))
    assert (feedback.value, feedback.correction) == (None, "") and "sealed" in feedback.reason


async def test_empty_results_prove_nothing() -> None:
    critic = User(lambda task, attempt: "SELECT a FROM t WHERE a > 50")
    feedback = await said(critic, "SELECT a FROM t WHERE a > 60")
    assert feedback.value is None and feedback.reason == "both results are empty, which proves nothing"
    assert feedback.correction == "SELECT a FROM t WHERE a > 50"


async def test_a_correction_that_does_not_run_is_not_passed_on() -> None:
    feedback = await said(User(lambda task, attempt: "SELECT a FROM nowhere"), "SELECT 1")
    assert feedback.value is None and feedback.correction == ""
    assert "does not run: no such table" in feedback.reason


async def test_where_nothing_can_be_run_equal_texts_are_right() -> None:
    critic = User(simulated=True)
    assert (await said(critic, GOLD.replace(" ", "\n"), run=False)).value == 1.0
    feedback = await said(critic, "SELECT 1", run=False)
    assert feedback.value is None and feedback.correction == GOLD and "texts differ" in feedback.reason


async def test_results_that_were_cut_are_not_equal() -> None:
    critic = User(lambda task, attempt: "SELECT a FROM t")

    async def cut(task: Task, answer: str) -> Observation:
        seen = await execute(task, answer)
        return Observation(text="", done=True, info={**seen.info, "truncated": True})

    attempt = Attempt(id="a", run="r", task="t1", answer="SELECT a FROM t WHERE 1")
    context = CriticContext(observations={"a": await execute(TASK, attempt.answer)}, execute=cut)
    (feedback,) = await critic.evaluate(TASK, [attempt], context)
    assert (feedback.value, feedback.reason) == (None, "the results are too long to be compared")


async def test_a_person_may_say_words_or_a_grade() -> None:
    feedback = await said(User(lambda task, attempt: {"text": "Count customers once."}), "SELECT 1")
    assert (feedback.value, feedback.text, feedback.reason) == (
        None,
        "Count customers once.",
        "the user gave words only",
    )

    async def grade(task: Task, attempt: Attempt) -> dict[str, Any]:
        return {"value": 1, "text": f"fine: {attempt.answer}"}

    feedback = await said(User(grade), "SELECT 1")
    assert (feedback.value, feedback.text, feedback.oracle) == (1.0, "fine: SELECT 1", False)
    feedback = await said(User(lambda task, attempt: None), "SELECT 1")
    assert feedback.value is None and feedback.reason == "the user said nothing about this task"


@pytest.mark.parametrize("answer", [7, {"value": 2}, {"value": True}, {"words": "x"}, {}, {"text": 3}])
async def test_what_a_function_says_is_checked(answer: Any) -> None:
    with pytest.raises(CriticError, match="the user's function said"):
        await said(User(lambda task, attempt: answer), "SELECT 1")


async def test_a_file_of_corrections(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(
        '{"task": "t1", "correction": "SELECT 9"}\n\n{"task": "größe", "text": "ja"}\n'
        f'{{"task": "t1", "correction": "{GOLD}", "text": "two rows"}}\n',
        encoding="utf-8",
    )
    assert read_corrections(path) == {"t1": {"correction": GOLD, "text": "two rows"}, "größe": {"text": "ja"}}
    feedback = await said(User(str(path)), "SELECT 1")
    assert (feedback.value, feedback.correction, feedback.text, feedback.oracle) == (0.0, GOLD, "two rows", False)
    assert (await said(User(path), "SELECT 1", TASK.replace(id="t2"))).reason == "the user said nothing about this task"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{", "Expecting property name"),
        ("[]", "a line is an object"),
        ('{"correction": "x"}', 'with "task"'),
        ('{"task": "t"}', "it says nothing"),
        ('{"task": "t", "score": 1}', "unknown field 'score'"),
        ('{"task": "t", "value": 7}', "`value` is a number from 0 to 1"),
        ('{"task": "t", "correction": null}', "`correction` is a text"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, wrong: str) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(f'{{"task": "t1", "text": "x"}}\n{line}\n')
    with pytest.raises(DataError, match=wrong) as caught:
        User(path)
    assert caught.value.where == f"{path}, line 2"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes('{"task": "ü"}'.encode("latin-1"))
    for name in ("none.jsonl", "latin"):
        with pytest.raises(DataError, match="cannot be read"):
            User(tmp_path / name)


def test_one_source_of_feedback_is_needed() -> None:
    with pytest.raises(ConfigError, match="either corrections or simulated"):
        User()
    with pytest.raises(ConfigError):
        User(lambda task, attempt: None, simulated=True)
