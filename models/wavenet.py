"""A classifier after WaveNet: the end-to-end baseline of Ren et al., ICASSP 2020."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel
from advser.models.raw import RawSound, Seconds


class Residual(nn.Module):
    """A gated, dilated convolution that sees a step and the one ``dilation`` steps before it.

    z = tanh(f) · σ(g), where f and g are convolutions of the input (eq. 2 of van den Oord et al.). From z, convolutions
    1×1 make what is added to the input, for the next layer, and what skips to the output. The last layer has no next.
    """

    def __init__(self, channels: int, dilation: int, *, last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.gates = nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
        self.skip = nn.Conv1d(channels, channels, 1)
        self.residual = None if last else nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next layer's input and the output's summand, each (B, channels, steps) as ``x``."""
        f, g = self.gates(pad(x, (self.dilation, 0))).chunk(2, 1)
        z = f.tanh() * g.sigmoid()
        return x if self.residual is None else x + self.residual(z), self.skip(z)


class WaveNet(EmotionModel):
    """Stacks of causal, dilated, gated convolutions on the sound, the mean over time, one linear layer.

    32,647 parameters at the defaults and 7 classes; with n = layers · stacks and c channels there are
    n · (6c² + 4c) + (2 · stride + 1) · c + (c + 1) · classes. Features: `RawSound`. Embedding: (B, channels), the mean
    over the steps of the clip; no step sees what follows it, so that padding changes nothing.

    Ren et al. give no details, and trained theirs on two classes. This one is after WaveNet's own trial as a recogniser
    (sec. 3.4), and small. It differs in that the first convolution takes ``stride`` samples a step: by default 16
    (1 ms), with which two stacks of ten layers see 2 s, at a sixteenth of the work. With 1 it is as in the source.
    """

    citation: ClassVar[str] = (
        "baseline: Ren, Baird, Han, Zhang, Schuller: Generating and protecting against adversarial attacks for deep "
        "speech-based emotion recognition models, ICASSP 2020, table 2; after van den Oord et al.: WaveNet: a "
        "generative model for raw audio, arXiv:1609.03499, 2016, secs. 2.1 to 2.4 and 3.4"
    )
    spectrogram: ClassVar[bool] = False

    frontend: RawSound

    def __init__(
        self,
        classes: int,
        *,
        layers: Annotated[
            int, Field(ge=1, le=16, description="of a stack; the dilation doubles with each, from 1")
        ] = 10,
        stacks: Annotated[int, Field(ge=1, description="one after another")] = 2,
        channels: Annotated[int, Field(ge=1, description="of every convolution")] = 16,
        stride: Annotated[int, Field(ge=1, description="length of a step", json_schema_extra={"unit": "samples"})] = 16,
        seconds: Seconds = 6.0,
    ) -> None:
        super().__init__()
        self.frontend = RawSound(seconds)
        self.stride = stride
        # Two steps wide, as all others.
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
        heard = (-(-lengths // self.stride)).clamp_max(steps)
        states = self.output(total) * sound_mask(heard, steps)[:, None]
        embedding: Tensor = states.sum(2) / heard[:, None]
        return embedding
