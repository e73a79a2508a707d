"""Several models with one joint decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from advser.models.base import EmotionModel, FrontEnd, Outputs
from advser.models.terms import Domain


class _Waveform(FrontEnd):
    """The sound itself; each member has its own front end."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform[:, None]


class Ensemble(EmotionModel):
    """A classifier by the mean of its members' log-probabilities; the embedding concatenates these.

    An example that misleads several surrogates is more likely to mislead another victim
    (Liu, Chen, Liu, Song: Delving into transferable adversarial examples and black-box attacks, ICLR 2017).

    Args:
        members: one or more models of the same classes.
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
        """Return the outputs for waveforms (B, T).

        Raises:
            ValueError: if ``domain`` is not ``waveform``.
        """
        if domain != "waveform":
            raise ValueError(f"domain: got {domain}, expected waveform for an ensemble")
        return super().outputs(x, lengths, domain)


class _Mean(nn.Module):
    """The mean (B, C) of the members' concatenated log-probabilities (B, members · C)."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members

    def forward(self, embedding: Tensor) -> Tensor:
        return embedding.view(len(embedding), self.members, -1).mean(1)
