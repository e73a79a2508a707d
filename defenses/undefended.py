"""No defense."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from advser.defenses.base import Defense, TrainingBatch
from advser.models.base import EmotionModel


class Undefended(Defense):
    """Training on clean clips by cross-entropy."""

    citation: ClassVar[str] = "control; no source"

    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the mean cross-entropy."""
        return functional.cross_entropy(
            model.outputs(batch.features, batch.lengths, "spectrogram").logits, batch.labels
        )
