"""Randomised smoothing: training on noisy sound, a decision over many noisy copies, and a certificate."""

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
    """Randomised smoothing: training on x + σ n alone, with white Gaussian n; at test time a mean over noisy copies.

    The noise is added to the waveform; it is 0 in the padding and not clipped. The model's output is the mean
    probability over ``draws`` copies (`Smoothed`), where the source counts their votes. Attacks differentiate the mean
    over as many new copies at each step, which averages the gradient over the noise. The metrics ``certified-radius``
    and ``certified-accuracy`` use many more copies to prove an L2 radius without a change of the decision. Attacks on
    features bypass the noise, and features that are delivered as such get none.
    """

    citation: ClassVar[str] = (
        "Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing, ICML 2019; mean "
        "probability in place of votes: Salman et al., Provably robust deep learning via adversarially trained "
        "smoothed classifiers, NeurIPS 2019"
    )

    sigma: float = parameter(unit="full-scale", about="standard deviation σ of the noise", gt=0)
    draws: int = parameter(16, unit="copies", about="noisy copies per decision at test time", ge=1)

    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the cross-entropy on noisy copies, one per clip."""
        x = batch.waveform
        noise = torch.randn(x.shape, generator=batch.generator, device=x.device, dtype=x.dtype)
        noisy = x + self.sigma * noise * batch.mask(model, "waveform")
        return functional.cross_entropy(model.outputs(noisy, batch.lengths, "waveform").logits, batch.labels)

    def wrap(self, model: EmotionModel) -> EmotionModel:
        """Return the smoothed model."""
        return Smoothed(model, self.sigma, self.draws)
