"""Sound: reading, resampling, 16-bit PCM, and batches of clips of unequal length.

Everywhere else a waveform is float32 on [−1, 1], mono, and lies on the 16-bit grid; a batch is (B, T) with zeros
after each clip's length.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from advser.errors import InputError
from advser.store.tensors import StoredTensor
from advser.threat.budget import Budget, admit
from advser.threat.model import PCM_STEP, Domain

SAMPLE_RATE = 16_000
"""Hz. Wideband PESQ and the speech recognisers need 16 kHz, so the whole benchmark works at it."""

MOST_SOUND = 3600 * SAMPLE_RATE
"""Samples of a batch of several clips with its padding, an hour: 31 clips of seconds padded to an hour were 7 GB."""

PCM_LOWEST, PCM_HIGHEST = -32768, 32767

Samples = npt.NDArray[np.float32]
Pcm = npt.NDArray[np.int16]


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


def to_pcm(waveform: Samples) -> Pcm:
    """Round [−1, 1] to 16-bit samples, to the nearest step; +1.0 becomes 32767."""
    pcm: Pcm = np.clip(np.rint(waveform / PCM_STEP), PCM_LOWEST, PCM_HIGHEST).astype(np.int16)
    return pcm


def from_pcm(pcm: Pcm) -> Samples:
    """Return 16-bit samples as float32 on [−1, 1)."""
    return pcm.astype(np.float32) * np.float32(PCM_STEP)


def round_within(perturbed: Tensor, original: Tensor, budget: Budget | None) -> Tensor:
    """Round to the 16-bit grid, within a budget around ``original``, which lies on the grid already; both (B, T).

    Rounding to the nearest step alone could leave an L∞ budget by half a step, and one in L2 by half a step a sample.
    """
    wanted = (perturbed - original) / PCM_STEP
    steps = torch.round(wanted)
    if budget is not None and budget.norm == "linf":
        bound = np.floor(budget.epsilon / PCM_STEP + 1e-6)
        steps = steps.clamp(-bound, bound)
    elif budget is not None:
        steps = _shortened(steps, wanted, budget.bound(original).double() / PCM_STEP)
    return (original + steps * PCM_STEP).clamp(PCM_LOWEST * PCM_STEP, PCM_HIGHEST * PCM_STEP)


def _shortened(steps: Tensor, wanted: Tensor, bound: Tensor) -> Tensor:
    """Return whole steps (B, T), in clips whose L2 norm is above ``bound`` (B,) with some of them rounded towards 0.

    Rounded up stay those that were wanted most, by their remainder, as long as the norm is within the bound.
    """
    whole = wanted.double().trunc()
    up = steps.double() - whole
    order = (wanted - whole).abs().argsort(dim=1, descending=True, stable=True)
    # |w| + 1 in place of |w| adds 2 |w| + 1 to the squared norm.
    added = torch.where(up != 0, 2 * whole.abs() + 1, 0.0)
    squared = whole.square().sum(1, keepdim=True) + added.gather(1, order).cumsum(1)
    fits = torch.zeros_like(up, dtype=torch.bool).scatter(1, order, squared <= bound[:, None].square() * (1 + 1e-9))
    return (whole + torch.where(fits, up, 0.0)).to(steps)


def admissible(perturbed: Tensor, x: Tensor, mask: Tensor | None, domain: Domain, budget: Budget | None) -> Tensor:
    """Return what is judged of a perturbation: what `admit` admits, and of sound what 16-bit PCM leaves.

    The arguments are those of `advser.threat.budget.admit`; waveforms ``x`` lie on the 16-bit grid.
    """
    admitted = admit(perturbed, x, mask, domain, budget)
    if domain == "spectrogram":
        return admitted
    return round_within(admitted, x, budget)


@dataclass(frozen=True, eq=False)
class Clips:
    """16-bit mono clips at 16 kHz. Where they lie and their lengths are in memory; samples are read when asked for.

    Attributes:
        samples: the samples of all clips, and maybe of others, in a row: in memory, or in a file.
        starts: of each clip, the place of its first sample among them (N,).
        lengths: of each clip, in samples (N,).
    """

    samples: Pcm | StoredTensor
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def in_a_row(cls, samples: Pcm | StoredTensor, lengths: npt.NDArray[np.int64]) -> Clips:
        """Return clips of ``lengths`` that follow one another without a gap."""
        return cls(samples, np.cumsum(lengths) - lengths, lengths)

    @classmethod
    def pack(cls, clips: Iterable[Pcm]) -> Clips:
        """Pack clips (each (T,) int16) in memory."""
        held = list(clips)
        samples = np.concatenate(held) if held else np.zeros(0, np.int16)
        return cls.in_a_row(samples, np.array([len(clip) for clip in held], np.int64))

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
        """Return the samples of all clips in a row."""
        return np.concatenate([*self, np.zeros(0, np.int16)])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return waveforms (B, T) float32, zero after each clip's end, and lengths (B,) in samples."""
        lengths = torch.from_numpy(self.lengths[list(indices)])
        waveform = _silence(len(indices), int(lengths.max()))
        for row, clip in enumerate(self.read(indices)):
            waveform[row, : len(clip)] = torch.from_numpy(from_pcm(clip))
        return waveform, lengths


def _silence(clips: int, samples: int) -> Tensor:
    """Return zeros (B, T); of many, those that are never written to take no memory, whatever the allocator keeps."""
    if clips * samples <= MOST_SOUND:
        return torch.zeros(clips, samples)
    pages = mmap.mmap(-1, 4 * clips * samples, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.float32).view(clips, samples)


def batches_by_length(lengths: npt.NDArray[np.int64], size: int) -> list[list[int]]:
    """Split clip indices into batches of at most ``size`` clips of similar length (little padding).

    A batch of several clips is padded to `MOST_SOUND` at most.
    """
    batches: list[list[int]] = [[]]
    for index in np.argsort(lengths, kind="stable").tolist():
        if len(batches[-1]) == size or (batches[-1] and (len(batches[-1]) + 1) * lengths[index] > MOST_SOUND):
            batches.append([])
        batches[-1].append(index)
    return batches if batches[-1] else []


def sound_mask(lengths: Tensor, samples: int) -> Tensor:
    """Return (B, ``samples``), true before each clip's end."""
    return torch.arange(samples, device=lengths.device) < lengths[:, None]
