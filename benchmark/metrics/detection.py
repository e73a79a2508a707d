"""Performance of the victim's detector on attacked against clean clips: ROC AUC and equal-error rate.

Each fold has its own detector, whose logits have their own scale, so clips of several folds have no common ROC curve.
Each fold has a ROC curve over the attacked and the clean versions of its test clips. The figure is the mean over folds,
weighted by their clips.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.metrics.base import Array, Metric, Need

BINS: Final = 256
"""Ranks per fold, enough for 128 clips, each attacked and clean. With more clips, neighbours tie, which changes the AUC
by at most 1 / 512 if all logits differ."""


class Detection(Metric, ABC):
    """A figure of the ROC curve of each fold, averaged over folds."""

    needs: ClassVar[frozenset[Need]] = frozenset({"predictions", "detections", "attack"})

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, folds · 2 · 256): 1 at the rank of the attacked clip in its fold, 1 at that of the clean clip."""
        owner, folds = pd.factorize(examples["fold"])
        logits = examples[["detection", "clean_detection"]].to_numpy(np.float64)
        rows = np.zeros((len(examples), len(folds), 2, BINS))
        for fold in range(len(folds)):
            clips = np.flatnonzero(owner == fold)
            rows[clips[:, None], fold, [0, 1], ranks(logits[clips])] = 1
        rows[np.isnan(logits).any(axis=1)] = np.nan
        return rows.reshape(len(examples), -1)

    def combine(self, sums: Array) -> Array:
        """Return the mean over folds (…), weighted by their clips; NaN without a clip."""
        counts = sums.reshape(*sums.shape[:-1], -1, 2, BINS)
        clips = counts[..., 0, :].sum(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Fold by fold, since each fold needs several arrays as large as its counts.
            figures = [self.figure(counts[..., fold, 0, :], counts[..., fold, 1, :]) for fold in range(clips.shape[-1])]
            weighted = np.where(clips > 0, np.stack(figures, axis=-1) * clips, 0)
            mean: Array = weighted.sum(axis=-1) / clips.sum(axis=-1)
        return mean

    @abstractmethod
    def figure(self, attacked: Array, clean: Array) -> Array:
        """Return the figure (…) of clip counts per rank (…, ranks); the value for counts of 0 is arbitrary."""


class DetectorAUC(Detection):
    """Area under the ROC curve of the victim's detector.

    It is the probability that an attacked clip's logit exceeds a clean clip's. Pairs are all attacked with all clean
    clips of a fold; ties count one half (Mann–Whitney). Chance is .5; below it, attacked clips score cleaner than
    clean clips.
    """

    citation: ClassVar[str] = (
        "J. A. Hanley, B. J. McNeil: The meaning and use of the area under a receiver operating characteristic (ROC) "
        "curve, Radiology 143, 1982."
    )
    title: ClassVar[str] = "Detector AUC"
    higher_is_better: ClassVar[bool] = True

    def figure(self, attacked: Array, clean: Array) -> Array:
        """Return the share of pairs (…) in which the attacked clip ranks higher."""
        lower = clean.cumsum(axis=-1) - clean / 2
        pairs = attacked.sum(axis=-1) * clean.sum(axis=-1)
        area: Array = (attacked * lower).sum(axis=-1) / pairs
        return area


class DetectorEER(Detection):
    """Equal-error rate of the victim's detector: as many attacked clips are missed as clean clips are flagged.

    Between two thresholds the ROC curve is a straight line, as for a random choice between them, so a tie counts one
    half here too.
    """

    citation: ClassVar[str] = (
        "A. Martin, G. Doddington, T. Kamm, M. Ordowski, M. Przybocki: The DET curve in assessment of detection task "
        "performance, Eurospeech 1997."
    )
    title: ClassVar[str] = "Detector EER"
    higher_is_better: ClassVar[bool] = False

    def figure(self, attacked: Array, clean: Array) -> Array:
        """Return the rate (…) at which misses and false alarms cross as the threshold rises."""
        missed, passed = (share_below(counts) for counts in (attacked, clean))
        gap = missed + passed - 1
        after = (gap >= 0).argmax(axis=-1)[..., None]
        before = np.maximum(after - 1, 0)
        low, high = (np.take_along_axis(gap, place, -1) for place in (before, after))
        start, end = (np.take_along_axis(missed, place, -1) for place in (before, after))
        rate: Array = (start - low / (high - low) * (end - start)).squeeze(-1)
        return rate


def ranks(logits: Array) -> npt.NDArray[np.intp]:
    """Return each value's place among the distinct values, in the shape of ``logits``, on [0, 256)."""
    values, place = np.unique(logits, return_inverse=True)
    return place.reshape(logits.shape) * min(len(values), BINS) // len(values)


def share_below(counts: Array) -> Array:
    """Return the share of clips (…, ranks + 1) below each threshold, from 0 to 1, for counts (…, ranks)."""
    sums = np.insert(counts.cumsum(axis=-1), 0, 0, axis=-1)
    share: Array = sums / sums[..., -1:]
    return share
