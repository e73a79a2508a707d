"""A network small enough for the demo suite and for tests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from advser.models.base import EmotionModel
from advser.models.frontends import FrameCount, LogMel
from advser.models.strided import block
from advser.plugins.parameters import parameter


class Tiny(EmotionModel):
    """Three strided convolutions, the mean over time, one linear layer; about 7,000 parameters.

    Features: `LogMel` (B, 64, frames). Embedding: (B, 192), from 24 maps at 8 heights, so that it keeps the frequency
    range of each map's response.
    """

    citation: ClassVar[str] = "this project, for demonstration; no source"

    def __init__(
        self,
        classes: int,
        *,
        frames: Annotated[FrameCount, parameter(ge=8)] = 96,
    ) -> None:
        super().__init__()
        self.frontend = LogMel(frames)
        self.body = nn.Sequential(block(1, 12), block(12, 16), block(16, 24))
        self.head = nn.Linear(24 * 8, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 192) of features (B, 64, frames)."""
        maps: Tensor = self.body(features.unsqueeze(1))
        return maps.mean(3).flatten(1)
