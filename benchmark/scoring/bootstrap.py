"""A metric's figure over a set of clips, with its uncertainty: bootstrap over speakers."""

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
        value: the figure over all measured clips; NaN if none counts.
        low: lower end of the 95 % interval; NaN with fewer than two speakers.
        high: upper end.
        n: clips that count: measured, and not left out by a row of zeros.
        n_failed: clips whose measurement failed; they are in no figure.
    """

    value: float
    low: float
    high: float
    n: int
    n_failed: int


def bootstrap(metric: Metric, statistics: Array, speakers: npt.NDArray[Any], draws: int, seed: int) -> Interval:
    """Compute a metric's figure and its percentile interval over speakers.

    Clips of one speaker are not independent, so whole speakers are drawn with replacement, as many as there are
    (B. Efron, R. J. Tibshirani: An Introduction to the Bootstrap, 1993, chapters 8 and 13). Draws on which the figure
    is not defined (no clip of the draw counts) are left out.

    Args:
        metric: makes the figure of summed statistics.
        statistics: (N, k); a row with a NaN is a failed clip, a row of zeros one that does not count.
        speakers: (N,), who speaks in each clip.
        draws: how many times speakers are drawn.
        seed: of the draws.

    Raises:
        ContractError: if ``combine`` does not return one figure a draw.
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
    """Return the sums (S, k) of clips' statistics (N, k) by speaker, in the order of the speakers' names."""
    names, owner = np.unique(speakers.astype(str), return_inverse=True)
    sums = np.zeros((len(names), statistics.shape[1]))
    np.add.at(sums, owner, statistics)
    return sums


def aligned_sums(statistics: Array, speakers: npt.NDArray[Any], names: Sequence[str]) -> Array:
    """Return `speaker_sums` in the order of ``names``, which is sorted; zeros for who has no clip."""
    sums = np.zeros((len(names), statistics.shape[1]))
    sums[np.isin(names, speakers.astype(str))] = speaker_sums(statistics, speakers)
    return sums


def speaker_draws(speakers: int, draws: int, seed: int) -> Array:
    """Return how often each speaker is drawn: (draws, speakers), every row summing to ``speakers``."""
    counts = np.random.default_rng(seed).multinomial(speakers, np.full(speakers, 1 / speakers), size=draws)
    return counts.astype(np.float64)
