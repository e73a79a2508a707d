"""What WaveCNN and WaveRNN of Gong & Poellabauer 2017 share: convolutions on each frame of the raw sound."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, pad

from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel
from advser.models.raw import STEP, RawSound, Scale

FRAME: Final = STEP
"""Samples of a frame: 40 ms, next to one another."""

KERNEL: Final = 40
"""Width of the convolutions."""

LAYERS: Final = 8
"""Convolutions on each frame."""

L = TypeVar("L", nn.Conv2d, nn.Linear)

Maps = Annotated[int, Field(ge=1, description="of each convolution")]
Pool = Annotated[
    int,
    Field(
        ge=1,
        le=FRAME,
        description="samples averaged to one before the convolutions: 1 in the paper, 2 in its public code",
        json_schema_extra={"unit": "samples"},
    ),
]


def glorot(layer: L) -> L:
    """Start a layer's weights as the public code does (Glorot uniform) and its biases at 0; return it.

    From PyTorch's own initial values 14 convolutions without normalisation do not learn: of each layer's variance
    they leave a sixth.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution [1, 40] that keeps the width, max-pooling by 2 and ReLU: (N, …, 1, T) → (N, …, 1, ⌈T / 2⌉).

    ReLU after the pooling gives what it gives before it, at half the work. An odd width is rounded up, as in the public
    code (Keras' padding "same"): the last value then is pooled alone.
    """
    # Two dimensions, of which one is 1, because channels-last is laid out, and quick, in two only. The padding is what
    # `padding="same"` does, which warns of even kernels.
    return nn.Sequential(
        nn.ZeroPad2d(((KERNEL - 1) // 2, KERNEL // 2, 0, 0)),
        glorot(nn.Conv2d(inputs, outputs, (1, KERNEL))),
        nn.MaxPool2d((1, 2), ceil_mode=True),
        nn.ReLU(),
    )


def convolutions(count: int, inputs: int, maps: int) -> nn.Sequential:
    """Return ``count`` of these in a row: (N, inputs, 1, T) → (N, maps, 1, ⌈T / 2^count⌉)."""
    return nn.Sequential(*(convolution(inputs if layer == 0 else maps, maps) for layer in range(count)))


class Framed(EmotionModel):
    """A model of sound in frames of 40 ms, each of which passes through the same eight convolutions.

    Features: `RawSound`. Clips shorter than ``seconds`` end with silence, as in the paper.
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
        """Return codes (B, frames, maps, points) of features (B, 1, T); at defaults (B, 150, 32, 3)."""
        missing = self.frames * FRAME - features.shape[2]
        frames = pad(features, (0, missing), value=self.frontend.silence).view(-1, self.frames, FRAME)
        sounding = sound_mask(-(-lengths // FRAME), self.frames)
        # The frames after a clip's end are all alike, so that one frame of silence is computed for all.
        silence = frames.new_full((1, FRAME), self.frontend.silence)
        distinct = torch.cat([silence, frames[sounding]])[:, None]
        codes: Tensor = self.convolutions(avg_pool1d(distinct, self.pool, ceil_mode=True)[:, :, None])
        which = torch.where(sounding, sounding.flatten().cumsum(0).view_as(sounding), 0)
        return codes[which].squeeze(3)
