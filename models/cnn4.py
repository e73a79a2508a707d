"""CNN-4 of Ren et al., ICASSP 2020."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from torch import Tensor, nn

from advser.models.base import EmotionModel
from advser.models.frontends import FrameCount, LogMel
from advser.plugins.parameters import parameter


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution 5×5, batch normalisation, max-pooling 2×2 and ReLU, which together halve height and width.

    The source applies ReLU before the pooling; after it the result is the same, at a quarter of the work.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, padding=2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


class CNN4(EmotionModel):
    """Four convolutions 5×5, global max-pooling, one linear layer; 4,307,911 parameters for 7 classes.

    Features: `LogMel` (B, 64, frames). Embedding: (B, 512 · width), the maximum of each map of the last convolution.
    """

    citation: ClassVar[str] = (
        "Ren, Baird, Han, Zhang, Schuller: Generating and protecting against adversarial attacks for deep speech-based "
        "emotion recognition models, ICASSP 2020, sec. 3"
    )

    def __init__(
        self,
        classes: int,
        *,
        width: Annotated[
            float,
            parameter(gt=0, about="factor of the 64, 128, 256, 512 maps"),
        ] = 1.0,
        frames: Annotated[FrameCount, parameter(ge=16)] = 373,
    ) -> None:
        super().__init__()
        maps = [1, *(max(1, round(width * full)) for full in (64, 128, 256, 512))]
        self.frontend = LogMel(frames)
        self.body = nn.Sequential(*(block(*pair) for pair in pairwise(maps)))
        self.head = nn.Linear(maps[-1], classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 512 · width) of features (B, 64, frames)."""
        maps: Tensor = self.body(features.unsqueeze(1))
        return maps.amax((2, 3))
