"""How far adversarial examples carry from the model they were crafted on to another."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric, Need
from advser.metrics.recognition import integers, ratio


class TransferRate(Metric):
    """Among clips that fool the source and that the victim reads rightly when clean, the share that fool the victim.

    NaN if no clip qualifies. A clip fools a model if the model does not read its true label.
    """

    title: ClassVar[str] = "Transfer"
    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"predictions", "source", "attack"})

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the clip qualifies and fools the victim, and whether it qualifies."""
        label, prediction = integers(examples, "label"), integers(examples, "prediction")
        clean, source = integers(examples, "clean_prediction"), integers(examples, "source_prediction")
        qualifies = (source != label) & (clean == label)
        fooled = np.logical_and(qualifies, prediction != label)
        return ratio(fooled, qualifies, label, prediction, clean, source)
