"""Budgets: by how much an attacker may change a clip, and what is admitted of a perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from advser.threat.model import Norm, Unit


def per_clip(values: Tensor, like: Tensor) -> Tensor:
    """Return one value a clip (B,) in a shape that broadcasts to ``like`` (B, …)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def scale(original: Tensor, norm: Norm) -> Tensor:
    """Return what ε and step sizes are multiples of around each clip (B,): its L2 norm if relative to it, else 1."""
    if norm != "relative-l2":
        return original.new_ones(len(original))
    length: Tensor = original.flatten(1).norm(dim=1)
    return length


class Projection(Protocol):
    """Gives the nearest point within a budget around clips that it knows."""

    def __call__(self, perturbed: Tensor, into: Tensor | None = None) -> Tensor:
        """Return the nearest point to ``perturbed`` (B, …), in new memory, or ``into`` this, which may be its own."""


def unbounded(perturbed: Tensor, into: Tensor | None = None) -> Tensor:
    """Return ``perturbed``: the `Projection` where there is no budget."""
    return perturbed if into is None else into.copy_(perturbed)


@dataclass(frozen=True)
class Budget:
    """A bound on a perturbation, per clip.

    Attributes:
        norm: ``linf`` (largest absolute change), ``l2`` (Euclidean norm over the clip), or ``relative-l2`` (Euclidean
            norm over that of the clip: a bound of ε keeps the signal-to-noise ratio at −20 log₁₀ ε dB or above, and
            a silent clip as it is). Padding is zero and adds to neither.
        epsilon: the bound, at least 0.
        unit: ``full-scale`` (waveform on [−1, 1]), ``z`` (standard deviations of the training data) or ``clip`` (the
            clip's own norm).
    """

    norm: Norm
    epsilon: float
    unit: Unit

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise ValueError(f"epsilon: got {self.epsilon}, expected a number of at least 0")

    def bound(self, original: Tensor) -> Tensor:
        """Return the largest norm of a perturbation of each clip (B,), in the scale of ``original`` (B, …)."""
        # Silence times an infinite bound is no number; silence stays silent.
        return (scale(original, self.norm) * self.epsilon).nan_to_num(nan=0.0, posinf=torch.inf)

    def project(self, perturbed: Tensor, original: Tensor) -> Tensor:
        """Return the nearest point to ``perturbed`` within the budget around ``original``; both (B, …)."""
        return self.projection(original)(perturbed)

    def projection(self, original: Tensor) -> Projection:
        """Return `project` around ``original`` (B, …), to be called many times: its bounds are computed once."""
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
        """Tell per clip whether the budget is exceeded, beyond what float32 arithmetic explains.

        Rounding sound to 16 bits explains nothing: it is done within the budget
            (`advser.threat.admission.round_within`).
        """
        delta = (perturbed - original).flatten(1)
        slack = 1e-6 * (1 + original.flatten(1).abs().amax(1))
        if self.norm == "linf":
            return ~(delta.abs().amax(1) <= self.epsilon + slack)  # negated, so that what is no number exceeds it
        # What was rounded back to the original adds nothing.
        slack = slack * (delta != 0).sum(1).sqrt()
        within: Tensor = delta.norm(dim=1) <= self.bound(original) + slack
        return ~within


def _shortened(perturbed: Tensor, into: Tensor | None = None, *, original: Tensor, bound: Tensor) -> Tensor:
    """Return the points nearest to ``perturbed`` (B, …) within an L2 distance of ``bound`` (B,) from ``original``."""
    delta = perturbed - original
    length = delta.flatten(1).norm(dim=1)
    # Points within the budget are returned as they are: adding the difference again would round them.
    nearest = original + delta * per_clip(bound / length, delta)
    return torch.where(per_clip(length <= bound, delta), perturbed, nearest, out=into)
