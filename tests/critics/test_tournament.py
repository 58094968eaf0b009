"""Pairs in both orders, points, early end."""

from __future__ import annotations

import doctest
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import CriticContext, Observation
from verbal.critics import tournament as tournament_module
from verbal.critics.tournament import Table, Tournament, rounds
from verbal.errors import BudgetError, ConfigError, TransientError
from verbal.models.scripted import ScriptedModel
from verbal.types import Attempt, Feedback, Message, Task

TASK = Task(id="t", kind="text2sql", messages=(Message(role="user", content="How many?"),))
MARKS = {"SELECT 1": 0.2, "SELECT 2": 0.9, "SELECT 3": 0.4, "SELECT 4": 0.1}


def pair(messages: Sequence[Message]) -> list[str]:
    return re.findall(r"^SQL\d+: (.+)$", messages[0].content.split("## Candidates")[1], re.MULTILINE)


def fair(messages: Sequence[Message], index: int, seed: int | None) -> str:
    return "Hm.\n" + "\n".join(f"SQL{i}: {MARKS[sql]:.2f}" for i, sql in enumerate(pair(messages)))


def by_place(messages: Sequence[Message], index: int, seed: int | None) -> str:
    return "SQL0: 0.90\nSQL1: 0.10"


async def judged(
    model: Any, answers: Sequence[str] = tuple(MARKS), results: Sequence[Any] = (), seed: int = 0, **options: Any
) -> list[Feedback]:
    group = [Attempt(id=f"a{i}", run="r", task="t", answer=answer) for i, answer in enumerate(answers)]
    seen = {
        a.id: Observation(text="", done=True, info={"columns": ["a"], "rows": [[r]], "error": None})
        for a, r in zip(group, results, strict=False)
    }
    made = model if hasattr(model, "generate") else ScriptedModel(model)
    return await Tournament(**options).evaluate(TASK, group, CriticContext(model=made, observations=seen, seed=seed))


def test_the_examples_of_the_docs() -> None:
    assert doctest.testmod(tournament_module).failed == 0


@pytest.mark.parametrize("count", range(2, 12))
def test_every_pair_meets_once_and_nobody_plays_twice_in_a_round(count: int) -> None:
    played = list(rounds(count))
    assert sorted(p for r in played for p in r) == [(a, b) for a in range(count) for b in range(a + 1, count)]
    for met in played:
        players = [p for game in met for p in game]
        assert len(players) == len(set(players))


@pytest.mark.parametrize("seed", range(4))
async def test_the_best_wins_its_pairs_in_both_orders(seed: int) -> None:
    model = ScriptedModel(fair)
    feedback = await judged(model, seed=seed, early=False)
    assert [f.value for f in feedback] == pytest.approx([1 / 3, 1.0, 2 / 3, 0.0])
    assert [f.parts["chosen"] for f in feedback] == [0.0, 1.0, 0.0, 0.0] and model.calls == 12
    assert {f.parts["swayed"] for f in feedback} == {0.0}


async def test_a_judge_that_goes_by_the_place_gives_half_points_only() -> None:
    feedback = await judged(by_place)
    assert [f.value for f in feedback] == [0.5] * 4 and {f.parts["swayed"] for f in feedback} == {6.0}
    chosen = {[f.parts["chosen"] for f in await judged(by_place, seed=s)].index(1.0) for s in range(30)}
    assert chosen == {0, 1, 2, 3}, "a tie of equal votes is drawn"


async def test_a_tie_goes_to_the_result_that_more_gave() -> None:
    feedback = await judged(by_place, list(MARKS), ["A", "B", "C", "B"])
    assert [f.value for f in feedback] == [0.5] * 4 and [f.parts["chosen"] for f in feedback] == [0.0, 1.0, 0.0, 0.0]
    assert [f.parts["votes"] for f in feedback] == [1.0, 2.0, 1.0, 2.0]


async def test_it_ends_when_nobody_can_reach_the_leader() -> None:
    names = [f"SELECT {i}" for i in range(8)]

    def first_is_best(messages: Sequence[Message], index: int, seed: int | None) -> str:
        marks = [1.0 if sql == names[0] else 0.5 for sql in pair(messages)]
        return f"SQL0: {marks[0]}\nSQL1: {marks[1]}"

    whole, early = ScriptedModel(first_is_best), ScriptedModel(first_is_best)
    a = await judged(whole, names, early=False)
    b = await judged(early, names)
    assert whole.calls == 56 and early.calls < 56
    assert [f.parts["chosen"] for f in a] == [f.parts["chosen"] for f in b]


@given(data=st.data(), count=st.integers(2, 5))
def test_decided_is_never_wrong(data: st.DataObject, count: int) -> None:
    """Whatever is judged after the end, also nothing, the leader keeps the highest share."""
    table = Table([0.0] * count, [0] * count, [2 * (count - 1)] * count)
    games = [g for met in rounds(count) for p in met for g in (p, p[::-1])]
    outcomes = data.draw(st.lists(st.sampled_from([1.0, 0.5, 0.0, None]), min_size=len(games), max_size=len(games)))
    leader = None
    for (a, b), outcome in zip(games, outcomes, strict=True):
        for player, points in ((a, outcome), (b, None if outcome is None else 1 - outcome)):
            table.left[player] -= 1
            if points is not None:
                table.points[player] += points
                table.judged[player] += 1
        shares = [p / n if n else 0.0 for p, n in zip(table.points, table.judged, strict=True)]
        if leader is None and table.decided():
            leader = shares.index(max(shares))
    if leader is not None:
        assert all(shares[leader] > s for i, s in enumerate(shares) if i != leader)


async def test_what_cannot_be_read_is_no_comparison() -> None:
    def sometimes(messages: Sequence[Message], index: int, seed: int | None) -> str:
        return "no idea" if "SELECT 4" in pair(messages) else fair(messages, index, seed)

    feedback = await judged(sometimes, early=False)
    assert [f.value for f in feedback] == [0.25 * 0, 1.0, 0.5, None]
    assert feedback[3].reason == "no comparison of this answer could be read"
    nothing = await judged(["no"], list(MARKS), ["A", "B", "B", "C"])
    assert [f.value for f in nothing] == pytest.approx([0.25, 0.5, 0.5, 0.25])
    assert "no comparison could be read in" in nothing[0].text
    refused = await judged([{"error": "refused"}])
    assert {f.value for f in refused} == {None} and "the last failed" in refused[0].reason


async def test_equal_results_play_once_and_one_result_plays_nobody() -> None:
    model = ScriptedModel(fair)
    feedback = await judged(model, list(MARKS), ["A", "B", "A", "A"])
    assert [f.value for f in feedback] == [0.0, 1.0, 0.0, 0.0] and model.calls == 2
    alone = await judged(model, list(MARKS), ["A"] * 4)
    assert {f.value for f in alone} == {None} and [f.parts.get("chosen") for f in alone] == [1.0, None, None, None]


@pytest.mark.parametrize("error", [BudgetError("spent"), TransientError("gone")])
async def test_what_a_resumed_run_can_do_again_stops_the_run(error: Exception) -> None:
    class Spent:
        async def generate(self, *_: Any) -> Any:
            raise error

    with pytest.raises(type(error)):
        await judged(Spent())


async def test_without_a_model_it_says_so() -> None:
    with pytest.raises(ConfigError, match="no model"):
        await Tournament().evaluate(TASK, [], CriticContext())
