"""A paired test of whether a figure became worse between two results on the same clips, and its power."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from advser.audit.binomial import binomial_tail
from advser.metrics.base import Array, Metric
from advser.scoring.significance import EXACT, sign_flips, swapped_differences

SWAPS: Final = 10_000
"""Number of swaps drawn where more than `advser.scoring.significance.EXACT` clips changed."""

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Worsening:
    """Result of the test: its p, and the smallest p that it can return with as many changed clips."""

    p: float
    least: float


def worsening(metric: Metric, new: Array, base: Array, *, higher_is_better: bool) -> Worsening:
    """Test the one-sided hypothesis that nothing became worse.

    Under the hypothesis, the answers of base and new are exchangeable clip by clip. p is the share of swaps under which
    the new figure is worse by at least the observed amount:

    - With at most `advser.scoring.significance.EXACT` changed clips, all swaps are enumerated.
    - Where each changed clip moves the figure by the same amount (accuracy), the share is a binomial tail: McNemar's
      exact test, one-sided.
    - Else `SWAPS` swaps are drawn. Where p is at their resolution and the figure is a sum over clips, p is Chernoff's
      bound on that share.

    Args:
        metric: computes the figure from summed statistics.
        new: statistics of the clips (R seeds, N clips, k).
        base: statistics of the base, in the same order.
        higher_is_better: the metric's better direction.
    """
    changed = (new != base).any(axis=(0, 2))
    count = int(changed.sum())
    if not count:
        return Worsening(1.0, 1.0)
    same = new[:, ~changed].sum(axis=1, keepdims=True)
    drawn = sign_flips(count, SWAPS, 0)
    flips = np.concatenate([drawn, 1 - np.eye(count)])
    # The unchanged clips together are a last clip with equal answers.
    flips = np.concatenate([flips, np.ones((len(flips), 1))], axis=1)
    after, before = (np.concatenate([rows[:, changed], same], axis=1) for rows in (new, base))
    differences = swapped_differences(metric, after, before, flips) * (1 if higher_is_better else -1)
    swapped, alone = differences[: len(drawn)], differences[len(drawn) :]
    # Negated, so that a swap with an undefined figure (NaN) counts against a difference.
    p = float(np.mean(~(swapped > swapped[0] + _ROUNDING)))
    if count <= EXACT:
        return Worsening(p, 0.5**count)
    worse = (alone - swapped[0]) / 2
    if not np.allclose((1 - 2 * drawn) @ worse, swapped, rtol=0, atol=_ROUNDING):
        return Worsening(p, 1 / SWAPS)
    if np.allclose(np.abs(worse), np.abs(worse[0]), rtol=0, atol=_ROUNDING):
        return Worsening(float(binomial_tail((worse > 0).sum(), count, 0.5)), 0.5**count)
    return Worsening(p if p > 1 / SWAPS else min(p, _chernoff(worse)), 0.5**count)


def _chernoff(worse: Array) -> float:
    """Return a bound on the share of sign changes of ``worse`` (N,) whose sum is at least the sum of ``worse``.

    inf over t ≥ 0 of E exp(t Σ ± w) / exp(t Σ w) (H. Chernoff: A measure of asymptotic efficiency for tests of a
    hypothesis based on the sum of observations, Annals of Mathematical Statistics 23, 1952).
    """
    # Imported here and below, because `advser compare` needs scipy seldom, and it takes half a second.
    from scipy.optimize import minimize_scalar

    sizes, total = np.abs(worse), worse.sum()

    def exponent(t: float) -> float:
        return float((np.logaddexp(t * sizes, -t * sizes) - np.log(2)).sum() - t * total)

    # Beyond it each term is linear to within rounding. Any t gives a valid bound.
    last = 40 / sizes[sizes > 0].min()
    return float(min(1.0, np.exp(minimize_scalar(exponent, bounds=(0, last), method="bounded").fun)))


def corrected(values: Sequence[float], least: Sequence[float], level: float) -> list[float]:
    """Return p values corrected for many tests, in their order: at most ``level`` where a hypothesis is rejected.

    Tarone's correction does not count a test whose smallest possible p is too large to reject, because too few clips
    changed (R. E. Tarone: A modified Bonferroni method for discrete data, Biometrics 46, 1990). So figures that did not
    move cost the others nothing.

    Args:
        values: p of each test (`worsening`).
        least: smallest p that each test can return.
        level: chance of a false alarm over all tests.
    """
    number = counted_tests(least, level)
    return [min(1.0, number * p) if lowest <= level / number else 1.0 for p, lowest in zip(values, least, strict=True)]


def counted_tests(least: Sequence[float], level: float) -> int:
    """Return the number of tests that `corrected` counts, at least 1; ``least`` and ``level`` as there."""
    lowest = np.asarray(least, np.float64)
    return next((k for k in range(1, len(lowest) + 1) if (lowest <= level / k).sum() <= k), 1)


def power(clips: int, drop: float, churn: float, tolerance: float, level: float) -> float:
    """Return the chance that a true drop of accuracy is called a regression.

    Args:
        clips: number of clips.
        drop: true drop, as a share of the clips.
        churn: share of the clips that change besides, half for the better and half for the worse.
        tolerance: of the gate.
        level: of the single test: the level of `corrected` over the number of counted tests.
    """
    from scipy.stats import multinomial

    worse, better = drop + churn / 2, churn / 2
    lost, won = np.meshgrid(np.arange(clips + 1), np.arange(clips + 1), indexing="ij")
    possible = lost + won <= clips
    lost, won = lost[possible], won[possible]
    chances: npt.NDArray[np.float64] = multinomial.pmf(
        np.stack([lost, won, clips - lost - won], axis=1), clips, [worse, better, 1 - worse - better]
    )
    p = binomial_tail(lost, lost + won, 0.5)
    called = (lost - won > tolerance * clips + _ROUNDING) & (p <= level)
    return float(chances[called].sum())


def detectable(clips: int, churn: float, tolerance: float, level: float, chance: float = 0.8) -> float:
    """Return the smallest true drop of accuracy that is called a regression with a `power` of at least ``chance``.

    In steps of .001; 1 if there is none.
    """
    drops = range(1, int(1000 * (1 - churn)))
    smallest = bisect_left(drops, chance, key=lambda drop: power(clips, drop / 1000, churn, tolerance, level))
    return drops[smallest] / 1000 if smallest < len(drops) else 1.0
