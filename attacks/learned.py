"""The contract of an attack that has a network of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from advser.attacks.base import Attack
from advser.errors import ContractError
from advser.threat.target import Target


class LearnedAttack(Attack, ABC):
    """An attack with a network that is trained once, on the fold's training clips, and then asks its target nothing.

    The harness makes the network (`network`, torch's global generator being seeded), has it trained against the
    attack's source, or the ensemble of several (`learn`), stores its weights, and crafts with it (`apply`).
    """

    single_step: ClassVar[bool] = True

    @abstractmethod
    def network(self) -> nn.Module:
        """Return the untrained network; its initial weights are drawn from torch's global generator.

        Its state decides everything that `apply` does: the harness keeps nothing else.
        """

    @abstractmethod
    def learn(
        self, network: nn.Module, batches: Iterator[tuple[Target, Tensor, Tensor]], generator: torch.Generator
    ) -> None:
        """Train ``network`` in place.

        Args:
            network: as `network` returned it, on the device of the batches.
            batches: without end, (target, x, labels): the model before this batch of training clips (it may be another
                at each batch), waveforms (B, T) or features (B, bands, frames), and classes (B,) or probabilities
                (B, C). A target serves until the next is asked for.
            generator: the only source of random numbers, on the device of the batches.
        """

    @abstractmethod
    def apply(self, network: nn.Module, x: Tensor) -> Tensor:
        """Return adversarial examples in the shape of ``x``, which no gradient is needed for."""

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Refuse: without a trained network there is no example.

        Raises:
            ContractError: always.
        """
        raise ContractError(
            f"{type(self).__name__}.perturb: got an attack whose network is not trained, expected 'learn', then "
            "'apply' (it cannot serve where an attack is crafted at once, as in adversarial training)"
        )
