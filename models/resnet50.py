"""ResNet-50 of Ren et al., ICASSP 2020."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from torch import Tensor, nn

from advser.models.base import EmotionModel
from advser.models.frontends import FrameCount, LogMel
from advser.plugins.parameters import parameter

COUNTS: Final = (3, 4, 6, 3)
"""Number of bottlenecks in each stage."""

STRIDES: Final = (1, 2, 2, 2)
"""Stride of the first bottleneck of each stage; the max-pooling before it replaces the first stage's."""

EXPANSION: Final = 4
"""Ratio of a bottleneck's output maps to the maps inside it."""


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return convolution size×size, which divides height and width by ``stride`` (rounding up), and normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Bottleneck(nn.Module):
    """Convolutions 1×1, 3×3 (with the stride) and 1×1 to ``4 · maps``, plus the input.

    A convolution 1×1 adapts the input if its shape differs from the output's.
    """

    def __init__(self, inputs: int, maps: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * maps
        self.path = nn.Sequential(
            convolution(inputs, maps, 1),
            nn.ReLU(inplace=True),
            convolution(maps, maps, 3, stride),
            nn.ReLU(inplace=True),
            convolution(maps, outputs, 1),
        )
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else convolution(inputs, outputs, 1, stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 · maps, height / stride, width / stride) of (B, inputs, height, width)."""
        rectified: Tensor = self.activation(self.path(x) + self.shortcut(x))
        return rectified


def stage(inputs: int, maps: int, count: int, stride: int) -> nn.Sequential:
    """Return ``count`` bottlenecks, (B, inputs, …) → (B, 4 · maps, …); the first has the stride."""
    rest = (Bottleneck(EXPANSION * maps, maps, 1) for _ in range(count - 1))
    return nn.Sequential(Bottleneck(inputs, maps, stride), *rest)


class ResNet50(EmotionModel):
    """Bottlenecks in stages of 3, 4, 6 and 3, global mean, one linear layer; 23,516,103 parameters for 7 classes.

    Features: `LogMel` (B, 64, frames). Embedding: (B, 2048 · width), the mean of each map of the last stage. The
    stem has one input channel; the stride of a stage is in the convolution 3×3 of its first bottleneck.
    """

    citation: ClassVar[str] = (
        "Ren, Baird, Han, Zhang, Schuller: Generating and protecting against adversarial attacks for deep speech-based "
        "emotion recognition models, ICASSP 2020, sec. 3; body: He, Zhang, Ren, Sun: Deep residual learning for image "
        "recognition, CVPR 2016, table 1"
    )

    def __init__(
        self,
        classes: int,
        *,
        width: Annotated[
            float,
            parameter(gt=0, about="factor of the 64, 128, 256, 512 maps inside the bottlenecks"),
        ] = 1.0,
        frames: Annotated[FrameCount, parameter(ge=32)] = 373,
    ) -> None:
        super().__init__()
        maps = [max(1, round(width * full)) for full in (64, 128, 256, 512)]
        inputs = [maps[0], *(EXPANSION * count for count in maps)]
        self.frontend = LogMel(frames)
        # ReLU follows the pooling: the result is the same, at a quarter of the work.
        self.stem = nn.Sequential(
            convolution(1, maps[0], 7, stride=2), nn.MaxPool2d(3, 2, padding=1), nn.ReLU(inplace=True)
        )
        self.body = nn.Sequential(
            *(stage(*shape) for shape in zip(inputs[:-1], maps, COUNTS, STRIDES, strict=True)),
        )
        self.head = nn.Linear(inputs[-1], classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 2048 · width) of features (B, 64, frames)."""
        maps: Tensor = self.body(self.stem(features.unsqueeze(1)))
        return maps.mean((2, 3))
