"""A classifier based on WaveNet: the end-to-end baseline of Ren et al., ICASSP 2020."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel
from advser.models.raw import RawSound, Seconds
from advser.plugins.parameters import parameter


class Residual(nn.Module):
    """A gated, dilated convolution over a step and the step ``dilation`` before it.

    z = tanh(f) · σ(g), where f and g are convolutions of the input (eq. 2 of van den Oord et al.). Two convolutions 1×1
    of z give the residual, which is added to the input of the next layer, and the skip, which is added to the output.
    The last layer has no residual.
    """

    def __init__(self, channels: int, dilation: int, *, last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.gates = nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
        self.skip = nn.Conv1d(channels, channels, 1)
        self.residual = None if last else nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next layer's input and the skip, both (B, channels, steps) as ``x``."""
        f, g = self.gates(pad(x, (self.dilation, 0))).chunk(2, 1)
        z = f.tanh() * g.sigmoid()
        return x if self.residual is None else x + self.residual(z), self.skip(z)


class WaveNet(EmotionModel):
    """Stacks of causal, dilated, gated convolutions on the sound, the mean over time, one linear layer.

    32,647 parameters by default and for 7 classes. With n = layers · stacks and c channels there are
    n · (6c² + 4c) + (2 · stride + 1) · c + (c + 1) · classes. Features: `RawSound`. Embedding: (B, channels), the mean
    over the steps of the clip. A step depends on no later step, so that padding does not change the embedding.

    Ren et al. give no details, and trained on two classes. This small model is based on WaveNet's speech recogniser
    (sec. 3.4), except that its first convolution has a stride of ``stride`` samples. With the default of 16 (1 ms) the
    receptive field of two stacks of ten layers is 2 s, at a sixteenth of the work. With 1 it is as in the source.
    """

    citation: ClassVar[str] = (
        "baseline: Ren, Baird, Han, Zhang, Schuller: Generating and protecting against adversarial attacks for deep "
        "speech-based emotion recognition models, ICASSP 2020, table 2; based on van den Oord et al.: WaveNet: a "
        "generative model for raw audio, arXiv:1609.03499, 2016, secs. 2.1 to 2.4 and 3.4"
    )
    spectrogram: ClassVar[bool] = False

    frontend: RawSound

    def __init__(
        self,
        classes: int,
        *,
        layers: Annotated[
            int, parameter(ge=1, le=16, about="layers per stack; the dilation doubles from layer to layer, from 1")
        ] = 10,
        stacks: Annotated[int, parameter(ge=1, about="number of stacks")] = 2,
        channels: Annotated[int, parameter(ge=1, about="channels of every convolution")] = 16,
        stride: Annotated[int, parameter(ge=1, about="length of a step", unit="samples")] = 16,
        seconds: Seconds = 6.0,
    ) -> None:
        super().__init__()
        self.frontend = RawSound(seconds)
        self.stride = stride
        # Two steps wide, as the convolutions of all layers.
        self.first = nn.Conv1d(1, channels, 2 * stride, stride=stride)
        dilations = [2**layer for layer in range(layers)] * stacks
        last = len(dilations) - 1
        self.layers = nn.ModuleList(
            Residual(channels, dilation, last=place == last) for place, dilation in enumerate(dilations)
        )
        self.output = nn.Sequential(nn.ReLU(), nn.Conv1d(channels, channels, 1), nn.ReLU())
        self.head = nn.Linear(channels, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, channels) of features (B, 1, T)."""
        steps = -(-features.shape[2] // self.stride)
        x = self.first(pad(features, (self.stride, steps * self.stride - features.shape[2])))
        total = torch.zeros_like(x)
        for layer in self.layers:
            x, skip = layer(x)
            total = total + skip
        counts = (-(-lengths // self.stride)).clamp_max(steps)
        states = self.output(total) * sound_mask(counts, steps)[:, None]
        embedding: Tensor = states.sum(2) / counts[:, None]
        return embedding
