"""The small network of Wijayasingha 2019 for EmoDB, based on Fayek et al. 2017."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from advser.models.base import EmotionModel
from advser.models.frontends import DecibelMel
from advser.plugins.parameters import parameter


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution 10×10 of stride 2 without padding, batch normalisation and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 10, stride=2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def dense(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return linear layer, batch normalisation, ReLU and dropout: (B, inputs) → (B, outputs)."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(dropout))


class EmodbCNN(EmotionModel):
    """Two convolutions 10×10 and four linear layers; 4,616,935 parameters for 7 classes.

    The 3,000 running statistics of batch normalisation make 4,619,935 values. Features: `DecibelMel` (B, 40, 200).
    Embedding: (B, 20).
    """

    citation: ClassVar[str] = (
        "Wijayasingha: Hiding emotions in plain sight, 2019; after Fayek, Lech, Cavedon: Evaluating deep learning "
        "architectures for speech emotion recognition, Neural Networks 92, 2017"
    )

    def __init__(
        self,
        classes: int,
        *,
        last_dropout: Annotated[
            float,
            parameter(
                ge=0,
                lt=1,
                about="dropout before the last layer; the source gives no rate",
                unit="share of units",
            ),
        ] = 0.5,
    ) -> None:
        super().__init__()
        self.frontend = DecibelMel()
        self.body = nn.Sequential(
            convolution(1, 16),
            convolution(16, 32),
            nn.Flatten(),
            dense(5632, 716, 0.6),
            dense(716, 716, 0.7),
            dense(716, 20, last_dropout),
        )
        self.head = nn.Linear(20, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 20) of features (B, 40, 200)."""
        embedding: Tensor = self.body(features.unsqueeze(1))
        return embedding
