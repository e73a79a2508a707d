"""Adversarial training, and its variants in Ren et al., ICASSP 2020: vanilla and similarity-based."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

from pydantic import model_validator
from torch import Tensor
from torch.nn import functional

from advser.attacks.reference import AttackReference
from advser.defenses.base import Defense, TrainingBatch, craft
from advser.errors import ContractError
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain
from advser.plugins.parameters import Fraction, parameter
from advser.threat.objectives import cross_entropy

CITATION = (
    "Ren, Baird, Han, Zhang, Schuller: Generating and protecting against adversarial attacks for deep speech-based "
    "emotion recognition models, ICASSP 2020"
)


class AdversarialTraining(Defense, ABC):
    """Training on perturbed clips x′ after a warm-up on clean clips x."""

    domain: Domain = parameter("spectrogram", about="domain in which x′ is crafted")
    warmup: int = parameter(0, unit="steps", about="steps of clean training before x′ is used", ge=0)

    def perturbed_domain(self) -> Domain:
        """Return ``domain``."""
        return self.domain

    def first_step(self) -> int:
        """Return the first step after the warm-up."""
        return self.warmup

    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the objective (a scalar); during the warm-up, the clean cross-entropy.

        Raises:
            ContractError: if the front end crops each clip at random and ``domain`` is ``waveform``.
        """
        if step < self.warmup:
            clean = model.outputs(batch.features, batch.lengths, "spectrogram")
            return functional.cross_entropy(clean.logits, batch.labels)
        if self.domain == "waveform" and model.frontend.varies_in_training:
            raise ContractError(
                f"domain: got 'waveform' with {type(model.frontend).__name__}, which crops each clip at random, so "
                "that x and x′ would differ in the part of the clip; expected spectrogram"
            )
        return self.adversarial_loss(model, batch, step - self.warmup)

    @abstractmethod
    def adversarial_loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the objective (a scalar) of a batch; ``step`` counts from the end of the warm-up."""


class TrainingOnPairs(AdversarialTraining, ABC):
    """Training on clean clips x and on clips x′ that an attack crafts from them."""

    given: ClassVar[Literal["true", "predicted", "soft"]]
    """The labels that the attack gets: the true labels, the model's decisions on x, or its probabilities."""

    attack: AttackReference = parameter(about="the attack that crafts x′")

    def adversarial_loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the objective (a scalar) of x, of x′ crafted from it, and of the labels."""
        clean = model.outputs(batch.features, batch.lengths, "spectrogram")
        labels = batch.labels if self.given == "true" else self.given
        x = craft(model, batch, self.attack.build(), self.domain, labels)
        return self.objective(clean, model.outputs(x, batch.lengths, self.domain), batch.labels)

    @abstractmethod
    def objective(self, clean: Outputs, adversarial: Outputs, labels: Tensor) -> Tensor:
        """Return the objective (a scalar) from the outputs on x and on x′."""


class Vanilla(TrainingOnPairs):
    """Vanilla adversarial training: α L(x, y) + (1 − α) L(x′, y), with x′ crafted against the model's own decisions."""

    citation: ClassVar[str] = f"{CITATION}, eq. 3"
    given: ClassVar[Literal["true", "predicted", "soft"]] = "predicted"

    alpha: Fraction = parameter(0.5, about="weight α of the clean loss")

    def objective(self, clean: Outputs, adversarial: Outputs, labels: Tensor) -> Tensor:
        """Return the weighted loss."""
        clean_loss = functional.cross_entropy(clean.logits, labels)
        return self.alpha * clean_loss + (1 - self.alpha) * functional.cross_entropy(adversarial.logits, labels)


class Similarity(TrainingOnPairs):
    """Similarity-based adversarial training: β L(x, y) + γ L(x′, y) + (1 − β − γ) d(v, v′).

    x′ is crafted against the model's own decisions. v and v′ are the embeddings (the input of the last layer) of x and
    x′. d is their mean squared difference, as in the authors' code, or its Euclidean norm, as in the paper.
    """

    citation: ClassVar[str] = f"{CITATION}, eq. 4"
    given: ClassVar[Literal["true", "predicted", "soft"]] = "predicted"

    beta: Fraction = parameter(0.4, about="weight β of the clean loss")
    gamma: Fraction = parameter(0.4, about="weight γ of the adversarial loss")
    norm: Literal["mse", "l2"] = parameter("mse", about="distance d between the embeddings")

    @model_validator(mode="after")
    def _weights_add_up(self) -> Self:
        if self.beta + self.gamma > 1:
            raise ValueError(f"beta + gamma is {self.beta + self.gamma}, expected at most 1")
        return self

    def objective(self, clean: Outputs, adversarial: Outputs, labels: Tensor) -> Tensor:
        """Return the weighted loss."""
        distance = self._distance(clean.embedding, adversarial.embedding).mean()
        clean_loss = functional.cross_entropy(clean.logits, labels)
        adversarial_loss = functional.cross_entropy(adversarial.logits, labels)
        return self.beta * clean_loss + self.gamma * adversarial_loss + (1 - self.beta - self.gamma) * distance

    def adaptive(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Return L(x′, y) + w d(v, v′) (B,): the terms of the training loss that depend on x′.

        w is (1 − β − γ) / γ, as in training; 1 if γ is 0. At x′ = x the gradient of d is 0, so that a single step from
        x follows the cross-entropy alone.
        """
        loss = cross_entropy(outputs, labels)
        if outputs.reference is None:
            return loss
        weight = (1 - self.beta - self.gamma) / self.gamma if self.gamma else 1.0
        return loss + weight * self._distance(outputs.reference, outputs.embedding)

    def _distance(self, v: Tensor, w: Tensor) -> Tensor:
        """Return the distance d per clip (B,) between embeddings (B, D)."""
        difference = v.float() - w.float()
        return difference.square().mean(1) if self.norm == "mse" else difference.norm(dim=1)
