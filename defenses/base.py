"""The contract of a defense."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain
from advser.plugins.parameters import Parameters
from advser.threat.admission import admit
from advser.threat.objectives import Loss, cross_entropy
from advser.threat.target import Target


@dataclass(frozen=True)
class TrainingBatch:
    """The input of a defense at one training step.

    Attributes:
        waveform: (B, T) float32 on [−1, 1], zero after each clip's end.
        lengths: (B,) in samples.
        labels: classes (B,).
        features: (B, bands, frames), the front end's output for this step.
        generator: the only source of random numbers.
        kept: the defense's own state from step to step, by name; empty at the first step.
    """

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    features: Tensor
    generator: torch.Generator
    kept: dict[str, Tensor] = field(default_factory=dict)

    def inputs(self, domain: Domain) -> Tensor:
        """Return the input that an attack in ``domain`` perturbs: the waveform or the features."""
        return self.waveform if domain == "waveform" else self.features

    def mask(self, model: EmotionModel, domain: Domain) -> Tensor:
        """Return a mask that broadcasts to `inputs`: false in padding."""
        if domain == "waveform":
            return sound_mask(self.lengths, self.waveform.shape[1])
        return model.frontend.mask(self.waveform, self.lengths)


class Defense(Parameters, ABC):
    """A method that makes a model robust, by its training objective or by processing at test time.

    A subclass implements `loss`; its fields are its parameters. Override `extend` to add modules, `wrap` to process
    the input at test time, and `adaptive` to give attackers the loss that exploits the defense.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions affect the defended model, beside those of the training stage."""

    @abstractmethod
    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the training objective (a scalar) of a batch; the model is training, and ``step`` counts from 0."""

    def perturbed_domain(self) -> Domain | None:
        """Return the domain whose inputs `loss` perturbs; None, the default, if it perturbs none."""
        return None

    def first_step(self) -> int:
        """Return the first training step, from 0, in which `loss` is not that of clean training; by default 0."""
        return 0

    def showings(self) -> int:
        """Return the number of consecutive training steps on each batch, at least 1; by default 1."""
        return 1

    def extend(self, model: EmotionModel) -> EmotionModel:
        """Return the untrained model with modules of the defense added; by default the model itself.

        Called before training and before a checkpoint is loaded. The checkpoint contains the added modules; their
        shapes may depend on nothing but the model and the defense's parameters.
        """
        return model

    def wrap(self, model: EmotionModel) -> EmotionModel:
        """Return the trained model with the processing at test time; by default the model itself."""
        return model

    def adaptive(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Return the loss per clip (B,) that an attacker who knows the defense ascends; by default cross-entropy.

        A suite selects it by ``objective: adaptive``. Override it if cross-entropy ignores the defense, as it ignores a
        detector. Processing by `wrap` needs no override: the model's gradient includes it.

        Args:
            outputs: the wrapped model's outputs for x′. With white-box access ``reference`` holds the embeddings of the
                clean clips, else None.
            labels: classes (B,) or probabilities (B, C), as the attack gets them.
        """
        return cross_entropy(outputs, labels)


def craft(
    model: EmotionModel,
    batch: TrainingBatch,
    attack: Attack,
    domain: Domain,
    labels: Tensor | Literal["predicted", "soft"] = "predicted",
    objective: Loss = cross_entropy,
) -> Tensor:
    """Return adversarial inputs for a training batch, within the bounds that an evaluation applies (`admit`).

    Args:
        model: the model in training. It is attacked in evaluation mode; its state is restored.
        batch: the clean batch.
        attack: the attack.
        domain: the domain that is perturbed.
        labels: classes (B,), probabilities (B, C), or the model's outputs on the clean batch: ``soft`` for its
            probabilities, ``predicted`` for its decisions. Decisions keep the true label from leaking into the
            perturbation (Ren et al. 2020).
        objective: the loss that the attack ascends.
    """
    x = batch.inputs(domain)
    with torch.no_grad():
        mask = batch.mask(model, domain)
    with Target(model, batch.lengths, domain, objective=objective, mask=mask) as target:
        if not isinstance(labels, Tensor):
            predicted = labels == "predicted"
            labels = target.decisions_ahead(x) if predicted else target.logits(x).float().softmax(1)
        perturbed = attack.perturb(target, x, labels, batch.generator)
    return admit(perturbed, x, mask, domain, attack.budget(domain))
