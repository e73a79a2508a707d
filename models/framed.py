"""The common part of WaveCNN and WaveRNN (Gong & Poellabauer 2017): convolutions on each frame of the raw sound."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, pad

from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel
from advser.models.raw import STEP, RawSound, Scale
from advser.plugins.parameters import parameter

FRAME: Final = STEP
"""Samples per frame, 40 ms; frames do not overlap."""

KERNEL: Final = 40
"""Width of the convolutions."""

LAYERS: Final = 8
"""Number of convolutions on each frame."""

L = TypeVar("L", nn.Conv2d, nn.Linear)

Maps = Annotated[int, parameter(ge=1, about="maps of each convolution")]
Pool = Annotated[
    int,
    parameter(
        ge=1,
        le=FRAME,
        about="width of the average pooling before the convolutions: 1 in the paper, 2 in its public code",
        unit="samples",
    ),
]


def glorot(layer: L) -> L:
    """Return the layer with Glorot uniform weights, as in the public code, and biases 0.

    With PyTorch's initial values 14 convolutions without normalisation do not learn: each layer leaves a sixth of the
    variance.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution [1, 40] that keeps the width, max-pooling by 2 and ReLU: (N, …, 1, T) → (N, …, 1, ⌈T / 2⌉).

    ReLU follows the pooling: the result is the same, at half the work. As in the public code (Keras' padding "same"),
    an odd width is rounded up: the last value is then pooled alone.
    """
    # Two dimensions, because PyTorch has the fast channels-last layout for two only. The padding equals
    # `padding="same"`, which warns of even kernels.
    return nn.Sequential(
        nn.ZeroPad2d(((KERNEL - 1) // 2, KERNEL // 2, 0, 0)),
        glorot(nn.Conv2d(inputs, outputs, (1, KERNEL))),
        nn.MaxPool2d((1, 2), ceil_mode=True),
        nn.ReLU(),
    )


def convolutions(count: int, inputs: int, maps: int) -> nn.Sequential:
    """Return a sequence of ``count`` blocks by `convolution`: (N, inputs, 1, T) → (N, maps, 1, ⌈T / 2^count⌉)."""
    return nn.Sequential(*(convolution(inputs if layer == 0 else maps, maps) for layer in range(count)))


class Framed(EmotionModel):
    """A model of sound in frames of 40 ms; each frame passes through the same eight convolutions.

    Features: `RawSound`. Clips shorter than ``seconds`` are padded with silence, as in the paper.
    """

    spectrogram: ClassVar[bool] = False

    frontend: RawSound

    def __init__(self, seconds: float, maps: int, pool: int, scale: Scale) -> None:
        super().__init__()
        self.frontend = RawSound(seconds, scale)
        self.frames = self.frontend.samples // FRAME
        self.pool = pool
        self.points = -(-FRAME // (pool * 2**LAYERS))
        self.convolutions = convolutions(LAYERS, 1, maps)

    def encode(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return codes (B, frames, maps, points) of features (B, 1, T); by default (B, 150, 32, 3)."""
        missing = self.frames * FRAME - features.shape[2]
        frames = pad(features, (0, missing), value=self.frontend.silence).view(-1, self.frames, FRAME)
        sounding = sound_mask(-(-lengths // FRAME), self.frames)
        # All frames after a clip's end are equal: compute a single frame of silence for them.
        silence = frames.new_full((1, FRAME), self.frontend.silence)
        distinct = torch.cat([silence, frames[sounding]])[:, None]
        codes: Tensor = self.convolutions(avg_pool1d(distinct, self.pool, ceil_mode=True)[:, :, None])
        which = torch.where(sounding, sounding.flatten().cumsum(0).view_as(sounding), 0)
        return codes[which].squeeze(3)
