"""Whether a figure became worse between two results on the same clips: a paired test, and what it can see."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import binom, multinomial

from advser.metrics.base import Array, Metric
from advser.scoring.significance import EXACT, sign_flips, swapped_differences

SWAPS: Final = 10_000
"""How many swaps are drawn where more than `advser.scoring.significance.EXACT` clips changed."""

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Worsening:
    """What a test says: its p, and the least p that it could have given with as many clips changed."""

    p: float
    least: float


def worsening(metric: Metric, new: Array, base: Array, *, higher_is_better: bool) -> Worsening:
    """Test the one-sided hypothesis that nothing became worse.

    If it is so, it is chance which of the two answered a clip how, so that their answers may be swapped, clip by clip:
    p is the share of swaps under which the new figure is at least as much worse as it is. All swaps are gone through
    where at most `advser.scoring.significance.EXACT` clips changed. Where each changed clip moves the figure by as
    much, as for accuracy, the share is a binomial tail (McNemar's exact test, one-sided). Else swaps are drawn; p
    beyond what they resolve is Chernoff's bound on that share, if the figure is a sum over clips.

    Args:
        metric: makes the figure of summed statistics.
        new: statistics of the clips (R seeds, N clips, k).
        base: those of the base, in the same order.
        higher_is_better: the metric's better direction.
    """
    changed = (new != base).any(axis=(0, 2))
    count = int(changed.sum())
    if not count:
        return Worsening(1.0, 1.0)
    same = new[:, ~changed].sum(axis=1, keepdims=True)
    drawn = sign_flips(count, SWAPS, 0)
    flips = np.concatenate([drawn, 1 - np.eye(count)])
    # What did not change is one more clip, whose answers are equal.
    flips = np.concatenate([flips, np.ones((len(flips), 1))], axis=1)
    one, other = (np.concatenate([rows[:, changed], same], axis=1) for rows in (new, base))
    differences = swapped_differences(metric, one, other, flips) * (1 if higher_is_better else -1)
    found, alone = differences[: len(drawn)], differences[len(drawn) :]
    # Negated, so that a swap under which a figure is not defined counts against a difference.
    p = float(np.mean(~(found > found[0] + _ROUNDING)))
    if count <= EXACT:
        return Worsening(p, 0.5**count)
    worse = (alone - found[0]) / 2
    if not np.allclose((1 - 2 * drawn) @ worse, found, rtol=0, atol=_ROUNDING):
        return Worsening(p, 1 / SWAPS)
    if np.allclose(np.abs(worse), np.abs(worse[0]), rtol=0, atol=_ROUNDING):
        return Worsening(float(binom.sf((worse > 0).sum() - 1, count, 0.5)), 0.5**count)
    return Worsening(p if p > 1 / SWAPS else min(p, _chernoff(worse)), 0.5**count)


def _chernoff(worse: Array) -> float:
    """Return a bound on the share of signs of the ``worse`` (N,) under which their sum is at least what it is.

    inf over t ≥ 0 of E exp(t Σ ± w) / exp(t Σ w) (H. Chernoff: A measure of asymptotic efficiency for tests of a
    hypothesis based on the sum of observations, Annals of Mathematical Statistics 23, 1952).
    """
    sizes, total = np.abs(worse), worse.sum()

    def exponent(t: float) -> float:
        return float((np.logaddexp(t * sizes, -t * sizes) - np.log(2)).sum() - t * total)

    # Beyond, each term is a straight line to within rounding; any t gives a bound.
    last = 40 / sizes[sizes > 0].min()
    return float(min(1.0, np.exp(minimize_scalar(exponent, bounds=(0, last), method="bounded").fun)))


def corrected(values: Sequence[float], least: Sequence[float], level: float) -> list[float]:
    """Return p values for many tests at once, in their order: at most ``level`` where a hypothesis is rejected.

    Tarone's correction: a test that so few clips changed in that no p of it could be small enough is not counted
    (R. E. Tarone: A modified Bonferroni method for discrete data, Biometrics 46, 1990). So figures that did not move
    cost the others nothing.

    Args:
        values: p of `worsening`, each.
        least: the least p that each could have given.
        level: chance of a false alarm over all tests.
    """
    number = counted(least, level)
    return [min(1.0, number * p) if lowest <= level / number else 1.0 for p, lowest in zip(values, least, strict=True)]


def counted(least: Sequence[float], level: float) -> int:
    """Return how many tests `corrected` counts, at least 1; ``least`` and ``level`` as there."""
    lowest = np.asarray(least, np.float64)
    return next((k for k in range(1, len(lowest) + 1) if (lowest <= level / k).sum() <= k), 1)


def power(clips: int, drop: float, churn: float, tolerance: float, level: float) -> float:
    """Return the chance that a true drop of accuracy is called a regression.

    Args:
        clips: how many there are.
        drop: the drop, as a share of the clips.
        churn: share of the clips that change besides, as many for the better as for the worse.
        tolerance: of the gate.
        level: of the test, after `corrected`: where k tests are counted, the level over k.
    """
    worse, better = drop + churn / 2, churn / 2
    lost, won = np.meshgrid(np.arange(clips + 1), np.arange(clips + 1), indexing="ij")
    possible = lost + won <= clips
    lost, won = lost[possible], won[possible]
    chances: npt.NDArray[np.float64] = multinomial.pmf(
        np.stack([lost, won, clips - lost - won], axis=1), clips, [worse, better, 1 - worse - better]
    )
    p = binom.sf(lost - 1, lost + won, 0.5)
    called = (lost - won > tolerance * clips + _ROUNDING) & (p <= level)
    return float(chances[called].sum())


def detectable(clips: int, churn: float, tolerance: float, level: float, chance: float = 0.8) -> float:
    """Return the smallest true drop of accuracy that is called a regression with a `power` of at least ``chance``.

    Found to a thousandth; 1 if there is none.
    """
    drops = range(1, int(1000 * (1 - churn)))
    found = bisect_left(drops, chance, key=lambda drop: power(clips, drop / 1000, churn, tolerance, level))
    return drops[found] / 1000 if found < len(drops) else 1.0
