"""Randomised smoothing: its noise, its outputs, and its certificate compared with the true radius."""

from __future__ import annotations

import copy
import math
from itertools import combinations

import numpy as np
import pytest
import torch
import toys
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional

from advser.attacks.gradient_sign import IterativeFGSM
from advser.audio.clips import sound_mask
from advser.defenses.smoothing import Smoothing
from advser.errors import NotApplicableError
from advser.metrics import certificates
from advser.metrics.certificates import CertifiedAccuracy, CertifiedRadius, lower_bound, votes
from advser.models.base import EmotionModel
from advser.models.ensemble import Ensemble
from advser.models.smoothed import Smoothed
from advser.threat.target import Target

SIGMA = 0.1


def smoothed(kind: type[EmotionModel] = toys.Convolutional, draws: int = 3, classes: int = 3) -> Smoothed:
    model = Smoothing(sigma=SIGMA, draws=draws).wrap(toys.model(kind, classes=classes).eval())
    assert isinstance(model, Smoothed)
    return model.eval()


def test_training_is_the_cross_entropy_on_noisy_sound_without_noise_in_the_padding() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    noise = torch.randn(batch.waveform.shape, generator=torch.Generator().manual_seed(0))
    noise[torch.arange(toys.SAMPLES) >= batch.lengths[:, None]] = 0
    logits = model(batch.waveform + SIGMA * noise, batch.lengths)
    expected = functional.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(Smoothing(sigma=SIGMA).loss(model, batch, 0), expected)


def test_the_output_is_the_mean_probability_over_noisy_copies() -> None:
    model = smoothed(draws=4)
    waveform, lengths, _ = toys.sounds()
    torch.manual_seed(0)
    outputs = model.outputs(waveform, lengths, "waveform")
    torch.manual_seed(0)
    base = model.base
    copies = [base.outputs(model.noisy(waveform, lengths), lengths, "waveform") for _ in range(4)]
    torch.testing.assert_close(outputs.logits.exp(), sum(noisy.logits.softmax(1) for noisy in copies) / 4)
    torch.testing.assert_close(outputs.embedding, sum(noisy.embedding for noisy in copies) / 4)
    features = model.inputs(waveform, lengths, "spectrogram")
    assert torch.equal(features, base.inputs(waveform, lengths, "spectrogram"))
    logits = model.outputs(features, lengths, "spectrogram").logits
    assert torch.equal(logits, base.outputs(features, lengths, "spectrogram").logits)


@pytest.mark.parametrize("kind", toys.MODELS)
def test_a_smoothed_model_has_the_interface_of_its_base(kind: type[EmotionModel]) -> None:
    model = smoothed(kind)
    assert model.randomised
    assert not model.base.randomised
    assert (model.spectrogram, model.differentiable) == (kind.spectrogram, kind.differentiable)
    assert model.frontend is model.base.frontend
    assert Ensemble([model.base, model]).randomised
    assert not Ensemble([model.base]).randomised


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_target_draws_new_noise_at_each_call_reproducibly_and_without_the_global_generator(ensemble: bool) -> None:
    model: EmotionModel = Ensemble([smoothed(), smoothed()]).eval() if ensemble else smoothed()
    x, lengths, labels = toys.sounds()
    results = []
    for state in (0, 1):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        with Target(model, lengths, "waveform") as target:
            logits = [target.logits(x), target.logits(x), target.at(torch.arange(6)).logits(x), target.logits(x)]
            perturbed = IterativeFGSM(epsilon=0.01, steps=3).perturb(target, x, labels, torch.Generator())
        assert torch.equal(torch.get_rng_state(), before)
        assert not any(torch.equal(first, second) for first, second in combinations(logits, 2))
        results.append([*logits, perturbed])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_the_lower_bound_is_that_of_clopper_and_pearson() -> None:
    for successes, draws in ((0, 5), (1, 5), (50, 100), (99, 100), (100, 100), (700, 1000)):
        expected = binomtest(successes, draws).proportion_ci(1 - 2 * 0.001, "exact").low
        bound = lower_bound(np.array([float(successes)]), draws, 0.001)
        assert bound[0] == pytest.approx(expected, abs=1e-12)


def linear() -> tuple[Smoothed, Tensor, Tensor, Tensor, Tensor]:
    """Return a smoothed linear model of two classes, clips, lengths, decisions, and distances (B,) to its boundary.

    Smoothing does not change a linear decision, so that the distance is the true radius.
    """
    model = smoothed(toys.Linear, classes=2)
    waveform, lengths, _ = toys.sounds(12)
    waveform = waveform * 0.5
    jacobian = torch.autograd.functional.jacobian(lambda x: model.base(x, lengths[:1])[0], waveform[:1])[:, 0]
    slope = (jacobian[1] - jacobian[0]) * (torch.arange(toys.SAMPLES) < lengths[:, None])
    logits = model.base(waveform, lengths).detach()
    distance = (logits[:, 1] - logits[:, 0]).abs() / slope.norm(dim=1)
    return model, waveform, lengths, logits.argmax(1), distance


def test_the_certificate_is_below_the_true_radius_and_near_it() -> None:
    model, waveform, lengths, labels, distance = linear()
    torch.manual_seed(0)
    radii = CertifiedRadius(draws=600).measure(model, waveform, waveform, lengths, labels).float()
    assert (radii <= distance).all()
    # Far enough from the boundary to be certified, and within the largest radius that 600 draws can prove.
    provable = (distance > 0.2 * SIGMA) & (distance < 1.5 * SIGMA)
    assert provable.sum() >= 4
    assert (radii[provable] > distance[provable] - 0.4 * SIGMA).all()
    assert (radii <= SIGMA * -torch.special.ndtri(torch.tensor(1 - 0.001 ** (1 / 600)))).all()
    assert (radii[distance < 0.05 * SIGMA] == 0).all()

    torch.manual_seed(0)
    wrong = CertifiedRadius(draws=600).measure(model, waveform, waveform, lengths, 1 - labels)
    assert (wrong == 0).all()
    for radius in (0.0, 0.5 * SIGMA, 1.5 * SIGMA):
        torch.manual_seed(0)
        share = CertifiedAccuracy(draws=600, radius=radius).measure(model, waveform, waveform, lengths, labels)
        assert torch.equal(share.bool(), (radii > 0) & (radii >= radius))


def test_within_the_certificate_no_direction_changes_the_decision() -> None:
    model, waveform, lengths, labels, _ = linear()
    torch.manual_seed(0)
    radii = CertifiedRadius(draws=300).measure(model, waveform, waveform, lengths, labels).float()
    with Target(model.base, lengths, "waveform", mask=sound_mask(lengths, toys.SAMPLES)) as target:
        gradient = target.gradient(waveform, labels)
        worst = gradient / gradient.norm(dim=1, keepdim=True)
        certain = radii > 0
        assert certain.sum() >= 4
        assert torch.equal(target.decisions(waveform + radii[:, None] * worst)[certain], labels[certain])


def test_the_radius_is_sigma_times_the_quantile_of_a_bound_from_separate_copies(monkeypatch) -> None:
    model = smoothed()
    waveform, lengths, _ = toys.sounds(4)
    draws, alpha = 200, 0.01
    # All votes of the selection are for class 0; from clip to clip, fewer of the certifying votes are.
    certifying = torch.tensor([[200, 0, 0], [150, 50, 0], [110, 90, 0], [60, 140, 0]])
    numbers = []

    def counted(model: Smoothed, waveform: Tensor, lengths: Tensor, number: int) -> Tensor:
        numbers.append(number)
        return torch.tensor([[number, 0, 0]] * 4) if len(numbers) == 1 else certifying

    monkeypatch.setattr(certificates, "votes", counted)
    metric = CertifiedRadius(draws=draws, selection=20, alpha=alpha)
    radii = metric.measure(model, waveform, waveform, lengths, torch.zeros(4, dtype=torch.long))
    assert numbers == [20, draws]
    low = [binomtest(int(count), draws).proportion_ci(1 - 2 * alpha, "exact").low for count in certifying[:, 0]]
    # For all votes the one-sided bound is α^(1/n), which differs from the two-sided interval.
    low[0] = alpha ** (1 / draws)
    expected = [SIGMA * float(torch.special.ndtri(torch.tensor(p))) if p > 0.5 else 0.0 for p in low]
    assert radii.tolist() == pytest.approx(expected, abs=1e-6)
    assert expected[0] > expected[1] > 0 == expected[3]


def test_each_copy_has_a_single_vote() -> None:
    model = smoothed()
    waveform, lengths, _ = toys.sounds()
    counts = votes(model, waveform, lengths, 7)
    assert counts.shape == (6, 3)
    assert (counts.sum(1) == 7).all()
    noiseless = copy.deepcopy(model)
    noiseless.sigma = 0.0
    decisions = noiseless.base(waveform, lengths).argmax(1)
    assert torch.equal(votes(noiseless, waveform, lengths, 2), 2 * functional.one_hot(decisions, 3))


def test_a_victim_without_smoothing_has_no_certificate() -> None:
    model = toys.model(toys.Linear).eval()
    waveform, lengths, labels = toys.sounds()
    with pytest.raises(NotApplicableError, match="not smoothed"):
        CertifiedRadius().measure(model, waveform, waveform, lengths, labels)
    assert math.isclose(CertifiedAccuracy().radius, 0.01)


class Loud(Smoothed):
    """A model that claims a larger σ than it uses."""

    def __init__(self, base: EmotionModel) -> None:
        super().__init__(base, 100.0, 1)

    def noisy(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform


def test_the_certificate_does_not_trust_a_model_s_own_noise() -> None:
    model = smoothed(toys.Linear, classes=2)
    waveform, lengths, labels = toys.sounds(4)
    with pytest.raises(NotApplicableError, match="not smoothed"):
        CertifiedRadius().measure(Loud(model.base), waveform, waveform, lengths, labels)
    honest = votes(model, waveform, lengths, 400)
    model.noisy = lambda waveform, lengths: waveform  # type: ignore[method-assign]
    assert torch.allclose(votes(model, waveform, lengths, 400) / 400, honest / 400, atol=0.15)
