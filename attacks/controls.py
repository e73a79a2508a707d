"""Controls: what a perturbation does that knows nothing of the model."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.parameters import parameter
from advser.target import Target
from advser.threat import Access


class Unperturbed(Attack):
    """No attack: the clean reference that every other row is compared with."""

    access: ClassVar[Access] = "blind"

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x``."""
        return x


class Noise(Attack):
    """White noise within the budget: Gaussian, or ±ε with random sign.

    Random sign has the L∞ norm and the energy of an FGSM perturbation. Gaussian noise has standard deviation ε / 3, so
    that its clipping at ±ε by the harness touches 0.3 % of the values.
    """

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    epsilon: float = parameter(unit="full-scale or z", about="L∞ budget ε", ge=0)
    kind: Literal["gaussian", "sign"] = parameter("sign", about="distribution")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Add the noise."""
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return x + (self.epsilon * noise.sign() if self.kind == "sign" else self.epsilon / 3 * noise)
