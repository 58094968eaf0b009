"""Votes over results, alike or by confidence, and when they are settled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import CriticContext, Observation
from verbal.critics.vote import Vote, confidence
from verbal.errors import UnknownName
from verbal.types import Attempt, Feedback, Step, Task

TASK = Task(id="t", kind="text2sql", messages=())


def seen(result: str | None) -> Observation:
    """`None` fails, an empty text is an empty result."""
    rows = [[result]] if result else []
    info = {"columns": ["a"], "rows": rows, "row_count": len(rows), "error": "no" if result is None else None}
    return Observation(text="", done=True, info=info)


def attempt(place: int, logprobs: Sequence[float] | None = None) -> Attempt:
    step = Step(author="policy", text="x", logprobs=None if logprobs is None else tuple(logprobs))
    return Attempt(id=f"a{place}", run="r", task="t", answer="SELECT 1", steps=(step,))


async def voted(results: Sequence[str | None], logprobs: Sequence[Sequence[float] | None] = (), **options: str):
    group = [attempt(i, logprobs[i] if logprobs else None) for i in range(len(results))]
    observed = {a.id: seen(r) for a, r in zip(group, results, strict=True)}
    found: list[Feedback] = await Vote(**options).evaluate(TASK, group, CriticContext(observations=observed))
    return found


async def test_the_majority_of_results_has_the_highest_value() -> None:
    feedback = await voted(["A", "B", "A", "B", "A", None])
    assert [f.value for f in feedback] == pytest.approx([0.6, 0.4, 0.6, 0.4, 0.6, 0.0])
    assert max(feedback, key=lambda f: f.value or 0).attempt == "a0", "the first whose result is A"
    assert [f.value for f in await voted(["", "", "B"])] == pytest.approx([1 / 3, 1 / 3, 1 / 3])


async def test_a_confident_answer_outvotes_two_unsure_ones() -> None:
    sure, unsure = [-0.01, -0.01], [-2.0, -3.0, -1.0]
    feedback = await voted(["A", "B", "B"], [sure, unsure, unsure], weights="confidence")
    a, b = math.exp(-0.01), math.exp(-2.0)
    assert [f.value for f in feedback] == pytest.approx([a / (a + 2 * b), 2 * b / (a + 2 * b), 2 * b / (a + 2 * b)])
    assert feedback[0].parts["weight"] == pytest.approx(a) and "confidence" in feedback[0].text
    plain = await voted(["A", "B", "B"], [sure, unsure, unsure])
    assert [f.value for f in plain] == pytest.approx([1 / 3, 2 / 3, 2 / 3])


async def test_without_log_probabilities_the_plain_vote_is_taken_and_said() -> None:
    feedback = await voted(["A", "B", "B"], [[-0.1], None, [-0.1]], weights="confidence")
    assert [f.value for f in feedback] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert all("votes count alike: the model gave no log-probabilities for 1 of 3" in f.text for f in feedback)
    feedback = await voted(["A", None, "B"], [[-0.1], None, [-0.1]], weights="confidence")
    assert "confidence" in feedback[0].text, "one that fails needs none"


def test_confidence_is_the_mean_over_tokens() -> None:
    assert confidence(attempt(0, [-1.0, -3.0])) == pytest.approx(math.exp(-2.0))
    assert confidence(attempt(0)) is confidence(attempt(0, [])) is None
    assert confidence(Attempt(id="a", run="r", task="t")) is None


def test_an_unknown_weight_is_an_error() -> None:
    with pytest.raises(UnknownName, match="confidence"):
        Vote(weights="confidnce")


@given(st.lists(st.sampled_from(["A", "B", "C", "", None]), max_size=8), st.integers(1, 5), st.data())
def test_settled_is_never_wrong(results: list[str | None], left: int, data: st.DataObject) -> None:
    def best(given: list[str | None]) -> str | None:
        worth = Counter[str]()
        for r in given:
            if r is not None:
                worth[r] += 2 if r else 1
        return max(worth, key=lambda r: worth[r]) if worth else None

    if Vote().settled([seen(r) for r in results], left):
        more = data.draw(st.lists(st.sampled_from(["A", "B", "C", "D", "", None]), min_size=left, max_size=left))
        assert best(results) == best(results + more)


def test_settled() -> None:
    assert Vote().settled([seen("A")] * 3, 2) and not Vote().settled([seen("A")] * 3, 3)
    assert not Vote().settled([seen("A"), seen("A"), seen("B")], 1) and not Vote().settled([], 1)
    assert not Vote(weights="confidence").settled([seen("A")] * 9, 1)


async def test_results_that_are_the_same_are_one_however_they_are_written() -> None:
    written = [([[5, "a"]], 2), ([[5.0, "a"]], 2), ([["a", 5]], 2), ([[0.1 + 0.2]], 1), ([[0.3]], 1)]
    group = [attempt(i) for i in range(len(written))]
    observed = {
        a.id: Observation(text="", done=True, info={"columns": ["c"] * width, "rows": rows, "row_count": 1})
        for a, (rows, width) in zip(group, written, strict=True)
    }
    found = await Vote().evaluate(TASK, group, CriticContext(observations=observed))
    assert [f.value for f in found] == pytest.approx([0.6, 0.6, 0.6, 0.4, 0.4])
    assert Vote().settled([*observed.values()][:3], 2)
