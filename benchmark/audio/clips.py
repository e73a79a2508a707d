"""Packed 16-bit clips, and batches of clips of unequal length.

A batch of waveforms is (B, T), mono float32 on [−1, 1] on the 16-bit grid, with zeros after each clip's end.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from advser.audio.pcm import SAMPLE_RATE, Pcm, from_pcm
from advser.store.tensors import StoredTensor

MOST_SOUND = 3600 * SAMPLE_RATE
"""Largest batch of several clips in samples with padding, an hour: 31 short clips padded to an hour took 7 GB."""


@dataclass(frozen=True, eq=False)
class Clips:
    """16-bit mono clips at 16 kHz. Positions and lengths are in memory; samples are read on demand.

    Attributes:
        samples: the concatenated samples of all clips, possibly with others, in memory or in a file.
        starts: index of each clip's first sample (N,).
        lengths: length of each clip in samples (N,).
    """

    samples: Pcm | StoredTensor
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def in_a_row(cls, samples: Pcm | StoredTensor, lengths: npt.NDArray[np.int64]) -> Clips:
        """Return clips of ``lengths`` (N,) that follow one another without a gap."""
        return cls(samples, np.cumsum(lengths) - lengths, lengths)

    @classmethod
    def pack(cls, clips: Iterable[Pcm]) -> Clips:
        """Pack clips (each (T,) int16) in memory."""
        parts = list(clips)
        samples = np.concatenate(parts) if parts else np.zeros(0, np.int16)
        return cls.in_a_row(samples, np.array([len(clip) for clip in parts], np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Pcm:
        return next(self.read([index]))

    def __iter__(self) -> Iterator[Pcm]:
        return self.read(range(len(self)))

    def read(self, indices: Iterable[int]) -> Iterator[Pcm]:
        """Yield the clips (T,) at ``indices``, in that order, one at a time."""
        spans = ((int(self.starts[index]), int(self.starts[index] + self.lengths[index])) for index in indices)
        if isinstance(self.samples, StoredTensor):
            yield from (clip.numpy() for clip in self.samples.read(spans))
        else:
            yield from (self.samples[start:stop] for start, stop in spans)

    def select(self, indices: Sequence[int]) -> Clips:
        """Return the clips at ``indices``, in that order, without a copy of their samples."""
        chosen = list(indices)
        return Clips(self.samples, self.starts[chosen], self.lengths[chosen])

    def packed(self) -> Pcm:
        """Return the concatenated samples of all clips (T,) int16."""
        return np.concatenate([*self, np.zeros(0, np.int16)])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return waveforms (B, T) float32, zero after each clip's end, and lengths (B,) in samples."""
        lengths = torch.from_numpy(self.lengths[list(indices)])
        waveform = _silence(len(indices), int(lengths.max()))
        for row, clip in enumerate(self.read(indices)):
            waveform[row, : len(clip)] = torch.from_numpy(from_pcm(clip))
        return waveform, lengths


def _silence(clips: int, samples: int) -> Tensor:
    """Return zeros (B, T). In a large batch, pages that are never written take no memory."""
    if clips * samples <= MOST_SOUND:
        return torch.zeros(clips, samples)
    pages = mmap.mmap(-1, 4 * clips * samples, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.float32).view(clips, samples)


def batches_by_length(lengths: npt.NDArray[np.int64], size: int) -> list[list[int]]:
    """Split clip indices into batches of at most ``size`` clips of similar length, to save padding.

    A batch of several clips has at most `MOST_SOUND` samples, padding included.
    """
    batches: list[list[int]] = [[]]
    for index in np.argsort(lengths, kind="stable").tolist():
        if len(batches[-1]) == size or (batches[-1] and (len(batches[-1]) + 1) * lengths[index] > MOST_SOUND):
            batches.append([])
        batches[-1].append(index)
    return batches if batches[-1] else []


def sound_mask(lengths: Tensor, samples: int) -> Tensor:
    """Return a mask (B, ``samples``) that is true before each clip's end."""
    return torch.arange(samples, device=lengths.device) < lengths[:, None]
