"""Sound files: reading, writing, resampling."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import torch

from advser.audio.pcm import SAMPLE_RATE, Pcm, Samples
from advser.errors import InputError


def read(source: Path | bytes, name: str) -> tuple[Samples, int]:
    """Read a sound file or its bytes: mono float32 (T,) (channels averaged) and its rate in Hz.

    Samples are on [−1, 1], but for a floating-point file that exceeds it; `to_pcm` clips these.

    Raises:
        InputError: if it is missing, unreadable, empty or not finite; the message begins with ``name``.
    """
    try:
        samples, rate = soundfile.read(
            BytesIO(source) if isinstance(source, bytes) else source, dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{name}: unreadable as audio: {error}") from error
    if not len(samples):
        raise InputError(f"{name}: empty (0 samples)")
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: {np.count_nonzero(~np.isfinite(samples))} samples are not finite numbers")
    return samples.mean(axis=1, dtype=np.float32), int(rate)


def write(path: Path, pcm: Pcm, rate: int = SAMPLE_RATE) -> None:
    """Write 16-bit samples (T,) as the format that the suffix of ``path`` names."""
    soundfile.write(path, pcm, rate, subtype="PCM_16")


def resample(samples: Samples, rate: int, target: int = SAMPLE_RATE) -> Samples:
    """Resample (T,) from ``rate`` to ``target`` Hz (windowed sinc, torchaudio)."""
    if rate == target:
        return samples
    from advser.audio.torchaudio import functional

    resampled: Samples = functional.resample(torch.from_numpy(samples), rate, target).numpy()
    return resampled


FLOATS: Final = ("FLOAT", "DOUBLE")
"""Their encodings whose samples may be no numbers, which reading them tells."""
