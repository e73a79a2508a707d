"""The contract of a metric: additive statistics per clip, and a figure computed from their sums.

The figure of a set of clips is ``combine(sum of statistics over the clips)``. Therefore the bootstrap over speakers is
cheap (it re-weights per-speaker sums) and pooling over folds is exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.audio.pcm import Samples
from advser.plugins.parameters import Parameters

if TYPE_CHECKING:
    # Imported for types alone: reading results needs no torch.
    from torch import Tensor

    from advser.models.base import EmotionModel

Array = npt.NDArray[np.float64]
Need = Literal["predictions", "audio", "transcripts", "costs", "source", "attack", "clean", "detections"]
"""Input of a metric:

- ``predictions``, ``transcripts``: of the victim, of the speech recogniser; ``audio``: the judged sound
- ``costs``: of crafting
- ``source``: the predictions of the surrogate (transfer rows only)
- ``attack``: the metric compares with the clean clip and has no meaning on clean rows
- ``clean``: the metric describes the victim alone and has a meaning on clean rows only
- ``detections``: the logits of the victim's detector of adversarial input, which few victims have
"""


class Metric(Parameters, ABC):
    """One figure of a leaderboard row.

    `statistics` reads the cell's examples table with one row per clip; ``docs/results.md`` describes its columns.
    """

    title: ClassVar[str]
    """Column heading."""

    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool | None]
    """From the defender's view: for a correct model, good sound and a correct transcript; None: neither is better."""

    needs: ClassVar[frozenset[Need]] = frozenset({"predictions"})
    decimals: ClassVar[int] = 3

    citation: ClassVar[str] = "the definition above; no source"

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions affect the figure."""

    @abstractmethod
    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return statistics (N, k), a row for each clip of ``examples``.

        A row with NaN marks a clip whose measurement failed. A row of zeros marks a clip that does not count, such as a
        clip with denominator 0 in a ratio.
        """

    def combine(self, sums: Array) -> Array:
        """Return the figure (…) of summed statistics (…, k): by default the first over the second, NaN if that is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Array = np.where(sums[..., 1] == 0, np.nan, sums[..., 0] / sums[..., 1])
        return ratio


class ClipMetric(Metric):
    """A metric that compares each judged clip with the clean clip; the figure is the mean over clips.

    It reads judged sound, regardless of its ``needs``.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"audio"})

    column: ClassVar[str]
    """Column with the results of `measure`; none of the examples table's own columns.

    The stored table names it by the title of the suite's entry, since a suite may list a metric twice.
    """

    @abstractmethod
    def measure(self, clean: Samples, judged: Samples, rate: int) -> float:
        """Return the value of one clip.

        Args:
            clean: the clean clip (T,), float32 on [−1, 1], without padding.
            judged: the judged clip (T,), likewise.
            rate: sampling rate in Hz.

        Raises:
            MeasurementError: if the measurement fails; the results hold the message as the reason.
            NotApplicableError: if the measure has no meaning on this clip; the clip then does not count.
        """

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return the value and 1 for each clip."""
        return mean_statistics(examples, self.column)


class ModelMetric(Metric):
    """A metric that evaluates the victim on each clip, such as its gradient; the figure is the mean over clips.

    It reads judged sound and needs a differentiable victim.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"audio"})

    column: ClassVar[str]
    """As `ClipMetric.column`."""

    undefined: ClassVar[str]
    """Reason for a clip without a value (`measure` returned NaN)."""

    @abstractmethod
    def measure(self, model: EmotionModel, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the values (B,) of a batch.

        Random numbers come from torch's global generator, which the stage seeds.

        Args:
            model: the victim.
            clean: clean waveforms (B, T).
            judged: judged waveforms (B, T).
            lengths: lengths (B,) in samples.
            labels: true classes (B,).

        Raises:
            NotApplicableError: if the measure has no meaning on this victim.
        """

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return the value and 1 for each clip."""
        return mean_statistics(examples, self.column)


def mean_statistics(examples: pd.DataFrame, column: str) -> Array:
    """Return the statistics (N, 2) of a mean over clips: each value and 1; NaN for a clip without a value."""
    values = examples[column].to_numpy(np.float64)
    return np.stack([values, np.where(np.isnan(values), np.nan, 1.0)], axis=1)
