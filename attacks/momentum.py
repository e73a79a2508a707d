"""Momentum iterative FGSM with random transformations of the input, for transfer to other models."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.steepest import ascended, of_length_1
from advser.audio.pcm import SAMPLE_RATE
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm, gradient_steps, step_size
from advser.threat.budget import per_clip, scale
from advser.threat.model import Norm
from advser.threat.target import Target


class MomentumIterativeFGSM(Attack):
    """Momentum iterative FGSM: steps along accumulated gradients of randomly transformed inputs.

    g₍ₖ₊₁₎ = μ g₍ₖ₎ + ∇L(T(x₍ₖ₎)) / ‖∇L(T(x₍ₖ₎))‖₁ and x₍ₖ₊₁₎ = Π(x₍ₖ₎ + α · d(g₍ₖ₊₁₎)), where d is the sign in L∞, and
    division by the L2 norm in L2. With probability ``diversity``, drawn for each clip and step, T shifts a waveform by
    up to ±``shift`` ms and scales it by up to ±``gain`` dB, or shifts a spectrogram by up to ±``frames`` frames and
    ±``bands`` bands; otherwise T is the identity. The gradient is taken with respect to x₍ₖ₎, through T.

    Input diversity is from Xie et al., who resize and pad images at random. These transformations replace theirs for
    sound, so their figures do not apply here. A shifted clip repeats the value at its edge; its padding stays
    unchanged.
    """

    citation: ClassVar[str] = (
        "Dong et al.: Boosting adversarial attacks with momentum, CVPR 2018, alg. 1 and eq. 8; diversity after Xie et "
        "al.: Improving transferability of adversarial examples with input diversity, CVPR 2019"
    )

    bf16: ClassVar[bool] = True

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε")
    norm: Norm = budget_norm(about="norm of the budget and of the steps")
    alpha: float | None = step_size(None, about="step size α; none: ε / steps")
    steps: int = gradient_steps(10)
    decay: float = parameter(1.0, about="decay μ of the momentum; 0: no momentum", ge=0)
    diversity: float = parameter(0.0, unit="probability", about="of a transformation, per clip and step", ge=0, le=1)
    shift: float = parameter(5.0, unit="ms", about="largest shift of a waveform, either way", ge=0)
    gain: float = parameter(3.0, unit="dB", about="largest scaling of a waveform, either way", ge=0)
    frames: int = parameter(4, unit="frames", about="largest shift of a spectrogram in time, either way", ge=0)
    bands: int = parameter(1, unit="bands", about="largest shift of a spectrogram in frequency, either way", ge=0)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` after all steps; each takes one forward and one backward pass."""
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
        # A shifted clip contains padding, which the attack must not change.
        return gradient if target.mask is None else gradient * target.mask

    def transformed(self, x: Tensor, target: Target, generator: torch.Generator) -> Tensor:
        """Return ``x``, with each clip transformed at random with probability ``diversity``."""

        def draw(most: float) -> Tensor:
            return (torch.rand(len(x), generator=generator, device=x.device) * 2 - 1) * most

        if target.domain == "waveform":
            changed = _shifted(x, draw(self.shift * SAMPLE_RATE / 1000), -1)
            changed = changed * per_clip(10 ** (draw(self.gain) / 20), x)
        else:
            changed = _shifted(_shifted(x, draw(self.frames), -1), draw(self.bands), -2)
        chosen = torch.rand(len(x), generator=generator, device=x.device) < self.diversity
        chosen = per_clip(chosen, x) if target.mask is None else per_clip(chosen, x) & target.mask
        return torch.where(chosen, changed, x)


def _shifted(x: Tensor, by: Tensor, dimension: int) -> Tensor:
    """Return clips (B, …), each shifted by ``by`` (B,), rounded, along a dimension; the edge value is repeated."""
    size = x.shape[dimension]
    places = (torch.arange(size, device=x.device) - by.round().long()[:, None]).clamp(0, size - 1)
    shape = [len(x), *[1] * (x.ndim - 1)]
    shape[dimension] = size
    return x.gather(x.ndim + dimension, places.view(shape).expand_as(x))
