"""Budgets: projection is the nearest admissible point, and verification sees what is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from advser.threat import DOMAINS, PCM_STEP, Budget, Norm, unit_of

NORMS: tuple[Norm, ...] = ("linf", "l2")


@st.composite
def budgets(draw: st.DrawFn, smallest: float = 0.0) -> Budget:
    return Budget(draw(st.sampled_from(NORMS)), draw(st.floats(smallest, 2.0, allow_subnormal=False)), "z")


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Perturbed and original inputs (B, …), apart by anything from nothing to ten times the largest budget."""
    shape = draw(st.sampled_from([(1, 1), (2, 7), (3, 4, 5)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    original = torch.randn(shape, generator=generator) * draw(st.sampled_from([1e-3, 1.0, 30.0]))
    apart = draw(st.sampled_from([0.0, 1e-4, 0.5, 20.0]))
    return original + apart * torch.randn(shape, generator=generator), original


@given(budgets(), pairs())
def test_a_projection_is_within_the_budget(budget: Budget, pair: tuple[Tensor, Tensor]) -> None:
    perturbed, original = pair
    assert not budget.exceeded(budget.project(perturbed, original), original).any()


@given(budgets(), pairs())
def test_projecting_twice_is_projecting_once(budget: Budget, pair: tuple[Tensor, Tensor]) -> None:
    perturbed, original = pair
    once = budget.project(perturbed, original)
    twice = budget.project(once, original)
    if budget.norm == "linf":
        assert torch.equal(twice, once)
    torch.testing.assert_close(twice, once)


@given(budgets(), pairs())
def test_what_is_within_the_budget_is_returned_bit_by_bit(budget: Budget, pair: tuple[Tensor, Tensor]) -> None:
    perturbed, original = pair
    room = Budget(budget.norm, float(budget.size(perturbed - original).max()) * 1.01 + 1e-6, budget.unit)
    assert torch.equal(room.project(perturbed, original), perturbed)


@given(budgets(1e-3), pairs(), st.integers(0, 2**32))
def test_no_admissible_point_is_nearer(budget: Budget, pair: tuple[Tensor, Tensor], seed: int) -> None:
    perturbed, original = (part.double() for part in pair)
    projected = budget.project(perturbed, original)
    direction = torch.randn(original.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    size = budget.size(direction).view(-1, *[1] * (direction.ndim - 1))
    nearness = (projected - perturbed).flatten(1).norm(dim=1)
    for share in (0.0, 0.5, 1.0):
        other = original + direction / size * budget.epsilon * share
        assert ((other - perturbed).flatten(1).norm(dim=1) >= nearness - 1e-9).all()


@given(pairs())
def test_an_infinite_budget_binds_nothing(pair: tuple[Tensor, Tensor]) -> None:
    for norm in NORMS:
        assert torch.equal(Budget(norm, float("inf"), "z").project(*pair), pair[0])


@pytest.mark.parametrize("norm", NORMS)
def test_each_clip_is_projected_on_its_own(norm: Norm) -> None:
    original = torch.zeros(2, 4)
    perturbed = torch.tensor([[0.1, 0.0, 0.0, 0.0], [3.0, 4.0, 0.0, 0.0]])
    projected = Budget(norm, 1.0, "z").project(perturbed, original)
    assert torch.equal(projected[0], perturbed[0])
    expected = [1.0, 1.0, 0.0, 0.0] if norm == "linf" else [0.6, 0.8, 0.0, 0.0]
    torch.testing.assert_close(projected[1], torch.tensor(expected))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("unit", ["full-scale", "z"])
def test_verification_sees_an_excess_in_one_clip_only(norm: Norm, unit: str) -> None:
    budget = Budget(norm, 0.5, unit)
    original = torch.full((3, 4), 0.25)
    perturbed = original.clone()
    perturbed[1, 2] += 0.5 + 2.5 * PCM_STEP
    perturbed[2, 2] += 0.5
    assert budget.exceeded(perturbed, original).tolist() == [False, True, False]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_exceeds_every_budget(norm: Norm, value: float) -> None:
    original = torch.zeros(2, 4)
    perturbed = original.clone()
    perturbed[1, 0] = value
    assert Budget(norm, 1.0, "z").exceeded(perturbed, original).tolist() == [False, True]


def test_one_pcm_step_above_a_waveform_budget_is_seen() -> None:
    budget = Budget("linf", 32 * PCM_STEP, "full-scale")
    original = torch.zeros(1, 8)
    assert not budget.exceeded(original + 32 * PCM_STEP, original).any()
    assert budget.exceeded(original + 33 * PCM_STEP, original).all()


@pytest.mark.parametrize("epsilon", [-0.1, float("nan")])
def test_a_budget_below_0_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon: found .* allowed: a number of at least 0"):
        Budget("linf", epsilon, "z")


def test_every_domain_has_its_own_unit() -> None:
    assert {domain: unit_of(domain) for domain in DOMAINS} == {"waveform": "full-scale", "spectrogram": "z"}
