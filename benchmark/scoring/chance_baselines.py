"""Chance baselines: figures of two classifiers that ignore the sound.

Scoring computes them from the labels. They need no job, and no attack changes them. ``random`` guesses each clip's
class uniformly. ``majority`` always answers the most frequent class of the clips that models are trained on in the
fold (the suite's ``fit_on``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.metrics.base import Array, Metric
from advser.metrics.recognition import UAR, Accuracy, Error
from advser.results.terms import CHANCE_BASELINES
from advser.scoring.bootstrap import aligned_sums
from advser.scoring.significance import Pooled, percentile_interval, pooled

BASELINE_METRICS: Final = (UAR, Accuracy, Error)
"""Metrics with a chance baseline: they read nothing but predictions and labels."""

REASONS: Final[Mapping[str, str]] = {
    "random": "chance baseline: expected figure of a guess; the interval is that of one guess per seed on these clips",
    "majority": "chance baseline: always answers the most frequent class of the clips that models are trained on",
}
MAJORITY: Final = "majority"
"""Column of the clips: the most frequent class among the training clips of the clip's fold."""


def chance_baselines(
    metric: Metric, clips: Sequence[pd.DataFrame], classes: int, draws: int, seed: int
) -> Iterator[tuple[str, Pooled]]:
    """Yield the name and the figure of each chance baseline.

    Args:
        metric: one of `BASELINE_METRICS`.
        clips: for each seed the clips, with columns ``label``, ``speaker`` and `MAJORITY`.
        classes: number of classes.
        draws: number of draws of guesses, and of speakers.
        seed: of the draws.
    """
    for name, figure in zip(CHANCE_BASELINES, (_random, _majority), strict=True):
        yield name, figure(metric, clips, classes, draws, seed)


def most_frequent(targets: npt.NDArray[np.int64]) -> int:
    """Return the most frequent of classes (N,), the lowest of equally frequent classes."""
    return int(np.bincount(targets).argmax())


def _random(metric: Metric, clips: Sequence[pd.DataFrame], classes: int, draws: int, seed: int) -> Pooled:
    rng = np.random.default_rng(seed)
    expected, guessed = [], []
    for of_seed in clips:
        by_answer = np.stack([_statistics(metric, of_seed, answer, classes) for answer in range(classes)])
        guesses = rng.integers(classes, size=(draws, len(of_seed)))
        sums = np.stack([by_answer[guess, np.arange(len(guess))].sum(axis=0) for guess in guesses])
        expected.append(float(metric.combine(by_answer.mean(axis=0).sum(axis=0))))
        guessed.append(metric.combine(sums))
    spread = float(np.std(expected, ddof=1)) if len(clips) > 1 else float("nan")
    return Pooled(float(np.mean(expected)), *percentile_interval(np.mean(guessed, axis=0)), spread)


def _majority(metric: Metric, clips: Sequence[pd.DataFrame], classes: int, draws: int, seed: int) -> Pooled:
    names = sorted({name for of_seed in clips for name in of_seed["speaker"].astype(str)})
    sums = [
        aligned_sums(_statistics(metric, of_seed, of_seed[MAJORITY], classes), of_seed["speaker"].to_numpy(), names)
        for of_seed in clips
    ]
    return pooled(metric, np.stack(sums), draws, seed)


def _statistics(metric: Metric, clips: pd.DataFrame, answers: Any, classes: int) -> Array:
    return metric.statistics(clips.assign(prediction=answers), classes)
