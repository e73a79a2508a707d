"""Ranks of entries and the significance of their differences, paired by speaker.

All entries were evaluated on the same clips, so one draw of speakers re-weights all of them at once. Effects that two
entries share, such as a speaker who is hard for every model, cancel in their difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from advser.metrics.base import Array, Metric
from advser.scoring.bootstrap import CONFIDENCE, speaker_draws

SIGNIFICANCE: Final = 1 - CONFIDENCE
"""Largest p at which the sign-flip test separates two entries."""

EXACT: Final = 12
"""Largest number S of speakers for which all 2^S sign flips are enumerated; above it, random flips are drawn."""

_ROUNDING: Final = 1e-9
"""Figures that differ by less count as equal: they may sum the same numbers in different orders."""


@dataclass(frozen=True)
class Pooled:
    """A figure over all seeds.

    Attributes:
        value: mean over seeds of each seed's figure.
        low, high: 95 % interval over speakers, drawn once for all seeds; NaN with fewer than two speakers.
        spread: standard deviation over the seeds (n − 1); NaN with one seed.
    """

    value: float
    low: float
    high: float
    spread: float

    @property
    def columns(self) -> dict[str, float]:
        """The figure by the columns of the results tables."""
        return {"value": self.value, "ci_low": self.low, "ci_high": self.high, "spread": self.spread}


@dataclass(frozen=True)
class Standing:
    """Rank of an entry among the entries that it is compared with.

    Attributes:
        figure: the entry's figure.
        rank: one more than the number of entries with a better figure.
        rank_low, rank_high: interval of the rank (`standings`).
        tie: number of the entry's tie group (`standings`), from 1.
        difference: the entry's figure less that of the best entry.
        difference_low, difference_high: 95 % interval of the difference; NaN with fewer than two speakers.
        p: of the sign-flip test against the best entry, adjusted for all pairs; 1 for the best entry itself.
    """

    figure: Pooled
    rank: int
    rank_low: int
    rank_high: int
    tie: int
    difference: float
    difference_low: float
    difference_high: float
    p: float


def pooled(metric: Metric, sums: Array, draws: int, seed: int) -> Pooled:
    """Return the mean over seeds of a metric's figure, and its interval over speakers.

    Args:
        metric: computes the figure from summed statistics.
        sums: statistics summed by speaker (R seeds, S speakers, k).
        draws: number of draws of speakers.
        seed: of the draws.
    """
    return _pooled(metric, sums, _figures(metric, sums, speaker_draws(sums.shape[1], draws, seed)))


def standings(
    metric: Metric, entries: Sequence[Array], draws: int, seed: int, *, lowest: bool = False
) -> list[Standing]:
    """Rank entries that were evaluated on the same clips.

    Two entries are *separated* if their sign-flip test, adjusted for all pairs of entries (`adjusted`), has p ≤ .05.
    If all entries are alike, any two are separated with a chance of at most 5 %. With fewer than six speakers no two
    entries are separated.

    Tie groups: the best entry heads the first group, and every entry that is not separated from it ties with it. The
    best of the remaining entries heads the next group, and so on.

    Interval of a rank: from one more than the number of separated, better entries, to the number of all entries less
    the separated, worse entries.

    The order of the entries does not matter.

    Args:
        metric: computes the figure from summed statistics.
        entries: statistics of each entry summed by speaker, (R seeds, S speakers, k), speakers in the same order.
        draws: number of draws of speakers, and of sign flips with more than `EXACT` speakers.
        seed: of the draws.
        lowest: whether the lowest figure is the best.

    Raises:
        ValueError: if there is no entry, or the shapes differ.
    """
    everything = np.stack(entries)
    speakers = everything.shape[2]
    weights = speaker_draws(speakers, draws, seed)
    drawn = np.stack([_figures(metric, sums, weights) for sums in entries])
    figures = [_pooled(metric, sums, figure) for sums, figure in zip(entries, drawn, strict=True)]
    tests = _tests(metric, entries, sign_flips(speakers, draws, seed))
    better = -1.0 if lowest else 1.0
    order = sorted(range(len(entries)), key=lambda entry: (-better * figures[entry].value, entries[entry].tolist()))

    apart = tests <= SIGNIFICANCE + _ROUNDING
    ties = tie_groups(order, lambda entry, head: bool(apart[entry, head]))
    values = better * np.array([figure.value for figure in figures])
    ranked = []
    for entry, figure in enumerate(figures):
        above = values > values[entry] + _ROUNDING
        rank = 1 + int(above.sum())
        low, high = 1 + int((apart[entry] & above).sum()), len(entries) - int((apart[entry] & ~above).sum())
        difference = figure.value - figures[order[0]].value
        difference_interval = percentile_interval(drawn[entry] - drawn[order[0]])
        p = float(tests[entry, order[0]])
        ranked.append(Standing(figure, rank, low, high, ties[entry], difference, *difference_interval, p))
    return ranked


def _tests(metric: Metric, entries: Sequence[Array], flips: npt.NDArray[np.float64]) -> Array:
    """Return the adjusted p of each pair of entries (E, E), 1 on the diagonal."""
    pairs = list(combinations(range(len(entries)), 2))
    tests = np.ones((len(entries), len(entries)))
    if pairs:
        swapped = [swapped_differences(metric, entries[row], entries[column], flips) for row, column in pairs]
        rows, columns = np.array(pairs).T
        tests[rows, columns] = tests[columns, rows] = adjusted(np.stack(swapped))
    return tests


def adjusted(differences: Array) -> Array:
    """Return p of several two-sided sign-flip tests (P,), adjusted for all of them: step-down max-T.

    If two entries are alike, their answers are exchangeable speaker by speaker. p is the share of swaps under which the
    figures differ at least as much as observed. Clips of one speaker are not independent, so they are swapped together,
    across all seeds. With one clip per speaker and accuracy this is McNemar's exact test of discordant pairs
    (Q. McNemar: Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12, 1947).

    The largest difference is compared with the largest of all pairs under each swap, the next largest with the largest
    of the remaining pairs, and so on (P. H. Westfall, S. S. Young: Resampling-based multiple testing, 1993, algorithm
    2.8). Since all pairs count, the selection of the best entry is accounted for.

    Args:
        differences: of each pair under each swap of speakers (P, F); the first swap is the identity.
    """
    # A swap with an undefined figure counts against every difference.
    sizes = np.where(np.isnan(differences), np.inf, np.abs(differences))
    order = np.argsort(-sizes[:, 0], kind="stable")
    largest = np.maximum.accumulate(sizes[order][::-1], axis=0)[::-1]
    reached = (largest >= sizes[order, :1] - _ROUNDING).mean(axis=1)
    p = np.empty(len(order))
    p[order] = np.maximum.accumulate(reached)
    return p


def tie_groups(order: Sequence[int], apart: Callable[[int, int], bool]) -> dict[int, int]:
    """Return the number of each entry's tie group, from 1.

    Args:
        order: the entries, best first.
        apart: returns whether an entry is separated from the head of a group.
    """
    left, groups = list(order), dict[int, int]()
    for number in range(1, len(order) + 1):
        if not left:
            break
        tied = [entry for entry in left if entry == left[0] or not apart(entry, left[0])]
        groups |= dict.fromkeys(tied, number)
        left = [entry for entry in left if entry not in tied]
    return groups


def sign_flips(speakers: int, draws: int, seed: int) -> npt.NDArray[np.float64]:
    """Return sign flips (F, S) of 0 and 1, the first all 1; F is 2^S with at most `EXACT` speakers, else ``draws``."""
    if speakers <= EXACT:
        return (1 - (np.arange(2**speakers)[:, None] >> np.arange(speakers) & 1)).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(2, size=(draws, speakers)).astype(np.float64)
    drawn[0] = 1.0
    return drawn


def swapped_differences(metric: Metric, first: Array, second: Array, flips: npt.NDArray[np.float64]) -> Array:
    """Return the figure of the first entry less that of the second (F,), means over seeds, after each swap.

    Args:
        metric: computes the figure from summed statistics.
        first: statistics of the first entry (R seeds, S, k), summed by speaker or by another unit of swapping.
        second: statistics of the second entry, in the same order.
        flips: (F, S), a 1 where an entry keeps its answers.
    """
    total = (first + second).sum(axis=1)
    swapped = np.einsum("fs,rsk->frk", flips, first - second) + second.sum(axis=1)
    difference: Array = (metric.combine(swapped) - metric.combine(total - swapped)).mean(axis=-1)
    return difference


def _figures(metric: Metric, sums: Array, weights: Array) -> Array:
    """Return the mean over seeds of the figure for each draw of speakers (D,)."""
    figures: Array = metric.combine(np.einsum("ds,rsk->drk", weights, sums)).mean(axis=-1)
    return figures


def _pooled(metric: Metric, sums: Array, drawn: Array) -> Pooled:
    by_seed = metric.combine(sums.sum(axis=1))
    spread = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else float("nan")
    low, high = percentile_interval(drawn) if sums.shape[1] > 1 else (float("nan"), float("nan"))
    return Pooled(float(by_seed.mean()), low, high, spread)


def percentile_interval(drawn: Array) -> tuple[float, float]:
    """Return the 95 % percentile interval of the figures of all draws (D,); NaN if no figure is defined."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return float(low), float(high)
