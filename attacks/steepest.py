"""Steps of steepest ascent and random starting points in the norms of budgets."""

from __future__ import annotations

import torch
from torch import Tensor

from advser.target import TINY, Target
from advser.threat import Norm, per_clip, scale


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the direction of norm 1 in which each clip's loss rises most: sign(g) in L∞, g / ‖g‖₂ in L2.

    Where the gradient is 0, so is the direction. Args and result are (B, …).
    """
    if norm == "linf":
        return gradient.sign()
    return gradient / per_clip(gradient.flatten(1).norm(dim=1).clamp_min(TINY), gradient)


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
