"""Controls: perturbations that do not depend on the model."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.steepest import random_start
from advser.models.terms import Domain
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm
from advser.threat.budget import per_clip
from advser.threat.model import Access, Norm
from advser.threat.target import Target


def random_signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw −1 or 1, each with probability 1/2, in ``shape``, with the type and device of ``like``."""
    return torch.randint(2, shape, generator=generator, device=like.device).to(like) * 2 - 1


class Unperturbed(Attack):
    """No attack: the clean reference of all other rows."""

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x``."""
        return x


class Noise(Attack):
    """White noise that uses the whole budget: ±ε with random signs, or Gaussian.

    Random signs have the L∞ norm and the energy of an FGSM perturbation. Gaussian noise has the standard deviation
    ε / 3: the harness clips 0.3 % of its values to ±ε. In L2 the noise has a random direction and the norm ε, whatever
    ``kind`` is; relative to the clip, its signal-to-noise ratio is −20 log₁₀ ε dB. Rounding to 16 bits reduces noise of
    less than half a step per sample.
    """

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε")
    norm: Norm = budget_norm(about="norm of the budget")
    kind: Literal["gaussian", "sign"] = parameter("sign", about="distribution in L∞")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` with noise."""
        if self.norm != "linf":
            return random_start(x, target, self.norm, self.epsilon, generator)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return x + (self.epsilon * noise.sign() if self.kind == "sign" else self.epsilon / 3 * noise)


class SnrNoise(Attack):
    """White Gaussian noise at the same signal-to-noise ratio (SNR) for every clip.

    It is the control of an attack at equal SNR: with the SNR of the attack's row, it has the same energy. At equal ε,
    `Noise` of kind ``sign`` is louder than an iterative attack, which does not use its whole budget. The SNR is a ratio
    of energies over unpadded samples. A silent clip stays unchanged.
    """

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"
    domains: ClassVar[tuple[Domain, ...]] = ("waveform",)

    snr: float = parameter(unit="dB", about="energy of the clip over energy of the noise")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` with noise."""
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        noise = noise if target.mask is None else noise * target.mask
        size = x.norm(dim=1) / noise.norm(dim=1) * 10 ** (-self.snr / 20)
        return x + per_clip(size, x) * noise


class FrameNoise(Attack):
    """±ε with one random sign per frame: a square wave at the frame rate.

    In a spectrogram, all bands of a frame have the same sign. The perturbation has the shape of the ``chain-rule``
    attack's.
    """

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    epsilon: float = budget(unit="full-scale or z", about="L∞ budget ε")
    hop: int = parameter(160, unit="samples at 16 kHz", about="length of a frame in a waveform", ge=1)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` with noise."""
        hop = self.hop if target.domain == "waveform" else 1
        frames = -(-x.shape[-1] // hop)
        signs = random_signs((len(x), *[1] * (x.ndim - 2), frames), x, generator)
        return x + self.epsilon * signs.repeat_interleave(hop, -1)[..., : x.shape[-1]]


class Offset(Attack):
    """A constant ±ε with one random sign per clip (DC): the slowest perturbation of its size."""

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    epsilon: float = budget(unit="full-scale or z", about="L∞ budget ε")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` with the constant."""
        return x + self.epsilon * per_clip(random_signs((len(x),), x, generator), x)
