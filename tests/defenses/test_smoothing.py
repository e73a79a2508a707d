"""Randomised smoothing: what it draws and when, and a certificate that is held against the true radius."""

from __future__ import annotations

import copy
import math

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
    made = Smoothing(sigma=SIGMA, draws=draws).wrap(toys.model(kind, classes=classes).eval())
    assert isinstance(made, Smoothed)
    return made.eval()


def test_training_is_the_cross_entropy_on_noisy_sound_that_stays_silent_in_the_padding() -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    noise = torch.randn(batch.waveform.shape, generator=torch.Generator().manual_seed(0))
    noise[torch.arange(toys.SAMPLES) >= batch.lengths[:, None]] = 0
    logits = made(batch.waveform + SIGMA * noise, batch.lengths)
    expected = functional.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(Smoothing(sigma=SIGMA).loss(made, batch, 0), expected)


def test_it_says_the_mean_probability_over_noisy_copies() -> None:
    made = smoothed(draws=4)
    waveform, lengths, _ = toys.sounds()
    torch.manual_seed(0)
    said = made.outputs(waveform, lengths, "waveform")
    torch.manual_seed(0)
    base = made.base
    copies = [base.outputs(made.noisy(waveform, lengths), lengths, "waveform") for _ in range(4)]
    torch.testing.assert_close(said.logits.exp(), sum(one.logits.softmax(1) for one in copies) / 4)
    torch.testing.assert_close(said.embedding, sum(one.embedding for one in copies) / 4)
    features = made.inputs(waveform, lengths, "spectrogram")
    assert torch.equal(features, base.inputs(waveform, lengths, "spectrogram"))
    behind = made.outputs(features, lengths, "spectrogram").logits
    assert torch.equal(behind, base.outputs(features, lengths, "spectrogram").logits)


@pytest.mark.parametrize("kind", toys.MODELS)
def test_a_smoothed_model_passes_for_the_one_below(kind: type[EmotionModel]) -> None:
    made = smoothed(kind)
    assert made.randomised
    assert not made.base.randomised
    assert (made.spectrogram, made.differentiable) == (kind.spectrogram, kind.differentiable)
    assert made.frontend is made.base.frontend
    assert Ensemble([made.base, made]).randomised
    assert not Ensemble([made.base]).randomised


@pytest.mark.parametrize("of_several", [False, True])
def test_a_target_draws_anew_at_each_call_the_same_in_each_target_and_touches_no_global_generator(
    of_several: bool,
) -> None:
    made: EmotionModel = Ensemble([smoothed(), smoothed()]).eval() if of_several else smoothed()
    x, lengths, labels = toys.sounds()
    seen = []
    for state in (0, 1):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        with Target(made, lengths, "waveform") as target:
            asked = [target.logits(x), target.logits(x), target.at(torch.arange(6)).logits(x), target.logits(x)]
            perturbed = IterativeFGSM(epsilon=0.01, steps=3).perturb(target, x, labels, torch.Generator())
        assert torch.equal(torch.get_rng_state(), before)
        assert all(not torch.equal(one, other) for row, one in enumerate(asked) for other in asked[:row])
        seen.append([*asked, perturbed])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_the_lower_bound_is_clopper_s_and_pearson_s() -> None:
    for successes, draws in ((0, 5), (1, 5), (50, 100), (99, 100), (100, 100), (700, 1000)):
        expected = binomtest(successes, draws).proportion_ci(1 - 2 * 0.001, "exact").low
        found = lower_bound(np.array([float(successes)]), draws, 0.001)
        assert found[0] == pytest.approx(expected, abs=1e-12)


def linear() -> tuple[Smoothed, Tensor, Tensor, Tensor, Tensor]:
    """A smoothed linear model of two classes, clips, lengths, decisions, and the distance (B,) to its boundary.

    A linear decision is smoothed into itself, so that distance is the true radius.
    """
    made = smoothed(toys.Linear, classes=2)
    waveform, lengths, _ = toys.sounds(12)
    waveform = waveform * 0.5
    jacobian = torch.autograd.functional.jacobian(lambda x: made.base(x, lengths[:1])[0], waveform[:1])[:, 0]
    slope = (jacobian[1] - jacobian[0]) * (torch.arange(toys.SAMPLES) < lengths[:, None])
    logits = made.base(waveform, lengths).detach()
    distance = (logits[:, 1] - logits[:, 0]).abs() / slope.norm(dim=1)
    return made, waveform, lengths, logits.argmax(1), distance


def test_the_certificate_is_below_the_true_radius_and_near_it() -> None:
    made, waveform, lengths, labels, distance = linear()
    torch.manual_seed(0)
    radii = CertifiedRadius(draws=600).measure(made, waveform, waveform, lengths, labels).float()
    assert (radii <= distance).all()
    # Neither too near to be certified nor further than so many draws can prove.
    provable = (distance > 0.2 * SIGMA) & (distance < 1.5 * SIGMA)
    assert provable.sum() >= 4
    assert (radii[provable] > distance[provable] - 0.4 * SIGMA).all()
    assert (radii <= SIGMA * -torch.special.ndtri(torch.tensor(1 - 0.001 ** (1 / 600)))).all()
    assert (radii[distance < 0.05 * SIGMA] == 0).all()

    torch.manual_seed(0)
    wrong = CertifiedRadius(draws=600).measure(made, waveform, waveform, lengths, 1 - labels)
    assert (wrong == 0).all()
    for radius in (0.0, 0.5 * SIGMA, 1.5 * SIGMA):
        torch.manual_seed(0)
        share = CertifiedAccuracy(draws=600, radius=radius).measure(made, waveform, waveform, lengths, labels)
        assert torch.equal(share.bool(), (radii > 0) & (radii >= radius))


def test_within_the_certificate_no_direction_changes_the_decision() -> None:
    made, waveform, lengths, labels, _ = linear()
    torch.manual_seed(0)
    radii = CertifiedRadius(draws=300).measure(made, waveform, waveform, lengths, labels).float()
    with Target(made.base, lengths, "waveform", mask=sound_mask(lengths, toys.SAMPLES)) as target:
        gradient = target.gradient(waveform, labels)
        worst = gradient / gradient.norm(dim=1, keepdim=True)
        certain = radii > 0
        assert certain.sum() >= 4
        assert torch.equal(target.decisions(waveform + radii[:, None] * worst)[certain], labels[certain])


def test_the_radius_is_sigma_times_the_quantile_of_a_bound_from_copies_of_its_own(monkeypatch) -> None:
    made = smoothed()
    waveform, lengths, _ = toys.sounds(4)
    draws, alpha = 200, 0.01
    # The selection's votes are for class 0 by far; of those that certify it has ever fewer.
    certify = torch.tensor([[200, 0, 0], [150, 50, 0], [110, 90, 0], [60, 140, 0]])
    asked = []

    def counted(model: Smoothed, waveform: Tensor, lengths: Tensor, number: int) -> Tensor:
        asked.append(number)
        return torch.tensor([[number, 0, 0]] * 4) if len(asked) == 1 else certify

    monkeypatch.setattr(certificates, "votes", counted)
    metric = CertifiedRadius(draws=draws, selection=20, alpha=alpha)
    radii = metric.measure(made, waveform, waveform, lengths, torch.zeros(4, dtype=torch.long))
    assert asked == [20, draws]
    low = [binomtest(int(seen), draws).proportion_ci(1 - 2 * alpha, "exact").low for seen in certify[:, 0]]
    # All votes: (α)^(1/n), the one-sided bound, which the two-sided interval does not tell.
    low[0] = alpha ** (1 / draws)
    expected = [SIGMA * float(torch.special.ndtri(torch.tensor(p))) if p > 0.5 else 0.0 for p in low]
    assert radii.tolist() == pytest.approx(expected, abs=1e-6)
    assert expected[0] > expected[1] > 0 == expected[3]


def test_votes_are_counted_one_a_copy() -> None:
    made = smoothed()
    waveform, lengths, _ = toys.sounds()
    found = votes(made, waveform, lengths, 7)
    assert found.shape == (6, 3)
    assert (found.sum(1) == 7).all()
    still = copy.deepcopy(made)
    still.sigma = 0.0
    decided = still.base(waveform, lengths).argmax(1)
    assert torch.equal(votes(still, waveform, lengths, 2), 2 * functional.one_hot(decided, 3))


def test_a_victim_that_is_not_smoothed_has_no_certificate() -> None:
    made = toys.model(toys.Linear).eval()
    waveform, lengths, labels = toys.sounds()
    with pytest.raises(NotApplicableError, match="not smoothed"):
        CertifiedRadius().measure(made, waveform, waveform, lengths, labels)
    assert math.isclose(CertifiedAccuracy().radius, 0.01)


class Loud(Smoothed):
    """Says that it adds more noise than it does."""

    def __init__(self, base: EmotionModel) -> None:
        super().__init__(base, 100.0, 1)

    def noisy(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform


def test_what_a_smoothed_model_says_of_its_own_noise_proves_nothing() -> None:
    made = smoothed(toys.Linear, classes=2)
    waveform, lengths, labels = toys.sounds(4)
    with pytest.raises(NotApplicableError, match="not smoothed"):
        CertifiedRadius().measure(Loud(made.base), waveform, waveform, lengths, labels)
    honest = votes(made, waveform, lengths, 400)
    made.noisy = lambda waveform, lengths: waveform  # type: ignore[method-assign]
    assert torch.allclose(votes(made, waveform, lengths, 400) / 400, honest / 400, atol=0.15)
