"""The clips that a model is probed with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from advser.attacks.steepest import random_start
from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel
from advser.threat.objectives import Loss, margin
from advser.threat.target import Target

BUDGET: Final = 0.001
"""ε of changes near a clip, full scale."""


@dataclass(frozen=True)
class Batch:
    """Clips that a model is probed with.

    Attributes:
        waveform: (B, T) on [−1, 1].
        lengths: (B,) in samples.
        labels: classes (B,).
        objective: the loss whose gradient is probed; the margin, which does not saturate.
        reference: the model's embeddings (B, D) of the clean clips, for objectives that compare with them.
    """

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    objective: Loss = margin
    reference: Tensor | None = None

    def at(self, rows: Tensor) -> Batch:
        """Return some of the clips (indices, or a mask)."""
        reference = None if self.reference is None else self.reference[rows]
        return Batch(self.waveform[rows], self.lengths[rows], self.labels[rows], self.objective, reference)

    def nearby(self, model: EmotionModel, generator: torch.Generator) -> Batch:
        """Return the clips with uniform noise of up to `BUDGET`: where attacks work, off the 16-bit grid."""
        start = random_start(self.waveform, self.target(model), "linf", BUDGET, generator)
        return replace(self, waveform=start)

    @torch.no_grad()
    def informed(self, model: EmotionModel, objective: Loss, clean: Tensor) -> Batch:
        """Return the clips with an objective that also compares with the ``clean`` waveforms (B, T)."""
        return replace(self, objective=objective, reference=model.outputs(clean, self.lengths, "waveform").embedding)

    @torch.no_grad()
    def correct(self, model: EmotionModel) -> Tensor:
        """Return which clips (B,) the model classifies correctly."""
        with self.target(model) as target:
            return target.decisions(self.waveform) == self.labels

    def target(self, model: EmotionModel) -> Target:
        """Return the white-box target of the waveforms."""
        mask = sound_mask(self.lengths, self.waveform.shape[1])
        return Target(model, self.lengths, "waveform", objective=self.objective, mask=mask, reference=self.reference)
