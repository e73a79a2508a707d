"""Budgets: by how much an attack may change a clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol, get_args

import torch
from torch import Tensor

from advser.threat.model import Norm, Unit


def per_clip(values: Tensor, like: Tensor) -> Tensor:
    """Return one value per clip (B,) in a shape that broadcasts to ``like`` (B, …)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def scale(original: Tensor, norm: Norm) -> Tensor:
    """Return the unit of ε and step sizes per clip (B,): the clip's L2 norm if ``norm`` is relative to it, else 1."""
    if norm != "relative-l2":
        return original.new_ones(len(original))
    length: Tensor = original.flatten(1).norm(dim=1)
    return length


class Projection(Protocol):
    """Returns the nearest point within a budget around fixed clips."""

    def __call__(self, perturbed: Tensor, into: Tensor | None = None) -> Tensor:
        """Return the nearest point to ``perturbed`` (B, …), in new memory or ``into`` a tensor, even the same."""


def unbounded(perturbed: Tensor, into: Tensor | None = None) -> Tensor:
    """Return ``perturbed``: the `Projection` without a budget."""
    return perturbed if into is None else into.copy_(perturbed)


@dataclass(frozen=True)
class Budget:
    """A bound on a perturbation, per clip.

    Attributes:
        norm: ``linf`` (largest absolute change), ``l2`` (Euclidean norm over the clip), or ``relative-l2`` (Euclidean
            norm over that of the clip: ε keeps the signal-to-noise ratio at −20 log₁₀ ε dB or above, and leaves a
            silent clip unchanged). Padding is zero and adds to no norm.
        epsilon: the bound, at least 0.
        unit: ``full-scale`` (waveform on [−1, 1]), ``z`` (standard deviations of the training data) or ``clip`` (the
            clip's own norm).
    """

    norm: Norm
    epsilon: float
    unit: Unit

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm: got '{self.norm}', expected {', '.join(get_args(Norm))}")
        if not self.epsilon >= 0:
            raise ValueError(f"epsilon: got {self.epsilon}, expected a number of at least 0")

    def bound(self, original: Tensor) -> Tensor:
        """Return the largest norm of a perturbation of each clip (B,), in the scale of ``original`` (B, …)."""
        # Silence times an infinite bound is NaN; silence stays silent.
        return (scale(original, self.norm) * self.epsilon).nan_to_num(nan=0.0, posinf=torch.inf)

    def project(self, perturbed: Tensor, original: Tensor) -> Tensor:
        """Return the nearest point to ``perturbed`` within the budget around ``original``; both (B, …)."""
        return self.projection(original)(perturbed)

    def projection(self, original: Tensor) -> Projection:
        """Return `project` around ``original`` (B, …) for many calls: its bounds are computed once."""
        if self.norm == "linf":
            low, high = original - self.epsilon, original + self.epsilon
            return lambda perturbed, into=None: torch.clamp(perturbed, low, high, out=into)
        return partial(_shortened, original=original, bound=self.bound(original))

    def size(self, perturbed: Tensor, original: Tensor) -> Tensor:
        """Return the norm of each clip's perturbation in the budget's unit: (B, …) → (B,)."""
        flat = (perturbed - original).flatten(1)
        if self.norm == "linf":
            return flat.abs().amax(1)
        length: Tensor = flat.norm(dim=1)
        return torch.where(length == 0, length, length / scale(original, self.norm))

    def exceeded(self, perturbed: Tensor, original: Tensor) -> Tensor:
        """Return per clip (B,) whether the budget is exceeded by more than float32 rounding.

        There is no slack for 16-bit rounding, which stays within the budget
            (`advser.threat.admission.round_within`).
        """
        delta = (perturbed - original).flatten(1)
        slack = 1e-6 * (1 + original.flatten(1).abs().amax(1))
        if self.norm == "linf":
            return ~(delta.abs().amax(1) <= self.epsilon + slack)  # negated, so that NaN exceeds it
        # Samples that were rounded back to the original add nothing.
        slack = slack * (delta != 0).sum(1).sqrt()
        within: Tensor = delta.norm(dim=1) <= self.bound(original) + slack
        return ~within


def _shortened(perturbed: Tensor, into: Tensor | None = None, *, original: Tensor, bound: Tensor) -> Tensor:
    """Return the points nearest to ``perturbed`` (B, …) within an L2 distance of ``bound`` (B,) from ``original``."""
    delta = perturbed - original
    length = delta.flatten(1).norm(dim=1)
    # Points within the budget stay as they are: adding the difference again would round them.
    nearest = original + delta * per_clip(bound / length, delta)
    return torch.where(per_clip(length <= bound, delta), perturbed, nearest, out=into)
