"""Audio files: reading, writing, resampling."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import torch

from advser.audio.pcm import SAMPLE_RATE, Pcm, Samples
from advser.audio.soundness import checked_blocks, to_mono
from advser.errors import InputError


def read(source: Path | bytes, name: str) -> tuple[Samples, int]:
    """Read an audio file or its bytes: mono float32 (T,), channels averaged, and the rate in Hz.

    Samples are on [−1, 1]; only floating-point and lossy files can exceed it, and `to_pcm` clips them.

    Raises:
        InputError: if it is missing, unreadable, cut off, empty, not finite, in the scale of integers, or has channels
            that cancel; the message begins with ``name``.
    """
    try:
        with soundfile.SoundFile(BytesIO(source) if isinstance(source, bytes) else source) as file:
            blocks, rate = list(checked_blocks(file, BLOCK, name)), file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        if isinstance(source, Path) and source.is_file() and is_pointer(source):
            raise InputError(f"{name}: got a Git LFS pointer, expected sound (git lfs pull)") from error
        raise InputError(f"{name}: unreadable as audio ({error}), expected WAV, FLAC, OGG or MP3") from error
    if not blocks:
        raise InputError(f"{name}: empty (0 samples), expected sound")
    return to_mono(np.concatenate(blocks), name), int(rate)


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


POINTER: Final = b"version https://git-lfs"
"""First bytes of a Git LFS pointer."""

LARGEST_POINTER: Final = 1024
"""Bytes below which a pointer of Git LFS stays."""

BLOCK: Final = 1 << 20
"""Samples that are read at once."""
