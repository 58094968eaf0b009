"""Losses against golden values, slow versions written another way, and finite differences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from verbal.trainers.losses import (  # noqa: E402
    aggregate,
    c3po,
    clipped,
    contrastive_pairs,
    critique_grpo,
    dpo,
    nll,
    shaped,
    shaped_slope,
)


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("p", "f", "slope"),
    [
        (0.001, 0.00990, 0.00980),
        (0.01, 0.09091, 0.08264),
        (0.05, 0.33333, 0.22222),
        (0.1, 0.5, 0.25),
        (0.5, 0.83333, 0.13889),
        (0.9, 0.9, 0.09),
        (1.0, 0.90909, 0.08264),
    ],
)
def test_shaping_of_critique_grpo(p: float, f: float, slope: float) -> None:
    assert float(shaped(tensor([p]))) == pytest.approx(f, abs=6e-6)
    assert float(shaped_slope(tensor([p]))) == pytest.approx(slope, abs=6e-6)


def test_gradients_of_refined_and_initial_tokens() -> None:
    """Check 3: -A Psi(p) on a refined token, -A on an initial one with ratio 1."""
    logps = tensor([[-0.5, -2.0], [-0.3, -1.0]]).requires_grad_()
    weights = tensor([[0.875] * 2, [-0.125] * 2])
    old = logps.detach().clone()
    old[0] = math.nan  # nobody knows the behaviour of a refined row under the bare prompt
    losses = critique_grpo(logps, old, weights, torch.tensor([True, False]))
    losses.sum().backward()
    wanted = torch.stack([-0.875 * shaped_slope(logps[0].exp()), torch.full((2,), 0.125)]).detach()
    assert logps.grad is not None and torch.allclose(logps.grad, wanted, atol=1e-9)


def test_a_large_gamma_removes_the_shaping() -> None:
    p = tensor([0.2, 0.7])
    assert torch.allclose(1e7 * shaped(p, 1e7), p, atol=1e-6)


def test_without_shaping_a_refined_token_counts_like_a_sampled_one() -> None:
    logps = torch.tensor([[-9.0, -0.1]], requires_grad=True)
    weights = torch.full((1, 2), 0.875)
    critique_grpo(logps, logps.detach(), weights, torch.tensor([True]), gamma=0).sum().backward()
    assert logps.grad is not None
    assert torch.allclose(logps.grad, -weights)


def test_without_refined_rows_it_is_dr_grpo() -> None:
    generator = torch.Generator().manual_seed(0)
    logps = -torch.rand(4, 5, generator=generator, dtype=torch.float64)
    old, weights = logps - 0.1, torch.randn(4, 5, generator=generator, dtype=torch.float64)
    mask = (torch.rand(4, 5, generator=generator) > 0.3).double()
    ours = aggregate(critique_grpo(logps, old, weights, torch.zeros(4)), mask, length=7)
    slow = sum(
        -float(weights[b, t]) * math.exp(float(logps[b, t] - old[b, t]))
        for b in range(4)
        for t in range(5)
        if mask[b, t]
    ) / (4 * 7)
    assert float(ours) == pytest.approx(slow, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 0), st.floats(-3, 0), st.floats(-2, 2))
def test_the_clip_is_the_pessimistic_one(new: float, old: float, weight: float) -> None:
    ratio = math.exp(new - old)
    wanted = -min(ratio * weight, min(max(ratio, 0.8), 1.28) * weight)
    found = clipped(tensor([[new]]), tensor([[old]]), tensor([[weight]]), low=0.2, high=0.28)
    assert float(found) == pytest.approx(wanted, abs=1e-9)
    assert float(clipped(tensor([[new]]), tensor([[old]]), tensor([[weight]]), low=None)) == pytest.approx(
        -ratio * weight
    )


def test_the_three_ways_to_reduce() -> None:
    losses, mask = tensor([[1, 1, 1, 1], [3, 9, 9, 9]]), tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    assert float(aggregate(losses, mask, "sequence")) == 2.0
    assert float(aggregate(losses, mask, "token")) == pytest.approx(7 / 5)
    assert float(aggregate(losses, mask, "length", length=10)) == pytest.approx(7 / 20)
    assert float(aggregate(losses, torch.zeros(2, 4), "token")) == 0.0


def test_likelihood_is_per_token_not_a_mean_of_means() -> None:
    """ReLIFT, checks 3 and 4."""
    assert float(nll(tensor([[math.log(0.5), math.log(0.25)]]), torch.ones(1, 2))) == pytest.approx(1.039721, abs=1e-6)
    assert float(nll(tensor([[-2, 0, 0], [-1, -1, -1]]), tensor([[1, 0, 0], [1, 1, 1]]))) == 1.25


def test_preference_terms_of_c3po() -> None:
    zero = tensor([0.0])
    even = dpo(zero, zero, zero, zero)
    assert float(even) == pytest.approx(0.693147, abs=1e-6)
    assert float(dpo(tensor([2.0]), tensor([-3.0]), zero, zero)) == pytest.approx(0.474077, abs=1e-6)
    assert float(c3po(even, tensor(1.2), tensor(0.9))) == pytest.approx(1.023147, abs=1e-6)
    assert float(c3po(even, tensor(1.2), tensor(0.9), soft=0, hard=0)) == float(even)


def test_contrastive_pairs_reach_the_tilted_reference_from_any_data() -> None:
    """CoPG on a bandit with four arms, data with full support that the policy never sampled."""
    rewards, b = tensor([1.0, 0.2, -0.5, 0.3]), 0.5
    reference = torch.log_softmax(tensor([0.3, -0.2, 0.1, 0.0]), 0)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    arms = torch.tensor([0, 1, 2, 3, 0, 1])
    optimiser = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16)

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        policy = torch.log_softmax(logits, 0)
        loss = contrastive_pairs(rewards[arms], policy[arms], reference[arms], torch.zeros(6), b=b)
        loss.backward()
        return loss

    for _ in range(5):
        optimiser.step(step)
    wanted = torch.softmax(reference + rewards / b, 0)
    assert torch.allclose(torch.softmax(logits, 0), wanted, atol=1e-7)


def test_contrastive_pairs_are_ipo_and_leave_one_out() -> None:
    b, tau = 0.3, 0.3
    logps = tensor([-1.0, -2.0]).requires_grad_()
    reference = tensor([-1.5, -1.6])
    loss = contrastive_pairs(tensor([0.5, 0.0]), logps, reference, torch.zeros(2), b=b)
    ratio = (logps - reference)[0] - (logps - reference)[1]
    assert float(loss.detach()) == pytest.approx(float(b**2 * (ratio.detach() - 1 / (2 * tau)) ** 2))
    loss.backward()
    value = tensor([0.5, 0.0]) - b * (logps - reference).detach()
    assert logps.grad is not None
    assert torch.allclose(logps.grad, -2 * b * (value[0] - value[1]) * tensor([1.0, -1.0]))


def test_alone_in_a_group_there_is_no_pair_and_no_gradient() -> None:
    logps = tensor([-1.0, -2.0]).requires_grad_()
    loss = contrastive_pairs(tensor([1.0, 0.0]), logps, tensor([0.0, 0.0]), torch.tensor([0, 1]), b=0.1)
    loss.backward()
    assert float(loss.detach()) == 0.0 and logps.grad is not None and not logps.grad.any()


@pytest.mark.parametrize("kind", ["critique", "clipped", "pairs", "dpo"])
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    start = -torch.rand(4, 3, generator=generator, dtype=torch.float64) - 0.1
    weights = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    groups = torch.tensor([0, 0, 1, 1])

    def loss(logps: torch.Tensor) -> torch.Tensor:
        if kind == "critique":
            return aggregate(critique_grpo(logps, start, weights, torch.tensor([1, 0, 0, 1])), torch.ones(4, 3))
        if kind == "clipped":
            return aggregate(clipped(logps, start - 0.05, weights), torch.ones(4, 3), "token")
        if kind == "pairs":
            return contrastive_pairs(weights[:, 0], logps.sum(1), start.sum(1), groups, b=0.2)
        return dpo(logps[0], logps[1], start[2], start[3])

    assert torch.autograd.gradcheck(loss, (start.clone().requires_grad_(),))
