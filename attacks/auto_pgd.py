"""Auto-PGD: projected gradient ascent with momentum and adaptive step sizes, untargeted and targeted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.best import Best, stronger
from advser.attacks.steepest import ascended, random_start
from advser.models.base import Outputs
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm, gradient_steps
from advser.threat.budget import per_clip, scale
from advser.threat.model import Norm
from advser.threat.objectives import TINY, Loss, classes, cross_entropy, difference_of_logits_ratio, margin
from advser.threat.passes import Ascent
from advser.threat.target import Target

SOURCE: Final = (
    "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, "
    "ICML 2020"
)

MOMENTUM: Final = 0.75
"""α of the source: weight of the new step; the previous step has the weight 1 − α."""

LOSSES: Final[dict[str, Loss]] = {
    "cross-entropy": cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}


OBJECTIVE: Final = "objective"
"""Value of `APGD.loss` for the suite's objective."""


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size may be halved, with 0 first (sec. 3.1 of the source).

    They are ⌈pⱼ · steps⌉ with p₀ = 0, p₁ = .22, p₍ⱼ₊₁₎ = pⱼ + max(pⱼ − p₍ⱼ₋₁₎ − .03, .06).
    """
    parts = [0.0, 0.22]
    while parts[-1] < 1:
        parts.append(parts[-1] + max(parts[-1] - parts[-2] - 0.03, 0.06))
    # 1e-9, because rounding errors in the sum must not raise a whole number of steps to the next.
    return sorted({ceil(part * steps - 1e-9) for part in parts if part <= 1})


@dataclass(frozen=True)
class _Point:
    """Inputs (B, …) with their loss, gradient and margin."""

    x: Tensor
    values: Ascent

    def where(self, rows: Tensor, other: _Point) -> _Point:
        """Return these points, replaced by the other points in the clips ``rows`` (B,), a mask."""
        own, others = self.values, other.values
        return _Point(
            torch.where(per_clip(rows, self.x), other.x, self.x),
            Ascent(
                torch.where(rows, others.loss, own.loss),
                torch.where(per_clip(rows, own.gradient), others.gradient, own.gradient),
                torch.where(rows, others.margin, own.margin),
            ),
        )

    def stronger(self, other: _Point) -> Tensor:
        """Return where these points are `stronger` than the other points (B,)."""
        return stronger(self.values.margin, self.values.loss, other.values.margin, other.values.loss)


class AutoPGD(Attack, ABC):
    """Base of the untargeted and the targeted attack: algorithm 1 of the source."""

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε")
    norm: Norm = budget_norm(about="norm of the budget")
    steps: int = gradient_steps(100, about="steps per run")
    restarts: int = parameter(1, unit="runs", about="random starts", ge=1)
    rho: float = parameter(0.75, unit="share of steps", about="steps that must raise the loss, ρ", ge=0, le=1)

    @abstractmethod
    def _aim(self, target: Target) -> Loss:
        """Return the loss that compares examples (`Best`)."""

    @abstractmethod
    def _runs(self, target: Target, x: Tensor, labels: Tensor) -> Iterator[Callable[[Tensor], Loss]]:
        """Yield, for each run, a function that returns the loss to ascend for clips of the batch (indices (b,))."""

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Run the attack: first on all clips, then again on the clips that are still robust."""
        if self.epsilon == 0:
            return x
        best = Best(self, target, x, labels, self._aim(target))
        for loss_of in self._runs(target, x, labels):
            rows = best.robust
            if not len(rows):
                break
            part, start = target.at(rows), x[rows]
            best.offer(rows, self._climb(part, start, labels[rows], loss_of(rows), generator))
        return best.examples

    def _climb(self, target: Target, x: Tensor, labels: Tensor, loss: Loss, generator: torch.Generator) -> Tensor:
        """Return the best iterate of each clip in one run of algorithm 1: steps + 1 forward and backward passes."""
        start = self.admitted(random_start(x, target, self.norm, self.epsilon, generator), x, target)
        now = top = strongest = _Point(start, target.ascent(start, labels, loss))
        before = start
        size = 2 * self.epsilon * scale(x, self.norm)
        rises, halved, last_top = torch.zeros_like(size), torch.ones_like(size, dtype=torch.bool), top.values.loss
        corners = checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            moved = self.admitted(ascended(now.x, now.values.gradient, size, self.norm), x, target)
            momentum = MOMENTUM * (moved - now.x) + (1 - MOMENTUM) * (now.x - before)
            moved = moved if step == 1 else self.admitted(now.x + momentum, x, target)
            before, old, now = now.x, now, _Point(moved, target.ascent(moved, labels, loss))
            rises = rises + (now.values.loss > old.values.loss)
            top = top.where(now.values.loss > top.values.loss, now)
            strongest = strongest.where(now.stronger(strongest), now)
            if step in corners:
                length = step - corners[corners.index(step) - 1]
                stuck = (rises < self.rho * length) | (~halved & (top.values.loss <= last_top))
                size = torch.where(stuck, size / 2, size)
                now = now.where(stuck, top)
                rises, halved, last_top = torch.zeros_like(rises), stuck, top.values.loss
        # If the model draws at random, a single misclassification may be luck.
        return top.x if target.randomised else strongest.x


class APGD(AutoPGD):
    """Auto-PGD: steepest ascent with momentum; the step size is halved where the loss stops rising.

    z = Π(x₍ₖ₎ + η · d(∇L(x₍ₖ₎))), x₍ₖ₊₁₎ = Π(x₍ₖ₎ + ¾ (z − x₍ₖ₎) + ¼ (x₍ₖ₎ − x₍ₖ₋₁₎)), where d is the direction of
    steepest ascent in the norm, and initially η = 2 ε. At a checkpoint, a clip's η is halved and its search restarts
    from the point of its highest loss under either of two conditions. The loss rose in fewer than ρ of the steps since
    the last checkpoint; or η was not halved there, and the highest loss has not changed since.

    Losses: the suite's ``objective``, ``cross-entropy``, ``margin``, or ``dlr``. The last divides the margin by the
    difference of the highest and third-highest logit; with two classes it is the margin.

    A misclassified iterate is better than any correctly classified one, unless the model draws at random. If
    misclassification is the only aim, further restarts run on the clips that are still robust after 16-bit rounding,
    and the example of the highest margin is kept. Otherwise every clip takes all restarts. A run costs steps + 1
    forward and backward passes, and a forward pass that evaluates the result.
    """

    citation: ClassVar[str] = f"{SOURCE}, alg. 1, eq. 6"

    loss: Literal["objective", "cross-entropy", "margin", "dlr"] = parameter(OBJECTIVE, about="loss to ascend")

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Return whether ``loss`` is the suite's objective."""
        return bool(params.get("loss", OBJECTIVE) == OBJECTIVE)

    def _aim(self, target: Target) -> Loss:
        return LOSSES.get(self.loss, target.objective)

    def _runs(self, target: Target, x: Tensor, labels: Tensor) -> Iterator[Callable[[Tensor], Loss]]:
        for _ in range(self.restarts):
            yield lambda rows: self._aim(target)


class APGDTargeted(AutoPGD):
    """Targeted Auto-PGD: `APGD` towards one class after another, starting with the highest clean logit.

    With four or more classes it ascends the targeted DLR, (z_t − z_y) / (z₍₁₎ − (z₍₃₎ + z₍₄₎) / 2), where z₍ᵢ₎ is the
    i-th highest logit; with fewer classes, z_t − z_y. Misclassification as any class counts: a misclassified iterate is
    better than any other, a clip that is misled after 16-bit rounding takes no further run, and the example of the
    highest margin over all runs is kept. Soft labels count as their most probable class. The suite's ``objective`` has
    no effect.
    """

    citation: ClassVar[str] = f"{SOURCE}, eq. 7"

    targets: int = parameter(9, unit="classes", about="target classes, limited to those that exist", ge=1)

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Return False: the attack has its own loss for each class."""
        return False

    def _aim(self, target: Target) -> Loss:
        return margin

    def _runs(self, target: Target, x: Tensor, labels: Tensor) -> Iterator[Callable[[Tensor], Loss]]:
        logits = target.logits(x)
        others = logits.scatter(1, classes(labels)[:, None], -torch.inf)
        ranked = others.argsort(1, descending=True)[:, : min(self.targets, logits.shape[1] - 1)]
        for _ in range(self.restarts):
            for aims in ranked.T:
                yield partial(_towards_of, aims)


def _towards_of(aims: Tensor, rows: Tensor) -> Loss:
    return partial(towards, aims=aims[rows])


def towards(outputs: Outputs, labels: Tensor, aims: Tensor) -> Tensor:
    """Return the targeted DLR of each clip (B,) for target classes ``aims`` (B,); below four classes z_t − z_y."""
    logits = outputs.logits
    pull = (logits.gather(1, aims[:, None]) - logits.gather(1, classes(labels)[:, None])).squeeze(1)
    if logits.shape[1] < 4:
        return pull
    highest = logits.topk(4, dim=1).values
    return pull / (highest[:, 0] - highest[:, 2:].mean(1) + TINY)
