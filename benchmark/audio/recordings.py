"""Recordings of any rate, length and number of channels, read block by block: WAV, FLAC, OGG and MP3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from advser.audio.pcm import SAMPLE_RATE, Samples
from advser.audio.soundness import FLOATS, checked_blocks, refuse_cut_header
from advser.errors import InputError

BLOCK: Final = 12
"""Seconds of a block, the unit of reading and writing, and of the recogniser, PESQ and STOI; PESQ takes at most 20."""

WINDOW: Final = 3
"""Seconds, approximately, that a model classifies at once."""

SHORTEST: Final = 0.25
"""Seconds below which the last block is not perturbed: it is too short for models, PESQ and STOI."""

FORMATS: Final = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
"""Suffix → format."""

_KIN: Final = {"WAV": ("WAVEX", "RF64")}
"""Format → variants with the same suffix."""


def opened(path: Path) -> soundfile.SoundFile:
    """Open a recording.

    Raises:
        InputError: if it is missing, unreadable, empty, or shorter than its header promises.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a recording")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: unreadable as audio ({error}), expected {', '.join(FORMATS.values())}") from None
    try:
        if not file.frames:
            raise InputError(f"{path}: empty (0 samples), expected sound")
        refuse_cut_header(file, str(path))
    except InputError:
        file.close()
        raise
    return file


def encoding(original: soundfile.SoundFile, form: str) -> tuple[str, str | None]:
    """Return the format and subtype to write as ``form``: those of the recording where ``form`` supports them."""
    container = original.format if original.format in _KIN.get(form, ()) else form
    if container == original.format:
        return container, original.subtype
    linear = original.subtype in FLOATS or original.subtype.startswith("PCM_")
    able = (subtype for subtype in (original.subtype, "PCM_24") if linear and soundfile.check_format(form, subtype))
    return container, next(able, None)


def blocks(file: soundfile.SoundFile) -> Iterator[tuple[Samples, float]]:
    """Yield blocks (n, channels) of a file, float32 at full scale 1, and the share of the file read so far.

    Raises:
        InputError: as `advser.audio.soundness.checked_blocks`.
    """
    read = 0
    for block in checked_blocks(file, BLOCK * file.samplerate, str(file.name)):
        read += len(block)
        yield block, min(read / file.frames, 1.0)


def in_windows(block: Samples) -> list[Samples]:
    """Split a block (T,) at 16 kHz into windows of about equal length; return none if it is below `SHORTEST`."""
    number = max(1, round(len(block) / (WINDOW * SAMPLE_RATE)))
    return np.array_split(block, number) if len(block) >= SHORTEST * SAMPLE_RATE else []
