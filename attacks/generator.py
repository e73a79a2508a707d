"""A network that computes adversarial sound in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor, nn

from advser.attacks.learned import LearnedAttack
from advser.models.terms import Domain
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, gradient_steps
from advser.threat.budget import per_clip
from advser.threat.target import Target

QUIETEST = 1e-4
"""Smallest peak by which the input of the network is divided, full scale."""


class AtrousCNN(nn.Module):
    """Convolutions of width 3 along time, each with twice the dilation of the previous one and a shortcut.

    Maps waveforms (B, T), each scaled to a peak of 1, to (B, T). The output at a sample depends on 2 · 2^layers − 1
    samples around it. No layer has a bias, so silence stays silence.
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, channels, 1, bias=False)
        self.body = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, dilation=2**layer, padding=2**layer, bias=False) for layer in range(layers)
        )
        self.last = nn.Conv1d(channels, 1, 1, bias=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return (B, T)."""
        peak = waveform.abs().amax(1, keepdim=True).clamp_min(QUIETEST)
        maps: Tensor = self.first((waveform / peak)[:, None])
        for convolution in self.body:
            maps = maps + torch.relu(convolution(maps))
        out: Tensor = self.last(maps)
        return out[:, 0]


class Generator(LearnedAttack):
    """An atrous CNN g, trained on the training clips, computes the perturbation in one pass: x′ = x + ε · tanh(g(x)).

    Each training step ascends the loss of one target on one batch; several targets take turns and train one network.
    The gradient reaches the network through x′. Each clip's gradient is scaled to an L1 norm of 1, so that clips that
    the target classifies with high confidence count as much as others.
    """

    citation: ClassVar[str] = (
        "Ren, Han, Cummins, Schuller: Enhancing transferability of black-box adversarial attacks via lifelong learning "
        "for speech emotion recognition models, Interspeech 2020 (an atrous CNN as attacker; its size is our choice)"
    )
    domains: ClassVar[tuple[Domain, ...]] = ("waveform",)

    epsilon: float = budget(unit="full-scale", about="L∞ budget ε")
    channels: int = parameter(16, unit="maps", about="width of the network", ge=1)
    layers: int = parameter(8, unit="convolutions", about="depth; dilations 1, 2, 4, …", ge=1, le=16)
    steps: int = gradient_steps(300, about="training steps", ge=0)
    learning_rate: float = parameter(2e-3, about="step size of Adam", gt=0)

    def network(self) -> nn.Module:
        """Return the untrained network."""
        return AtrousCNN(self.channels, self.layers)

    def learn(
        self, network: nn.Module, batches: Iterator[tuple[Target, Tensor, Tensor]], generator: torch.Generator
    ) -> None:
        """Train the network with one forward and one backward pass of a target per step."""
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        for target, x, labels in islice(batches, self.steps):
            perturbed = self._perturbed(network, x)
            gradient = target.gradient(perturbed.detach(), labels)
            size = per_clip(gradient.abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)
            optimizer.zero_grad()
            (-perturbed * gradient / size).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def apply(self, network: nn.Module, x: Tensor) -> Tensor:
        """Return x′."""
        return self._perturbed(network, x)

    def _perturbed(self, network: nn.Module, x: Tensor) -> Tensor:
        perturbation: Tensor = network(x)
        return x + self.epsilon * perturbation.tanh()
