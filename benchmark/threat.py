"""Threat models and budgets: what an attacker may change, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Domain = Literal["waveform", "spectrogram"]
Delivery = Literal["audio", "features"]
Labels = Literal["true", "predicted", "soft", "none"]
Access = Literal["white-box", "transfer", "scores", "decisions", "blind"]
Norm = Literal["linf", "l2"]
Unit = Literal["full-scale", "z"]

DOMAINS: tuple[Domain, ...] = get_args(Domain)
PCM_STEP = 1 / 32768
"""One step of 16-bit PCM on the scale [−1, 1]."""


def unit_of(domain: Domain) -> Unit:
    """Return the unit of a perturbation: the scale [−1, 1] for sound, standard deviations for features."""
    return "full-scale" if domain == "waveform" else "z"


def per_clip(values: Tensor, like: Tensor) -> Tensor:
    """Return one value a clip (B,) in a shape that broadcasts to ``like`` (B, …)."""
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class ThreatModel:
    """What the attacker stands on.

    Attributes:
        domain: what is perturbed, the waveform or the normalised spectrogram.
        delivery: ``features`` if the attacker stands between front end and classifier, ``audio`` if what is
            judged is sound.
        labels: which labels the attack is given; ``none`` if it uses none.
        access: what it may ask of the model; ``blind`` if nothing.
    """

    domain: Domain
    delivery: Delivery
    labels: Labels
    access: Access


@dataclass(frozen=True)
class Budget:
    """A bound on a perturbation, per clip.

    Attributes:
        norm: ``linf`` (largest absolute change) or ``l2`` (Euclidean norm over the clip).
        epsilon: the bound, at least 0.
        unit: ``full-scale`` (waveform on [−1, 1]) or ``z`` (standard deviations of the training data).
    """

    norm: Norm
    epsilon: float
    unit: Unit

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise ValueError(f"epsilon: found {self.epsilon}, allowed: a number of at least 0")

    def project(self, perturbed: Tensor, original: Tensor) -> Tensor:
        """Return the nearest point to ``perturbed`` within the budget around ``original``; both (B, …)."""
        if self.norm == "linf":
            return perturbed.clamp(original - self.epsilon, original + self.epsilon)
        delta = perturbed - original
        size = self.size(delta).view(-1, *[1] * (delta.ndim - 1))
        # Points within the budget are returned as they are: adding the difference again would round them.
        return torch.where(size <= self.epsilon, perturbed, original + delta * (self.epsilon / size))

    def size(self, delta: Tensor) -> Tensor:
        """Return the norm of each clip's perturbation: (B, …) → (B,)."""
        flat = delta.flatten(1)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)

    def exceeded(self, perturbed: Tensor, original: Tensor) -> Tensor:
        """Tell per clip whether the budget is exceeded, beyond what float32 arithmetic and PCM rounding explain.

        An L∞ budget on sound holds exactly, since rounding is done inside it (`advser.audio.round_within`). The
        rounding of an L2 budget may add half a PCM step a sample.
        """
        slack = 1e-6 * (1 + original.flatten(1).abs().amax(1))
        if self.norm == "l2":
            slack = slack * original[0].numel() ** 0.5
            if self.unit == "full-scale":
                slack = slack + PCM_STEP / 2 * original[0].numel() ** 0.5
        # Negated, so that a perturbation that is not a number exceeds every budget.
        return ~(self.size(perturbed - original) <= self.epsilon + slack)


def admit(perturbed: Tensor, x: Tensor, mask: Tensor, domain: Domain, budget: Budget | None) -> Tensor:
    """Return what is admitted of a perturbation: ``x`` outside ``mask``, within the budget, and sound on [−1, 1].

    Args:
        perturbed: what an attack returned, in the shape of ``x``.
        x: the clean inputs (B, …).
        mask: broadcasts to ``x``; false in padding.
        domain: what ``x`` is.
        budget: the bound; None: there is none.
    """
    admitted = torch.where(mask, perturbed, x)
    admitted = admitted if budget is None else budget.project(admitted, x)
    return admitted.clamp(-1, 1) if domain == "waveform" else admitted
