"""Steps of steepest ascent, and random starts, in the norms of budgets."""

from __future__ import annotations

import torch
from torch import Tensor

from advser.threat.budget import per_clip, scale
from advser.threat.model import Norm
from advser.threat.target import Target


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Return each clip's direction of steepest ascent, of norm 1: sign(g) in L∞, g / ‖g‖₂ in L2.

    Gradient and result are (B, …). The direction is 0 where the gradient is 0.
    """
    return gradient.sign() if norm == "linf" else of_length_1(gradient, 2)


def ascended(x: Tensor, gradient: Tensor, size: Tensor, norm: Norm, into: Tensor | None = None) -> Tensor:
    """Return each clip of ``x`` (B, …) after a step of ``size`` (B,) in the `steepest` direction.

    Args:
        x: inputs (B, …).
        gradient: of the loss (B, …).
        size: length of the step in ``norm`` (B,).
        norm: of the budget.
        into: memory for the result, which may be the gradient's; then the step has no gradient itself. New memory
            takes twice as long.
    """
    direction = torch.sign(gradient, out=into) if norm == "linf" else steepest(gradient, norm)
    return torch.addcmul(x, per_clip(size, x), direction, out=into)


def of_length_1(gradient: Tensor, order: int) -> Tensor:
    """Return each clip's gradient (B, …) divided by its norm of that order; 0 only where the gradient is 0.

    The gradient is divided by its largest value first, because the squares of a confident model's small gradient would
    underflow.
    """
    gradient = gradient / per_clip(_or_1(gradient.flatten(1).abs().amax(1)), gradient)
    return gradient / per_clip(_or_1(gradient.flatten(1).norm(p=order, dim=1)), gradient)


def _or_1(length: Tensor) -> Tensor:
    return torch.where(length > 0, length, 1.0)


def random_start(x: Tensor, target: Target, norm: Norm, epsilon: float, generator: torch.Generator) -> Tensor:
    """Return a random point around each clip, uniform in an L∞ ball or on the surface of an L2 ball.

    The padding stays unchanged. In thousands of dimensions, nearly all volume of an L2 ball is at its surface.
    """
    if norm == "linf":
        direction = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) * 2 - 1
    else:
        direction = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    direction = direction if target.mask is None else direction * target.mask
    direction = direction if norm == "linf" else steepest(direction, norm)
    return x + direction * per_clip(epsilon * scale(x, norm), x)
