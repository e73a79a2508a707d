"""What the victim's exact gradient with respect to the sound tells."""

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

    The sign of the gradient, FGSM's direction, has √(2/π) ≈ .80 if the gradient's values are Gaussian; noise has 0 on
    average; a negative value makes the true class more likely. It tells how well a made-up gradient, such as that of
    the ``chain-rule`` attack, stands in for the exact one.
    """

    title: ClassVar[str] = "Alignment"
    higher_is_better: ClassVar[bool | None] = None
    needs: ClassVar[frozenset[Need]] = frozenset({"audio", "attack"})
    column: ClassVar[str] = "alignment"
    undefined: ClassVar[str] = "the perturbation or the gradient is 0"

    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the cosines (B,) on [−1, 1]; NaN where there is no direction."""
        with Target(model, lengths, "waveform", mask=sound_mask(lengths, clean.shape[1])) as target:
            gradient = target.gradient(clean, labels)
        change = judged - clean
        nothing = (change == 0).all(1) | (gradient == 0).all(1)
        # The gradient's values are so small that their squares would vanish.
        cosine = cosine_similarity(change, gradient / gradient.abs().amax(1, keepdim=True), dim=1)
        return torch.where(nothing, torch.nan, cosine)


class GradientMass(ModelMetric):
    """Share of the gradient's absolute values that lies between two points of the input.

    The clip is padded with zeros, or cut, to ``seconds``, and the whole of it counts, padding too: what the model
    sees. A recurrent model whose gradient vanishes has nearly all of it at the end.
    """

    citation: ClassVar[str] = (
        "Gong, Poellabauer: Crafting adversarial examples for speech paralinguistics applications, arXiv:1711.03280, "
        "fig. 5 (there the gradient itself is drawn)"
    )

    title: ClassVar[str] = "Gradient mass"
    higher_is_better: ClassVar[bool | None] = None
    needs: ClassVar[frozenset[Need]] = frozenset({"audio", "clean"})
    column: ClassVar[str] = "gradient_mass"
    undefined: ClassVar[str] = "the gradient is 0"

    start: Fraction = parameter(0.9, unit="share of the input", about="from here")
    end: Fraction = parameter(1.0, unit="share of the input", about="to here")
    seconds: float = parameter(6.0, unit="s", about="length of the input", gt=0)

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if not self.start < self.end:
            raise ValueError(f"start is {self.start}, expected less than end, {self.end}")
        return self

    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the shares (B,) on [0, 1]; NaN where the gradient is 0 everywhere."""
        samples = round(self.seconds * SAMPLE_RATE)
        whole = pad(clean, (0, max(0, samples - clean.shape[1])))[:, :samples]
        with Target(model, torch.full_like(lengths, samples), "waveform") as target:
            size = target.gradient(whole, labels).abs().double()
        inside = size[:, round(self.start * samples) : round(self.end * samples)]
        return inside.sum(1) / size.sum(1)
