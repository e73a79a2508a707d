"""Checks that a sound file holds what its header promises, at full scale 1, in channels that do not cancel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from advser.audio.pcm import PCM_STEP, Samples
from advser.errors import InputError

FLOATS: Final = ("FLOAT", "DOUBLE")
"""Encodings whose samples may be NaN, infinite or above full scale."""

LOUDEST: Final = 8.0
"""Peak above which samples are in no scale of full scale 1. Mixing and decoding stay far below these 18 dB."""

CANCELLED: Final = 1e-2
"""Root mean square of the channels' mean, relative to theirs, below which the channels cancel: −40 dB."""

SLACK_BYTES: Final = 8
"""Bytes that a header may promise too many: padding, or a part of the last frame."""

SLACK_FRAMES: Final = 2 * 1152
"""Samples that an MP3's header may promise too many: two of its frames, which encoders count differently."""

STREAMS: Final = (1 << 31, 1 << 32)
"""Sizes below which (by at most 4096 bytes) a program that cannot know the length writes: 0xFFFFFFFF, 0x7FFFF000, …"""

_UNKNOWN: Final = 1 << 62
"""Samples from which a length stands for an unknown length: libsndfile cannot seek in such a file (FLAC of a pipe)."""

_PAGE: Final = 1 << 17
"""Bytes, more than the largest page of OGG."""

_PROMISED: Final = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_DS64: Final = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


def refuse_cut_header(file: soundfile.SoundFile, name: str) -> None:
    """Raise InputError if an opened file has no length, or promises more bytes than there are, but for `STREAMS`."""
    if file.frames >= _UNKNOWN:
        raise InputError(f"{name}: got a {file.format} file of unknown length, expected a header with its length")
    log = file.extra_info
    for promised, there in ((int(match[1]), int(match[2])) for match in _PROMISED.finditer(log)):
        streamed = any(0 <= size - promised <= 4096 for size in STREAMS)
        if promised - there > SLACK_BYTES and not streamed:
            raise InputError(f"{name}: got {there} of the {promised} bytes its header promises, expected a whole file")
    for there, promised in ((int(match[1]), int(match[2])) for match in _DS64.finditer(log)):
        refuse_cut(there, promised, name)
    if file.format == "OGG" and _ends_within_page(_tail(file)):
        raise InputError(f"{name}: got a last page without the bytes its header promises, expected a whole file")


def _tail(file: soundfile.SoundFile) -> bytes:
    """Return the last bytes of an opened file, more than a page of OGG."""
    if isinstance(file.name, BytesIO):
        return bytes(file.name.getbuffer()[-_PAGE:])
    with Path(file.name).open("rb") as raw:
        raw.seek(max(0, raw.seek(0, SEEK_END) - _PAGE))
        return raw.read()


def _ends_within_page(tail: bytes) -> bool:
    """Return whether the last page of OGG is shorter than its table of segments says (RFC 3533, section 6)."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    table = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 or len(table) < page[26] or len(page) < 27 + len(table) + sum(table)


def refuse_cut(there: int, promised: int, name: str, slack: int = 0) -> None:
    """Raise InputError if a file has fewer samples than its header promises."""
    if promised - there > slack:
        raise InputError(f"{name}: got {there} of the {promised} samples its header promises, expected a whole file")


def checked_blocks(file: soundfile.SoundFile, size: int, name: str) -> Iterator[Samples]:
    """Yield the samples of an opened file, float32 (n, channels), n ≤ ``size``, and never more than there are.

    ``SoundFile.blocks`` yields uninitialised memory where a file ends early, and needs a file that can seek.

    Raises:
        InputError: if the file is broken or cut off, or has samples that are not finite or in another scale; the
            message begins with ``name``.
    """
    refuse_cut_header(file, name)
    read = 0
    while True:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(f"{name}: unreadable as audio ({error}), expected a whole file") from None
        if not len(block):
            break
        refuse_values(block, name)
        read += len(block)
        yield block
    refuse_cut(read, file.frames, name, SLACK_FRAMES if file.format == "MP3" else 0)


def refuse_values(samples: Samples, name: str) -> None:
    """Raise InputError if samples (n, channels) are not finite, or in a scale other than full scale 1."""
    bad = np.count_nonzero(~np.isfinite(samples))
    if bad:
        raise InputError(f"{name}: {bad} samples are not finite numbers, expected none")
    peak = float(np.abs(samples).max(initial=0))
    if peak > LOUDEST or (peak > 1 and np.array_equal(samples, np.rint(samples))):
        raise InputError(
            f"{name}: got a peak of {peak:g}, as in the scale of integers, expected samples from -1 to 1 "
            "(divide by the integers' full scale, such as 32768)"
        )


def to_mono(samples: Samples, name: str) -> Samples:
    """Return the mean (n,) of the channels of ``samples`` (n, channels).

    Raises:
        InputError: if the channels cancel, as in opposite phase.
    """
    mono: Samples = samples.mean(axis=1, dtype=np.float32)
    loudness = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
    if loudness > PCM_STEP and np.sqrt(np.mean(np.square(mono, dtype=np.float64))) < CANCELLED * loudness:
        raise InputError(f"{name}: got channels that cancel (opposite phase), expected channels whose mean is sound")
    return mono
