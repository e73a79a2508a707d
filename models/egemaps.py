"""A support vector machine on the functionals of eGeMAPS: hand-made features and no gradient."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from advser.audio.pcm import SAMPLE_RATE, from_pcm, to_pcm
from advser.models.base import EmotionModel, FrontEnd
from advser.plugins.extras import not_installed

FUNCTIONALS: Final = 88
"""Statistics that eGeMAPS v02 takes of a clip's pitch, loudness, voice quality and spectrum."""

CONSTANT: Final = 1e-6
"""Standard deviation, as a share of the mean, up to which a functional does not vary."""


class Functionals(FrontEnd):
    """The 88 functionals of eGeMAPS v02 (B, 88, 1), computed by openSMILE, standardised, and without a gradient.

    They are computed of each clip up to its end, rounded to 16 bits as everything is that is judged, and standardised
    by mean and deviation of the training data, whoever speaks. Those that a clip has not (openSMILE gives none to
    sound shorter than 60 ms) are taken to be the mean, which is 0. About 50 ms a clip of EmoDB.

    openSMILE's own licence allows research, not commercial products.
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
        """Return (B, 88, 1) of ``waveform`` (B, T)."""
        found = functionals(waveform, lengths)
        return torch.where(found.isfinite(), (found - self.mean) / self.std, 0)[:, :, None]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set mean and standard deviation of each functional over the clips that have it."""
        found = torch.cat([functionals(waveform, lengths) for waveform, lengths in batches]).double()
        found = torch.where(found.isfinite(), found, torch.nan)
        mean = found.nanmean(0)
        std = (found - mean).square().nanmean(0).sqrt()
        self.mean.copy_(mean.nan_to_num(0))
        # One that is constant but for rounding, or that no clip has, is not scaled: the machines give it no weight.
        self.std.copy_(torch.where(std > CONSTANT * mean.abs(), std, 1))


class EgemapsSVM(EmotionModel):
    """Linear support vector machines, one a class against the rest, on the 88 functionals of eGeMAPS.

    Logits: the machines' decision values, in units of their margin. Embedding: the standardised functionals (B, 88).
    The clips of a class count inversely to its frequency. No gradient reaches the sound, so that only attacks which
    need none are crafted on it; those of other models can be judged on it.

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
    """Distributions, beside those of the stage, whose versions decide what it computes."""

    head: nn.Linear

    def __init__(
        self,
        classes: int,
        *,
        c: Annotated[
            float, Field(gt=0, description="weight C of clips on the wrong side of the margin, against its width")
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

        A class that does not occur gets the machine of clips that are all of the rest: w = 0, b = −1.
        """
        known = [
            (self.frontend(waveform, lengths).flatten(1).cpu(), labels.cpu()) for waveform, lengths, labels in batches
        ]
        features, labels = (torch.cat(column) for column in zip(*known, strict=True))
        machine = _linear_svc(self.c).fit(features.double().numpy(), labels.numpy())
        weight, bias = machine.coef_, machine.intercept_
        if len(machine.classes_) == 2:
            # scikit-learn keeps only the second of two machines, of which each is the other's negative.
            weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
        self.head.weight.zero_()
        self.head.bias.fill_(-1)
        self.head.weight[machine.classes_] = torch.from_numpy(weight).to(self.head.weight)
        self.head.bias[machine.classes_] = torch.from_numpy(bias).to(self.head.bias)


def functionals(waveform: Tensor, lengths: Tensor) -> Tensor:
    """Return the 88 functionals (B, 88) of sound (B, T) up to ``lengths`` (B,); NaN where a clip has none."""
    extract = _opensmile()
    clips = zip(waveform.detach().cpu().numpy(), lengths.tolist(), strict=True)
    found = [extract(from_pcm(to_pcm(clip[:length])), SAMPLE_RATE)[0, :, 0] for clip, length in clips]
    return torch.from_numpy(np.stack(found)).to(waveform.device)


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
    # In its primal form the solver draws nothing at random.
    return LinearSVC(C=c, class_weight="balanced", dual=False, max_iter=10_000)
