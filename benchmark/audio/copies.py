"""Near copies among clips: one recording under two names, also after a change of gain, a shift, or a lossy coder.

It recognises most of these copies, and by design no other take of the same sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import max_pool1d

from advser.audio.pcm import SAMPLE_RATE, Pcm, from_pcm

WINDOW: Final = 1024
HOP: Final = 64
"""Short, since a copy may be shifted by half of it."""
LONGEST: Final = 60 * SAMPLE_RATE
"""Samples of a clip that are compared."""

REACH: Final = (21, 57)
"""Bins and frames around a peak that have no higher one."""

FLOOR: Final = 1e-2
"""Smallest peak relative to the clip's highest: −40 dB."""

FAN: Final = 4
"""Following peaks that each peak is paired with."""

FARTHEST: Final = 256
"""Frames between two paired peaks."""

FEWEST: Final = 12
"""Smallest number of shared landmarks, and of landmarks of a clip that is compared."""

SHARE: Final = 0.3
"""Smallest share of a clip's landmarks that a near copy has at one shift."""

NEIGHBOURS: Final = 24
"""Clips that one landmark is looked up in; a landmark of more clips separates little."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Landmarks:
    """Pairs of spectral peaks (A. Wang: An industrial-strength audio search algorithm, ISMIR 2003).

    Attributes:
        codes: both frequencies and the time between them (N,).
        frames: the time of the first (N,).
    """

    codes: Ints
    frames: Ints

    @classmethod
    def of(cls, clip: Pcm) -> Landmarks:
        """Return the landmarks of a clip (T,) at 16 kHz."""
        sound = torch.from_numpy(from_pcm(clip[:LONGEST]))
        if len(sound) < WINDOW:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        taper = torch.hann_window(WINDOW)
        level = torch.stft(sound, WINDOW, HOP, window=taper, center=False, return_complex=True).abs()
        # One axis after the other is an order of magnitude faster than both at once.
        highest = max_pool1d(level.T, REACH[0], 1, REACH[0] // 2).T
        highest = max_pool1d(highest, REACH[1], 1, REACH[1] // 2)
        peaks = (level == highest) & (level > FLOOR * level.max())
        # In order of time; each is paired with the next.
        frames, bins = (index.numpy() for index in torch.nonzero(peaks.T, as_tuple=True))
        codes, times = [], []
        for step in range(1, FAN + 1):
            apart = frames[step:] - frames[:-step]
            near = apart < FARTHEST
            codes.append(((bins[:-step] << 20) + (bins[step:] << 10) + apart // 4)[near])
            times.append(frames[:-step][near])
        return cls(np.concatenate(codes), np.concatenate(times))


def near_copies(clips: Iterable[Landmarks]) -> list[tuple[int, int]]:
    """Return the pairs of clips, by number, that share `SHARE` of their landmarks at one shift."""
    marks = list(clips)
    numbers = np.repeat(np.arange(len(marks)), [len(mark.codes) for mark in marks])
    codes = np.concatenate([np.zeros(0, np.int64), *(mark.codes for mark in marks)])
    frames = np.concatenate([np.zeros(0, np.int64), *(mark.frames for mark in marks)])
    order = np.argsort(codes, kind="stable")
    shared = list(_shared(codes[order], numbers[order], frames[order]))
    if not shared:
        return []
    matches, counts = np.unique(np.concatenate(shared), axis=0, return_counts=True)
    lengths = np.array([len(mark.codes) for mark in marks])
    shorter = np.minimum(lengths[matches[:, 0]], lengths[matches[:, 1]])
    alike = matches[(counts >= FEWEST) & (counts >= SHARE * shorter)]
    return sorted({(int(first), int(second)) for first, second, _ in alike})


def _shared(codes: Ints, numbers: Ints, frames: Ints) -> Iterator[Ints]:
    """Yield rows (n, 3) of two clips and their shift for each shared landmark; all are sorted by code, then clip."""
    for step in range(1, NEIGHBOURS + 1):
        same = (codes[step:] == codes[:-step]) & (numbers[step:] != numbers[:-step])
        first, second = np.flatnonzero(same), np.flatnonzero(same) + step
        yield np.stack([numbers[first], numbers[second], (frames[second] - frames[first]) // 8], 1)
