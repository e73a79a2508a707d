"""WaveCNN of Gong & Poellabauer 2017."""

from __future__ import annotations

from typing import ClassVar, Final

from torch import Tensor, nn

from advser.models.framed import Framed, Maps, Pool, convolutions, glorot
from advser.models.raw import Scale, Seconds

LAYERS: Final = 6
"""Convolutions over the codes of all frames."""

UNITS: Final = 64
"""Of the linear layer before the last."""


class WaveCNN(Framed):
    """Eight convolutions on each frame, six on all frames' codes in a row, two linear layers.

    551,111 parameters at 7 classes. Embedding: (B, 64). The paper scales sound "into [0, 1]"; if that is (x + 1) / 2
    (``scale: unit``), its ε is 2ε on [−1, 1], where all budgets of the benchmark are. It is not the default, because
    from it the network did not learn: anger and sadness in EmoDB, with 8 maps, ``pool`` 2, Adam at 1e-3 and batches of
    16, had a training loss of .65 after 400 steps, which is guessing, and in standard deviations of .20 after 100.
    """

    citation: ClassVar[str] = (
        "Gong, Poellabauer: Crafting adversarial examples for speech paralinguistics applications, arXiv:1711.03280, "
        "2017, WaveCNN"
    )

    def __init__(
        self,
        classes: int,
        *,
        seconds: Seconds = 6.0,
        maps: Maps = 32,
        pool: Pool = 1,
        scale: Scale = "standard",
    ) -> None:
        super().__init__(seconds, maps, pool, scale)
        points = -(-self.frames * self.points // 2**LAYERS)
        self.back = nn.Sequential(
            convolutions(LAYERS, maps, maps), nn.Flatten(), glorot(nn.Linear(maps * points, UNITS)), nn.ReLU()
        )
        self.head = glorot(nn.Linear(UNITS, classes))

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 64) of features (B, 1, T)."""
        row = self.encode(features, lengths).transpose(1, 2).flatten(2)
        embedding: Tensor = self.back(row[:, :, None])
        return embedding
