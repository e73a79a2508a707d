"""The front ends of the models: Ren et al. 2020 (`LogMel`) and Wijayasingha 2019 (`DecibelMel`)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.audio.torchaudio import transforms
from advser.models.mel import NEPERS_PER_DB, MelFrontEnd, Pick, Sound
from advser.models.spectrum import magnitude
from advser.plugins.parameters import parameter

FrameCount = Annotated[int, parameter(about="length of the input", unit="frames of 16 ms")]
"""Type of a model's parameter ``frames``, the length of its input."""


def resampler(source: int, target: int) -> nn.Module:
    """Return a module that resamples (B, T) from ``source`` to ``target`` Hz and adds nothing to checkpoints."""
    module = transforms.Resample(source, target)
    module.register_buffer("kernel", module.kernel, persistent=False)
    return module  # type: ignore[no-any-return]


class LogMel(MelFrontEnd):
    """Logarithmic mel magnitudes: 16 kHz, Hamming window of 512, hop 256, 64 bands from 20 to 8000 Hz.

    The level is ln(magnitude + 1e-8), normalised per band. Frames of a short clip are repeated; a long clip is cut
    after its first ``frames``. Source: Ren et al., ICASSP 2020, sec. 3.

    Args:
        frames: number of frames of 16 ms; 373 in the source (about 6 s).
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
        """Return (B, 1, frames), all true: repeated frames represent sound too."""
        return waveform.new_ones(len(lengths), 1, self.frames, dtype=torch.bool)

    def _features(self, waveform: Tensor, lengths: Tensor, *, random: bool) -> Tensor:
        end = (self.frames - 1) * self.hop + self.n_fft // 2
        return super()._features(waveform[:, :end], lengths.clamp_max(end), random=random)

    def _prepare(self, waveform: Tensor, lengths: Tensor) -> Sound:
        sound = waveform * sound_mask(lengths, waveform.shape[1])
        return Sound(sound, lengths, torch.zeros_like(lengths))

    def _level(self, spectrum: Tensor, counts: Tensor) -> Tensor:
        return (self.bank @ magnitude(spectrum, 1) + self.floor).log()

    def _pick(self, counts: Tensor, *, random: bool) -> Pick:
        index = torch.arange(self.frames, device=counts.device) % counts[:, None]
        return Pick(index, torch.ones_like(index, dtype=torch.bool))


class DecibelMel(MelFrontEnd):
    """Mel power in dB below the utterance's maximum: 22.05 kHz, Hann window of 551, hop 220, 40 bands to 11 025 Hz.

    Silence at both ends, 60 dB below the loudest frame, is trimmed. The level has a floor 80 dB below the maximum and
    is normalised per band. Clips shorter than 200 frames (2 s) are padded with the mean. Longer clips are cropped to
    their middle, in training at random (from torch's global generator). Source: Wijayasingha, Hiding emotions in plain
    sight, 2019.
    """

    varies_in_training: ClassVar[bool] = True
    nepers: ClassVar[float] = NEPERS_PER_DB

    silence: ClassVar[float] = 1e-6
    """Power of silence relative to the loudest frame: −60 dB."""

    faintest: ClassVar[float] = 1e-10
    """Lower bound of the power of frames, for the trimming, and of mel bands."""

    depth: ClassVar[float] = 80.0
    """Distance of the floor from the maximum, dB."""

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

    def _prepare(self, waveform: Tensor, lengths: Tensor) -> Sound:
        sound = self.up(waveform * sound_mask(lengths, waveform.shape[1]))
        lengths = -(-lengths * self.rate // SAMPLE_RATE)
        sound = sound * sound_mask(lengths, sound.shape[1])
        starts, ends = self._bounds(sound.detach(), lengths)
        sizes = ends - starts
        positions = starts[:, None] + torch.arange(int(sizes.max()), device=sound.device)
        trimmed = sound.gather(1, positions.clamp_max(sound.shape[1] - 1))
        return Sound(trimmed * sound_mask(sizes, trimmed.shape[1]), sizes, starts)

    def _bounds(self, sound: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end (B,), in samples, of the frames within 60 dB of the loudest frame.

        Frames are 2048 samples long and centred on every 512th sample.
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
        power = self.bank @ magnitude(spectrum, 2)
        level = 10 * power.clamp_min(self.faintest).log10()
        inside = sound_mask(counts, level.shape[2])[:, None]
        highest = torch.where(inside, level, -torch.inf).amax((1, 2), keepdim=True)
        return (level - highest).clamp_min(-self.depth)

    def _pick(self, counts: Tensor, *, random: bool) -> Pick:
        spare = (counts - self.frames).clamp_min(0)
        # float64, because in float32 a draw just below 1 could be rounded to the next frame.
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
