"""Training on mixtures of clips."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from advser.defenses.base import Defense, TrainingBatch
from advser.models.base import EmotionModel
from advser.plugins.parameters import parameter


class Mixup(Defense):
    """mixup: x̃ = s x_i + (1 − s) x_j on features, with the loss s L(x̃, y_i) + (1 − s) L(x̃, y_j).

    Each step draws s from Beta(α, α) for the whole batch, and j from a permutation of the batch, as in the authors'
    code. A mixture is as long as the longer of its clips. mixup is a regulariser: the source reports a gain against
    single-step attacks (sec. 3.5) and claims none against iterative attacks.
    """

    citation: ClassVar[str] = "Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond empirical risk minimization, ICLR 2018"

    alpha: float = parameter(0.2, about="α of the Beta distribution of the share s; near 0 almost nothing mixes", gt=0)

    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the weighted cross-entropy on the mixtures."""
        other = torch.randperm(len(batch.labels), generator=batch.generator, device=batch.labels.device)
        share = self._share(batch.generator)
        mixed = share * batch.features + (1 - share) * batch.features[other]
        lengths = torch.maximum(batch.lengths, batch.lengths[other])
        logits = model.outputs(mixed, lengths, "spectrogram").logits
        losses = [functional.cross_entropy(logits, labels) for labels in (batch.labels, batch.labels[other])]
        return share * losses[0] + (1 - share) * losses[1]

    def _share(self, generator: torch.Generator) -> float:
        # torch draws from a Beta distribution with its global generator only.
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        return float(np.random.default_rng(int(seed)).beta(self.alpha, self.alpha))
