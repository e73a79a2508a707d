"""The best example of each clip over several attempts, evaluated as the harness stores it."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.models.base import Outputs
from advser.threat.budget import per_clip
from advser.threat.objectives import Loss, cross_entropy, difference_of_logits_ratio, margin
from advser.threat.target import Target

CLASSIFICATION_LOSSES: tuple[Loss, ...] = (cross_entropy, margin, difference_of_logits_ratio)
"""Losses that depend on the classification of the clip alone."""


def aims_at_misclassification(loss: Loss, target: Target) -> bool:
    """Return whether misclassification is the only aim of a loss: always, unless the target has a detector to evade.

    Without a detector, a loss that adapts to the defense, such as the distance of embeddings, has no other aim.
    """
    return loss in CLASSIFICATION_LOSSES or not target.has_detector


def stronger(margins: Tensor, losses: Tensor, other_margins: Tensor, other_losses: Tensor) -> Tensor:
    """Return where examples are stronger than others (B,).

    A misclassified example is stronger than a correctly classified one; otherwise the higher loss decides.
    """
    misled, others_misled = margins > 0, other_margins > 0
    return (misled & ~others_misled) | ((misled == others_misled) & (losses > other_losses))


DRAWS: Final = 10
"""Evaluations of an example whose mean counts, if the model draws at random."""


class Best:
    """The best example of each clip so far, after projection and 16-bit rounding.

    If misclassification is the only aim (`aims_at_misclassification`), the highest margin is best, and the search ends
    for a clip once it is misled. Otherwise `stronger` decides, and the search ends for no clip. If the model draws at
    random, a single misclassification may be luck: the search ends for no clip either, and means over `DRAWS`
    evaluations are compared.

    Attributes:
        examples: (B, …); initially the clean clips.
        margins, losses: of the examples (B,); initially −∞.
    """

    def __init__(self, attack: Attack, target: Target, x: Tensor, labels: Tensor, loss: Loss) -> None:
        self.examples = x
        self.margins = self.losses = torch.full((len(x),), -torch.inf, device=x.device)
        self._attack, self._target, self._x, self._labels = attack, target, x, labels
        misclassification_only = aims_at_misclassification(loss, target)
        self._loss = margin if misclassification_only else loss
        self._ends_once_misled = misclassification_only and not target.randomised

    @property
    def robust(self) -> Tensor:
        """Indices of the clips whose search has not ended (b,)."""
        return (self.margins <= 0 if self._ends_once_misled else torch.ones_like(self.margins)).nonzero().squeeze(1)

    def offer(self, rows: Tensor, examples: Tensor) -> None:
        """Keep examples (b, …) of the clips ``rows`` (b,) where they are better; takes 1 or `DRAWS` forward passes."""
        target, x = self._target.at(rows), self._x[rows]
        judged = self._attack.judged(examples, x, target)
        draws = range(DRAWS if target.randomised else 1)
        values = torch.stack([target.loss(judged, self._labels[rows], self._margin_and_loss) for _ in draws]).mean(0)
        margins, losses = values.to(self.margins).unbind(1)
        better = stronger(margins, losses, self.margins[rows], self.losses[rows])
        self.margins = self.margins.index_copy(0, rows, torch.where(better, margins, self.margins[rows]))
        self.losses = self.losses.index_copy(0, rows, torch.where(better, losses, self.losses[rows]))
        best = torch.where(per_clip(better, x), judged, self.examples[rows])
        self.examples = self.examples.index_copy(0, rows, best)

    def _margin_and_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Return margin and loss of each clip (B, 2), from one forward pass."""
        return torch.stack([margin(outputs, labels), self._loss(outputs, labels)], dim=1)
