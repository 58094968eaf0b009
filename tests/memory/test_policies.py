"""Retrieval policies: golden values of their sources, what no policy may show, ties, options."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError, UnknownName
from verbal.memory import policies
from verbal.memory.exact import ExactMemory
from verbal.memory.policies import POLICIES, make_policy, mmr, pareto_fronts, pareto_weights, value_scores
from verbal.memory.retrieval import tokens
from verbal.store import Store
from verbal.types import Attempt, Counters, MemoryOp, Reflection


def add(text: str, id: str = "", **fields: Any) -> MemoryOp:
    return MemoryOp(op="ADD", item=Reflection(id=id, text=text, **fields))


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "v.db") as store:
        yield store


async def ids(memory: ExactMemory, query: str, k: int = 9, **options: Any) -> list[str]:
    return [r.id for r in await memory.search(query, k, **options)]


@dataclass
class Found:
    """Candidates of one's own, for policies alone."""

    query: str = "q"
    k: int = 3
    near: dict[str, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def items(self) -> dict[str, Reflection]:
        return {i: Reflection(id=i, text=i, value=self.values.get(i)) for i in self.near}

    def fits(self, item_id: str) -> bool:
        return True

    def alike(self) -> list[str]:
        return list(self.near)

    def similarity(self, ids: Sequence[str]) -> dict[str, float]:
        return {i: self.near[i] for i in ids}

    def outcomes(self, item_id: str) -> Mapping[str, float]:
        return self.scores.get(item_id, {})


# value ----------------------------------------------------------------------------------------------------------------


def test_the_less_similar_item_wins_by_its_value() -> None:
    """Golden value of the notes on MemRL: similarity z (1, 0), Q (0, 0.6) give scores (0.0, 0.5)."""
    scores = value_scores({"a": 0.41, "b": 0.31}, {"a": 0.0, "b": 0.6}, sim_mean=0.31, sim_std=0.1)
    assert scores == pytest.approx({"a": 0.0, "b": 0.5})
    found = Found(near={"a": 0.41, "b": 0.31}, values={"b": 0.6})
    assert list(policies.value(found, sim_mean=0.31, sim_std=0.1, epsilon=0.0)) == ["b", "a"]  # type: ignore[arg-type]


def test_values_are_standardised_before_the_worst_are_left_out() -> None:
    values = {"a": -1.0, "b": 0.0, "c": 1.0}
    scores = value_scores(dict.fromkeys(values, 0.5), values, q_min=-0.8)
    assert set(scores) == {"b", "c"}
    assert scores["b"] == pytest.approx(0.0), "the mean of all three is 0; without `a` it would be 0.5"
    assert scores["c"] == pytest.approx(0.5 / (2 / 3) ** 0.5)


def test_a_value_far_out_is_clipped_and_no_spread_is_no_difference() -> None:
    values = {f"i{n:02}": float(n == 0) for n in range(20)}
    assert value_scores(dict.fromkeys(values, 0.2), values)["i00"] == pytest.approx(0.5 * 3), (
        "(1 - 0.05) / 0.218 = 4.36"
    )
    assert value_scores({"a": 0.3}, {"a": 7.0}) == {"a": 0.0}
    assert value_scores({}, {}) == {}


def test_only_what_is_near_enough_is_weighed() -> None:
    near = {"a": 0.9, "b": 0.5, "c": 0.4, "d": 0.1}
    found: Any = Found(near=near, values={"c": 9.0})
    assert list(policies.value(found, delta=0.95)) == [], "a threshold above all gives nothing"
    assert set(policies.value(found, delta=0.4)) == {"a", "b", "c"}
    assert set(policies.value(found, k1=2)) == {"a", "b"}, "the nearest two, whatever the others are worth"
    assert set(policies.value(found, k1=4, q_init=-1.0)) == {"c"}


def test_epsilon_one_gives_each_candidate_the_same_chance() -> None:
    near, values = {"a": 0.9, "b": 0.5, "c": 0.2}, {"a": 1.0}
    firsts = Counter(
        next(iter(policies.value(Found(query=f"q{n}", near=near, values=values), epsilon=1.0)))  # type: ignore[arg-type]
        for n in range(3000)
    )
    assert all(abs(firsts[i] - 1000) < 110 for i in near), firsts  # four standard deviations
    never = {next(iter(policies.value(Found(query=f"q{n}", near=near, values=values), epsilon=0.0))) for n in range(99)}  # type: ignore[arg-type]
    assert never == {"a"}
    explored = sum(
        next(iter(policies.value(Found(query=f"q{n}", near=near, values=values), epsilon=0.3))) != "a"  # type: ignore[arg-type]
        for n in range(3000)
    )
    assert abs(explored - 600) < 90, "three in ten are drawn, and a third of those draws `a`"


async def test_values_of_the_log_reorder_what_is_found(store: Store) -> None:
    memory = ExactMemory(store, policy="value", policy_options={"epsilon": 0.0, "w_sim": 0.2, "w_q": 0.8})
    await memory.apply([add("vip means tier = 3"), add("vip guest means tier = 4"), add("late order means due")])
    assert await ids(memory, "who is vip") == ["r1", "r2"]
    await memory.apply([MemoryOp(op="VALUE", reflection="r2", delta=0.6)])
    assert await ids(memory, "who is vip") == ["r2", "r1"]
    await memory.apply([MemoryOp(op="VALUE", reflection="r1", delta=-0.9)])
    assert await ids(memory, "who is vip") == ["r2"]
    high = ExactMemory(store, policy="value", policy_options={"delta": 0.99})
    assert await ids(high, "who is vip") == []


# diverse --------------------------------------------------------------------------------------------------------------


def test_mmr_by_hand() -> None:
    relevance = [0.9, 0.89, 0.5]
    likeness = np.array([[1, 0.99, 0.1], [0.99, 1, 0.1], [0.1, 0.1, 1]])
    assert list(mmr(relevance, likeness.__getitem__, 0.5)) == [0, 2, 1]  # 0.445 - 0.495 < 0.25 - 0.05
    assert list(mmr(relevance, likeness.__getitem__, 1.0)) == [0, 1, 2]
    assert list(mmr([0.5, 0.5], np.zeros((2, 2)).__getitem__, 0.5)) == [0, 1], "ties go by place"
    assert list(mmr([], np.zeros((0, 0)).__getitem__, 0.5)) == []


def slow_mmr(relevance: list[float], likeness: Any, balance: float) -> list[int]:
    """The definition, step by step."""
    taken: list[int] = []
    while len(taken) < len(relevance):
        left = [i for i in range(len(relevance)) if i not in taken]
        gain = {
            i: round(balance * relevance[i] - (1 - balance) * max((likeness[i][j] for j in taken), default=0.0), 9)
            for i in left
        }
        taken.append(max(left, key=lambda i: (gain[i], -i)))
    return taken


@given(relevance=st.lists(st.integers(-4, 4), max_size=7), quarters=st.integers(0, 4), seed=st.integers())
def test_mmr_follows_its_definition(relevance: list[float], quarters: int, seed: int) -> None:
    draw, n = random.Random(seed), len(relevance)
    likeness = np.array([[draw.randint(-4, 4) / 4 for _ in range(n)] for _ in range(n)]).reshape(n, n)
    likeness = (likeness + likeness.T) / 2
    relevance = [r / 4 for r in relevance]
    assert list(mmr(relevance, likeness.__getitem__, quarters / 4)) == slow_mmr(relevance, likeness, quarters / 4)


async def test_one_of_many_alike_is_enough(store: Store) -> None:
    texts = ["vip means tier = 3", "vip means tier = 3 now", "vip means tier = 3 again", "vip lounge means room 7"]
    await ExactMemory(store).apply([add(text) for text in texts])
    assert await ids(ExactMemory(store, min_overlap=0), "vip tier", 2) == ["r1", "r2"]
    spread = ExactMemory(store, policy="diverse", policy_options={"balance": 0.5}, min_overlap=0)
    assert await ids(spread, "vip tier", 2) == ["r1", "r4"]


# pareto ---------------------------------------------------------------------------------------------------------------

FRONTS = {"0": {"0", "1"}, "1": {"1"}, "2": {"2"}, "3": {"1", "2"}}


def test_a_dominated_candidate_goes_and_the_others_are_drawn_by_their_fronts() -> None:
    """Golden value of the notes on GEPA: candidate 0 is dominated, 1 and 2 come 0.6 to 0.4."""
    weights = pareto_weights(FRONTS, {"0": 0.5, "1": 0.7, "2": 0.6})
    assert weights == {"1": 3, "2": 2}
    scores = {i: {t: float(i in front) for t, front in FRONTS.items()} for i in "012"}
    assert pareto_fronts(scores) == FRONTS
    near = dict.fromkeys("0123", 0.5)
    drawn = [list(policies.pareto(Found(query=f"q{n}", near=near, scores=scores))) for n in range(4000)]  # type: ignore[arg-type]
    assert {tuple(sorted(d)) for d in drawn} == {("1", "2", "3")}, "3 was never tried: it comes, and comes last"
    assert all(d[-1] == "3" for d in drawn)
    assert abs(sum(d[0] == "1" for d in drawn) - 2400) < 124  # four standard deviations


@given(
    scores=st.dictionaries(
        st.sampled_from("abcde"),
        st.dictionaries(st.sampled_from("xyz"), st.sampled_from([0.0, 0.5, 1.0]), min_size=1),
    )
)
def test_every_front_keeps_someone(scores: dict[str, dict[str, float]]) -> None:
    fronts = pareto_fronts(scores)
    weights = pareto_weights(fronts, {i: sum(s.values()) / len(s) for i, s in scores.items()})
    assert all(front & weights.keys() for front in fronts.values())
    assert all(weights[i] == sum(i in front for front in fronts.values()) for i in weights)
    assert not [i for i in weights if all(len(front & weights.keys()) > 1 for front in fronts.values() if i in front)]


async def test_fronts_come_from_the_trials_in_the_log(store: Store) -> None:
    memory = ExactMemory(store, policy="pareto")
    await memory.apply([add(f"vip rule {word}") for word in ("one", "two", "three", "four")])
    for number, (item, task, outcome, tag) in enumerate(
        [
            ("r1", "t1", 1.0, "shown"),
            ("r1", "t2", 0.0, "shown"),
            ("r2", "t1", 0.0, "shown"),
            ("r2", "t1", 1.0, "shown"),  # its mean on t1 is one half
            ("r2", "t2", 0.5, "shown"),
            ("r3", "t2", 0.2, "shown"),  # the best nowhere
            ("r3", "t1", 1.0, "withheld"),  # what happens without it is not its score
        ]
    ):
        attempt = f"run/main/{task}/{number}"
        store.put_attempt(Attempt(id=attempt, run="run", task=task))
        value = MemoryOp(op="VALUE", reflection=item, tag=tag, outcome=outcome, chance=0.5, attempt=attempt)  # type: ignore[arg-type]
        await memory.apply([value])
    found = [await ids(memory, f"vip rule {n}") for n in range(200)]
    assert {tuple(sorted(f)) for f in found} == {("r1", "r2", "r4")} and all(f[2] == "r4" for f in found)
    assert 60 < sum(f[0] == "r1" for f in found) < 140, "one front each"
    assert await ids(memory, "vip rule 7") == await ids(ExactMemory(store, policy="pareto"), "vip rule 7")
    assert await ids(memory, "nothing of it") == []
    everyone = ExactMemory(store, policy="pareto", policy_options={"pool": "all"})
    assert set(await ids(everyone, "nothing of it")) == {"r1", "r2", "r4"}
    await memory.apply([MemoryOp(op="UPDATE", reflection="r1", item=Reflection(id="r1", text="vip rule other"))])
    assert (await ids(memory, "vip rule 7"))[0] == "r2", "other words begin without trials"


# source task, all, recent ---------------------------------------------------------------------------------------------


async def test_the_nearest_question_gives_all_its_lessons(store: Store) -> None:
    memory = ExactMemory(store, policy="source_task", min_overlap=0, token_cap=60)
    await memory.apply(
        [
            add("join on the key", task="t1", when="how many orders were late in may"),
            add("use date()", task="t1", when="how many orders were late in may"),
            add("late orders need a due date", task="t2", when="which customers have late orders"),
            add("count distinct", task="t3", when="how many products"),
            add("late orders in may: " + "x" * 400, task="t4", when="late orders in may"),
        ]
    )
    question = "how many orders were late in june"
    assert set(await ids(memory, question)) == {"r1", "r2"}, "t4 has nothing that fits under the cap"
    assert set(await ids(memory, question, 1)) < {"r1", "r2"}
    assert await ids(memory, question, exclude_tasks=["t1"]) == ["r3"], "falls through to the next task"
    await memory.apply([MemoryOp(op="RETIRE", reflection=i) for i in ("r1", "r2", "r3")])
    assert await ids(memory, question) == ["r4"]
    two = ExactMemory(store, policy="source_task", policy_options={"tasks": 2}, min_overlap=0)
    assert await ids(two, question) == ["r5", "r4"]


async def test_all_comes_oldest_first_and_leaves_out_what_is_worth_least(store: Store) -> None:
    memory = ExactMemory(store, policy="all", token_cap=30)
    texts = ["a" * 30, "b" * 30, "c" * 30, "d" * 30]
    await memory.apply([add(text, counters=Counters(helped=h)) for text, h in zip(texts, (0, 2, 1, 0), strict=True)])
    assert [tokens(r) for r in memory.items().values()] == [10] * 4
    assert await ids(memory, "whatever") == ["r2", "r3", "r4"]
    assert await ids(memory, "", 2) == ["r2", "r3"]
    wide = ExactMemory(store, policy="all", token_cap=None)
    assert await ids(wide, "") == ["r1", "r2", "r3", "r4"]


async def test_recent_has_an_older_name(store: Store) -> None:
    await ExactMemory(store).apply([add(f"plan {i}") for i in range(1, 5)])
    for name in ("recent", "last"):
        assert await ids(ExactMemory(store, policy=name), "x", 3) == ["r4", "r3", "r2"]


# names and options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "options", "told"),
    [
        ("valu", {}, "unknown retrieval policy 'valu'.*\n.*\n.*'value'"),
        ("value", {"epsilom": 0.1}, "option of retrieval policy 'value' 'epsilom'.*\n.*\n.*'epsilon'"),
        ("similar", {"delta": 0.1}, "known: none"),
        ("pareto", {"pool": "relevent"}, "did you mean 'relevant'"),
    ],
)
def test_a_wrong_name_names_the_nearest(store: Store, policy: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UnknownName, match=told):
        ExactMemory(store, policy=policy, policy_options=options)


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("value", {"epsilon": 1.5}),
        ("value", {"epsilon": float("nan")}),
        ("value", {"epsilon": True}),
        ("value", {"epsilon": None}),
        ("value", {"k1": 0}),
        ("value", {"k1": 2.5}),
        ("value", {"sim_std": 0.0}),
        ("value", {"delta": "0.5"}),
        ("diverse", {"balance": -0.1}),
        ("source_task", {"tasks": 0}),
    ],
)
def test_an_option_out_of_range_is_told(policy: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"option {next(iter(options))} = "):
        make_policy(policy, options)


def test_every_default_is_a_value_that_may_be_given() -> None:
    import inspect

    for name, policy in POLICIES.items():
        given = {p.name: p.default for p in inspect.signature(policy).parameters.values() if p.kind == p.KEYWORD_ONLY}
        make_policy(name, given)


async def test_nearest_goes_by_vector_alone_and_looks_further_where_some_may_not_be_shown(store: Store) -> None:
    memory = ExactMemory(store, policy="nearest")
    await memory.apply([add(f"alpha beta word{i}", task="t1" if i < 8 else f"t{i}") for i in range(12)])
    everyone = await ids(memory, "alpha gamma", 12)
    assert len(everyone) == 12, "also what shares one word only"
    assert await ids(memory, "alpha gamma", 4, exclude_tasks=["t1"]) == [i for i in everyone if int(i[1:]) > 8]
    memory.close()
