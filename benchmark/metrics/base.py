"""The contract of a metric: per-clip statistics that add up, and how their sums make the figure.

A figure over a set of clips is ``combine(sum of statistics over the clips)``. That makes the bootstrap over speakers
cheap (it re-weights per-speaker sums) and the pooling over folds exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from advser.audio.pcm import Samples
from advser.models.base import EmotionModel
from advser.plugins.parameters import Parameters

Array = npt.NDArray[np.float64]
Need = Literal["predictions", "audio", "transcripts", "costs", "source", "attack", "clean", "detections"]
"""What a metric reads: predictions; judged sound; transcripts; the cost of crafting; the predictions of another
source model (transfer rows only); ``attack``: it compares with the clean clip (its prediction, its transcript), and
so has no meaning on clean rows; ``clean``: it tells of the victim alone, and has a meaning on clean rows only;
``detections``: the logits of the victim's detector of adversarial input, which few victims have."""


class Metric(Parameters, ABC):
    """One figure of a leaderboard row.

    `statistics` reads the cell's examples table, one row a clip, whose columns are described in
    ``docs/results.md``.
    """

    title: ClassVar[str]
    """Column heading."""

    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool | None]
    """For the one who wants the model to be right, the sound good and the transcript true; None: neither is better."""

    needs: ClassVar[frozenset[Need]] = frozenset({"predictions"})
    decimals: ClassVar[int] = 3

    citation: ClassVar[str] = "the definition above; no source"

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions decide the figure."""

    @abstractmethod
    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, k), a row for each clip of ``examples``.

        A row with NaN marks a clip whose measurement failed; a row of zeros one that does not count, as a ratio leaves
        out a clip with denominator 0.
        """

    def combine(self, sums: Array) -> Array:
        """Turn summed statistics (…, k) into the figure (…): by default first over second, NaN where that is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Array = np.where(sums[..., 1] == 0, np.nan, sums[..., 0] / sums[..., 1])
        return ratio


class ClipMetric(Metric):
    """A metric that measures each judged clip against the clean one; the figure is the mean over clips.

    It is computed from judged sound whatever its ``needs`` say.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"audio"})

    column: ClassVar[str]
    """Where `statistics` finds what `measure` returned; none of the examples table's own columns.

    The stored table has it under the title of the suite's entry, since a suite may list one metric twice.
    """

    @abstractmethod
    def measure(self, clean: Samples, judged: Samples, rate: int) -> float:
        """Measure one clip; both (T,) float32 on [−1, 1] without padding, ``rate`` in Hz.

        Raises:
            MeasurementError: if it cannot be measured; the message is kept as the reason.
            NotApplicableError: if the measure has no meaning on it; the clip then counts neither way.
        """

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return the value and a one for each clip."""
        return mean_of(examples, self.column)


class ModelMetric(Metric):
    """A metric that asks the victim about each clip, as its gradient; the figure is the mean over clips.

    It is computed from judged sound, of victims that are differentiable.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"audio"})

    column: ClassVar[str]
    """As of `ClipMetric`."""

    undefined: ClassVar[str]
    """Why a clip may have no value (`measure` returned NaN)."""

    @abstractmethod
    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Measure a batch: waveforms (B, T) before and after the attack, lengths and true classes (B,) → (B,).

        What it draws at random comes from torch's global generator, which the stage seeds.

        Raises:
            NotApplicableError: if the measure has no meaning on this victim.
        """

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return the value and a one for each clip."""
        return mean_of(examples, self.column)


def mean_of(examples: pd.DataFrame, column: str) -> Array:
    """Return the statistics (N, 2) of a mean over clips: each value and a one; NaN where there is none."""
    values = examples[column].to_numpy(np.float64)
    return np.stack([values, np.where(np.isnan(values), np.nan, 1.0)], axis=1)
