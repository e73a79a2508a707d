"""A model that decides by its mean answer to noisy copies of the sound."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain


class Smoothed(EmotionModel):
    """The logarithm of the mean probability over noisy copies of the sound; embedding: their mean.

    Each call draws new noise, white and Gaussian, from torch's global generator, which its caller seeds. Features that
    are given (the spectrogram domain) are classified as they are: whoever stands there stands behind the noise.

    Args:
        base: the model that hears the copies. Its detector, if it has one, is not asked.
        sigma: standard deviation σ of the noise, full scale.
        draws: copies a call.
    """

    randomised = True

    def __init__(self, base: EmotionModel, sigma: float, draws: int) -> None:
        super().__init__()
        self.base = base
        self.sigma = sigma
        self.draws = draws
        self.frontend = base.frontend
        self.head = base.head
        for name in ("spectrogram", "differentiable"):
            setattr(self, name, getattr(base, name))

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, D) of features (B, bands, frames), without noise."""
        return self.base.embed(features, lengths)

    def outputs(self, x: Tensor, lengths: Tensor, domain: Domain) -> Outputs:
        """Classify waveforms (B, T) by noisy copies, or features as they are."""
        if domain != "waveform":
            return self.base.outputs(x, lengths, domain)
        copies = [self.base.outputs(self.noisy(x, lengths), lengths, domain) for _ in range(self.draws)]
        logs = torch.stack([copy.logits.float().log_softmax(1) for copy in copies])
        embedding = torch.stack([copy.embedding for copy in copies]).mean(0)
        return Outputs(logs.logsumexp(0) - math.log(self.draws), embedding)

    def noisy(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return a noisy copy (B, T) of the sound; the padding stays 0."""
        noise = torch.randn_like(waveform) * sound_mask(lengths, waveform.shape[1])
        return waveform + self.sigma * noise
