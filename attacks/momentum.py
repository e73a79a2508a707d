"""Momentum iterative FGSM with random transformations of the input: made to transfer to other models."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.steepest import ascended, of_length_1
from advser.audio.pcm import SAMPLE_RATE
from advser.plugins.parameters import budget, budget_norm, parameter
from advser.threat.budget import per_clip, scale
from advser.threat.model import Norm
from advser.threat.target import Target


class MomentumIterativeFGSM(Attack):
    """Momentum iterative FGSM: steps along the gradients so far, each of them of L1 norm 1, of randomly changed inputs.

    g₍ₖ₊₁₎ = μ g₍ₖ₎ + ∇L(T(x₍ₖ₎)) / ‖∇L(T(x₍ₖ₎))‖₁ and x₍ₖ₊₁₎ = Π(x₍ₖ₎ + α · d(g₍ₖ₊₁₎)), where d is the sign, in L2
    division by the L2 norm. With probability ``diversity``, drawn for each clip and step, T moves a waveform by up to
    ``shift`` ms and scales it by up to ``gain`` dB either way, or moves a spectrogram by up to ``frames`` frames and
    ``bands`` bands; else it changes nothing. The gradient is that with respect to x₍ₖ₎, through T.

    Input diversity is by Xie et al., who resize images and pad them at random. Sound has no such size, so these
    transformations are in place of theirs, and their figures do not carry over. At its edges a clip is repeated, and
    what is beyond its end stays as it is.
    """

    citation: ClassVar[str] = (
        "Dong et al.: Boosting adversarial attacks with momentum, CVPR 2018, alg. 1 and eq. 8; diversity after Xie et "
        "al.: Improving transferability of adversarial examples with input diversity, CVPR 2019"
    )

    bf16: ClassVar[bool] = True

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε")
    norm: Norm = budget_norm(about="norm of the budget and of the steps")
    alpha: float | None = parameter(None, unit="full-scale, z or clip", about="step size α; none: ε / steps", gt=0)
    steps: int = parameter(10, unit="steps", about="number of steps", ge=1)
    decay: float = parameter(1.0, about="decay of the momentum μ; 0: none", ge=0)
    diversity: float = parameter(0.0, unit="probability", about="that a clip is transformed at a step", ge=0, le=1)
    shift: float = parameter(5.0, unit="ms", about="of a waveform: most it is moved, either way", ge=0)
    gain: float = parameter(3.0, unit="dB", about="of a waveform: most it is scaled, either way", ge=0)
    frames: int = parameter(4, unit="frames", about="of a spectrogram: most it is moved in time, either way", ge=0)
    bands: int = parameter(1, unit="bands", about="of a spectrogram: most it is moved in frequency, either way", ge=0)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Take the steps: one forward and one backward pass each."""
        size = (self.epsilon / self.steps if self.alpha is None else self.alpha) * scale(x, self.norm)
        project = self.projection(x, target.domain)
        perturbed, momentum = x, torch.zeros_like(x)
        for _ in range(self.steps):
            gradient = self._gradient(target, perturbed, labels, generator)
            momentum = self.decay * momentum + of_length_1(gradient, 1)
            perturbed = project(ascended(perturbed, momentum, size, self.norm, into=gradient), into=gradient)
        return perturbed

    def _gradient(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        if not self.diversity:
            return target.gradient(x, labels)
        with torch.enable_grad():
            variable = x.detach().clone().requires_grad_()
            changed = self.transformed(variable, target, generator)
            (gradient,) = torch.autograd.grad(changed, variable, target.gradient(changed.detach(), labels))
        # What a moved clip reads of the padding beyond its end is not the attack's to change.
        return gradient if target.mask is None else gradient * target.mask

    def transformed(self, x: Tensor, target: Target, generator: torch.Generator) -> Tensor:
        """Return each clip of ``x``, changed at random with probability ``diversity``, in the shape of ``x``."""

        def draw(most: float) -> Tensor:
            return (torch.rand(len(x), generator=generator, device=x.device) * 2 - 1) * most

        if target.domain == "waveform":
            moved = _moved(x, draw(self.shift * SAMPLE_RATE / 1000), -1)
            moved = moved * per_clip(10 ** (draw(self.gain) / 20), x)
        else:
            moved = _moved(_moved(x, draw(self.frames), -1), draw(self.bands), -2)
        chosen = torch.rand(len(x), generator=generator, device=x.device) < self.diversity
        chosen = per_clip(chosen, x) if target.mask is None else per_clip(chosen, x) & target.mask
        return torch.where(chosen, moved, x)


def _moved(x: Tensor, by: Tensor, dimension: int) -> Tensor:
    """Return clips (B, …) moved by whole places (B,) along a dimension; the value at the edge is repeated."""
    size = x.shape[dimension]
    places = (torch.arange(size, device=x.device) - by.round().long()[:, None]).clamp(0, size - 1)
    shape = [len(x), *[1] * (x.ndim - 1)]
    shape[dimension] = size
    return x.gather(x.ndim + dimension, places.view(shape).expand_as(x))
