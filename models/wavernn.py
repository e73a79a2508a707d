"""WaveRNN of Gong & Poellabauer 2017."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from advser.models.framed import Framed, Maps, Pool, glorot
from advser.models.raw import Scale, Seconds

UNITS: Final = 64
"""Units of the recurrent layer."""


class WaveRNN(Framed):
    """Eight convolutions on each frame, a recurrent layer (LSTM) over the frames, one linear layer.

    330,183 parameters for 7 classes. Embedding: (B, 64), the last output of the recurrent layer. The gradient with
    respect to the sound almost vanishes outside the last frames (fig. 5 of the paper); these are silent in a clip
    shorter than ``seconds``. On ``scale`` see `advser.models.wavecnn.WaveCNN`.
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
        """Return a context that disables cuDNN for gradients in evaluation mode, where it has no backward pass."""
        if self.training or not (torch.is_grad_enabled() and codes.requires_grad):
            return nullcontext()
        context: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=False)
        return context


def lstm(inputs: int, units: int) -> nn.LSTM:
    """Return a recurrent layer, (B, frames, inputs) → (B, frames, units), with initial weights as in Keras.

    Keras is the library of the paper. Input weights are Glorot uniform, state weights orthogonal, and biases 0, except
    1 for the forget gate: a state then loses about a quarter per frame instead of half.
    """
    layer = nn.LSTM(inputs, units, batch_first=True)
    weights = dict(layer.named_parameters())
    nn.init.xavier_uniform_(weights["weight_ih_l0"])
    nn.init.orthogonal_(weights["weight_hh_l0"])
    nn.init.zeros_(weights["bias_ih_l0"])
    nn.init.zeros_(weights["bias_hh_l0"])
    # The order of the gates is input, forget, cell, output.
    nn.init.ones_(weights["bias_ih_l0"].detach()[units : 2 * units])
    return layer
