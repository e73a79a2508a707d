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

OVERFITTED: Final = "fast: overfitted to FGSM"
PERTURBATION: Final = "free: perturbation"


class Fast(AdversarialTraining):
    """Fast adversarial training: L(x′, y), where x′ is one FGSM step from a random start, with the true labels.

    x′ = clip(x + n + α ε sign(∇L), x − ε, x + ε), with n uniform on [−ε, ε]. A model can overfit to this step
    (catastrophic overfitting): it is robust to the step alone, and its loss is far higher after several steps.
    Therefore PGD attacks the batch every ``check_every`` steps, first at the step after the warm-up. If the loss under
    PGD exceeds ``tolerance`` times that under FGSM, PGD crafts x′ until a later check is within the tolerance. The
    source stops the training instead when the accuracy under PGD drops.
    """

    citation: ClassVar[str] = (
        "Wong, Rice, Kolter: Fast is better than free: revisiting adversarial training, ICLR 2020, alg. 3; the check "
        "by PGD is of this project, against the overfitting of sec. 5.4"
    )

    epsilon: float = parameter(unit="full-scale or z", about="L∞ budget ε", gt=0)
    alpha: float = parameter(1.25, unit="ε", about="step size", gt=0)
    check_every: int = parameter(25, unit="steps", about="steps between checks", ge=1)
    tolerance: float = parameter(2.0, about="ratio of PGD's loss to FGSM's above which PGD crafts x′", gt=1)
    steps: int = parameter(5, unit="steps", about="steps of PGD, in the check and for x′", ge=2)

    def adversarial_loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the cross-entropy on x′."""
        single = IterativeFGSM(
            epsilon=self.epsilon, alpha=self.alpha * self.epsilon, steps=1, random_start=self.epsilon
        )
        several = PGD(epsilon=self.epsilon, steps=self.steps)
        if step % self.check_every == 0:
            losses = [self._loss(model, batch, attack) for attack in (single, several)]
            batch.kept[OVERFITTED] = losses[1] > self.tolerance * losses[0]
        x = self._crafted(model, batch, several if batch.kept.get(OVERFITTED) else single)
        return functional.cross_entropy(model.outputs(x, batch.lengths, self.domain).logits, batch.labels)

    def _crafted(self, model: EmotionModel, batch: TrainingBatch, attack: Attack) -> Tensor:
        return craft(model, batch, attack, self.domain, batch.labels)

    @torch.no_grad()
    def _loss(self, model: EmotionModel, batch: TrainingBatch, attack: Attack) -> Tensor:
        """Return the mean loss on the attack's result for a batch, in evaluation mode."""
        x = self._crafted(model, batch, attack)
        with Target(model, batch.lengths, self.domain) as target:
            return target.loss(x, batch.labels).mean()


class Free(AdversarialTraining):
    """Free adversarial training: m consecutive steps on each batch x + δ; a backward pass updates δ and the weights.

    δ ← clip(δ + ε sign(∇_δ L), −ε, ε) after each step, so that a step costs as much as in undefended training. The
    next batch starts from the last δ. Every step counts as an iteration of the training: in the same number of
    iterations the model sees m times fewer batches.
    """

    citation: ClassVar[str] = (
        "Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor, Goldstein: Adversarial training for free!, "
        "NeurIPS 2019, alg. 1"
    )

    epsilon: float = parameter(unit="full-scale or z", about="L∞ budget ε", ge=0)
    replays: int = parameter(4, unit="steps", about="m, number of consecutive steps on each batch", ge=1)

    def showings(self) -> int:
        """Return m."""
        return self.replays

    def adversarial_loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the cross-entropy on x + δ.

        Raises:
            ContractError: if the front end crops each clip at random.
        """
        if model.frontend.varies_in_training:
            raise ContractError(
                f"defense 'free': got {type(model.frontend).__name__}, which crops each clip at random, expected a "
                "front end that returns the same part of a clip at each step"
            )
        x = batch.inputs(self.domain)
        delta = self._perturbation(batch.kept.get(PERTURBATION), x).requires_grad_()
        batch.kept[PERTURBATION] = delta
        with torch.no_grad():
            mask = batch.mask(model, self.domain)
        perturbed = admit(x + delta, x, mask, self.domain, None)
        return functional.cross_entropy(model.outputs(perturbed, batch.lengths, self.domain).logits, batch.labels)

    def _perturbation(self, before: Tensor | None, x: Tensor) -> Tensor:
        """Return δ in the shape of ``x``: 0 at first, then the last step's δ, moved along its gradient."""
        if before is None:
            return torch.zeros_like(x)
        moved = before.detach()
        if before.grad is not None:
            moved = (moved + self.epsilon * before.grad.sign()).clamp(-self.epsilon, self.epsilon)
        # A batch of sound is as long as its longest clip.
        missing = x.shape[-1] - moved.shape[-1]
        return functional.pad(moved, (0, missing)) if missing > 0 else moved[..., : x.shape[-1]].clone()
