"""The front end of models whose input is the sound itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import torch
from torch import Tensor

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.models.base import FrontEnd
from advser.plugins.parameters import parameter

Scale = Annotated[
    Literal["standard", "unit"],
    parameter(about="scale of the sound: standard deviations of the training data, or [0, 1] by (x + 1) / 2"),
]

Seconds = Annotated[
    float,
    parameter(
        ge=0.04,
        about="longest input; longer clips are cut at the end; rounded to 40 ms",
        unit="s",
    ),
]

STEP: Final = SAMPLE_RATE // 25
"""Step of input lengths in samples: 40 ms."""


class RawSound(FrontEnd):
    """The first ``seconds`` of the sound (B, 1, T), rescaled, and ``silence`` after each clip's end.

    Sound is assumed to have mean 0, so that silence is 0 in standard deviations, and 0.5 on the scale [0, 1].

    Args:
        seconds: the longest output, rounded to 40 ms.
        scale: ``standard`` divides by the training data's standard deviation; ``unit`` returns (x + 1) / 2.
    """

    std: Tensor

    def __init__(self, seconds: float, scale: Scale = "standard") -> None:
        super().__init__()
        self.samples = round(seconds * SAMPLE_RATE / STEP) * STEP
        self.scale = scale
        self.silence = 0.5 if scale == "unit" else 0.0
        self.register_buffer("std", torch.ones(()))

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the rescaled sound (B, 1, T) of ``waveform`` (B, T), with at most ``samples`` samples."""
        sound = waveform[:, : self.samples]
        sound = (sound * sound_mask(lengths, sound.shape[1]))[:, None]
        return (sound + 1) / 2 if self.scale == "unit" else sound / self.std

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute the standard deviation over all samples of all clips; if all are silent, it stays 1."""
        energy, samples = 0.0, 0
        for waveform, lengths in batches:
            sound = waveform * sound_mask(lengths, waveform.shape[1])
            energy += float(sound.double().square().sum())
            samples += int(lengths.sum())
        if energy > 0:
            self.std.fill_((energy / samples) ** 0.5)

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, 1, T): true before each clip's end."""
        return sound_mask(lengths, min(waveform.shape[1], self.samples))[:, None]
