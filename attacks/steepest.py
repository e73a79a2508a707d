"""Steps of steepest ascent and random starting points in the norms of budgets."""

from __future__ import annotations

import torch
from torch import Tensor

from advser.threat.budget import per_clip, scale
from advser.threat.model import Norm
from advser.threat.target import Target


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the direction of norm 1 in which each clip's loss rises most: sign(g) in L∞, g / ‖g‖₂ in L2.

    Where the gradient is 0, so is the direction. Args and result are (B, …).
    """
    return gradient.sign() if norm == "linf" else of_length_1(gradient, 2)


def ascended(x: Tensor, gradient: Tensor, size: Tensor, norm: Norm, into: Tensor | None = None) -> Tensor:
    """Return each clip of ``x`` (B, …) a step of ``size`` (B,) further in the `steepest` direction.

    The result is written ``into`` that memory, which may be the gradient's; without it, into new memory, which takes
    twice as long. With it, no gradient can be taken of the step.
    """
    direction = torch.sign(gradient, out=into) if norm == "linf" else steepest(gradient, norm)
    return torch.addcmul(x, per_clip(size, x), direction, out=into)


def of_length_1(gradient: Tensor, order: int) -> Tensor:
    """Return each clip's gradient (B, …) over its norm of that order; 0 where it is 0, and nowhere else.

    It is divided by its largest value first: the squares of a small gradient, as a confident model has it, would
    vanish.
    """
    gradient = gradient / per_clip(_or_1(gradient.flatten(1).abs().amax(1)), gradient)
    return gradient / per_clip(_or_1(gradient.flatten(1).norm(p=order, dim=1)), gradient)


def _or_1(length: Tensor) -> Tensor:
    return torch.where(length > 0, length, 1.0)


def random_start(x: Tensor, target: Target, norm: Norm, epsilon: float, generator: torch.Generator) -> Tensor:
    """Draw a point around each clip, the same in its padding: uniform in an L∞ ball, on the surface of an L2 ball.

    In thousands of dimensions nearly all the volume of an L2 ball is at its surface.
    """
    if norm == "linf":
        direction = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) * 2 - 1
    else:
        direction = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    direction = direction if target.mask is None else direction * target.mask
    direction = direction if norm == "linf" else steepest(direction, norm)
    return x + direction * per_clip(epsilon * scale(x, norm), x)
