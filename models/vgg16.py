"""VGG-16 of Ren et al., ICASSP 2020."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Final

from torch import Tensor, nn

from advser.models.base import EmotionModel
from advser.models.frontends import FrameCount, LogMel
from advser.plugins.parameters import parameter

GROUPS: Final = (2, 2, 3, 3, 3)
"""Number of convolutions in each group, before its max-pooling."""


def group(convolutions: int, inputs: int, outputs: int) -> nn.Sequential:
    """Return convolutions 3×3 with batch normalisation and ReLU, then max-pooling 2×2 that halves height and width."""
    maps = [inputs, *[outputs] * convolutions]
    layers: list[nn.Module] = []
    for before, after in pairwise(maps):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    # The last ReLU follows the pooling: the result is the same, at a quarter of the work.
    return nn.Sequential(*layers[:-1], nn.MaxPool2d(2), layers[-1])


class VGG16(EmotionModel):
    """The 13 convolutions of VGG-16, global max-pooling, one linear layer; 14,721,351 parameters for 7 classes.

    Features: `LogMel` (B, 64, frames). Embedding: (B, 512 · width), the maximum of each map of the last group. One
    linear layer replaces VGG-16's three, and batch normalisation follows each convolution.
    """

    citation: ClassVar[str] = (
        "Ren, Baird, Han, Zhang, Schuller: Generating and protecting against adversarial attacks for deep speech-based "
        "emotion recognition models, ICASSP 2020, sec. 3; convolutions: Simonyan, Zisserman: Very deep convolutional "
        "networks for large-scale image recognition, ICLR 2015, configuration D"
    )

    def __init__(
        self,
        classes: int,
        *,
        width: Annotated[
            float,
            parameter(gt=0, about="factor of the 64, 128, 256, 512, 512 maps"),
        ] = 1.0,
        frames: Annotated[FrameCount, parameter(ge=32)] = 373,
    ) -> None:
        super().__init__()
        maps = [1, *(max(1, round(width * full)) for full in (64, 128, 256, 512, 512))]
        self.frontend = LogMel(frames)
        self.body = nn.Sequential(*(group(size, *pair) for size, pair in zip(GROUPS, pairwise(maps), strict=True)))
        self.head = nn.Linear(maps[-1], classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 512 · width) of features (B, 64, frames)."""
        maps: Tensor = self.body(features.unsqueeze(1))
        return maps.amax((2, 3))
