"""A model with the mean output over noisy copies of the sound."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain


class Smoothed(EmotionModel):
    """A model whose logits are the log of the mean probability over noisy copies; the embedding is their mean.

    Each call draws white Gaussian noise from torch's global generator, which the caller seeds. Features as input (the
    spectrogram domain) are classified without noise.

    Args:
        base: the model that classifies the copies; its detector is not used.
        sigma: standard deviation σ of the noise, full scale.
        draws: number of copies per call.
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
        """Return the outputs for noisy copies of waveforms (B, T), or for features without noise."""
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
