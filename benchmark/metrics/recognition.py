"""Performance of the victim: UAR, accuracy, error, loss, and the success of an attack."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric, Need


def class_column(examples: pd.DataFrame, column: str) -> Array:
    """Return a column of classes (N,) as floats; NaN for a missing or negative number."""
    values = examples[column].to_numpy(np.float64)
    return np.where(values >= 0, values, np.nan)


def ratio(numerator: Array, denominator: Array, *columns: Array) -> Array:
    """Return numerator and denominator as statistics (N, 2); a row is NaN where any of ``columns`` (N,) is NaN."""
    failed = np.any(np.isnan(np.stack(columns)), axis=0)
    rows = np.stack([numerator, denominator], axis=1).astype(np.float64)
    rows[failed] = np.nan
    return rows


class UAR(Metric):
    """Unweighted average recall: mean over classes of the share of a class's clips that are classified correctly.

    The classes are those of the task, and the predictions of all folds are pooled. The mean leaves out a class without
    clips, which has no recall; this matters in the bootstrap, where a draw of speakers may lack a class. scikit-learn's
    ``recall_score`` with ``labels=`` counts its recall as 0 instead. Both agree if every class has clips.
    """

    citation: ClassVar[str] = (
        "B. Schuller, S. Steidl, A. Batliner: The INTERSPEECH 2009 Emotion Challenge, Interspeech 2009, section 5."
    )
    title: ClassVar[str] = "UAR"
    higher_is_better: ClassVar[bool] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2C): 1 at the clip's class if the prediction is correct, then 1 at the clip's class."""
        label, prediction = class_column(examples, "label"), class_column(examples, "prediction")
        member = (label[:, None] == np.arange(classes)).astype(np.float64)
        rows = np.concatenate([member * (label == prediction)[:, None], member], axis=1)
        rows[np.isnan(label) | np.isnan(prediction)] = np.nan
        return rows

    def combine(self, sums: Array) -> Array:
        """Return the mean recall (…) of the classes that have clips; NaN if none has."""
        correct, count = np.split(sums, 2, axis=-1)
        present = count > 0
        recall = np.divide(correct, count, out=np.zeros_like(correct), where=present)
        number = present.sum(axis=-1)
        mean: Array = np.where(number > 0, recall.sum(axis=-1) / np.maximum(number, 1), np.nan)
        return mean


class Accuracy(Metric):
    """Share of clips that are classified correctly."""

    title: ClassVar[str] = "Accuracy"
    higher_is_better: ClassVar[bool] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the clip is classified correctly, and 1."""
        label, prediction = class_column(examples, "label"), class_column(examples, "prediction")
        return ratio(label == prediction, np.ones_like(label), label, prediction)


class Error(Metric):
    """Share of clips that are misclassified: 1 − accuracy."""

    title: ClassVar[str] = "Error"
    higher_is_better: ClassVar[bool] = False

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the clip is misclassified, and 1."""
        label, prediction = class_column(examples, "label"), class_column(examples, "prediction")
        return ratio(prediction != label, np.ones_like(label), label, prediction)


class Loss(Metric):
    """Mean cross-entropy of the true label, in nats."""

    title: ClassVar[str] = "Loss"
    unit: ClassVar[str] = "nat"
    higher_is_better: ClassVar[bool] = False
    decimals: ClassVar[int] = 2

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): the clip's loss, and 1."""
        loss = examples["loss"].to_numpy(np.float64)
        return ratio(loss, np.ones_like(loss), loss)


class AttackSuccess(Metric):
    """Share of all clips that the victim classifies correctly when clean and misclassifies after the attack.

    The denominator is all clips, not the clips that are correct when clean, so the share is at most the clean accuracy.
    A clip that is misclassified without an attack is no success of the attack.
    """

    title: ClassVar[str] = "Success"
    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"predictions", "attack"})

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): whether the attack misled the victim, and 1."""
        label, prediction = class_column(examples, "label"), class_column(examples, "prediction")
        clean = class_column(examples, "clean_prediction")
        misled = (clean == label) & (prediction != label)
        return ratio(misled, np.ones_like(label), label, prediction, clean)
