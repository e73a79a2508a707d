"""The contract of an attack with a trained network."""

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
    """An attack with a network that is trained once, on the fold's training clips, and then uses no target.

    The harness builds the network (`network`, with torch's global generator seeded), trains it against the attack's
    source or an ensemble of surrogates (`learn`), stores its weights, and crafts examples with it (`apply`).
    """

    single_step: ClassVar[bool] = True

    @abstractmethod
    def network(self) -> nn.Module:
        """Return the untrained network, with initial weights from torch's global generator.

        `apply` may depend on the network's state alone: the harness stores nothing else.
        """

    @abstractmethod
    def learn(
        self, network: nn.Module, batches: Iterator[tuple[Target, Tensor, Tensor]], generator: torch.Generator
    ) -> None:
        """Train ``network`` in place.

        Args:
            network: the result of `network`, on the device of the batches.
            batches: infinite iterator of (target, x, labels): the target of a batch of training clips, whose model may
                change from batch to batch; waveforms (B, T) or features (B, bands, frames); classes (B,) or
                probabilities (B, C). A target is valid until the next batch is requested.
            generator: the only source of random numbers, on the device of the batches.
        """

    @abstractmethod
    def apply(self, network: nn.Module, x: Tensor) -> Tensor:
        """Return adversarial examples in the shape of ``x``, without gradients."""

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Raise ContractError: an example needs a trained network.

        Raises:
            ContractError: always.
        """
        raise ContractError(
            f"{type(self).__name__}.perturb: got an attack whose network is not trained, expected calls of 'learn', "
            "then 'apply' (the attack is unusable where examples are crafted directly, as in adversarial training)"
        )
