"""Anchors: what is reached without listening, for every figure to be seen against.

They are computed from the labels when a run is scored, need no job, and cannot be attacked: what they say does not
depend on the sound. ``random`` guesses each clip's class, all as likely; ``majority`` always says the class that is
commonest among the clips of the fold that models are trained on (the suite's ``fit_on``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.metrics.base import Array, Metric
from advser.metrics.recognition import UAR, Accuracy, Error
from advser.results.schema import ANCHORS
from advser.scoring.bootstrap import aligned_sums
from advser.scoring.significance import Pooled, pooled, tails

READ: Final = (UAR, Accuracy, Error)
"""Metrics that an anchor has: those of nothing but what it says."""

REASONS: Final[Mapping[str, str]] = {
    "random": "an anchor: expected of a guess; the interval is that of one guess a seed on these clips",
    "majority": "an anchor: always says the class that is commonest among the clips that models are trained on",
}
MAJORITY: Final = "majority"
"""Column of the clips: the class that is commonest among the training clips of the clip's fold."""


def anchors(
    metric: Metric, clips: Sequence[pd.DataFrame], classes: int, draws: int, seed: int
) -> Iterator[tuple[str, Pooled]]:
    """Yield each anchor's name and figure.

    Args:
        metric: one of `READ`.
        clips: for each seed the clips, with columns ``label``, ``speaker`` and `MAJORITY`.
        classes: number of classes.
        draws: of guesses, and of speakers.
        seed: of the draws.
    """
    for name, figure in zip(ANCHORS, (_random, _majority), strict=True):
        yield name, figure(metric, clips, classes, draws, seed)


def commonest(targets: npt.NDArray[np.int64]) -> int:
    """Return the commonest of classes (N,), the first of equally common ones."""
    return int(np.bincount(targets).argmax())


def _random(metric: Metric, clips: Sequence[pd.DataFrame], classes: int, draws: int, seed: int) -> Pooled:
    rng = np.random.default_rng(seed)
    expected, guessed = [], []
    for of_seed in clips:
        said = np.stack([_statistics(metric, of_seed, answer, classes) for answer in range(classes)])
        guesses = rng.integers(classes, size=(draws, len(of_seed)))
        sums = np.stack([said[guess, np.arange(len(guess))].sum(axis=0) for guess in guesses])
        expected.append(float(metric.combine(said.mean(axis=0).sum(axis=0))))
        guessed.append(metric.combine(sums))
    spread = float(np.std(expected, ddof=1)) if len(clips) > 1 else float("nan")
    return Pooled(float(np.mean(expected)), *tails(np.mean(guessed, axis=0)), spread)


def _majority(metric: Metric, clips: Sequence[pd.DataFrame], classes: int, draws: int, seed: int) -> Pooled:
    names = sorted({name for of_seed in clips for name in of_seed["speaker"].astype(str)})
    sums = [
        aligned_sums(_statistics(metric, of_seed, of_seed[MAJORITY], classes), of_seed["speaker"].to_numpy(), names)
        for of_seed in clips
    ]
    return pooled(metric, np.stack(sums), draws, seed)


def _statistics(metric: Metric, clips: pd.DataFrame, answers: Any, classes: int) -> Array:
    return metric.statistics(clips.assign(prediction=answers), classes)
