"""Budgets: projection is the nearest admissible point, and verification detects the others."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from advser.audio.pcm import PCM_STEP
from advser.errors import InputError
from advser.models.terms import DOMAINS
from advser.threat.admission import admissible, admit
from advser.threat.budget import Budget, per_clip
from advser.threat.model import Norm, unit_of

NORMS: tuple[Norm, ...] = get_args(Norm)


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
def test_an_input_within_the_budget_is_returned_bit_by_bit(budget: Budget, pair: tuple[Tensor, Tensor]) -> None:
    perturbed, original = pair
    room = Budget(budget.norm, float(budget.size(perturbed, original).max()) * 1.01 + 1e-6, budget.unit)
    assert torch.equal(room.project(perturbed, original), perturbed)


@given(budgets(1e-3), pairs(), st.integers(0, 2**32))
def test_no_admissible_point_is_nearer(budget: Budget, pair: tuple[Tensor, Tensor], seed: int) -> None:
    perturbed, original = (part.double() for part in pair)
    projected = budget.project(perturbed, original)
    direction = torch.randn(original.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    size = per_clip(budget.size(original + direction, original), direction)
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
    original = torch.full((2, 4), 0.5 if norm == "relative-l2" else 0.0)  # of L2 norm 1 in the first case
    perturbed = original + torch.tensor([[0.1, 0.0, 0.0, 0.0], [3.0, 4.0, 0.0, 0.0]])
    projected = Budget(norm, 1.0, "z").project(perturbed, original)
    assert torch.equal(projected[0], perturbed[0])
    expected = [1.0, 1.0, 0.0, 0.0] if norm == "linf" else [0.6, 0.8, 0.0, 0.0]
    torch.testing.assert_close((projected - original)[1], torch.tensor(expected))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("unit", ["full-scale", "z"])
def test_verification_detects_an_excess_in_one_clip_only(norm: Norm, unit: str) -> None:
    budget = Budget(norm, 0.5, unit)
    original = torch.full((3, 4), 0.5)  # of L2 norm 1
    perturbed = original.clone()
    perturbed[1, 2] += 0.5 + 2.5 * PCM_STEP
    perturbed[2, 2] += 0.5
    assert budget.exceeded(perturbed, original).tolist() == [False, True, False]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_input_that_is_not_finite_exceeds_every_budget(norm: Norm, value: float) -> None:
    original = torch.zeros(2, 4)
    perturbed = original.clone()
    perturbed[1, 0] = value
    assert Budget(norm, 1.0, "z").exceeded(perturbed, original).tolist() == [False, True]


def test_one_pcm_step_above_a_waveform_budget_is_detected() -> None:
    budget = Budget("linf", 32 * PCM_STEP, "full-scale")
    original = torch.zeros(1, 8)
    assert not budget.exceeded(original + 32 * PCM_STEP, original).any()
    assert budget.exceeded(original + 33 * PCM_STEP, original).all()


@pytest.mark.parametrize("epsilon", [-0.1, float("nan")])
def test_a_budget_below_0_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon: got .* expected a number of at least 0"):
        Budget("linf", epsilon, "z")


def test_every_domain_has_its_own_unit() -> None:
    assert {domain: unit_of(domain) for domain in DOMAINS} == {"waveform": "full-scale", "spectrogram": "z"}
    assert unit_of("waveform", "relative-l2") == "clip"
    with pytest.raises(InputError, match="norm: got 'relative-l2', expected linf or l2 in the domain spectrogram"):
        unit_of("spectrogram", "relative-l2")


def snr(perturbed: Tensor, original: Tensor) -> Tensor:
    """The energy ratio of each clip to its perturbation, in dB."""
    energies = [part.double().square().sum(1) for part in (original, perturbed - original)]
    return 10 * (energies[0] / energies[1]).log10()


@given(st.floats(-10, 60), st.sampled_from([0.001, 0.05, 0.3]), st.integers(0, 500), st.integers(0, 2**32))
def test_a_relative_budget_bounds_the_snr_whatever_the_padding(
    bound: float, loudness: float, padding: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sound = torch.zeros(3, 400 + padding)
    # On the 16-bit grid, and quiet enough that no sample is clipped; the last clip is silent.
    sound[:2, :400] = ((torch.randn(2, 400, generator=generator) * loudness).clamp(-0.9, 0.9) / PCM_STEP).round()
    sound *= PCM_STEP
    mask = torch.arange(sound.shape[1]).expand(3, -1) < 400
    budget = Budget("relative-l2", 10 ** (-bound / 20), unit_of("waveform", "relative-l2"))
    noisy = sound + 100 * torch.randn(sound.shape, generator=generator)

    projected = admit(noisy, sound, mask, "spectrogram", budget)  # without the clipping of sound
    torch.testing.assert_close(snr(projected, sound)[:2], torch.full((2,), bound).double(), rtol=0, atol=1e-3)
    alone = budget.project(torch.where(mask, noisy, sound)[:, :400], sound[:, :400])
    torch.testing.assert_close(projected[:, :400], alone)
    judged = admissible(noisy, sound, mask, "waveform", budget)
    assert not budget.exceeded(judged, sound).any()
    assert (snr(judged, sound)[:2] >= bound - 1e-3).all()
    assert torch.equal(judged[2], sound[2]), "silence was perturbed"
    # Of budgets of a few 16-bit steps, what float32 arithmetic explains is more than the half.
    small = budget.epsilon * sound[:2].norm(dim=1) < 1e-4
    half = Budget("relative-l2", budget.epsilon * 0.5, budget.unit)
    assert half.exceeded(projected, sound)[:2].logical_or(small).all()
