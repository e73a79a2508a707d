"""Directions of steepest ascent: of norm 1 whatever the gradient's size, and of nothing in the padding."""

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
    made = of_length_1(gradient, order)
    assert torch.equal(made[0], torch.zeros(5))
    assert made[1].norm(p=order) == pytest.approx(1)


class Confident(toys.Linear):
    """Its margins are so large that the cross-entropy has a gradient of 1e-20 at most."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: str) -> Outputs:
        said = super().outputs(x, lengths, domain)
        spread = said.logits.detach().topk(2, dim=1).values.diff(dim=1).abs()
        return Outputs(said.logits * 46 / spread, said.embedding)


@pytest.mark.parametrize(("name", "norm"), [("pgd", "l2"), ("ifgsm", "l2"), ("apgd", "l2"), ("mi-fgsm", "linf")])
def test_a_confident_model_hides_from_no_norm(name: str, norm: str) -> None:
    made = toys.model(Confident).eval()
    x, lengths, _ = toys.sounds(8)
    labels = made.outputs(x, lengths, "waveform").logits.argmax(1)
    attack = build(ATTACKS.get(name), {"epsilon": 0.2, "norm": norm, "steps": 5}, name)
    plain = toys.model(toys.Linear).eval()
    with Target(made, lengths, "waveform", attack.access) as target:
        found = attack.perturb(target, x, labels, torch.Generator().manual_seed(0))
    before, after = (margin(plain.outputs(at, lengths, "waveform"), labels) for at in (x, found))
    # A random start alone moves margins either way.
    assert float((after - before).detach().mean()) > 0.02


class OneNaN(toys.Linear):
    """The gradient at one sample of each clip is not a number."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: str) -> Outputs:
        one = x[:, 7:8]
        spoilt = torch.cat([x[:, :7], (one - one).sqrt() + one.detach(), x[:, 8:]], dim=1)
        return super().outputs(spoilt, lengths, domain)


@pytest.mark.parametrize("name", ["pgd", "apgd", "mi-fgsm"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_value_that_is_no_number_switches_no_attack_off(name: str, norm: str) -> None:
    made = toys.model(OneNaN).eval()
    x, lengths, _ = toys.sounds(8)
    labels = made.outputs(x, lengths, "waveform").logits.argmax(1)
    attack = build(ATTACKS.get(name), {"epsilon": 0.05 if norm == "linf" else 3.0, "norm": norm, "steps": 5}, name)
    with Target(made, lengths, "waveform", attack.access) as target:
        found = attack.perturb(target, x, labels, torch.Generator().manual_seed(0))
        assert found.isfinite().all()
        assert not torch.equal(target.logits(found).argmax(1), labels)


class Watching(Target):
    """Tells whether it was ever asked about changed padding."""

    def __init__(self, *arguments: object, clean: Tensor, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)
        self.clean = clean
        self.changed = False

    def _classify(self, x: Tensor, domain: str) -> Outputs:
        if self.mask is not None and len(x) == len(self.clean):
            self.changed |= not torch.equal(torch.where(self.mask, self.clean, x), self.clean)
        return super()._classify(x, domain)


STARTED: list[Attack] = [
    IterativeFGSM(epsilon=0.01, steps=3, random_start=0.01),
    *(build(ATTACKS.get(name), {"epsilon": 0.01, "steps": 3}, name) for name in ("pgd", "apgd")),
]


@pytest.mark.parametrize("attack", STARTED, ids=lambda attack: type(attack).__name__)
def test_no_attack_asks_about_changed_padding(attack: Attack) -> None:
    made = toys.model(toys.Convolutional).eval()
    x, lengths, labels = toys.sounds(6)
    mask = torch.arange(x.shape[1]) < lengths[:, None]
    assert not mask.all()
    with Watching(made, lengths, "waveform", attack.access, mask=mask, clean=x) as target:
        attack.perturb(target, x, labels, torch.Generator().manual_seed(0))
    assert not target.changed
