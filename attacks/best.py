"""The best example of each clip over several tries, judged as it will be stored."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.models.base import Outputs
from advser.threat.budget import per_clip
from advser.threat.objectives import Loss, cross_entropy, difference_of_logits_ratio, margin
from advser.threat.target import Target

OF_READING: tuple[Loss, ...] = (cross_entropy, margin, difference_of_logits_ratio)
"""Losses that know nothing but how the clip is read."""


def aims_at_misreading(loss: Loss, target: Target) -> bool:
    """Tell whether a clip that is misread is all that an attack wants: any loss, unless a detector must be evaded too.

    A loss that knows a defense without a detector, such as the distance of embeddings, is but a way there.
    """
    return loss in OF_READING or not target.has_detector


def stronger(margins: Tensor, losses: Tensor, other_margins: Tensor, other_losses: Tensor) -> Tensor:
    """Tell where an example is better than another (B,): misread and the other is not, or else of a higher loss."""
    misread, others = margins > 0, other_margins > 0
    return (misread & ~others) | ((misread == others) & (losses > other_losses))


DRAWS: Final = 10
"""How often a model that draws at random is asked for an example's margin."""


class Best:
    """Keeps of each clip the best of the examples that are offered, after projection and 16-bit rounding.

    Best is the highest margin, if misreading is all that is wanted (`aims_at_misreading`); a clip has then fallen once
    it is misread. Else no clip ever falls, and best is `stronger`: misread, and then of the highest loss. Before a
    model that draws at random one misreading may be luck: no clip falls either, and means over `DRAWS` answers are
    compared.

    Attributes:
        examples: (B, …); the clean clips at first.
        margins, losses: what they are judged by (B,); −∞ at first.
    """

    def __init__(self, attack: Attack, target: Target, x: Tensor, labels: Tensor, loss: Loss) -> None:
        self.examples = x
        self.margins = self.losses = torch.full((len(x),), -torch.inf, device=x.device)
        self._attack, self._target, self._x, self._labels = attack, target, x, labels
        reading = aims_at_misreading(loss, target)
        self._loss = margin if reading else loss
        self._falls = reading and not target.randomised

    @property
    def standing(self) -> Tensor:
        """Indices of the clips that have not fallen (b,)."""
        return (self.margins <= 0 if self._falls else torch.ones_like(self.margins)).nonzero().squeeze(1)

    def offer(self, rows: Tensor, found: Tensor) -> None:
        """Take examples (b, …) of the clips ``rows`` (b,) where they are better: one forward pass, or `DRAWS`."""
        target, x = self._target.at(rows), self._x[rows]
        judged = self._attack.judged(found, x, target)
        answers = range(DRAWS if target.randomised else 1)
        values = torch.stack([target.loss(judged, self._labels[rows], self._both) for _ in answers]).mean(0)
        margins, losses = values.to(self.margins).unbind(1)
        better = stronger(margins, losses, self.margins[rows], self.losses[rows])
        self.margins = self.margins.index_copy(0, rows, torch.where(better, margins, self.margins[rows]))
        self.losses = self.losses.index_copy(0, rows, torch.where(better, losses, self.losses[rows]))
        kept = torch.where(per_clip(better, x), judged, self.examples[rows])
        self.examples = self.examples.index_copy(0, rows, kept)

    def _both(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Return margin and loss of each clip (B, 2), of one forward pass."""
        return torch.stack([margin(outputs, labels), self._loss(outputs, labels)], dim=1)
