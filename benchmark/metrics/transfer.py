"""Transfer of adversarial examples from the surrogate to the victim."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric, Need
from advser.metrics.recognition import class_column, ratio


class TransferRate(Metric):
    """Share of clips that mislead the victim, among clips that mislead the surrogate and are correct when clean.

    A clip qualifies if it misleads the surrogate and the victim classifies it correctly when clean. NaN if no clip
    qualifies. A clip misleads a model if the model's prediction is not the true label.
    """

    title: ClassVar[str] = "Transfer"
    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"predictions", "source", "attack"})

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the clip qualifies and misleads the victim, and whether it qualifies."""
        label, prediction = class_column(examples, "label"), class_column(examples, "prediction")
        clean, source = class_column(examples, "clean_prediction"), class_column(examples, "source_prediction")
        qualifies = (source != label) & (clean == label)
        misled = np.logical_and(qualifies, prediction != label)
        return ratio(misled, qualifies, label, prediction, clean, source)
