"""Attacks along the sign of the gradient: FGSM, iterative FGSM, and PGD."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.steepest import ascended, random_start
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm, gradient_steps, step_size
from advser.threat.budget import per_clip, scale
from advser.threat.model import Norm
from advser.threat.target import Target


class FGSM(Attack):
    """Fast gradient sign method: one step of size ε along the sign of the gradient.

    x′ = clip(x + ε · sign(∇ₓ L(x, y)), x − η, x + η)
    """

    citation: ClassVar[str] = (
        "Goodfellow, Shlens, Szegedy: Explaining and harnessing adversarial examples, ICLR 2015; "
        "clip η as in Ren et al., ICASSP 2020"
    )

    single_step: ClassVar[bool] = True

    epsilon: float = budget(unit="full-scale or z", about="step size ε and L∞ budget")
    clip: float | None = parameter(None, unit="full-scale or z", about="largest change η; none: ε", gt=0)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` after the step."""
        change = self.epsilon * target.gradient(x, labels).sign()
        return x + (change if self.clip is None else change.clamp(-self.clip, self.clip))


class IterativeFGSM(Attack):
    """Iterative FGSM (BIM): steps of size α along the sign of the gradient, each projected to the budget.

    x₍ₖ₊₁₎ = Π_ε(x₍ₖ₎ + α · sign(∇ L(x₍ₖ₎, y))). L2 norms use each clip's ∇L / ‖∇L‖₂ instead of the sign; in
    ``relative-l2``, ε and α are multiples of the clip's L2 norm. Without ε there is no projection, as in Wijayasingha
    2019. With soft labels the gradient at the clean clip is 0 up to rounding (p − p): use ``random_start``.
    """

    citation: ClassVar[str] = (
        "Kurakin, Goodfellow, Bengio: Adversarial examples in the physical world, ICLR workshop 2017, eq. 2; "
        "unprojected: Wijayasingha, Hiding emotions in plain sight, 2019"
    )

    bf16: ClassVar[bool] = True

    epsilon: float | None = budget(None, unit="full-scale, z or clip", about="budget ε; none: no projection")
    norm: Norm = budget_norm(about="norm of the budget and of the steps")
    alpha: float | None = step_size(None, about="step size α; none: 2.5 ε / steps")
    steps: int = gradient_steps(10, ge=0)
    random_start: float = parameter(
        0.0,
        unit="full-scale or z",
        about="half-width of the uniform noise at the start",
        ge=0,
    )

    @model_validator(mode="after")
    def _has_step_size(self) -> Self:
        if self.epsilon is None and self.alpha is None:
            raise ValueError("got neither epsilon nor alpha, expected at least one of them")
        return self

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` after all steps."""
        alpha = self.alpha if self.alpha is not None else 2.5 * (self.epsilon or 0) / max(self.steps, 1)
        size, project = alpha * scale(x, self.norm), self.projection(x, target.domain)
        perturbed = x
        if self.random_start:
            perturbed = project(random_start(x, target, "linf", self.random_start, generator))
        for _ in range(self.steps):
            gradient = target.gradient(perturbed, labels)
            perturbed = project(ascended(perturbed, gradient, size, self.norm, into=gradient), into=gradient)
        return perturbed


class PGD(Attack):
    """Projected gradient descent: `IterativeFGSM` from random starts; returns each clip's best iterate.

    The best iterate has the highest loss over all restarts. A restart costs steps + 1 forward and steps backward
    passes.
    """

    citation: ClassVar[str] = (
        "Madry et al.: Towards deep learning models resistant to adversarial attacks, ICLR 2018, sec. 2.1"
    )

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε")
    norm: Norm = budget_norm(about="norm of the budget and of the steps")
    alpha: float | None = step_size(None, about="step size α; none: 2.5 ε / steps")
    steps: int = gradient_steps(10, about="steps per restart")
    restarts: int = parameter(1, unit="runs", about="random starts in the budget", ge=1)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return each clip's iterate of the highest loss."""
        best, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
        alpha = 2.5 * self.epsilon / self.steps if self.alpha is None else self.alpha
        size, project = alpha * scale(x, self.norm), self.projection(x, target.domain)
        for _ in range(self.restarts):
            perturbed = random_start(x, target, self.norm, self.epsilon, generator)
            for step in range(self.steps + 1):
                if step < self.steps:
                    loss, gradient = target.loss_and_gradient(perturbed, labels)
                else:
                    loss = target.loss(perturbed, labels)
                better = loss > highest
                highest = torch.where(better, loss, highest)
                best = torch.where(per_clip(better, x), perturbed, best)
                if step < self.steps:
                    perturbed = project(ascended(perturbed, gradient, size, self.norm, into=gradient), into=gradient)
        return best
