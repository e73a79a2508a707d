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
    """What a defense gets at each training step.

    Attributes:
        waveform: (B, T) float32 on [−1, 1], zero after each clip's end.
        lengths: (B,) in samples.
        labels: classes (B,).
        features: (B, bands, frames), the front end's output for this step.
        generator: the only source of random numbers.
        kept: what a defense keeps from one step to the next under names of its own; empty at the first step.
    """

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    features: Tensor
    generator: torch.Generator
    kept: dict[str, Tensor] = field(default_factory=dict)

    def inputs(self, domain: Domain) -> Tensor:
        """Return what is perturbed in ``domain``: the waveform, or the features."""
        return self.waveform if domain == "waveform" else self.features

    def mask(self, model: EmotionModel, domain: Domain) -> Tensor:
        """Return what broadcasts to `inputs`, true where they are more than padding."""
        if domain == "waveform":
            return sound_mask(self.lengths, self.waveform.shape[1])
        return model.frontend.mask(self.waveform, self.lengths)


class Defense(Parameters, ABC):
    """A way to train, and optionally to use, a model that is to withstand attacks; its fields are its parameters."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions, beside those of the training stage, whose versions decide what it makes of a model."""

    @abstractmethod
    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the training objective (a scalar) of one batch; ``step`` counts from 0. The model is training."""

    def showings(self) -> int:
        """Return how many steps in a row the model is trained on each batch: at least 1, which is the default."""
        return 1

    def extend(self, model: EmotionModel) -> EmotionModel:
        """Return the untrained model with the defense's own modules in it; by default the model itself.

        Called before training, and again before a checkpoint is loaded: what is added is in the checkpoint, and gets
        its shapes from the model and from the defense's parameters alone.
        """
        return model

    def wrap(self, model: EmotionModel) -> EmotionModel:
        """Return the trained model with any processing at test time around it; by default the model itself."""
        return model

    def adaptive(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Return the loss per clip (B,) that an attacker who knows this defense ascends; by default cross-entropy.

        A suite asks for it by ``objective: adaptive``. A defense whose loss or detector cross-entropy knows nothing of
        overrides it; what a defense does to the sound (`wrap`) is in the model's gradient anyway.

        Args:
            outputs: what the wrapped model says of x′; ``reference`` has the embeddings of the clean clips at white-box
                access, else None.
            labels: classes (B,) or probabilities (B, C), as the attack is given them.
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
    """Return adversarial inputs for a training batch, crafted in evaluation mode, as the harness would admit them.

    Args:
        model: the model in training; its state is as before afterwards.
        batch: the batch.
        attack: the attack.
        domain: where it works.
        labels: classes (B,), probabilities (B, C), or, of the clean batch, ``soft`` for the model's probabilities, or
            ``predicted`` for its decisions (Ren et al. 2020), so that the true label does not leak into the
            perturbation.
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
