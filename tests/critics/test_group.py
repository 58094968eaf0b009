"""Listwise judging: PaVeRL-SQL's acceptance checks."""

from __future__ import annotations

import doctest
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import CriticContext, Observation
from verbal.critics import group as group_module
from verbal.critics.group import GroupJudge, fingerprint, majority, mean_scores, pick, read_marks, sections
from verbal.errors import ConfigError
from verbal.models.scripted import ScriptedModel
from verbal.types import Attempt, Feedback, Message, Step, Task

PROMPT = "# Role: solver\n## Schema\nt (a)\n## Values\nnone\n## Hints\nnone\n## Question\nHow many?\n## Answer\n"
TASK = Task(id="t", kind="text2sql", messages=(Message(role="user", content=PROMPT),), info={"question": "How many?"})
MARKS = {"SELECT 1": 0.2, "SELECT 2": 0.9, "SELECT 3": 0.4}
CANDIDATE = re.compile(r"^SQL(\d+): (.+)$", re.MULTILINE)


def candidates(messages: Sequence[Message]) -> list[str]:
    text = messages[0].content
    listed = text[text.index("<candidates>") :] if "<candidates>" in text else text[text.index("## Candidates") :]
    return [sql for _, sql in CANDIDATE.findall(listed.split("</candidates>")[0])]


def fair(messages: Sequence[Message], index: int, seed: int | None) -> str:
    """Knows the mark of each query, in whatever place it stands."""
    return "Comparing.\n" + "\n".join(f"SQL{i}: {MARKS[sql]:.2f}" for i, sql in enumerate(candidates(messages)))


def seen(rows: list[list[Any]] | None, error: str | None = None) -> Observation:
    info = {"columns": ["a"], "rows": rows or [], "error": error}
    return Observation(text="", done=True, info=info if rows is not None or error else {})


async def judged(
    model: Any, answers: Sequence[str] = tuple(MARKS), results: Sequence[Any] = (), seed: int = 0, **options: Any
) -> list[Feedback]:
    group = [Attempt(id=f"a{i}", run="r", task="t", answer=answer) for i, answer in enumerate(answers)]
    observed = {a.id: seen(rows) for a, rows in zip(group, results, strict=False) if rows is not None}
    made = model if hasattr(model, "generate") else ScriptedModel(model)
    return await GroupJudge(**options).evaluate(
        TASK, group, CriticContext(model=made, observations=observed, seed=seed)
    )


def test_the_examples_of_the_docs() -> None:
    assert doctest.testmod(group_module).failed == 0


def test_means_pick_index_1() -> None:
    scores = mean_scores([[0.2, 0.9], [0.4, 0.8]])
    assert scores == pytest.approx([0.30, 0.85])
    assert {pick(scores, random.Random(seed)) for seed in range(50)} == {1}


def test_a_tie_is_drawn_evenly() -> None:
    drawn = [pick([0.7, 0.7], random.Random(seed)) for seed in range(1000)]
    assert 450 <= sum(drawn) <= 550
    assert {pick([0.1 + 0.2, 0.3], random.Random(seed)) for seed in range(20)} == {0, 1}, "noise of floats is a tie"


def test_the_majority_is_the_first_answer_with_the_most_frequent_result() -> None:
    assert majority(["B", "A", "A", "B", "A"], random.Random(0)) == 1
    assert majority([None, None, "B"], random.Random(0)) == 2
    assert majority([None], random.Random(0)) is None and majority([], random.Random(0)) is None
    assert {majority(["A", "B"], random.Random(seed)) for seed in range(20)} == {0, 1}


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("SQL0: 0.20\nSQL1: 0.90", [0.2, 0.9]),
        ("think\n\nsql0: 1\nsql1: .5\n\n", [1.0, 0.5]),
        ("```\nSQL0: 0.20\nSQL1: 0.90\n```", [0.2, 0.9]),
        ("- **SQL0**: 0.2\n- **SQL1**: 0.9", [0.2, 0.9]),
        ("First I thought SQL0: 0.99\nbut\nSQL0: 0.20\nSQL1: 0.90", [0.2, 0.9]),
        ("SQL0: 0.20", None),
        ("SQL1: 0.20\nSQL2: 0.90", None),
        ("SQL1: 0.20\nSQL0: 0.90", None),
        ("SQL0: 0.20\nSQL1: 0.90\nSQL2: 0.10", None),
        ("SQL0: 0.20\nSQL1: high", None),
        ("SQL0: 0.20\nSQL1: 9", None),
        ("SQL0: 0.20\nSQL1: -0.5", None),
        ("SQL0: 0.20\nSQL1: 0.90\nSo the second.", None),
        ("", None),
    ],
)
def test_marks_are_read_strictly(text: str, marks: list[float] | None) -> None:
    assert read_marks(text, 2) == marks


@given(marks=st.lists(st.integers(0, 100), min_size=1, max_size=12), think=st.text(max_size=40))
def test_what_was_asked_for_is_read(marks: list[int], think: str) -> None:
    text = think.replace("SQL", "") + "\n.\n" + "\n".join(f"SQL{i}: {mark / 100:.2f}" for i, mark in enumerate(marks))
    assert read_marks(text, len(marks)) == [mark / 100 for mark in marks]


@pytest.mark.parametrize("seed", range(5))
async def test_orders_are_shuffled_and_undone(seed: int) -> None:
    orders: list[list[str]] = []

    def listen(messages: Sequence[Message], index: int, seed: int | None) -> str:
        orders.append(candidates(messages))
        return fair(messages, index, seed)

    feedback = await judged(listen, passes=6, seed=seed)
    assert [f.value for f in feedback] == pytest.approx(list(MARKS.values()))
    assert [f.parts["chosen"] for f in feedback] == [0.0, 1.0, 0.0], "the winner, never just the first"
    assert len({tuple(order) for order in orders}) > 1 and all(sorted(order) == sorted(MARKS) for order in orders)
    assert [f.parts["passes"] for f in feedback] == [6.0] * 3


async def test_a_judge_that_favours_a_place_is_levelled_out() -> None:
    def first(messages: Sequence[Message], index: int, seed: int | None) -> str:
        return "\n".join(f"SQL{i}: {1.0 if i == 0 else 0.0:.2f}" for i in range(3))

    feedback = await judged(first, passes=300)
    assert all(0.2 < f.value < 0.47 for f in feedback if f.value is not None)


class Faulty:
    """Answers well on every n-th call only."""

    name = "test/faulty"

    def __init__(self, every: int) -> None:
        self.every, self.calls, self.inner = every, 0, ScriptedModel(fair)

    async def generate(self, messages: Any, n: int, sampling: Any) -> Any:
        self.calls += 1
        model = self.inner if self.calls % self.every == 0 else ScriptedModel(["SQL0: 0.9"])
        return await model.generate(messages, n, sampling)


async def test_only_valid_passes_count_and_calls_are_capped() -> None:
    half = Faulty(2)
    feedback = await judged(half, passes=4)
    assert [f.value for f in feedback] == pytest.approx(list(MARKS.values()))
    assert {f.parts["passes"] for f in feedback} == {4.0} and half.calls <= 12
    assert {f.parts["calls"] for f in feedback} == {float(half.calls)}
    rare = Faulty(5)
    feedback = await judged(rare, passes=2)
    assert rare.calls == 6, "three times as many calls as passes wanted, no more"
    assert [f.value for f in feedback] == pytest.approx(list(MARKS.values())), "the mean divides by valid passes"
    assert {f.parts["passes"] for f in feedback} == {1.0}


async def test_without_a_valid_pass_the_results_vote() -> None:
    answers = [f"SELECT {i}" for i in range(5)]
    rows = [[["B"]], [["A"]], [["A"]], [["B"]], [["A"]]]
    feedback = await judged(["no"], answers, rows, passes=2)
    assert [f.value for f in feedback] == pytest.approx([0.4, 0.6, 0.6, 0.4, 0.6])
    assert [f.parts["chosen"] for f in feedback] == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert feedback[0].text == "no valid pass in 6 calls; 2 of 5 answers have this result"


async def test_without_pass_and_result_there_is_no_number() -> None:
    feedback = await judged(["no"], passes=1)
    assert {(f.value, f.reason) for f in feedback} == {(None, "no valid pass in 3 calls, and no result to vote by")}
    feedback = await judged([{"error": "refused"}], ["a", "b"], [[["A"]], None], passes=1)
    assert [f.value for f in feedback] == [1.0, None]
    assert "the last failed" in feedback[0].text and "no result" in feedback[1].reason


async def test_one_answer_is_not_compared_and_empty_ones_are_not_shown() -> None:
    model = ScriptedModel(fair)
    assert [f.reason for f in await judged(model, ["SELECT 1", " "])] == ["fewer than two answers to compare"] * 2
    assert model.calls == 0
    feedback = await judged(model, ["SELECT 1", "", "SELECT 2"], passes=1)
    assert [f.value for f in feedback] == [0.2, None, 0.9]


async def test_equal_results_may_be_judged_once() -> None:
    model = ScriptedModel(fair)
    answers, rows = ["SELECT 1", "SELECT 2", "SELECT 3"], [[["A"]], [["B"]], [["A"]]]
    feedback = await judged(model, answers, rows, passes=2, distinct=True)
    assert [f.value for f in feedback] == pytest.approx([0.2, 0.9, 0.2])
    assert [f.parts["copies"] for f in feedback] == [2.0, 1.0, 2.0]
    feedback = await judged(model, answers, [[["A"]]] * 3, passes=2, distinct=True)
    assert {f.reason for f in feedback} == {"fewer than two answers to compare"}


async def test_the_prompt_of_the_sql_app_can_be_used() -> None:
    asked: list[str] = []

    def listen(messages: Sequence[Message], index: int, seed: int | None) -> str:
        asked.append(messages[0].content)
        return fair(messages, index, seed)

    feedback = await judged(listen, prompt="text2sql/judge", passes=1)
    assert [f.value for f in feedback] == pytest.approx(list(MARKS.values()))
    assert asked[0].startswith("# Role: judge") and "## Schema\nt (a)\n" in asked[0] and "How many?" in asked[0]


async def test_hints_that_the_policy_saw_are_shown_to_the_judge() -> None:
    asked: list[str] = []

    def listen(messages: Sequence[Message], index: int, seed: int | None) -> str:
        asked.append(messages[0].content)
        return fair(messages, index, seed)

    prompt = (Message(role="user", content=PROMPT.replace("## Hints\nnone", "## Hints\nvip means tier = 3")),)
    group = [
        Attempt(id=a, run="r", task="t", answer=a, steps=(Step(author="policy", text=a, prompt=prompt),)) for a in MARKS
    ]
    await GroupJudge(passes=1).evaluate(TASK, group, CriticContext(model=ScriptedModel(listen)))
    assert "vip means tier = 3" in asked[0]


async def test_bad_configuration_is_told() -> None:
    with pytest.raises(ConfigError, match="passes 0"):
        GroupJudge(passes=0)
    with pytest.raises(ConfigError, match="no model"):
        await GroupJudge().evaluate(TASK, [], CriticContext())
    with pytest.raises(ConfigError, match=r"wants '(sql|guidance)'"):
        await judged(fair, prompt="text2sql/reflector")


def test_fingerprints() -> None:
    assert fingerprint(seen([[1], [2]])) == fingerprint(seen([[2], [1]])) != fingerprint(seen([[2], [2]]))
    assert fingerprint(None) is fingerprint(seen(None)) is fingerprint(seen([[1]], error="x")) is None


def test_the_last_section_of_a_name_counts() -> None:
    assert sections("## A b\n1\n## C\n## A b\n2") == {"a_b": "2", "c": ""}
