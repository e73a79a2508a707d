"""Objectives: losses per clip that attacks ascend, of a model's outputs and the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from advser.models.base import Outputs

TINY: Final = 1e-12
"""Added to a denominator that may be 0."""

Loss = Callable[[Outputs, Tensor], Tensor]
"""From outputs and labels to the loss of each clip (B,)."""


def cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy per clip (B,); labels are classes (B,) or probabilities (B, C)."""
    return functional.cross_entropy(outputs.logits, labels, reduction="none")


def margin(outputs: Outputs, labels: Tensor) -> Tensor:
    """Highest logit among the other classes less that of the label (B,): above 0 where the clip is misclassified.

    Labels are classes (B,) or probabilities (B, C), which count as the most probable class. Works from two classes up.
    Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017, f6.
    """
    labels = classes(labels)
    own = outputs.logits.gather(1, labels[:, None]).squeeze(1)
    others = outputs.logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - own


def classes(labels: Tensor) -> Tensor:
    """Return labels as classes (B,); of probabilities (B, C) the most probable class."""
    return labels if labels.ndim == 1 else labels.argmax(1)


def difference_of_logits_ratio(outputs: Outputs, labels: Tensor) -> Tensor:
    """The `margin` over the difference of the highest and the third-highest logit (B,): DLR, blind to their scale.

    With two classes, where there is no third logit, it is the margin. Labels as there. Croce & Hein, "Reliable
    evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", 2020, eq. 6.
    """
    above = margin(outputs, labels)
    if outputs.logits.shape[1] < 3:
        return above
    highest = outputs.logits.topk(3, dim=1).values
    return above / (highest[:, 0] - highest[:, 2] + TINY)


def evasion(outputs: Outputs, labels: Tensor, weight: float = 1.0) -> Tensor:
    """Cross-entropy less ``weight`` (at least 0) times softplus(d) (B,): for an attack that knows the detector.

    d is the detector's logit, so softplus(d) is its cross-entropy for the answer "clean". Without a detector the
    loss is the cross-entropy. Attacks on classifier and detector at once: Carlini & Wagner,
    "Adversarial examples are not easily detected", 2017.
    """
    loss = cross_entropy(outputs, labels)
    return loss if outputs.detection is None else loss - weight * functional.softplus(outputs.detection)


OBJECTIVES: Final[dict[str, Loss]] = {"cross-entropy": cross_entropy, "margin": margin, "evasion": evasion}
"""The objectives of a suite, beside ``adaptive``: the loss of the source's defense."""

ADAPTIVE: Final = "adaptive"
"""The objective that the defense of the attacked model gives: `advser.defenses.base.Defense.adaptive`."""
