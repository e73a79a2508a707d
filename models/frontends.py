"""Front ends: from sound to the normalised mel spectrogram that a classifier sees, and back.

Both front ends work in four steps: the sound is prepared (`_hear`), its centred short-time spectrum is summed into
mel bands, the bands' level is normalised per band (z-score), and a fixed number of frames is picked (`_pick`). The
short-time spectrum is padded with zeros, so that a clip alone and a clip padded to the length of a longer neighbour
give the same features. Every step is differentiated exactly; only positions (where silence ends, where the maximum
is) are constants. Samples after a clip's length are ignored and get no gradient.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from advser.audio import SAMPLE_RATE, sound_mask
from advser.errors import InputError
from advser.models.base import FrontEnd
from advser.torchaudio import functional, transforms

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

    The mel bank is the one that is usual in speech research software: Slaney's mel scale and area normalisation.

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

    nepers: ClassVar[float]
    """Amplitude change in nepers that one unit of the level stands for."""

    mean: Tensor
    std: Tensor
    window: Tensor
    bank: Tensor

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
            raise InputError("training clips of the front end: found 0, needed: at least 1")
        mean = total / count
        smallest = SMALLEST_STD / self.nepers
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(smallest))

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, 1, frames), true where a frame stems from sound."""
        counts = self._count(self._hear(waveform, lengths).lengths)
        return self._pick(counts, random=False).valid[:, None]

    def resynthesise(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> Tensor:
        """Return sound (B, T) whose features are near ``features``, with the phase of ``waveform``.

        The asked-for change of level becomes a gain per bin and frame (interpolated between the mel bands' centres,
        at most ±40 dB); the spectrum's change under that gain is turned into sound and added to ``waveform``. Frames
        that the classifier does not see stay as they are, and so does the whole clip if nothing is asked for. Where
        one frame was repeated, the mean of what is asked of its copies applies. Overlapping frames with different
        gains contradict each other, so the features of the result differ from what was asked: the conversion loss.
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
        # Mixed precision is for the classifier: a mel bank in bfloat16 would round the level to 0.4 %.
        with torch.autocast(waveform.device.type, enabled=False):
            sound = self._hear(waveform, lengths)
            counts = self._count(sound.lengths)
            level = self._level(self._spectrum(sound.samples), counts)
        pick = self._pick(counts, random=random)
        index = pick.index[:, None].expand(-1, level.shape[1], -1)
        return ((level.gather(2, index) - self.mean) / self.std) * pick.valid[:, None]

    def _count(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of ``lengths`` samples have (B,)."""
        return 1 + (lengths + 2 * (self.n_fft // 2) - self.n_fft) // self.hop

    def _spectrum(self, samples: Tensor) -> Tensor:
        return torch.stft(samples, self.n_fft, self.hop, window=self.window, pad_mode="constant", return_complex=True)

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


def resampler(source: int, target: int) -> nn.Module:
    """Return a module that resamples (B, T) from ``source`` to ``target`` Hz and stores nothing in checkpoints."""
    module = transforms.Resample(source, target)
    module.register_buffer("kernel", module.kernel, persistent=False)
    return module  # type: ignore[no-any-return]


class LogMel(MelFrontEnd):
    """Logarithmic mel magnitudes: 16 kHz, Hamming window of 512, hop 256, 64 bands from 20 to 8000 Hz.

    Level = ln(magnitude + 1e-8), normalised per band. Short clips are repeated frame by frame, of long ones the
    beginning is taken. Source: Ren et al., ICASSP 2020, sec. 3.

    Args:
        frames: frames of 16 ms; 373 in the source (about 6 s).
    """

    nepers: ClassVar[float] = 1.0
    floor: ClassVar[float] = 1e-8

    def __init__(self, frames: int = 373) -> None:
        super().__init__(
            frames=frames,
            rate=SAMPLE_RATE,
            window=torch.hamming_window(512),
            hop=256,
            bands=64,
            low=20.0,
            high=8000.0,
        )

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, 1, frames), all true: repeated frames stem from sound too."""
        return waveform.new_ones(len(lengths), 1, self.frames, dtype=torch.bool)

    def _features(self, waveform: Tensor, lengths: Tensor, *, random: bool) -> Tensor:
        seen = (self.frames - 1) * self.hop + self.n_fft // 2
        return super()._features(waveform[:, :seen], lengths.clamp_max(seen), random=random)

    def _hear(self, waveform: Tensor, lengths: Tensor) -> Sound:
        sound = waveform * sound_mask(lengths, waveform.shape[1])
        return Sound(sound, lengths, torch.zeros_like(lengths))

    def _level(self, spectrum: Tensor, counts: Tensor) -> Tensor:
        return (self.bank @ spectrum.abs() + self.floor).log()

    def _pick(self, counts: Tensor, *, random: bool) -> Pick:
        index = torch.arange(self.frames, device=counts.device) % counts[:, None]
        return Pick(index, torch.ones_like(index, dtype=torch.bool))


class DecibelMel(MelFrontEnd):
    """Mel power in dB below the utterance's maximum: 22.05 kHz, Hann window of 551, hop 220, 40 bands to 11 025 Hz.

    Silence at both ends, 60 dB below the loudest frame, is cut off; the level has a floor 80 dB below the maximum
    and is normalised per band. Clips shorter than 200 frames (2 s) are filled up with the mean, of longer ones the
    middle is taken, in training a part at random (from torch's global generator). Source: Wijayasingha, Hiding
    emotions in plain sight, 2019.
    """

    varies_in_training: ClassVar[bool] = True
    nepers: ClassVar[float] = NEPERS_PER_DB

    silence: ClassVar[float] = 1e-6
    """Power below the loudest frame's at which sound is silence: 60 dB."""

    faintest: ClassVar[float] = 1e-10
    """Smallest power told apart from 0, for frames of the trimming and for mel bands."""

    depth: ClassVar[float] = 80.0
    """The floor's distance from the maximum, dB."""

    def __init__(self) -> None:
        super().__init__(
            frames=200,
            rate=22_050,
            window=torch.hann_window(551),
            hop=220,
            bands=40,
            low=0.0,
            high=11_025.0,
        )
        self.up = resampler(SAMPLE_RATE, self.rate)
        self.down = resampler(self.rate, SAMPLE_RATE)

    def _hear(self, waveform: Tensor, lengths: Tensor) -> Sound:
        sound = self.up(waveform * sound_mask(lengths, waveform.shape[1]))
        lengths = -(-lengths * self.rate // SAMPLE_RATE)
        sound = sound * sound_mask(lengths, sound.shape[1])
        starts, ends = self._ends_of_silence(sound.detach(), lengths)
        kept = ends - starts
        positions = starts[:, None] + torch.arange(int(kept.max()), device=sound.device)
        trimmed = sound.gather(1, positions.clamp_max(sound.shape[1] - 1))
        return Sound(trimmed * sound_mask(kept, trimmed.shape[1]), kept, starts)

    def _ends_of_silence(self, sound: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first sample and the one after the last (B,) of frames within 60 dB of the loudest frame.

        Frames are 2048 samples long, centred, one every 512.
        """
        step, around = 512, 2
        blocks = pad(sound, (around * step, (around + 1) * step)).unfold(1, step, step).square().sum(2)
        power = blocks.unfold(1, 2 * around, 1).sum(2) / (2 * around * step)
        counts = 1 + lengths // step
        inside = sound_mask(counts, power.shape[1])
        power = power.clamp_min(self.faintest) * inside
        loud = power > self.silence * power.amax(1, keepdim=True)
        order = torch.arange(power.shape[1], device=sound.device)
        first = torch.where(loud, order, power.shape[1]).amin(1)
        last = torch.where(loud, order, -1).amax(1)
        return first * step, torch.minimum((last + 1) * step, lengths)

    def _level(self, spectrum: Tensor, counts: Tensor) -> Tensor:
        power = self.bank @ torch.view_as_real(spectrum).square().sum(3)
        level = 10 * power.clamp_min(self.faintest).log10()
        inside = sound_mask(counts, level.shape[2])[:, None]
        highest = torch.where(inside, level, -torch.inf).amax((1, 2), keepdim=True)
        return (level - highest).clamp_min(-self.depth)

    def _pick(self, counts: Tensor, *, random: bool) -> Pick:
        spare = (counts - self.frames).clamp_min(0)
        # float64: in float32 a draw just below 1 could round up to the next frame.
        draw = torch.rand(len(counts), dtype=torch.float64).to(counts.device) if random else None
        first = spare // 2 if draw is None else (draw * (spare + 1)).long()
        index = first[:, None] + torch.arange(self.frames, device=counts.device)
        return Pick(torch.minimum(index, counts[:, None] - 1), index < counts[:, None])

    def _place(self, difference: Tensor, starts: Tensor, samples: int) -> Tensor:
        positions = starts[:, None] + torch.arange(difference.shape[1], device=starts.device)
        room = int(positions.max()) + 1
        whole = difference.new_zeros(len(difference), room).scatter(1, positions, difference)
        at_16_khz: Tensor = self.down(whole)
        return pad(at_16_khz, (0, samples - at_16_khz.shape[1]))
