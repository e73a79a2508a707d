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

from advser.audio import Samples
from advser.parameters import Parameters

Array = npt.NDArray[np.float64]
Need = Literal["predictions", "audio", "transcripts", "costs", "source", "attack"]
"""What a metric reads: predictions; judged sound; transcripts; the cost of crafting; the predictions of another
source model (transfer rows only); and ``attack``: it compares with the clean clip (its prediction, its transcript),
and so has no meaning on clean rows."""


class Metric(Parameters, ABC):
    """One figure of a leaderboard row.

    `statistics` reads the cell's examples table, one row a clip, whose columns are described in
    ``docs/results.md``.
    """

    title: ClassVar[str]
    """Column heading."""

    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool]
    """For the one who wants the model to be right, the sound good and the transcript true."""

    needs: ClassVar[frozenset[Need]] = frozenset({"predictions"})
    decimals: ClassVar[int] = 3

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
        values = examples[self.column].to_numpy(np.float64)
        return np.stack([values, np.where(np.isnan(values), np.nan, 1.0)], axis=1)
