"""Training against the strongest perturbation of an attack: Madry's method, TRADES and MART."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from advser.attacks.reference import AttackReference
from advser.defenses.adversarial_training import AdversarialTraining, TrainingOnPairs
from advser.defenses.base import TrainingBatch, craft
from advser.models.base import EmotionModel, Outputs
from advser.plugins.parameters import parameter


class Madry(AdversarialTraining):
    """Adversarial training on x′ alone: L(x′, y), where x′ is crafted with the true labels.

    The source crafts x′ by PGD with a random start: ``pgd``, or the cheaper ``ifgsm`` with ``random_start``.
    """

    citation: ClassVar[str] = (
        "Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks, "
        "ICLR 2018, eq. 2.1"
    )

    attack: AttackReference = parameter(about="the attack that crafts x′")

    def adversarial_loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the cross-entropy on x′."""
        x = craft(model, batch, self.attack.build(), self.domain, batch.labels)
        return functional.cross_entropy(model.outputs(x, batch.lengths, self.domain).logits, batch.labels)


class Trades(TrainingOnPairs):
    """TRADES: L(x, y) + λ KL(p(x) ‖ p(x′)), where x′ maximises that divergence.

    The attack gets p(x), the model's probabilities, as soft labels. Their cross-entropy with p(x′) differs from the
    divergence by the entropy of p(x) alone, which does not depend on x′: the gradients are equal. At x′ = x this
    gradient is 0 but for rounding. The attack must therefore start at random (in the source within 0.001 of x), as
    ``pgd`` does, or ``ifgsm`` with ``random_start``.
    """

    citation: ClassVar[str] = (
        "Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan: Theoretically principled trade-off between robustness and accuracy, "
        "ICML 2019"
    )
    given: ClassVar[Literal["true", "predicted", "soft"]] = "soft"

    weight: float = parameter(6.0, about="weight λ of the divergence (1 / λ in the source)", ge=0)

    def objective(self, clean: Outputs, adversarial: Outputs, labels: Tensor) -> Tensor:
        """Return the weighted loss."""
        loss = functional.cross_entropy(clean.logits, labels)
        return loss + self.weight * divergence(clean.logits, adversarial.logits).mean()


class Mart(TrainingOnPairs):
    """MART: BCE(x′, y) + λ KL(p(x) ‖ p(x′)) · (1 − p_y(x)); x′ is crafted with the true labels.

    BCE is −log p_y(x′) − log(1 − max p_k(x′)) over the other classes k ≠ y. The divergence counts less the more
    confident the model is in the label of the clean clip.
    """

    citation: ClassVar[str] = (
        "Wang, Zou, Yi, Bailey, Ma, Gu: Improving adversarial robustness requires revisiting misclassified examples, "
        "ICLR 2020"
    )
    given: ClassVar[Literal["true", "predicted", "soft"]] = "true"

    weight: float = parameter(5.0, about="weight λ of the divergence", ge=0)

    def objective(self, clean: Outputs, adversarial: Outputs, labels: Tensor) -> Tensor:
        """Return the weighted loss."""
        uncertainty = 1 - clean.logits.float().softmax(1).gather(1, labels[:, None]).squeeze(1)
        weighted = divergence(clean.logits, adversarial.logits) * uncertainty
        return boosted_cross_entropy(adversarial.logits, labels).mean() + self.weight * weighted.mean()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence KL(p ‖ q) per clip (B,), in nats, of distributions given as logits."""
    logs = [logits.float().log_softmax(1) for logits in (p, q)]
    return functional.kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(1)


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return −log p_y − log(1 − max p_k) over k ≠ y, per clip (B,), of logits (B, C)."""
    logs = logits.float().log_softmax(1)
    own = logs.gather(1, labels[:, None]).squeeze(1)
    rival = logs.scatter(1, labels[:, None], -torch.inf).argmax(1)
    # 1 − p as the sum of the other classes' probabilities is exact for p near 1.
    rest = logs.scatter(1, rival[:, None], -torch.inf).logsumexp(1)
    return -own - rest
