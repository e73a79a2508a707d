"""Several models that decide together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from advser.models.base import EmotionModel, FrontEnd, Outputs
from advser.models.terms import Domain


class _Waveform(FrontEnd):
    """The sound itself: each member has a front end of its own."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform[:, None]


class Ensemble(EmotionModel):
    """The mean of the members' log-probabilities; embedding: these in a row.

    An example that fools all of several surrogates is more likely to fool a model that it was not crafted on
    (Liu, Chen, Liu, Song: Delving into transferable adversarial examples and black-box attacks, ICLR 2017).

    Args:
        members: at least one model; all of the same classes.
    """

    spectrogram: ClassVar[bool] = False

    def __init__(self, members: Sequence[EmotionModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.frontend = _Waveform()
        self.head = _Mean(len(members))
        self.randomised = any(member.randomised for member in members)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return log-probabilities (B, members · C) of waveforms (B, 1, T)."""
        waveform = features[:, 0]
        return torch.cat([member(waveform, lengths).float().log_softmax(1) for member in self.members], 1)

    def outputs(self, x: Tensor, lengths: Tensor, domain: Domain) -> Outputs:
        """Classify waveforms (B, T)."""
        if domain != "waveform":
            raise ValueError(f"domain: got {domain}, expected for an ensemble: waveform")
        return super().outputs(x, lengths, domain)


class _Mean(nn.Module):
    """From the members' rows (B, members · C) to their mean (B, C)."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members

    def forward(self, embedding: Tensor) -> Tensor:
        return embedding.view(len(embedding), self.members, -1).mean(1)
