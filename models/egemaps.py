"""A support vector machine on the functionals of eGeMAPS: hand-crafted features without a gradient."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn

from advser.audio.pcm import SAMPLE_RATE, from_pcm, to_pcm
from advser.models.base import EmotionModel, FrontEnd
from advser.plugins.extras import not_installed
from advser.plugins.parameters import parameter

FUNCTIONALS: Final = 88
"""Number of statistics in eGeMAPS v02, of a clip's pitch, loudness, voice quality and spectrum."""

CONSTANT: Final = 1e-6
"""Ratio of standard deviation to mean up to which a functional counts as constant."""


class Functionals(FrontEnd):
    """The 88 functionals of eGeMAPS v02 (B, 88, 1), computed by openSMILE, standardised, and without a gradient.

    openSMILE gets each clip up to its end, rounded to 16 bits as all evaluated sound. Functionals are standardised by
    mean and standard deviation of the training data, over all speakers. A missing functional counts as the mean, 0:
    openSMILE computes none for sound shorter than 60 ms. A clip of EmoDB takes about 50 ms.

    openSMILE's licence allows research, but no commercial products.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        _opensmile()
        self.register_buffer("mean", torch.zeros(FUNCTIONALS))
        self.register_buffer("std", torch.ones(FUNCTIONALS))

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return standardised functionals (B, 88, 1) of ``waveform`` (B, T)."""
        values = functionals(waveform, lengths)
        return torch.where(values.isfinite(), (values - self.mean) / self.std, 0)[:, :, None]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute mean and standard deviation of each functional over the clips that have it."""
        values = torch.cat([functionals(waveform, lengths) for waveform, lengths in batches]).double()
        values = torch.where(values.isfinite(), values, torch.nan)
        mean = values.nanmean(0)
        std = (values - mean).square().nanmean(0).sqrt()
        self.mean.copy_(mean.nan_to_num(0))
        # A functional that is constant but for rounding, or missing in all clips, is not scaled: it gets no weight.
        self.std.copy_(torch.where(std > CONSTANT * mean.abs(), std, 1))


class EgemapsSVM(EmotionModel):
    """Linear support vector machines, one per class against the rest, on the 88 functionals of eGeMAPS.

    Logits: the machines' decision values, in units of their margin. Embedding: the standardised functionals (B, 88).
    A clip's weight is inverse to the frequency of its class. No gradient reaches the sound: the model can be the
    surrogate of gradient-free attacks only, and the victim of attacks on other models.

    On EmoDB, with C = 0.01, its UAR is .665 (accuracy .673) in the five folds of the suite ``emodb``, and .674 (.680)
    leaving one speaker out.
    """

    citation: ClassVar[str] = (
        "features: Eyben et al.: The Geneva minimalistic acoustic parameter set (GeMAPS) for voice research and "
        "affective computing, IEEE Trans. Affective Computing 7, 2016; machine: Fan et al.: LIBLINEAR, JMLR 9, 2008"
    )
    spectrogram: ClassVar[bool] = False
    differentiable: ClassVar[bool] = False

    packages: ClassVar[tuple[str, ...]] = ("opensmile", "scikit-learn")
    """Distributions whose versions affect the outputs, beside those of the training stage."""

    head: nn.Linear

    def __init__(
        self,
        classes: int,
        *,
        c: Annotated[
            float, parameter(gt=0, about="weight C of margin violations relative to the margin's width")
        ] = 0.01,
    ) -> None:
        super().__init__()
        self.c = c
        self.frontend = Functionals()
        self.head = nn.Linear(FUNCTIONALS, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 88) of features (B, 88, 1)."""
        return features.flatten(1)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Train on (waveform (B, T), lengths (B,), labels (B,)) batches; at least two classes must occur.

        A missing class gets the machine that rejects every clip: w = 0, b = −1.
        """
        examples = [
            (self.frontend(waveform, lengths).flatten(1).cpu(), labels.cpu()) for waveform, lengths, labels in batches
        ]
        features, labels = (torch.cat(column) for column in zip(*examples, strict=True))
        machine = _linear_svc(self.c).fit(features.double().numpy(), labels.numpy())
        weight, bias = machine.coef_, machine.intercept_
        if len(machine.classes_) == 2:
            # For two classes scikit-learn returns the second machine only; the first is its negative.
            weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
        self.head.weight.zero_()
        self.head.bias.fill_(-1)
        self.head.weight[machine.classes_] = torch.from_numpy(weight).to(self.head.weight)
        self.head.bias[machine.classes_] = torch.from_numpy(bias).to(self.head.bias)


def functionals(waveform: Tensor, lengths: Tensor) -> Tensor:
    """Return the 88 functionals (B, 88) of sound (B, T) up to ``lengths`` (B,); NaN where a functional is missing."""
    extract = _opensmile()
    clips = zip(waveform.detach().cpu().numpy(), lengths.tolist(), strict=True)
    values = [extract(from_pcm(to_pcm(clip[:length])), SAMPLE_RATE)[0, :, 0] for clip, length in clips]
    return torch.from_numpy(np.stack(values)).to(waveform.device)


@cache
def _opensmile() -> Any:
    try:
        from opensmile import FeatureLevel, FeatureSet, Smile
    except ImportError as error:
        raise not_installed("model 'egemaps-svm'", "opensmile") from error
    return Smile(FeatureSet.eGeMAPSv02, FeatureLevel.Functionals)


def _linear_svc(c: float) -> Any:
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise not_installed("model 'egemaps-svm'", "scikit-learn") from error
    # The solver of the primal problem draws no random numbers.
    return LinearSVC(C=c, class_weight="balanced", dual=False, max_iter=10_000)
