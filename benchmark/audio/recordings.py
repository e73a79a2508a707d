"""Recordings as files: WAV, FLAC, OGG and MP3 of any rate, length and number of channels, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from advser.audio.files import FLOATS
from advser.audio.pcm import SAMPLE_RATE, Samples
from advser.errors import InputError

BLOCK: Final = 12
"""Seconds that are read and written at once, and that the recogniser, PESQ and STOI hear; PESQ takes 20."""

WINDOW: Final = 3
"""Seconds, about, that a model hears at once."""

SHORTEST: Final = 0.25
"""Seconds below which a last block stays as it is: models, PESQ and STOI hear nothing in it."""

FORMATS: Final = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
"""Suffix → what is read and written."""

_KIN: Final = {"WAV": ("WAVEX", "RF64")}
"""Format → its variants, which have the same suffix."""


def opened(path: Path) -> soundfile.SoundFile:
    """Open a recording.

    Raises:
        InputError: if it is missing, unreadable or empty.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: unreadable as audio: {error}") from None
    if not file.frames:
        file.close()
        raise InputError(f"{path}: empty (0 samples)")
    return file


def encoding(original: soundfile.SoundFile, form: str) -> tuple[str, str | None]:
    """Return format and subtype of what is written as ``form``: the recording's own as far as that can hold them."""
    kept = original.format if original.format in _KIN.get(form, ()) else form
    if kept == original.format:
        return kept, original.subtype
    linear = original.subtype in FLOATS or original.subtype.startswith("PCM_")
    able = (subtype for subtype in (original.subtype, "PCM_24") if linear and soundfile.check_format(form, subtype))
    return kept, next(able, None)


def blocks(file: soundfile.SoundFile) -> Iterator[tuple[Samples, float]]:
    """Yield blocks (n, channels) of a file, full scale, and what share of it is read then.

    Raises:
        InputError: if it is broken, or has samples that are no finite numbers.
    """
    read, blocks = 0, file.blocks(BLOCK * file.samplerate, dtype="float32", always_2d=True)
    while True:
        try:
            block = next(blocks, None)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{file.name}: unreadable as audio: {error}") from None
        if block is None:
            return
        if not np.isfinite(block).all():
            raise InputError(f"{file.name}: got samples that are not finite numbers, expected numbers")
        read += len(block)
        yield block, min(read / file.frames, 1.0)


def in_windows(heard: Samples) -> list[Samples]:
    """Split a block (T,) at 16 kHz into windows of equal lengths; none of one that is too short to hear."""
    number = max(1, round(len(heard) / (WINDOW * SAMPLE_RATE)))
    return np.array_split(heard, number) if len(heard) >= SHORTEST * SAMPLE_RATE else []
