"""Cost of crafting an adversarial example: seconds, forward and backward passes, each per clip."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric, Need
from advser.metrics.recognition import ratio


class Cost(Metric):
    """Mean over clips of a cost column of the examples table."""

    needs: ClassVar[frozenset[Need]] = frozenset({"costs", "attack"})
    higher_is_better: ClassVar[bool] = False
    column: ClassVar[str]
    """The averaged column."""

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): the clip's cost, and 1."""
        cost = examples[self.column].to_numpy(np.float64)
        return ratio(cost, np.ones_like(cost), cost)


class Seconds(Cost):
    """Wall-clock seconds of crafting per clip: a batch's time over its number of clips."""

    title: ClassVar[str] = "Seconds"
    unit: ClassVar[str] = "s/clip"
    column: ClassVar[str] = "seconds"


class Forwards(Cost):
    """Forward passes of crafting per clip."""

    title: ClassVar[str] = "Forwards"
    unit: ClassVar[str] = "/clip"
    decimals: ClassVar[int] = 1
    column: ClassVar[str] = "forwards"


class Backwards(Cost):
    """Backward passes of crafting per clip."""

    title: ClassVar[str] = "Backwards"
    unit: ClassVar[str] = "/clip"
    decimals: ClassVar[int] = 1
    column: ClassVar[str] = "backwards"
