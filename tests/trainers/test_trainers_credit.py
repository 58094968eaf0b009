"""Credit stage by stage: golden values of the papers' specifications, and what must hold for any input."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from verbal.trainers.credit import (  # noqa: E402
    Credit,
    after_pivot,
    amplified,
    at_end,
    at_spans,
    boosted,
    group_mean,
    leave_one_out,
    returns_to_go,
    shares,
    task_relative,
    without_constant_groups,
)


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(found: torch.Tensor, wanted: list, digits: int = 5) -> None:
    assert torch.allclose(found.double(), tensor(wanted), atol=0.6 * 10**-digits, rtol=0), found


def one_group(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.long)


def test_group_mean_of_critique_grpo() -> None:
    near(group_mean(tensor([0] * 7 + [1]), one_group(8)), [-0.125] * 7 + [0.875])
    near(
        group_mean(tensor([0, 0, 1, 0, 0, 0, 0, 1]), one_group(8)),
        [-0.25, -0.25, 0.75, -0.25, -0.25, -0.25, -0.25, 0.75],
    )


def test_group_mean_with_deviation_is_trls() -> None:
    near(group_mean(tensor([0] * 7 + [1]), one_group(8), std=True), [-0.3535] * 7 + [2.4742], 4)


def test_rows_that_could_not_be_scored_leave_the_mean() -> None:
    found = group_mean(tensor([1, 0, 0, 0, math.nan, math.nan, math.nan, 1]), one_group(8))
    near(found, [0.6, -0.4, -0.4, -0.4, 0, 0, 0, 0.6])


def test_leave_one_out_of_istar() -> None:
    near(leave_one_out(tensor([1, 0, 0, 0]), one_group(4)), [1, -1 / 3, -1 / 3, -1 / 3])
    near(leave_one_out(tensor([0.7]), one_group(1)), [0])


def test_the_start_cancels_among_reflections_on_the_same_attempt() -> None:
    """Retroformer, check 3."""
    near(group_mean(tensor([-0.3, 0, 0.7, 0]), one_group(4)), [-0.4, -0.1, 0.6, -0.1])
    near(group_mean(tensor([0, 0.3, 1, 0.3]), one_group(4)), [-0.4, -0.1, 0.6, -0.1])


def test_task_relative_whitening_of_multi_agent_evolve() -> None:
    four = task_relative(tensor([1, 0, 1, 0]), one_group(4), torch.ones(4))
    near(four, [0.866025, -0.866025, 0.866025, -0.866025])
    near(task_relative(tensor([1, 0]), one_group(2), torch.tensor([2, 4])), [1.29099, -0.64550])


def test_roles_do_not_see_each_others_rewards() -> None:
    roles, lengths = torch.tensor([0, 0, 1, 1]), torch.tensor([3, 2, 4, 4])
    before = task_relative(tensor([1, 0, 0.2, 0.9]), roles, lengths)
    after = task_relative(tensor([1, 0, 0.5, 1.2]), roles, lengths)
    assert torch.allclose(before, after)


@pytest.mark.parametrize(("reward", "fifth"), [(1.0, 1.0), (3.0, 3.0)])
def test_positive_amplification_of_r3l(reward: float, fifth: float) -> None:
    found = amplified(tensor([0, 0, 0.5, 0, 1, 0, 0, 0.25]), one_group(8), reward=reward)
    near(found, [-0.21875, -0.21875, 0.84375, -0.21875, fifth, -0.21875, -0.21875, 0.09375])


def test_amplification_of_even_groups_and_its_neutral_setting() -> None:
    near(amplified(tensor([1] * 8), one_group(8)), [1] * 8)
    near(amplified(tensor([0] * 8), one_group(8)), [0] * 8)
    near(amplified(tensor([0] * 7 + [1]), one_group(8), reward=None), [-0.125] * 7 + [2.625])
    scores = tensor([0, 0.3, 1, 0.3])
    assert torch.equal(amplified(scores, one_group(4), alpha=1.0, reward=None), group_mean(scores, one_group(4)))
    near(amplified(tensor([0.5]), one_group(1)), [1.5])


def test_pivot_of_r3l() -> None:
    """Check 4: segments of 3, 4, 5 tokens."""
    turns = torch.tensor([[0] * 3 + [1] * 4 + [2] * 5])
    mask = torch.ones(1, 12)
    assert after_pivot(mask, torch.tensor([1]), turns).tolist() == [[0.0] * 3 + [1.0] * 9]
    assert torch.equal(after_pivot(mask, torch.tensor([0]), turns), mask)
    assert after_pivot(mask, torch.tensor([3]), turns).sum() == 0


def test_scores_stand_on_the_last_policy_token() -> None:
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    assert at_end(tensor([0.7, 0.4]), mask).tolist() == [[0, 0, 0, 0.7, 0], [0] * 5]


def test_spans_that_end_together_add_up() -> None:
    """Fine-grained RLHF: the first of two sentences is false; two spans on one token add."""
    mask = torch.ones(1, 6)
    assert at_spans(torch.tensor([[2, 5]]), tensor([[-0.5, 0.5]]), mask).tolist() == [[0, 0, -0.5, 0, 0, 0.5]]
    assert at_spans(torch.tensor([[5, 5, -1]]), tensor([[0.5, 0.3, 9]]), mask).tolist() == [[0, 0, 0, 0, 0, 0.8]]


def test_shares_of_sotopia() -> None:
    near(shares(tensor([8.0]), tensor([[2, 3, -1, 0]]))[0], [5.33333, 8, -1, 0])


def test_returns_to_go_discount_turns_not_tokens() -> None:
    rewards, mask = tensor([[0, 0, 1, 0, 2]]), torch.ones(1, 5)
    assert returns_to_go(rewards, mask).tolist() == [[3, 3, 3, 2, 2]]
    turns = torch.tensor([[0, 0, 0, 1, 1]])
    assert returns_to_go(rewards, mask, gamma=0.5, turns=turns).tolist() == [[2, 2, 2, 2, 2]]
    assert returns_to_go(tensor([[0.4]]), torch.ones(1, 1), gamma=0.3).tolist() == [[0.4]]


def test_boost_of_hicra_keeps_signs_and_changes_the_tensor() -> None:
    weights = tensor([[1.0, -1.0, 1.0]])
    assert boosted(weights, torch.tensor([[1, 1, 0]])).tolist() == [[1.2, -0.8, 1.0]]
    assert torch.equal(boosted(weights, torch.zeros(1, 3)), weights)


def test_groups_of_equal_scores_teach_nothing() -> None:
    groups = torch.tensor([0, 0, 1, 1, 2])
    found = without_constant_groups(tensor([1, 0, 1, 1, math.nan]), groups)
    assert found.tolist() == [True, True, False, False, False]


scores_in_groups = st.lists(
    st.tuples(st.floats(-5, 5, allow_nan=False, width=32), st.integers(0, 3)), min_size=1, max_size=20
)


@settings(max_examples=60, deadline=None)
@given(scores_in_groups)
def test_baselines_sum_to_nothing_in_every_group(rows: list) -> None:
    scores, groups = tensor([s for s, _ in rows]), torch.tensor([g for _, g in rows])
    for baseline in (group_mean, leave_one_out):
        found = baseline(scores, groups)
        for group in groups.unique():
            assert abs(float(found[groups == group].sum())) < 1e-9


@settings(max_examples=60, deadline=None)
@given(scores_in_groups, st.floats(-3, 3))
def test_a_constant_group_is_zero_and_a_shift_changes_nothing(rows: list, shift: float) -> None:
    groups = torch.tensor([g for _, g in rows])
    assert group_mean(torch.full((len(rows),), shift, dtype=torch.float64), groups).abs().max() < 1e-9
    scores = tensor([s for s, _ in rows])
    assert torch.allclose(group_mean(scores + shift, groups), group_mean(scores, groups), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5), st.data())
def test_placing_keeps_the_sum_and_weights_are_zero_off_the_policy(masks: list, data: st.DataObject) -> None:
    mask = torch.tensor(masks).double()
    scores = tensor(data.draw(st.lists(st.floats(-2, 2), min_size=len(masks), max_size=len(masks))))
    placed = at_end(scores, mask)
    assert torch.allclose(placed.sum(1), torch.where(mask.sum(1) > 0, scores, 0.0))
    assert torch.equal(placed * (1 - mask), torch.zeros_like(placed))
    weights = Credit(modulate=(lambda w: boosted(w, mask),)).weights(scores, one_group(len(masks)), mask)
    assert torch.equal(weights * (1 - mask), torch.zeros_like(weights))
