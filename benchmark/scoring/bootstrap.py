"""A metric's figure over a set of clips, with its confidence interval: bootstrap over speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from advser.errors import ContractError
from advser.metrics.base import Array, Metric

CONFIDENCE: Final = 0.95
"""Coverage of every interval."""


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval.

    Attributes:
        value: figure over all measured clips; NaN if no clip counts.
        low: lower end of the 95 % interval; NaN with fewer than two speakers.
        high: upper end.
        n: number of clips that count: measured, and with a row that is not all zeros.
        n_failed: number of clips whose measurement failed; no figure includes them.
    """

    value: float
    low: float
    high: float
    n: int
    n_failed: int


def bootstrap(metric: Metric, statistics: Array, speakers: npt.NDArray[Any], draws: int, seed: int) -> Interval:
    """Compute a metric's figure and its percentile interval over speakers.

    Clips of one speaker are not independent. So whole speakers are drawn with replacement, as many as there are
    (B. Efron, R. J. Tibshirani: An Introduction to the Bootstrap, 1993, chapters 8 and 13). Draws without a defined
    figure (none of their clips counts) are left out.

    Args:
        metric: computes the figure from summed statistics.
        statistics: (N, k); a row with a NaN is a failed clip, a row of zeros is a clip that does not count.
        speakers: (N,), speaker of each clip.
        draws: number of draws of speakers.
        seed: of the draws.

    Raises:
        ContractError: if ``combine`` does not return one figure per draw.
    """
    measured = ~np.isnan(statistics).any(axis=1)
    n, n_failed = int((measured & statistics.any(axis=1)).sum()), int((~measured).sum())
    sums = speaker_sums(statistics[measured], speakers[measured])
    value = float(metric.combine(sums.sum(axis=0)))
    figures = np.empty(0)
    if len(sums) > 1:
        figures = metric.combine(speaker_draws(len(sums), draws, seed) @ sums)
        if figures.shape != (draws,):
            raise ContractError(f"combine returned the shape {figures.shape}, expected ({draws},)")
        figures = figures[~np.isnan(figures)]
    if not len(figures):
        return Interval(value, float("nan"), float("nan"), n, n_failed)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return Interval(value, float(low), float(high), n, n_failed)


def speaker_sums(statistics: Array, speakers: npt.NDArray[Any]) -> Array:
    """Return the sums (S, k) of clips' statistics (N, k) by speaker, sorted by speaker name."""
    names, owner = np.unique(speakers.astype(str), return_inverse=True)
    sums = np.zeros((len(names), statistics.shape[1]))
    np.add.at(sums, owner, statistics)
    return sums


def aligned_sums(statistics: Array, speakers: npt.NDArray[Any], names: Sequence[str]) -> Array:
    """Return `speaker_sums` in the order of the sorted ``names``; zeros for a speaker without clips."""
    sums = np.zeros((len(names), statistics.shape[1]))
    sums[np.isin(names, speakers.astype(str))] = speaker_sums(statistics, speakers)
    return sums


def speaker_draws(speakers: int, draws: int, seed: int) -> Array:
    """Return how often each speaker is drawn: (draws, speakers); every row sums to ``speakers``."""
    counts = np.random.default_rng(seed).multinomial(speakers, np.full(speakers, 1 / speakers), size=draws)
    return counts.astype(np.float64)
