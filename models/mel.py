"""What mel front ends share: from sound to normalised mel bands of a fixed number of frames, and back.

The sound is prepared (`MelFrontEnd._hear`), its centred short-time spectrum is summed into mel bands, the bands' level
is normalised per band (z-score), and a fixed number of frames is picked (`MelFrontEnd._pick`). The short-time spectrum
is padded with zeros, so that a clip alone and a clip padded to the length of a longer neighbour give the same
features. Every step is differentiated exactly; only positions (where silence ends, where the maximum is) are
constants. Samples after a clip's length are ignored and get no gradient.
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
"""Bound on the gain of re-synthesis, ±40 dB in nepers: an unbounded feature attack must not make infinite sound."""

SMALLEST_STD = NEPERS_PER_DB
"""Lower bound on a band's standard deviation, 1 dB in nepers: else a band that is constant in training explodes."""


@dataclass(frozen=True)
class Sound:
    """What a front end listens to: ``samples`` (B, T), zero after ``lengths`` (B,), taken from ``starts`` (B,) on."""

    samples: Tensor
    lengths: Tensor
    starts: Tensor


@dataclass(frozen=True)
class Pick:
    """Which frames the classifier sees: ``index`` (B, frames) into the clip's own, ``valid`` where there is one."""

    index: Tensor
    valid: Tensor


class MelFrontEnd(FrontEnd):
    """Normalised level of mel bands.

    The sources of both front ends name no mel scale; it is Slaney's with area normalisation, the default of librosa.

    Attributes:
        rate, n_fft, hop: sampling rate in Hz, and length and distance of frames in samples at that rate.
        centres: frequency at which each band's filter peaks (bands,), Hz.

    Args:
        frames: frames that the classifier sees.
        rate: sampling rate, Hz.
        window: analysis window (n_fft,).
        hop: samples from frame to frame.
        bands: number of mel bands.
        low: lower edge of the lowest band, Hz.
        high: upper edge of the highest band, Hz.
    """

    resynthesises: ClassVar[bool] = True
    kept: ClassVar[bool] = True

    nepers: ClassVar[float]
    """Amplitude change in nepers that one unit of the level stands for."""

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
    def _hear(self, waveform: Tensor, lengths: Tensor) -> Sound:
        """Prepare waveforms (B, T) at 16 kHz."""

    @abstractmethod
    def _level(self, spectrum: Tensor, counts: Tensor) -> Tensor:
        """Return the level (B, bands, N) of complex spectra (B, bins, N), of which ``counts`` (B,) frames are real."""

    @abstractmethod
    def _pick(self, counts: Tensor, *, random: bool) -> Pick:
        """Choose `frames` frames of clips that have ``counts`` (B,); ``random`` is true in training."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return features (B, bands, frames) in standard deviations of ``waveform`` (B, T) on [−1, 1]."""
        return self._features(waveform, lengths, random=self.training)

    def analyse(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return of each clip the level of all its frames (bands, N)."""
        level, counts = self._levels(waveform, lengths)
        return [clip[:, :count].clone() for clip, count in zip(level, counts.tolist(), strict=True)]

    def assemble(self, analyses: Sequence[Tensor]) -> Tensor:
        """Return features (B, bands, frames) of analysed clips, in standard deviations."""
        counts = torch.tensor([level.shape[1] for level in analyses], device=analyses[0].device)
        pick = self._pick(counts, random=self.training)
        # Picked before they are stacked: padded to the longest, they would take as much memory as it does, each.
        level = torch.stack([level[:, index] for level, index in zip(analyses, pick.index, strict=True)])
        return ((level - self.mean) / self.std) * pick.valid[:, None]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set mean and standard deviation of each band over all frames of (waveform, lengths) training batches.

        Frames that a clip does not have are left out; frames that are cut away later or repeated count once. A
        standard deviation is at least 1 dB.

        Raises:
            InputError: if there is no batch.
        """
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for waveform, lengths in batches:
            sound = self._hear(waveform, lengths)
            counts = self._count(sound.lengths)
            level = self._level(self._spectrum(sound.samples), counts).double()
            level = level * sound_mask(counts, level.shape[2])[:, None]
            count += int(counts.sum())
            total += level.sum((0, 2))[:, None]
            squares += level.square().sum((0, 2))[:, None]
        if not count:
            raise InputError("training clips of the front end: got 0, needed: at least 1")
        mean = total / count
        smallest = SMALLEST_STD / self.nepers
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(smallest))

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, 1, frames), true where a frame stems from sound."""
        counts = self._count(self._hear(waveform, lengths).lengths)
        return self._pick(counts, random=False).valid[:, None]

    def positions(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the sample at 16 kHz (B, frames) that each frame of the features is centred on, in evaluation mode.

        Copies of one frame have one position; that of a frame without sound (see `mask`) means nothing.
        """
        sound = self._hear(waveform, lengths)
        index = self._pick(self._count(sound.lengths), random=False).index
        return (sound.starts[:, None] + index * self.hop) * SAMPLE_RATE // self.rate

    def resynthesise(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> Tensor:
        """Return sound (B, T) whose features are near ``features``, with the phase of ``waveform``.

        The asked-for change of level becomes a gain per bin and frame (interpolated between the mel bands' centres,
        at most ±40 dB); the spectrum's change under that gain is turned into sound and added to ``waveform``. Frames
        that the classifier does not see stay as they are, and so does the whole clip if nothing is asked for. Where
        one frame was repeated, the mean of what is asked of its copies applies. Overlapping frames with different
        gains contradict each other, so the features of the result differ from what was asked: the conversion loss.
        On clips of EmoDB at 0.06 standard deviations of `LogMel`, what was asked and what is extracted again correlate
        at .97 for a smooth change, .58 for random signs, and .38 if copies of a frame have signs of their own. The
        pseudo-inverse of the mel bank in place of the interpolation correlates less (.97, .52, .33) and is louder.
        """
        change = features - self._features(waveform, lengths, random=False)
        sound = self._hear(waveform, lengths)
        counts = self._count(sound.lengths)
        # Room for every frame that touches a clip's end, so that the overlap-add does not depend on the padding.
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
        """Return ``difference`` (B, T′), which begins at ``starts``, as (B, ``samples``) at 16 kHz."""
        return pad(difference, (0, samples - difference.shape[1]))

    def _features(self, waveform: Tensor, lengths: Tensor, *, random: bool) -> Tensor:
        level, counts = self._levels(waveform, lengths)
        return self._normalised(level, self._pick(counts, random=random))

    def _levels(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level (B, bands, N) of all frames, and how many are each clip's own (B,)."""
        # Mixed precision is for the classifier: a mel bank in bfloat16 would round the level to 0.4 %.
        with torch.autocast(waveform.device.type, enabled=False):
            sound = self._hear(waveform, lengths)
            counts = self._count(sound.lengths)
            return self._level(self._spectrum(sound.samples), counts), counts

    def _normalised(self, level: Tensor, pick: Pick) -> Tensor:
        index = pick.index[:, None].expand(-1, level.shape[1], -1)
        return ((level.gather(2, index) - self.mean) / self.std) * pick.valid[:, None]

    def _count(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of ``lengths`` samples have (B,)."""
        return 1 + (lengths + 2 * (self.n_fft // 2) - self.n_fft) // self.hop

    def _spectrum(self, samples: Tensor) -> Tensor:
        return short_time_spectrum(samples, self.window, self.hop)

    def _unpick(self, change: Tensor, counts: Tensor, frames: int) -> Tensor:
        """Return the change of level (B, bands, ``frames``) of a clip's own frames from that of the picked ones."""
        pick = self._pick(counts, random=False)
        index = pick.index[:, None].expand_as(change)
        valid = pick.valid[:, None].to(change).expand_as(change)
        own = change.new_zeros(*change.shape[:2], frames)
        hits = own.scatter_add(2, index, valid).clamp_min(1)
        mean = own.scatter_add(2, index, change * valid) / hits * self.std
        # What is left of a clip after its last frame's centre falls under later frames: they do as the last one.
        last = torch.minimum(torch.arange(frames, device=counts.device), counts[:, None] - 1)
        return mean.gather(2, last[:, None].expand_as(mean))

    def _gain(self, change: Tensor) -> Tensor:
        """Return the gain (B, bins, N) in nepers for a change of level (B, bands, N)."""
        share = self.bank / self.bank.sum(0).clamp_min(torch.finfo(self.bank.dtype).tiny)
        return (share.T @ (change * self.nepers)).clamp(-MOST_GAIN, MOST_GAIN)


def mel_bank(rate: int, n_fft: int, bands: int, low: float, high: float) -> Tensor:
    """Return triangular filters (bands, n_fft // 2 + 1) on Slaney's mel scale, each of unit area over Hz."""
    # torchaudio spreads the bins from 0 to rate / 2, but with an odd n_fft the last bin lies below that.
    highest = rate * (n_fft // 2) / n_fft
    return functional.melscale_fbanks(  # type: ignore[no-any-return]
        n_fft // 2 + 1, low, high, bands, round(2 * highest), norm="slaney", mel_scale="slaney"
    ).T.contiguous()


def band_centres(bands: int, low: float, high: float) -> Tensor:
    """Return the frequencies (bands,) in Hz at which the filters of `mel_bank` peak: evenly spaced in mel.

    Slaney's scale is linear, 200 / 3 Hz a mel, up to 1000 Hz, and logarithmic above, a factor of 6.4 in 27 mel.
    """
    edges = torch.tensor([low, high], dtype=torch.float64)
    first, last = torch.where(edges < 1000, edges * 3 / 200, 15 + 27 * (edges / 1000).log() / math.log(6.4)).tolist()
    mel = torch.linspace(first, last, bands + 2, dtype=torch.float64)[1:-1]
    return torch.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27)).float()
