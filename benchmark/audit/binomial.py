"""The tail of the binomial distribution, for exact tests of clips."""

from __future__ import annotations

from typing import Any


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
