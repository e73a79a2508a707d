"""Randomised smoothing: trained on noise, decided by many noisy copies, certified."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from advser.defenses.base import Defense, TrainingBatch
from advser.models.base import EmotionModel
from advser.models.smoothed import Smoothed
from advser.plugins.parameters import parameter


class Smoothing(Defense):
    """Randomised smoothing: trained on x + σ n alone, n white and Gaussian; at test time a mean over noisy copies.

    The noise is in the waveform, 0 in the padding, and not clipped. What is judged is the mean probability of ``draws``
    copies (`Smoothed`), the source's own decision being by their votes; attacks go through the mean of as many new
    copies at each step, which averages the gradient over the noise. The metrics ``certified-radius`` and
    ``certified-accuracy`` prove how far the decision reaches, in L2, with many more copies. Attacks on features stand
    behind the noise, and delivered as features meet none.
    """

    citation: ClassVar[str] = (
        "Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing, ICML 2019; mean "
        "probability in place of votes: Salman et al., Provably robust deep learning via adversarially trained "
        "smoothed classifiers, NeurIPS 2019"
    )

    sigma: float = parameter(unit="full-scale", about="standard deviation σ of the noise", gt=0)
    draws: int = parameter(16, unit="copies", about="noisy copies a decision at test time", ge=1)

    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the cross-entropy on noisy copies."""
        x = batch.waveform
        noise = torch.randn(x.shape, generator=batch.generator, device=x.device, dtype=x.dtype)
        noisy = x + self.sigma * noise * batch.mask(model, "waveform")
        return functional.cross_entropy(model.outputs(noisy, batch.lengths, "waveform").logits, batch.labels)

    def wrap(self, model: EmotionModel) -> EmotionModel:
        """Return the smoothed model."""
        return Smoothed(model, self.sigma, self.draws)
