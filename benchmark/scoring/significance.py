"""Which of several entries is better, and which cannot be told apart: paired by speaker.

All entries were judged on the same clips, so one draw of speakers re-weights all of them at once. What two entries
have in common, as a speaker whom every model finds hard, then cancels in their difference.
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
        rank_low, rank_high: the interval of the rank (`standings`).
        tie: number of its tie group (`standings`), from 1.
        difference: its figure less that of the best entry.
        difference_low, difference_high: its 95 % interval; NaN with fewer than two speakers.
        p: of the sign-flip test against the best entry, adjusted for all pairs; 1 for that entry itself.
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

    Two entries are *separated* if their sign-flip test, adjusted for all pairs of entries (`adjusted`), has p ≤ .05: if
    all entries are alike, the chance is at most 5 % that any two are. Fewer than six speakers separate nothing.

    Tie groups: the best entry heads the first group, and whatever is not separated from it ties with it; the best of
    those that are left heads the next group, and so on. The interval of a rank reaches from one more than the entries
    that are separated and better, to all but those that are separated and worse.

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
    tests = _tests(metric, entries, sign_flips(speakers, draws, seed))
    better = -1.0 if lowest else 1.0
    order = sorted(range(len(entries)), key=lambda entry: (-better * figures[entry].value, entries[entry].tolist()))

    apart = tests <= SIGNIFICANCE + _ROUNDING
    ties = tie_groups(order, lambda entry, head: bool(apart[entry, head]))
    values = better * np.array([figure.value for figure in figures])
    found = []
    for entry, figure in enumerate(figures):
        above = values > values[entry] + _ROUNDING
        rank = 1 + int(above.sum())
        low, high = 1 + int((apart[entry] & above).sum()), len(entries) - int((apart[entry] & ~above).sum())
        difference = figure.value - figures[order[0]].value
        between = tails(drawn[entry] - drawn[order[0]])
        p = float(tests[entry, order[0]])
        found.append(Standing(figure, rank, low, high, ties[entry], difference, *between, p))
    return found


def _tests(metric: Metric, entries: Sequence[Array], flips: npt.NDArray[np.float64]) -> Array:
    """Return the adjusted p of each pair of entries (E, E), 1 on the diagonal."""
    pairs = list(combinations(range(len(entries)), 2))
    found = np.ones((len(entries), len(entries)))
    if pairs:
        swapped = [swapped_differences(metric, entries[one], entries[other], flips) for one, other in pairs]
        one, other = np.array(pairs).T
        found[one, other] = found[other, one] = adjusted(np.stack(swapped))
    return found


def adjusted(differences: Array) -> Array:
    """Return p of several two-sided sign-flip tests (P,), adjusted for all of them: step-down max-T.

    If two entries are alike, it is chance which of them answered a speaker's clips how, so that their answers may be
    swapped, speaker by speaker: p is the share of swaps under which the figures differ at least as much as they do.
    Where each clip has a speaker of its own and the metric is accuracy, these are McNemar's discordant pairs, tested
    exactly (Q. McNemar: Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12, 1947). Clips of one speaker are not independent and so are swapped together, of all seeds.

    Of several pairs, the largest difference is held against the largest of all under each swap, the next one against
    the largest of those that are left, and so on (P. H. Westfall, S. S. Young: Resampling-based multiple testing, 1993,
    algorithm 2.8). The best entry was chosen for being the best; since all pairs count, that is allowed for.

    Args:
        differences: of each pair, under each swap of speakers (P, F); the first swap leaves all as it is.
    """
    # A swap under which a figure is not defined counts against every difference.
    sizes = np.where(np.isnan(differences), np.inf, np.abs(differences))
    order = np.argsort(-sizes[:, 0], kind="stable")
    largest = np.maximum.accumulate(sizes[order][::-1], axis=0)[::-1]
    reached = (largest >= sizes[order, :1] - _ROUNDING).mean(axis=1)
    found = np.empty(len(order))
    found[order] = np.maximum.accumulate(reached)
    return found


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


def swapped_differences(metric: Metric, one: Array, other: Array, flips: npt.NDArray[np.float64]) -> Array:
    """Return the figure of one entry less that of another (F,), means over seeds, after each of some swaps.

    Args:
        metric: makes the figure of summed statistics.
        one: statistics of one entry (R seeds, S, k), summed by speaker or by whatever is swapped as a whole.
        other: those of the other, in the same order.
        flips: (F, S), a 1 where an entry keeps its answers.
    """
    both = (one + other).sum(axis=1)
    kept = np.einsum("fs,rsk->frk", flips, one - other) + other.sum(axis=1)
    difference: Array = (metric.combine(kept) - metric.combine(both - kept)).mean(axis=-1)
    return difference


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
