"""Expectation over transformation: an attack on the mean answer of a randomised model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import model_validator
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.reference import AttackReference, ascends, with_budget
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm
from advser.threat.model import Norm
from advser.threat.objectives import Loss
from advser.threat.passes import Ascent
from advser.threat.target import Target


class Averaged(Target):
    """A target whose answers are means over several evaluations; every pass counts.

    Decisions are the classes of the highest mean logits.
    """

    def __init__(self, target: Target, draws: int) -> None:
        # Shared with the target: its counters, its reference embeddings, and the state of its draws.
        vars(self).update(vars(target), _ahead=None)
        self.draws = draws

    def logits(self, x: Tensor) -> Tensor:
        """Return mean logits (B, C)."""
        return self._mean(lambda: super(Averaged, self).logits(x))

    def decisions(self, x: Tensor) -> Tensor:
        """Return the classes (B,) of the highest mean logits."""
        self._grant("decisions", "white-box", "scores", "decisions")
        return self._mean(lambda: self._outputs(x).logits).argmax(1)

    def embedding(self, x: Tensor) -> Tensor:
        """Return mean embeddings (B, D)."""
        return self._mean(lambda: super(Averaged, self).embedding(x))

    def loss(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Tensor:
        """Return each clip's mean loss (B,)."""
        return self._mean(lambda: super(Averaged, self).loss(x, labels, loss))

    def loss_and_gradient(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean loss and gradient."""
        values = self.ascent(x, labels, loss)
        return values.loss, values.gradient

    def ascent(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Ascent:
        """Return the mean loss, gradient and margin."""
        means = _means(self.draws, lambda: _parts(super(Averaged, self).ascent(x, labels, loss)))
        return Ascent(*means)

    def feature_gradient(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean features and the mean gradient with respect to them."""
        features, gradient = _means(self.draws, lambda: super(Averaged, self).feature_gradient(x, labels))
        return features, gradient

    def _mean(self, evaluate: Callable[[], Tensor]) -> Tensor:
        return _means(self.draws, lambda: (evaluate(),))[0]


def _parts(values: Ascent) -> tuple[Tensor, ...]:
    return values.loss, values.gradient, values.margin


def _means(draws: int, evaluate: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the mean of each tensor over several evaluations; the mean of equal tensors is equal bit by bit."""
    means = evaluate()
    for number in range(2, draws + 1):
        means = tuple(mean + (part - mean) / number for mean, part in zip(means, evaluate(), strict=True))
    return means


class EOT(Attack):
    """Any attack on a randomised model, with losses, gradients and logits averaged over several evaluations.

    ∇ E[L(f(x), y)] ≈ 1/n Σ ∇ L(fᵢ(x), y). The average covers the target's answers alone: an attack that uses the
    model's front end gets it without averaging. On a deterministic model the result is that of the attack within, at
    ``draws`` times the passes.
    """

    citation: ClassVar[str] = (
        "Athalye, Carlini, Wagner: Obfuscated gradients give a false sense of security, ICML 2018, sec. 5.3; "
        "Athalye et al.: Synthesizing robust adversarial examples, ICML 2018"
    )

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε of the attack within")
    norm: Norm = budget_norm(about="norm of the budget")
    attack: AttackReference = parameter(None, about="the attack within, without epsilon and norm; none: pgd")
    draws: int = parameter(10, unit="evaluations", about="evaluations per answer", ge=1)

    @model_validator(mode="before")
    @classmethod
    def _share(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("epsilon"), (int, float)):
            return data
        attack = data.get("attack") or {"name": "pgd"}
        return {**data, "attack": with_budget(attack, data["epsilon"], data.get("norm", "linf"))}

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Return whether the attack within ascends the suite's objective."""
        return not params.get("attack") or ascends(params["attack"])

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the examples of the attack within.

        Raises:
            InputError: if it does not run in the domain.
        """
        attack = self.attack.build_for(target.domain)
        return attack.perturb(Averaged(target, self.draws), x, labels, generator)
