"""How well the victim recognises emotion: UAR, accuracy, loss, and the share of clips that an attack turns."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric, Need


def integers(examples: pd.DataFrame, column: str) -> Array:
    """Return a column of classes (N,) as floats, with NaN where there is none (a negative number, or missing)."""
    values = examples[column].to_numpy(np.float64)
    return np.where(values >= 0, values, np.nan)


def ratio(numerator: Array, denominator: Array, *columns: Array) -> Array:
    """Stack two statistics (N, 2), with a row of NaN where any of the ``columns`` (N,) they rest on is NaN."""
    failed = np.any(np.isnan(np.stack(columns)), axis=0)
    rows = np.stack([numerator, denominator], axis=1).astype(np.float64)
    rows[failed] = np.nan
    return rows


class UAR(Metric):
    """Unweighted average recall: the mean over classes of the share of a class's clips that are read rightly.

    The classes are those of the task, given by number, and predictions of all folds are pooled before the mean is
    taken. A class of which no clip is present has no recall and is left out of the mean (this matters in the
    bootstrap, where a draw of speakers may lack a class); scikit-learn's ``recall_score`` with ``labels=`` counts it
    as 0 instead. Both agree where every class is present.
    """

    citation: ClassVar[str] = (
        "B. Schuller, S. Steidl, A. Batliner: The INTERSPEECH 2009 Emotion Challenge, Interspeech 2009, section 5."
    )
    title: ClassVar[str] = "UAR"
    higher_is_better: ClassVar[bool] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2C): a one at the clip's class if it is read rightly, then a one at the clip's class."""
        label, prediction = integers(examples, "label"), integers(examples, "prediction")
        member = (label[:, None] == np.arange(classes)).astype(np.float64)
        rows = np.concatenate([member * (label == prediction)[:, None], member], axis=1)
        rows[np.isnan(label) | np.isnan(prediction)] = np.nan
        return rows

    def combine(self, sums: Array) -> Array:
        """Return the mean recall (…) of the classes that are present; NaN if none is."""
        right, count = np.split(sums, 2, axis=-1)
        present = count > 0
        recall = np.divide(right, count, out=np.zeros_like(right), where=present)
        number = present.sum(axis=-1)
        mean: Array = np.where(number > 0, recall.sum(axis=-1) / np.maximum(number, 1), np.nan)
        return mean


class Accuracy(Metric):
    """Share of clips that are read rightly."""

    title: ClassVar[str] = "Accuracy"
    higher_is_better: ClassVar[bool] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the clip is read rightly, and a one."""
        label, prediction = integers(examples, "label"), integers(examples, "prediction")
        return ratio(label == prediction, np.ones_like(label), label, prediction)


class Error(Metric):
    """Share of clips read wrongly: 1 − accuracy."""

    title: ClassVar[str] = "Error"
    higher_is_better: ClassVar[bool] = False

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the clip is misread, and a one."""
        label, prediction = integers(examples, "label"), integers(examples, "prediction")
        return ratio(prediction != label, np.ones_like(label), label, prediction)


class Loss(Metric):
    """Mean cross-entropy of the true label, in nats."""

    title: ClassVar[str] = "Loss"
    unit: ClassVar[str] = "nat"
    higher_is_better: ClassVar[bool] = False
    decimals: ClassVar[int] = 2

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): the clip's loss, and a one."""
        loss = examples["loss"].to_numpy(np.float64)
        return ratio(loss, np.ones_like(loss), loss)


class AttackSuccess(Metric):
    """Share of all clips that the victim reads rightly when clean and wrongly after the attack.

    The share is of all clips, not of those read rightly when clean: it is at most the clean accuracy. A clip that
    is misread without any attack is no success of the attack.
    """

    title: ClassVar[str] = "Success"
    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"predictions", "attack"})

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the attack turned the clip, and a one."""
        label, prediction = integers(examples, "label"), integers(examples, "prediction")
        clean = integers(examples, "clean_prediction")
        turned = (clean == label) & (prediction != label)
        return ratio(turned, np.ones_like(label), label, prediction, clean)
