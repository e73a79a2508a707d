"""Predicted intelligibility of the judged sound, with the clean sound as reference: STOI and extended STOI."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np

from advser.audio.pcm import Samples
from advser.errors import MeasurementError
from advser.metrics.base import ClipMetric
from advser.metrics.quality import refuse_silence

SHORTEST = 0.384
"""Shortest clip in seconds: the analysis window of STOI, 30 frames at a hop of 128 samples at 10 kHz."""

LONGEST = 600.0
"""Longest clip in seconds. pystoi holds all analysis windows at once: 2.4 MB per second of sound, 8.7 GB per hour."""


class STOI(ClipMetric):
    """Short-time objective intelligibility, computed at 10 kHz: 1 for identical clips; mean over clips."""

    citation: ClassVar[str] = (
        "C. H. Taal, R. C. Hendriks, R. Heusdens, J. Jensen: An algorithm for intelligibility prediction of "
        "time-frequency weighted noisy speech, IEEE Trans. Audio, Speech, Lang. Process. 19 (2011)."
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "pystoi", "scipy")
    title: ClassVar[str] = "STOI"
    higher_is_better: ClassVar[bool] = True
    column: ClassVar[str] = "stoi"
    extended: ClassVar[bool] = False
    """Whether `measure` computes extended STOI."""

    def measure(self, clean: Samples, judged: Samples, rate: int) -> float:
        """Return the predicted intelligibility of ``judged``; both (T,), resampled from ``rate`` to 10 kHz.

        Raises:
            MeasurementError: if a clip is silent, longer than 10 min, or, without silent frames, shorter than 0.384 s.
        """
        from pystoi import stoi

        if len(clean) < SHORTEST * rate:
            raise MeasurementError(f"the clip is {len(clean) / rate:.3f} s long, {self.title} needs {SHORTEST} s")
        if len(clean) > LONGEST * rate:
            raise MeasurementError(f"the clip is {len(clean) / rate:.1f} s long, {self.title} takes {LONGEST:.0f} s")
        refuse_silence(clean, judged)
        with warnings.catch_warnings(), _fixed_random_numbers():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(stoi(clean, judged, rate, extended=self.extended))
            except RuntimeWarning as warning:
                raise MeasurementError(f"{self.title}: too little sound besides silence, or none") from warning


class ESTOI(STOI):
    """Extended short-time objective intelligibility, which also covers modulated maskers; mean over clips."""

    citation: ClassVar[str] = (
        "J. Jensen, C. H. Taal: An algorithm for predicting the intelligibility of speech masked by modulated noise "
        "maskers, IEEE/ACM Trans. Audio, Speech, Lang. Process. 24 (2016)."
    )
    title: ClassVar[str] = "ESTOI"
    column: ClassVar[str] = "estoi"
    extended: ClassVar[bool] = True


@contextmanager
def _fixed_random_numbers() -> Iterator[None]:
    """Seed numpy's global generator, with which pystoi dithers, and restore its state afterwards."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
