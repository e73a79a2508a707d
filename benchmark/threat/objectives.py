"""What attacks ascend: losses of each clip, of a model's outputs and the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from advser.models.base import Outputs

TINY: Final = 1e-12
"""Keeps a quotient finite whose denominator is 0."""

Loss = Callable[[Outputs, Tensor], Tensor]
"""From outputs and labels to the loss of each clip (B,), which an attack ascends."""


def cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy per clip (B,); labels are classes (B,) or probabilities (B, C)."""
    return functional.cross_entropy(outputs.logits, labels, reduction="none")


def margin(outputs: Outputs, labels: Tensor) -> Tensor:
    """Highest logit among the other classes less that of the label (B,): above 0 where the clip is misread.

    Labels are classes (B,) or probabilities (B, C), which count as the most probable class. Works from two classes up.
    Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017, f6.
    """
    labels = classes(labels)
    own = outputs.logits.gather(1, labels[:, None]).squeeze(1)
    others = outputs.logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - own


def classes(labels: Tensor) -> Tensor:
    """Return labels as classes (B,): of probabilities (B, C), the most probable one."""
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
    """Cross-entropy less ``weight`` (at least 0) times softplus(d) (B,): of an attack that knows the detector.

    d is the detector's logit, so softplus(d) its cross-entropy of the answer "clean". A model without a detector has
    none to evade: the loss is then the cross-entropy. Attacks on classifier and detector at once: Carlini & Wagner,
    "Adversarial examples are not easily detected", 2017.
    """
    loss = cross_entropy(outputs, labels)
    return loss if outputs.detection is None else loss - weight * functional.softplus(outputs.detection)


OBJECTIVES: Final[dict[str, Loss]] = {"cross-entropy": cross_entropy, "margin": margin, "evasion": evasion}
"""What a suite can have an attack ascend, beside ``adaptive``, the loss that the victim's defense gives."""

ADAPTIVE: Final = "adaptive"
"""The objective that the defense of the model before the attack gives: `advser.defenses.base.Defense.adaptive`."""
