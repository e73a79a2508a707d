"""Whether a figure became worse between two results on the same clips: a paired test, and what it can see."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, multinomial

from advser.comparison import sign_flips, swapped_differences
from advser.metrics.base import Array, Metric

SWAPS: Final = 10_000
"""How many swaps are drawn where more than `advser.comparison.EXACT` clips changed."""

_ROUNDING: Final = 1e-9


def worsening(metric: Metric, new: Array, base: Array, *, higher_is_better: bool) -> float:
    """Return p of the one-sided hypothesis that nothing became worse.

    If it is so, it is chance which of the two answered a clip how, so that their answers may be swapped, clip by clip:
    p is the share of swaps under which the new figure is at least as much worse as it is. All swaps are gone through
    where at most `advser.comparison.EXACT` clips changed. For accuracy this is McNemar's exact test, one-sided.

    Args:
        metric: makes the figure of summed statistics.
        new: statistics of the clips (R seeds, N clips, k).
        base: those of the base, in the same order.
        higher_is_better: the metric's better direction.
    """
    changed = (new != base).any(axis=(0, 2))
    if not changed.any():
        return 1.0
    same = new[:, ~changed].sum(axis=1, keepdims=True)
    flips = sign_flips(int(changed.sum()), SWAPS, 0)
    # What did not change is one more clip, whose answers are equal.
    flips = np.concatenate([flips, np.ones((len(flips), 1))], axis=1)
    one, other = (np.concatenate([rows[:, changed], same], axis=1) for rows in (new, base))
    difference = swapped_differences(metric, one, other, flips) * (1 if higher_is_better else -1)
    # Negated, so that a swap under which a figure is not defined counts against a difference.
    return float(np.mean(~(difference > difference[0] + _ROUNDING)))


def corrected(values: Sequence[float], changed: Sequence[int], level: float) -> list[float]:
    """Return p values for many tests at once, in their order: at most ``level`` where a hypothesis is rejected.

    Tarone's correction: a test that so few clips changed in that no p of it could be small enough is not counted
    (R. E. Tarone: A modified Bonferroni method for discrete data, Biometrics 46, 1990). So figures that did not move
    cost the others nothing.

    Args:
        values: p of `worsening`, each.
        changed: how many clips changed, each: the least p that is possible is 2 to the power of minus that.
        level: chance of a false alarm over all tests.
    """
    least, number = 0.5 ** np.asarray(changed, np.float64), counted(changed, level)
    able = least <= level / number
    return [min(1.0, number * p) if testable else 1.0 for p, testable in zip(values, able, strict=True)]


def counted(changed: Sequence[int], level: float) -> int:
    """Return how many tests `corrected` counts, at least 1."""
    least = 0.5 ** np.asarray(changed, np.float64)
    return next((k for k in range(1, len(changed) + 1) if (least <= level / k).sum() <= k), 1)


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
