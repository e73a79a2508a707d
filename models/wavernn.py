"""WaveRNN of Gong & Poellabauer 2017."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from advser.models.framed import Framed, Maps, Pool, glorot
from advser.models.raw import Scale, Seconds

UNITS: Final = 64
"""Of the recurrent layer."""


class WaveRNN(Framed):
    """Eight convolutions on each frame, a recurrent layer (LSTM) over the frames, one linear layer.

    330,183 parameters at 7 classes. Embedding: (B, 64), the recurrent layer's last output. Its gradient with respect
    to the sound all but vanishes outside of the last frames (fig. 5 of the paper), which for a clip shorter than
    ``seconds`` are silence. On ``scale`` see `advser.models.wavecnn.WaveCNN`.
    """

    citation: ClassVar[str] = (
        "Gong, Poellabauer: Crafting adversarial examples for speech paralinguistics applications, arXiv:1711.03280, "
        "2017, WaveRNN"
    )

    head: nn.Linear

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
        self.recurrent = lstm(maps * self.points, UNITS)
        self.head = glorot(nn.Linear(UNITS, classes))

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, 64) of features (B, 1, T)."""
        codes = self.encode(features, lengths).flatten(2)
        with self._differentiable(codes), torch.autocast(codes.device.type, enabled=False):
            outputs: Tensor = self.recurrent(codes.to(self.head.weight.dtype))[0]
        return outputs[:, -1]

    def _differentiable(self, codes: Tensor) -> AbstractContextManager[None]:
        """Keep cuDNN out where it has no backward pass: in evaluation mode, in which attacks want the gradient."""
        if self.training or not (torch.is_grad_enabled() and codes.requires_grad):
            return nullcontext()
        without: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=False)
        return without


def lstm(inputs: int, units: int) -> nn.LSTM:
    """Return a recurrent layer, (B, frames, inputs) → (B, frames, units), that starts as Keras', the paper's library.

    Glorot uniform from the inputs, orthogonal from the state, biases 0, and 1 of the gate that forgets: a state then
    loses about a quarter in a frame instead of half.
    """
    layer = nn.LSTM(inputs, units, batch_first=True)
    weights = dict(layer.named_parameters())
    nn.init.xavier_uniform_(weights["weight_ih_l0"])
    nn.init.orthogonal_(weights["weight_hh_l0"])
    nn.init.zeros_(weights["bias_ih_l0"])
    nn.init.zeros_(weights["bias_hh_l0"])
    # The gates are, in this order, of the input, to forget, of the cell, and of the output.
    nn.init.ones_(weights["bias_ih_l0"].detach()[units : 2 * units])
    return layer
