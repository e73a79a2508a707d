"""Which of several entries is better, and which cannot be told apart: paired by speaker.

All entries were judged on the same clips, so one draw of speakers re-weights all of them at once. What two entries
have in common, as a speaker whom every model finds hard, then cancels in their difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from advser.metrics.base import Array, Metric
from advser.metrics.statistics import CONFIDENCE, speaker_draws
from advser.results import FEWEST

SIGNIFICANCE: Final = 1 - CONFIDENCE
"""Largest p at which the sign-flip test tells two entries apart."""

EXACT: Final = 12
"""Most speakers for whom all 2^S sign flips are gone through; with more, as many as there are draws are drawn."""

_ROUNDING: Final = 1e-9
"""Figures that differ by less are equal: they are sums of the same numbers in another order."""


@dataclass(frozen=True)
class Pooled:
    """A figure over all seeds.

    Attributes:
        value: the mean over the seeds of each seed's figure.
        low, high: its 95 % interval over speakers, drawn once for all seeds; NaN with fewer than two speakers.
        spread: standard deviation over the seeds (n − 1); NaN with one seed.
    """

    value: float
    low: float
    high: float
    spread: float

    @property
    def columns(self) -> dict[str, float]:
        """The figure as tables of the results have it."""
        return {"value": self.value, "ci_low": self.low, "ci_high": self.high, "spread": self.spread}


@dataclass(frozen=True)
class Standing:
    """Where an entry stands among the entries that it is compared with.

    Attributes:
        figure: its own figure.
        rank: one more than the number of entries with a better figure.
        rank_low, rank_high: the 95 % interval of the rank when speakers are drawn anew, the same for all entries.
        tie: number of its tie group (`standings`), from 1.
        difference: its figure less that of the best entry.
        difference_low, difference_high: its 95 % interval; NaN with fewer than two speakers.
        p: of the sign-flip test against the best entry; 1 for that entry itself.
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
        metric: makes the figure of summed statistics.
        sums: statistics summed by speaker (R seeds, S speakers, k).
        draws: how many times speakers are drawn.
        seed: of the draws.
    """
    return _pooled(metric, sums, _figures(metric, sums, speaker_draws(sums.shape[1], draws, seed)))


def standings(
    metric: Metric, entries: Sequence[Array], draws: int, seed: int, *, lowest: bool = False
) -> list[Standing]:
    """Rank entries that were judged on the same clips.

    Tie groups: the best entry heads the first group, and whatever is not separated from it ties with it; the best of
    those that are left heads the next group, and so on. Two entries are *separated* if the 95 % interval of their
    paired difference leaves 0 out and the sign-flip test has p ≤ .05. Both are asked for since the interval alone is
    too narrow with few speakers: it would separate two like entries far too often. So fewer than six speakers separate
    nothing, and leave every entry any rank.

    The order in which entries are given does not matter.

    Args:
        metric: makes the figure of summed statistics.
        entries: for each entry its statistics summed by speaker, (R seeds, S speakers, k), all in the same order.
        draws: how many times speakers, and with more than `EXACT` of them sign flips, are drawn.
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
    flips = sign_flips(speakers, draws, seed)
    better = -1.0 if lowest else 1.0
    order = sorted(range(len(entries)), key=lambda entry: (-better * figures[entry].value, entries[entry].tolist()))

    def against(entry: int, head: int) -> tuple[float, float, float]:
        low, high = tails(drawn[entry] - drawn[head])
        return low, high, sign_flip_test(metric, entries[entry], entries[head], flips)

    ties = tie_groups(order, lambda entry, head: separated(*against(entry, head)))
    ranks = _ranks(better * np.array([[figure.value] for figure in figures]))
    intervals = _rank_intervals(better * drawn) if speakers >= FEWEST else [(1, len(entries))] * len(entries)
    found = []
    for entry, figure in enumerate(figures):
        low, high, p = against(entry, order[0])
        difference = figure.value - figures[order[0]].value
        found.append(
            Standing(figure, int(ranks[0][entry, 0]), *intervals[entry], ties[entry], difference, low, high, p)
        )
    return found


def separated(low: float, high: float, p: float) -> bool:
    """Tell whether a difference with the 95 % interval from ``low`` to ``high`` and ``p`` tells two entries apart."""
    return bool((low > 0 or high < 0) and p <= SIGNIFICANCE + _ROUNDING)


def tie_groups(order: Sequence[int], apart: Callable[[int, int], bool]) -> dict[int, int]:
    """Return the number of each entry's tie group, from 1.

    Args:
        order: the entries, best first.
        apart: tells whether an entry is separated from the head of a group.
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
    """Return (flips, speakers) of 0 and 1, the first all 1: all 2^S with at most `EXACT` speakers, else ``draws``."""
    if speakers <= EXACT:
        return (1 - (np.arange(2**speakers)[:, None] >> np.arange(speakers) & 1)).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(2, size=(draws, speakers)).astype(np.float64)
    drawn[0] = 1.0
    return drawn


def sign_flip_test(metric: Metric, one: Array, other: Array, flips: npt.NDArray[np.float64]) -> float:
    """Return p of the two-sided hypothesis that two entries are alike in every speaker.

    If they are, it is chance which of the two answered a speaker's clips how, so that their answers may be swapped,
    speaker by speaker: p is the share of swaps under which the figures differ at least as much as they do. Where each
    clip has a speaker of its own and the metric is accuracy, these are McNemar's discordant pairs, tested exactly
    (Q. McNemar: Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12, 1947). Clips of one speaker are not independent and so are swapped together, of all seeds.

    Args:
        metric: makes the figure of summed statistics.
        one: statistics of one entry, summed by speaker (R seeds, S speakers, k).
        other: those of the other, on the same clips.
        flips: which speakers keep their answers, a 1 each (`sign_flips`); the first row keeps all.
    """
    both = (one + other).sum(axis=1)
    kept = np.einsum("fs,rsk->frk", flips, one - other) + other.sum(axis=1)
    difference = np.abs((metric.combine(kept) - metric.combine(both - kept)).mean(axis=-1))
    # Negated, so that a swap under which a figure is not defined counts against a difference.
    return float(np.mean(~(difference < difference[0] - _ROUNDING)))


def _figures(metric: Metric, sums: Array, weights: Array) -> Array:
    """Return the mean over seeds of the figure, for each draw of speakers (D,)."""
    figures: Array = metric.combine(np.einsum("ds,rsk->drk", weights, sums)).mean(axis=-1)
    return figures


def _pooled(metric: Metric, sums: Array, drawn: Array) -> Pooled:
    by_seed = metric.combine(sums.sum(axis=1))
    spread = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else float("nan")
    low, high = tails(drawn) if sums.shape[1] > 1 else (float("nan"), float("nan"))
    return Pooled(float(by_seed.mean()), low, high, spread)


def tails(drawn: Array) -> tuple[float, float]:
    """Return the 95 % percentile interval of figures that were drawn (D,); NaN if none is defined."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return float(low), float(high)


def _ranks(figures: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the best and the worst rank (E, D) of each of several figures (E, D), the highest first."""
    above = [(figures > figure + _ROUNDING).sum(axis=0) for figure in figures]
    level = [(figures >= figure - _ROUNDING).sum(axis=0) for figure in figures]
    return 1 + np.stack(above), np.stack(level)


def _rank_intervals(drawn: Array) -> list[tuple[int, int]]:
    """Return the 95 % interval of each entry's rank under the draws (E, D).

    Entries with equal figures may stand in any order: their ranks reach from the best to the worst of these.
    """
    defined = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if defined.shape[1] == 0:
        return [(1, len(drawn))] * len(drawn)
    best, worst = _ranks(defined)
    low = np.quantile(best, SIGNIFICANCE / 2, axis=1, method="inverted_cdf")
    high = np.quantile(worst, 1 - SIGNIFICANCE / 2, axis=1, method="inverted_cdf")
    return [(int(one), int(other)) for one, other in zip(low, high, strict=True)]
