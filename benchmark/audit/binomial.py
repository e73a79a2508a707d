"""Exact tests of clips, by the tail of the binomial distribution."""

from __future__ import annotations

from typing import Any, Final

LEVEL: Final = 0.01
"""Significance level of a flagged difference."""

LEAST: Final = 0.02
"""Share of the clips below which no difference is flagged, however significant it is."""


def binomial_tail(hits: Any, trials: Any, chance: float) -> Any:
    """Return the probability of at least ``hits`` in ``trials`` independent draws, each a hit with ``chance``.

    Args:
        hits: 0 to ``trials``; numbers or arrays.
        trials: number of draws, likewise.
        chance: 0 to 1.
    """
    # Imported here, because scipy.special takes a sixth of a second, and many commands need no test.
    from scipy.special import bdtrc

    return bdtrc(hits - 1, trials, chance)


def is_clearly_more(only_first: int, only_second: int, clips: int, tests: int = 1) -> bool:
    """Return whether the first of two outcomes holds for significantly more clips (exact sign test, `LEVEL`).

    Args:
        only_first: clips for which only the first holds.
        only_second: clips for which only the second holds.
        clips: all clips; a difference of less than `LEAST` of them does not count.
        tests: number of tests of which one may be significant by chance (Bonferroni's correction).
    """
    if only_first - only_second < max(1, LEAST * clips):
        return False
    return bool(binomial_tail(only_first, only_first + only_second, 0.5) < LEVEL / tests)
