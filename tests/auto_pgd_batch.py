"""A toy model and clips for the tests of Auto-PGD."""

from __future__ import annotations

import torch
import toys
from torch import Tensor

from advser.attacks.base import Attack
from advser.models.terms import Domain
from advser.threat.objectives import Loss, margin
from advser.threat.target import Target


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Batch:
    """A toy model, and clips that it classifies correctly."""

    def __init__(self, classes: int, domain: Domain = "spectrogram", clips: int = 24) -> None:
        self.model = toys.model(toys.Convolutional, classes=classes).eval()
        waveform, self.lengths, _ = toys.sounds(clips, seed=5)
        self.domain = domain
        with torch.no_grad():
            self.x = self.model.inputs(waveform, self.lengths, domain)
            self.labels = self.model.outputs(self.x, self.lengths, domain).logits.argmax(1)

    def target(self, kind: type[Target] = Target, **given: Loss) -> Target:
        return kind(self.model, self.lengths, self.domain, **given)

    def perturb(self, attack: Attack, **given: Loss) -> Tensor:
        with self.target(**given) as target:
            return attack.perturb(target, self.x, self.labels, generator())

    def margins(self, perturbed: Tensor) -> Tensor:
        with self.target() as target:
            return target.loss(perturbed, self.labels, margin)

    def robust(self, attack: Attack) -> int:
        return int((self.margins(self.perturb(attack)) <= 0).sum())
