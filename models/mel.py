"""The common part of mel front ends: sound to a fixed number of frames of normalised mel bands, and back.

The sound is prepared (`MelFrontEnd._prepare`), and its centred short-time spectrum is summed into mel bands. The level
is normalised per band (z-score), and a fixed number of frames is selected (`MelFrontEnd._pick`). The short-time
spectrum pads with zeros, so that a clip has the same features alone and padded to the length of a longer clip. Every
step is differentiated exactly; only positions (of silence, of the maximum) are constants. Samples after a clip's end
are ignored and get no gradient.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.audio.torchaudio import functional
from advser.errors import InputError
from advser.models.base import FrontEnd
from advser.models.spectrum import short_time_spectrum

NEPERS_PER_DB = math.log(10) / 20
MOST_GAIN = 40 * NEPERS_PER_DB
"""Bound of the gain in re-synthesis, ±40 dB in nepers: sound stays finite under an unbounded attack on features."""

SMALLEST_STD = NEPERS_PER_DB
"""Lower bound of a band's standard deviation, 1 dB in nepers: a band constant in training would explode without it."""


@dataclass(frozen=True)
class Sound:
    """Prepared sound.

    Attributes:
        samples: (B, T), zero after each clip's end.
        lengths: (B,), in samples.
        starts: (B,), the first sample of the input that ``samples`` contains.
    """

    samples: Tensor
    lengths: Tensor
    starts: Tensor


@dataclass(frozen=True)
class Pick:
    """The frames that a classifier gets.

    Attributes:
        index: (B, frames), indices of the clip's frames.
        valid: (B, frames), false in padding.
    """

    index: Tensor
    valid: Tensor


class MelFrontEnd(FrontEnd):
    """Normalised level of mel bands.

    The mel scale is Slaney's with area normalisation, the default of librosa; the sources of both front ends name none.

    Attributes:
        rate, n_fft, hop: sampling rate in Hz, and length and distance of frames in samples at that rate.
        centres: (bands,), peak frequency of each band's filter, Hz.

    Args:
        frames: number of frames of the features.
        rate: sampling rate, Hz.
        window: analysis window (n_fft,).
        hop: distance of frames, samples.
        bands: number of mel bands.
        low: lower edge of the lowest band, Hz.
        high: upper edge of the highest band, Hz.
    """

    resynthesises: ClassVar[bool] = True
    kept: ClassVar[bool] = True

    nepers: ClassVar[float]
    """Amplitude change in nepers per unit of the level."""

    mean: Tensor
    std: Tensor
    window: Tensor
    bank: Tensor
    centres: Tensor

    def __init__(
        self,
        *,
        frames: int,
        rate: int,
        window: Tensor,
        hop: int,
        bands: int,
        low: float,
        high: float,
    ) -> None:
        super().__init__()
        self.frames, self.rate, self.n_fft, self.hop = frames, rate, len(window), hop
        self.register_buffer("mean", torch.zeros(bands, 1))
        self.register_buffer("std", torch.ones(bands, 1))
        self.register_buffer("window", window, persistent=False)
        bank = mel_bank(rate, self.n_fft, bands, low, high)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("centres", band_centres(bands, low, high), persistent=False)

    @abstractmethod
    def _prepare(self, waveform: Tensor, lengths: Tensor) -> Sound:
        """Return the sound for the spectrum at `rate`, from waveforms (B, T) at 16 kHz."""

    @abstractmethod
    def _level(self, spectrum: Tensor, counts: Tensor) -> Tensor:
        """Return the level (B, bands, N) of complex spectra (B, bins, N); frames after ``counts`` (B,) are padding."""

    @abstractmethod
    def _pick(self, counts: Tensor, *, random: bool) -> Pick:
        """Select the features' frames from clips of ``counts`` (B,) frames; ``random`` is true in training."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return features (B, bands, frames), in standard deviations, of ``waveform`` (B, T) on [−1, 1]."""
        return self._features(waveform, lengths, random=self.training)

    def analyse(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the level (bands, N) of all frames of each clip."""
        level, counts = self._levels(waveform, lengths)
        return [clip[:, :count].clone() for clip, count in zip(level, counts.tolist(), strict=True)]

    def assemble(self, analyses: Sequence[Tensor]) -> Tensor:
        """Return features (B, bands, frames), in standard deviations, of analysed clips."""
        counts = torch.tensor([level.shape[1] for level in analyses], device=analyses[0].device)
        pick = self._pick(counts, random=self.training)
        # Select frames before stacking: padded to the longest clip, each clip would take as much memory as that.
        level = torch.stack([level[:, index] for level, index in zip(analyses, pick.index, strict=True)])
        return ((level - self.mean) / self.std) * pick.valid[:, None]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute mean and standard deviation of each band over all frames of (waveform, lengths) training batches.

        Each frame of a clip counts once, whether features crop or repeat it; padding does not count. A standard
        deviation is at least 1 dB.

        Raises:
            InputError: if there is no batch.
        """
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for waveform, lengths in batches:
            sound = self._prepare(waveform, lengths)
            counts = self._count(sound.lengths)
            level = self._level(self._spectrum(sound.samples), counts).double()
            level = level * sound_mask(counts, level.shape[2])[:, None]
            count += int(counts.sum())
            total += level.sum((0, 2))[:, None]
            squares += level.square().sum((0, 2))[:, None]
        if not count:
            raise InputError("training clips of the front end: got 0, expected at least 1")
        mean = total / count
        smallest = SMALLEST_STD / self.nepers
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(smallest))

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, 1, frames): true where a frame represents sound."""
        counts = self._count(self._prepare(waveform, lengths).lengths)
        return self._pick(counts, random=False).valid[:, None]

    def positions(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the centre (B, frames) of each frame of the features in evaluation mode, in samples at 16 kHz.

        Copies of a frame have equal positions. The position of a frame in padding (see `mask`) is undefined.
        """
        sound = self._prepare(waveform, lengths)
        index = self._pick(self._count(sound.lengths), random=False).index
        return (sound.starts[:, None] + index * self.hop) * SAMPLE_RATE // self.rate

    def resynthesise(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> Tensor:
        """Return sound (B, T) whose features are near ``features``, with the phase of ``waveform``.

        The requested change of level becomes a gain per bin and frame, interpolated between the centres of the mel
        bands, at most ±40 dB. The change of the spectrum under that gain is inverted to sound and added to
        ``waveform``. Frames outside the features do not change; without a requested change, nothing does. A repeated
        frame gets the mean change of its copies.

        Overlapping frames with different gains conflict, so that the result's features differ from ``features``: the
        conversion loss. For clips of EmoDB and 0.06 standard deviations of `LogMel`, requested and resulting change
        correlate at .97 if smooth, at .58 for random signs, and at .38 if each copy of a frame has its own signs. The
        pseudo-inverse of the mel bank correlates less than the interpolation (.97, .52, .33) and is louder.
        """
        change = features - self._features(waveform, lengths, random=False)
        sound = self._prepare(waveform, lengths)
        counts = self._count(sound.lengths)
        # Include every frame that overlaps a clip's end, so that the overlap-add does not depend on the padding.
        spectrum = self._spectrum(pad(sound.samples, (0, self.n_fft)))
        gain = self._gain(self._unpick(change, counts, spectrum.shape[2]))
        difference = torch.istft(
            spectrum * torch.expm1(gain),
            self.n_fft,
            self.hop,
            window=self.window,
            length=sound.samples.shape[1],
        )
        difference = difference * sound_mask(sound.lengths, difference.shape[1])
        added = self._place(difference, sound.starts, waveform.shape[1])
        return (waveform + added) * sound_mask(lengths, waveform.shape[1])

    def _place(self, difference: Tensor, starts: Tensor, samples: int) -> Tensor:
        """Return ``difference`` (B, T′), which begins at ``starts`` (B,), as (B, ``samples``) at 16 kHz."""
        return pad(difference, (0, samples - difference.shape[1]))

    def _features(self, waveform: Tensor, lengths: Tensor, *, random: bool) -> Tensor:
        level, counts = self._levels(waveform, lengths)
        return self._normalised(level, self._pick(counts, random=random))

    def _levels(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level (B, bands, N) of all frames, and the number (B,) of each clip's frames."""
        # Mixed precision is for the classifier: bfloat16 would round the level to 0.4 %.
        with torch.autocast(waveform.device.type, enabled=False):
            sound = self._prepare(waveform, lengths)
            counts = self._count(sound.lengths)
            return self._level(self._spectrum(sound.samples), counts), counts

    def _normalised(self, level: Tensor, pick: Pick) -> Tensor:
        index = pick.index[:, None].expand(-1, level.shape[1], -1)
        return ((level.gather(2, index) - self.mean) / self.std) * pick.valid[:, None]

    def _count(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) of clips with ``lengths`` (B,) samples."""
        return 1 + (lengths + 2 * (self.n_fft // 2) - self.n_fft) // self.hop

    def _spectrum(self, samples: Tensor) -> Tensor:
        return short_time_spectrum(samples, self.window, self.hop)

    def _unpick(self, change: Tensor, counts: Tensor, frames: int) -> Tensor:
        """Return the change of level (B, bands, ``frames``) of a clip's frames from that of the features' frames."""
        pick = self._pick(counts, random=False)
        index = pick.index[:, None].expand_as(change)
        valid = pick.valid[:, None].to(change).expand_as(change)
        own = change.new_zeros(*change.shape[:2], frames)
        hits = own.scatter_add(2, index, valid).clamp_min(1)
        mean = own.scatter_add(2, index, change * valid) / hits * self.std
        # Later frames overlap the rest of a clip after the centre of its last frame: they get the last frame's change.
        last = torch.minimum(torch.arange(frames, device=counts.device), counts[:, None] - 1)
        return mean.gather(2, last[:, None].expand_as(mean))

    def _gain(self, change: Tensor) -> Tensor:
        """Return the gain (B, bins, N) in nepers for a change of level (B, bands, N)."""
        share = self.bank / self.bank.sum(0).clamp_min(torch.finfo(self.bank.dtype).tiny)
        return (share.T @ (change * self.nepers)).clamp(-MOST_GAIN, MOST_GAIN)


def mel_bank(rate: int, n_fft: int, bands: int, low: float, high: float) -> Tensor:
    """Return triangular filters (bands, n_fft // 2 + 1) on Slaney's mel scale, each with unit area over Hz."""
    # torchaudio assumes bins from 0 to rate / 2, but the last bin of an odd n_fft is below rate / 2.
    highest = rate * (n_fft // 2) / n_fft
    return functional.melscale_fbanks(  # type: ignore[no-any-return]
        n_fft // 2 + 1, low, high, bands, round(2 * highest), norm="slaney", mel_scale="slaney"
    ).T.contiguous()


def band_centres(bands: int, low: float, high: float) -> Tensor:
    """Return the peak frequencies (bands,) in Hz of the filters of `mel_bank`, evenly spaced in mel.

    Slaney's scale is linear up to 1000 Hz (200 / 3 Hz per mel), and logarithmic above (a factor of 6.4 per 27 mel).
    """
    edges = torch.tensor([low, high], dtype=torch.float64)
    first, last = torch.where(edges < 1000, edges * 3 / 200, 15 + 27 * (edges / 1000).log() / math.log(6.4)).tolist()
    mel = torch.linspace(first, last, bands + 2, dtype=torch.float64)[1:-1]
    return torch.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27)).float()
