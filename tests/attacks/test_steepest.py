"""Directions of steepest ascent: norm 1 for gradients of any size, and no change of the padding."""

from __future__ import annotations

import pytest
import torch
import toys
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.gradient_sign import IterativeFGSM
from advser.attacks.steepest import of_length_1, steepest
from advser.models.base import Outputs
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS
from advser.threat.objectives import margin
from advser.threat.target import Target

SIZES = (1e30, 1.0, 1e-6, 1e-12, 1e-20, 1e-30)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_direction_does_not_depend_on_the_gradients_size(norm: str, size: float) -> None:
    gradient = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(steepest(gradient * size, norm), steepest(gradient, norm), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_a_gradient_of_0_has_no_direction(order: int) -> None:
    gradient = torch.zeros(2, 5)
    gradient[1, 3] = 1e-38
    direction = of_length_1(gradient, order)
    assert torch.equal(direction[0], torch.zeros(5))
    assert direction[1].norm(p=order) == pytest.approx(1)


class Confident(toys.Linear):
    """Has margins so large that the gradient of the cross-entropy is at most 1e-20."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: str) -> Outputs:
        outputs = super().outputs(x, lengths, domain)
        spread = outputs.logits.detach().topk(2, dim=1).values.diff(dim=1).abs()
        return Outputs(outputs.logits * 46 / spread, outputs.embedding)


@pytest.mark.parametrize(("name", "norm"), [("pgd", "l2"), ("ifgsm", "l2"), ("apgd", "l2"), ("mi-fgsm", "linf")])
def test_attacks_in_every_norm_affect_a_confident_model(name: str, norm: str) -> None:
    model = toys.model(Confident).eval()
    x, lengths, _ = toys.sounds(8)
    labels = model.outputs(x, lengths, "waveform").logits.argmax(1)
    attack = build(ATTACKS.get(name), {"epsilon": 0.2, "norm": norm, "steps": 5}, name)
    plain = toys.model(toys.Linear).eval()
    with Target(model, lengths, "waveform", attack.access) as target:
        perturbed = attack.perturb(target, x, labels, torch.Generator().manual_seed(0))
    before, after = (margin(plain.outputs(sound, lengths, "waveform"), labels) for sound in (x, perturbed))
    # A random start alone changes margins in both directions.
    assert float((after - before).detach().mean()) > 0.02


class OneNaN(toys.Linear):
    """Has a gradient of NaN at one sample of each clip."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: str) -> Outputs:
        sample = x[:, 7:8]
        x = torch.cat([x[:, :7], (sample - sample).sqrt() + sample.detach(), x[:, 8:]], dim=1)
        return super().outputs(x, lengths, domain)


@pytest.mark.parametrize("name", ["pgd", "apgd", "mi-fgsm"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_of_nan_at_one_sample_disables_no_attack(name: str, norm: str) -> None:
    model = toys.model(OneNaN).eval()
    x, lengths, _ = toys.sounds(8)
    labels = model.outputs(x, lengths, "waveform").logits.argmax(1)
    attack = build(ATTACKS.get(name), {"epsilon": 0.05 if norm == "linf" else 3.0, "norm": norm, "steps": 5}, name)
    with Target(model, lengths, "waveform", attack.access) as target:
        perturbed = attack.perturb(target, x, labels, torch.Generator().manual_seed(0))
        assert perturbed.isfinite().all()
        assert not torch.equal(target.logits(perturbed).argmax(1), labels)


class Watching(Target):
    """Records whether the padding of any input differs from the clean clips'."""

    def __init__(self, *arguments: object, clean: Tensor, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)
        self.clean = clean
        self.changed = False

    def _classify(self, x: Tensor, domain: str) -> Outputs:
        if self.mask is not None and len(x) == len(self.clean):
            self.changed |= not torch.equal(torch.where(self.mask, self.clean, x), self.clean)
        return super()._classify(x, domain)


RANDOM_STARTS: list[Attack] = [
    IterativeFGSM(epsilon=0.01, steps=3, random_start=0.01),
    *(build(ATTACKS.get(name), {"epsilon": 0.01, "steps": 3}, name) for name in ("pgd", "apgd")),
]


@pytest.mark.parametrize("attack", RANDOM_STARTS, ids=lambda attack: type(attack).__name__)
def test_no_attack_evaluates_changed_padding(attack: Attack) -> None:
    model = toys.model(toys.Convolutional).eval()
    x, lengths, labels = toys.sounds(6)
    mask = torch.arange(x.shape[1]) < lengths[:, None]
    assert not mask.all()
    with Watching(model, lengths, "waveform", attack.access, mask=mask, clean=x) as target:
        attack.perturb(target, x, labels, torch.Generator().manual_seed(0))
    assert not target.changed
