"""Training on noisy copies: the baselines of adversarial training in Ren et al. 2020."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from advser.defenses.base import Defense, TrainingBatch
from advser.models.base import EmotionModel
from advser.models.terms import Domain
from advser.plugins.parameters import parameter
from advser.threat.admission import admit


class NoiseAugmentation(Defense):
    """Training on each clip and a noisy copy: ½ L(x, y) + ½ L(x + σ n, y), with white Gaussian noise n.

    Each step draws new noise. Noisy sound is 0 in the padding, is clipped to [−1, 1], and passes through the front end.
    The weights are those of vanilla adversarial training at α = ½, so that the two differ in x′ alone. FGSM's ±ε has a
    root mean square of ε; σ = ε therefore spends the same energy. The source gives no σ.
    """

    citation: ClassVar[str] = (
        "Ren, Baird, Han, Zhang, Schuller: Generating and protecting against adversarial attacks for deep speech-based "
        "emotion recognition models, ICASSP 2020, baselines with noise in the raw audio and in the spectrogram"
    )

    sigma: float = parameter(
        unit="full-scale or z", about="standard deviation σ of the noise; σ = ε matches FGSM", ge=0
    )
    domain: Domain = parameter("spectrogram", about="domain in which the noise is added")

    def perturbed_domain(self) -> Domain:
        """Return ``domain``."""
        return self.domain

    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the mean cross-entropy over the clips and their noisy copies."""
        clean = model.outputs(batch.features, batch.lengths, "spectrogram")
        noisy = model.outputs(self._noisy(model, batch), batch.lengths, self.domain)
        losses = [functional.cross_entropy(outputs.logits, batch.labels) for outputs in (clean, noisy)]
        return (losses[0] + losses[1]) / 2

    def _noisy(self, model: EmotionModel, batch: TrainingBatch) -> Tensor:
        x = batch.inputs(self.domain)
        noise = torch.randn(x.shape, generator=batch.generator, device=x.device, dtype=x.dtype)
        return admit(x + self.sigma * noise, x, batch.mask(model, self.domain), self.domain, None)
