"""Certificates of a smoothed victim's decision: radius and accuracy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy.stats import beta, norm
from torch import Tensor
from torch.nn import functional

from advser.audio.clips import sound_mask
from advser.errors import NotApplicableError
from advser.metrics.base import Array, ModelMetric, Need
from advser.models.base import EmotionModel
from advser.models.smoothed import Smoothed
from advser.plugins.parameters import parameter


class CertifiedRadius(ModelMetric):
    """Radius (L2, full scale) within which the decision on a clean clip provably stays correct; mean over clips.

    Votes of ``selection`` noisy copies select a class, and ``draws`` new copies certify it. The lower bound p of its
    probability (Clopper-Pearson, one-sided, wrong with probability α) gives the radius σ Φ⁻¹(p), at most
    σ Φ⁻¹(α^(1/draws)). If p is at most ½ (the procedure abstains) or the class is not the true class, it is 0.
    The certificate holds for the votes over all noise, not for the mean over a few copies that other metrics judge.
    It holds for the sound before rounding to 16 bits. An L∞ budget ε reaches ε √T in L2 over T samples.
    """

    citation: ClassVar[str] = (
        "Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing, ICML 2019, theorem 1 and "
        "CERTIFY; mean over clips: Zhai et al., MACER, ICLR 2020"
    )

    title: ClassVar[str] = "Certified radius"
    unit: ClassVar[str] = "full-scale (L2)"
    higher_is_better: ClassVar[bool | None] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"audio", "clean"})
    column: ClassVar[str] = "certified_radius"
    undefined: ClassVar[str] = "the radius is not a number"
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    draws: int = parameter(
        1000, unit="copies", about="noisy copies that certify the class; 100,000 in the source", ge=1
    )
    selection: int = parameter(100, unit="copies", about="noisy copies that select the class", ge=1)
    alpha: float = parameter(0.001, about="probability α that a clip's certificate is wrong", gt=0, lt=0.5)

    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the radii (B,), drawing from torch's global generator, which the stage seeds.

        Raises:
            NotApplicableError: if the victim is not smoothed by `Smoothed` itself: a derived class may report another
                noise than it adds, so its certificate proves nothing.
        """
        if type(model) is not Smoothed:
            raise NotApplicableError("the victim is not smoothed")
        selected = votes(model, clean, lengths, self.selection).argmax(1)
        successes = votes(model, clean, lengths, self.draws).gather(1, selected[:, None]).squeeze(1)
        radii = model.sigma * norm.ppf(lower_bound(successes.cpu().double().numpy(), self.draws, self.alpha))
        return torch.from_numpy(np.maximum(radii, 0)).to(clean.device) * (selected == labels)


class CertifiedAccuracy(CertifiedRadius):
    """Share of clips whose smoothed decision is provably correct within a radius (L2, full scale)."""

    title: ClassVar[str] = "Certified accuracy"
    unit: ClassVar[str] = ""
    column: ClassVar[str] = "certified_accuracy"

    radius: float = parameter(0.01, unit="full-scale (L2)", about="certified radius", ge=0)

    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return 1 or 0 for each clip (B,)."""
        radii = super().measure(model, clean, judged, lengths, labels)
        return ((radii > 0) & (radii >= self.radius)).double()


@torch.no_grad()
def votes(model: Smoothed, waveform: Tensor, lengths: Tensor, draws: int) -> Tensor:
    """Return the votes (B, C) of the base model: its decisions for each class on ``draws`` noisy copies.

    The noise is added here, regardless of the model's own noise: the proof is about this noise.
    """
    inside = sound_mask(lengths, waveform.shape[1])
    noisy = (waveform + model.sigma * torch.randn_like(waveform) * inside for _ in range(draws))
    outputs = (model.base(copy, lengths) for copy in noisy)
    return torch.stack([functional.one_hot(logits.argmax(1), logits.shape[1]) for logits in outputs]).sum(0)


def lower_bound(successes: Array, draws: int, alpha: float) -> Array:
    """Return the one-sided lower confidence bound (B,) of a probability (Clopper, Pearson 1934).

    Args:
        successes: number of events (B,), 0 to ``draws``.
        draws: number of independent draws.
        alpha: largest probability that the bound exceeds the true probability.
    """
    bound = beta.ppf(alpha, np.maximum(successes, 1), draws - np.maximum(successes, 1) + 1)
    return np.where(successes == 0, 0.0, bound)
