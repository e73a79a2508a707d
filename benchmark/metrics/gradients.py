"""Metrics of the victim's exact gradient with respect to the sound."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.metrics.base import ModelMetric, Need
from advser.models.base import EmotionModel
from advser.plugins.parameters import Fraction, parameter
from advser.threat.target import Target


class Alignment(ModelMetric):
    """Cosine between the perturbation of a clip and the gradient of the victim's loss at the clean clip.

    The sign of the gradient, FGSM's direction, has √(2/π) ≈ .80 if the gradient's values are Gaussian. Noise has 0 on
    average. A negative value makes the true class more likely. The metric measures how well an approximate gradient,
    such as that of the ``chain-rule`` attack, replaces the exact gradient.
    """

    title: ClassVar[str] = "Alignment"
    higher_is_better: ClassVar[bool | None] = None
    needs: ClassVar[frozenset[Need]] = frozenset({"audio", "attack"})
    column: ClassVar[str] = "alignment"
    undefined: ClassVar[str] = "the perturbation or the gradient is 0"

    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the cosines (B,) on [−1, 1]; NaN where the perturbation or the gradient is 0."""
        with Target(model, lengths, "waveform", mask=sound_mask(lengths, clean.shape[1])) as target:
            gradient = target.gradient(clean, labels)
        change = judged - clean
        undefined = (change == 0).all(1) | (gradient == 0).all(1)
        # Unscaled, the gradient's values are so small that their squares underflow.
        cosine = cosine_similarity(change, gradient / gradient.abs().amax(1, keepdim=True), dim=1)
        return torch.where(undefined, torch.nan, cosine)


class GradientMass(ModelMetric):
    """Share of the gradient's absolute values between two points of the input.

    The clip is padded with zeros, or cut, to ``seconds``; padding counts, since it is input of the model. A recurrent
    model whose gradient vanishes has nearly all of its gradient at the end.
    """

    citation: ClassVar[str] = (
        "Gong, Poellabauer: Crafting adversarial examples for speech paralinguistics applications, arXiv:1711.03280, "
        "fig. 5 (there a plot of the gradient itself)"
    )

    title: ClassVar[str] = "Gradient mass"
    higher_is_better: ClassVar[bool | None] = None
    needs: ClassVar[frozenset[Need]] = frozenset({"audio", "clean"})
    column: ClassVar[str] = "gradient_mass"
    undefined: ClassVar[str] = "the gradient is 0"

    start: Fraction = parameter(0.9, unit="share of the input", about="start of the part")
    end: Fraction = parameter(1.0, unit="share of the input", about="end of the part")
    seconds: float = parameter(6.0, unit="s", about="length of the input", gt=0)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.start < self.end:
            raise ValueError(f"start: got {self.start}, expected less than end, {self.end}")
        return self

    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the shares (B,) on [0, 1]; NaN where the gradient is 0 everywhere."""
        samples = round(self.seconds * SAMPLE_RATE)
        whole = pad(clean, (0, max(0, samples - clean.shape[1])))[:, :samples]
        with Target(model, torch.full_like(lengths, samples), "waveform") as target:
            size = target.gradient(whole, labels).abs().double()
        inside = size[:, round(self.start * samples) : round(self.end * samples)]
        return inside.sum(1) / size.sum(1)
