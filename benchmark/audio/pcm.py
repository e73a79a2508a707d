"""16-bit PCM: rate, range, rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PCM_STEP = 1 / 32768
"""One step of 16-bit PCM on the scale [−1, 1]."""

SAMPLE_RATE = 16_000
"""Hz, of all audio in the benchmark, because wideband PESQ and the speech recognisers need it."""

PCM_LOWEST, PCM_HIGHEST = -32768, 32767

Samples = npt.NDArray[np.float32]

Pcm = npt.NDArray[np.int16]


def to_pcm(waveform: Samples) -> Pcm:
    """Round a waveform on [−1, 1] to the nearest 16-bit steps; +1.0 becomes 32767."""
    pcm: Pcm = np.clip(np.rint(waveform / PCM_STEP), PCM_LOWEST, PCM_HIGHEST).astype(np.int16)
    return pcm


def from_pcm(pcm: Pcm) -> Samples:
    """Return 16-bit samples as float32 on [−1, 1)."""
    return pcm.astype(np.float32) * np.float32(PCM_STEP)
