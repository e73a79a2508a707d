"""Quality of the judged sound against the clean sound: signal-to-noise ratio and PESQ."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from advser.audio.pcm import Samples
from advser.errors import MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric, Need

PESQ_RATE = 16_000
"""Sampling rate in Hz; wideband PESQ has no other."""

PESQ_LONGEST = 20.0
"""Longest clip in seconds: the reference code overflows beyond 50 utterances, each at least 0.4 s with its pause."""


class SNR(ClipMetric):
    """Signal-to-noise ratio: energy of the clean clip over energy of the perturbation, in dB; mean over clips."""

    title: ClassVar[str] = "SNR"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"audio", "attack"})
    decimals: ClassVar[int] = 1
    column: ClassVar[str] = "snr"

    def measure(self, clean: Samples, judged: Samples, rate: int) -> float:
        """Return 10 log10(Σ x² / Σ (x′ − x)²) in dB; both (T,) on [−1, 1].

        Raises:
            NotApplicableError: if the perturbation is zero, since the ratio is infinite and has no mean.
            MeasurementError: if the clean clip is silent.
        """
        difference = np.subtract(judged, clean, dtype=np.float64)
        noise = float(np.sum(np.square(difference, out=difference)))
        signal = float(np.sum(np.square(clean, dtype=np.float64)))
        if noise == 0:
            raise NotApplicableError("nothing was perturbed")
        if signal == 0:
            raise MeasurementError("the clean clip is silent")
        return float(10 * np.log10(signal / noise))


class PESQ(ClipMetric):
    """Perceptual evaluation of speech quality, wideband, 16 kHz: MOS-LQO from about 1.0 to 4.64; mean over clips."""

    packages: ClassVar[tuple[str, ...]] = ("pesq",)
    citation: ClassVar[str] = "ITU-T Recommendation P.862.2, 2007 (wideband extension to P.862)."
    title: ClassVar[str] = "PESQ"
    unit: ClassVar[str] = "MOS-LQO"
    higher_is_better: ClassVar[bool] = True
    decimals: ClassVar[int] = 2
    column: ClassVar[str] = "pesq"

    def measure(self, clean: Samples, judged: Samples, rate: int) -> float:
        """Return the score of ``judged`` against ``clean``; both (T,) on [−1, 1] at 16 kHz.

        Raises:
            MeasurementError: if a clip is silent, shorter than 0.25 s, longer than 20 s, or without speech.
        """
        from pesq import PesqError, pesq

        if rate != PESQ_RATE:
            raise MeasurementError(f"wideband PESQ: got {rate} Hz, expected {PESQ_RATE} Hz")
        if len(clean) > PESQ_LONGEST * rate:
            raise MeasurementError(f"the clip is {len(clean) / rate:.1f} s long, PESQ takes {PESQ_LONGEST:.0f} s")
        refuse_silence(clean, judged)
        try:
            return float(pesq(rate, clean, judged, "wb"))
        except PesqError as error:
            reason = error.args[0] if error.args else type(error).__name__
            raise MeasurementError(f"PESQ: {reason.decode() if isinstance(reason, bytes) else reason}") from error


def refuse_silence(clean: Samples, judged: Samples) -> None:
    """Raise MeasurementError if either clip (T,) is digital silence, which has no quality to compare."""
    for name, clip in (("clean", clean), ("judged", judged)):
        if not np.any(clip):
            raise MeasurementError(f"the {name} clip is silent")
