"""Momentum, input diversity and the expectation over a randomised model."""

from __future__ import annotations

import pytest
import torch
import toys
from torch import Tensor

from advser.attacks.eot import EOT, Averaged
from advser.attacks.gradient_sign import IterativeFGSM
from advser.attacks.momentum import MomentumIterativeFGSM
from advser.errors import InputError
from advser.models.terms import DOMAINS, Domain
from advser.plan.jobs import inner_attacks
from advser.plugins.parameters import build
from advser.threat.objectives import margin
from advser.threat.target import Target


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(kind: type[toys.EmotionModel], domain: Domain) -> tuple[Target, Tensor, Tensor]:
    model = toys.model(kind).eval()
    waveform, lengths, labels = toys.sounds(16)
    mask = torch.arange(toys.SAMPLES) < lengths[:, None] if domain == "waveform" else None
    return Target(model, lengths, domain, mask=mask), model.inputs(waveform, lengths, domain).detach(), labels


def test_without_decay_and_diversity_it_is_iterative_fgsm() -> None:
    target, x, labels = batch(toys.Convolutional, "spectrogram")
    with target:
        ours = MomentumIterativeFGSM(epsilon=0.05, alpha=0.01, decay=0.0).perturb(target, x, labels, generator())
        theirs = IterativeFGSM(epsilon=0.05, alpha=0.01).perturb(target, x, labels, generator())
        further = MomentumIterativeFGSM(epsilon=0.05, alpha=0.01).perturb(target, x, labels, generator())
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, further)


def test_the_second_step_follows_the_sum_of_both_gradients_of_l1_norm_1() -> None:
    target, x, labels = batch(toys.Convolutional, "spectrogram")
    with target:
        first = MomentumIterativeFGSM(epsilon=1.0, alpha=0.1, steps=1).perturb(target, x, labels, generator())
        second = MomentumIterativeFGSM(epsilon=1.0, alpha=0.1, steps=2, decay=0.5).perturb(
            target, x, labels, generator()
        )
        gradients = [target.gradient(at, labels) for at in (x, first)]
    unit = [gradient / gradient.abs().sum((1, 2), keepdim=True) for gradient in gradients]
    torch.testing.assert_close(second, first + 0.1 * (0.5 * unit[0] + unit[1]).sign())


@pytest.mark.parametrize("domain", DOMAINS)
def test_transformations_change_a_share_of_the_clips_and_no_padding(domain: Domain) -> None:
    target, x, _ = batch(toys.Convolutional, domain)
    never, half, always = (
        MomentumIterativeFGSM(epsilon=0.1, diversity=share, frames=20, bands=9) for share in (0.0, 0.5, 1.0)
    )
    assert torch.equal(never.transformed(x, target, generator()), x)
    changed = always.transformed(x, target, generator())
    assert (changed != x).flatten(1).any(1).all()
    partly_changed = half.transformed(x, target, generator())
    assert 0 < (partly_changed != x).flatten(1).any(1).sum() < len(x)
    if target.mask is not None:
        assert torch.equal(changed[~target.mask], x[~target.mask])


def test_a_waveform_is_shifted_and_scaled_within_the_limits() -> None:
    x = torch.zeros(64, 400)
    x[:, 200] = 0.5
    target = Target(None, torch.full((64,), 400), "waveform")
    attack = MomentumIterativeFGSM(epsilon=0.1, diversity=1.0, shift=2.0, gain=6.0)
    changed = attack.transformed(x, target, generator())
    places, peaks = changed.argmax(1), changed.amax(1)
    assert ((changed != 0).sum(1) == 1).all()
    assert 168 <= places.min() < 180 < 220 < places.max() <= 232
    assert 0.5 / 1.996 <= peaks.min() < 0.3 < 0.8 < peaks.max() <= 0.5 * 1.996


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_gradient_is_taken_through_the_transformation(domain: Domain) -> None:
    target, x, labels = batch(toys.Linear, domain)
    x = x.double()
    target._model.double()
    attack = MomentumIterativeFGSM(epsilon=0.1, diversity=1.0)
    with target:
        gradient = attack._gradient(target, x, labels, generator(3))
        direction = torch.randn(x.shape, generator=generator(1), dtype=x.dtype)
        direction = direction if target.mask is None else direction * target.mask
        ends = [
            target.loss(attack.transformed(x + side * 1e-6 * direction, target, generator(3)), labels)
            for side in (-1, 1)
        ]
    slope = (gradient * direction).flatten(1).sum(1)
    torch.testing.assert_close(slope, (ends[1] - ends[0]) / 2e-6, rtol=1e-4, atol=1e-6)


INNER = ["pgd", "apgd", "square", "ifgsm", "mi-fgsm", "hopskipjump"]


def eot(name: str, draws: int, **params: object) -> EOT:
    return build(EOT, {"epsilon": 0.002, "draws": draws, "attack": {"name": name, "params": params}}, "eot")


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("name", INNER)
def test_on_a_deterministic_model_eot_equals_the_attack_within_bit_by_bit(name: str, draws: int) -> None:
    target, x, labels = batch(toys.Convolutional, "waveform")
    whole = eot(name, draws, **({"queries": 20} if name in ("square", "hopskipjump") else {"steps": 4}))
    with target:
        alone = whole.attack.build().perturb(target, x, labels, generator())
        passes = target.forwards.clone(), target.backwards.clone()
        averaged = whole.perturb(target, x, labels, generator())
    assert torch.equal(averaged, alone)
    assert torch.equal(target.forwards, passes[0] * (draws + 1))
    assert torch.equal(target.backwards, passes[1] * (draws + 1))


class Noisy(toys.Linear):
    """Scales the features by mostly noise at every pass."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        noise = torch.randn(len(features), 1)
        return features.flatten(1) * (1 + 6 * noise)


def test_means_over_draws_approach_the_exact_gradient() -> None:
    model = toys.model(Noisy)
    waveform, lengths, labels = toys.sounds(16)
    x = waveform
    without_noise = toys.model(toys.Linear)
    with torch.random.fork_rng(), Target(model, lengths, "waveform") as target:
        torch.manual_seed(0)
        exact = Target(without_noise, lengths, "waveform").gradient(x, labels, margin)
        cosines = [
            torch.cosine_similarity(Averaged(target, draws).gradient(x, labels, margin), exact).mean()
            for draws in (1, 60)
        ]
    assert cosines[1] > cosines[0] + 0.2
    assert target.backwards.tolist() == [61] * 16


def test_the_attack_within_has_the_budget_of_eot() -> None:
    whole = build(EOT, {"epsilon": 0.01, "norm": "l2"}, "eot")
    assert (whole.attack.name, whole.attack.params["epsilon"], whole.attack.params["norm"]) == ("pgd", 0.01, "l2")
    assert inner_attacks(whole) == ("pgd",)
    with pytest.raises(InputError, match=r"eot: attack 'pgd': epsilon: got 0\.2, expected the whole attack's 0\.01"):
        build(EOT, {"epsilon": 0.01, "attack": {"name": "pgd", "params": {"epsilon": 0.2}}}, "eot")
    with pytest.raises(InputError, match="eot: epsilon: got nothing, expected a value"):
        build(EOT, {}, "eot")
