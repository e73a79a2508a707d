"""Controls: what a perturbation does that knows nothing of the model."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.steepest import random_start
from advser.models.terms import Domain
from advser.plugins.parameters import budget, budget_norm, parameter
from advser.threat.budget import per_clip
from advser.threat.model import Access, Norm
from advser.threat.target import Target


def random_signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw −1 or 1, each with probability 1/2, in ``shape``, of the type and on the device of ``like``."""
    return torch.randint(2, shape, generator=generator, device=like.device).to(like) * 2 - 1


class Unperturbed(Attack):
    """No attack: the clean reference that every other row is compared with."""

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x``."""
        return x


class Noise(Attack):
    """White noise that uses up the budget: ±ε with random sign, or Gaussian.

    Random sign has the L∞ norm and the energy of an FGSM perturbation. Gaussian noise has standard deviation ε / 3, so
    that its clipping at ±ε by the harness touches 0.3 % of the values. In L2 the noise is of a random direction, kind
    notwithstanding, and as loud as the budget allows; relative to the clip that is a signal-to-noise ratio of
    −20 log₁₀ ε dB. In sound of 16 bits, noise of less than half a step a sample is rounded to less than that.
    """

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε")
    norm: Norm = budget_norm(about="norm of the budget")
    kind: Literal["gaussian", "sign"] = parameter("sign", about="distribution in L∞")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Add the noise."""
        if self.norm != "linf":
            return random_start(x, target, self.norm, self.epsilon, generator)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return x + (self.epsilon * noise.sign() if self.kind == "sign" else self.epsilon / 3 * noise)


class SnrNoise(Attack):
    """White Gaussian noise at a signal-to-noise ratio, the same for every clip.

    It is the control of an attack at equal SNR: given the SNR that the attack's row tells, it adds as much energy and
    knows nothing of the model. At equal ε `Noise` of kind ``sign`` is louder than an iterative attack, which does not
    spend all of its budget. The SNR is a ratio of energies over unpadded samples; a silent clip is left as it is.
    """

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"
    domains: ClassVar[tuple[Domain, ...]] = ("waveform",)

    snr: float = parameter(unit="dB", about="energy of the clip over that of the noise")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Add the noise."""
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        noise = noise if target.mask is None else noise * target.mask
        size = x.norm(dim=1) / noise.norm(dim=1) * 10 ** (-self.snr / 20)
        return x + per_clip(size, x) * noise


class FrameNoise(Attack):
    """±ε with one random sign a frame, held over the frame: a square wave at the frame rate that knows no model.

    In a spectrogram a frame is a frame, and all its bands have the same sign. It has the shape of what the
    ``chain-rule`` attack adds to the sound.
    """

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    epsilon: float = budget(unit="full-scale or z", about="L∞ budget ε")
    hop: int = parameter(160, unit="samples at 16 kHz", about="length of a frame of a waveform", ge=1)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Add the noise."""
        held = self.hop if target.domain == "waveform" else 1
        frames = -(-x.shape[-1] // held)
        signs = random_signs((len(x), *[1] * (x.ndim - 2), frames), x, generator)
        return x + self.epsilon * signs.repeat_interleave(held, -1)[..., : x.shape[-1]]


class Offset(Attack):
    """A constant ±ε with one random sign a clip (DC): the slowest perturbation of that size."""

    citation: ClassVar[str] = "control; no source"
    access: ClassVar[Access] = "blind"

    epsilon: float = budget(unit="full-scale or z", about="L∞ budget ε")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Add the constant."""
        return x + self.epsilon * per_clip(random_signs((len(x),), x, generator), x)
