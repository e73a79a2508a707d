"""Adversarial training at little more than the cost of plain training: fast and free."""

from __future__ import annotations

from typing import ClassVar, Final

import torch
from torch import Tensor
from torch.nn import functional

from advser.attacks.base import Attack
from advser.attacks.gradient_sign import PGD, IterativeFGSM
from advser.defenses.adversarial_training import AdversarialTraining
from advser.defenses.base import TrainingBatch, craft
from advser.errors import ContractError
from advser.models.base import EmotionModel
from advser.plugins.parameters import parameter
from advser.threat.admission import admit
from advser.threat.target import Target

LOST: Final = "fast: FGSM has lost touch"
PERTURBATION: Final = "free: perturbation"


class Fast(AdversarialTraining):
    """Fast adversarial training: L(x′, y), where x′ is one FGSM step from a random start, with the true labels.

    x′ = clip(x + n + α ε sign(∇L), x − ε, x + ε), n uniform on [−ε, ε]. A model can learn to withstand that one step
    and nothing else (catastrophic overfitting): its loss on x′ is then far below that on what more steps find. So every
    ``check_every`` steps, from the first after the warm-up on, PGD attacks the batch too; if its loss is more than
    ``tolerance`` times as high, x′ comes from PGD until a later check finds the two within the tolerance again. The
    source stops training instead when the accuracy under PGD falls.
    """

    citation: ClassVar[str] = (
        "Wong, Rice, Kolter: Fast is better than free: revisiting adversarial training, ICLR 2020, alg. 3; the guard "
        "is of this project, for what sec. 5.4 describes"
    )

    epsilon: float = parameter(unit="full-scale or z", about="L∞ budget ε", gt=0)
    alpha: float = parameter(1.25, unit="ε", about="step size", gt=0)
    check_every: int = parameter(25, unit="steps", about="steps from check to check", ge=1)
    tolerance: float = parameter(2.0, about="ratio of losses, PGD's to FGSM's, above which FGSM is given up", gt=1)
    steps: int = parameter(5, unit="steps", about="steps of PGD, in the check and where FGSM is given up", ge=2)

    def adversarial_loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the cross-entropy on x′."""
        single = IterativeFGSM(
            epsilon=self.epsilon, alpha=self.alpha * self.epsilon, steps=1, random_start=self.epsilon
        )
        several = PGD(epsilon=self.epsilon, steps=self.steps)
        if step % self.check_every == 0:
            losses = [self._loss(model, batch, attack) for attack in (single, several)]
            batch.kept[LOST] = losses[1] > self.tolerance * losses[0]
        x = self._crafted(model, batch, several if batch.kept.get(LOST) else single)
        return functional.cross_entropy(model.outputs(x, batch.lengths, self.domain).logits, batch.labels)

    def _crafted(self, model: EmotionModel, batch: TrainingBatch, attack: Attack) -> Tensor:
        return craft(model, batch, attack, self.domain, batch.labels)

    @torch.no_grad()
    def _loss(self, model: EmotionModel, batch: TrainingBatch, attack: Attack) -> Tensor:
        """Return the mean loss on what an attack makes of a batch, in evaluation mode."""
        x = self._crafted(model, batch, attack)
        with Target(model, batch.lengths, self.domain) as target:
            return target.loss(x, batch.labels).mean()


class Free(AdversarialTraining):
    """Free adversarial training: each batch m times in a row, on x + δ, where δ moves with the weights' own gradient.

    After each step δ ← clip(δ + ε sign(∇_δ L), −ε, ε), with the gradient of the same backward pass, so that a step
    costs no more than one of plain training; δ is kept from batch to batch. Each of the training's iterations is one
    such step: the same number of them shows m times fewer batches than plain training does.
    """

    citation: ClassVar[str] = (
        "Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor, Goldstein: Adversarial training for free!, "
        "NeurIPS 2019, alg. 1"
    )

    epsilon: float = parameter(unit="full-scale or z", about="L∞ budget ε", ge=0)
    replays: int = parameter(4, unit="steps", about="m, how often each batch is trained on in a row", ge=1)

    def showings(self) -> int:
        """Return m."""
        return self.replays

    def adversarial_loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the cross-entropy on x + δ.

        Raises:
            ContractError: if the front end hears another part of the clip each time that it is shown.
        """
        if model.frontend.varies_in_training:
            raise ContractError(
                f"defense 'free': got {type(model.frontend).__name__}, which hears another part of a clip at each "
                "step, expected a front end that hears the same"
            )
        x = batch.inputs(self.domain)
        delta = self._perturbation(batch.kept.get(PERTURBATION), x).requires_grad_()
        batch.kept[PERTURBATION] = delta
        with torch.no_grad():
            mask = batch.mask(model, self.domain)
        perturbed = admit(x + delta, x, mask, self.domain, None)
        return functional.cross_entropy(model.outputs(perturbed, batch.lengths, self.domain).logits, batch.labels)

    def _perturbation(self, before: Tensor | None, x: Tensor) -> Tensor:
        """Return δ in the shape of ``x``: that of the step before, moved along its gradient; at first 0."""
        if before is None:
            return torch.zeros_like(x)
        moved = before.detach()
        if before.grad is not None:
            moved = (moved + self.epsilon * before.grad.sign()).clamp(-self.epsilon, self.epsilon)
        # Sound is as long as the longest clip of its batch.
        missing = x.shape[-1] - moved.shape[-1]
        return functional.pad(moved, (0, missing)) if missing > 0 else moved[..., : x.shape[-1]].clone()
