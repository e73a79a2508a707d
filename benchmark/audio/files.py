"""Audio files: reading, writing, resampling."""

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
    """Read an audio file or its bytes: mono float32 (T,), channels averaged, and the rate in Hz.

    Samples are on [−1, 1]; only floating-point files can exceed it, and `to_pcm` clips them.

    Raises:
        InputError: if it is missing, unreadable, empty or not finite; the message begins with ``name``.
    """
    try:
        samples, rate = soundfile.read(
            BytesIO(source) if isinstance(source, bytes) else source, dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{name}: unreadable as audio ({error}), expected WAV, FLAC, OGG or MP3") from error
    if not len(samples):
        raise InputError(f"{name}: empty (0 samples), expected sound")
    if not np.isfinite(samples).all():
        bad = np.count_nonzero(~np.isfinite(samples))
        raise InputError(f"{name}: {bad} samples are not finite numbers, expected none")
    return samples.mean(axis=1, dtype=np.float32), int(rate)


def is_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer, which stands for sound that was not downloaded."""
    # Pointers have about 130 bytes; of larger files only the size is read.
    return path.stat().st_size < LARGEST_POINTER and path.read_bytes().startswith(POINTER)


def write(path: Path, pcm: Pcm, rate: int = SAMPLE_RATE) -> None:
    """Write 16-bit samples (T,) in the format of the suffix of ``path``."""
    soundfile.write(path, pcm, rate, subtype="PCM_16")


def resample(samples: Samples, rate: int, target: int = SAMPLE_RATE) -> Samples:
    """Resample (T,) from ``rate`` to ``target`` Hz (windowed sinc)."""
    if rate == target:
        return samples
    # torchaudio takes seconds to import, and clips at 16 kHz do not need it.
    from advser.audio.resampling import resample as resample_tensor

    resampled: Samples = resample_tensor(torch.from_numpy(samples), rate, target).numpy()
    return resampled


FLOATS: Final = ("FLOAT", "DOUBLE")
"""Encodings whose samples may be NaN or infinite."""

POINTER: Final = b"version https://git-lfs"
"""First bytes of a Git LFS pointer."""

LARGEST_POINTER: Final = 1024
"""Bytes below which a pointer of Git LFS stays."""
